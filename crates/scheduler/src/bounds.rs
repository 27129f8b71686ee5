//! What a message and an answer may hold at most. All that comes from outside passes here, so that no sum leaves the integers that are exact in a
//! double, and nothing overflows: a total that did once could never be read again.

use crate::{
    claim::{MAX_COST, MAX_TENANT, MOST_TRIED},
    cost::Cost,
    message::{Answer, UsageSnapshot},
    rules::{MAX_AMOUNT, MAX_DURATION, MAX_NUMBER, MAX_SEEN},
    units::Seq,
};

/// A sequence number that others go on from; 0 where it is so high that it says nothing, and would leave no room above it.
pub(crate) fn seen(number: Seq) -> Seq {
    if number < MAX_SEEN { number } else { Seq::NONE }
}

/// A sequence number; 0 where it can be none.
pub(crate) fn number(number: &mut u64) {
    if *number > MAX_NUMBER {
        *number = 0;
    }
}

/// What has no bounds.
pub(crate) fn any<T: ?Sized>(_: &mut T) {}

/// Of tokens or requests.
pub(crate) fn amount(amount: &mut u64) {
    *amount = (*amount).min(MAX_AMOUNT);
}

pub(crate) fn duration(duration: &mut u64) {
    *duration = (*duration).min(MAX_DURATION.0);
}

/// A duration, or -1.
pub(crate) fn signed(value: &mut i64) {
    *value = (*value).clamp(-1, MAX_DURATION.0.cast_signed());
}

/// A tenant's number.
pub(crate) fn tenant(tenant: &mut u64) {
    *tenant = (*tenant).min(MAX_TENANT);
}

/// Of a tenant's share.
pub(crate) fn cost(cost: &mut u64) {
    *cost = (*cost).min(MAX_COST);
}

/// Bits for deployments: none where there are more of them than can be.
pub(crate) fn tried(tried: &mut u64) {
    if *tried >> MOST_TRIED != 0 {
        *tried = 0;
    }
}

impl UsageSnapshot {
    /// The same within the bounds.
    pub(crate) fn bounded(&self) -> Self {
        let mut view = self.clone();
        duration(&mut view.age.0);
        number(&mut view.number.0);
        for (_, cost) in &mut view.used {
            *cost = cost.min(Cost::MAX_TOTAL);
        }
        view
    }
}

impl Answer {
    /// The same within the bounds.
    pub(crate) fn bounded(mut self) -> Self {
        for of in [&mut self.base.0, &mut self.seen.0, &mut self.highest_finish] {
            number(of);
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
        self
    }
}
