//! Gauges are read from the router when they are scraped: there is nothing to keep in step.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use tokio::runtime::Handle;
use vorrang_gateway::{DeploymentLimits, GroupView, Router};
use vorrang_scheduler::{GroupStatus, LimitKind};

use crate::{certificates::Certificates, connection::slots::Slots, traces::SpanCounts};

#[derive(Debug)]
pub(crate) struct Gauges {
    pub(crate) router: Router,
    pub(crate) slots: Arc<Slots>,
    pub(crate) spans: Arc<SpanCounts>,
    pub(crate) certificates: Option<Arc<Certificates>>,
}

/// One gauge of a group: name, help, value.
type OfGroup = (&'static str, &'static str, fn(&GroupStatus) -> u64);

const OF_GROUP: [OfGroup; 9] = [
    ("waiting", "Tickets waiting on this instance", |status| {
        status.waiting as u64
    }),
    (
        "queue_depth",
        "Tickets waiting in the whole fleet",
        |status| status.depth,
    ),
    ("in_flight", "Permits out on this instance", |status| {
        status.in_flight as u64
    }),
    (
        "group_ready",
        "1: this instance has an open session in the group",
        |status| u64::from(status.ready),
    ),
    (
        "redis_away",
        "1: Redis is away, and this instance serves the group alone",
        |status| u64::from(status.away),
    ),
    (
        "configurations",
        "Different configurations that instances of the group have",
        |status| status.configurations,
    ),
    (
        "paused",
        "1: an operator has paused the group, and nothing is granted",
        |status| u64::from(status.overrides.paused),
    ),
    (
        "paused_keys",
        "Keys that an operator has paused in the group",
        |status| status.overrides.keys.len() as u64,
    ),
    (
        "changed_limits",
        "Limits that an operator has changed until further notice",
        |status| status.overrides.limits.len() as u64,
    ),
];

/// What is used, or may be used, of one deployment.
struct Amount<'a> {
    deployment: &'a str,
    kind: &'static str,
    /// The length of the window; `None` for open calls.
    window: Option<Duration>,
    value: u64,
}

