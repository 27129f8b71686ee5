//! Limits of input and of output tokens, with the faults that concern charges: each kind is judged on its own.

use crate::{
    groups::{kinds_ordered, with_kinds},
    scenario::{Fault, SECOND, Scenario, WINDOW},
    scenarios::{BASE, LEASE, QUIET, between},
};

pub(crate) const KINDS: &[Scenario] = &[
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
    // What each kind of the missing instance's charges was is told by the newest view.
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
    // The owner knows what was used of each kind better than an older state.
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
        name: "kinds_ordered",
        network: QUIET,
        group: kinds_ordered,
        rate: 1.2,
        idle: SECOND / 40,
        ..BASE
    },
];
