//! The bounds of the values in messages and answers. All input is cut to them, so that every sum stays an integer that is exact in a double,
//! and none overflows: a total in Redis that once did could never be read again.

use crate::{
    claim::{MAX_COST, MAX_TENANT, MOST_TRIED},
    cost::Cost,
    message::{Answer, MAX_OVERRIDES, UsageSnapshot},
    overrides::LimitOverride,
    rules::{MAX_AMOUNT, MAX_DURATION, MAX_LATENCY, MAX_LIMIT, MAX_NUMBER, MAX_SEEN, NONE},
    units::Seq,
};

/// A sequence number after which a group draws its next; 0 if it is so high that it must be wrong, and leaves no room above it.
pub(crate) fn seen(number: Seq) -> Seq {
    if number < MAX_SEEN { number } else { Seq::NONE }
}

/// A sequence number; 0 if it is not exact in a double.
pub(crate) fn number(number: &mut u64) {
    if *number > MAX_NUMBER {
        *number = 0;
    }
}

/// A value without bounds.
pub(crate) fn any<T: ?Sized>(_: &mut T) {}

/// An amount of tokens or requests.
pub(crate) fn amount(amount: &mut u64) {
    *amount = (*amount).min(MAX_AMOUNT);
}

pub(crate) fn duration(duration: &mut u64) {
    *duration = (*duration).min(MAX_DURATION.0);
}

/// A measured latency.
pub(crate) fn latency(latency: &mut u64) {
    *latency = (*latency).min(MAX_LATENCY.0);
}

/// A duration, or -1.
pub(crate) fn signed(value: &mut i64) {
    *value = (*value).clamp(-1, MAX_DURATION.0.cast_signed());
}

/// The number of a tenant or of a key.
pub(crate) fn tenant(tenant: &mut u64) {
    *tenant = (*tenant).min(MAX_TENANT);
}

/// The cost of a service.
pub(crate) fn cost(cost: &mut u64) {
    *cost = (*cost).min(MAX_COST);
}

/// Bits for deployments; 0 if they have more than the highest number of bits.
pub(crate) fn tried(tried: &mut u64) {
    if *tried >> MOST_TRIED != 0 {
        *tried = 0;
    }
}

/// Numbers of paused keys.
pub(crate) fn keys(keys: &mut Vec<u64>) {
    keys.truncate(MAX_OVERRIDES);
    keys.iter_mut().for_each(tenant);
}

/// Changed limits.
pub(crate) fn limits(limits: &mut Vec<LimitOverride>) {
    limits.truncate(MAX_OVERRIDES);
    for changed in limits {
        changed.limit = changed.limit.clamp(0, MAX_LIMIT.cast_signed());
    }
}

/// A limit, or -1.
pub(crate) fn limit(limit: &mut i64) {
    *limit = (*limit).clamp(NONE, MAX_LIMIT.cast_signed());
}

impl UsageSnapshot {
    /// The usage snapshot within the bounds.
    pub(crate) fn bounded(&self) -> Self {
        let mut bounded = self.clone();
        duration(&mut bounded.age.0);
        number(&mut bounded.number.0);
        for (_, cost) in &mut bounded.used {
            *cost = cost.min(Cost::MAX_TOTAL);
        }
        bounded
    }
}

impl Answer {
    /// The answer within the bounds.
    pub(crate) fn bounded(mut self) -> Self {
        for value in [&mut self.base.0, &mut self.seen.0, &mut self.highest_finish] {
            number(value);
        }
        signed(&mut self.next_free);
        duration(&mut self.memory.0);
        for (_, age) in &mut self.departed {
            duration(&mut age.0);
        }
        for used in &mut self.used {
            used.cost = used.cost.min(Cost::MAX_TOTAL);
            duration(&mut used.cooling.0);
            duration(&mut used.pace.0);
        }
        for overrides in &mut self.overrides {
            number(&mut overrides.version.0);
            keys(&mut overrides.keys);
            limits(&mut overrides.limits);
        }
        self
    }
}
