//! Scenarios of losses: what instances report after them, and what is charged for instances that cannot report.

use crate::{
    groups::{
        explicit_cooldowns, few_slots, full_long_window, long_window, one_unhealthy, only_slots,
        wide, wide_fair, with_tokens, without_counted_failures,
    },
    scenario::{Fault, MS, SECOND, Scenario, WINDOW},
    scenarios::{BAD, BASE, LEASE, QUIET, between},
};

/// Often so soon that no usage snapshot is newer than the death.
fn killed_then_flushed(rng: &mut fastrand::Rng) -> Vec<(u64, Fault)> {
    let at = between(rng, 25_000, 40_000);
    let after = if rng.bool() {
        between(rng, 0, 1_000)
    } else {
        between(rng, 0, 12_000)
    };
    vec![(at, Fault::Kill(0)), (at + after, Fault::Flush)]
}

pub(crate) const SCENARIOS: &[Scenario] = &[
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
    // A loss together with an instance stops service for the short window and not for the long one.
    Scenario {
        name: "long_window_killed_then_flushed",
        group: long_window,
        faults: killed_then_flushed,
        idle: WINDOW + SECOND + 3 * SECOND / 2,
        ..BASE
    },
    // The room of a long window that may be charged conservatively is not known.
    Scenario {
        name: "full_long_window_killed_then_flushed",
        group: full_long_window,
        faults: killed_then_flushed,
        rate: 1.0,
        idle: 5 * WINDOW,
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
