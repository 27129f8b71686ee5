//! What one step does at most (P16).

use crate::*;

#[test]
fn a_step_grants_and_expires_no_more_than_so_much() {
    let mut group = Group::new();
    group.certain = false;
    let mut a = Sender::new("a", vec![requests(5000)]);
    a.send(&mut group, joins(150));
    a.send(&mut group, joins(150));
    // A newborn alone waits for the lease.
    let told = group.pass(3 * SECOND, &mut a);
    assert_eq!((told.grants.len(), told.more), (256, true));
    let told = a.send(&mut group, Vec::new());
    assert_eq!((told.grants.len(), told.more), (44, false));
    group.now += SPAN;
    a.send(&mut group, Vec::new());
    for part in 0..5 {
        let debits = (1..=240).map(|i| remember(part * 240 + i, 1, 0));
        a.send(&mut group, debits.collect());
    }
    group.now += SPAN;
    let told = a.send(&mut group, Vec::new());
    assert_eq!((told.used[0].0, told.more), (200, true));
    let told = a.send(&mut group, Vec::new());
    assert_eq!((told.used[0].0, told.more), (0, false));
}

#[test]
fn a_step_drops_and_sweeps_no_more_than_so_much() {
    for (priority, left) in [(0, 1200 - 1000 - 64), (9, 1200 - 63)] {
        let mut group = Group::new();
        let slot = vec![Deployment::new("a").limit(LimitKind::Concurrency, 1, Duration::ZERO)];
        let (mut a, mut b) = (Sender::new("a", slot.clone()), Sender::new("b", slot));
        a.send(&mut group, joins(1));
        for _ in 0..5 {
            b.send(&mut group, vec![join(priority, 1); 240]);
        }
        // One of the living, before those of the dead or after them.
        a.send(&mut group, vec![join(5, 1)]);
        let places = |group: &Group| group.state.as_ref().unwrap().census().places - 1;
        let mut told = group.pass(2 * SECOND, &mut a);
        assert_eq!((told.depth, places(&group)), (1201, 1200));
        told = group.pass(SECOND / 2, &mut a);
        assert_eq!((told.depth, places(&group)), (1, left));
        assert_eq!((told.mine, told.more), (priority == 9, priority == 0));
        for _ in 0..20 {
            told = a.send(&mut group, Vec::new());
        }
        assert_eq!((told.mine, told.more, places(&group)), (true, false, 0));
    }
}

/// A full queue turns away the last of the living, and only they are counted as waiting before others.
#[test]
fn the_dead_take_nobodys_place_under_the_cap() {
    let slot = Deployment::new("a").limit(LimitKind::Concurrency, 1, Duration::ZERO);
    let config = GroupConfig {
        max_queue_depth: Some(200),
        ..GroupConfig::new(vec![slot])
    };
    let mut group = Group::new();
    let (mut a, mut b) = (Sender::with("a", &config), Sender::with("b", &config));
    a.send(&mut group, joins(2));
    b.send(&mut group, vec![join(5, 1); 180]);
    group.pass(5 * SECOND / 2, &mut a);
    let census = |group: &Group| group.state.as_ref().unwrap().census();
    assert!(census(&group).places > 100 && census(&group).waiting == 1);
    let mut copy = Group {
        state: group.state.clone(),
        wakes: Vec::new(),
        ..group
    };
    let told = a.clone().send(&mut copy, vec![join(9, 1)]);
    assert_eq!(told.ahead, [1], "surely before it");
    let told = a.send(&mut group, vec![join(1, 1); 200]);
    assert_eq!((told.refusals.len(), told.depth), (1, 200));
    assert_eq!((census(&group).places, census(&group).inbox), (200, 0));
}

#[test]
fn next_free_is_a_lower_bound_where_many_have_to_leave() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![tokens(100)]);
    let debits = (0..90).map(|i| remember(i + 1, 1, SECOND - i * 1000));
    a.send(&mut group, debits.collect());
    let told = a.send(&mut group, vec![join(0, 100)]);
    let sixty_fifth = SPAN - SECOND + 64_000;
    assert_eq!(told.next_free.unsigned_abs(), sixty_fifth);
}

/// Another list of windows: what counts by the former one is recounted in parts, and counts for rather too much until then.
#[test]
fn a_step_recounts_no_more_than_so_much() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(5000)]);
    a.send(&mut group, Vec::new());
    // Half of them are older than 10 s.
    for part in 0..6 {
        let debits = (0..200).map(|i| {
            let number = part * 200 + i;
            remember(
                number + 1,
                1,
                1000 * number + if part < 3 { 10 * SECOND } else { 0 },
            )
        });
        a.send(&mut group, debits.collect());
    }
    let short = requests(5000).limit(LimitKind::Requests, 750, Duration::from_secs(10));
    let mut b = Sender::new("b", vec![short]);
    let left = |group: &Group| group.state.as_ref().unwrap().census().unrecounted;
    let mut waits = Vec::new();
    let mut told = b.send(&mut group, joins(1));
    while told.more {
        waits.push((left(&group), told.grants.len()));
        told = b.send(&mut group, Vec::new());
    }
    // 700 count in the new window, with its guard. As long as more than its limit seem to, nothing is granted.
    let expected = [(1000, 0), (800, 0), (600, 1), (400, 0), (200, 0), (0, 0)];
    assert_eq!(waits, expected);
    assert_eq!((told.used[0].0, left(&group)), (1201, 0));
    // The window goes, and comes again.
    b.send(&mut group, vec![Op::Bye { clean: true }]);
    let mut told = a.send(&mut group, Vec::new());
    while told.more {
        told = a.send(&mut group, Vec::new());
    }
    assert_eq!((told.used[0].0, left(&group)), (1201, 0));
    group.now += SPAN;
    let told = group.pass(2 * SECOND, &mut a);
    assert_eq!(told.used[0].0, 0);
}

/// A deployment that no rules name any more: its charges count on by the windows that they had, and are there when it comes back.
#[test]
fn charges_of_a_removed_deployment_count_when_it_comes_back() {
    let mut group = Group::new();
    let b = Deployment::new("b").limit(LimitKind::Requests, 1, Duration::from_secs(1));
    let mut with = Sender::new("with", vec![requests(2)]);
    let mut without = Sender::new("without", vec![b]);
    with.send(&mut group, joins(2));
    with.send(&mut group, vec![Op::Bye { clean: false }]);
    without.send(&mut group, Vec::new());
    let told = group.pass(10 * SECOND, &mut without);
    assert_eq!(told.configurations, 1);
    let mut again = Sender::new("again", vec![requests(2)]);
    let told = again.send(&mut group, joins(1));
    assert_eq!((told.used[0].0, told.grants.len()), (2, 0));
    let left = told.next_free.unsigned_abs();
    assert!((SPAN - 11 * SECOND..SPAN).contains(&left), "{left}");
}
