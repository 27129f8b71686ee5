//! Scenarios in which the backend is away, and the instances continue with their parts of the limits (P21).

use crate::{
    groups::shared_when_away,
    scenario::{Fault, Scenario, WINDOW},
    scenarios::{BASE, between},
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "away",
        group: shared_when_away,
        faults: |rng| {
            let at = between(rng, 12_000, 20_000);
            vec![(at, Fault::Down(between(rng, 4_000, 35_000), rng.bool()))]
        },
        rate: 1.5,
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "away_again",
        group: shared_when_away,
        faults: |rng| {
            (0..3)
                .map(|k| {
                    let at = between(rng, 10_000 + k * 18_000, 14_000 + k * 18_000);
                    let length = between(rng, 3_000, 12_000);
                    let fault = if rng.bool() {
                        Fault::Down(length, true)
                    } else {
                        Fault::Hang(length)
                    };
                    (at, fault)
                })
                .collect()
        },
        rate: 1.0,
        idle: u64::MAX,
        ..BASE
    },
    Scenario {
        name: "away_and_killed",
        group: shared_when_away,
        faults: |rng| {
            let at = between(rng, 12_000, 20_000);
            vec![
                (at, Fault::Down(between(rng, 8_000, 25_000), true)),
                (at + between(rng, 4_000, 20_000), Fault::Kill(0)),
            ]
        },
        rate: 1.5,
        idle: WINDOW * 1000,
        ..BASE
    },
];
