//! The scenarios: what goes wrong in each, and what is allowed.

use crate::{
    groups::{
        few_slots, frank, one_sick, plain, several, several_ordered, short_windows, tokens_ordered,
        wide, wide_fair, wide_ordered, with_tokens,
    },
    scenario::{Fault, MS, SECOND, Scenario, WINDOW},
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
        (between(rng, 15_000, 55_000), Fault::Torn(rng.u32(..))),
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
        // Not both: a server that forgets everything and whose clock goes back begins with low numbers if the first to come is a fresh instance (P5).
        faults.push((
            between(rng, 15_000, 55_000),
            Fault::Clock(-rng.i64(1..4000)),
        ));
    }
    faults
}

pub(crate) const QUIET: (f64, f64, f64, f64) = (0.0, 0.0, 0.0, 0.0);
const USUAL: (f64, f64, f64, f64) = (0.0, 0.0, 0.0, 0.02);
const BAD: (f64, f64, f64, f64) = (0.03, 0.05, 0.05, 0.02);

/// How long a head with room may wait: with nothing wrong, a few round trips (25 ms). A lost wake or message costs a heartbeat, a grant to
/// an instance that does not step the time for its delivery, a dead instance the lease, a loss the recovery (at most a lease); these add up where they meet.
/// Debits of those who are gone count on for a window (A6, P13): the referee cannot know of all of them, so scenarios with them allow that too.
pub(crate) const LEASE: u64 = 3 * SECOND;

/// All instances are near the server.
pub(crate) const NEAR: [(u64, u64); 3] = [(0, 0); 3];

