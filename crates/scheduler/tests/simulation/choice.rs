//! Strategies and orders: the scenarios, and how the referee judges the order (P22).

use std::time::Duration;

use vorrang_scheduler::{Deployment, GroupConfig, LimitKind, Strategy, Tokens};

use crate::{
    groups::{ANY_NUMBER, several, several_with_policies, window},
    referee::{Dispatch, PROPAGATION, Referee},
    scenario::{MS, Scenario},
    scenarios::{BAD, BASE, QUIET, everything},
};

/// Any strategy, and any orders.
fn with_strategy(rng: &mut fastrand::Rng, config: GroupConfig) -> GroupConfig {
    let mut config = config;
    config.strategy = [
        Strategy::SimpleShuffle,
        Strategy::UsageBased,
        Strategy::LeastBusy,
        Strategy::CostBased,
        Strategy::LatencyBased {
            forget_after: Duration::from_secs(rng.u64(1..30)),
            buffer: rng.f64() * f64::from(rng.u8(..2)),
        },
    ][rng.usize(..5)];
    for deployment in &mut config.deployments {
        deployment.order = [None, Some(-1), Some(1), Some(2)][rng.usize(..4)];
        deployment.price = rng.bool().then(|| f64::from(rng.u8(..3)));
    }
    config
}

fn any_strategy(rng: &mut fastrand::Rng) -> GroupConfig {
    let config = several(rng);
    with_strategy(rng, config)
}

fn any_strategy_and_policies(rng: &mut fastrand::Rng) -> GroupConfig {
    let config = several_with_policies(rng);
    with_strategy(rng, config)
}

/// Deployments cool only for a time that the upstream names, so that the referee knows all cooldowns. They have no limit of open calls, because an end is seen
/// upstream before the group learns of it.
fn ordered(rng: &mut fastrand::Rng) -> GroupConfig {
    let calls = |id: &&str| Deployment::new(*id).limit(LimitKind::Requests, 8, window());
    let deployments = ["a", "b", "c"].iter().map(calls).collect();
    let config = with_strategy(rng, GroupConfig::new(deployments));
    GroupConfig {
        allowed_fails: ANY_NUMBER,
        ..config
    }
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "strategies",
        network: QUIET,
        group: any_strategy,
        rate: 1.2,
        idle: 25 * MS,
        ..BASE
    },
    Scenario {
        name: "orders",
        network: QUIET,
        group: ordered,
        failing: 0.3,
        rate: 1.6,
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "strategies_and_everything",
        network: BAD,
        group: any_strategy_and_policies,
        faults: everything,
        failing: 0.05,
        idle: u64::MAX,
        ..BASE
    },
];

impl Referee {
    /// Judges the order of a dispatch: no deployment of a lower order may have room that is healthy, or that no ticket has probed since its cooldown. `tried` are
    /// the deployments that the request has tried, as bits; `granted` are the grants that are not dispatched yet.
    pub(crate) fn judge_order(&mut self, d: &Dispatch, tried: u64, granted: &[(usize, Tokens)]) {
        if !self.strict || !self.faultless || !self.only_explicit_cooldowns() {
            return;
        }
        let order = |deployment: usize| self.rules.deployments[deployment].order;
        let lower =
            (0..self.rules.deployments.len()).filter(|one| order(*one) < order(d.deployment));
        // The grant was made a little earlier.
        let then = d.at - PROPAGATION;
        let passed_over = |one: &usize| {
            tried >> one & 1 == 0
                && granted.iter().all(|(deployment, _)| deployment != one)
                && self.may_be_called(*one, then)
                && self.room(*one, then, d.tokens, granted)
        };
        if let Some(one) = lower.into_iter().find(passed_over) {
            self.violations.push(format!(
                "P22: {} was called at {} although {one} is of a lower order and has room",
                d.deployment, d.at
            ));
        }
    }
}
