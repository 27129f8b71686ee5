//! Scenarios with limits of input and of output tokens, and with the faults that concern charges. Each kind is judged separately.

use crate::{
    groups::{kinds_with_policies, with_kinds},
    scenario::{Fault, SECOND, Scenario, WINDOW},
    scenarios::{BASE, LEASE, QUIET, between},
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "kinds",
        group: with_kinds,
        rate: 0.9,
        ..BASE
    },
    Scenario {
        name: "calm_kinds",
        network: QUIET,
        group: with_kinds,
        idle: SECOND / 40,
        rate: 0.9,
        ..BASE
    },
    // The newest usage snapshot shows the dead instance's charges by kind.
    Scenario {
        name: "kinds_killed_then_flushed",
        network: QUIET,
        group: with_kinds,
        faults: |rng| {
            let at = between(rng, 15_000, 45_000);
            vec![
                (at, Fault::Kill(rng.usize(..3))),
                (at + between(rng, 0, 9_000), Fault::Flush),
            ]
        },
        rate: 0.9,
        idle: WINDOW + 2 * LEASE,
        ..BASE
    },
    // The owner's correction of each kind replaces what an older state counts.
    Scenario {
        name: "kinds_failed_over",
        group: with_kinds,
        faults: |rng| {
            let back = |rng: &mut fastrand::Rng| Fault::Failover(rng.usize(1..9));
            (0..3)
                .map(|_| (between(rng, 15_000, 50_000), back(rng)))
                .collect()
        },
        rate: 0.9,
        idle: LEASE + 2 * SECOND,
        ..BASE
    },
    // Pacing, reserves, aging and fair shares by kind, over two deployments.
    Scenario {
        name: "kinds_policies",
        network: QUIET,
        group: kinds_with_policies,
        rate: 1.2,
        idle: SECOND / 40,
        ..BASE
    },
];
