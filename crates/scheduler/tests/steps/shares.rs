//! Fair shares across losses, retries and ended sessions (P3, P5, P19).

use crate::*;
use vorrang_scheduler::{Share, UNIT_COST};

fn fair() -> GroupConfig {
    GroupConfig {
        fair: true,
        ..GroupConfig::new(vec![requests(1)])
    }
}

/// A ticket whose service is one request of weight 1.
fn join_of(tenant: u64) -> Op {
    join_again(tenant, Seq::NONE, 0)
}

/// The same for a ticket that was in the queue before.
fn join_again(tenant: u64, arrival: Seq, start: u64) -> Op {
    let share = Share {
        tenant,
        cost: UNIT_COST,
    };
    Op::Join(Entry {
        claim: Claim {
            share,
            ..Claim::new(0, 1)
        },
        arrival,
        start,
    })
}

/// P19 (fair shares): after a loss no start tag is below a finish tag that any instance knew, so start tags alone still show any inversion.
#[test]
fn start_tags_begin_at_the_highest_known_finish_tag_after_a_loss() {
    let mut group = Group::new();
    let mut a = Sender::with("a", &fair());
    let first = a.send(&mut group, vec![join_of(1); 5]);
    assert_eq!(
        (first.grants[0].start, first.highest_finish),
        (1, 1 + UNIT_COST)
    );
    group.state = None;
    group.certain = false;
    a.message.highest_finish = 70 * UNIT_COST;
    let snapshot = (1..5).map(|k| join_again(1, first.base + k, 0)).collect();
    a.reopen(&mut group, snapshot);
    a.send(&mut group, vec![join_of(2)]);
    let mut starts = Vec::new();
    for k in 0..30 {
        // First until the recovery is over, then window by window.
        group.now += if k < 20 { SECOND / 2 } else { 61 * SECOND };
        let answer = a.send(&mut group, Vec::new());
        starts.extend(
            answer
                .grants
                .iter()
                .map(|grant| (grant.arrival, grant.start)),
        );
    }
    // The first tickets of both tenant queues are at the tag floor. After that start tags grow.
    let (of_first, of_second) = (first.base + 1, starts[1].0);
    assert_eq!(
        starts[..2],
        [(of_first, 70 * UNIT_COST), (of_second, 70 * UNIT_COST)]
    );
    assert!(
        of_second > first.base + 4 && starts[2] == (first.base + 2, 71 * UNIT_COST),
        "{starts:?}"
    );
}

/// A8 (retries), P19 (fair shares): a retry brings its start tag back, so its tenant's later tickets are served as if it had waited all the time.
#[test]
fn retry_keeps_its_start_tag() {
    let mut group = Group::new();
    let mut a = Sender::with("a", &fair());
    let first = a.send(
        &mut group,
        vec![join_of(1), join_of(1), join_of(2), join_of(2)],
    );
    let grant = first.grants[0].clone();
    a.send(
        &mut group,
        vec![Op::Unused {
            granted: grant.granted,
        }],
    );
    // The released slot goes to the other tenant, whose start tag is lower.
    let next = a.send(&mut group, vec![join_again(1, grant.arrival, grant.start)]);
    assert!(next.grants.is_empty(), "{next:?}");
    let mut order = Vec::new();
    while order.len() < 3 {
        group.now += 61 * SECOND;
        let answer = a.send(&mut group, Vec::new());
        order.extend(
            answer
                .grants
                .iter()
                .map(|grant| (grant.arrival.0 - first.base.0, grant.start)),
        );
    }
    let numbers: Vec<u64> = order.iter().map(|(number, _)| *number).collect();
    assert_eq!(
        (numbers, order[0].1),
        (vec![0, 1, 3], grant.start),
        "{order:?}"
    );
}

/// P18 (pacing, reserve, aging): entries of two orders cannot be compared, so all tickets join again with their arrivals.
#[test]
fn changed_queue_order_starts_recovery() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(1)]);
    a.send(&mut group, vec![join_of(1)]);
    let waiting = a.send(&mut group, vec![join_of(1), join_of(1)]);
    let mut b = Sender::with("b", &fair());
    let reply = b.try_send(&mut group, Vec::new());
    assert_eq!(reply.verdict, Verdict::SessionInvalid);
    let reply = b.try_send(&mut group, Vec::new());
    assert!(reply.recovered, "{reply:?}");
    let census = group.census();
    assert!(census.recovering && census.entries == 0, "{census:?}");
    b.send(&mut group, Vec::new());
    // Its configuration has a version, so it does not become the newest again.
    a.rules_version = waiting.rules_version;
    let snapshot = (0..2).map(|k| join_again(1, waiting.base + k, 0)).collect();
    a.reopen(&mut group, snapshot);
    let census = group.census();
    assert_eq!(
        (census.entries, census.behind, census.tenant_queues),
        (2, 1, 1)
    );
}

/// A6 (failed instances): the first ticket of a tenant queue may wait for long, so orphaned entries behind it are swept too.
#[test]
fn orphaned_entries_behind_the_first_of_a_tenant_queue_are_swept() {
    let mut group = Group::new();
    let (mut a, mut b) = (Sender::with("a", &fair()), Sender::with("b", &fair()));
    a.send(&mut group, vec![join_of(1), join_of(1)]);
    b.send(&mut group, vec![join_of(1); 100]);
    let entries = |group: &Group| group.census().entries;
    assert_eq!(entries(&group), 101);
    // The new session's snapshot does not contain them.
    b.reopen(&mut group, Vec::new());
    for _ in 0..3 {
        a.send(&mut group, Vec::new());
    }
    assert_eq!(entries(&group), 1);
}
