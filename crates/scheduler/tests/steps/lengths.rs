//! Windows of several lengths: a minute and a day.

use crate::*;

const DAY: Duration = Duration::from_secs(86_400);

fn daily(kind: LimitKind) -> Deployment {
    requests(10).limit(kind, 1000, DAY)
}

/// The usage of the longest window and `next_free` after a loss of the state together with instance b. A usage snapshot of this age has 2 grants of b and 3 of a;
/// a reports its own.
fn after_a_loss_with_b(deployment: &Deployment, age: Micros) -> (Cost, i64) {
    let mut group = Group::new();
    let [mut a, mut b] = senders(["a", "b"], std::slice::from_ref(deployment));
    b.send(&mut group, joins(2));
    let answer = a.send(&mut group, joins(3));
    a.peers.push("b".into());
    a.usage = usage(age, answer.seen.0, answer.used[0].cost);
    let charges = answer.grants.iter();
    let charges = charges
        .map(|grant| log_charge(grant.granted, 1, age))
        .collect();
    (group.state, group.certain) = (None, false);
    a.reopen(&mut group, charges);
    assert!(!group.advance(4 * SECOND, &mut a).recovering);
    let answer = a.send(&mut group, joins(1));
    (answer.used[0].cost, answer.next_free)
}

/// P13 (conservative charges): the minute's limit bounds what b may have been granted since the usage snapshot.
#[test]
fn loss_with_an_instance_charges_a_short_window_to_the_day() {
    let minute = SPAN.0.cast_signed();
    // In the age plus two heartbeats, one, two or three minutes begin.
    for (age, spans) in [
        (Micros::ZERO, 1),
        (SECOND, 1),
        (60 * SECOND, 2),
        (130 * SECOND, 3),
    ] {
        let (cost, next_free) = after_a_loss_with_b(&daily(LimitKind::Requests), age);
        assert_eq!(cost.requests, 3 + 2 + 10 * spans, "{age:?}");
        assert!(next_free <= minute, "{next_free}");
    }
    // The charge is at most the limit.
    let (cost, _) = after_a_loss_with_b(&daily(LimitKind::Requests), 86_000 * SECOND);
    assert_eq!(cost.requests, 3 + 1000);
}

/// P13 (conservative charges): no shorter window bounds the use of the day's tokens.
#[test]
fn loss_with_an_instance_charges_the_limit_of_a_kind_without_a_short_window() {
    let (cost, next_free) = after_a_loss_with_b(&daily(LimitKind::Tokens), SECOND);
    assert_eq!((cost.requests, cost.tokens.total()), (3 + 10, 3 + 1000));
    assert!(next_free > 86_000 * SECOND.0.cast_signed(), "{next_free}");
}

/// P13 (conservative charges): a usage snapshot of the minute does not contain the usage of a day's window in another configuration.
#[test]
fn loss_charges_the_limit_of_a_window_that_the_usage_snapshot_does_not_cover() {
    let mut group = Group::after_a_loss();
    let mut a = Sender::new("a", vec![requests(10)]);
    let mut c = Sender::new("c", vec![daily(LimitKind::Requests)]);
    a.peers.push("b".into());
    a.usage = usage(Micros::ZERO, 1, (2, 0, 0));
    a.send(&mut group, Vec::new());
    c.send(&mut group, Vec::new());
    assert!(!group.advance(4 * SECOND, &mut a).recovering);
    let used = a.send(&mut group, Vec::new()).used[0].cost;
    assert_eq!(used.requests, 1000);
}
