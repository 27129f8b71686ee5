//! What a message and an answer may hold at most. All that comes from outside passes here, so that no sum leaves the integers that are exact in a
//! double, and nothing overflows: a total that did once could never be read again.

use crate::{
    claim::Entry,
    cost::Cost,
    message::{Answer, Op, UsageSnapshot},
    rules::{MAX_AMOUNT, MAX_DURATION, MAX_NUMBER, MAX_SEEN},
};

/// A sequence number; 0 where it can be none.
pub(crate) fn number(number: u64) -> u64 {
    if number <= MAX_NUMBER { number } else { 0 }
}

/// A sequence number that others go on from; 0 where it is so high that it says nothing, and would leave no room above it.
pub(crate) fn seen(number: u64) -> u64 {
    if number < MAX_SEEN { number } else { 0 }
}

fn amount(amount: &mut u64) {
    *amount = (*amount).min(MAX_AMOUNT);
}

fn duration(duration: &mut u64) {
    *duration = (*duration).min(MAX_DURATION);
}

fn signed(value: &mut i64, most: u64) {
    *value = (*value).clamp(-1, most.cast_signed());
}

impl Op {
    /// The same within the bounds.
    pub(crate) fn bounded(&self) -> Self {
        let mut op = self.clone();
        match &mut op {
            Op::Join(entry) => {
                *entry = Entry {
                    claim: entry.claim.bounded(),
                    arrival: number(entry.arrival),
                    start: number(entry.start),
                };
            }
            Op::Leave { claim, arrival } => {
                *claim = claim.bounded();
                *arrival = number(*arrival);
            }
            Op::Sent { granted, age } => {
                *granted = number(*granted);
                duration(age);
            }
            Op::Done {
                granted,
                tokens,
                excess,
                ..
            } => {
                *granted = number(*granted);
                (*tokens, *excess) = (tokens.bounded(), excess.bounded());
            }
            Op::Report { granted, cool, .. } => {
                *granted = number(*granted);
                signed(cool, MAX_DURATION);
            }
            Op::Unused { granted } | Op::Hold { granted, .. } => *granted = number(*granted),
            Op::Charge {
                granted,
                requests,
                tokens,
                age,
                ..
            } => {
                *granted = number(*granted);
                amount(requests);
                *tokens = tokens.bounded();
                duration(age);
            }
            Op::Cool { left, .. } => duration(left),
            Op::CloseSession { .. } => {}
        }
        op
    }
}

impl UsageSnapshot {
    /// The same within the bounds.
    pub(crate) fn bounded(&self) -> Self {
        let mut view = self.clone();
        duration(&mut view.age);
        view.number = number(view.number);
        for (_, cost) in &mut view.used {
            *cost = cost.min(Cost::MAX_TOTAL);
        }
        view
    }
}

impl Answer {
    /// The same within the bounds.
    pub(crate) fn bounded(mut self) -> Self {
        (self.base, self.seen) = (number(self.base), number(self.seen));
        self.highest_finish = number(self.highest_finish);
        signed(&mut self.next_free, MAX_DURATION);
        duration(&mut self.memory);
        for (_, age) in &mut self.departed {
            duration(age);
        }
        for used in &mut self.used {
            used.cost = used.cost.min(Cost::MAX_TOTAL);
            duration(&mut used.cooling);
            duration(&mut used.pace);
        }
        self
    }
}
