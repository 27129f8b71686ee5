//! What one step does at most (P16).

use crate::*;

#[test]
fn step_limits_grants_and_expiries() {
    let mut group = Group::new();
    group.certain = false;
    let mut a = Sender::new("a", vec![requests(5000)]);
    a.send(&mut group, joins(150));
    a.send(&mut group, joins(150));
    // A fresh instance alone waits for the lease.
    let mut told = group.pass(3 * SECOND, &mut a);
    for _ in 0..4 {
        assert_eq!((told.grants.len(), told.more), (64, true));
        told = a.send(&mut group, Vec::new());
    }
    assert_eq!((told.grants.len(), told.more), (44, false));
    group.now += SPAN;
    a.send(&mut group, Vec::new());
    for part in 0..5 {
        let charges = (1..=240).map(|i| log_charge(part * 240 + i, 1, 0));
        a.send(&mut group, charges.collect());
    }
    group.now += SPAN;
    let told = a.send(&mut group, Vec::new());
    assert_eq!((told.used[0].cost.requests, told.more), (200, true));
    let told = a.send(&mut group, Vec::new());
    assert_eq!((told.used[0].cost.requests, told.more), (0, false));
}

#[test]
fn step_limits_orphaned_entries_dropped_and_swept() {
    for (priority, left) in [(0, 1200 - 128), (9, 1200 - 63)] {
        let mut group = Group::new();
        let slot = vec![Deployment::new("a").limit(LimitKind::Concurrency, 1, Duration::ZERO)];
        let (mut a, mut b) = (Sender::new("a", slot.clone()), Sender::new("b", slot));
        a.send(&mut group, joins(1));
        for _ in 0..5 {
            b.send(&mut group, vec![join(priority, 1); 240]);
        }
        // One of the living, before those of the dead or after them.
        a.send(&mut group, vec![join(5, 1)]);
        let entries = |group: &Group| group.state.as_ref().unwrap().census().entries - 1;
        let mut told = group.pass(2 * SECOND, &mut a);
        assert_eq!((told.depth, entries(&group)), (1201, 1200));
        told = group.pass(SECOND / 2, &mut a);
        assert_eq!((told.depth, entries(&group)), (1, left));
        assert_eq!((told.mine, told.more), (priority == 9, priority == 0));
        for _ in 0..25 {
            told = a.send(&mut group, Vec::new());
        }
        assert_eq!((told.mine, told.more, entries(&group)), (true, false, 0));
    }
}

/// A full queue turns away the last of the living, and only they are counted as waiting before others.
#[test]
fn orphaned_entries_take_no_room_under_the_cap() {
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
    assert!(census(&group).entries > 100 && census(&group).waiting == 1);
    let mut copy = Group {
        state: group.state.clone(),
        wakes: Vec::new(),
        ..group
    };
    let told = a.clone().send(&mut copy, vec![join(9, 1)]);
    assert_eq!(told.ahead, [1], "surely before it");
    let told = a.send(&mut group, vec![join(1, 1); 200]);
    assert_eq!((told.refusals.len(), told.depth), (1, 200));
    assert_eq!((census(&group).entries, census(&group).inbox), (200, 0));
}

#[test]
fn next_free_is_a_lower_bound_when_many_entries_must_expire() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![tokens(100)]);
    let charges = (0..90).map(|i| log_charge(i + 1, 1, SECOND - i * 1000));
    a.send(&mut group, charges.collect());
    let told = a.send(&mut group, vec![join(0, 100)]);
    let sixty_fifth = SPAN - SECOND + 64_000;
    assert_eq!(told.next_free.unsigned_abs(), sixty_fifth);
}

/// Another list of windows: what counts by the former one is recounted in parts, and counts for rather too much until then.
#[test]
fn step_limits_recounted_entries() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(5000)]);
    a.send(&mut group, Vec::new());
    // Half of them are older than 10 s.
    for part in 0..6 {
        let charges = (0..200).map(|i| {
            let number = part * 200 + i;
            log_charge(
                number + 1,
                1,
                1000 * number + if part < 3 { 10 * SECOND } else { 0 },
            )
        });
        a.send(&mut group, charges.collect());
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
    assert_eq!((told.used[0].cost.requests, left(&group)), (1201, 0));
    // The window goes, and comes again.
    b.send(&mut group, vec![Op::CloseSession { clean: true }]);
    let mut told = a.send(&mut group, Vec::new());
    while told.more {
        told = a.send(&mut group, Vec::new());
    }
    assert_eq!((told.used[0].cost.requests, left(&group)), (1201, 0));
    group.now += SPAN;
    let told = group.pass(2 * SECOND, &mut a);
    assert_eq!(told.used[0].cost.requests, 0);
}

