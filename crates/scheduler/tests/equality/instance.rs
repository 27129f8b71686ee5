//! A model of an instance: enough of the protocol to make messages that mean something. It need not be right, only busy.

use std::sync::Arc;

use vorrang_scheduler::{
    Claim, Entry, Tokens,
    message::{Answer, Grant, Message, Op, OpenSession, Reply, UsageSnapshot, Verdict},
    rules::Rules,
};

use crate::history::{Happening, Misfit, deployment_name};

/// So that a snapshot does not take for ever.
const MOST_WAITING: usize = 1200;
/// Former messages that may come again.
const KEPT: usize = 5;

#[derive(Debug, Clone, Copy)]
struct Ticket {
    claim: Claim,
    arrival: u64,
    start: u64,
}

#[derive(Debug, Clone)]
struct Permit {
    grant: Grant,
    tokens: Tokens,
    claim: Claim,
    since: u64,
    over: bool,
    /// Its dispatch was reported.
    reported: bool,
}

/// One instance in the group.
#[derive(Debug)]
pub(crate) struct Instance {
    name: Arc<str>,
    rules: Arc<Rules>,
    epoch: Arc<str>,
    session: u64,
    batch: u64,
    open_session: u64,
    seen: u64,
    highest_finish: u64,
    rules_version: u64,
    needs_hello: bool,
    /// The second part of a snapshot.
    rest: Option<Vec<Op>>,
    waiting: Vec<Ticket>,
    /// Joined by the message that is out.
    joined: Vec<Ticket>,
    permits: Vec<Permit>,
    peers: Vec<Arc<str>>,
    /// And when.
    departed: Vec<(Arc<str>, u64)>,
    view: Option<(u64, UsageSnapshot)>,
    former: Vec<Message>,
}

impl Instance {
    /// A process that has just started.
    pub(crate) fn new(name: Arc<str>, rules: Arc<Rules>) -> Self {
        Self {
            name,
            rules,
            epoch: "".into(),
            session: 0,
            batch: 0,
            open_session: 0,
            seen: 0,
            highest_finish: 0,
            rules_version: 0,
            needs_hello: true,
            rest: None,
            waiting: Vec::new(),
            joined: Vec::new(),
            permits: Vec::new(),
            peers: Vec::new(),
            departed: Vec::new(),
            view: None,
            former: Vec::new(),
        }
    }

