//! Which of several deployments with room the head is granted. `lua/choice.lua` has the same functions in the same order.

use super::{QueueEntry, State, Step};
use crate::{
    claim::MOST_TRIED,
    cost::KINDS,
    rules::{DeploymentRules, MAX_LIMIT, Rules, USAGE_BASED, WHOLE},
};

/// Park and Miller's generator: its products are exact in a double.
pub(crate) const MODULUS: u64 = (1 << 31) - 1;
pub(crate) const MULTIPLIER: u64 = 48_271;

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

    pub(super) fn pick(&self, rules: &Rules, candidates: &[usize], step: &mut Step) -> usize {
        if rules.strategy == USAGE_BASED {
            let use_of = |index: &usize| (self.share(&rules.deployments[*index]), *index);
            return candidates
                .iter()
                .map(use_of)
                .min()
                .map_or(candidates[0], |(_, index)| index);
        }
        let total: u64 = candidates
            .iter()
            .map(|i| rules.deployments[*i].weight)
            .sum();
        if total == 0 {
            let index = step.draw_below(candidates.len() as u64);
            return candidates[usize::try_from(index).unwrap_or(0)];
        }
        let mut left = step.draw_below(total);
        for index in candidates {
            let weight = rules.deployments[*index].weight;
            if left < weight {
                return *index;
            }
            left -= weight;
        }
        candidates[0]
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
}
