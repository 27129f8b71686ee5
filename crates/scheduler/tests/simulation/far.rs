//! Scenarios with instances far from the server, and with calls that are dispatched long after their grant (P8, P9).

use crate::{
    groups::{explicit_cooldowns, few_slots, several, short_windows, wide, wide_fair, with_tokens},
    scenario::{Fault, MS, SECOND, Scenario, WINDOW},
    scenarios::{BAD, BASE, LEASE, QUIET, between, everything},
};

/// Round trips of 60 to 120 ms.
const FAR: (u64, u64) = (30 * MS, 60 * MS);
const ONE: [(u64, u64); 3] = [FAR, (0, 0), (0, 0)];
const ALL: [(u64, u64); 3] = [FAR; 3];

/// How long a head with room may wait: five of the longest one-way delays, and the polling interval times the ranks of all instances.
const DELAYS: u64 = 5 * 60 * MS + 3 * 30 * MS;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "far_one",
        far: ONE,
        idle: DELAYS + SECOND,
        rate: 0.8,
        ..BASE
    },
    Scenario {
        name: "far_all",
        far: ALL,
        idle: DELAYS + SECOND,
        rate: 0.8,
        ..BASE
    },
    Scenario {
        name: "far_wide",
        far: ALL,
        group: wide,
        idle: DELAYS + SECOND,
        rate: 1.4,
        ..BASE
    },
    Scenario {
        name: "far_fair",
        far: ONE,
        group: wide_fair,
        idle: DELAYS + SECOND,
        rate: 1.4,
        ..BASE
    },
    Scenario {
        name: "far_tokens",
        far: ALL,
        group: with_tokens,
        idle: DELAYS + 2 * SECOND,
        rate: 0.9,
        ..BASE
    },
    Scenario {
        name: "far_slots",
        far: ONE,
        group: few_slots,
        longest_call: 9 * SECOND,
        idle: DELAYS + SECOND,
        rate: 1.2,
        ..BASE
    },
    Scenario {
        name: "far_bad",
        far: ALL,
        network: BAD,
        idle: 3 * LEASE,
        ..BASE
    },
    Scenario {
        name: "far_short",
        far: ONE,
        network: BAD,
        group: short_windows,
        faults: |rng| {
            let mut faults = vec![(
                between(rng, 10_000, 50_000),
                Fault::Hang(between(rng, 1_000, 7_000)),
            )];
            let stop = |i| {
                (
                    between(rng, 10_000, 50_000),
                    Fault::Pause(i, between(rng, 300, 4_000)),
                )
            };
            faults.extend((0..3).map(stop));
            faults
        },
        rate: 1.2,
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "far_killed_then_flushed",
        far: ALL,
        faults: |rng| {
            let at = between(rng, 25_000, 40_000);
            vec![
                (at, Fault::Kill(0)),
                (at + between(rng, 0, 12_000), Fault::Flush),
            ]
        },
        idle: WINDOW + 2 * LEASE,
        ..BASE
    },
    Scenario {
        name: "far_cut_and_flushed",
        far: ALL,
        group: wide,
        faults: |rng| {
            let at = between(rng, 20_000, 45_000);
            vec![
                (at, Fault::Cut(0, between(rng, 500, 6_000))),
                (at + between(rng, 0, 800), Fault::Flush),
            ]
        },
        rate: 1.4,
        idle: WINDOW + 2 * LEASE,
        ..BASE
    },
    Scenario {
        name: "far_failover",
        far: ALL,
        group: wide,
        faults: |rng| {
            vec![(
                between(rng, 20_000, 50_000),
                Fault::Failover(rng.usize(1..9)),
            )]
        },
        rate: 1.4,
        idle: LEASE + 3 * SECOND,
        ..BASE
    },
    Scenario {
        name: "far_paused",
        far: ALL,
        network: QUIET,
        group: short_windows,
        faults: |rng| {
            (0..8)
                .map(|i| {
                    (
                        between(rng, 10_000, 50_000),
                        Fault::Pause(i % 3, between(rng, 50, 3_500)),
                    )
                })
                .collect()
        },
        rate: 1.5,
        idle: u64::MAX,
        ..BASE
    },
    // Late dispatches in windows that are shorter than the time after which an unresponsive session ends, on instances that lose the server.
    Scenario {
        name: "slow_short",
        far: ONE,
        network: BAD,
        group: short_windows,
        faults: |rng| {
            let mut faults = vec![(
                between(rng, 10_000, 50_000),
                Fault::Hang(between(rng, 1_000, 7_000)),
            )];
            for i in 0..9 {
                faults.push((
                    between(rng, 10_000, 55_000),
                    Fault::Cut(i % 3, between(rng, 300, 4_000)),
                ));
                faults.push((
                    between(rng, 10_000, 55_000),
                    Fault::Pause(i % 3, between(rng, 100, 4_000)),
                ));
            }
            faults
        },
        slow: 6 * SECOND,
        rate: 2.0,
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "slow_and_flushed",
        far: ONE,
        group: short_windows,
        faults: |rng| {
            let mut faults = Vec::new();
            for n in 1..5 {
                let at = between(rng, 12_000 * n, 12_000 * n + 3_000);
                faults.push((at, Fault::Cut(rng.usize(..3), between(rng, 500, 6_000))));
                faults.push((
                    at + between(rng, 0, 900),
                    if rng.bool() {
                        Fault::Flush
                    } else {
                        Fault::Failover(rng.usize(1..9))
                    },
                ));
            }
            faults
        },
        slow: 4 * SECOND,
        rate: 2.0,
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "slow_replies_lost",
        network: (0.01, 0.02, 0.3, 0.02),
        group: short_windows,
        faults: |rng| {
            (0..24)
                .map(|i| {
                    (
                        between(rng, 10_000, 58_000),
                        Fault::LoseReplies(i % 3, between(rng, 900, 2_100)),
                    )
                })
                .collect()
        },
        slow: 3 * SECOND,
        rate: 2.0,
        idle: u64::MAX,
        ..BASE
    },
    // An instance that dies after a loss has dispatched grants from before it.
    Scenario {
        name: "slow_flushed_then_killed",
        group: explicit_cooldowns,
        faults: |rng| {
            let at = between(rng, 30_000, 36_500);
            vec![
                (at - MS, Fault::Cut(0, 60 * SECOND)),
                (at, Fault::Flush),
                (at + 1_600 * MS, Fault::Kill(0)),
            ]
        },
        slow: 1_500 * MS,
        rate: 3.0,
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "slow_calm",
        group: short_windows,
        slow: SECOND,
        rate: 1.5,
        idle: 3 * SECOND,
        ..BASE
    },
    Scenario {
        name: "far_everything",
        far: ALL,
        network: BAD,
        group: several,
        faults: everything,
        failing: 0.05,
        idle: u64::MAX,
        ..BASE
    },
];
