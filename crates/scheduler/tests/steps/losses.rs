//! Losses: what starts and ends a recovery, what it keeps, merges and charges (P1, P3, P5, P11-P13, P17).

use crate::*;

/// P3 (one recovery for all losses): a state that is still there keeps its windows and its health. Undelivered grants are refunded, and a deployment that has
/// to be probed still has to.
#[test]
fn recovery_keeps_only_windows_and_health() {
    let mut group = Group::new();
    let (mut a, mut b) = (
        Sender::new("a", vec![requests(3)]),
        Sender::new("b", vec![requests(3)]),
    );
    b.send(&mut group, Vec::new());
    let granted = a.send(&mut group, joins(3)).grants[0].granted;
    b.send(&mut group, joins(1));
    a.send(&mut group, vec![Op::Unused { granted }]);
    let census = |group: &Group| group.state.as_ref().unwrap().census();
    assert_eq!((census(&group).inbox, census(&group).calls), (1, 3));
    a.send(&mut group, vec![failed(granted + 1, 429, 100_000)]);
    group.now += 200_000;
    group.state.as_mut().unwrap().make_dirty();
    a.send(&mut group, Vec::new());
    assert_eq!((census(&group).inbox, census(&group).calls), (0, 0));
    b.send(&mut group, Vec::new());
    let answer = group.advance(SECOND, &mut a);
    assert!(!answer.recovering);
    assert_eq!(answer.used[0].cost.requests, 2);
    assert!(a.send(&mut group, joins(1)).grants[0].probe);
}

#[test]
fn loss_wakes_all_instances_and_recovery_waits_for_all_sessions() {
    let mut group = Group::new();
    let (mut a, mut b) = (
        Sender::new("a", vec![requests(3)]),
        Sender::new("b", vec![requests(3)]),
    );
    a.send(&mut group, Vec::new());
    b.send(&mut group, Vec::new());
    group.state.as_mut().unwrap().make_dirty();
    assert_eq!(
        a.try_send(&mut group, Vec::new()).verdict,
        Verdict::SessionInvalid
    );
    assert_eq!(group.wakes, [Arc::from(EVERYONE)]);
    // It does not know of b yet.
    a.peers = vec!["a".into()];
    a.send(&mut group, Vec::new());
    assert!(group.advance(2 * SECOND, &mut a).recovering);
    b.send(&mut group, Vec::new());
    assert!(!a.send(&mut group, Vec::new()).recovering);
}

#[test]
fn sequence_numbers_begin_above_the_clock_and_all_known_numbers() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(9)]);
    let base = a.send(&mut group, joins(1)).base;
    assert!(base > group.now + 10 * SECOND);
    // The server loses its state and its clock goes back, but the sender knows the last number.
    (group.state, group.now) = (None, group.now - 100 * SECOND);
    a.message.seen = base + 5;
    let recovered = a.reopen(&mut group, joins(1)).base;
    assert!(recovered > base + 10 * SECOND);
    let hold = Op::Hold {
        granted: recovered + 50 * SECOND,
        deployment: "a".into(),
        probe: false,
    };
    let held = a.reopen(&mut group, vec![hold, join(0, 1)]).base;
    assert!(held > recovered + 50 * SECOND);
    let charge = log_charge(held + 50 * SECOND, 1, 0);
    assert!(a.reopen(&mut group, vec![charge, join(0, 1)]).base > held + 50 * SECOND);
    let mut last = a.reopen(&mut group, joins(1)).base;
    a.message.seen = last + SECOND;
    assert!(a.send(&mut group, joins(1)).base > last + SECOND);
    group.now += 1000 * SECOND;
    last = a.send(&mut group, joins(1)).base;
    assert!(last >= group.now);
    // The leap of a recovery with state is small: leaps must not add up.
    group.state.as_mut().unwrap().make_dirty();
    assert!(a.send(&mut group, joins(1)).base < last + SECOND / 2);
}