/// A deployment that no rules name any more: its charges count on by the windows that they had, and are there when it comes back.
#[test]
fn charges_of_a_removed_deployment_count_when_it_is_added_again() {
    let mut group = Group::new();
    let b = Deployment::new("b").limit(LimitKind::Requests, 1, Duration::from_secs(1));
    let mut with = Sender::new("with", vec![requests(2)]);
    let mut without = Sender::new("without", vec![b]);
    with.send(&mut group, joins(2));
    with.send(&mut group, vec![Op::CloseSession { clean: false }]);
    without.send(&mut group, Vec::new());
    let told = group.pass(10 * SECOND, &mut without);
    assert_eq!(told.configurations, 1);
    let mut again = Sender::new("again", vec![requests(2)]);
    let told = again.send(&mut group, joins(1));
    assert_eq!((told.used[0].cost.requests, told.grants.len()), (2, 0));
    let left = told.next_free.unsigned_abs();
    assert!((SPAN - 11 * SECOND..SPAN).contains(&left), "{left}");
}

/// P16: what an ended session leaves is settled in parts; until then its calls count as open.
#[test]
fn step_limits_settled_calls_of_an_ended_session() {
    let mut group = Group::new();
    let slots = vec![requests(5000).limit(LimitKind::Concurrency, 600, Duration::ZERO)];
    let (mut a, mut b) = (Sender::new("a", slots.clone()), Sender::new("b", slots));
    a.send(&mut group, Vec::new());
    for _ in 0..10 {
        b.send(&mut group, joins(60));
        b.unreported.clear();
    }
    let census = |group: &Group| group.state.as_ref().unwrap().census();
    let mut open = Vec::new();
    while census(&group).calls == 600 {
        group.pass(SECOND / 2, &mut a);
    }
    let ended = group.now;
    loop {
        group.now += 1000;
        open.push((census(&group).open, census(&group).assumed));
        if census(&group).leftovers == 0 {
            break;
        }
        a.send(&mut group, Vec::new());
    }
    assert_eq!(open, [(400, 200), (200, 400), (0, 600), (0, 600)]);
    // P8: all of them count from the end of the session, not from the step that settled them.
    group.now = ended + SPAN - 1;
    assert_eq!(a.send(&mut group, Vec::new()).used[0].cost.requests, 600);
    group.now = ended + SPAN;
    assert_eq!(a.send(&mut group, Vec::new()).used[0].cost.requests, 0);
}

/// P10, P16: undelivered grants are refunded in parts, too.
#[test]
fn step_limits_revoked_undelivered_grants() {
    let mut group = Group::new();
    let one = |limit| vec![requests(5000).limit(LimitKind::Concurrency, limit, Duration::ZERO)];
    let (mut a, mut b) = (Sender::new("a", one(450)), Sender::new("b", one(450)));
    let mut held = Vec::new();
    for _ in 0..9 {
        held.extend(a.send(&mut group, joins(50)).grants);
    }
    b.send(&mut group, joins(225));
    b.send(&mut group, joins(225));
    let done = held.iter().map(|grant| done(grant.granted));
    let done: Vec<Op> = done.collect();
    for part in done.chunks(50) {
        a.send(&mut group, part.to_vec());
    }
    let census = |group: &Group| group.state.as_ref().unwrap().census();
    assert_eq!(census(&group).inbox, 450);
    let mut left = Vec::new();
    while census(&group).unresponsive == 0 {
        group.pass(SECOND / 2, &mut a);
    }
    loop {
        left.push((census(&group).inbox, census(&group).open));
        if census(&group).leftovers == 0 {
            break;
        }
        a.send(&mut group, Vec::new());
    }
    assert_eq!(left, [(250, 250), (50, 50), (0, 0)]);
}

/// P16: a ticket that comes into a full queue is not refused because of orphaned entries behind it, and does not drop all of them either.
#[test]
fn step_limits_orphaned_entries_dropped_behind_a_full_queue() {
    for fair in [false, true] {
        let slot = Deployment::new("a").limit(LimitKind::Concurrency, 1, Duration::ZERO);
        let config = GroupConfig {
            max_queue_depth: Some(1200),
            fair,
            ..GroupConfig::new(vec![slot])
        };
        let mut group = Group::new();
        let (mut a, mut b) = (Sender::with("a", &config), Sender::with("b", &config));
        a.send(&mut group, joins(1));
        a.send(&mut group, vec![join(-5, 1)]);
        for _ in 0..5 {
            b.send(&mut group, vec![join(5, 1); 239]);
        }
        let census = |group: &Group| group.state.as_ref().unwrap().census();
        while census(&group).waiting > 1 {
            group.pass(SECOND / 2, &mut a);
        }
        for _ in 0..4 {
            a.send(&mut group, vec![join(-5, 1); 240]);
        }
        a.send(&mut group, vec![join(-5, 1); 239]);
        let before = census(&group);
        let orphaned = |census: Census| census.entries - census.waiting;
        assert!(
            before.waiting == 1200 && orphaned(before) > 256,
            "{before:?}"
        );
        let told = a.send(&mut group, vec![join(-5, 1); 2]);
        assert_eq!(
            (told.refusals.len(), told.depth, told.more),
            (0, 1202, true)
        );
        assert!(orphaned(before) - orphaned(census(&group)) == 128);
        let mut told = a.send(&mut group, Vec::new());
        while orphaned(census(&group)) > 100 {
            told = a.send(&mut group, vec![join(-5, 1)]);
        }
        let depth = told.depth;
        let told = a.send(&mut group, vec![join(-5, 1); 2]);
        assert_eq!((told.refusals.len(), told.depth), (2, depth));
        assert_eq!(orphaned(census(&group)), 0);
    }
}
