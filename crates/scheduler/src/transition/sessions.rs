//! Sessions: who is believed, what of theirs is executed, and what becomes of those who fall silent (P1, P7, P10).

use std::sync::Arc;

use super::{Environment, Health, Item, State, Step, windows::Dispatch};
use crate::{
    message::{Answer, Message, Verdict},
    rules::Rules,
};

/// What an instance has in a group from its hello until it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub instance: Arc<str>,
    pub batch: u64,
    /// On the lease clock.
    pub seen: u64,
    /// A grant was not delivered in time: its places count no more, its next step is answered Resync (P10).
    pub silent: bool,
    pub peers_told: u64,
    /// Its configuration, one or more sessions have the same.
    pub configuration: u64,
    /// Deployments that its rules name.
    pub deployments: Vec<Arc<str>>,
    /// The answer to `batch`, for when it comes again.
    pub answer: Option<Box<Answer>>,
}

/// What is kept of an instance beyond its session: guards against its own late hellos.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub hello: u64,
    pub session: u64,
}

/// Whether a message is executed.
pub(super) enum Admission {
    Open(u64),
    Replay(Box<Answer>),
    Refused(Verdict),
}

impl State {
    /// P1, the table.
    pub(super) fn admit(
        &mut self,
        environment: &Environment,
        message: &Message,
        step: &mut Step,
    ) -> Admission {
        if message.epoch != self.epoch {
            if self.was_lost_since(&message.epoch) {
                self.recover(environment, step);
            }
            return Admission::Refused(Verdict::Resync);
        }
        let Some(hello) = message.hello.first() else {
            let Some(session) = self.sessions.get(&message.session) else {
                return Admission::Refused(Verdict::Resync);
            };
            if message.batch == session.batch {
                return self.replay(message.session);
            }
            if message.batch < session.batch {
                return Admission::Refused(Verdict::Stale);
            }
            if session.silent {
                return Admission::Refused(Verdict::Resync);
            }
            if message.batch > session.batch + 1 {
                // Steps that were answered are missing here: the group lost state (P3).
                self.recover(environment, step);
                return Admission::Refused(Verdict::Resync);
            }
            if let Some(session) = self.sessions.get_mut(&message.session) {
                session.batch = message.batch;
                session.seen = self.lease;
            }
            return Admission::Open(message.session);
        };
        if let Some(known) = self.instances.get(&message.instance).cloned() {
            let same = self
                .sessions
                .get(&known.session)
                .is_some_and(|s| s.batch == message.batch);
            if hello.number == known.hello && same {
                return self.replay(known.session);
            }
            if hello.number <= known.hello {
                return Admission::Refused(Verdict::Stale);
            }
            if let Some(rules) = self.rules().cloned() {
                self.end_session(&rules, known.session, false);
            }
        }
        let id = self.draw();
        self.instances.insert(
            message.instance.clone(),
            Known {
                hello: hello.number,
                session: id,
            },
        );
        self.gone.remove(&message.instance);
        self.peers_version += 1;
        let configuration = self.learn_rules(&hello.rules, hello.rules_version);
        self.configurations.unsettled = true;
        self.reap_at = self.reap_at.min(self.lease + hello.rules.reap_after());
        self.sessions.insert(
            id,
            Session {
                instance: message.instance.clone(),
                batch: message.batch,
                seen: self.lease,
                silent: false,
                peers_told: 0,
                configuration,
                deployments: hello
                    .rules
                    .deployments
                    .iter()
                    .map(|d| d.id.clone())
                    .collect(),
                answer: None,
            },
        );
        Admission::Open(id)
    }

    /// The same answer again. Its grants' entries are open.
    /// It is no sign of life: an instance that receives no answer would keep what it was granted for as long as it asks (A6).
    fn replay(&mut self, id: u64) -> Admission {
        let Some(session) = self.sessions.get(&id) else {
            return Admission::Refused(Verdict::Resync);
        };
        let Some(answer) = session.answer.clone() else {
            return Admission::Refused(Verdict::Resync);
        };
        Admission::Replay(answer)
    }

