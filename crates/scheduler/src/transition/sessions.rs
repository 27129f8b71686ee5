//! Sessions: which messages are executed (P1).

use std::sync::Arc;

use super::{Environment, Item, State, Step};
use crate::{
    message::{Answer, Message, Verdict},
    mutation::{Part, without},
    units::{Micros, Seq, SessionId},
};

/// What an instance has in a group from its open-session message until it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub instance: Arc<str>,
    pub batch: u64,
    /// On the lease clock.
    pub seen: Micros,
    /// The same instance's session before, or 0.
    pub former: SessionId,
    /// A grant was not delivered in time: its entries count no more, its next step is answered SessionInvalid (P10).
    pub unresponsive: bool,
    pub peers_reported: u64,
    /// Its configuration, one or more sessions have the same.
    pub configuration: Seq,
    /// Deployments that its rules name.
    pub deployments: Vec<Arc<str>>,
    /// The answer to `batch`, for when it comes again.
    pub answer: Option<Box<Answer>>,
}

/// What is kept of an instance beyond its session: guards against its own late open-session messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub open_session: u64,
    pub session: SessionId,
}

/// Whether a message is executed.
pub(super) enum Admission {
    Open(SessionId),
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
            if self.was_lost_since(&message.epoch) && !without(Part::P1UnknownEpoch) {
                self.recover(environment, step);
            }
            return Admission::Refused(Verdict::SessionInvalid);
        }
        let Some(open_session) = message.open_session.first() else {
            let Some(session) = self.sessions.get(&message.session) else {
                return Admission::Refused(Verdict::SessionInvalid);
            };
            if message.batch == session.batch {
                return self.replay(message.session);
            }
            if message.batch < session.batch {
                return Admission::Refused(Verdict::Stale);
            }
            if session.unresponsive {
                return Admission::Refused(Verdict::SessionInvalid);
            }
            if message.batch > session.batch + 1 && !without(Part::P1Gap) {
                // Steps that were answered are missing here: the group lost state (P3).
                self.recover(environment, step);
                return Admission::Refused(Verdict::SessionInvalid);
            }
            if let Some(session) = self.sessions.get_mut(&message.session) {
                session.batch = message.batch;
                session.seen = self.lease;
            }
            return Admission::Open(message.session);
        };
        let known = self.instances.get(&message.instance).cloned();
        if let Some(known) = &known {
            let same = self
                .sessions
                .get(&known.session)
                .is_some_and(|s| s.batch == message.batch);
            if open_session.number == known.open_session && same {
                return self.replay(known.session);
            }
            if open_session.number <= known.open_session {
                return Admission::Refused(Verdict::Stale);
            }
            if let Some(rules) = self.rules().cloned()
                && !without(Part::P1EndsFormer)
            {
                self.end_session(&rules, known.session, false);
                self.settle_leftovers(&rules, step);
            }
        }
        let former = known.map_or(SessionId::NONE, |known| known.session);
        let id = SessionId(self.draw().0);
        self.instances.insert(
            message.instance.clone(),
            Known {
                open_session: open_session.number,
                session: id,
            },
        );
        self.departed.remove(&message.instance);
        self.peers_version += 1;
        let configuration = self.learn_rules(&open_session.rules, open_session.rules_version);
        self.configurations.unsettled = true;
        self.reap_at = self
            .reap_at
            .min(self.lease + open_session.rules.reap_after());
        self.sessions.insert(
            id,
            Session {
                instance: message.instance.clone(),
                batch: message.batch,
                seen: self.lease,
                former,
                unresponsive: false,
                peers_reported: 0,
                configuration,
                deployments: open_session
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
    fn replay(&mut self, id: SessionId) -> Admission {
        let lease = self.lease;
        let Some(session) = self.sessions.get_mut(&id) else {
            return Admission::Refused(Verdict::SessionInvalid);
        };
        if without(Part::P1NoSignOfLife) {
            session.seen = lease;
        }
        if without(Part::P1Replay) {
            return Admission::Refused(Verdict::SessionInvalid);
        }
        let Some(answer) = session.answer.clone() else {
            return Admission::Refused(Verdict::SessionInvalid);
        };
        Admission::Replay(answer)
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
