//! What operators change and see (P23).

use vorrang_scheduler::{
    LimitOverride, Overrides,
    message::{HELD, Override, overridden},
    rules::NONE,
};

use crate::*;

fn with_key(priority: i32, key: u64) -> Claim {
    Claim {
        key,
        ..Claim::new(priority, 1)
    }
}

fn join_as(claim: Claim) -> Op {
    Op::Join(Entry::new(claim))
}

fn pause(key: u64, paused: bool) -> Op {
    Op::Override(Override {
        what: overridden::PAUSE,
        key,
        paused,
        ..Override::default()
    })
}

/// Of requests of deployment a.
fn limit(limit: i64) -> Op {
    Op::Override(Override {
        what: overridden::LIMIT,
        limit: LimitOverride {
            deployment: "a".into(),
            kind: 0,
            span: SPAN,
            limit,
        },
        ..Override::default()
    })
}

fn look(from: u64, most: u64) -> Op {
    Op::Look { from, most }
}

/// A full group, and three tickets that wait.
fn waiting(group: &mut Group, one: &mut Sender) -> (Seq, Vec<Seq>) {
    let answer = one.send(group, joins(4));
    let arrivals = (1..4).map(|k| answer.base + k).collect();
    (answer.grants[0].granted, arrivals)
}

/// P23 (operators): a moved ticket keeps its arrival.
#[test]
fn moved_ticket_is_granted_by_its_new_priority() {
    let mut group = Group::new();
    let [mut one] = senders(["one"], &[requests(1)]);
    let (granted, arrivals) = waiting(&mut group, &mut one);
    let claim = Claim::new(0, 1);
    let move_to = |arrival, to| Op::Move { claim, arrival, to };
    let moves = vec![move_to(arrivals[2], -1), move_to(arrivals[0], 5)];
    let answer = one.send(&mut group, moves);
    assert_eq!((answer.ranks, answer.depth), (vec![0, 2], 3));
    let mut granted = granted;
    for expected in [2, 1, 0] {
        let answer = one.send(&mut group, vec![Op::Unused { granted }]);
        assert_eq!(answer.grants[0].arrival, arrivals[expected]);
        granted = answer.grants[0].granted;
    }
}

#[test]
fn move_of_a_granted_ticket_does_nothing() {
    let mut group = Group::new();
    let [mut one, mut two] = senders(["one", "two"], &[requests(1)]);
    two.send(&mut group, Vec::new());
    let (granted, arrivals) = waiting(&mut group, &mut one);
    // The grant is in the inbox of the first instance, which does not know yet.
    one.message.ops.clear();
    let claim = Claim::new(0, 1);
    let release = |answer: &Answer| answer.grants[0].granted;
    let answer = one.send(&mut group, vec![Op::Unused { granted }]);
    assert_eq!(answer.grants[0].arrival, arrivals[0]);
    let arrival = arrivals[0];
    let moved = Op::Move {
        claim,
        arrival,
        to: -5,
    };
    let again = one.send(&mut group, vec![moved]);
    assert_eq!((again.ranks, again.depth), (vec![NONE], 2));
    let census = group.census();
    assert_eq!((census.waiting, census.entries), (2, 2));
    assert!(release(&answer) > granted);
}

#[test]
fn rank_counts_better_tickets() {
    let mut group = Group::new();
    let [mut one, mut two] = senders(["one", "two"], &[requests(1)]);
    let (_, arrivals) = waiting(&mut group, &mut one);
    two.send(&mut group, vec![join(-1, 1), join(1, 1)]);
    let claim = Claim::new(0, 1);
    let rank = |claim, arrival| Op::Rank { claim, arrival };
    let unknown = Seq(17);
    let ops = vec![
        rank(claim, arrivals[1]),
        rank(claim, unknown),
        rank(Claim::new(0, 1), Seq::NONE),
        rank(Claim::new(-1, 1), Seq::NONE),
        rank(Claim::new(7, 1), Seq::NONE),
    ];
    let answer = one.send(&mut group, ops);
    assert_eq!(answer.ranks, [2, NONE, 4, 1, 5]);
}

#[test]
fn paused_group_grants_nothing_until_it_goes_on() {
    let mut group = Group::new();
    let [mut one, mut two] = senders(["one", "two"], &[requests(5)]);
    two.send(&mut group, Vec::new());
    let answer = one.send(&mut group, vec![join(0, 1), pause(0, true)]);
    assert_eq!((answer.grants.len(), answer.depth), (0, 1), "at once");
    assert!(answer.overrides[0].paused);
    assert_eq!((answer.next_free, answer.reasons), (NONE, reason::PAUSED));
    // All sessions are woken, and learn it once.
    assert!(group.wakes.iter().any(|name| **name == *"two"));
    let answer = two.send(&mut group, joins(2));
    assert_eq!((answer.grants.len(), answer.overrides.len()), (0, 1));
    assert_eq!(two.send(&mut group, Vec::new()).overrides, []);
    let answer = one.send(&mut group, vec![pause(0, false)]);
    assert_eq!(answer.grants.len(), 1);
    assert_eq!(two.send(&mut group, Vec::new()).grants.len(), 2);
}

