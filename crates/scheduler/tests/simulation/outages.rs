//! Scenarios of instances and servers that stop, die or lose each other, and of clocks.

use crate::{
    groups::{few_slots, plain, short_windows},
    scenario::{Fault, MS, SECOND, Scenario, WINDOW},
    scenarios::{BAD, BASE, LEASE, QUIET, between},
};

pub(crate) const SCENARIOS: &[Scenario] = &[
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
        name: "killed",
        faults: |rng| vec![(between(rng, 10_000, 45_000), Fault::Kill(0))],
        idle: WINDOW,
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
    // An undelivered grant goes to the next ticket long before its owner's session ends.
    Scenario {
        name: "paused_before_delivery",
        network: QUIET,
        group: plain,
        faults: |rng| {
            let stop = |n: u64| {
                let at = n * 5_000 + rng.u64(0..3_000);
                (
                    at * MS,
                    Fault::Pause(rng.usize(..3), between(rng, 1_500, 1_950)),
                )
            };
            (2..11).map(stop).collect()
        },
        idle: 6 * SECOND / 5,
        rate: 0.8,
        ..BASE
    },
    // An outage of the server ends no session, and no open call is forgotten.
    Scenario {
        name: "hanging_shortly",
        network: QUIET,
        group: few_slots,
        faults: |rng| {
            let hang = |n: u64| {
                let at = n * 12_000 + rng.u64(0..4_000);
                (at * MS, Fault::Hang(between(rng, 2_200, 4_000)))
            };
            (1..5).map(hang).collect()
        },
        longest_call: 9 * SECOND,
        rate: 1.2,
        idle: LEASE + SECOND,
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
    // If it accumulated, this jitter would advance the group clock by half a second per window (P6).
    Scenario {
        name: "clock_jitter",
        jitter: 20 * MS,
        late: 20 * MS,
        rate: 1.0,
        ..BASE
    },
];
