//! More scenarios: what is told after a loss, and what becomes of those who cannot tell.

use crate::{
    groups::{few_slots, frank, only_slots, patient, plain, wide, with_tokens},
    scenario::{Fault, MS, SECOND, Scenario, WINDOW},
    scenarios::{BASE, LEASE, QUIET, between},
};

pub(crate) const LOSSES: &[Scenario] = &[
    // Two are missing at the end of the recovery: what was charged stays until both have told.
    Scenario {
        name: "flushed_and_two_cut",
        faults: |rng| {
            let at = between(rng, 20_000, 45_000);
            vec![
                (at, Fault::Cut(0, between(rng, 4_500, 6_000))),
                (at, Fault::Cut(1, between(rng, 7_000, 11_000))),
                (at + between(rng, 300, 800), Fault::Flush),
            ]
        },
        rate: 1.0,
        idle: WINDOW + LEASE,
        ..BASE
    },
    // What is charged for the dead is lost, too.
    Scenario {
        name: "killed_then_flushed_twice",
        faults: |rng| {
            let at = between(rng, 25_000, 40_000);
            let flushed = at + between(rng, 0, 1_000);
            vec![
                (at, Fault::Kill(0)),
                (flushed, Fault::Flush),
                (flushed + between(rng, 500, 9_000), Fault::Flush),
            ]
        },
        rate: 1.0,
        idle: 2 * WINDOW,
        ..BASE
    },
    // What was given back unused is not told as used.
    Scenario {
        name: "unsent_and_flushed",
        group: patient,
        faults: |rng| {
            vec![
                (between(rng, 15_000, 30_000), Fault::Flush),
                (between(rng, 30_000, 55_000), Fault::Flush),
            ]
        },
        unsent: 0.3,
        idle: LEASE + 2 * SECOND,
        ..BASE
    },
    // ... nor stays, when the group could not be told at once.
    Scenario {
        name: "unsent_and_cut",
        group: patient,
        faults: |rng| {
            let cut = |i: usize| {
                (
                    between(rng, 10_000, 50_000),
                    Fault::Cut(i % 3, between(rng, 2_200, 4_000)),
                )
            };
            (0..6).map(cut).collect()
        },
        unsent: 0.5,
        rate: 1.0,
        idle: 2 * LEASE,
        ..BASE
    },
    // Who caused a cooldown knows of it even if it has not learnt of it from the group yet.
    Scenario {
        name: "frank_and_flushed",
        network: QUIET,
        group: frank,
        faults: |rng| {
            (0..4)
                .map(|_| (between(rng, 10_000, 55_000), Fault::Flush))
                .collect()
        },
        failing: 0.4,
        rate: 1.2,
        idle: u64::MAX,
        ..BASE
    },
    // The owner knows what was used better than an older state.
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
    // A grant that is not delivered goes to the next long before its owner is given up.
    Scenario {
        name: "stopped_before_a_grant",
        network: QUIET,
        group: plain,
        faults: |rng| {
            let stop = |turn: u64| {
                let at = turn * 5_000 + rng.u64(0..3_000);
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
    // An outage makes nobody look dead, and nobody's calls forgotten.
    Scenario {
        name: "hanging_shortly",
        network: QUIET,
        group: few_slots,
        faults: |rng| {
            let hang = |turn: u64| {
                let at = turn * 12_000 + rng.u64(0..4_000);
                (at * MS, Fault::Hang(between(rng, 2_200, 4_000)))
            };
            (1..5).map(hang).collect()
        },
        longest_call: 9 * SECOND,
        rate: 1.2,
        idle: LEASE + SECOND,
        ..BASE
    },
    // ... nor ends a recovery before anybody can speak.
    Scenario {
        name: "flushed_and_hanging",
        network: QUIET,
        group: only_slots,
        faults: |rng| {
            let at = between(rng, 20_000, 45_000);
            vec![
                (at - 100 * MS, Fault::Cut(0, between(rng, 1_000, 2_000))),
                (at - 100 * MS, Fault::Cut(1, between(rng, 1_000, 2_000))),
                (at, Fault::Flush),
                (at + 600 * MS, Fault::Hang(between(rng, 3_100, 5_000))),
            ]
        },
        longest_call: 9 * SECOND,
        rate: 1.2,
        idle: 3 * LEASE,
        ..BASE
    },
    // Who cannot tell of its calls at once is waited for.
    Scenario {
        name: "flushed_without_windows",
        network: QUIET,
        group: only_slots,
        faults: |rng| {
            let at = between(rng, 20_000, 45_000);
            vec![
                (at, Fault::Cut(0, between(rng, 1_200, 1_900))),
                (at, Fault::Cut(1, between(rng, 1_200, 1_900))),
                (at + MS, Fault::Flush),
            ]
        },
        longest_call: 9 * SECOND,
        rate: 1.5,
        idle: 2 * LEASE,
        ..BASE
    },
    // One address goes to a replica and back to its former master, which knows nothing of what was granted meanwhile.
    Scenario {
        name: "failed_back",
        faults: |rng| {
            let away = between(rng, 3_500, 12_000);
            vec![(between(rng, 20_000, 40_000), Fault::Elsewhere(1, away))]
        },
        rate: 1.5,
        idle: 2 * LEASE,
        ..BASE
    },
    // Totals stay exact, and what cannot be used up in a window blocks it for that window, not for ever.
    Scenario {
        name: "absurd_amounts",
        group: |rng| {
            if rng.bool() {
                with_tokens(rng)
            } else {
                wide(rng)
            }
        },
        faults: |rng| vec![(between(rng, 20_000, 40_000), Fault::Flush)],
        absurd: true,
        idle: u64::MAX,
        ..BASE
    },
];
