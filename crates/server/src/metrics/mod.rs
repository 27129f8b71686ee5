//! What `/metrics` shows. All names start with `vorrang_` but those of [`gen_ai`].

mod gauges;
pub(crate) mod gen_ai;
mod known;
pub(crate) mod shadow;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use vorrang_gateway::{Events, FallbackReason, PriorityClass, Router, WaitOutcome};
use vorrang_scheduler::Observer;

use self::{
    gauges::Gauges,
    gen_ai::GenAi,
    known::{ByName, DeploymentSeries, GroupSeries, kept},
    shadow::{ShadowMetrics, ShadowSlot},
};
use crate::{certificates::Certificates, connection::slots::Slots, traces::SpanCounts};

/// The content type of [`Metrics::render`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type HistogramFamily<Labels> = Family<Labels, Histogram, fn() -> Histogram>;

/// Counts what happens, as the scheduler's [`Observer`] and the gateway's [`Events`].
#[derive(Debug)]
pub(crate) struct Metrics {
    granted: Family<GroupLabels, Counter>,
    refused: Family<RefusedLabels, Counter>,
    waits: HistogramFamily<WaitLabels>,
    steps: Family<GroupLabels, Counter>,
    step_ops: HistogramFamily<GroupLabels>,
    step_seconds: HistogramFamily<GroupLabels>,
    resyncs: Family<GroupLabels, Counter>,
    recoveries: Family<GroupLabels, Counter>,
    expired: Family<GroupLabels, Counter>,
    replaced: Family<GroupLabels, Counter>,
    redis_errors: Family<ErrorLabels, Counter>,
    upstream: Family<UpstreamLabels, Counter>,
    upstream_seconds: HistogramFamily<DeploymentLabels>,
    fallbacks: Family<FallbackLabels, Counter>,
    spills: Family<SpillLabels, Counter>,
    answers: Family<StatusLabels, Counter>,
    reloads: Family<ReloadLabels, Counter>,
    actions: Family<ActionLabels, Counter>,
    refused_connections: Family<RefusedLabel, Counter>,
    certificates: Family<ReloadLabels, Counter>,
    /// Series of the families above.
    known: ByName<GroupSeries>,
    answered_ok: OnceLock<Counter>,
    pub(crate) gen_ai: GenAi,
    /// The shadow in force: requests report to it.
    pub(crate) shadow: ShadowSlot,
    pub(crate) shadowed: Arc<ShadowMetrics>,
    pub(crate) spans: Arc<SpanCounts>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabels {
    group: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    group: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WaitLabels {
    group: String,
    priority: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    group: String,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeploymentLabels {
    group: String,
    deployment: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    group: String,
    deployment: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FallbackLabels {
    group: String,
    to: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpillLabels {
    group: String,
    to: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    outcome: &'static str,
}

/// What operators can do.
pub(crate) const ACTIONS: [&str; 7] = [
    "move",
    "cancel",
    "pause",
    "resume",
    "limit",
    "drain",
    "resume_instance",
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabels {
    action: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabel {
    reason: &'static str,
}

/// Why a connection ended before its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusedConnection {
    /// Its address has as many as it may.
    AddressLimit,
    /// A proxy that has to send a header of the PROXY protocol sent none, or a broken one.
    ProxyHeader,
    /// It speaks plain HTTP to a port with TLS.
    PlainHttp,
    /// It speaks no TLS, or its certificate is missing or wrong.
    TlsHandshake,
    /// All that took too long.
    TimedOut,
}

impl RefusedConnection {
    pub(crate) const ALL: [Self; 5] = [
        Self::AddressLimit,
        Self::ProxyHeader,
        Self::PlainHttp,
        Self::TlsHandshake,
        Self::TimedOut,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AddressLimit => "address_limit",
            Self::ProxyHeader => "proxy_header",
            Self::PlainHttp => "plain_http",
            Self::TlsHandshake => "tls_handshake",
            Self::TimedOut => "timed_out",
        }
    }
}

/// What became of another configuration, or of another certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReloadOutcome {
    /// It is in force.
    Applied,
    /// It is wrong, and changes nothing.
    Refused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: u16,
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        Self {
            granted: Family::default(),
            refused: Family::default(),
            waits: Family::new_with_constructor(waits),
            steps: Family::default(),
            step_ops: Family::new_with_constructor(step_ops),
            step_seconds: Family::new_with_constructor(step_seconds),
            resyncs: Family::default(),
            recoveries: Family::default(),
            expired: Family::default(),
            replaced: Family::default(),
            redis_errors: Family::default(),
            upstream: Family::default(),
            upstream_seconds: Family::new_with_constructor(upstream_seconds),
            fallbacks: Family::default(),
            spills: Family::default(),
            answers: Family::default(),
            reloads: Family::default(),
            actions: Family::default(),
            refused_connections: Family::default(),
            certificates: Family::default(),
            known: ByName::default(),
            answered_ok: OnceLock::new(),
            gen_ai: GenAi::default(),
            shadow: ShadowSlot::empty(),
            shadowed: Arc::default(),
            spans: Arc::default(),
        }
    }
}

fn reload_labels(outcome: ReloadOutcome) -> ReloadLabels {
    let outcome = match outcome {
        ReloadOutcome::Applied => "applied",
        ReloadOutcome::Refused => "refused",
    };
    ReloadLabels { outcome }
}

/// 1 ms to 2 h: a wait is anything between one round trip and a batch job's night.
fn waits() -> Histogram {
    Histogram::new([
        0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
        7200.0,
    ])
}

/// A step carries 256 ops at most (P16).
fn step_ops() -> Histogram {
    Histogram::new([0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0])
}

/// 50 us (memory) to 3 s (a silent Redis).
fn step_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 17))
}

