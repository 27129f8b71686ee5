//! The bounds of one step (P16).

use crate::*;

#[test]
fn step_limits_grants_and_expiries() {
    let mut group = Group::after_a_loss();
    let mut a = Sender::new("a", vec![requests(5000)]);
    a.send(&mut group, joins(150));
    a.send(&mut group, joins(150));
    // With fresh instances alone, the recovery lasts for the lease (P3).
    let mut answer = group.advance(3 * SECOND, &mut a);
    for _ in 0..4 {
        assert_eq!((answer.grants.len(), answer.more), (64, true));
        answer = a.send(&mut group, Vec::new());
    }
    assert_eq!((answer.grants.len(), answer.more), (44, false));
    group.now += SPAN;
    a.send(&mut group, Vec::new());
    for part in 0..5 {
        let charges = (1..=240).map(|i| log_charge(Seq(part * 240 + i), 1, Micros::ZERO));
        a.send(&mut group, charges.collect());
    }
    group.now += SPAN;
    let answer = a.send(&mut group, Vec::new());
    // 1,000 of the 1,200, to the end of a block of 32 numbers: those from 1 to 1,023.
    assert_eq!((answer.used[0].cost.requests, answer.more), (177, true));
    let answer = a.send(&mut group, Vec::new());
    assert_eq!((answer.used[0].cost.requests, answer.more), (0, false));
}

#[test]
fn step_limits_orphaned_entries_dropped_and_swept() {
    for (priority, left) in [(0, 1200 - 128), (9, 1200 - 63)] {
        let mut group = Group::new();
        let slot = vec![Deployment::new("a").limit(LimitKind::Concurrency, 1, Duration::ZERO)];
        let [mut a, mut b] = senders(["a", "b"], &slot);
        a.send(&mut group, joins(1));
        for _ in 0..5 {
            b.send(&mut group, vec![join(priority, 1); 240]);
        }
        // A ticket of a living session, behind the orphaned entries or before them.
        a.send(&mut group, vec![join(5, 1)]);
        let entries = |group: &Group| group.census().entries - 1;
        let mut answer = group.advance(2 * SECOND, &mut a);
        assert_eq!((answer.depth, entries(&group)), (1201, 1200));
        answer = group.advance(SECOND / 2, &mut a);
        assert_eq!((answer.depth, entries(&group)), (1, left));
        assert_eq!((answer.mine, answer.more), (priority == 9, priority == 0));
        for _ in 0..25 {
            answer = a.send(&mut group, Vec::new());
        }
        assert_eq!(
            (answer.mine, answer.more, entries(&group)),
            (true, false, 0)
        );
    }
}

/// A6 (failed instances): a full queue displaces the last ticket of a living session, and `ahead` counts living sessions only.
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
    group.advance(5 * SECOND / 2, &mut a);
    assert!(group.census().entries > 100 && group.census().waiting == 1);
    let mut copy = group.clone();
    let answer = a.clone().send(&mut copy, vec![join(9, 1)]);
    assert_eq!(answer.ahead, [1], "only a's other ticket is ahead");
    let answer = a.send(&mut group, vec![join(1, 1); 200]);
    assert_eq!((answer.refusals.len(), answer.depth), (1, 200));
    assert_eq!((group.census().entries, group.census().inbox), (200, 0));
}

/// P16 (bounds of a step): a step reads 64 expiries at most, so `next_free` is the time at which the next entry expires.
#[test]
fn next_free_is_a_lower_bound_when_many_entries_must_expire() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![tokens(100)]);
    let charges = (0..90).map(|i| log_charge(Seq(i + 1), 1, SECOND - Micros(i * 1000)));
    a.send(&mut group, charges.collect());
    let answer = a.send(&mut group, vec![join(0, 100)]);
    let sixty_fifth = SPAN - SECOND + Micros(64_000);
    assert_eq!(answer.next_free.unsigned_abs(), sixty_fifth.0);
}

/// P16 (bounds of a step): after a change of windows entries are recounted in parts. Until then they count for too much rather than too little.
#[test]
fn step_limits_recounted_entries() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(5000)]);
    a.send(&mut group, Vec::new());
    // Half of the charges are older than 10 s.
    for part in 0..6 {
        let charges = (0..200).map(|i| {
            let number = part * 200 + i;
            log_charge(
                Seq(number + 1),
                1,
                Micros(1000 * number) + (if part < 3 { 10 } else { 0 }) * SECOND,
            )
        });
        a.send(&mut group, charges.collect());
    }
    let short = requests(5000).limit(LimitKind::Requests, 750, Duration::from_secs(10));
    let mut b = Sender::new("b", vec![short]);
    let left = |group: &Group| group.census().unrecounted;
    let mut progress = Vec::new();
    let mut answer = b.send(&mut group, joins(1));
    while answer.more {
        progress.push((left(&group), answer.grants.len()));
        answer = b.send(&mut group, Vec::new());
    }
    // 700 charges are in the new window. Nothing is granted as long as more than its limit count there. A part ends with a block of 32 numbers.
    let expected = [(976, 0), (752, 0), (544, 1), (320, 0), (96, 0)];
    assert_eq!(progress, expected);
    assert_eq!((answer.used[0].cost.requests, left(&group)), (1201, 0));
    // The new window is removed with the last session that has it.
    b.send(&mut group, vec![Op::CloseSession { clean: true }]);
    let mut answer = a.send(&mut group, Vec::new());
    while answer.more {
        answer = a.send(&mut group, Vec::new());
    }
    assert_eq!((answer.used[0].cost.requests, left(&group)), (1201, 0));
    group.now += SPAN;
    let answer = group.advance(2 * SECOND, &mut a);
    assert_eq!(answer.used[0].cost.requests, 0);
}