/// P23 (operators): other tickets pass those of a paused key, which their instance keeps.
#[test]
fn tickets_of_a_paused_key_are_held() {
    let mut group = Group::new();
    let [mut one, mut two] = senders(["one", "two"], &[requests(5)]);
    two.send(&mut group, vec![pause(7, true)]);
    let ops = vec![
        join_as(with_key(-5, 7)),
        join_as(with_key(0, 8)),
        join(1, 1),
    ];
    let answer = one.send(&mut group, ops);
    let held = (answer.base, HELD);
    assert_eq!((answer.refusals, answer.grants.len()), (vec![held], 2));
    assert_eq!(answer.depth, 0);
    // It enters again with its arrival when the key is resumed.
    two.send(&mut group, vec![pause(7, false)]);
    assert!(group.wakes.iter().any(|name| **name == *"one"));
    let entry = Entry {
        arrival: answer.base,
        ..Entry::new(with_key(-5, 7))
    };
    let again = one.send(&mut group, vec![Op::Join(entry)]);
    assert_eq!(again.grants[0].arrival, answer.base);
    assert_eq!(again.overrides[0].keys, []);
}

#[test]
fn changed_limit_is_in_force_at_once_and_can_be_taken_back() {
    let mut group = Group::new();
    let [mut one] = senders(["one"], &[requests(2)]);
    one.send(&mut group, joins(6));
    let answer = one.send(&mut group, vec![limit(3)]);
    assert_eq!(answer.grants.len(), 1, "raised");
    assert_eq!(answer.overrides[0].limits[0].limit, 3);
    let view = one.send(&mut group, vec![look(0, 0)]).views.remove(0);
    let (span, limits, used) = &view.deployments[0].windows[0];
    assert_eq!((*span, limits[0], used.requests), (SPAN, 3, 3));
    let answer = one.send(&mut group, vec![limit(4), limit(5), limit(NONE)]);
    assert_eq!(
        (answer.grants.len(), answer.overrides[0].limits.len()),
        (0, 0)
    );
    group.now += SPAN;
    let lowered = one.send(&mut group, vec![limit(1)]);
    assert_eq!(lowered.used[0].cost.requests, 1);
}

#[test]
fn limits_that_no_configuration_has_are_not_made() {
    let mut group = Group::new();
    let [mut one] = senders(["one"], &[requests(9)]);
    let other = |kind, span| {
        Op::Override(Override {
            what: overridden::LIMIT,
            limit: LimitOverride {
                deployment: "a".into(),
                kind,
                span,
                limit: 0,
            },
            ..Override::default()
        })
    };
    let ops = vec![
        other(1, SPAN),
        other(0, SECOND),
        other(4, Micros::ZERO),
        other(9, SPAN),
    ];
    let answer = one.send(&mut group, ops.into_iter().chain(joins(9)).collect());
    assert_eq!(answer.grants.len(), 9);
}

/// P23 (operators): the newest overrides that any instance knows are in force after a loss.
#[test]
fn overrides_survive_a_loss_by_snapshots() {
    let mut group = Group::new();
    let [mut one, mut two] = senders(["one", "two"], &[requests(5)]);
    let old = two.send(&mut group, vec![limit(4)]).overrides.remove(0);
    let new = one
        .send(&mut group, vec![limit(2), pause(0, true)])
        .overrides
        .remove(0);
    group.state = None;
    group.certain = false;
    let known = |overrides: &Overrides| Op::Overrides(overrides.clone());
    one.send(&mut group, vec![known(&new)]);
    let answer = two.reopen(&mut group, vec![known(&old)]);
    assert_eq!(answer.overrides.first(), Some(&new));
    group.advance(4 * SECOND, &mut one);
    let answer = two.send(&mut group, joins(4));
    assert_eq!((answer.grants.len(), answer.reasons), (0, reason::PAUSED));
    let answer = two.send(&mut group, vec![pause(0, false)]);
    assert_eq!(answer.grants.len(), 2);
    assert!(answer.overrides[0].version > new.version);
}

#[test]
fn view_has_the_queue_in_order_in_parts() {
    let mut group = Group::new();
    let [mut one, mut two] = senders(["one", "two"], &[requests(1)]);
    let (_, arrivals) = waiting(&mut group, &mut one);
    let better = two.send(&mut group, vec![join_as(with_key(-1, 3))]).base;
    let answer = two.send(&mut group, vec![look(0, 2), look(0, 9)]);
    let view = &answer.views[0];
    let rows: Vec<_> = view
        .rows
        .iter()
        .map(|row| (row.arrival, row.priority, &*row.instance, row.key))
        .collect();
    assert_eq!(rows, [(better, -1, "two", 3), (arrivals[0], 0, "one", 0)]);
    assert_eq!((answer.views.len(), view.ordered), (1, 4));
    let sessions: Vec<_> = view
        .sessions
        .iter()
        .map(|s| (&*s.instance, s.waiting, s.open))
        .collect();
    assert_eq!(sessions, [("one", 3, 1), ("two", 1, 0)]);
    let rest = two.send(&mut group, vec![look(2, 9)]).views.remove(0);
    let rest: Vec<_> = rest.rows.iter().map(|row| row.arrival).collect();
    assert_eq!(rest, arrivals[1..]);
}

/// P16 (bounds of a step): a view has at most a hundred tickets.
#[test]
fn view_is_bounded() {
    let mut group = Group::new();
    let [mut one] = senders(["one"], &[requests(1)]);
    one.send(&mut group, joins(150));
    let view = one
        .send(&mut group, vec![look(0, u64::MAX)])
        .views
        .remove(0);
    assert_eq!(view.rows.len(), 100);
}