    /// Its name.
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
        self.former.truncate(KEPT);
        message
    }

    /// The next message.
    pub(crate) fn send(&mut self, now: u64, happenings: &[Happening]) -> Message {
        if self.needs_hello {
            return self.say_hello(now, None, false);
        }
        self.batch += 1;
        let mut ops = self.rest.take().unwrap_or_default();
        self.joined.clear();
        // Some are reported late, or never: then their end or that of the session dates them.
        let reported =
            |p: &&mut Permit| p.grant.counted && !p.reported && !p.grant.granted.is_multiple_of(4);
        for permit in self.permits.iter_mut().filter(reported).take(250) {
            permit.reported = true;
            ops.push(Op::Sent {
                granted: permit.grant.granted,
                age: now.saturating_sub(permit.since),
            });
        }
        for happening in happenings {
            self.happen(now, happening, &mut ops);
        }
        let message = self.message(ops);
        self.keep(message)
    }

    /// An open-session message with everything it knows.
    pub(crate) fn say_hello(
        &mut self,
        now: u64,
        rules: Option<Arc<Rules>>,
        parts: bool,
    ) -> Message {
        if let Some(rules) = rules {
            self.rules = rules;
            self.rules_version = 0;
            self.view = None;
        }
        self.open_session += 1;
        self.batch += 1;
        self.session = 0;
        self.joined.clear();
        let mut ops = self.snapshot(now);
        self.rest = parts.then(|| ops.split_off(ops.len() / 2));
        let joined = ops.iter().filter_map(|op| match *op {
            Op::Join(Entry {
                claim,
                arrival,
                start,
            }) => Some(Ticket {
                claim,
                arrival,
                start,
            }),
            _ => None,
        });
        self.joined = joined.collect();
        let mut message = self.message(ops);
        message.complete = !parts;
        let mut peers = self.peers.clone();
        peers.push(self.name.clone());
        let view = self.view.iter().map(|(at, view)| UsageSnapshot {
            age: now.saturating_sub(*at),
            ..view.clone()
        });
        let gone = self.departed.iter();
        let gone = gone.map(|(name, at)| (name.clone(), now.saturating_sub(*at)));
        message.open_session = vec![OpenSession {
            number: self.open_session,
            rules: self.rules.clone(),
            rules_version: self.rules_version,
            peers,
            departed: gone.collect(),
            view: view.collect(),
        }];
        self.keep(message)
    }

    fn snapshot(&mut self, now: u64) -> Vec<Op> {
        let mut ops = Vec::new();
        self.permits
            .retain(|p| !p.over || p.since + self.rules.memory > now);
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
            if !permit.over {
                ops.push(Op::Hold {
                    granted,
                    deployment,
                    probe,
                });
            }
        }
        ops.extend(self.waiting.iter().map(
            |&Ticket {
                 claim,
                 arrival,
                 start,
             }| {
                Op::Join(Entry {
                    claim,
                    arrival,
                    start,
                })
            },
        ));
        ops
    }

    fn open(&self, which: usize) -> Option<usize> {
        let open: Vec<usize> = (0..self.permits.len())
            .filter(|i| !self.permits[*i].over)
            .collect();
        open.get(which % open.len().max(1)).copied()
    }

    fn give_back(&mut self, index: usize, used: Option<u64>, ops: &mut Vec<Op>) {
        let permit = &mut self.permits[index];
        permit.over = true;
        // What is used of output grows as that of input shrinks.
        let part = |amount: u64, hundredths: u64| amount.saturating_mul(hundredths) / 100;
        let used = used.map_or(Tokens::MAX, |hundredths| {
            let Tokens { input, output } = permit.tokens;
            Tokens::new(part(input, hundredths), part(output, 250 - hundredths))
        });
        let excess = if used == Tokens::MAX {
            Tokens::ZERO
        } else {
            used.saturating_sub(permit.tokens)
        };
        ops.push(Op::Done {
            granted: permit.grant.granted,
            deployment: permit.grant.deployment.clone(),
            tokens: used.min(permit.tokens),
            excess,
            ok: !permit.grant.granted.is_multiple_of(3),
        });
        permit.tokens = used.min(permit.tokens);
    }

    fn join(&mut self, claim: Claim, arrival: u64, start: u64, ops: &mut Vec<Op>) {
        if self.waiting.len() + self.joined.len() >= MOST_WAITING {
            return;
        }
        ops.push(Op::Join(Entry {
            claim,
            arrival,
            start,
        }));
        self.joined.push(Ticket {
            claim,
            arrival,
            start,
        });
    }

    fn happen(&mut self, now: u64, happening: &Happening, ops: &mut Vec<Op>) {
        match *happening {
            Happening::Join(claim) => self.join(claim, 0, 0, ops),
            Happening::Joins(claim, many) => {
                (0..many).for_each(|_| self.join(claim, 0, 0, ops));
            }
            Happening::Leave(which) => {
                if !self.waiting.is_empty() {
                    let Ticket { claim, arrival, .. } =
                        self.waiting.remove(which % self.waiting.len());
                    ops.push(Op::Leave { claim, arrival });
                }
            }
            Happening::Done { which, used } => {
                if let Some(index) = self.open(which) {
                    self.give_back(index, used, ops);
                }
            }
            Happening::DoneAll => {
                while let Some(index) = self.open(0) {
                    self.give_back(index, None, ops);
                }
            }
            Happening::Retry(which) => {
                if let Some(index) = self.open(which) {
                    self.give_back(index, None, ops);
                    let Permit {
                        ref grant, claim, ..
                    } = self.permits[index];
                    let (arrival, start) = (grant.arrival, grant.start);
                    let mut known = self.rules.deployments.iter();
                    let tried = known.position(|d| d.id == grant.deployment);
                    let claim = Claim {
                        tried: claim.tried | tried.map_or(0, |n| 1 << n),
                        ..claim
                    };
                    self.join(claim, arrival, start, ops);
                }
            }
            Happening::Sent { which, age } => {
                if let Some(index) = self.open(which) {
                    let permit = &mut self.permits[index];
                    permit.reported = true;
                    ops.push(Op::Sent {
                        granted: permit.grant.granted,
                        age,
                    });
                }
            }
            Happening::Unused(which) => {
                if let Some(index) = self.open(which) {
                    let permit = self.permits.remove(index);
                    ops.push(Op::Unused {
                        granted: permit.grant.granted,
                    });
                }
            }
            Happening::Report {
                which,
                ok,
                status,
                cool,
            } => {
                if let Some(index) = self.open(which) {
                    let Grant {
                        granted,
                        ref deployment,
                        probe,
                        ..
                    } = self.permits[index].grant;
                    ops.push(Op::Report {
                        granted,
                        deployment: deployment.clone(),
                        probe,
                        again: which % 3 == 0,
                        ok,
                        status,
                        cool,
                    });
                }
            }
            Happening::Noise {
                kind,
                number,
                deployment,
                amount,
            } => {
                // Small numbers are near those that were drawn, or far below the first.
                let granted = if number < 20 {
                    number
                } else {
                    self.seen.saturating_sub(number % 40).max(number)
                };
                let deployment = deployment_name(deployment);
                ops.push(match kind {
                    0 => Op::Done {
                        granted,
                        deployment,
                        tokens: Tokens::new(amount.saturating_sub(1), amount / 3),
                        excess: Tokens::new(amount / 2, number % 5),
                        ok: number % 2 == 0,
                    },
                    1 => Op::Unused { granted },
                    2 => Op::Hold {
                        granted,
                        deployment,
                        probe: amount % 2 == 0,
                    },
                    3 => {
                        let excess = amount % 2 == 0;
                        Op::Charge {
                            granted,
                            excess,
                            deployment,
                            requests: amount % 3,
                            tokens: Tokens::new(amount % 50, number % 30),
                            age: amount,
                        }
                    }
                    4 => Op::Cool {
                        deployment,
                        left: amount,
                        status: if amount % 2 == 0 { 429 } else { 0 },
                    },
                    5 => Op::Sent {
                        granted,
                        age: amount,
                    },
                    _ => {
                        let ok = amount % 2 == 0;
                        Op::Report {
                            granted,
                            deployment,
                            probe: number % 2 == 0,
                            again: number % 3 == 0,
                            ok,
                            status: 404,
                            cool: amount.cast_signed(),
                        }
                    }
                });
            }
            Happening::CloseSession => {
                ops.push(Op::CloseSession {
                    clean: ops.is_empty(),
                });
                self.needs_hello = true;
            }
        }
        let _ = now;
    }

    /// A former message once more.
    pub(crate) fn repeat(&self, back: usize) -> Option<Message> {
        self.former.get(back).cloned()
    }

    /// A message that does not fit.
    pub(crate) fn misfit(&self, how: Misfit) -> Message {
        let mut message = self.message(vec![Op::Join(Entry {
            claim: Claim::new(0, 0),
            arrival: 0,
            start: 0,
        })]);
        message.batch += 1;
        match how {
            Misfit::Gap => message.batch += 1,
            Misfit::Epoch => message.epoch = "another".into(),
            Misfit::Session => message.session += 1,
            Misfit::OldHello => {
                message.session = 0;
                message.open_session = vec![OpenSession {
                    number: self.open_session.saturating_sub(1),
                    rules: self.rules.clone(),
                    rules_version: self.rules_version,
                    peers: vec!["nobody".into()],
                    departed: vec![("somebody".into(), 17)],
                    view: Vec::new(),
                }];
            }
        }
        message
    }

    /// Takes an answer to the message that is out.
    pub(crate) fn take(&mut self, now: u64, reply: &Reply) {
        self.epoch = reply.epoch.clone();
        let (Verdict::Done, Some(answer)) = (reply.verdict, reply.answer.first()) else {
            self.needs_hello = true;
            return;
        };
        self.needs_hello = false;
        self.session = answer.session;
        self.seen = answer.seen;
        self.highest_finish = answer.highest_finish;
        for (k, mut ticket) in std::mem::take(&mut self.joined).into_iter().enumerate() {
            if ticket.arrival == 0 {
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
                over: false,
                reported: false,
            });
        }
        self.waiting.retain(|t| {
            !answer
                .refusals
                .iter()
                .any(|(arrival, _)| *arrival == t.arrival)
        });
        self.learn(now, answer);
    }

    fn learn(&mut self, now: u64, answer: &Answer) {
        if !answer.peers.is_empty() {
            self.peers.clone_from(&answer.peers);
            let gone = answer.departed.iter();
            self.departed = gone
                .map(|(name, age)| (name.clone(), now.saturating_sub(*age)))
                .collect();
        }
        self.rules_version = answer.rules_version;
        if answer.configurations == 1 {
            let used = self.rules.deployments.iter().zip(&answer.used);
            let used = used.map(|(d, used)| (d.id.clone(), used.cost)).collect();
            self.view = Some((
                now,
                UsageSnapshot {
                    age: 0,
                    number: answer.seen,
                    used,
                },
            ));
        }
    }
}
