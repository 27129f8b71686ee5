//! When a dispatcher sends, retransmits, polls and dispatches, with replies written by hand: cases that the simulation rarely reaches.

use std::{sync::Arc, time::Duration};

use vorrang_scheduler::{
    Claim, Deployment, Entry, GroupConfig, LimitKind, Micros, Seq, SessionId, Strategy, Tokens,
    dispatcher::{Core, Event},
    message::{Answer, Grant, Message, Op, Reply, Used, Verdict},
};

pub(crate) const SECOND: Micros = Micros::SECOND;
pub(crate) const HEARTBEAT: Micros = Micros(SECOND.0 / 2);
/// P9 (dispatch within the session): the lease less three heartbeats.
pub(crate) const DISPATCH_WITHIN: Micros = Micros(3 * HEARTBEAT.0);

/// A dispatcher, its clock, and the group whose replies are written by hand.
pub(crate) struct Harness {
    pub(crate) core: Core,
    pub(crate) now: Micros,
    /// The group's last sequence number.
    pub(crate) seen: Seq,
}

impl Harness {
    /// With an open session, and nothing to do until the next heartbeat.
    pub(crate) fn new() -> Self {
        Self::with_window(Duration::from_secs(60))
    }

    pub(crate) fn with_window(length: Duration) -> Self {
        let a = Deployment::new("a").limit(LimitKind::Requests, 1000, length);
        Self::with(&GroupConfig::new(vec![a]))
    }

    pub(crate) fn with(config: &GroupConfig) -> Self {
        let now = SECOND;
        let core = Core::new("one".into(), config, now);
        let mut harness = Harness {
            core,
            now,
            seen: Seq(100),
        };
        harness.next();
        harness.answer(|_| ());
        harness
    }

    pub(crate) fn next(&mut self) -> Arc<Message> {
        self.core.poll(self.now).expect("something to send").message
    }

    pub(crate) fn answer(&mut self, what: impl FnOnce(&mut Answer)) -> Vec<Event> {
        self.answer_to(self.now, what)
    }

    /// Answers a message that was sent at that time.
    pub(crate) fn answer_to(&mut self, sent: Micros, what: impl FnOnce(&mut Answer)) -> Vec<Event> {
        self.seen = self.seen + 1000;
        let mut answer = Answer {
            session: SessionId(1),
            base: Seq(self.seen.0 - 500),
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
            memory: Micros::ZERO,
            heartbeat: Micros::ZERO,
            configurations: 1,
            ranks: Vec::new(),
            overrides: Vec::new(),
            views: Vec::new(),
        };
        what(&mut answer);
        self.reply(sent, Verdict::Done, vec![answer])
    }

    pub(crate) fn reply(
        &mut self,
        sent: Micros,
        verdict: Verdict,
        answer: Vec<Answer>,
    ) -> Vec<Event> {
        let reply = Reply {
            verdict,
            epoch: "epoch".into(),
            recovered: false,
            answer,
        };
        self.core.on_reply(self.now, sent, reply)
    }

    /// The group ends the session. Returns the message that opens another one.
    pub(crate) fn refuse_session(&mut self) -> Arc<Message> {
        self.core.wake();
        self.next();
        self.reply(self.now, Verdict::SessionInvalid, Vec::new());
        self.next()
    }