/// P16 (bounds of a step): a report moves a block before the place of the recount. Its other entries are recounted all the same.
#[test]
fn recount_goes_back_to_a_block_that_moves_before_its_place() {
    const DAY: Duration = Duration::from_secs(86_400);
    let day = || requests(5000).limit(LimitKind::Requests, 9000, DAY);
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![day()]);
    a.send(&mut group, Vec::new());
    // They have left the shorter window.
    for part in 0..3 {
        let charges = (1..=200).map(|i| log_charge(Seq(part * 200 + i), 1, 100 * SECOND));
        a.send(&mut group, charges.collect());
    }
    let short = day().limit(LimitKind::Requests, 800, Duration::from_secs(10));
    let mut b = Sender::new("b", vec![short]);
    let mut answer = b.send(&mut group, Vec::new());
    // A later dispatch of one of the last charges.
    a.send(&mut group, vec![log_charge(Seq(590), 1, SECOND)]);
    while answer.more {
        answer = b.send(&mut group, Vec::new());
    }
    assert_eq!(group.census().unrecounted, 0);
}

/// P16 (bounds of a step): entries of a deployment that no configuration names keep their list of windows. They are recounted when the deployment is added
/// again.
#[test]
fn charges_of_a_removed_deployment_count_when_it_is_added_again() {
    let mut group = Group::new();
    let b = Deployment::new("b").limit(LimitKind::Requests, 1, Duration::from_secs(1));
    let mut with = Sender::new("with", vec![requests(2)]);
    let mut without = Sender::new("without", vec![b]);
    with.send(&mut group, joins(2));
    with.send(&mut group, vec![Op::CloseSession { clean: false }]);
    without.send(&mut group, Vec::new());
    let answer = group.advance(10 * SECOND, &mut without);
    assert_eq!(answer.configurations, 1);
    let mut added_again = Sender::new("again", vec![requests(2)]);
    let answer = added_again.send(&mut group, joins(1));
    assert_eq!((answer.used[0].cost.requests, answer.grants.len()), (2, 0));
    let left = Micros(answer.next_free.unsigned_abs());
    assert!((SPAN - 11 * SECOND..SPAN).contains(&left), "{left:?}");
}

/// P16 (bounds of a step): the calls of an ended session are settled in parts. Until then they count as open.
#[test]
fn step_limits_settled_calls_of_an_ended_session() {
    let mut group = Group::new();
    let slots = vec![requests(5000).limit(LimitKind::Concurrency, 600, Duration::ZERO)];
    let [mut a, mut b] = senders(["a", "b"], &slots);
    a.send(&mut group, Vec::new());
    for _ in 0..10 {
        b.send(&mut group, joins(60));
        b.unreported.clear();
    }
    let mut progress = Vec::new();
    while group.census().calls == 600 {
        group.advance(SECOND / 2, &mut a);
    }
    let ended = group.now;
    loop {
        group.now += Micros(1000);
        progress.push((group.census().open, group.census().assumed));
        if group.census().leftovers == 0 {
            break;
        }
        a.send(&mut group, Vec::new());
    }
    assert_eq!(progress, [(400, 200), (200, 400), (0, 600), (0, 600)]);
    // P8 (dispatch report): all charges get the time of the session's end, not that of the step that settled them.
    group.now = ended + SPAN - Micros(1);
    assert_eq!(a.send(&mut group, Vec::new()).used[0].cost.requests, 600);
    group.now = ended + SPAN;
    assert_eq!(a.send(&mut group, Vec::new()).used[0].cost.requests, 0);
}

/// P10 (delivery deadline), P16 (bounds of a step): undelivered grants are revoked in parts.
#[test]
fn step_limits_revoked_undelivered_grants() {
    let mut group = Group::new();
    let slots = vec![requests(5000).limit(LimitKind::Concurrency, 450, Duration::ZERO)];
    let [mut a, mut b] = senders(["a", "b"], &slots);
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
    assert_eq!(group.census().inbox, 450);
    let mut progress = Vec::new();
    while group.census().unresponsive == 0 {
        group.advance(SECOND / 2, &mut a);
    }
    loop {
        progress.push((group.census().inbox, group.census().open));
        if group.census().leftovers == 0 {
            break;
        }
        a.send(&mut group, Vec::new());
    }
    assert_eq!(progress, [(250, 250), (50, 50), (0, 0)]);
}

/// P16 (bounds of a step): orphaned entries do not cause a ticket to be refused by a full queue, and one step drops only some of them.
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
        while group.census().waiting > 1 {
            group.advance(SECOND / 2, &mut a);
        }
        for _ in 0..4 {
            a.send(&mut group, vec![join(-5, 1); 240]);
        }
        a.send(&mut group, vec![join(-5, 1); 239]);
        let before = group.census();
        let orphaned = |census: Census| census.entries - census.waiting;
        assert!(
            before.waiting == 1200 && orphaned(before) > 256,
            "{before:?}"
        );
        let answer = a.send(&mut group, vec![join(-5, 1); 2]);
        assert_eq!(
            (answer.refusals.len(), answer.depth, answer.more),
            (0, 1202, true)
        );
        assert!(orphaned(before) - orphaned(group.census()) == 128);
        let mut answer = a.send(&mut group, Vec::new());
        while orphaned(group.census()) > 100 {
            answer = a.send(&mut group, vec![join(-5, 1)]);
        }
        let depth = answer.depth;
        let answer = a.send(&mut group, vec![join(-5, 1); 2]);
        assert_eq!((answer.refusals.len(), answer.depth), (2, depth));
        assert_eq!(orphaned(group.census()), 0);
    }
}
