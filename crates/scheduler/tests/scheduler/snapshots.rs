//! What a dispatcher logs, and reports in its snapshots, with replies written by hand (P11, P12).

use vorrang_scheduler::{
    Claim, Entry, Micros, Seq,
    message::{Grant, Message, Op},
};

use crate::dispatching::{DISPATCH_WITHIN, HEARTBEAT, Harness, SECOND};

/// P12 (merge of snapshots), P16 (bounds of a step): a message has at most 256 ops. Charges come first, so that nothing is granted before they are known.
#[test]
fn large_snapshot_is_sent_in_parts_with_charges_first() {
    let mut harness = Harness::new();
    for part in 0..4 {
        for granted in harness.grant(part * 75..part * 75 + 75) {
            assert!(harness.core.dispatch(harness.now, granted));
            harness.core.give_back(harness.now, granted, true, None);
        }
    }
    harness.core.join(1000, Entry::new(Claim::new(0, 1)));
    let first = harness.refuse_session();
    let charge = |op: &Op| matches!(op, Op::Charge { .. });
    assert!(first.ops.len() == 256 && first.ops.iter().all(charge) && !first.complete);
    harness.answer(|_| ());
    let rest = harness.next();
    assert_eq!(rest.ops.iter().filter(|op| charge(op)).count(), 44);
    assert!(matches!(rest.ops.last(), Some(Op::Join(_))) && rest.ops.len() == 45);
    assert!(rest.complete && rest.open_session.is_empty());
}

/// P19 (fair shares): a ticket that was granted before brings its start tag with each join, and each message brings the highest finish tag.
#[test]
fn start_tag_is_reported_when_its_ticket_joins_again() {
    let mut harness = Harness::new();
    harness.core.join(1, Entry::new(Claim::new(0, 1)));
    let sent = harness.now;
    harness.next();
    // The grant comes too late to be dispatched (P9).
    harness.now += DISPATCH_WITHIN + Micros(1);
    harness.answer_to(sent, |answer| {
        answer.highest_finish = 90;
        answer.grants.push(Grant {
            arrival: answer.base,
            granted: answer.base + 1,
            deployment: "a".into(),
            counted: true,
            probe: false,
            score: 0,
            start: 77,
        });
    });
    let assert_reported = |message: &Message| {
        let join = message.ops.iter().find_map(|op| match op {
            Op::Join(Entry { start, arrival, .. }) => Some((*start, *arrival > Seq::NONE)),
            _ => None,
        });
        assert_eq!(
            (join, message.highest_finish),
            (Some((77, true)), 90),
            "{message:?}"
        );
    };
    assert_reported(&harness.next());
    harness.answer(|_| ());
    assert_reported(&harness.refuse_session());
}

/// P12 (merge of snapshots): an older state may still have the charge, so a refund is reported for as long as the charge could count. The charge itself is not.
#[test]
fn refund_is_reported_in_every_snapshot_for_a_window() {
    let mut harness = Harness::new();
    let granted = harness.grant(0..1)[0];
    harness.core.give_back(harness.now, granted, false, None);
    for _ in 0..2 {
        assert_eq!(harness.refuse_session().ops, [Op::Unused { granted }]);
        harness.answer(|_| ());
    }
    harness.now += 61 * SECOND;
    assert_eq!(harness.refuse_session().ops, []);
}

/// P11 (charge log): expired charges are dropped even if the instance is never idle.
#[test]
fn charge_log_of_a_busy_instance_drops_expired_charges() {
    let mut harness = Harness::new();
    for ticket in 0..3000 {
        let granted = harness.grant(ticket..ticket + 1)[0];
        let sent = ticket % 3 > 0 && harness.core.dispatch(harness.now, granted);
        harness.core.give_back(harness.now, granted, sent, None);
        harness.now += SECOND / 10;
    }
    let window = 61 * 10;
    let logged = harness.core.logged_grants();
    assert!(
        (window - 10..window + window / 8 + 10).contains(&logged),
        "{logged}"
    );
}

/// P12 (merge of snapshots): the instance that caused a cooldown may be dead, so each instance reports the cooldowns that it has learned.
#[test]
fn snapshot_reports_cooldowns_learned_from_the_group() {
    let mut harness = Harness::new();
    harness.core.wake();
    harness.next();
    harness.answer(|answer| answer.used[0].cooling = 3 * SECOND);
    harness.now += SECOND;
    let (deployment, left, status) = ("a".into(), 2 * SECOND, 0);
    let cool = Op::Cool {
        deployment,
        left,
        status,
    };
    assert_eq!(harness.refuse_session().ops, [cool]);
}

/// P13 (conservative charges): while a group recovers, its windows may lack charges.
#[test]
fn no_usage_snapshot_is_taken_during_recovery_or_roll_out() {
    let mut harness = Harness::new();
    for (used, recovering, rules_version) in [(3, false, 1), (2, true, 1)] {
        harness.core.wake();
        harness.next();
        harness.answer(|answer| {
            answer.used[0].cost.requests = used;
            (answer.recovering, answer.rules_version) = (recovering, rules_version);
        });
    }
    let used = |open_session: &Message| {
        open_session.open_session[0]
            .view
            .first()
            .map(|v| v.used[0].1.requests)
    };
    assert_eq!(used(&harness.refuse_session()), Some(3));
    // While configurations differ, other instances may use deployments that this one does not know.
    harness.answer(|answer| answer.configurations = 2);
    assert_eq!(used(&harness.refuse_session()), None);
}

/// A1 (order): tickets that have no sequence number yet are ordered by their arrival on the instance.
#[test]
fn snapshot_lists_tickets_in_queue_order() {
    let mut harness = Harness::new();
    for (id, priority) in [(1, 0), (2, 0), (3, -1), (4, 0)] {
        harness.core.join(id, Entry::new(Claim::new(priority, id)));
    }
    let open_session = harness.refuse_session();
    let tokens = open_session.ops.iter().map(|op| match op {
        Op::Join(Entry { claim, .. }) => claim.tokens.input,
        other => panic!("{other:?}"),
    });
    assert_eq!(tokens.collect::<Vec<_>>(), [3, 1, 2, 4]);
}

/// P20 (roll-outs): another configuration has a longer window and a shorter lease, and both hold for all instances.
#[test]
fn charge_log_and_heartbeat_follow_the_reply() {
    let mut harness = Harness::new();
    harness.grant(1..2);
    harness.core.wake();
    harness.next();
    harness.answer(|answer| (answer.memory, answer.heartbeat) = (300 * SECOND, SECOND / 10));
    assert_eq!(harness.core.deadline(), Some(harness.now + SECOND / 10));
    harness.now += 200 * SECOND;
    let open_session = harness.refuse_session();
    let is_charge = |op: &Op| matches!(op, Op::Charge { .. });
    assert!(open_session.ops.iter().any(is_charge), "{open_session:?}");
    // A shorter charge log and a longer heartbeat than the instance's own change nothing.
    harness.answer(|answer| (answer.memory, answer.heartbeat) = (SECOND, SECOND));
    assert_eq!(harness.core.deadline(), Some(harness.now + HEARTBEAT));
}