    /// Tickets join and are granted at once. Returns the numbers of their grants.
    pub(crate) fn grant(&mut self, tickets: std::ops::Range<u64>) -> Vec<Seq> {
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

/// P9 (dispatch within the session): the grant returns unused, and its ticket keeps its arrival.
#[test]
fn grant_received_too_late_is_returned_and_its_ticket_joins_again() {
    let mut harness = Harness::new();
    harness.core.join(1, Entry::new(Claim::new(0, 1)));
    harness.next();
    harness.now += DISPATCH_WITHIN + Micros(1);
    let (arrival, granted) = (harness.seen + 500, harness.seen + 600);
    let sent = harness.now - DISPATCH_WITHIN - Micros(1);
    let events = harness.answer_to(sent, |answer| {
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
    assert_eq!(harness.next().ops, [Op::Unused { granted }, join]);
}

/// P5 (sequence numbers): a number that was drawn for another instance meanwhile is no higher than this.
#[test]
fn highest_known_sequence_number_grows_with_time() {
    let mut harness = Harness::new();
    harness.now += SECOND / 3;
    harness.core.wake();
    assert_eq!(harness.next().seen, harness.seen + SECOND / 3);
}

/// P2 (retransmission): the time-out is two heartbeats from the third attempt on.
#[test]
fn failed_message_is_retransmitted_unchanged_with_backoff() {
    let mut harness = Harness::new();
    harness.core.join(1, Entry::new(Claim::new(0, 1)));
    let first = harness.core.poll(harness.now).unwrap();
    assert_eq!(first.timeout, HEARTBEAT);
    let mut waits = Vec::new();
    for attempt in 1..12 {
        harness.core.on_failure(harness.now);
        harness.core.join(1 + attempt, Entry::new(Claim::new(0, 1)));
        let due = harness.core.deadline().unwrap();
        assert!(harness.core.poll(due - Micros(1)).is_none());
        waits.push(due - harness.now);
        harness.now = due;
        let retransmission = harness.core.poll(harness.now).unwrap();
        assert_eq!(retransmission.message, first.message);
        let heartbeats = if attempt < 2 { 1 } else { 2 };
        assert_eq!(retransmission.timeout, heartbeats * HEARTBEAT);
    }
    assert_eq!(waits[..3], [10_000, 20_000, 40_000].map(Micros));
    assert_eq!(waits[10], HEARTBEAT);
}

/// P15 (wakes): a wake may have been lost before the subscription.
#[test]
fn dispatcher_polls_after_a_new_subscription() {
    let mut harness = Harness::new();
    assert!(harness.core.poll(harness.now).is_none());
    harness.core.wakes_lost();
    assert!(harness.core.poll(harness.now).is_some());
}

/// P16 (bounds of a step).
#[test]
fn more_in_a_reply_causes_another_step_at_once() {
    let mut harness = Harness::new();
    harness.core.wake();
    harness.next();
    harness.answer(|answer| answer.more = true);
    assert_eq!(harness.next().ops, []);
}

/// P3 (one recovery for all losses): a recovery may expect an instance that has closed its session. A poll alone does not end the sleep.
#[test]
fn woken_sleeping_dispatcher_opens_a_session() {
    let mut harness = Harness::new();
    harness.now += 61 * SECOND;
    let close_session = harness.next();
    assert_eq!(close_session.ops, [Op::CloseSession { clean: true }]);
    harness.answer(|_| ());
    assert!(harness.core.is_asleep());
    harness.core.wakes_lost();
    assert!(harness.core.poll(harness.now).is_none());
    harness.core.wake();
    assert_eq!(harness.next().open_session.len(), 1);
}

/// P15 (wakes): if `next_free` is unknown, only the head's owner polls. At a known time the owner polls first, then the other waiters by rank.
#[test]
fn head_owner_polls_first_and_other_waiters_by_rank() {
    for (next_free, mine, after) in [
        (-1, true, Micros(30_000)),
        (-1, false, HEARTBEAT),
        (100_000, true, Micros(100_000)),
        (100_000, false, Micros(190_000)),
    ] {
        let mut harness = Harness::new();
        harness.core.join(1, Entry::new(Claim::new(0, 1)));
        harness.next();
        harness.answer(|answer| {
            (answer.next_free, answer.mine) = (next_free, mine);
            answer.peers = vec!["a".into(), "b".into(), "one".into()];
        });
        assert_eq!(harness.core.deadline(), Some(harness.now + after));
    }
}

/// P8 (dispatch report): the report precedes the ops that came after the dispatch.
#[test]
fn dispatch_is_reported_with_its_age_in_the_next_message() {
    let mut harness = Harness::new();
    let granted = harness.grant(0..1)[0];
    harness.now += SECOND / 10;
    assert!(harness.core.dispatch(harness.now, granted));
    harness.now += SECOND / 5;
    harness.core.give_back(harness.now, granted, true, None);
    let age = SECOND / 5;
    harness.core.wake();
    assert_eq!(
        harness.next().ops,
        [Op::Sent { granted, age }, done(granted)]
    );
    harness.answer(|_| ());
    harness.core.wake();
    assert_eq!(harness.next().ops, [], "it is reported once");
}

/// How long ends of calls that free nothing wait for a ticket.
const LINGER: Micros = Micros(2_000);

fn done(granted: Seq) -> Op {
    Op::Done {
        granted,
        deployment: "a".into(),
        tokens: Tokens::from(1),
        excess: Tokens::ZERO,
        ok: false,
    }
}

/// P15 (wakes): where only requests are limited, the end of a call frees nothing, and goes with a ticket that comes soon. Where it frees something, and
/// where another instance's configuration may count it, it goes at once.
#[test]
fn end_of_a_call_that_frees_nothing_lingers_for_a_ticket() {
    let mut harness = Harness::new();
    let granted = harness.grant(0..2);
    for granted in &granted {
        assert!(harness.core.dispatch(harness.now, *granted));
    }
    harness.core.give_back(harness.now, granted[0], true, None);
    assert_eq!(
        harness.core.poll(harness.now).map(|sent| sent.message),
        None
    );
    let due = harness.core.deadline().unwrap();
    assert_eq!(due, harness.now + LINGER);
    harness.core.join(7, Entry::new(Claim::new(0, 1)));
    let ops = harness.next().ops.clone();
    assert_eq!(ops[2..3], [done(granted[0])]);
    assert!(matches!(ops[3..], [Op::Join(_)]));
    harness.answer(|_| ());
    // None comes.
    harness.core.give_back(harness.now, granted[1], true, None);
    assert!(harness.core.poll(harness.now).is_none());
    harness.now = harness.core.deadline().unwrap();
    assert_eq!(harness.next().ops, [done(granted[1])]);
    harness.answer(|_| ());
    // Another configuration may have a limit on open calls.
    let granted = harness.grant(8..9)[0];
    assert!(harness.core.dispatch(harness.now, granted));
    harness.core.wake();
    harness.next();
    harness.answer(|answer| answer.configurations = 2);
    harness.core.give_back(harness.now, granted, true, None);
    assert_eq!(harness.next().ops, [done(granted)]);
}

#[test]
fn end_of_a_call_that_frees_something_goes_at_once() {
    let requests =
        || Deployment::new("a").limit(LimitKind::Requests, 1000, Duration::from_secs(60));
    let limits = [
        requests().limit(LimitKind::Concurrency, 9, Duration::ZERO),
        requests().limit(LimitKind::Tokens, 1000, Duration::from_secs(60)),
        requests().limit(LimitKind::OutputTokens, 1000, Duration::from_secs(60)),
    ];
    let mut groups: Vec<GroupConfig> = limits
        .into_iter()
        .map(|deployment| GroupConfig::new(vec![deployment]))
        .collect();
    let mut least_busy = GroupConfig::new(vec![requests()]);
    least_busy.strategy = Strategy::LeastBusy;
    groups.push(least_busy);
    for group in groups {
        let mut harness = Harness::with(&group);
        let granted = harness.grant(0..1)[0];
        assert!(harness.core.dispatch(harness.now, granted));
        harness.core.give_back(harness.now, granted, true, None);
        assert!(harness.next().ops.contains(&done(granted)));
    }
}

/// P8 (dispatch report): at the latest after a heartbeat or a quarter of the shortest window.
#[test]
fn dispatch_is_reported_before_its_window_can_end() {
    for (window, within) in [(60, HEARTBEAT), (1, SECOND / 4)] {
        let mut harness = Harness::with_window(Duration::from_secs(window));
        let granted = harness.grant(0..1)[0];
        harness.now += Micros(1000);
        assert!(harness.core.dispatch(harness.now, granted));
        let due = harness.core.deadline().unwrap();
        assert!(due <= harness.now + within, "{due:?} {:?}", harness.now);
        harness.now = due;
        assert!(matches!(harness.next().ops[..], [Op::Sent { .. }]));
    }
}

/// P9 (dispatch within the session): until three heartbeats before the lease is over, counted from the first transmission of the last answered message.
#[test]
fn dispatch_is_refused_before_the_session_can_end() {
    let mut harness = Harness::new();
    let granted = harness.grant(0..3);
    harness.now += DISPATCH_WITHIN;
    assert!(harness.core.dispatch(harness.now, granted[0]));
    harness.now += Micros(1);
    assert!(!harness.core.dispatch(harness.now, granted[1]));
    // A retransmission is no sign of life: the first transmission counts.
    let first = harness.next();
    harness.core.on_failure(harness.now);
    harness.now += HEARTBEAT;
    assert_eq!(harness.next(), first);
    harness.answer(|_| ());
    harness.now += DISPATCH_WITHIN - HEARTBEAT;
    assert!(harness.core.dispatch(harness.now, granted[1]));
    harness.now += Micros(1);
    assert!(!harness.core.dispatch(harness.now, granted[2]));
}

/// P9 (dispatch within the session): grants of an ended session are not dispatched in the next one either. The snapshot reports them until they return.
#[test]
fn grant_of_an_ended_session_is_not_dispatched() {
    let mut harness = Harness::new();
    let granted = harness.grant(0..2);
    assert!(harness.core.dispatch(harness.now, granted[0]));
    let snapshot = harness.refuse_session();
    assert!(!harness.core.dispatch(harness.now, granted[1]));
    let charges = snapshot.ops.iter().filter_map(|op| match op {
        Op::Charge { granted, age, .. } => Some((*granted, *age)),
        _ => None,
    });
    assert_eq!(
        charges.collect::<Vec<_>>(),
        [(granted[0], Micros::ZERO), (granted[1], Micros::ZERO)]
    );
    harness.answer(|answer| answer.session = SessionId(2));
    assert!(!harness.core.dispatch(harness.now, granted[1]));
    harness.core.give_back(harness.now, granted[1], false, None);
    let unused = Op::Unused {
        granted: granted[1],
    };
    assert_eq!(harness.next().ops, [unused]);
}

/// Readiness depends on the round trip of the network, not on single slow replies.
#[test]
fn round_trip_is_the_shortest_of_the_last_eight() {
    let mut harness = Harness::new();
    let times = [300, 400, 500, 300, 300, 300, 300, 300, 300, 300].map(|ms| Micros(ms * 1000));
    for (k, time) in times.into_iter().enumerate() {
        assert_eq!(harness.core.round_trip().is_some(), k >= 7);
        harness.core.wake();
        harness.next();
        let sent = harness.now;
        harness.now += time;
        harness.answer_to(sent, |_| ());
    }
    assert_eq!(harness.core.round_trip(), Some(Micros(300_000)));
    harness.core.wake();
    harness.next();
    harness.answer(|_| ());
    assert_eq!(harness.core.round_trip(), Some(Micros::ZERO));
}
