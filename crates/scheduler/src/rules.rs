//! A group's configuration as the transition reads it: integers only, times in microseconds.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use crate::{
    config::{Deployment, GroupConfig, LimitKind, MAX_AGING, Reserve, Strategy, Timing},
    cost::{COUNTED, KINDS},
    mutation::{Part, without},
    units::{Micros, Seq},
};

/// [`Rules::strategy`]: at random, by weight.
pub(crate) const SIMPLE_SHUFFLE: u8 = 0;
/// [`Rules::strategy`]: the deployment with the least used share of its limits.
pub(crate) const USAGE_BASED: u8 = 1;
/// The one with the fewest open calls.
pub(crate) const LEAST_BUSY: u8 = 2;
/// The one with the lowest latency.
pub(crate) const LATENCY_BASED: u8 = 3;

/// No limit.
pub const NONE: i64 = -1;

/// The same for all instances of a fleet, except during a roll-out: then P20 says which configuration applies to what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rules {
    /// 0 simple-shuffle, 1 least used share, 2 fewest open calls, 3 lowest latency.
    pub strategy: u8,
    /// A measured latency that is older counts for nothing.
    pub latency_age: Micros,
    /// By how many thousandths a latency may be above the lowest one and counts as equal.
    pub latency_buffer: u64,
    /// Most waiting tickets, 0 for no cap.
    pub max_queue_depth: u64,
    /// More failures than this within 60 s cool a deployment; upstream errors only if they are not outweighed by successes (A9).
    pub allowed_fails: u64,
    /// The cooldown of a deployment that the rules do not list (any more).
    pub cooldown: Micros,
    /// How long the session of an unresponsive instance lasts at most.
    pub lease: Micros,
    /// How long instances keep charges: the longest window with its guard, at least the lease.
    pub memory: Micros,
    /// Tickets worse than this are paced.
    pub pace_worse_than: i32,
    /// Tickets worse than this may fill only `left` millionths of each limit.
    pub reserve_priority: i32,
    /// Millionths.
    pub left: u64,
    /// The aging rate: the waiting time that outweighs one level of priority; 0: none does.
    pub aging: Micros,
    /// Within a priority, tickets are granted by the start tags of their tenants' services.
    pub fair: bool,
    /// In the order of the configuration.
    pub deployments: Vec<DeploymentRules>,
}

/// One deployment's limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeploymentRules {
    /// Its id.
    pub id: Arc<str>,
    /// Share under simple-shuffle, at most a million.
    pub weight: u64,
    /// Only deployments of the lowest order are chosen from.
    pub order: i64,
    /// Most open calls, [`NONE`] without limit.
    pub concurrency: i64,
    /// How long it cools after too many failures.
    pub cooldown: Micros,
    /// By length, ascending.
    pub windows: Vec<Window>,
}

impl DeploymentRules {
    /// How long a probe keeps the next probe from being sent (A9).
    pub fn probe_patience(&self) -> Micros {
        self.cooldown.max(PROBE_PACE)
    }
}

/// The shortest time between two probes: 1 s.
pub(crate) const PROBE_PACE: Micros = Micros::SECOND;

/// The limits over one sliding window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Window {
    /// How long an entry counts: the window and its guard.
    pub span: Micros,
    /// The most of each kind, in the order of [`COUNTED`]; [`NONE`] without limit.
    pub limits: [i64; KINDS],
}

/// A limit above this is none in practice. Parts of a limit have to stay exact in a double.
pub const MAX_LIMIT: u64 = 9_000_000_000;

/// The most that one charge counts of a kind: more than any limit.
pub const MAX_AMOUNT: u64 = MAX_LIMIT + 1;

/// The highest sum of all charges of a deployment, by kind: so that the sum of both kinds of tokens is exact in a double. A charge that
/// would exceed it counts only the rest.
pub const MAX_TOTAL: u64 = (1 << 52) - 1;

/// A sequence number from here on in a message is ignored: numbers are near the clock in microseconds, and this is the year 2112.
pub const MAX_SEEN: Seq = Seq(1 << 52);

/// No duration in a message is longer: 35 years.
pub const MAX_DURATION: Micros = Micros(1 << 50);

/// The order of a deployment without one: after all others.
pub(crate) const NO_ORDER: i64 = i32::MAX as i64 + 1;

/// No latency counts more: 1000 s, which is also what a call counts that timed out.
pub const MAX_LATENCY: Micros = Micros(1_000_000_000);

/// The highest [`Rules::latency_buffer`]: a thousand times the lowest latency. Products with [`MAX_LATENCY`] stay exact in a double.
pub(crate) const MAX_BUFFER: u64 = 1_000_000;

/// A whole of [`Rules::latency_buffer`].
pub(crate) const THOUSAND: u64 = 1_000;

/// A whole, in millionths.
pub const WHOLE: u64 = 1_000_000;

