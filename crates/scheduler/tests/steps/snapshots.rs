//! How snapshots are merged, and what is charged for instances that report none (P11-P13).

use crate::*;

/// P12 (merge of snapshots).
#[test]
fn merge_keeps_latest_time_and_reported_cost() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![tokens(100)]);
    let granted = a.send(&mut group, vec![join(0, 90)]).grants[0].granted;
    // When the charge expires, seen on a copy of the group.
    let expiry = |group: &mut Group, a: &mut Sender| {
        let mut group = group.clone();
        let answer = a.clone().send(&mut group, vec![join(0, 90)]);
        group.now + Micros(answer.next_free.unsigned_abs())
    };
    let first = group.now;
    assert_eq!(expiry(&mut group, &mut a), first + SPAN);
    group.now += SECOND;
    a.send(&mut group, Vec::new());
    a.reopen(&mut group, vec![log_charge(granted, 90, 3 * SECOND)]);
    assert_eq!(
        expiry(&mut group, &mut a),
        first + SPAN,
        "an earlier time changes nothing"
    );
    let answer = a.reopen(&mut group, vec![log_charge(granted, 40, Micros::ZERO)]);
    assert_eq!(answer.used[0].cost.tokens.total(), 40);
    assert_eq!(expiry(&mut group, &mut a), first + SECOND + SPAN);
}

/// P12 (merge of snapshots): an open call counts once however often it is reported, and the first reported probe stays the probe.
#[test]
fn open_call_reported_twice_counts_once() {
    let mut group = Group::new();
    let [mut a, mut b] = senders(["a", "b"], &[requests(9)]);
    let granted = a.send(&mut group, joins(1)).grants[0].granted;
    a.send(&mut group, vec![failed(granted, 429, 100_000)]);
    group.now += SECOND;
    let hold = |granted| {
        let (deployment, probe) = ("a".into(), true);
        Op::Hold {
            granted,
            deployment,
            probe,
        }
    };
    let answer = a.reopen(&mut group, vec![hold(Seq(5)), hold(Seq(5)), join(0, 1)]);
    assert_eq!((answer.used[0].open, answer.grants.len()), (1, 0));
    b.send(&mut group, vec![hold(Seq(6))]);
    let healed = Op::Report {
        granted: Seq(5),
        deployment: "a".into(),
        probe: true,
        again: false,
        ok: true,
        status: 0,
        cool: -1,
    };
    assert!(!a.send(&mut group, vec![healed]).grants[0].probe);
}

/// P12 (merge of snapshots): an instance has reported when the last part of its snapshot is there. Until then the recovery waits for it, and the conservative
/// charge (P13) stays.
#[test]
fn partial_snapshot_neither_ends_recovery_nor_removes_conservative_charge() {
    let mut group = Group::after_a_loss();
    let mut a = Sender::new("a", vec![requests(5)]);
    let mut b = Sender::new("b", vec![requests(5)]);
    a.peers.push("b".into());
    a.send(&mut group, Vec::new());
    b.message.complete = false;
    b.send(&mut group, Vec::new());
    let mut answer = group.advance(2 * SECOND, &mut a);
    assert!(answer.recovering, "b's snapshot is not complete");
    answer = group.advance(SECOND, &mut a);
    assert!(!answer.recovering);
    assert_eq!(
        answer.used[0].cost.requests, 5,
        "b may have been granted anything"
    );
    b.reopen(&mut group, Vec::new());
    assert_eq!(a.send(&mut group, Vec::new()).used[0].cost.requests, 5);
    b.message.complete = true;
    b.send(&mut group, Vec::new());
    assert_eq!(a.send(&mut group, Vec::new()).used[0].cost.requests, 0);
}

/// P13 (conservative charges): a usage snapshot accounts only for instances that had departed when it was taken and have not rejoined.
#[test]
fn usage_snapshot_does_not_account_for_an_instance_that_rejoined() {
    let mut group = Group::new();
    let [mut a, mut b] = senders(["a", "b"], &[requests(5)]);
    a.send(&mut group, Vec::new());
    b.send(&mut group, Vec::new());
    group.advance(3 * SECOND, &mut a);
    assert_eq!(group.census().sessions, 1);
    b.reopen(&mut group, Vec::new());
    group.make_dirty();
    a.usage = usage(Micros::ZERO, 1, (0, 0, 0));
    a.send(&mut group, Vec::new());
    assert_eq!(group.advance(3 * SECOND, &mut a).used[0].cost.requests, 5);
}

/// P13 (conservative charges): the snapshots may come in either order.
#[test]
fn newest_usage_snapshot_is_charged() {
    for order in [[0, 1], [1, 0]] {
        let mut group = Group::after_a_loss();
        let mut senders = senders(["a", "b"], &[requests(5)]);
        for sender in &mut senders {
            sender.departed = vec![("c".into(), 20 * SECOND)];
        }
        senders[0].usage = usage(10 * SECOND, 1, (0, 0, 0));
        senders[1].usage = usage(Micros::ZERO, 1, (3, 0, 0));
        for which in order {
            senders[which].send(&mut group, Vec::new());
        }
        assert_eq!(
            group.advance(3 * SECOND, &mut senders[0]).used[0]
                .cost
                .requests,
            3
        );
    }
}

