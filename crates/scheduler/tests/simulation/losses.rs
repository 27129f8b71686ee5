//! Scenarios of losses: what instances report after them, and what is charged for instances that cannot report.

use crate::{
    groups::{
        explicit_cooldowns, few_slots, only_slots, plain, wide, with_tokens,
        without_counted_failures,
    },
    scenario::{Fault, MS, SECOND, Scenario, WINDOW},
    scenarios::{BASE, LEASE, QUIET, between},
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    // Two instances are unaccounted at the end of the recovery: the conservative charge stays until both have reported.
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
    // The second loss forgets the conservative charge for the dead instance too.
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
    // Permits that returned unused are not reported as used.
    Scenario {
        name: "unsent_and_flushed",
        group: without_counted_failures,
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
    // ... and their charges do not stay if the refund is reported late.
    Scenario {
        name: "unsent_and_cut",
        group: without_counted_failures,
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
    // The instance that caused a cooldown reports it, even if the state was lost before any reply showed the cooldown.
    Scenario {
        name: "explicit_cooldowns_and_flushed",
        network: QUIET,
        group: explicit_cooldowns,
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
    // ... and ends no recovery before the instances can report.
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
    // The recovery waits for instances that cannot report their open calls at once.
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
    // Totals stay exact. An amount above the limit blocks one window, not all later ones.
    Scenario {
        name: "extreme_amounts",
        group: |rng| {
            if rng.bool() {
                with_tokens(rng)
            } else {
                wide(rng)
            }
        },
        faults: |rng| vec![(between(rng, 20_000, 40_000), Fault::Flush)],
        extreme_amounts: true,
        idle: u64::MAX,
        ..BASE
    },
];
