//! A group in virtual time: requests wait, are granted and time out as they would in a real instance.

use std::time::Duration;

use vorrang_scheduler::{
    Claim, Deployment, GroupConfig, LimitKind, Tokens,
    simulate::{Ended, Request, Simulator},
};

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

fn request(priority: i32) -> Request {
    Request {
        claim: Claim::new(priority, 0),
        patience: 10 * MINUTE,
        calls: 1,
        took: Duration::from_secs(1),
        used: None,
    }
}

/// Runs requests, each with its arrival; how each ended and how long it waited, in their order.
fn run(
    deployment: Deployment,
    requests: &[(Duration, Request)],
) -> (Vec<(Duration, Ended)>, Simulator<usize>) {
    let config = GroupConfig::new(vec![deployment]);
    let mut simulator = Simulator::new(&config, MILLISECOND, 7);
    let mut found = vec![None; requests.len()];
    let mut note = |index: usize, waited, ended| {
        assert_eq!(found[index], None, "each ends once");
        found[index] = Some((waited, ended));
    };
    for (index, (at, request)) in requests.iter().enumerate() {
        simulator.arrive(*at, *request, index, &mut note);
    }
    simulator.finish(&mut note);
    (found.into_iter().map(Option::unwrap).collect(), simulator)
}

fn near(found: Duration, expected: Duration) -> bool {
    found.abs_diff(expected) <= 5 * MILLISECOND
}

#[test]
fn simulated_wait_is_one_round_trip_where_there_is_room() {
    let deployment = Deployment::new("a").limit(LimitKind::Requests, 10, MINUTE);
    let (found, _) = run(deployment, &[(MINUTE, request(0))]);
    assert_eq!(found, [(MILLISECOND, Ended::Granted)]);
}

// A1 (order), A3 (windows): of what waits for a full window the better priority goes first, when the first charge has left.
#[test]
fn simulated_window_frees_after_its_span_for_the_best_priority() {
    let deployment = Deployment::new("a").limit(LimitKind::Requests, 2, MINUTE);
    let second = Duration::from_secs(1);
    let requests = [
        (Duration::ZERO, request(0)),
        (second, request(0)),
        (2 * second, request(5)),
        (3 * second, request(0)),
    ];
    let (found, simulator) = run(deployment, &requests);
    let guard = 100 * MILLISECOND;
    assert!(near(found[3].0, MINUTE + guard - 3 * second), "{found:?}");
    assert!(near(found[2].0, MINUTE + guard - second), "{found:?}");
    let usage = simulator.usage();
    assert_eq!((usage.limits[0].limit, usage.limits[0].most), (2, 2));
    assert!(
        usage.lost.unwrap() < 0.01 && near(usage.contended, MINUTE + guard - second),
        "{usage:?}"
    );
}

#[test]
fn simulated_concurrency_is_held_as_long_as_calls_take() {
    let deployment = Deployment::new("a").limit(LimitKind::Concurrency, 1, MINUTE);
    let (found, _) = run(deployment, &[(Duration::ZERO, request(0)); 4]);
    for (index, (waited, ended)) in found.iter().enumerate() {
        let before = u32::try_from(index).unwrap() * Duration::from_secs(1);
        assert!(
            near(*waited, before) && *ended == Ended::Granted,
            "{found:?}"
        );
    }
}

#[test]
fn simulated_request_times_out_at_its_deadline_and_leaves_the_queue() {
    let deployment = Deployment::new("a").limit(LimitKind::Requests, 1, MINUTE);
    let impatient = Request {
        patience: Duration::from_secs(3),
        ..request(0)
    };
    let requests = [
        (Duration::ZERO, request(0)),
        (MILLISECOND, impatient),
        (2 * MILLISECOND, request(9)),
    ];
    let (found, _) = run(deployment, &requests);
    assert_eq!(found[1], (impatient.patience, Ended::TimedOut));
    assert!(found[2].1 == Ended::Granted && found[2].0 < MINUTE + Duration::from_secs(1));
}

// P14: what was reserved and not used is free when the call ends, and what was used above it counts from then on.
#[test]
fn simulated_tokens_are_corrected_when_the_call_ends() {
    let deployment = || Deployment::new("a").limit(LimitKind::Tokens, 100, MINUTE);
    let of = |reserved: u64, used: u64| Request {
        claim: Claim::new(0, reserved),
        used: Some(Tokens::from(used)),
        ..request(0)
    };
    let second = Duration::from_secs(1);
    let (found, _) = run(
        deployment(),
        &[(Duration::ZERO, of(100, 10)), (second / 2, of(90, 90))],
    );
    assert!(
        near(found[1].0, second / 2),
        "room is free with the end of the call: {found:?}"
    );
    let (found, _) = run(
        deployment(),
        &[(Duration::ZERO, of(10, 100)), (2 * second, of(50, 50))],
    );
    let guard = 100 * MILLISECOND;
    assert!(near(found[1].0, MINUTE + guard - second), "{found:?}");
}

// A8: another attempt keeps the arrival of the first.
#[test]
fn simulated_retry_waits_again_with_its_first_arrival() {
    let deployment = Deployment::new("a").limit(LimitKind::Concurrency, 1, MINUTE);
    let twice = Request {
        calls: 2,
        ..request(0)
    };
    let requests = [(Duration::ZERO, twice), (MILLISECOND, request(0))];
    let (found, _) = run(deployment, &requests);
    assert!(found[0].0 < 10 * MILLISECOND, "{found:?}");
    assert!(near(found[1].0, Duration::from_secs(2)), "{found:?}");
}

#[test]
fn same_seed_simulates_the_same() {
    let deployment = || Deployment::new("a").limit(LimitKind::Requests, 50, MINUTE);
    let requests: Vec<_> = (0..200)
        .map(|n| {
            (
                n * 100 * MILLISECOND,
                request(i32::try_from(n % 7).unwrap()),
            )
        })
        .collect();
    assert_eq!(
        run(deployment(), &requests).0,
        run(deployment(), &requests).0
    );
}