fn upstream_seconds() -> Histogram {
    Histogram::new([
        0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0,
    ])
}

fn group(name: &str) -> GroupLabels {
    GroupLabels { group: name.into() }
}

impl Metrics {
    /// All metrics, together with what `router` knows at each scrape.
    pub(crate) fn registry(
        &self,
        router: Router,
        slots: Arc<Slots>,
        certificates: Option<Arc<Certificates>>,
    ) -> Registry {
        for view in router.groups() {
            // A counter that only appears with its first event hides that event from `rate()`.
            let labels = group(&view.name);
            for counter in [
                &self.granted,
                &self.steps,
                &self.resyncs,
                &self.recoveries,
                &self.expired,
                &self.replaced,
            ] {
                drop(counter.get_or_create(&labels));
            }
        }
        for action in ACTIONS {
            drop(self.actions.get_or_create(&ActionLabels { action }));
        }
        for outcome in [ReloadOutcome::Applied, ReloadOutcome::Refused] {
            drop(self.reloads.get_or_create(&reload_labels(outcome)));
            if certificates.is_some() {
                drop(self.certificates.get_or_create(&reload_labels(outcome)));
            }
        }
        for why in RefusedConnection::ALL {
            let reason = why.as_str();
            drop(
                self.refused_connections
                    .get_or_create(&RefusedLabel { reason }),
            );
        }
        let mut registry = Registry::default();
        let ours = registry.sub_registry_with_prefix("vorrang");
        self.register(ours);
        self.shadowed.register(ours);
        let spans = self.spans.clone();
        ours.register_collector(Box::new(Gauges {
            router,
            slots,
            spans,
            certificates,
        }));
        self.gen_ai.register(&mut registry);
        registry
    }

    /// A configuration was to replace the one in force.
    pub(crate) fn reloaded(&self, outcome: ReloadOutcome) {
        self.reloads.get_or_create(&reload_labels(outcome)).inc();
    }