type Amounts = for<'a> fn(&'a GroupView) -> Vec<Amount<'a>>;

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let groups = self.router.groups();
        let mut metric = encoder.encode_descriptor(
            "config_version",
            "1: the configuration in force, by the text of its files",
            None,
            MetricType::Gauge,
        )?;
        let version = [("version", &*self.router.config().version)];
        ConstGauge::new(1_u64).encode(metric.encode_family(&version)?)?;
        for (name, help, value) in OF_GROUP {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for group in &groups {
                let labels = [("group", group.name.as_str())];
                ConstGauge::new(value(&group.status)).encode(metric.encode_family(&labels)?)?;
            }
        }
        self.encode_places(&mut encoder)?;
        encode_tasks(&mut encoder)?;
        self.encode_spans(&mut encoder)?;
        self.encode_certificate(&mut encoder)?;
        let mut metric = encoder.encode_descriptor(
            "round_trip_seconds",
            "The shortest of the last eight round trips to the backend",
            None,
            MetricType::Gauge,
        )?;
        for group in &groups {
            let labels = [("group", group.name.as_str())];
            if let Some(time) = group.status.round_trip {
                ConstGauge::new(time.as_secs_f64()).encode(metric.encode_family(&labels)?)?;
            }
        }
        let of_deployment: [(&str, &str, Amounts); 3] = [
            ("used", "What the fleet uses of a deployment", used),
            ("limit", "What the fleet may use of a deployment", |group| {
                amounts(&group.limits)
            }),
            (
                "reserve",
                "What the reserve keeps of it for better priorities",
                |group| amounts(&group.reserve),
            ),
        ];
        for (name, help, amounts) in of_deployment {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for group in &groups {
                for amount in amounts(group) {
                    let seconds = amount.window.map(|window| window.as_secs_f64().to_string());
                    let mut labels = vec![
                        ("group", group.name.as_str()),
                        ("deployment", amount.deployment),
                        ("kind", amount.kind),
                    ];
                    labels.extend(seconds.iter().map(|text| ("window_seconds", text.as_str())));
                    let labels = labels.as_slice();
                    ConstGauge::new(amount.value).encode(metric.encode_family(&labels)?)?;
                }
            }
        }
        let mut metric = encoder.encode_descriptor(
            "cooling_seconds",
            "How long a deployment still cools down; 0: it does not",
            None,
            MetricType::Gauge,
        )?;
        for group in &groups {
            for (limits, status) in group.limits.iter().zip(&group.status.deployments) {
                let labels = [
                    ("group", group.name.as_str()),
                    ("deployment", limits.id.as_str()),
                ];
                let left = status.cooling.unwrap_or_default().as_secs_f64();
                ConstGauge::new(left).encode(metric.encode_family(&labels)?)?;
            }
        }
        let mut metric = encoder.encode_descriptor(
            "pace_seconds",
            "For how long pacing still holds whom it holds; 0: it does not",
            None,
            MetricType::Gauge,
        )?;
        for group in groups.iter().filter(|group| group.paced) {
            for (limits, status) in group.limits.iter().zip(&group.status.deployments) {
                let labels = [
                    ("group", group.name.as_str()),
                    ("deployment", limits.id.as_str()),
                ];
                let left = status.pace.as_secs_f64();
                ConstGauge::new(left).encode(metric.encode_family(&labels)?)?;
            }
        }
        let mut metric = encoder.encode_descriptor(
            "head_waits_for",
            "1: the first in the queue waits for this",
            None,
            MetricType::Gauge,
        )?;
        for group in &groups {
            for (reason, holds) in group.status.reasons.all() {
                let labels = [("group", group.name.as_str()), ("reason", reason)];
                let value = u64::from(holds);
                ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Gauges {
    fn encode_places(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let metric = encoder.encode_descriptor(
            "places",
            "Client connections and calls that there are file descriptors for",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(self.slots.total() as u64).encode(metric)?;
        let mut metric = encoder.encode_descriptor(
            "places_used",
            "Client connections and calls that are open",
            None,
            MetricType::Gauge,
        )?;
        let (connections, calls) = self.slots.used();
        for (kind, used) in [("connection", connections), ("call", calls)] {
            let labels = [("kind", kind)];
            ConstGauge::new(used as u64).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Nothing where no listener speaks TLS.
    fn encode_certificate(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(certificates) = &self.certificates else {
            return Ok(());
        };
        let metric = encoder.encode_descriptor(
            "tls_certificate_expiry_timestamp_seconds",
            "When the listeners' certificate expires, in seconds since 1970",
            None,
            MetricType::Gauge,
        )?;
        let expires = certificates.expires().duration_since(UNIX_EPOCH);
        let seconds = expires.map_or(0, |since| since.as_secs());
        ConstGauge::new(seconds).encode(metric)
    }

    /// Nothing where traces are off.
    fn encode_spans(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let spans = &self.spans;
        if !spans.on.load(Relaxed) {
            return Ok(());
        }
        let mut metric = encoder.encode_descriptor(
            "spans",
            "Spans of traces by what became of them",
            None,
            MetricType::Counter,
        )?;
        for (outcome, count) in [
            ("exported", &spans.exported),
            ("failed", &spans.failed),
            ("dropped", &spans.dropped),
        ] {
            let labels = [("outcome", outcome)];
            ConstCounter::new(count.load(Relaxed)).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Of the runtime that answers the scrape. Nothing outside of one.
fn encode_tasks(encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let Ok(runtime) = Handle::try_current() else {
        return Ok(());
    };
    let metric = encoder.encode_descriptor(
        "tasks",
        "Tasks of this process that have not ended",
        None,
        MetricType::Gauge,
    )?;
    let tasks = runtime.metrics().num_alive_tasks() as u64;
    ConstGauge::new(tasks).encode(metric)
}

fn used(group: &GroupView) -> Vec<Amount<'_>> {
    let deployments = group.limits.iter().zip(&group.status.deployments);
    deployments
        .flat_map(|(of, status)| {
            // The fleet's use is known of the longest window only.
            let windows = of.limits.iter().filter(|limit| limit.is_window());
            let window = windows.map(|limit| limit.length).max();
            let amount = |(kind, window, value): (LimitKind, _, _)| Amount {
                deployment: &of.id,
                kind: kind.word(),
                window,
                value,
            };
            [
                (LimitKind::Requests, window, status.requests),
                (LimitKind::Tokens, window, status.tokens.total()),
                (LimitKind::InputTokens, window, status.tokens.input),
                (LimitKind::OutputTokens, window, status.tokens.output),
                (LimitKind::Concurrency, None, status.in_flight),
            ]
            .map(amount)
        })
        .collect()
}

fn amounts(of: &[DeploymentLimits]) -> Vec<Amount<'_>> {
    of.iter().flat_map(amounts_of).collect()
}

fn amounts_of(of: &DeploymentLimits) -> impl Iterator<Item = Amount<'_>> {
    of.limits.iter().map(|limit| Amount {
        deployment: &of.id,
        kind: limit.word(),
        window: limit.is_window().then_some(limit.length),
        value: limit.limit,
    })
}
