//! Which of several deployments with room the head is granted. `lua/grants.lua` has the same functions in the same order.

use std::sync::Arc;

use super::{QueueEntry, State, Step};
use crate::{
    claim::MOST_TRIED,
    cost::KINDS,
    mutation::{Part, without},
    rules::{
        DeploymentRules, LATENCY_BASED, LEAST_BUSY, MAX_LATENCY, MAX_LIMIT, Rules, THOUSAND,
        USAGE_BASED, WHOLE,
    },
    units::Micros,
};

/// Park and Miller's generator: its products are exact in a double.
pub(crate) const MODULUS: u64 = (1 << 31) - 1;
pub(crate) const MULTIPLIER: u64 = 48_271;

/// The latency of a deployment that is not measured and has an open call: above all that are measured.
pub(crate) const UNMEASURED: u64 = MAX_LATENCY.0 + 1;
/// A new measurement is one part of so many of a deployment's latency.
pub(crate) const SMOOTHING: u64 = 8;

/// How long the answers of a deployment took to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Latency {
    /// A moving mean, at least 1 us.
    mean: u64,
    /// When it was last measured, on the group clock.
    at: Micros,
}

impl Latency {
    /// What was slow once is tried again.
    fn is_fresh(&self, rules: &Rules, now: Micros) -> bool {
        now < self.at + rules.latency_age || without(Part::P22Forgotten)
    }
}

impl Step {
    /// A random number below `most`, uniformly distributed. The generator is Park and Miller's with the multiplier 48271: its products stay below 2^53, so that Lua's
    /// doubles give the same numbers. Each step has its own seed.
    fn draw_below(&mut self, most: u64) -> u64 {
        // It yields 1 to MODULUS - 1.
        const DRAWS: u64 = MODULUS - 1;
        let most = most.min(DRAWS);
        let even = DRAWS - DRAWS % most;
        loop {
            self.random = self.random * MULTIPLIER % MODULUS;
            let draw = self.random - 1;
            // Draws beyond the last whole multiple would make small numbers more likely.
            if draw < even {
                return draw % most;
            }
        }
    }
}

impl State {
    /// Whether the head's request has tried a deployment: bit n stands for the n-th deployment of its instance.
    pub(super) fn has_tried(&self, head: QueueEntry, deployment: &str) -> bool {
        let bit = |n: usize| n < MOST_TRIED && head.tried >> n & 1 == 1;
        head.tried != 0
            && self.sessions.get(&head.session).is_some_and(|session| {
                let mut known = session.deployments.iter().enumerate();
                known.any(|(n, id)| **id == *deployment && bit(n))
            })
    }

    /// The largest used share of a deployment's limits in millionths, then its open calls.
    fn share(&self, deployment: &DeploymentRules) -> (u64, u64) {
        let open = self.calls.open(&deployment.id);
        // More than the highest limit counts as that, so that the products are exact in a double.
        let of = |used: u64, limit: i64| {
            if limit > 0 {
                used.min(MAX_LIMIT) * WHOLE / limit.unsigned_abs()
            } else {
                0
            }
        };
        let mut share = of(open, deployment.concurrency);
        for (index, window) in deployment.windows.iter().enumerate() {
            let used = self.windows.total(deployment, index).amounts();
            let shares = (0..KINDS).map(|k| of(used[k], window.limits[k]));
            share = shares.fold(share, u64::max);
        }
        (share, open)
    }

    /// The latency of a deployment. One that is not measured comes before all others for its first call, and after them until that has been answered: one call is
    /// enough to measure it.
    fn latency(&self, rules: &Rules, deployment: &DeploymentRules) -> u64 {
        let fresh = |of: &&Latency| of.is_fresh(rules, self.clock);
        match self.latencies.get(&deployment.id).filter(fresh) {
            Some(latency) => latency.mean,
            None if self.calls.open(&deployment.id) == 0 || without(Part::P22OneMeasures) => 0,
            None => UNMEASURED,
        }
    }

    /// The answer of a call took so long to begin.
    pub(super) fn measured(&mut self, rules: &Rules, deployment: &Arc<str>, took: Micros) {
        let known = rules.deployments.iter().any(|d| d.id == *deployment);
        if rules.strategy != LATENCY_BASED || !known {
            return;
        }
        let now = self.clock;
        self.latencies.retain(|_, of| of.is_fresh(rules, now));
        let took = took.0.max(1);
        let latency = self.latencies.entry(deployment.clone());
        let latency = latency.or_insert(Latency {
            mean: took,
            at: now,
        });
        latency.mean = (latency.mean * (SMOOTHING - 1) + took) / SMOOTHING;
        latency.at = now;
    }

    /// Chooses one of several deployments of the same order.
    pub(super) fn pick(&self, rules: &Rules, mut several: Vec<usize>, step: &mut Step) -> usize {
        let of = |index: &usize| &rules.deployments[*index];
        let first = several[0];
        match rules.strategy {
            USAGE_BASED => {
                let least = several.iter().min_by_key(|index| self.share(of(index)));
                return *least.unwrap_or(&first);
            }
            LEAST_BUSY if !without(Part::P22LeastBusy) => {
                let open = |index: &usize| self.calls.open(&of(index).id);
                let least = several.iter().map(open).min();
                several.retain(|index| Some(open(index)) == least);
            }
            LATENCY_BASED if !without(Part::P22Latency) => {
                let latency = |index: &usize| self.latency(rules, of(index));
                let least = several.iter().map(latency).min().unwrap_or(0);
                let most = least * (THOUSAND + rules.latency_buffer);
                several.retain(|index| latency(index) * THOUSAND <= most);
            }
            _ => {}
        }
        let total: u64 = several.iter().map(|index| of(index).weight).sum();
        if total == 0 {
            let index = step.draw_below(several.len() as u64);
            return several[usize::try_from(index).unwrap_or(0)];
        }
        let mut left = step.draw_below(total);
        for index in several {
            let weight = of(&index).weight;
            if left < weight {
                return index;
            }
            left -= weight;
        }
        first
    }
}
