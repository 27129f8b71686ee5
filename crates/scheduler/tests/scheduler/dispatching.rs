//! A dispatcher answered by hand, for what hardly ever happens in the simulation.

use std::{sync::Arc, time::Duration};

use vorrang_scheduler::{
    Claim, Deployment, Entry, GroupConfig, LimitKind, Tokens,
    dispatcher::{Core, Event},
    message::{Answer, Grant, Message, Op, Reply, Used, Verdict},
};

const SECOND: u64 = 1_000_000;
const HEARTBEAT: u64 = SECOND / 2;
/// P9: the lease less three heartbeats.
const DISPATCH_WITHIN: u64 = 3 * HEARTBEAT;

struct Hand {
    core: Core,
    now: u64,
    seen: u64,
}

impl Hand {
    /// With a session, and nothing to do until the next heartbeat.
    fn new() -> Self {
        Self::with_window(Duration::from_secs(60))
    }

    fn with_window(length: Duration) -> Self {
        let a = Deployment::new("a").limit(LimitKind::Requests, 1000, length);
        let now = SECOND;
        let core = Core::new("one".into(), &GroupConfig::new(vec![a]), now);
        let mut hand = Hand {
            core,
            now,
            seen: 100,
        };
        hand.next();
        hand.answer(|_| ());
        hand
    }

    fn next(&mut self) -> Arc<Message> {
        self.core.poll(self.now).expect("something to send").message
    }

    fn answer(&mut self, what: impl FnOnce(&mut Answer)) -> Vec<Event> {
        self.answer_to(self.now, what)
    }

    /// Of a message that was sent then.
    fn answer_to(&mut self, sent: u64, what: impl FnOnce(&mut Answer)) -> Vec<Event> {
        self.seen += 1000;
        let mut answer = Answer {
            session: 1,
            base: self.seen - 500,
            seen: self.seen,
            highest_finish: 0,
            grants: Vec::new(),
            refusals: Vec::new(),
            next_free: -1,
            mine: false,
            recovering: false,
            more: false,
            depth: 0,
            used: vec![Used::default()],
            rules_version: 1,
            peers: Vec::new(),
            departed: Vec::new(),
            ahead: Vec::new(),
            reasons: 0,
            memory: 0,
            heartbeat: 0,
            configurations: 1,
        };
        what(&mut answer);
        self.reply(sent, Verdict::Done, vec![answer])
    }

    fn reply(&mut self, sent: u64, verdict: Verdict, answer: Vec<Answer>) -> Vec<Event> {
        let reply = Reply {
            verdict,
            epoch: "epoch".into(),
            recovered: false,
            answer,
        };
        self.core.on_reply(self.now, sent, reply)
    }

    /// Its session is refused; what it says then.
    fn open_session(&mut self) -> Arc<Message> {
        self.core.wake();
        self.next();
        self.reply(self.now, Verdict::SessionInvalid, Vec::new());
        self.next()
    }

    /// Tickets join and are granted at once; the numbers of their grants.
    fn grant(&mut self, tickets: std::ops::Range<u64>) -> Vec<u64> {
        tickets
            .clone()
            .for_each(|id| self.core.join(id, Entry::new(Claim::new(0, 1))));
        self.next();
        let events = self.answer(|answer| {
            let grants = (0..tickets.end - tickets.start).map(|k| Grant {
                arrival: answer.base + k,
                granted: answer.base + 250 + k,
                deployment: "a".into(),
                counted: true,
                probe: false,
                score: 0,
                start: 0,
            });
            answer.grants = grants.collect();
        });
        let granted = events.iter().map(|event| match event {
            Event::Granted { held, .. } => held.grant.granted,
            other => panic!("{other:?}"),
        });
        granted.collect()
    }
}

/// P12, P16: in parts of 256 ops, charges first, so that nothing is granted before they are known; complete with the last.
#[test]
fn large_snapshot_is_sent_in_parts_with_charges_first() {
    let mut hand = Hand::new();
    for part in 0..4 {
        for granted in hand.grant(part * 75..part * 75 + 75) {
            assert!(hand.core.dispatch(hand.now, granted));
            hand.core.give_back(hand.now, granted, true, None);
        }
    }
    hand.core.join(1000, Entry::new(Claim::new(0, 1)));
    let first = hand.open_session();
    let charge = |op: &Op| matches!(op, Op::Charge { .. });
    assert!(first.ops.len() == 256 && first.ops.iter().all(charge) && !first.complete);
    hand.answer(|_| ());
    let rest = hand.next();
    assert_eq!(rest.ops.iter().filter(|op| charge(op)).count(), 44);
    assert!(matches!(rest.ops.last(), Some(Op::Join(_))) && rest.ops.len() == 45);
    assert!(rest.complete && rest.open_session.is_empty());
}

