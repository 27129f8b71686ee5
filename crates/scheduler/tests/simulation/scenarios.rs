//! The scenarios: what goes wrong in each, and what is allowed.

use crate::{
    groups::{
        explicit_cooldowns, few_slots, one_unhealthy, plain, several, several_with_policies,
        short_windows, tokens_with_policies, wide, wide_fair, wide_with_policies, with_tokens,
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
const BAD: (f64, f64, f64, f64) = (0.03, 0.05, 0.05, 0.02);

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
        // The conservative charge counts from the time after which unaccounted instances could no longer dispatch.
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
    // Retransmissions get their replays but are no sign of life, so the slots of an instance that receives no replies go to others.
    Scenario {
        name: "replies_lost",
        network: QUIET,
        group: few_slots,
        faults: |rng| {
            (0..2)
                .map(|i| {
                    (
                        between(rng, 10_000, 40_000),
                        Fault::LoseReplies(i, between(rng, 500, 20_000)),
                    )
                })
                .collect()
        },
        longest_call: 9 * SECOND,
        rate: 1.2,
        // A free slot can be granted to the other such instance, and that grant is not delivered.
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
        group: one_unhealthy,
        failing: 0.3,
        rate: 1.0,
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "clock_back",
        // A step back of more than a second loses the time since the last step: at most a heartbeat. A smaller one stops the clock until it is made up (P6).
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
    // If it accumulated, this jitter would advance the group clock by half a second per window (P6).
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
    // Undelivered grants of a stopped instance go to the next ticket before its session ends.
    Scenario {
        name: "paused_shortly",
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
    // An instance that is cut off when the state is lost still has open calls, and the recovery waits for it.
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
    // An instance that is unaccounted at the end of the recovery reports later, and the conservative charge is removed.
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
    // Fresh instances come first after a loss, and others have just departed.
    Scenario {
        name: "fresh_instances_after_flush",
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
    // The server loses its state, and its clock goes back.
    Scenario {
        name: "flushed_with_clock_back",
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
        // All instances report: two heartbeats for the recovery, and one until the loss is detected.
        idle: 2 * SECOND,
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
        name: "unhealthy_and_flushed",
        network: QUIET,
        group: one_unhealthy,
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
    // Windows end early, and nothing else happens.
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
