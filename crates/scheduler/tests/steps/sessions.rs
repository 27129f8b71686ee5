//! Who is answered what, and who is believed (P1, P10).

use crate::*;

#[test]
fn session_opening_of_a_former_epoch_is_refused() {
    let mut group = Group::new();
    let (mut a, mut b) = (
        Sender::new("a", vec![requests(1)]),
        Sender::new("b", vec![requests(1)]),
    );
    a.send(&mut group, Vec::new());
    a.message.session = 0;
    let late = a.next(vec![join(0, 1)]);
    (group.state, group.now) = (None, group.now + SECOND);
    b.send(&mut group, Vec::new());
    assert_eq!(group.step(&late).verdict, Verdict::SessionInvalid);
}

#[test]
fn retransmission_returns_cached_reply_and_overtaken_opening_is_stale() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(9)]);
    a.send(&mut group, Vec::new());
    a.message.session = 0;
    let open_session = a.next(joins(1));
    let first = group.step(&open_session);
    assert_eq!(first.answer[0].grants.len(), 1);
    assert_eq!(group.step(&open_session), first);
    a.message.session = first.answer[0].session;
    let message = a.next(joins(2));
    let second = group.step(&message);
    assert_eq!(second.answer[0].grants.len(), 2);
    assert_eq!(group.step(&message), second);
    assert_eq!(
        group.step(&open_session).verdict,
        Verdict::Stale,
        "overtaken by a later message"
    );
    // Nor is it executed after a close-session message, as long as its sender may be missed (P13).
    a.send(&mut group, vec![Op::CloseSession { clean: false }]);
    assert_eq!(group.step(&open_session).verdict, Verdict::Stale);
}

/// The stored answer holds grants that count as delivered: it is given even to an instance that is believed no more (P10).
#[test]
fn unresponsive_session_gets_its_cached_reply_and_is_then_refused() {
    let mut group = Group::new();
    let one = vec![requests(9).limit(LimitKind::Concurrency, 1, Duration::ZERO)];
    let (mut a, mut b) = (Sender::new("a", one.clone()), Sender::new("b", one));
    let held = a.send(&mut group, joins(1)).grants[0].granted;
    b.send(&mut group, Vec::new());
    let last = b.next(joins(1));
    let told = group.step(&last);
    let deployment = Arc::from("a");
    let (tokens, excess) = (Tokens::MAX, Tokens::ZERO);
    let done = Op::Done {
        granted: held,
        deployment,
        tokens,
        excess,
        ok: false,
    };
    a.send(&mut group, vec![done]);
    group.pass(2 * SECOND / 2 + SECOND / 2, &mut a);
    assert_eq!(group.state.as_ref().unwrap().census().unresponsive, 1);
    assert_eq!(group.step(&last), told);
    assert_eq!(
        group.step(&b.next(Vec::new())).verdict,
        Verdict::SessionInvalid
    );
}

/// P1: nothing is dated by it, and nothing else done.
#[test]
fn retransmission_returns_cached_reply_after_any_delay() {
    let mut group = Group::new();
    let (mut a, mut b) = (
        Sender::new("a", vec![requests(9)]),
        Sender::new("b", vec![requests(9)]),
    );
    a.send(&mut group, Vec::new());
    b.send(&mut group, Vec::new());
    let message = a.next(joins(1));
    let first = group.step(&message);
    assert_eq!(first.answer[0].grants.len(), 1);
    for _ in 0..3 {
        group.now += SECOND / 2;
        b.send(&mut group, Vec::new());
        assert_eq!(group.step(&message), first);
    }
}

#[test]
fn undelivered_grant_is_revoked_after_the_delivery_deadline() {
    let mut group = Group::new();
    let slot = vec![Deployment::new("a").limit(LimitKind::Concurrency, 1, Duration::ZERO)];
    let (mut a, mut b) = (Sender::new("a", slot.clone()), Sender::new("b", slot));
    let held = a.send(&mut group, joins(2)).grants[0].granted;
    b.send(&mut group, vec![join(-1, 1)]);
    a.send(&mut group, vec![Op::Unused { granted: held }]);
    let unresponsive = |group: &Group| group.state.as_ref().unwrap().census().unresponsive;
    for after in [300_000, 550_000] {
        group.now += after - if after > 300_000 { 300_000 } else { 0 };
        assert_eq!(a.send(&mut group, Vec::new()).grants, []);
        assert_eq!(unresponsive(&group), 0);
    }
    group.now += 100_000;
    assert_eq!(a.send(&mut group, Vec::new()).grants.len(), 1);
    assert_eq!(unresponsive(&group), 1);
}

/// P8 (the dispatch is reported): an open charge counts for as long as its session lives, and does not expire.
#[test]
fn open_charge_counts_until_its_dispatch_is_reported() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(1)]);
    let granted = a.send(&mut group, joins(2)).grants[0].granted;
    a.unreported.clear();
    let answer = group.pass(SPAN + SECOND, &mut a);
    assert_eq!((answer.used[0].cost.requests, answer.grants.len()), (1, 0));
    // Not known when it ends: looked at again soon.
    let again = SECOND / 2 / 16;
    assert!((1..=again as i64).contains(&answer.next_free), "{answer:?}");
    a.send(&mut group, vec![sent(granted, SPAN - SECOND)]);
    assert_eq!(group.pass(SECOND, &mut a).grants.len(), 1);
}

/// P8: reported late, the charge has the time of the dispatch; reported to be older than its grant, the time of the grant.
#[test]
fn reported_dispatch_time_is_not_before_its_grant() {
    for (age, left) in [(SECOND, SPAN - SECOND), (5 * SECOND, SPAN - 3 * SECOND)] {
        let mut group = Group::new();
        let mut a = Sender::new("a", vec![requests(1)]);
        let granted = a.send(&mut group, joins(2)).grants[0].granted;
        a.unreported.clear();
        group.now += 3 * SECOND;
        let answer = a.send(&mut group, vec![sent(granted, age)]);
        assert_eq!(answer.next_free, left.cast_signed());
    }
}

/// P8, P12: a session's end dates what was not reported, and its owner's own time replaces that.
#[test]
fn session_end_timestamps_an_open_charge_until_its_owner_reports() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(1)]);
    let granted = a.send(&mut group, joins(2)).grants[0].granted;
    group.now += 2 * SECOND;
    let answer = a.again(&mut group, joins(1));
    assert_eq!(answer.next_free, SPAN.cast_signed());
    assert_eq!(group.state.as_ref().unwrap().census().assumed, 1);
    group.now += SECOND;
    let ops = vec![log_charge(granted, 1, 2 * SECOND), join(0, 1)];
    let answer = a.again(&mut group, ops);
    assert_eq!(answer.next_free, (SPAN - 2 * SECOND).cast_signed());
}

/// P15: an owner that knows a time that is too early steps too early, and learns the right one then.
#[test]
fn head_owner_is_woken_for_an_earlier_time_only() {
    let mut group = Group::new();
    let (mut a, mut b) = (
        Sender::new("a", vec![requests(1)]),
        Sender::new("b", vec![requests(1)]),
    );
    let granted = a.send(&mut group, joins(1)).grants[0].granted;
    a.unreported.clear();
    b.send(&mut group, joins(1));
    group.now += SECOND;
    a.send(&mut group, vec![sent(granted, 0)]);
    assert_eq!(group.wakes, Vec::<Arc<str>>::new(), "its time is later now");
    a.send(&mut group, vec![Op::Unused { granted }]);
    assert_eq!(group.wakes, [Arc::from("b")]);
}