/// Aging changes an arrival by at most this in either direction, so that a score stays exact in a double: priorities that are worth more
/// than 142 years of waiting are equal.
pub const MAX_HANDICAP: i64 = 1 << 52;
/// The highest number up to which all integers are exact in a double.
pub const MAX_NUMBER: u64 = (1 << 53) - 1;

fn micros(duration: Duration) -> Micros {
    Micros::from(duration).min(MAX_DURATION)
}

impl Rules {
    /// The heartbeat: a sixth of the lease.
    pub fn heartbeat(&self) -> Micros {
        self.lease / 6
    }

    /// Silence on the lease clock after which a session ends (P7): two heartbeats before the lease is over.
    pub fn reap_after(&self) -> Micros {
        self.lease - 2 * self.heartbeat()
    }

    /// Whether any deployment has a limit.
    pub fn is_limited(&self) -> bool {
        let limited = |d: &DeploymentRules| d.concurrency != NONE || !d.windows.is_empty();
        self.deployments.iter().any(limited)
    }

    /// P9 (dispatch within the session): how long after the first sending of its last answered message an instance may dispatch grants of
    /// its session. One heartbeat less than [`Rules::reap_after`]: the clocks of two machines drift, and the server's may jump once.
    pub fn dispatch_within(&self) -> Micros {
        self.reap_after() - self.heartbeat()
    }

    /// The longest round trip without loss of grants: beyond it P2 (time-outs) and P10 (undelivered grants) cost grants.
    pub fn max_round_trip(&self) -> Micros {
        self.lease / 12
    }

    /// P8 (time of an entry): how long until the step checks an open charge again whose window has passed since its grant.
    pub fn check_again(&self) -> Micros {
        self.heartbeat() / 16
    }

    /// The settings on which the order of the queue and its counts depend.
    pub(crate) fn ordering(&self) -> (bool, Micros, i32, i32) {
        match self.aging {
            Micros::ZERO => (self.fair, Micros::ZERO, 0, 0),
            aging => (
                self.fair,
                aging,
                self.pace_worse_than,
                self.reserve_priority,
            ),
        }
    }

    /// Whether any ticket can be paced.
    pub fn paces(&self) -> bool {
        self.pace_worse_than < i32::MAX
    }

    /// The first key of the queue's order: the priority, or with aging the arrival at which a ticket of priority 0 would have the same
    /// position. `arrival`: with fair shares, the start tag.
    pub fn score(&self, priority: i32, arrival: u64) -> i64 {
        if without(Part::A1Priority) {
            return 0;
        }
        if self.aging == Micros::ZERO || without(Part::P18Aging) {
            return priority.into();
        }
        let handicap = i64::from(priority).saturating_mul(self.aging.0.cast_signed());
        let score = arrival.cast_signed() + handicap.clamp(-MAX_HANDICAP, MAX_HANDICAP);
        score.min(MAX_NUMBER.cast_signed())
    }

    /// Time on the lease clock after which an undelivered grant is revoked (P10): 0.6 s with the default lease,
    /// a little more than a heartbeat, so that one lost wake does not cost a living instance its session.
    pub fn deliver_within(&self) -> Micros {
        self.lease / 5
    }
}

impl From<&GroupConfig> for Rules {
    fn from(config: &GroupConfig) -> Self {
        let guard = micros(config.timing.guard);
        let lease = micros(config.timing.lease).max(Micros(30_000));
        let weights = weights(&config.deployments);
        let orders = orders(config);
        let deployments: Vec<DeploymentRules> = config
            .deployments
            .iter()
            .zip(weights.into_iter().zip(orders))
            .map(|(deployment, (weight, order))| DeploymentRules {
                id: deployment.id.as_str().into(),
                weight,
                order,
                concurrency: lowest(deployment, LimitKind::Concurrency, None),
                cooldown: micros(deployment.cooldown.unwrap_or(config.cooldown)),
                windows: windows(deployment, guard),
            })
            .collect();
        let longest = deployments
            .iter()
            .flat_map(|d| &d.windows)
            .map(|w| w.span)
            .max()
            .unwrap_or(Micros::ZERO);
        let (latency_age, latency_buffer) = latency_rules(config.strategy);
        Rules {
            strategy: match config.strategy {
                // The price is a part of the order.
                Strategy::SimpleShuffle | Strategy::CostBased => SIMPLE_SHUFFLE,
                Strategy::UsageBased => USAGE_BASED,
                Strategy::LeastBusy => LEAST_BUSY,
                Strategy::LatencyBased { .. } => LATENCY_BASED,
            },
            latency_age,
            latency_buffer,
            max_queue_depth: config.max_queue_depth.unwrap_or(0),
            allowed_fails: config.allowed_fails.into(),
            cooldown: micros(config.cooldown),
            lease,
            memory: longest.max(lease),
            pace_worse_than: config.pace_worse_than.unwrap_or(i32::MAX),
            reserve_priority: config.reserve.map_or(i32::MAX, |r| r.priority),
            left: config.reserve.map_or(WHOLE, Reserve::left),
            aging: config
                .aging
                .map_or(Micros::ZERO, |time| micros(time.min(MAX_AGING))),
            fair: config.fair,
            deployments,
        }
    }
}

