//! The group clock and the lease clock follow the clock of the server (P6, P7).

use crate::*;

/// A group that is old enough for its sequence numbers, which begin above the clock, to follow it (P5).
fn group_that_follows_the_clock() -> (Group, Sender) {
    let mut group = Group::new();
    let mut sender = Sender::new("a", vec![Deployment::new("a")]);
    sender.send(&mut group, Vec::new());
    group.now += 20 * SECOND;
    (group, sender)
}

/// The group clock, read from a sequence number: the clock is its lower bound.
fn group_clock(group: &mut Group, by: &mut Sender) -> Micros {
    Micros(by.send(group, joins(1)).base.0)
}

#[test]
fn clock_jitter_does_not_accumulate() {
    const STEPS_PER_SECOND: u64 = 1_500;
    const JITTER: u64 = 5_000;
    let (mut group, mut a) = group_that_follows_the_clock();
    let mut rng = fastrand::Rng::with_seed(1);
    let begin = group.now;
    let first = group_clock(&mut group, &mut a);
    for step in 1..=3 * STEPS_PER_SECOND {
        group.now = begin + step * SECOND / STEPS_PER_SECOND + Micros(rng.u64(0..=JITTER));
        a.send(&mut group, Vec::new());
    }
    let passed = group_clock(&mut group, &mut a) - first;
    assert!(passed.0.abs_diff(3 * SECOND.0) <= JITTER, "{passed:?}");
}

#[test]
fn small_backward_step_stops_the_group_clock_until_the_server_catches_up() {
    let (mut group, mut a) = group_that_follows_the_clock();
    let first = group_clock(&mut group, &mut a);
    group.now = group.now - SECOND;
    let after = group_clock(&mut group, &mut a);
    assert!(
        after - first <= Micros(64),
        "numbers grow by blocks of 32 at most while the clock stands still"
    );
    group.now += 3 * SECOND;
    assert_eq!(group_clock(&mut group, &mut a) - first, 2 * SECOND);
}

#[test]
fn large_backward_step_becomes_the_new_base_of_the_group_clock() {
    let (mut group, mut a) = group_that_follows_the_clock();
    let first = group_clock(&mut group, &mut a);
    group.now = group.now - SECOND - Micros(1);
    group_clock(&mut group, &mut a);
    group.now += 3 * SECOND;
    assert_eq!(group_clock(&mut group, &mut a) - first, 3 * SECOND);
}

/// P7 (lease clock): a lease clock that runs ahead would end a session before its lease is over.
#[test]
fn clock_jitter_ends_no_session_early() {
    let mut group = Group::new();
    let mut quiet = Sender::new("quiet", vec![Deployment::new("a")]);
    let mut busy = Sender::new("busy", vec![Deployment::new("a")]);
    quiet.send(&mut group, Vec::new());
    let begin = group.now;
    let mut rng = fastrand::Rng::with_seed(1);
    for step in 0..2_250 {
        group.now = begin + step * SECOND / 1_500 + Micros(rng.u64(0..=5_000));
        busy.send(&mut group, Vec::new());
    }
    assert_eq!(
        quiet.try_send(&mut group, Vec::new()).verdict,
        Verdict::Done
    );
}
