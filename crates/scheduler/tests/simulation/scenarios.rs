//! The scenarios: what goes wrong in each, and what is allowed.

use crate::{
    groups::{
        explicit_cooldowns, few_slots, one_unhealthy, plain, several, several_with_policies,
        tokens_with_policies, wide_fair, wide_with_policies, with_tokens,
    },
    scenario::{Fault, MS, SECOND, Scenario},
};

fn none(_: &mut fastrand::Rng) -> Vec<(u64, Fault)> {
    Vec::new()
}

pub(crate) fn between(rng: &mut fastrand::Rng, from_ms: u64, to_ms: u64) -> u64 {
    rng.u64(from_ms * MS..to_ms * MS)
}

pub(crate) fn everything(rng: &mut fastrand::Rng) -> Vec<(u64, Fault)> {
    let mut faults = vec![
        (between(rng, 15_000, 55_000), Fault::Flush),
        (
            between(rng, 15_000, 55_000),
            Fault::Failover(rng.usize(1..9)),
        ),
        (
            between(rng, 15_000, 55_000),
            Fault::Hang(between(rng, 500, 7_000)),
        ),
        (
            between(rng, 15_000, 55_000),
            Fault::PartialWrite(rng.u32(..)),
        ),
    ];
    for instance in 0..3 {
        faults.push((
            between(rng, 10_000, 55_000),
            Fault::Pause(instance, between(rng, 300, 9_000)),
        ));
        faults.push((
            between(rng, 10_000, 55_000),
            Fault::Cut(instance, between(rng, 300, 9_000)),
        ));
    }
    if rng.bool() {
        faults.push((
            between(rng, 15_000, 55_000),
            Fault::Down(between(rng, 500, 9_000), rng.bool()),
        ));
    }
    if rng.bool() {
        faults.push((between(rng, 15_000, 55_000), Fault::Restart(rng.usize(..3))));
    } else {
        // Not with a restart: after a loss with the clock set back, a fresh instance that comes first makes the sequence numbers begin too low (P5).
        faults.push((
            between(rng, 15_000, 55_000),
            Fault::Clock(-rng.i64(1..4000)),
        ));
    }
    faults
}

pub(crate) const QUIET: (f64, f64, f64, f64) = (0.0, 0.0, 0.0, 0.0);
const USUAL: (f64, f64, f64, f64) = (0.0, 0.0, 0.0, 0.02);
pub(crate) const BAD: (f64, f64, f64, f64) = (0.03, 0.05, 0.05, 0.02);

/// How long a head with room may wait: a few round trips (25 ms) without faults. A lost wake or message costs a heartbeat, a grant to an instance that does not
/// step the delivery deadline, a dead instance the lease, and a loss the recovery (at most a lease). These times add up where faults meet.
/// Charges of departed instances count for a window (A6, P13). The referee cannot know all of them, so scenarios with them allow a window too.
pub(crate) const LEASE: u64 = 3 * SECOND;

/// All instances are near the server.
pub(crate) const NEAR: [(u64, u64); 3] = [(0, 0); 3];

pub(crate) const BASE: Scenario = Scenario {
    name: "",
    network: USUAL,
    group: plain,
    roll_out: None,
    faults: none,
    failing: 0.0,
    unsent: 0.0,
    longest_call: 2 * SECOND,
    rate: 0.6,
    idle: 2 * SECOND,
    undetected_failover: false,
    late: 0,
    jitter: 0,
    far: NEAR,
    slow: 0,
    extreme_amounts: false,
    until: 60 * SECOND,
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "calm",
        network: QUIET,
        idle: 25 * MS,
        rate: 0.8,
        ..BASE
    },
    Scenario {
        name: "bad_network",
        network: BAD,
        idle: 2 * LEASE,
        ..BASE
    },
    Scenario {
        name: "concurrency",
        network: BAD,
        group: few_slots,
        longest_call: 9 * SECOND,
        rate: 1.2,
        idle: 3 * LEASE,
        ..BASE
    },
    Scenario {
        name: "tokens",
        group: with_tokens,
        rate: 0.9,
        ..BASE
    },
    Scenario {
        name: "deployments",
        network: BAD,
        group: several,
        failing: 0.1,
        rate: 1.2,
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "failing",
        network: QUIET,
        group: one_unhealthy,
        failing: 0.3,
        rate: 1.0,
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "calm_tokens",
        network: QUIET,
        group: with_tokens,
        idle: 25 * MS,
        rate: 0.9,
        ..BASE
    },
    Scenario {
        name: "calm_deployments",
        network: QUIET,
        group: several,
        failing: 0.1,
        rate: 1.2,
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "explicit_cooldowns",
        network: QUIET,
        group: explicit_cooldowns,
        failing: 0.3,
        rate: 1.2,
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "healthy_deployments",
        network: QUIET,
        group: several,
        rate: 1.2,
        idle: 25 * MS,
        ..BASE
    },
    Scenario {
        name: "fair",
        network: QUIET,
        group: wide_fair,
        rate: 1.4,
        idle: 25 * MS,
        ..BASE
    },
    // Pacing, reserves, aging and fair shares, in any combination.
    Scenario {
        name: "policies",
        network: QUIET,
        group: wide_with_policies,
        rate: 1.2,
        idle: 25 * MS,
        ..BASE
    },
    Scenario {
        name: "policies_tokens",
        network: QUIET,
        group: tokens_with_policies,
        rate: 0.9,
        idle: 25 * MS,
        ..BASE
    },
    Scenario {
        name: "policies_everything",
        network: BAD,
        group: several_with_policies,
        faults: everything,
        failing: 0.05,
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "everything",
        network: BAD,
        group: several,
        faults: everything,
        failing: 0.05,
        idle: u64::MAX,
        ..BASE
    },
];
