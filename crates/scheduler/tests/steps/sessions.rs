//! Sessions, replays, delivery and dispatch reports (P1, P8, P10, P15).

use crate::*;

#[test]
fn session_opening_of_a_former_epoch_is_refused() {
    let mut group = Group::new();
    let [mut a, mut b] = senders(["a", "b"], &[requests(1)]);
    a.send(&mut group, Vec::new());
    a.message.session = SessionId::NONE;
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
    a.message.session = SessionId::NONE;
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
        "a later message has overtaken it"
    );
    // Nor is it executed after an unclean close: a recovery may still expect its sender (P13).
    a.send(&mut group, vec![Op::CloseSession { clean: false }]);
    assert_eq!(group.step(&open_session).verdict, Verdict::Stale);
}

/// P1 (sessions and replays): the grants in the cached reply count as delivered, so an unresponsive session gets them too (P10).
#[test]
fn unresponsive_session_gets_its_cached_reply_and_is_then_refused() {
    let mut group = Group::new();
    let slot = vec![requests(9).limit(LimitKind::Concurrency, 1, Duration::ZERO)];
    let [mut a, mut b] = senders(["a", "b"], &slot);
    let held = a.send(&mut group, joins(1)).grants[0].granted;
    b.send(&mut group, Vec::new());
    let last = b.next(joins(1));
    let cached = group.step(&last);
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
    group.advance(2 * SECOND / 2 + SECOND / 2, &mut a);
    assert_eq!(group.census().unresponsive, 1);
    assert_eq!(group.step(&last), cached);
    assert_eq!(
        group.step(&b.next(Vec::new())).verdict,
        Verdict::SessionInvalid
    );
}

/// P1 (sessions and replays): a replay executes nothing, so its reply does not change while time passes and other instances step.
#[test]
fn retransmission_returns_cached_reply_after_any_delay() {
    let mut group = Group::new();
    let [mut a, mut b] = senders(["a", "b"], &[requests(9)]);
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
    let [mut a, mut b] = senders(["a", "b"], &slot);
    let held = a.send(&mut group, joins(2)).grants[0].granted;
    b.send(&mut group, vec![join(-1, 1)]);
    a.send(&mut group, vec![Op::Unused { granted: held }]);
    let unresponsive = |group: &Group| group.census().unresponsive;
    for after in [300_000, 550_000] {
        group.now += Micros(after - if after > 300_000 { 300_000 } else { 0 });
        assert_eq!(a.send(&mut group, Vec::new()).grants, []);
        assert_eq!(unresponsive(&group), 0);
    }
    group.now += Micros(100_000);
    assert_eq!(a.send(&mut group, Vec::new()).grants.len(), 1);
    assert_eq!(unresponsive(&group), 1);
}

/// P8 (dispatch report): an open charge does not expire while its session lives.
#[test]
fn open_charge_counts_until_its_dispatch_is_reported() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(1)]);
    let granted = a.send(&mut group, joins(2)).grants[0].granted;
    a.unreported.clear();
    let answer = group.advance(SPAN + SECOND, &mut a);
    assert_eq!((answer.used[0].cost.requests, answer.grants.len()), (1, 0));
    // The time at which it expires is unknown, so the step checks it again soon.
    let interval = SECOND / 2 / 16;
    assert!(
        (1..=interval.0 as i64).contains(&answer.next_free),
        "{answer:?}"
    );
    a.send(&mut group, vec![sent(granted, SPAN - SECOND)]);
    assert_eq!(group.advance(SECOND, &mut a).grants.len(), 1);
}

/// P8 (dispatch report): a late report gives the charge the time of the dispatch. An age that reaches back before the grant gives it that of the grant.
#[test]
fn reported_dispatch_time_is_not_before_its_grant() {
    for (age, left) in [(SECOND, SPAN - SECOND), (5 * SECOND, SPAN - 3 * SECOND)] {
        let mut group = Group::new();
        let mut a = Sender::new("a", vec![requests(1)]);
        let granted = a.send(&mut group, joins(2)).grants[0].granted;
        a.unreported.clear();
        group.now += 3 * SECOND;
        let answer = a.send(&mut group, vec![sent(granted, age)]);
        assert_eq!(answer.next_free, left.0.cast_signed());
    }
}

/// P8 (dispatch report), P12 (merge of snapshots): the end of a session is an assumed time, and the owner's report replaces it.
#[test]
fn session_end_timestamps_an_open_charge_until_its_owner_reports() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(1)]);
    let granted = a.send(&mut group, joins(2)).grants[0].granted;
    group.now += 2 * SECOND;
    let answer = a.reopen(&mut group, joins(1));
    assert_eq!(answer.next_free, SPAN.0.cast_signed());
    assert_eq!(group.census().assumed, 1);
    group.now += SECOND;
    let ops = vec![log_charge(granted, 1, 2 * SECOND), join(0, 1)];
    let answer = a.reopen(&mut group, ops);
    assert_eq!(answer.next_free, (SPAN - 2 * SECOND).0.cast_signed());
}

/// P15 (wakes): an owner whose `next_free` has become too early steps too early, and learns the right time then.
#[test]
fn head_owner_is_woken_for_an_earlier_time_only() {
    let mut group = Group::new();
    let [mut a, mut b] = senders(["a", "b"], &[requests(1)]);
    let granted = a.send(&mut group, joins(1)).grants[0].granted;
    a.unreported.clear();
    b.send(&mut group, joins(1));
    group.now += SECOND;
    a.send(&mut group, vec![sent(granted, Micros::ZERO)]);
    assert_eq!(
        group.wakes,
        Vec::<Arc<str>>::new(),
        "next_free has become later"
    );
    a.send(&mut group, vec![Op::Unused { granted }]);
    assert_eq!(group.wakes, [Arc::from("b")]);
}
