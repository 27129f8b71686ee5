//! Fair shares after a loss (P3, P5, P19).

use crate::*;
use vorrang_scheduler::{Share, TURN};

fn fair() -> GroupConfig {
    GroupConfig {
        fair: true,
        ..GroupConfig::new(vec![requests(1)])
    }
}

fn turn(tenant: u64, arrival: u64, start: u64) -> Op {
    let share = Share { tenant, cost: TURN };
    Op::Join {
        claim: Claim {
            share,
            ..Claim::new(0, 1)
        },
        arrival,
        start,
    }
}

/// P5 for turns: after a loss none is told as earlier than what anyone knew before, or their order could not be checked by the numbers.
#[test]
fn start_tags_begin_at_the_highest_known_finish_tag_after_a_loss() {
    let mut group = Group::new();
    let mut a = Sender::with("a", &fair());
    let first = a.send(&mut group, vec![turn(1, 0, 0); 5]);
    assert_eq!((first.grants[0].start, first.highest_finish), (1, 1 + TURN));
    group.state = None;
    group.certain = false;
    a.message.highest_finish = 70 * TURN;
    let told = (1..5).map(|k| turn(1, first.base + k, 0)).collect();
    a.again(&mut group, told);
    a.send(&mut group, vec![turn(2, 0, 0)]);
    let mut starts = Vec::new();
    for k in 0..30 {
        // Until the recovery is over, and then from window to window.
        group.now += if k < 20 { SECOND / 2 } else { 61 * SECOND };
        let answer = a.send(&mut group, Vec::new());
        starts.extend(
            answer
                .grants
                .iter()
                .map(|grant| (grant.arrival, grant.start)),
        );
    }
    // All that were there before turns are counted again have the same; then one after the other.
    let (one, other) = (first.base + 1, starts[1].0);
    assert_eq!(starts[..2], [(one, 70 * TURN), (other, 70 * TURN)]);
    assert!(
        other > first.base + 4 && starts[2] == (first.base + 2, 71 * TURN),
        "{starts:?}"
    );
}

/// A8: a retry has its turn again, and its tenant's next one begins where it would have.
#[test]
fn retry_keeps_its_start_tag() {
    let mut group = Group::new();
    let mut a = Sender::with("a", &fair());
    let first = a.send(
        &mut group,
        vec![turn(1, 0, 0), turn(1, 0, 0), turn(2, 0, 0), turn(2, 0, 0)],
    );
    let grant = first.grants[0].clone();
    a.send(
        &mut group,
        vec![Op::Unused {
            granted: grant.granted,
        }],
    );
    // The other tenant's, meanwhile: it is its turn.
    let next = a.send(&mut group, vec![turn(1, grant.arrival, grant.start)]);
    assert!(next.grants.is_empty(), "{next:?}");
    let mut order = Vec::new();
    while order.len() < 3 {
        group.now += 61 * SECOND;
        let answer = a.send(&mut group, Vec::new());
        order.extend(
            answer
                .grants
                .iter()
                .map(|grant| (grant.arrival - first.base, grant.start)),
        );
    }
    let numbers: Vec<u64> = order.iter().map(|(number, _)| *number).collect();
    assert_eq!(
        (numbers, order[0].1),
        (vec![0, 1, 3], grant.start),
        "{order:?}"
    );
}

/// P18, P19: tickets that stand in another order than the one that holds join anew, with their arrivals.
#[test]
fn changed_queue_order_starts_recovery() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(1)]);
    a.send(&mut group, vec![turn(1, 0, 0)]);
    let waiting = a.send(&mut group, vec![turn(1, 0, 0), turn(1, 0, 0)]);
    let mut b = Sender::with("b", &fair());
    let reply = b.try_send(&mut group, Vec::new());
    assert_eq!(reply.verdict, Verdict::SessionInvalid);
    let reply = b.try_send(&mut group, Vec::new());
    assert!(reply.recovered, "{reply:?}");
    let census = group.state.as_ref().unwrap().census();
    assert!(census.recovering && census.entries == 0, "{census:?}");
    b.send(&mut group, Vec::new());
    // Its rules were installed once, and are not the newest any more.
    a.rules_version = waiting.rules_version;
    let told = (0..2).map(|k| turn(1, waiting.base + k, 0)).collect();
    a.again(&mut group, told);
    let census = group.state.as_ref().unwrap().census();
    assert_eq!((census.entries, census.behind, census.lines), (2, 1, 1));
}

/// A6: tickets of an ended session behind the first of a line are swept, too: the first may wait for long.
#[test]
fn orphaned_entries_behind_the_first_of_a_tenant_queue_are_swept() {
    let mut group = Group::new();
    let (mut a, mut b) = (Sender::with("a", &fair()), Sender::with("b", &fair()));
    a.send(&mut group, vec![turn(1, 0, 0), turn(1, 0, 0)]);
    b.send(&mut group, vec![turn(1, 0, 0); 100]);
    let entries = |group: &Group| group.state.as_ref().unwrap().census().entries;
    assert_eq!(entries(&group), 101);
    // A new session that knows nothing of them.
    b.again(&mut group, Vec::new());
    for _ in 0..3 {
        a.send(&mut group, Vec::new());
    }
    assert_eq!(entries(&group), 1);
}