impl Reserve {
    /// How much of a limit tickets worse than its priority may use: at least one unit, or they would never be granted.
    pub fn leaves(self, limit: u64) -> u64 {
        part(limit.min(MAX_LIMIT), self.left())
    }

    /// In millionths.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and a million"
    )]
    fn left(self) -> u64 {
        (WHOLE as f64 * (1.0 - self.share).clamp(0.0, 1.0)).round() as u64
    }
}

/// A part of a limit, at least one unit unless the limit is 0: in doubles, as Lua computes it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the limit"
)]
pub(crate) fn part(limit: u64, millionths: u64) -> u64 {
    if millionths == WHOLE || limit == 0 {
        return limit;
    }
    let part = (limit as f64 * millionths as f64 / WHOLE as f64).floor() as u64;
    part.max(1)
}

/// The lowest limit of a kind (and of one length, if given).
fn lowest(deployment: &Deployment, kind: LimitKind, length: Option<Micros>) -> i64 {
    deployment
        .limits
        .iter()
        .filter(|l| l.kind == kind && length.is_none_or(|length| micros(l.length) == length))
        .map(|l| l.limit.min(MAX_LIMIT).cast_signed())
        .min()
        .unwrap_or(NONE)
}

/// How long an entry counts in a window of this length.
fn with_guard(length: Micros, guard: Micros) -> Micros {
    length + guard.min(length / 20)
}

/// [`Window::span`] of a window of this length.
pub(crate) fn span(length: Duration, timing: &Timing) -> Micros {
    with_guard(micros(length), micros(timing.guard))
}

fn windows(deployment: &Deployment, guard: Micros) -> Vec<Window> {
    let mut lengths: Vec<Micros> = deployment
        .limits
        .iter()
        .filter(|l| l.kind != LimitKind::Concurrency)
        .map(|l| micros(l.length))
        .collect();
    lengths.sort_unstable();
    lengths.dedup();
    lengths
        .into_iter()
        .map(|length| Window {
            span: with_guard(length, guard),
            limits: COUNTED.map(|kind| lowest(deployment, kind, Some(length))),
        })
        .collect()
}

/// The orders of the deployments. By cost, those of one order are ordered by their prices: their rank among all is the order.
fn orders(config: &GroupConfig) -> Vec<i64> {
    let order = |one: &Deployment| one.order.map_or(NO_ORDER, i64::from);
    let all = config.deployments.iter();
    if config.strategy != Strategy::CostBased {
        return all.map(order).collect();
    }
    // Any number is less than no price.
    let price = |one: &Deployment| one.price.filter(|price| !price.is_nan());
    let key = |one: &Deployment| (order(one), price(one).unwrap_or(f64::INFINITY));
    let before = |a: (i64, f64), b: (i64, f64)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).is_lt();
    let rank = |one: &Deployment| {
        let before = |other: &&Deployment| before(key(other), key(one));
        config.deployments.iter().filter(before).count()
    };
    all.map(|one| i64::try_from(rank(one)).unwrap_or(NO_ORDER))
        .collect()
}

fn latency_rules(strategy: Strategy) -> (Micros, u64) {
    let Strategy::LatencyBased {
        forget_after,
        buffer,
    } = strategy
    else {
        return (Micros::ZERO, 0);
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a negative number and none become 0"
    )]
    let buffer = (buffer * THOUSAND as f64).round() as u64;
    (micros(forget_after), buffer.min(MAX_BUFFER))
}

/// The weights of LiteLLM's simple-shuffle: `weight` if any deployment has one, else `rpm`, else `tpm`, else `itpm` or `otpm`, else equal.
/// Scaled so that the highest is a million: sums stay exact in a double.
fn weights(deployments: &[Deployment]) -> Vec<u64> {
    let rate = |kind| {
        move |d: &Deployment| {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a share needs no more than a double's precision"
            )]
            d.limits
                .iter()
                .filter(|l| l.kind == kind)
                .map(|l| l.limit as f64 / l.length.as_secs_f64().max(1e-6))
                .reduce(f64::min)
        }
    };
    let by_weight: Vec<Option<f64>> = deployments.iter().map(|d| d.weight).collect();
    let by_rate = COUNTED.map(|kind| deployments.iter().map(rate(kind)).collect());
    let chosen = [by_weight]
        .into_iter()
        .chain(by_rate)
        .find(|c| c.iter().any(Option::is_some))
        .unwrap_or_default();
    let best = chosen.iter().flatten().copied().fold(0.0, f64::max);
    if best <= 0.0 || !best.is_finite() {
        return vec![1; deployments.len()];
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and a million"
    )]
    let scaled = |w: f64| {
        if w > 0.0 {
            ((w / best * 1e6).round() as u64).max(1)
        } else {
            0
        }
    };
    chosen
        .into_iter()
        .map(|w| scaled(w.unwrap_or(0.0)))
        .collect()
}