pub(crate) const BASE: Scenario = Scenario {
    name: "",
    network: USUAL,
    group: plain,
    roll: None,
    faults: none,
    failing: 0.0,
    unsent: 0.0,
    longest_call: 2 * SECOND,
    rate: 0.6,
    idle: 2 * SECOND,
    forgets: false,
    late: 0,
    jitter: 0,
    far: NEAR,
    slow: 0,
    absurd: false,
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
        name: "flushed",
        faults: |rng| {
            vec![
                (between(rng, 15_000, 30_000), Fault::Flush),
                (between(rng, 30_000, 55_000), Fault::Flush),
            ]
        },
        idle: LEASE + 2 * SECOND,
        ..BASE
    },
    Scenario {
        name: "paused",
        faults: |rng| {
            (0..2)
                .map(|i| {
                    (
                        between(rng, 10_000, 45_000),
                        Fault::Pause(i, between(rng, 3_600, 12_000)),
                    )
                })
                .collect()
        },
        idle: LEASE,
        ..BASE
    },
    Scenario {
        name: "killed",
        faults: |rng| vec![(between(rng, 10_000, 45_000), Fault::Kill(0))],
        idle: WINDOW,
        ..BASE
    },
    Scenario {
        name: "killed_then_flushed",
        faults: |rng| {
            let at = between(rng, 25_000, 40_000);
            vec![
                (at, Fault::Kill(0)),
                (at + between(rng, 0, 12_000), Fault::Flush),
            ]
        },
        // What is charged for missing instances counts from when they could dispatch no more.
        idle: WINDOW + SECOND + 3 * SECOND / 2,
        ..BASE
    },
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
        name: "torn",
        group: wide,
        faults: |rng| {
            (0..3)
                .map(|_| (between(rng, 15_000, 55_000), Fault::Torn(rng.u32(..))))
                .collect()
        },
        rate: 1.2,
        idle: WINDOW,
        ..BASE
    },
    Scenario {
        name: "hanging",
        network: BAD,
        group: few_slots,
        faults: |rng| {
            let mut faults = vec![(
                between(rng, 10_000, 45_000),
                Fault::Hang(between(rng, 4_500, 9_000)),
            )];
            if rng.bool() {
                faults.push((
                    between(rng, 10_000, 45_000),
                    Fault::Down(between(rng, 500, 9_000), rng.bool()),
                ));
            }
            faults
        },
        longest_call: 9 * SECOND,
        rate: 1.2,
        idle: 2 * LEASE + 2 * SECOND,
        ..BASE
    },
    Scenario {
        name: "partitioned",
        faults: |rng| {
            (0..3)
                .map(|i| {
                    (
                        between(rng, 10_000, 45_000),
                        Fault::Cut(i, between(rng, 300, 12_000)),
                    )
                })
                .collect()
        },
        idle: WINDOW,
        ..BASE
    },
    // What the deaf ask for again and again is answered, and that is no sign of life: their slots go to the others.
    Scenario {
        name: "deaf",
        network: QUIET,
        group: few_slots,
        faults: |rng| {
            (0..2)
                .map(|i| {
                    (
                        between(rng, 10_000, 40_000),
                        Fault::Deafen(i, between(rng, 500, 20_000)),
                    )
                })
                .collect()
        },
        longest_call: 9 * SECOND,
        rate: 1.2,
        // What comes free can go to the other one, and is not delivered.
        idle: LEASE + SECOND,
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
        group: one_sick,
        failing: 0.3,
        rate: 1.0,
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "clock_back",
        // A jump of more than a second loses the time since the last step: a heartbeat at most. A smaller one stops the clock for as long (P6).
        late: 3 * SECOND / 2,
        faults: |rng| {
            (0..3)
                .map(|_| {
                    (
                        between(rng, 10_000, 50_000),
                        Fault::Clock(-rng.i64(1..4000)),
                    )
                })
                .collect()
        },
        ..BASE
    },
    // Followed step by step, such jitter would advance the group clock by half a second per window (P6).
    Scenario {
        name: "clock_jitter",
        jitter: 20 * MS,
        late: 20 * MS,
        rate: 1.0,
        ..BASE
    },
    Scenario {
        name: "restarts",
        faults: |rng| {
            (0..3)
                .map(|i| (between(rng, 10_000, 50_000), Fault::Restart(i)))
                .collect()
        },
        idle: 2 * SECOND,
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
    // Whoever stops does not come for its grants; they go to the next before its session ends.
    Scenario {
        name: "stopped_for_a_moment",
        network: QUIET,
        faults: |rng| {
            let stop = |i| {
                (
                    between(rng, 10_000, 50_000),
                    Fault::Pause(i, between(rng, 800, 1_900)),
                )
            };
            (0..2).map(stop).collect()
        },
        idle: 5 * SECOND / 2,
        rate: 0.8,
        ..BASE
    },
    Scenario {
        name: "killed_with_calls",
        network: QUIET,
        group: few_slots,
        faults: |rng| vec![(between(rng, 10_000, 50_000), Fault::Kill(0))],
        longest_call: 9 * SECOND,
        rate: 1.2,
        idle: LEASE,
        ..BASE
    },
    // Windows shorter than an outage.
    Scenario {
        name: "short_windows",
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
    // Who is cut off when the state is lost still has its calls, and is waited for.
    Scenario {
        name: "flushed_with_calls",
        network: BAD,
        group: few_slots,
        faults: |rng| {
            let at = between(rng, 15_000, 45_000);
            let mut faults = vec![(at, Fault::Flush)];
            let cut = |i| {
                (
                    at - between(rng, 0, 300),
                    Fault::Cut(i, between(rng, 500, 2_500)),
                )
            };
            faults.extend((0..2).map(cut));
            faults
        },
        longest_call: 9 * SECOND,
        rate: 1.2,
        idle: 3 * LEASE,
        ..BASE
    },
    // Who is missing at the end of the recovery tells later; what was charged for it is taken back.
    Scenario {
        name: "flushed_and_cut",
        faults: |rng| {
            let at = between(rng, 20_000, 45_000);
            vec![
                (at, Fault::Cut(0, between(rng, 4_500, 6_000))),
                (at + between(rng, 300, 800), Fault::Flush),
            ]
        },
        idle: 2 * LEASE + 2 * SECOND,
        ..BASE
    },
    // Instances that know nothing come first after a loss; others have just gone.
    Scenario {
        name: "fresh",
        group: wide,
        faults: |rng| {
            let at = between(rng, 20_000, 45_000);
            vec![
                (at, Fault::Restart(0)),
                (at - between(rng, 0, 9_000), Fault::Restart(1)),
                (at + 2 * MS - rng.u64(0..4 * MS), Fault::Flush),
            ]
        },
        rate: 1.2,
        idle: WINDOW + LEASE,
        ..BASE
    },
    // A server that forgets everything, and the time.
    Scenario {
        name: "amnesia",
        faults: |rng| {
            let mut faults = Vec::new();
            for _ in 0..2 {
                let at = between(rng, 15_000, 50_000);
                faults.push((at, Fault::Clock(-rng.i64(1..4000))));
                faults.push((at, Fault::Flush));
                faults.push((
                    at - between(rng, 0, 4_000),
                    Fault::Cut(rng.usize(..3), between(rng, 300, 6_000)),
                ));
            }
            faults
        },
        idle: 2 * WINDOW,
        ..BASE
    },
    Scenario {
        name: "tokens_flushed",
        network: QUIET,
        group: with_tokens,
        faults: |rng| vec![(between(rng, 15_000, 50_000), Fault::Flush)],
        rate: 0.9,
        // Everybody is there: two heartbeats, and one until somebody notices.
        idle: 2 * SECOND,
        ..BASE
    },
    Scenario {
        name: "frankly_failing",
        network: QUIET,
        group: frank,
        failing: 0.3,
        rate: 1.2,
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "sick_and_flushed",
        network: QUIET,
        group: one_sick,
        faults: |rng| {
            (0..3)
                .map(|_| (between(rng, 10_000, 55_000), Fault::Flush))
                .collect()
        },
        failing: 0.3,
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "sick_and_failed_over",
        group: one_sick,
        faults: |rng| {
            let mut faults: Vec<_> = (0..3)
                .map(|_| {
                    (
                        between(rng, 10_000, 55_000),
                        Fault::Failover(rng.usize(1..9)),
                    )
                })
                .collect();
            faults.push((between(rng, 10_000, 55_000), Fault::Torn(rng.u32(..))));
            faults
        },
        failing: 0.3,
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "failover_unseen",
        forgets: true,
        faults: |rng| {
            vec![(
                between(rng, 20_000, 50_000),
                Fault::Failover(rng.usize(1..9)),
            )]
        },
        idle: WINDOW,
        ..BASE
    },
    // Its windows end early, and nothing else does.
    Scenario {
        name: "clock_ahead",
        faults: |rng| {
            (0..3)
                .map(|_| (between(rng, 10_000, 55_000), Fault::Clock(rng.i64(1..4000))))
                .collect()
        },
        ..BASE
    },
    Scenario {
        name: "quiet_deployments",
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
    Scenario {
        name: "fair_and_flushed",
        group: wide_fair,
        faults: |rng| {
            vec![
                (between(rng, 15_000, 55_000), Fault::Flush),
                (between(rng, 15_000, 55_000), Fault::Kill(rng.usize(..3))),
            ]
        },
        failing: 0.05,
        rate: 1.4,
        idle: LEASE + WINDOW,
        ..BASE
    },
    // Pacing, reserves, aging and fair shares, in any combination.
    Scenario {
        name: "ordered",
        network: QUIET,
        group: wide_ordered,
        rate: 1.2,
        idle: 25 * MS,
        ..BASE
    },
    Scenario {
        name: "ordered_tokens",
        network: QUIET,
        group: tokens_ordered,
        rate: 0.9,
        idle: 25 * MS,
        ..BASE
    },
    Scenario {
        name: "ordered_and_flushed",
        group: wide_ordered,
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
    Scenario {
        name: "ordered_everything",
        network: BAD,
        group: several_ordered,
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
