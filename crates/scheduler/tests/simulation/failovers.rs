//! Scenarios of failovers to older states, and of partial writes.

use crate::{
    groups::{one_unhealthy, wide, wide_with_policies, with_tokens},
    scenario::{Fault, SECOND, Scenario, WINDOW},
    scenarios::{BASE, LEASE, between},
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "failover",
        group: wide,
        faults: |rng| {
            vec![(
                between(rng, 20_000, 50_000),
                Fault::Failover(rng.usize(1..9)),
            )]
        },
        rate: 1.2,
        idle: LEASE + 2 * SECOND,
        ..BASE
    },
    Scenario {
        name: "failover_undetected",
        undetected_failover: true,
        faults: |rng| {
            vec![(
                between(rng, 20_000, 50_000),
                Fault::Failover(rng.usize(1..9)),
            )]
        },
        idle: WINDOW,
        ..BASE
    },
    Scenario {
        name: "unhealthy_and_failed_over",
        group: one_unhealthy,
        faults: |rng| {
            let mut faults: Vec<_> = (0..3)
                .map(|_| {
                    (
                        between(rng, 10_000, 55_000),
                        Fault::Failover(rng.usize(1..9)),
                    )
                })
                .collect();
            faults.push((
                between(rng, 10_000, 55_000),
                Fault::PartialWrite(rng.u32(..)),
            ));
            faults
        },
        failing: 0.3,
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "partial_writes",
        group: wide,
        faults: |rng| {
            (0..3)
                .map(|_| {
                    (
                        between(rng, 15_000, 55_000),
                        Fault::PartialWrite(rng.u32(..)),
                    )
                })
                .collect()
        },
        rate: 1.2,
        idle: WINDOW,
        ..BASE
    },
    Scenario {
        name: "policies_and_flushed",
        group: wide_with_policies,
        faults: |rng| {
            vec![
                (between(rng, 15_000, 30_000), Fault::Flush),
                (
                    between(rng, 30_000, 55_000),
                    Fault::Failover(rng.usize(1..9)),
                ),
            ]
        },
        rate: 1.2,
        idle: LEASE + 2 * SECOND,
        ..BASE
    },
    // The owner's correction replaces what an older state counts.
    Scenario {
        name: "tokens_failed_over",
        group: with_tokens,
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
    // The server's address moves to a replica and back to the former master, whose state lacks the grants that were made meanwhile.
    Scenario {
        name: "failed_back",
        faults: |rng| {
            let away = between(rng, 3_500, 12_000);
            vec![(
                between(rng, 20_000, 40_000),
                Fault::FailoverAndBack(1, away),
            )]
        },
        rate: 1.5,
        idle: 2 * LEASE,
        ..BASE
    },
];