    /// Another certificate was to replace the one in use.
    pub(crate) fn certificate_read(&self, outcome: ReloadOutcome) {
        let labels = reload_labels(outcome);
        self.certificates.get_or_create(&labels).inc();
    }

    #[cfg(test)]
    pub(crate) fn certificates_read(&self, outcome: ReloadOutcome) -> u64 {
        let counter = self.certificates.get_or_create(&reload_labels(outcome));
        counter.get()
    }

    /// A connection ended before its first request.
    pub(crate) fn connection_refused(&self, why: RefusedConnection) {
        let reason = why.as_str();
        let labels = RefusedLabel { reason };
        self.refused_connections.get_or_create(&labels).inc();
    }

    /// An operator has done something.
    pub(crate) fn acted(&self, action: &'static str) {
        self.actions.get_or_create(&ActionLabels { action }).inc();
    }

    fn register(&self, to: &mut Registry) {
        to.register(
            "admin_actions",
            "What operators did through this instance",
            self.actions.clone(),
        );
        to.register(
            "config_reloads",
            "Configurations that were to replace the one in force",
            self.reloads.clone(),
        );
        to.register(
            "tls_certificate_reloads",
            "Certificates that were to replace the one in use",
            self.certificates.clone(),
        );
        to.register(
            "connections_refused",
            "Connections that ended before their first request",
            self.refused_connections.clone(),
        );
        to.register(
            "granted",
            "Permits granted to this instance",
            self.granted.clone(),
        );
        to.register(
            "refused",
            "Tickets that ended without a permit",
            self.refused.clone(),
        );
        to.register_with_unit(
            "wait",
            "Time in the queue until a grant",
            Unit::Seconds,
            self.waits.clone(),
        );
        to.register("steps", "Steps answered", self.steps.clone());
        to.register("step_ops", "Ops carried by one step", self.step_ops.clone());
        to.register_with_unit(
            "step",
            "Time until a step was answered",
            Unit::Seconds,
            self.step_seconds.clone(),
        );
        to.register(
            "resyncs",
            "Sessions refused and opened anew",
            self.resyncs.clone(),
        );
        to.register(
            "recoveries",
            "Times a group's shared state was lost and made anew",
            self.recoveries.clone(),
        );
        to.register(
            "grants_expired",
            "Grants that came too late to be used: their tickets wait again",
            self.expired.clone(),
        );
        to.register(
            "dispatchers_replaced",
            "Dispatchers that panicked: a fault of Vorrang's, please report it",
            self.replaced.clone(),
        );
        to.register(
            "redis_errors",
            "Steps that failed or timed out and were sent again",
            self.redis_errors.clone(),
        );
        to.register(
            "upstream_answers",
            "Upstream calls by status; 0: none came",
            self.upstream.clone(),
        );
        to.register_with_unit(
            "upstream",
            "Time until an upstream's answer began",
            Unit::Seconds,
            self.upstream_seconds.clone(),
        );
        to.register(
            "fallbacks",
            "Calls that another group took over, by the group that could not serve them",
            self.fallbacks.clone(),
        );
        to.register(
            "spills",
            "Calls that left a group's queue for another's",
            self.spills.clone(),
        );
        to.register(
            "http_answers",
            "Requests answered by status",
            self.answers.clone(),
        );
    }

    pub(crate) fn answered(&self, status: http::StatusCode) {
        let labels = StatusLabels {
            status: status.as_u16(),
        };
        if status == http::StatusCode::OK {
            kept(&self.answered_ok, &self.answers, || labels).inc();
        } else {
            self.answers.get_or_create(&labels).inc();
        }
    }
}

/// The text of a scrape.
pub(crate) fn render(registry: &Registry) -> Result<String, fmt::Error> {
    let mut page = String::new();
    text::encode(&mut page, registry)?;
    Ok(page)
}

