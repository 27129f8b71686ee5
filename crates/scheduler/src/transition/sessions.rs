//! Sessions: which messages are executed (P1), and what sessions hold. `lua/sessions.lua` has the same functions in the same order.

use std::sync::Arc;

use super::{Environment, Health, Item, State, Step};
use crate::{
    message::{Answer, Message, OpenSession, Verdict},
    mutation::{Part, without},
    units::{Micros, Seq, SessionId},
};

/// A session of an instance in the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub instance: Arc<str>,
    pub batch: u64,
    /// When its last message was executed, on the lease clock.
    pub seen: Micros,
    /// The former session of the instance, or 0.
    pub former: SessionId,
    /// A grant was not delivered in time: its queue entries are orphaned, and the reply to its next step is `SessionInvalid` (P10).
    pub unresponsive: bool,
    pub peers_reported: u64,
    /// The version of the overrides that its instance has (P23).
    pub overrides_reported: Seq,
    /// The id of its configuration.
    pub configuration: Seq,
    /// Deployments that its rules name.
    pub deployments: Vec<Arc<str>>,
    /// The answer to `batch`, for a retransmission.
    pub answer: Option<Box<Answer>>,
}

/// What is kept of an instance beyond its session: late openings of its sessions are recognised by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InstanceRecord {
    /// The number of its last opening.
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
    /// P20 (roll-outs): whether a session's instance knows a deployment.
    pub(super) fn knows(&self, session: SessionId, deployment: &str) -> bool {
        let names = |id: &Arc<str>| **id == *deployment || without(Part::P20Known);
        self.sessions
            .get(&session)
            .is_some_and(|s| self.configurations.len() == 1 || s.deployments.iter().any(names))
    }

    /// Frees the slot of an open call, and the probe if it was one.
    pub(super) fn release(&mut self, session: SessionId, granted: Seq, deployment: &Arc<str>) {
        if self.calls.remove(session, granted, deployment)
            && let Some(Health { probe, .. }) = self.health.get_mut(deployment)
            && *probe == granted
        {
            *probe = Seq::NONE;
        }
    }

    /// Puts a grant or a refusal into the inbox of a session, and wakes its owner.
    pub(super) fn add_to_inbox(&mut self, session: SessionId, item: Item, step: &mut Step) {
        let wakes = !matches!(item, Item::Grant { .. }) || !without(Part::P15GrantOwner);
        self.inbox.entry(session).or_default().push(item);
        if let Some(owner) = self.sessions.get(&session).filter(|_| wakes) {
            step.wakes.insert(owner.instance.clone());
        }
    }

    /// P1 (sessions and replays): the cached answer again. A retransmission does not extend the session: otherwise an instance that receives no
    /// replies would keep its grants as long as it sends (A6).
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

    /// P1 (sessions and replays): the table of the rule.
    pub(super) fn admit(
        &mut self,
        environment: &Environment,
        message: &Message,
        step: &mut Step,
    ) -> Admission {
        if message.epoch != self.epoch {
            if self.was_lost_since(&message.epoch) && !without(Part::P1UnknownEpoch) {
                self.begin_recovery(environment, step);
            }
            return Admission::Refused(Verdict::SessionInvalid);
        }
        if let Some(open_session) = message.open_session.first() {
            return self.admit_opening(message, open_session, step);
        }
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
            // A batch gap: this state lacks steps that were answered, so the group lost state (P3).
            self.begin_recovery(environment, step);
            return Admission::Refused(Verdict::SessionInvalid);
        }
        if let Some(session) = self.sessions.get_mut(&message.session) {
            session.batch = message.batch;
            session.seen = self.lease;
        }
        Admission::Open(message.session)
    }

    /// Delivers what the steps of other instances put into the sender's inbox.
    pub(super) fn deliver_inbox(&mut self, step: &mut Step) {
        for item in self.inbox.remove(&step.session).unwrap_or_default() {
            match item {
                Item::Grant { grant, .. } => step.grants.push(grant),
                Item::Refusal { arrival, code } => step.refusals.push((arrival, code)),
            }
        }
    }

    fn admit_opening(
        &mut self,
        message: &Message,
        open_session: &OpenSession,
        step: &mut Step,
    ) -> Admission {
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
            InstanceRecord {
                open_session: open_session.number,
                session: id,
            },
        );
        self.departed.remove(&message.instance);
        self.peers_version += 1;
        let configuration =
            self.learn_configuration(&open_session.rules, open_session.rules_version);
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
                overrides_reported: Seq::NONE,
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
}
