//! One rule of the protocol each, by messages written by hand: cases that the simulation rarely reaches.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot be set up fails"
)]

mod bounds;
mod choice;
mod clocks;
mod health;
mod kinds;
mod lengths;
mod operators;
mod recovery;
mod rollouts;
mod sessions;
mod shares;
mod snapshots;

use std::{sync::Arc, time::Duration};

use vorrang_scheduler::{
    Claim, Cost, Deployment, Entry, GroupConfig, LimitKind, Micros, Seq, SessionId, Strategy,
    Tokens,
    message::{
        ALL_INSTANCES, Answer, Message, NEVER_FITS, Op, OpenSession, Reply, UsageSnapshot, Verdict,
        reason,
    },
    rules::Rules,
    transition::{Environment, State, inspect::Census, step},
};

const SECOND: Micros = Micros::SECOND;

/// A group's state and the clock of its server.
#[derive(Clone)]
struct Group {
    state: Option<State>,
    now: Micros,
    /// No state was lost, so a new state needs no recovery (P4).
    certain: bool,
    wakes: Vec<Arc<str>>,
}

impl Group {
    fn new() -> Self {
        let (state, now) = (None, 1_000_000 * SECOND);
        Group {
            state,
            now,
            certain: true,
            wakes: Vec::new(),
        }
    }

    /// Its first message starts a recovery.
    fn after_a_loss() -> Self {
        Group {
            certain: false,
            ..Self::new()
        }
    }

    fn step(&mut self, message: &Message) -> Reply {
        let environment = Environment {
            now: self.now,
            random: 7,
            replication: "".into(),
            certain: self.certain,
        };
        let outcome = step(&mut self.state, &environment, message);
        self.wakes = outcome.wakes;
        outcome.reply
    }

    fn census(&self) -> Census {
        self.state.as_ref().unwrap().census()
    }

    /// A partial write (P17): the next step finds a loss.
    fn make_dirty(&mut self) {
        self.state.as_mut().unwrap().make_dirty();
    }

    /// Lets time pass while one instance alone steps, once a heartbeat. Returns its last answer.
    fn advance(&mut self, time: Micros, by: &mut Sender) -> Answer {
        let mut answer = None;
        for _ in 0..time.0 / (SECOND / 2).0 {
            self.now += SECOND / 2;
            answer = Some(by.send(self, Vec::new()));
        }
        answer.unwrap()
    }
}

/// An instance whose messages are written by hand.
#[derive(Clone)]
struct Sender {
    message: Message,
    /// The number of its last opening of a session.
    opening: u64,
    rules: Arc<Rules>,
    rules_version: u64,
    peers: Vec<Arc<str>>,
    departed: Vec<(Arc<str>, Micros)>,
    usage: Vec<UsageSnapshot>,
    /// Grants that were dispatched on receipt, and when that was: reported with the next message (P8).
    unreported: Vec<(Seq, Micros)>,
}

impl Sender {
    fn new(name: &str, deployments: Vec<Deployment>) -> Self {
        Self::with(name, &GroupConfig::new(deployments))
    }

    fn with(name: &str, config: &GroupConfig) -> Self {
        let message = Message {
            instance: name.into(),
            epoch: "".into(),
            session: SessionId::NONE,
            batch: 0,
            open_session: Vec::new(),
            complete: true,
            seen: Seq::NONE,
            highest_finish: 0,
            ops: Vec::new(),
        };
        Sender {
            message,
            opening: 0,
            rules: Arc::new(Rules::from(config)),
            rules_version: 0,
            peers: vec![name.into()],
            departed: Vec::new(),
            usage: Vec::new(),
            unreported: Vec::new(),
        }
    }

    /// The next message. It opens a session if the instance has none.
    fn next(&mut self, ops: Vec<Op>) -> Message {
        let message = &mut self.message;
        (message.batch, message.ops) = (message.batch + 1, ops);
        message.open_session.clear();
        if message.session == SessionId::NONE {
            self.opening += 1;
            message.open_session.push(OpenSession {
                number: self.opening,
                rules: self.rules.clone(),
                rules_version: self.rules_version,
                peers: self.peers.clone(),
                departed: self.departed.clone(),
                view: self.usage.clone(),
            });
        }
        message.clone()
    }

