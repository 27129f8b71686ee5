//! A model of an instance. It follows the protocol far enough to send messages that reach most of the step; it need not be correct.

mod actions;

use std::sync::Arc;

use vorrang_scheduler::{
    Claim, Entry, Micros, Overrides, Seq, SessionId, Tokens,
    message::{Answer, Grant, HELD, Message, Op, OpenSession, Reply, UsageSnapshot, Verdict},
    rules::Rules,
};

use crate::history::{Action, Misfit};

/// Bounds the size of snapshots.
const MOST_WAITING: usize = 1200;
/// Former messages that may be retransmitted.
const MOST_FORMER: usize = 5;

#[derive(Debug, Clone)]
struct Permit {
    grant: Grant,
    tokens: Tokens,
    claim: Claim,
    since: Micros,
    /// The call has ended, and only its charge is kept.
    ended: bool,
    /// The dispatch is reported.
    reported: bool,
}

/// An instance of the group.
#[derive(Debug)]
pub(crate) struct Instance {
    name: Arc<str>,
    rules: Arc<Rules>,
    epoch: Arc<str>,
    session: SessionId,
    batch: u64,
    /// The number of its last opening of a session.
    opening: u64,
    seen: Seq,
    highest_finish: u64,
    rules_version: u64,
    has_session: bool,
    /// The second part of a snapshot.
    rest: Option<Vec<Op>>,
    waiting: Vec<Entry>,
    /// Tickets that the outstanding message joins.
    joined: Vec<Entry>,
    permits: Vec<Permit>,
    peers: Vec<Arc<str>>,
    /// Departed instances, and when they departed.
    departed: Vec<(Arc<str>, Micros)>,
    /// The last usage snapshot, and when it was taken.
    usage: Option<(Micros, UsageSnapshot)>,
    /// What operators have changed, as far as it knows.
    overrides: Overrides,
    former: Vec<Message>,
}

impl Instance {
    /// A process that has just started.
    pub(crate) fn new(name: Arc<str>, rules: Arc<Rules>) -> Self {
        Self {
            name,
            rules,
            epoch: "".into(),
            session: SessionId::NONE,
            batch: 0,
            opening: 0,
            seen: Seq::NONE,
            highest_finish: 0,
            rules_version: 0,
            has_session: false,
            rest: None,
            waiting: Vec::new(),
            joined: Vec::new(),
            permits: Vec::new(),
            peers: Vec::new(),
            departed: Vec::new(),
            usage: None,
            overrides: Overrides::default(),
            former: Vec::new(),
        }
    }

    pub(crate) fn name(&self) -> Arc<str> {
        self.name.clone()
    }

    fn message(&self, ops: Vec<Op>) -> Message {
        Message {
            instance: self.name.clone(),
            epoch: self.epoch.clone(),
            session: self.session,
            batch: self.batch,
            open_session: Vec::new(),
            complete: true,
            seen: self.seen,
            highest_finish: self.highest_finish,
            ops,
        }
    }

    fn keep(&mut self, message: Message) -> Message {
        self.former.insert(0, message.clone());
        self.former.truncate(MOST_FORMER);
        message
    }

    /// The next message.
    pub(crate) fn send(&mut self, now: Micros, actions: &[Action]) -> Message {
        if !self.has_session {
            return self.open_session(now, None, false);
        }
        self.batch += 1;
        let mut ops = self.rest.take().unwrap_or_default();
        self.joined.clear();
        // Some dispatches are never reported. The end of their call or of the session then gives them a time.
        let reported = |p: &&mut Permit| {
            p.grant.counted && !p.reported && !p.grant.granted.0.is_multiple_of(4)
        };
        for permit in self.permits.iter_mut().filter(reported).take(250) {
            permit.reported = true;
            ops.push(Op::Sent {
                granted: permit.grant.granted,
                age: now.saturating_sub(permit.since),
            });
        }
        for action in actions {
            self.act(action, &mut ops);
        }
        let message = self.message(ops);
        self.keep(message)
    }

    /// A message that opens a session, with a snapshot of all that the instance knows.
    pub(crate) fn open_session(
        &mut self,
        now: Micros,
        rules: Option<Arc<Rules>>,
        parts: bool,
    ) -> Message {
        if let Some(rules) = rules {
            self.rules = rules;
            self.rules_version = 0;
            self.usage = None;
        }
        self.opening += 1;
        self.batch += 1;
        self.session = SessionId::NONE;
        self.joined.clear();
        let mut ops = self.snapshot(now);
        self.rest = parts.then(|| ops.split_off(ops.len() / 2));
        let joined = ops.iter().filter_map(|op| match *op {
            Op::Join(entry) => Some(entry),
            _ => None,
        });
        self.joined = joined.collect();
        let mut message = self.message(ops);
        message.complete = !parts;
        let mut peers = self.peers.clone();
        peers.push(self.name.clone());
        let usage = self.usage.iter().map(|(at, usage)| UsageSnapshot {
            age: now.saturating_sub(*at),
            ..usage.clone()
        });
        let departed = self.departed.iter();
        let departed = departed.map(|(name, at)| (name.clone(), now.saturating_sub(*at)));
        message.open_session = vec![OpenSession {
            number: self.opening,
            rules: self.rules.clone(),
            rules_version: self.rules_version,
            peers,
            departed: departed.collect(),
            view: usage.collect(),
        }];
        self.keep(message)
    }