impl Observer for Metrics {
    fn stepped(&self, name: &str, ops: usize, took: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "256 at most")]
        let ops = ops as f64;
        let took = took.as_secs_f64();
        self.known.with(name, |known| {
            kept(&known.steps, &self.steps, || group(name)).inc();
            kept(&known.step_ops, &self.step_ops, || group(name)).observe(ops);
            kept(&known.step_seconds, &self.step_seconds, || group(name)).observe(took);
        });
    }

    fn session_invalid(&self, name: &str) {
        self.resyncs.get_or_create(&group(name)).inc();
    }

    fn recovered(&self, name: &str) {
        self.recoveries.get_or_create(&group(name)).inc();
    }

    fn grant_expired(&self, name: &str) {
        self.expired.get_or_create(&group(name)).inc();
    }

    fn dispatcher_replaced(&self, name: &str) {
        self.replaced.get_or_create(&group(name)).inc();
    }

    fn backend_failed(&self, name: &str, kind: &'static str) {
        let group = name.into();
        self.redis_errors
            .get_or_create(&ErrorLabels { group, kind })
            .inc();
    }
}

impl Events for Metrics {
    fn upstream(&self, group: &str, deployment: &str, status: u16, latency: Duration) {
        let answers = || UpstreamLabels {
            group: group.into(),
            deployment: deployment.into(),
            status,
        };
        let seconds = || DeploymentLabels {
            group: group.into(),
            deployment: deployment.into(),
        };
        let count = |known: &DeploymentSeries| {
            if status == 200 {
                kept(&known.ok, &self.upstream, answers).inc();
            } else {
                self.upstream.get_or_create(&answers()).inc();
            }
            let seconds = kept(&known.seconds, &self.upstream_seconds, seconds);
            seconds.observe(latency.as_secs_f64());
        };
        self.known
            .with(group, |known| known.deployments.with(deployment, count));
    }

    fn fell_back(&self, group: &str, to: &str, reason: FallbackReason) {
        let labels = FallbackLabels {
            group: group.into(),
            to: to.into(),
            reason: reason.as_str(),
        };
        self.fallbacks.get_or_create(&labels).inc();
    }

    fn spilled(&self, group: &str, to: &str) {
        let (group, to) = (group.into(), to.into());
        self.spills.get_or_create(&SpillLabels { group, to }).inc();
    }

    fn waited(&self, name: &str, priority: i32, waited: Duration, outcome: WaitOutcome) {
        if outcome == WaitOutcome::Granted {
            let class = PriorityClass::of(priority);
            let labels = || WaitLabels {
                group: name.into(),
                priority: class.as_str(),
            };
            self.known.with(name, |known| {
                let waits = &known.waits[class as usize];
                kept(waits, &self.waits, labels).observe(waited.as_secs_f64());
                kept(&known.granted, &self.granted, || group(name)).inc();
            });
        } else {
            let labels = RefusedLabels {
                group: name.into(),
                reason: outcome.as_str(),
            };
            self.refused.get_or_create(&labels).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backend_failures_are_counted_by_group_and_kind() {
        let metrics = Metrics::default();
        let mut registry = Registry::with_prefix("vorrang");
        metrics.register(&mut registry);
        metrics.backend_failed("chat", "timeout");
        metrics.backend_failed("chat", "timeout");
        metrics.session_invalid("chat");
        metrics.recovered("chat");
        metrics.grant_expired("chat");
        metrics.dispatcher_replaced("chat");
        let page = render(&registry).unwrap();
        for line in [
            r#"vorrang_redis_errors_total{group="chat",kind="timeout"} 2"#,
            r#"vorrang_resyncs_total{group="chat"} 1"#,
            r#"vorrang_recoveries_total{group="chat"} 1"#,
            r#"vorrang_grants_expired_total{group="chat"} 1"#,
            r#"vorrang_dispatchers_replaced_total{group="chat"} 1"#,
        ] {
            assert!(page.lines().any(|one| one == line), "no {line} in\n{page}");
        }
    }
}