    fn try_send(&mut self, group: &mut Group, ops: Vec<Op>) -> Reply {
        let unreported = std::mem::take(&mut self.unreported);
        let reports = unreported.into_iter().map(|(granted, at)| Op::Sent {
            granted,
            age: group.now - at,
        });
        let ops = if self.message.session == SessionId::NONE {
            ops
        } else {
            reports.chain(ops).collect()
        };
        let message = self.next(ops);
        let reply = group.step(&message);
        let grants = reply.answer.iter().flat_map(|answer| &answer.grants);
        let counted = grants.filter(|grant| grant.counted);
        self.unreported = counted.map(|grant| (grant.granted, group.now)).collect();
        self.message.epoch = reply.epoch.clone();
        self.message.session = reply
            .answer
            .first()
            .map_or(SessionId::NONE, |answer| answer.session);
        let seen = reply.answer.first().map_or(Seq::NONE, |answer| answer.seen);
        self.message.seen = self.message.seen.max(seen);
        reply
    }

    /// Sends the ops, and sends them again with the opening of a session if the first message is refused.
    fn send(&mut self, group: &mut Group, ops: Vec<Op>) -> Answer {
        let reply = self.try_send(group, ops.clone());
        let reply = match reply.verdict {
            Verdict::Done => reply,
            _ => self.try_send(group, ops),
        };
        reply.answer.into_iter().next().unwrap()
    }

    /// Opens another session, with these ops as its snapshot.
    fn reopen(&mut self, group: &mut Group, ops: Vec<Op>) -> Answer {
        self.message.session = SessionId::NONE;
        self.send(group, ops)
    }
}

/// Instances with these deployments.
fn senders<const N: usize>(names: [&str; N], deployments: &[Deployment]) -> [Sender; N] {
    names.map(|name| Sender::new(name, deployments.to_vec()))
}

/// A usage snapshot of deployment a, from so long ago, when `number` was the last sequence number.
fn usage(age: Micros, number: u64, cost: impl Into<Cost>) -> Vec<UsageSnapshot> {
    let used = vec![("a".into(), cost.into())];
    vec![UsageSnapshot {
        age,
        number: Seq(number),
        used,
    }]
}

fn join(priority: i32, tokens: impl Into<Tokens>) -> Op {
    Op::Join(Entry::new(Claim::new(priority, tokens)))
}

fn joins(count: usize) -> Vec<Op> {
    vec![join(0, 1); count]
}

fn sent(granted: Seq, age: Micros) -> Op {
    Op::Sent { granted, age }
}

fn done(granted: Seq) -> Op {
    Op::Done {
        granted,
        deployment: "a".into(),
        tokens: Tokens::MAX,
        excess: Tokens::ZERO,
        ok: false,
    }
}

fn log_charge(granted: Seq, tokens: impl Into<Tokens>, age: Micros) -> Op {
    Op::Charge {
        granted,
        excess: false,
        deployment: "a".into(),
        requests: 1,
        tokens: tokens.into(),
        age,
    }
}

fn failed(granted: Seq, status: u16, cool: i64) -> Op {
    let (deployment, ok) = ("a".into(), false);
    Op::Report {
        granted,
        deployment,
        probe: false,
        again: false,
        ok,
        status,
        cool,
    }
}

fn probe_failed(granted: Seq, status: u16, cool: i64) -> Op {
    let (deployment, ok) = ("a".into(), false);
    Op::Report {
        granted,
        deployment,
        probe: true,
        again: false,
        ok,
        status,
        cool,
    }
}

fn probe_succeeded(granted: Seq) -> Op {
    Op::Report {
        granted,
        deployment: "a".into(),
        probe: true,
        again: false,
        ok: true,
        status: 0,
        cool: -1,
    }
}

fn requests(limit: u64) -> Deployment {
    Deployment::new("a").limit(LimitKind::Requests, limit, Duration::from_secs(60))
}

fn tokens(limit: u64) -> Deployment {
    Deployment::new("a").limit(LimitKind::Tokens, limit, Duration::from_secs(60))
}

/// A window of a minute and its guard.
const SPAN: Micros = Micros(60_100_000);