    /// Ends a session: its permits come back, its undelivered grants are refunded, its places count no more.
    pub(super) fn end_session(&mut self, rules: &Rules, id: u64, gone: bool) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.peers_version += 1;
        self.configurations.unsettled = true;
        self.refund_inbox(rules, id);
        let flights: Vec<u64> = self
            .inflight
            .iter()
            .filter(|(_, f)| f.session == id)
            .map(|(number, _)| *number)
            .collect();
        for number in flights {
            // What was not reported was dispatched by now, or never will be (P9).
            self.dispatched(rules, number, self.clock, Dispatch::Assumed);
            self.release(number, id);
        }
        self.ghosts += self.waiting.remove(&id).unwrap_or(0);
        if gone {
            self.gone.insert(session.instance, self.clock);
            self.forget(rules);
        }
    }

    /// Forgets instances that have been gone for longer than anything is remembered.
    fn forget(&mut self, rules: &Rules) {
        let (clock, memory) = (self.clock, rules.memory);
        let instances = &mut self.instances;
        self.gone.retain(|name, at| {
            let keep = *at + memory > clock;
            if !keep {
                instances.remove(name);
            }
            keep
        });
    }

    /// Takes back grants that were not delivered to a session.
    pub(super) fn refund_inbox(&mut self, rules: &Rules, id: u64) {
        for item in self.inbox.remove(&id).unwrap_or_default() {
            if let Item::Grant { grant, .. } = item {
                self.release(grant.granted, id);
                self.refund(rules, grant.granted);
            }
        }
    }

    /// Gives a permit's concurrency back, and the probe if it was one.
    pub(super) fn release(&mut self, number: u64, session: u64) {
        if self
            .inflight
            .get(&number)
            .is_none_or(|f| f.session != session)
        {
            return;
        }
        let Some(flight) = self.inflight.remove(&number) else {
            return;
        };
        if let Some(open) = self.open.get_mut(&flight.deployment) {
            *open -= 1;
        }
        if let Some(Health { probe, .. }) = self.health.get_mut(&flight.deployment)
            && *probe == number
        {
            *probe = 0;
        }
    }

    /// P7: ends the sessions of instances silent for too long.
    pub(super) fn reap(&mut self, rules: &Rules, step: &Step) {
        if self.lease <= self.reap_at {
            return;
        }
        let after = rules.reap_after();
        let dead: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(id, s)| **id != step.session && s.seen + after < self.lease)
            .map(|(id, _)| *id)
            .collect();
        for id in dead {
            self.end_session(rules, id, true);
        }
        self.reap_at = self
            .sessions
            .values()
            .map(|s| s.seen + after)
            .min()
            .unwrap_or(u64::MAX);
    }

    /// P10: takes grants back that were not delivered in time, and believes their owner no more.
    pub(super) fn take_back(&mut self, rules: &Rules, step: &Step) {
        if self.lease <= self.collect_at {
            return;
        }
        let within = rules.collect_within();
        let since = |items: &Vec<Item>| {
            items
                .iter()
                .filter_map(|i| {
                    if let Item::Grant { since, .. } = i {
                        Some(*since)
                    } else {
                        None
                    }
                })
                .min()
        };
        let late: Vec<u64> = self
            .inbox
            .iter()
            .filter(|(id, items)| {
                **id != step.session && since(items).is_some_and(|at| at + within < self.lease)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.refund_inbox(rules, id);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.silent = true;
            }
            self.ghosts += self.waiting.remove(&id).unwrap_or(0);
        }
        self.collect_at = self
            .inbox
            .values()
            .filter_map(since)
            .min()
            .map_or(u64::MAX, |at| at + within);
    }

    /// Hands the sender what was granted to it by others' steps.
    pub(super) fn collect(&mut self, step: &mut Step) {
        for item in self.inbox.remove(&step.session).unwrap_or_default() {
            match item {
                Item::Grant { grant, .. } => step.grants.push(grant),
                Item::Refusal { arrival, code } => step.refusals.push((arrival, code)),
            }
        }
    }
}
