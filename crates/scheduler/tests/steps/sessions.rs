//! Who is answered what, and who is believed (P1, P10).

use crate::*;

#[test]
fn a_hello_of_a_former_epoch_is_not_executed() {
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
    assert_eq!(group.step(&late).verdict, Verdict::Resync);
}

#[test]
fn what_comes_again_is_answered_as_before() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(9)]);
    a.send(&mut group, Vec::new());
    a.message.session = 0;
    let hello = a.next(joins(1));
    let first = group.step(&hello);
    assert_eq!(first.answer[0].grants.len(), 1);
    assert_eq!(group.step(&hello), first);
    a.message.session = first.answer[0].session;
    let message = a.next(joins(2));
    let second = group.step(&message);
    assert_eq!(second.answer[0].grants.len(), 2);
    assert_eq!(group.step(&message), second);
    assert_eq!(
        group.step(&hello).verdict,
        Verdict::Stale,
        "overtaken by a later message"
    );
    // Nor is it executed after a goodbye, as long as its sender may be missed (P13).
    a.send(&mut group, vec![Op::Bye { clean: false }]);
    assert_eq!(group.step(&hello).verdict, Verdict::Stale);
}

/// The stored answer holds grants that the group believes collected: it is given even to one who is believed no more (P10).
#[test]
fn the_silent_get_their_last_answer_and_then_no_more() {
    let mut group = Group::new();
    let one = vec![requests(9).limit(LimitKind::Concurrency, 1, Duration::ZERO)];
    let (mut a, mut b) = (Sender::new("a", one.clone()), Sender::new("b", one));
    let held = a.send(&mut group, joins(1)).grants[0].granted;
    b.send(&mut group, Vec::new());
    let last = b.next(joins(1));
    let told = group.step(&last);
    let deployment = Arc::from("a");
    let (tokens, excess) = (-1, 0);
    let done = Op::Done {
        granted: held,
        deployment,
        tokens,
        excess,
        ok: false,
    };
    a.send(&mut group, vec![done]);
    group.pass(2 * SECOND / 2 + SECOND / 2, &mut a);
    assert_eq!(group.state.as_ref().unwrap().census().silent, 1);
    assert_eq!(group.step(&last), told);
    assert_eq!(group.step(&b.next(Vec::new())).verdict, Verdict::Resync);
}

/// Its room may have gone to another, so that the grant cannot be given a new time.
#[test]
fn an_answer_is_not_repeated_when_an_entry_of_it_has_left_a_window() {
    let mut group = Group::new();
    let short = requests(9).limit(LimitKind::Requests, 5, Duration::from_secs(1));
    let (mut a, mut b) = (
        Sender::new("a", vec![short.clone()]),
        Sender::new("b", vec![short]),
    );
    a.send(&mut group, Vec::new());
    b.send(&mut group, Vec::new());
    let message = a.next(joins(1));
    assert_eq!(group.step(&message).answer[0].grants.len(), 1);
    group.now += SECOND + 40_000;
    b.send(&mut group, Vec::new());
    assert_eq!(group.step(&message).verdict, Verdict::Done);
    group.now += SECOND + 60_000;
    b.send(&mut group, Vec::new());
    assert_eq!(group.step(&message).verdict, Verdict::Resync);
}

#[test]
fn a_grant_waits_a_little_more_than_a_heartbeat_to_be_collected() {
    let mut group = Group::new();
    let slot = vec![Deployment::new("a").limit(LimitKind::Concurrency, 1, Duration::ZERO)];
    let (mut a, mut b) = (Sender::new("a", slot.clone()), Sender::new("b", slot));
    let held = a.send(&mut group, joins(2)).grants[0].granted;
    b.send(&mut group, vec![join(-1, 1)]);
    a.send(&mut group, vec![Op::Unused { granted: held }]);
    let silent = |group: &Group| group.state.as_ref().unwrap().census().silent;
    for after in [300_000, 550_000] {
        group.now += after - if after > 300_000 { 300_000 } else { 0 };
        assert_eq!(a.send(&mut group, Vec::new()).grants, []);
        assert_eq!(silent(&group), 0);
    }
    group.now += 100_000;
    assert_eq!(a.send(&mut group, Vec::new()).grants.len(), 1);
    assert_eq!(silent(&group), 1);
}
