//! What starts and ends a recovery, and what it keeps (P1, P3, P5, P17).

use crate::*;

/// P3 (one recovery for all losses): a state that is still there keeps its windows and its health. Undelivered grants are refunded, and a deployment that has
/// to be probed still has to.
#[test]
fn recovery_keeps_only_windows_and_health() {
    let mut group = Group::new();
    let [mut a, mut b] = senders(["a", "b"], &[requests(3)]);
    b.send(&mut group, Vec::new());
    let granted = a.send(&mut group, joins(3)).grants[0].granted;
    b.send(&mut group, joins(1));
    a.send(&mut group, vec![Op::Unused { granted }]);
    assert_eq!((group.census().inbox, group.census().calls), (1, 3));
    a.send(&mut group, vec![failed(granted + 1, 429, 100_000)]);
    group.now += Micros(200_000);
    group.make_dirty();
    a.send(&mut group, Vec::new());
    assert_eq!((group.census().inbox, group.census().calls), (0, 0));
    b.send(&mut group, Vec::new());
    let answer = group.advance(SECOND, &mut a);
    assert!(!answer.recovering);
    assert_eq!(answer.used[0].cost.requests, 2);
    assert!(a.send(&mut group, joins(1)).grants[0].probe);
}

#[test]
fn loss_wakes_all_instances_and_recovery_waits_for_all_sessions() {
    let mut group = Group::new();
    let [mut a, mut b] = senders(["a", "b"], &[requests(3)]);
    a.send(&mut group, Vec::new());
    b.send(&mut group, Vec::new());
    group.make_dirty();
    assert_eq!(
        a.try_send(&mut group, Vec::new()).verdict,
        Verdict::SessionInvalid
    );
    assert_eq!(group.wakes, [Arc::from(ALL_INSTANCES)]);
    // It does not know of b yet.
    a.peers = vec!["a".into()];
    a.send(&mut group, Vec::new());
    assert!(group.advance(2 * SECOND, &mut a).recovering);
    b.send(&mut group, Vec::new());
    assert!(!a.send(&mut group, Vec::new()).recovering);
}

/// P3 (one recovery for all losses): fresh instances name no others. Instances that know what was sent may return later, so the recovery waits for them.
#[test]
fn fresh_instances_alone_do_not_end_recovery_early() {
    let mut group = Group::after_a_loss();
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

/// P3 (one recovery for all losses), P17 (partial writes): a partial write can leave the entry of a grant that is in no inbox. Without the recovery such an
/// entry would never expire.
#[test]
fn recovery_drops_a_grant_that_no_inbox_contains() {
    let mut group = Group::new();
    let slot = vec![requests(9).limit(LimitKind::Concurrency, 1, Duration::ZERO)];
    let [mut a, mut b] = senders(["a", "b"], &slot);
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
    assert_eq!(group.census().inbox, 1);
    // The write of b's inbox is lost.
    group.state.as_mut().unwrap().tear(&before, 1 << 3);
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
    let [mut a, mut b] = senders(["a", "b"], &[requests(3)]);
    a.send(&mut group, Vec::new());
    b.send(&mut group, Vec::new());
    let here = a.message.epoch.clone();
    group.now += SECOND / 2;
    a.message.epoch = format!("{}-1", (group.now + SECOND).0).into();
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
    let [mut a, mut b, mut c] = senders(["a", "b", "c"], &[requests(3)]);
    for sender in [&mut a, &mut b, &mut c] {
        sender.send(&mut group, Vec::new());
    }
    (group.state, group.certain) = (None, false);
    a.send(&mut group, Vec::new());
    group.now += SECOND / 2;
    let mut other = group.clone();
    assert!(!b.try_send(&mut group, Vec::new()).recovered);
    b.send(&mut group, Vec::new());
    // A later epoch of another state restarts the recovery: that state may have granted calls to instances that have reported here.
    a.message.epoch = format!("{}-1", (other.now + SECOND).0).into();
    assert!(a.try_send(&mut other, Vec::new()).recovered);
    assert!(!c.try_send(&mut group, Vec::new()).recovered);
}

#[test]
fn sequence_numbers_begin_above_the_clock_and_all_known_numbers() {
    let mut group = Group::new();
    let mut a = Sender::new("a", vec![requests(9)]);
    let base = a.send(&mut group, joins(1)).base;
    assert!(base > Seq::at(group.now + 10 * SECOND));
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
    let charge = log_charge(held + 50 * SECOND, 1, Micros::ZERO);
    assert!(a.reopen(&mut group, vec![charge, join(0, 1)]).base > held + 50 * SECOND);
    let mut last = a.reopen(&mut group, joins(1)).base;
    a.message.seen = last + SECOND;
    assert!(a.send(&mut group, joins(1)).base > last + SECOND);
    group.now += 1000 * SECOND;
    last = a.send(&mut group, joins(1)).base;
    assert!(last >= Seq::at(group.now));
    // The leap of a recovery with state is small: leaps must not add up.
    group.make_dirty();
    assert!(a.send(&mut group, joins(1)).base < last + SECOND / 2);
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
    a.message.seen = a.message.seen + 5 * SECOND;
    let last = a.send(&mut group, joins(1)).seen;
    group.state = older;
    group.make_dirty();
    let mut fresh = Sender::new("b", vec![requests(9)]);
    assert!(fresh.send(&mut group, joins(1)).base > last);
}
