//! How limits are used over virtual time.

use std::time::Duration;

use crate::{
    config::LimitKind,
    cost::COUNTED,
    rules::{NONE, Rules},
    transition::State,
    units::Micros,
};

/// How often the use is looked at.
const SAMPLE: Micros = Micros(50_000);

/// How the limits of a group were used. Shares are of the limit, from 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// How long tickets waited.
    pub contended: Duration,
    /// The share of the room that was not used in that time, of the limit of each deployment that left least; `None`: no ticket waited, or
    /// a deployment has no limit.
    pub lost: Option<f64>,
    /// Each limit of each deployment.
    pub limits: Vec<LimitUse>,
}

/// How one limit was used.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitUse {
    /// Index of the deployment in the configuration.
    pub deployment: usize,
    /// What it counts.
    pub kind: LimitKind,
    /// The length of its window and the guard; zero for open calls.
    pub span: Duration,
    /// The limit.
    pub limit: u64,
    /// Over all the time.
    pub mean: f64,
    /// While tickets waited.
    pub contended: Option<f64>,
    /// The most at once.
    pub most: u64,
}

#[derive(Debug)]
struct Meter {
    deployment: usize,
    /// Index of the window, and of the kind in it; `None`: open calls.
    window: Option<(usize, usize)>,
    kind: LimitKind,
    span: Micros,
    limit: u64,
    used: u64,
    most: u64,
    /// The sums of the share times microseconds.
    sum: f64,
    contended: f64,
}

impl Meter {
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    fn share(&self) -> f64 {
        self.used as f64 / self.limit.max(1) as f64
    }
}

/// Samples the use of limits.
#[derive(Debug)]
pub(super) struct UsageMeter {
    meters: Vec<Meter>,
    deployments: usize,
    sampled: Micros,
    total: Micros,
    contended: Micros,
    lost: f64,
    waits: bool,
}

impl UsageMeter {
    pub(super) fn new(rules: &Rules) -> Self {
        let mut meters = Vec::new();
        for (deployment, of) in rules.deployments.iter().enumerate() {
            let mut add = |window, kind, span, limit: i64| {
                if limit != NONE {
                    meters.push(Meter {
                        deployment,
                        window,
                        kind,
                        span,
                        limit: limit.unsigned_abs(),
                        used: 0,
                        most: 0,
                        sum: 0.0,
                        contended: 0.0,
                    });
                }
            };
            add(None, LimitKind::Concurrency, Micros::ZERO, of.concurrency);
            for (index, window) in of.windows.iter().enumerate() {
                for (kind, (word, limit)) in COUNTED.into_iter().zip(window.limits).enumerate() {
                    add(Some((index, kind)), word, window.span, limit);
                }
            }
        }
        Self {
            meters,
            deployments: rules.deployments.len(),
            sampled: Micros::ZERO,
            total: Micros::ZERO,
            contended: Micros::ZERO,
            lost: 0.0,
            waits: false,
        }
    }

    /// After a step. What it shows holds until the next one.
    #[expect(clippy::cast_precision_loss, reason = "sums of shares")]
    pub(super) fn note(&mut self, now: Micros, state: &State) {
        let passed = now.saturating_sub(self.sampled);
        if passed < SAMPLE {
            return;
        }
        self.sampled = now;
        self.total += passed;
        let time = passed.0 as f64;
        for meter in &mut self.meters {
            let share = meter.share();
            meter.sum += share * time;
            if self.waits {
                meter.contended += share * time;
            }
        }
        if self.waits {
            self.contended += passed;
            self.lost += self.idle().unwrap_or(0.0) * time;
        }
        let (waits, amounts) = state.in_use();
        self.waits = waits;
        for meter in &mut self.meters {
            let Some((open, windows)) = amounts.get(meter.deployment) else {
                continue;
            };
            meter.used = match meter.window {
                None => *open,
                Some((window, kind)) => windows.get(window).map_or(0, |cost| cost.amounts()[kind]),
            };
            meter.most = meter.most.max(meter.used);
        }
    }

    /// The mean of what the fullest limit of each deployment leaves.
    #[expect(clippy::cast_precision_loss, reason = "a number of deployments")]
    fn idle(&self) -> Option<f64> {
        let fullest = |deployment| {
            let meters = self.meters.iter();
            let of = meters.filter(|meter| meter.deployment == deployment);
            of.map(Meter::share).reduce(f64::max)
        };
        let idle: Option<Vec<f64>> = (0..self.deployments)
            .map(|deployment| fullest(deployment).map(|share| (1.0 - share).max(0.0)))
            .collect();
        let idle = idle.filter(|idle| !idle.is_empty())?;
        Some(idle.iter().sum::<f64>() / idle.len() as f64)
    }

    #[expect(clippy::cast_precision_loss, reason = "means of shares")]
    pub(super) fn usage(&self) -> Usage {
        let over = |sum: f64, time: Micros| (time > Micros::ZERO).then(|| sum / time.0 as f64);
        let limits = self.meters.iter().map(|meter| LimitUse {
            deployment: meter.deployment,
            kind: meter.kind,
            span: meter.span.into(),
            limit: meter.limit,
            mean: over(meter.sum, self.total).unwrap_or(0.0),
            contended: over(meter.contended, self.contended),
            most: meter.most,
        });
        Usage {
            contended: self.contended.into(),
            lost: self.idle().and_then(|_| over(self.lost, self.contended)),
            limits: limits.collect(),
        }
    }
}