/// A8 with fair shares: where a ticket's turn began is told when it comes again, in every snapshot; and how far turns have come with every message (P5).
#[test]
fn start_tag_is_reported_when_its_ticket_joins_again() {
    let mut hand = Hand::new();
    hand.core.join(1, Entry::new(Claim::new(0, 1)));
    let sent = hand.now;
    hand.next();
    // Too late to be used (P9).
    hand.now += DISPATCH_WITHIN + 1;
    hand.answer_to(sent, |answer| {
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
    let again = |message: &Message| {
        let join = message.ops.iter().find_map(|op| match op {
            Op::Join(Entry { start, arrival, .. }) => Some((*start, *arrival > 0)),
            _ => None,
        });
        assert_eq!(
            (join, message.highest_finish),
            (Some((77, true)), 90),
            "{message:?}"
        );
    };
    again(&hand.next());
    hand.answer(|_| ());
    again(&hand.open_session());
}

/// P12: a refund is told in every snapshot, for as long as anything counts: an older state may come back. Its charge is not.
#[test]
fn refund_is_reported_in_every_snapshot_for_a_window() {
    let mut hand = Hand::new();
    let granted = hand.grant(0..1)[0];
    hand.core.give_back(hand.now, granted, false, None);
    for _ in 0..2 {
        assert_eq!(hand.open_session().ops, [Op::Unused { granted }]);
        hand.answer(|_| ());
    }
    hand.now += 61 * SECOND;
    assert_eq!(hand.open_session().ops, []);
}

/// P11: what counts no more is forgotten while there is always something to tell, too.
#[test]
fn charge_log_of_a_busy_instance_drops_expired_charges() {
    let mut hand = Hand::new();
    for ticket in 0..3000 {
        let granted = hand.grant(ticket..ticket + 1)[0];
        let sent = ticket % 3 > 0 && hand.core.dispatch(hand.now, granted);
        hand.core.give_back(hand.now, granted, sent, None);
        hand.now += SECOND / 10;
    }
    let window = 61 * 10;
    let remembered = hand.core.grants_in_mind();
    assert!(
        (window - 10..window + window / 8 + 10).contains(&remembered),
        "{remembered}"
    );
}

/// P12: whoever learnt of a cooldown tells of it; who caused it may be gone.
#[test]
fn snapshot_reports_cooldowns_learned_from_the_group() {
    let mut hand = Hand::new();
    hand.core.wake();
    hand.next();
    hand.answer(|answer| answer.used[0].cooling = 3 * SECOND);
    hand.now += SECOND;
    let (deployment, left, status) = ("a".into(), 2 * SECOND, 0);
    let cool = Op::Cool {
        deployment,
        left,
        status,
    };
    assert_eq!(hand.open_session().ops, [cool]);
}

/// P9: what comes too late goes back unused, and the ticket goes on waiting with its arrival.
#[test]
fn grant_received_too_late_is_returned_and_its_ticket_joins_again() {
    let mut hand = Hand::new();
    hand.core.join(1, Entry::new(Claim::new(0, 1)));
    hand.next();
    hand.now += DISPATCH_WITHIN + 1;
    let (arrival, granted) = (hand.seen + 500, hand.seen + 600);
    let sent = hand.now - DISPATCH_WITHIN - 1;
    let events = hand.answer_to(sent, |answer| {
        answer.grants.push(Grant {
            arrival,
            granted,
            deployment: "a".into(),
            counted: true,
            probe: false,
            score: 0,
            start: 0,
        });
    });
    assert_eq!(events, [Event::Expired]);
    let (priority, tokens) = (0, 1_u64);
    let join = Op::Join(Entry {
        claim: Claim::new(priority, tokens),
        arrival,
        start: 0,
    });
    assert_eq!(hand.next().ops, [Op::Unused { granted }, join]);
}

/// P5: what others have been given since is no higher than this.
#[test]
fn highest_known_sequence_number_grows_with_time() {
    let mut hand = Hand::new();
    hand.now += SECOND / 3;
    hand.core.wake();
    assert_eq!(hand.next().seen, hand.seen + SECOND / 3);
}

/// P13: while a group recovers its windows may not show all yet.
#[test]
fn no_usage_snapshot_is_taken_during_recovery_or_roll_out() {
    let mut hand = Hand::new();
    for (used, recovering, rules_version) in [(3, false, 1), (2, true, 1)] {
        hand.core.wake();
        hand.next();
        hand.answer(|answer| {
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
    assert_eq!(used(&hand.open_session()), Some(3));
    // Where configurations differ, others may use deployments that this instance does not know.
    hand.answer(|answer| answer.configurations = 2);
    assert_eq!(used(&hand.open_session()), None);
}

/// P2: the same message again, after a little longer each time; it waits for two heartbeats from the third time on.
#[test]
fn failed_message_is_retransmitted_unchanged_with_backoff() {
    let mut hand = Hand::new();
    hand.core.join(1, Entry::new(Claim::new(0, 1)));
    let first = hand.core.poll(hand.now).unwrap();
    assert_eq!(first.timeout, HEARTBEAT);
    let mut waits = Vec::new();
    for attempt in 1..12 {
        hand.core.on_failure(hand.now);
        hand.core.join(1 + attempt, Entry::new(Claim::new(0, 1)));
        let due = hand.core.deadline().unwrap();
        assert!(hand.core.poll(due - 1).is_none());
        waits.push(due - hand.now);
        hand.now = due;
        let again = hand.core.poll(hand.now).unwrap();
        assert_eq!(again.message, first.message);
        assert_eq!(again.timeout, HEARTBEAT * if attempt < 2 { 1 } else { 2 });
    }
    assert_eq!(waits[..3], [10_000, 20_000, 40_000]);
    assert_eq!(waits[10], HEARTBEAT);
}

/// P15: a wake may have been lost; only who sleeps has nothing to look for.
#[test]
fn dispatcher_polls_after_a_new_subscription() {
    let mut hand = Hand::new();
    assert!(hand.core.poll(hand.now).is_none());
    hand.core.look();
    assert!(hand.core.poll(hand.now).is_some());
}

/// A1: those without a number yet come in the order in which they came.
#[test]
fn snapshot_lists_tickets_in_queue_order() {
    let mut hand = Hand::new();
    for (id, priority) in [(1, 0), (2, 0), (3, -1), (4, 0)] {
        hand.core.join(id, Entry::new(Claim::new(priority, id)));
    }
    let open_session = hand.open_session();
    let tokens = open_session.ops.iter().map(|op| match op {
        Op::Join(Entry { claim, .. }) => claim.tokens.input,
        other => panic!("{other:?}"),
    });
    assert_eq!(tokens.collect::<Vec<_>>(), [3, 1, 2, 4]);
}

/// P16: where a step has reached a bound the next comes at once.
#[test]
fn more_in_a_reply_causes_another_step_at_once() {
    let mut hand = Hand::new();
    hand.core.wake();
    hand.next();
    hand.answer(|answer| answer.more = true);
    assert_eq!(hand.next().ops, []);
}

/// P3: an instance that closed its session may still be expected where the group is made anew.
#[test]
fn woken_sleeping_dispatcher_opens_a_session() {
    let mut hand = Hand::new();
    hand.now += 61 * SECOND;
    let close_session = hand.next();
    assert_eq!(close_session.ops, [Op::CloseSession { clean: true }]);
    hand.answer(|_| ());
    assert!(hand.core.is_asleep());
    hand.core.look();
    assert!(hand.core.poll(hand.now).is_none());
    hand.core.wake();
    assert_eq!(hand.next().open_session.len(), 1);
}

/// P15: with no time known, the head's owner polls and nobody else; at a known time the owner comes first, the others in turn.
#[test]
fn head_owner_polls_first_and_other_waiters_by_rank() {
    for (next_free, mine, after) in [
        (-1, true, 30_000),
        (-1, false, HEARTBEAT),
        (100_000, true, 100_000),
        (100_000, false, 190_000),
    ] {
        let mut hand = Hand::new();
        hand.core.join(1, Entry::new(Claim::new(0, 1)));
        hand.next();
        hand.answer(|answer| {
            (answer.next_free, answer.mine) = (next_free, mine);
            answer.peers = vec!["a".into(), "b".into(), "one".into()];
        });
        assert_eq!(hand.core.deadline(), Some(hand.now + after));
    }
}

/// P8 (the dispatch is reported): with its age, before what happened since.
#[test]
fn dispatch_is_reported_with_its_age_in_the_next_message() {
    let mut hand = Hand::new();
    let granted = hand.grant(0..1)[0];
    hand.now += SECOND / 10;
    assert!(hand.core.dispatch(hand.now, granted));
    hand.now += SECOND / 5;
    hand.core.give_back(hand.now, granted, true, None);
    let age = SECOND / 5;
    let done = Op::Done {
        granted,
        deployment: "a".into(),
        tokens: Tokens::from(1),
        excess: Tokens::ZERO,
        ok: false,
    };
    assert_eq!(hand.next().ops, [Op::Sent { granted, age }, done]);
    hand.answer(|_| ());
    hand.core.wake();
    assert_eq!(hand.next().ops, [], "it is reported once");
}

/// P8: at the latest after a heartbeat, or a quarter of the shortest window, so that the window does not end before.
#[test]
fn dispatch_is_reported_before_its_window_can_end() {
    for (window, within) in [(60, HEARTBEAT), (1, SECOND / 4)] {
        let mut hand = Hand::with_window(Duration::from_secs(window));
        let granted = hand.grant(0..1)[0];
        hand.now += 1000;
        assert!(hand.core.dispatch(hand.now, granted));
        let due = hand.core.deadline().unwrap();
        assert!(due <= hand.now + within, "{due} {}", hand.now);
        hand.now = due;
        assert!(matches!(hand.next().ops[..], [Op::Sent { .. }]));
    }
}

/// P9 (dispatch within the session): a call may go out until three heartbeats before the lease is over, counted from when its message was first sent.
#[test]
fn dispatch_is_refused_before_the_session_can_end() {
    let mut hand = Hand::new();
    let granted = hand.grant(0..3);
    hand.now += DISPATCH_WITHIN;
    assert!(hand.core.dispatch(hand.now, granted[0]));
    hand.now += 1;
    assert!(!hand.core.dispatch(hand.now, granted[1]));
    // A retransmission is no sign of life: the first sending counts.
    let first = hand.next();
    hand.core.on_failure(hand.now);
    hand.now += HEARTBEAT;
    assert_eq!(hand.next(), first);
    hand.answer(|_| ());
    hand.now += DISPATCH_WITHIN - HEARTBEAT;
    assert!(hand.core.dispatch(hand.now, granted[1]));
    hand.now += 1;
    assert!(!hand.core.dispatch(hand.now, granted[2]));
}

/// P9: when the session has ended its grants are not dispatched, in the next session neither. The snapshot counts them until they are back.
#[test]
fn grant_of_an_ended_session_is_not_dispatched() {
    let mut hand = Hand::new();
    let granted = hand.grant(0..2);
    assert!(hand.core.dispatch(hand.now, granted[0]));
    let snapshot = hand.open_session();
    assert!(!hand.core.dispatch(hand.now, granted[1]));
    let charges = snapshot.ops.iter().filter_map(|op| match op {
        Op::Charge { granted, age, .. } => Some((*granted, *age)),
        _ => None,
    });
    assert_eq!(
        charges.collect::<Vec<_>>(),
        [(granted[0], 0), (granted[1], 0)]
    );
    hand.answer(|answer| answer.session = 2);
    assert!(!hand.core.dispatch(hand.now, granted[1]));
    hand.core.give_back(hand.now, granted[1], false, None);
    let unused = Op::Unused {
        granted: granted[1],
    };
    assert_eq!(hand.next().ops, [unused]);
}

/// Readiness goes by what the network takes, not by one slow answer.
#[test]
fn round_trip_is_the_shortest_of_the_last_eight() {
    let mut hand = Hand::new();
    let times = [300, 400, 500, 300, 300, 300, 300, 300, 300, 300].map(|ms| ms * 1000);
    for (k, time) in times.into_iter().enumerate() {
        assert_eq!(hand.core.round_trip().is_some(), k >= 7);
        hand.core.wake();
        hand.next();
        let sent = hand.now;
        hand.now += time;
        hand.answer_to(sent, |_| ());
    }
    assert_eq!(hand.core.round_trip(), Some(300_000));
    hand.core.wake();
    hand.next();
    hand.answer(|_| ());
    assert_eq!(hand.core.round_trip(), Some(0));
}

/// Another instance's configuration has a longer window and a shorter lease: what it asks for holds for all.
#[test]
fn charge_log_and_heartbeat_follow_the_reply() {
    let mut hand = Hand::new();
    hand.grant(1..2);
    hand.core.wake();
    hand.next();
    hand.answer(|answer| (answer.memory, answer.heartbeat) = (300 * SECOND, SECOND / 10));
    assert_eq!(hand.core.deadline(), Some(hand.now + SECOND / 10));
    hand.now += 200 * SECOND;
    let open_session = hand.open_session();
    let remembered = |op: &Op| matches!(op, Op::Charge { .. });
    assert!(open_session.ops.iter().any(remembered), "{open_session:?}");
    // Less than the own configuration asks for changes nothing.
    hand.answer(|answer| (answer.memory, answer.heartbeat) = (SECOND, SECOND));
    assert_eq!(hand.core.deadline(), Some(hand.now + HEARTBEAT));
}