    fn snapshot(&mut self, now: Micros) -> Vec<Op> {
        let mut ops = Vec::new();
        if self.overrides.version > Seq::NONE {
            ops.push(Op::Overrides(self.overrides.clone()));
        }
        self.permits
            .retain(|p| !p.ended || p.since + self.rules.memory > now);
        for permit in &self.permits {
            let Grant {
                granted,
                ref deployment,
                counted,
                probe,
                ..
            } = permit.grant;
            let deployment = deployment.clone();
            if counted {
                let age = now.saturating_sub(permit.since);
                let (requests, tokens) = (1, permit.tokens);
                ops.push(Op::Charge {
                    granted,
                    excess: false,
                    deployment: deployment.clone(),
                    requests,
                    tokens,
                    age,
                });
                if permit.tokens.total() % 7 == 3 {
                    let (requests, tokens) = (0, permit.tokens);
                    ops.push(Op::Charge {
                        granted,
                        excess: true,
                        deployment: deployment.clone(),
                        requests,
                        tokens,
                        age: age / 2,
                    });
                }
            }
            if !permit.ended {
                ops.push(Op::Hold {
                    granted,
                    deployment,
                    probe,
                });
            }
        }
        ops.extend(self.waiting.iter().copied().map(Op::Join));
        ops
    }

    /// A former message, for a retransmission.
    pub(crate) fn former_message(&self, back: usize) -> Option<Message> {
        self.former.get(back).cloned()
    }

    /// A message that no instance would send in this state.
    pub(crate) fn misfit(&self, how: Misfit) -> Message {
        let mut message = self.message(vec![Op::Join(Entry::new(Claim::new(0, 0)))]);
        message.batch += 1;
        match how {
            Misfit::Gap => message.batch += 1,
            Misfit::Epoch => message.epoch = "another".into(),
            Misfit::Session => message.session.0 += 1,
            Misfit::OldOpening => {
                message.session = SessionId::NONE;
                message.open_session = vec![OpenSession {
                    number: self.opening.saturating_sub(1),
                    rules: self.rules.clone(),
                    rules_version: self.rules_version,
                    peers: vec!["unknown peer".into()],
                    departed: vec![("unknown departed".into(), Micros(17))],
                    view: Vec::new(),
                }];
            }
        }
        message
    }

    /// Receives the reply to the outstanding message.
    pub(crate) fn receive(&mut self, now: Micros, reply: &Reply) {
        self.epoch = reply.epoch.clone();
        let (Verdict::Done, Some(answer)) = (reply.verdict, reply.answer.first()) else {
            self.has_session = false;
            return;
        };
        self.has_session = true;
        self.session = answer.session;
        self.seen = answer.seen;
        self.highest_finish = answer.highest_finish;
        for (k, mut ticket) in std::mem::take(&mut self.joined).into_iter().enumerate() {
            if ticket.arrival == Seq::NONE {
                ticket.arrival = answer.base + k as u64;
            }
            self.waiting.retain(|t| t.arrival != ticket.arrival);
            self.waiting.push(ticket);
        }
        for grant in &answer.grants {
            let ticket = self
                .waiting
                .iter()
                .position(|t| t.arrival == grant.arrival)
                .map(|at| self.waiting.remove(at));
            let claim = ticket.map(|t| t.claim).unwrap_or_default();
            self.permits.push(Permit {
                grant: grant.clone(),
                tokens: claim.tokens,
                claim,
                since: now,
                ended: false,
                reported: false,
            });
        }
        // A held ticket is forgotten half of the time, and may else be moved or leave.
        self.waiting.retain(|t| {
            let mut refused = answer.refusals.iter();
            !refused.any(|(arrival, code)| {
                *arrival == t.arrival && (*code != HELD || arrival.0.is_multiple_of(2))
            })
        });
        self.learn(now, answer);
    }

    fn learn(&mut self, now: Micros, answer: &Answer) {
        if !answer.peers.is_empty() {
            self.peers.clone_from(&answer.peers);
            let departed = answer.departed.iter();
            self.departed = departed
                .map(|(name, age)| (name.clone(), now.saturating_sub(*age)))
                .collect();
        }
        if let Some(overrides) = answer.overrides.first() {
            self.overrides = overrides.clone();
        }
        self.rules_version = answer.rules_version;
        if answer.configurations == 1 {
            let used = self.rules.deployments.iter().zip(&answer.used);
            let used = used.map(|(d, used)| (d.id.clone(), used.cost)).collect();
            self.usage = Some((
                now,
                UsageSnapshot {
                    age: Micros::ZERO,
                    number: answer.seen,
                    used,
                },
            ));
        }
    }
}
