//! How much of its windows an overloaded fleet far from the server uses.

use std::time::Duration;

use vorrang_scheduler::{Deployment, GroupConfig, LimitKind};

use crate::{
    scenario::{MS, SECOND, Scenario},
    scenarios::{BASE, NEAR, QUIET},
    world::World,
};

fn limited(requests: u64, length: u64) -> GroupConfig {
    let length = Duration::from_micros(length);
    GroupConfig::new(vec![Deployment::new("a").limit(
        LimitKind::Requests,
        requests,
        length,
    )])
}

fn short(_: &mut fastrand::Rng) -> GroupConfig {
    limited(20, 2 * SECOND)
}

fn long(_: &mut fastrand::Rng) -> GroupConfig {
    limited(300, 60 * SECOND)
}

/// Thousandths of the slots that are used at twice the load. The first `far` of three instances have a round trip of `round_trip` ms.
fn used_of_a_thousand(window: u64, round_trip: u64, far: usize) -> u64 {
    type Group = fn(&mut fastrand::Rng) -> GroupConfig;
    let (limit, group) = if window == 2 * SECOND {
        (20, short as Group)
    } else {
        (300, long as Group)
    };
    let one_way = round_trip * MS / 2;
    let mut ways = NEAR;
    ways[..far].fill((one_way * 9 / 10, one_way));
    let until = 4 * SECOND + (5 * window).max(60 * SECOND);
    let scenario: &'static Scenario = Box::leak(Box::new(Scenario {
        name: "used",
        network: QUIET,
        group,
        far: ways,
        until,
        rate: 2.0 * limit as f64 * SECOND as f64 / window as f64,
        idle: u64::MAX,
        ..BASE
    }));
    let verdict = World::new(scenario, 7, false).run();
    assert_eq!(verdict.violations, Vec::<String>::new());
    // The mean time from a call to the limit-th call after it, without the first window, which begins with an empty queue.
    let from = 4 * SECOND + window;
    let calls = verdict.at.iter().filter(|at| (from..until).contains(*at));
    let calls: Vec<u64> = calls.copied().collect();
    let periods: Vec<u64> = calls.windows(limit + 1).map(|w| w[limit] - w[0]).collect();
    let period = periods.iter().sum::<u64>() / periods.len() as u64;
    let messages = verdict.received as f64 / verdict.dispatched as f64;
    let used = 1000 * window / period;
    println!(
        "window {:>2} s, round trip {round_trip:>3} ms, {far} of 3 far: {used} of 1000 slots, {messages:.1} messages a call",
        window / SECOND
    );
    used
}

/// A4 (no idle room): of each window, only the round trip and the guard are lost.
#[test]
fn far_fleet_uses_its_windows() {
    for (round_trip, far) in [(1, 3), (30, 3), (60, 3), (120, 3), (120, 1)] {
        assert!(used_of_a_thousand(60 * SECOND, round_trip, far) >= 990);
        assert!(used_of_a_thousand(2 * SECOND, round_trip, far) >= 850);
    }
}