/// P13 (conservative charges): an instance that opens a session in the recovery is not departed, whatever others knew of it before the loss.
#[test]
fn instance_that_opened_a_session_does_not_count_as_departed() {
    for (opens_session, charged) in [(true, 5), (false, 0)] {
        let mut group = Group::new();
        let [mut a, mut b] = senders(["a", "b"], &[requests(5)]);
        b.send(&mut group, Vec::new());
        group.make_dirty();
        b.message.complete = false;
        a.departed = vec![("b".into(), 10 * SECOND)];
        a.usage = usage(SECOND, 1, (0, 0, 0));
        if opens_session {
            b.send(&mut group, Vec::new());
        }
        let mut used = a.send(&mut group, Vec::new()).used;
        for _ in 0..6 {
            group.now += SECOND / 2;
            if opens_session {
                b.send(&mut group, Vec::new());
            }
            used = a.send(&mut group, Vec::new()).used;
        }
        assert_eq!(used[0].cost.requests, charged);
    }
}

/// P13 (conservative charges): only reported charges that the usage snapshot counts are subtracted from it.
#[test]
fn grants_after_the_usage_snapshot_do_not_reduce_its_charge() {
    let mut group = Group::after_a_loss();
    let mut a = Sender::new("a", vec![requests(9)]);
    a.departed = vec![("c".into(), 10 * SECOND)];
    a.usage = usage(SECOND, 50, (3, 0, 0));
    let snapshot = vec![
        log_charge(Seq(40), 1, 2 * SECOND),
        log_charge(Seq(60), 1, SECOND / 2),
    ];
    a.send(&mut group, snapshot);
    // The usage snapshot shows three, one of which is reported. The other reported one is later.
    assert_eq!(group.advance(3 * SECOND, &mut a).used[0].cost.requests, 4);
}

/// P13 (conservative charges), P16 (bounds of a step): reported charges are added up in parts, and nothing is granted before the sum is complete.
#[test]
fn reported_charges_are_summed_in_parts() {
    let mut group = Group::after_a_loss();
    let mut a = Sender::new("a", vec![requests(5000)]);
    a.departed = vec![("c".into(), 10 * SECOND)];
    a.usage = usage(SECOND, 10_000, (700, 0, 0));
    a.send(&mut group, Vec::new());
    for part in 0..3 {
        let charges =
            (1..=200).map(|k| log_charge(Seq(part * 200 + k), 1, 2 * SECOND + Micros(part)));
        a.send(&mut group, charges.collect());
    }
    let mut answer = group.advance(3 * SECOND, &mut a);
    let mut parts = 0;
    while answer.recovering {
        assert!(answer.more);
        parts += 1;
        answer = a.send(&mut group, joins(1));
    }
    // Each part goes to the end of a block of 32 numbers, and of the time at which that expires.
    assert_eq!(parts, 2);
    assert_eq!(
        answer.used[0].cost.requests,
        700 + answer.grants.len() as u64
    );
}

/// P11 (charge log): after a clean close no charge of the instance counts, so a recovery need not charge for it.
#[test]
fn recovery_charges_nothing_for_a_cleanly_closed_session() {
    for (clean, charged) in [(true, 0), (false, 5)] {
        let mut group = Group::new();
        let [mut a, mut b] = senders(["a", "b"], &[requests(5)]);
        b.send(&mut group, Vec::new());
        a.send(&mut group, Vec::new());
        b.send(&mut group, vec![Op::CloseSession { clean }]);
        group.make_dirty();
        a.send(&mut group, Vec::new());
        assert_eq!(
            group.advance(3 * SECOND, &mut a).used[0].cost.requests,
            charged
        );
    }
}

#[test]
fn departed_instance_is_forgotten_when_its_charges_have_expired() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(5)]);
    a.send(&mut group, Vec::new());
    Sender::new("departed-instance", vec![requests(5)]).send(&mut group, Vec::new());
    group.advance(3 * SECOND, &mut a);
    let knows = |group: &Group| format!("{:?}", group.state).contains("departed-instance");
    assert!(knows(&group), "its charges may still count");
    group.advance(60 * SECOND, &mut a);
    Sender::new("another", vec![requests(5)]).send(&mut group, Vec::new());
    group.advance(3 * SECOND, &mut a);
    assert!(!knows(&group));
}

/// P13 (conservative charges): an unaccounted instance is departed once a recovery has waited for it. A later recovery that expected it again would wait for
/// the whole lease and charge the limits for a window.
#[test]
fn unaccounted_instance_is_expected_by_one_recovery_only() {
    let mut group = Group::after_a_loss();
    let mut a = Sender::new("a", vec![requests(5)]);
    a.peers.push("b".into());
    let mut answer = a.send(&mut group, Vec::new());
    for _ in 0..400 {
        if !answer.peers.is_empty() {
            a.peers.clone_from(&answer.peers);
        }
        answer = group.advance(SECOND / 2, &mut a);
    }
    assert_eq!(answer.used[0].cost.requests, 0, "the charge has expired");
    group.state = None;
    a.reopen(&mut group, Vec::new());
    let answer = group.advance(3 * SECOND / 2, &mut a);
    assert!(!answer.recovering, "expected: {:?}", a.peers);
}