/// P12 (merge of snapshots).
#[test]
fn merge_keeps_latest_time_and_reported_cost() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![tokens(100)]);
    let granted = a.send(&mut group, vec![join(0, 90)]).grants[0].granted;
    // When the charge expires, seen on a copy of the group.
    let expiry = |group: &mut Group, a: &mut Sender| {
        let mut group = Group {
            state: group.state.clone(),
            wakes: Vec::new(),
            ..*group
        };
        group.now + a.clone().send(&mut group, vec![join(0, 90)]).next_free as u64
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
    let answer = a.reopen(&mut group, vec![log_charge(granted, 40, 0)]);
    assert_eq!(answer.used[0].cost.tokens.total(), 40);
    assert_eq!(expiry(&mut group, &mut a), first + SECOND + SPAN);
}

/// P12 (merge of snapshots): an instance has reported when the last part of its snapshot is there. Until then the recovery waits for it, and the conservative
/// charge (P13) stays.
#[test]
fn partial_snapshot_neither_ends_recovery_nor_removes_conservative_charge() {
    let (mut group, mut a) = (Group::new(), Sender::new("a", vec![requests(5)]));
    group.certain = false;
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

fn nothing_used(age: u64) -> Vec<UsageSnapshot> {
    let (number, used) = (1, vec![("a".into(), Cost::default())]);
    vec![UsageSnapshot { age, number, used }]
}

/// P13 (conservative charges): a usage snapshot accounts only for instances that had departed when it was taken and have not rejoined.
#[test]
fn usage_snapshot_does_not_account_for_an_instance_that_rejoined() {
    let mut group = Group::new();
    let (mut a, mut b) = (
        Sender::new("a", vec![requests(5)]),
        Sender::new("b", vec![requests(5)]),
    );
    a.send(&mut group, Vec::new());
    b.send(&mut group, Vec::new());
    group.advance(3 * SECOND, &mut a);
    assert_eq!(group.state.as_ref().unwrap().census().sessions, 1);
    b.reopen(&mut group, Vec::new());
    group.state.as_mut().unwrap().make_dirty();
    a.usage = nothing_used(0);
    a.send(&mut group, Vec::new());
    assert_eq!(group.advance(3 * SECOND, &mut a).used[0].cost.requests, 5);
}

#[test]
fn newest_usage_snapshot_is_charged() {
    for order in [[0, 1], [1, 0]] {
        let mut group = Group::new();
        group.certain = false;
        let mut senders = ["a", "b"].map(|name| Sender::new(name, vec![requests(5)]));
        for sender in &mut senders {
            sender.departed = vec![("c".into(), 20 * SECOND)];
            sender.usage = nothing_used(10 * SECOND);
        }
        senders[1].usage[0].age = 0;
        senders[1].usage[0].used[0].1.requests = 3;
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
        let (mut a, mut b) = (
            Sender::new("a", vec![requests(5)]),
            Sender::new("b", vec![requests(5)]),
        );
        b.send(&mut group, Vec::new());
        group.state.as_mut().unwrap().make_dirty();
        b.message.complete = false;
        a.departed = vec![("b".into(), 10 * SECOND)];
        a.usage = nothing_used(SECOND);
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
    let mut group = Group::new();
    group.certain = false;
    let mut a = Sender::new("a", vec![requests(9)]);
    a.departed = vec![("c".into(), 10 * SECOND)];
    a.usage = nothing_used(SECOND);
    (a.usage[0].number, a.usage[0].used[0].1.requests) = (50, 3);
    let snapshot = vec![log_charge(40, 1, 2 * SECOND), log_charge(60, 1, SECOND / 2)];
    a.send(&mut group, snapshot);
    // The usage snapshot shows three, one of which is reported. The other reported one is later.
    assert_eq!(group.advance(3 * SECOND, &mut a).used[0].cost.requests, 4);
}

/// P13 (conservative charges), P16 (bounds of a step): reported charges are added up in parts, and nothing is granted before the sum is complete.
#[test]
fn reported_charges_are_summed_in_parts() {
    let mut group = Group::new();
    group.certain = false;
    let mut a = Sender::new("a", vec![requests(5000)]);
    a.departed = vec![("c".into(), 10 * SECOND)];
    a.usage = nothing_used(SECOND);
    (a.usage[0].number, a.usage[0].used[0].1.requests) = (10_000, 700);
    a.send(&mut group, Vec::new());
    for part in 0..3 {
        let charges = (1..=200).map(|k| log_charge(part * 200 + k, 1, 2 * SECOND + part));
        a.send(&mut group, charges.collect());
    }
    let mut answer = group.advance(3 * SECOND, &mut a);
    let mut parts = 0;
    while answer.recovering {
        assert!(answer.more);
        parts += 1;
        answer = a.send(&mut group, joins(1));
    }
    assert_eq!(parts, 3);
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
        let (mut a, mut b) = (
            Sender::new("a", vec![requests(5)]),
            Sender::new("b", vec![requests(5)]),
        );
        b.send(&mut group, Vec::new());
        a.send(&mut group, Vec::new());
        b.send(&mut group, vec![Op::CloseSession { clean }]);
        group.state.as_mut().unwrap().make_dirty();
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

/// P12 (merge of snapshots): an open call counts once however often it is reported, and the first reported probe stays the probe.
#[test]
fn open_call_reported_twice_counts_once() {
    let mut group = Group::new();
    let (mut a, mut b) = (
        Sender::new("a", vec![requests(9)]),
        Sender::new("b", vec![requests(9)]),
    );
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
    let answer = a.reopen(&mut group, vec![hold(5), hold(5), join(0, 1)]);
    assert_eq!((answer.used[0].open, answer.grants.len()), (1, 0));
    b.send(&mut group, vec![hold(6)]);
    let healed = Op::Report {
        granted: 5,
        deployment: "a".into(),
        probe: true,
        again: false,
        ok: true,
        status: 0,
        cool: -1,
    };
    assert!(!a.send(&mut group, vec![healed]).grants[0].probe);
}

/// P13 (conservative charges): an unaccounted instance is departed once a recovery has waited for it. A later recovery that expected it again would wait for
/// the whole lease and charge the limits for a window.
#[test]
fn unaccounted_instance_is_expected_by_one_recovery_only() {
    let mut group = Group::new();
    group.certain = false;
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

/// P3 (one recovery for all losses): fresh instances name no others. Instances that know what was sent may return later, so the recovery waits for them.
#[test]
fn fresh_instances_alone_do_not_end_recovery_early() {
    let mut group = Group::new();
    group.certain = false;
    let limits = || vec![requests(1)];
    let mut fresh = Sender::new("a", limits());
    fresh.send(&mut group, joins(1));
    assert!(group.advance(5 * SECOND / 2, &mut fresh).recovering);
    assert_eq!(group.advance(SECOND / 2, &mut fresh).grants.len(), 1);
    // An instance that was there before ends it after two heartbeats.
    group.state = None;
    fresh.reopen(&mut group, joins(1));
    assert!(!group.advance(SECOND, &mut fresh).recovering);
}

/// P5 (sequence numbers): a recovery adds the time that has passed since to the last number of an older state.
#[test]
fn sequence_numbers_of_an_older_state_advance_by_the_elapsed_time() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(9)]);
    a.send(&mut group, joins(1));
    let older = group.state.clone();
    group.now += 5 * SECOND;
    // A sender adds the time that has passed since it learned its highest number.
    a.message.seen += 5 * SECOND;
    let last = a.send(&mut group, joins(1)).seen;
    group.state = older;
    group.state.as_mut().unwrap().make_dirty();
    let mut fresh = Sender::new("b", vec![requests(9)]);
    assert!(fresh.send(&mut group, joins(1)).base > last);
}

/// P3 (one recovery for all losses), P17 (partial writes): a partial write can leave the entry of a grant that is in no inbox. Without the recovery such an
/// entry would never expire.
#[test]
fn recovery_drops_a_grant_that_no_inbox_contains() {
    let mut group = Group::new();
    let slot = || vec![requests(9).limit(LimitKind::Concurrency, 1, Duration::ZERO)];
    let (mut a, mut b) = (Sender::new("a", slot()), Sender::new("b", slot()));
    let first = a.send(&mut group, joins(1)).grants[0].clone();
    b.send(&mut group, joins(1));
    let before = group.state.clone().unwrap();
    let done = Op::Done {
        granted: first.granted,
        deployment: first.deployment,
        tokens: Tokens::MAX,
        excess: Tokens::ZERO,
        ok: false,
    };
    a.send(&mut group, vec![done]);
    let state = group.state.as_mut().unwrap();
    assert_eq!(state.census().inbox, 1);
    // The write of b's inbox is lost.
    state.tear(&before, 1 << 3);
    a.send(&mut group, Vec::new());
    b.send(&mut group, Vec::new());
    assert_eq!(
        group.advance(SPAN + 2 * SECOND, &mut a).used[0]
            .cost
            .requests,
        0
    );
}

/// P1 (sessions and replays): the address has moved to a replica and back to the former master. Another state has granted calls since, and this one sees no
/// batch gap.
#[test]
fn message_of_an_unknown_epoch_starts_recovery() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(3)]);
    let mut b = Sender::new("b", vec![requests(3)]);
    a.send(&mut group, Vec::new());
    b.send(&mut group, Vec::new());
    let here = a.message.epoch.clone();
    group.now += SECOND / 2;
    a.message.epoch = format!("{}-1", group.now + SECOND).into();
    b.message.epoch = a.message.epoch.clone();
    let reply = a.try_send(&mut group, Vec::new());
    assert_eq!(
        (reply.verdict, reply.recovered),
        (Verdict::SessionInvalid, true)
    );
    let reply = b.try_send(&mut group, Vec::new());
    assert_eq!(
        (reply.verdict, reply.recovered),
        (Verdict::SessionInvalid, false)
    );
    assert!(a.send(&mut group, Vec::new()).recovering);
    b.send(&mut group, Vec::new());
    assert!(!group.advance(2 * SECOND, &mut a).recovering);
    // A late message of a former epoch is no evidence.
    a.message.epoch = here;
    let reply = a.try_send(&mut group, Vec::new());
    assert_eq!(
        (reply.verdict, reply.recovered),
        (Verdict::SessionInvalid, false)
    );
}

/// P1 (sessions and replays): after a loss every instance sends an epoch that the new state never had. The recovery replaces that epoch, so it is no second
/// loss.
#[test]
fn epochs_replaced_by_a_recovery_do_not_restart_it() {
    let mut group = Group::new();
    let senders = ["a", "b", "c"].map(|name| Sender::new(name, vec![requests(3)]));
    let [mut a, mut b, mut c] = senders;
    for sender in [&mut a, &mut b, &mut c] {
        sender.send(&mut group, Vec::new());
    }
    (group.state, group.certain) = (None, false);
    a.send(&mut group, Vec::new());
    group.now += SECOND / 2;
    let began = group.state.clone();
    assert!(!b.try_send(&mut group, Vec::new()).recovered);
    b.send(&mut group, Vec::new());
    // A later epoch of another state restarts the recovery: that state may have granted calls to instances that have reported here.
    let mut other = Group {
        state: began,
        wakes: Vec::new(),
        ..group
    };
    a.message.epoch = format!("{}-1", other.now + SECOND).into();
    assert!(a.try_send(&mut other, Vec::new()).recovered);
    assert!(!c.try_send(&mut group, Vec::new()).recovered);
}
