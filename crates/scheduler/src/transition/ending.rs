//! Ends of sessions, and grants that are not delivered in time (P7, P10). What is left behind is settled in parts (P16).

use super::{Health, Item, State, Step, windows::Dispatch};
use crate::{
    message::MAX_SETTLED,
    mutation::{Part, without},
    rules::Rules,
    units::{Micros, Seq, SessionId},
};

/// A session that has left something to settle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leftover {
    session: SessionId,
    /// When the session ended, on the group clock; `None`: it has not, and only its undelivered grants are taken back.
    ended: Option<Micros>,
}

impl State {
    /// Ends a session: its queue entries count no more; its undelivered grants are refunded and its open calls released by
    /// [`Self::settle_leftovers`].
    pub(super) fn end_session(&mut self, rules: &Rules, id: SessionId, departed: bool) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.peers_version += 1;
        self.configurations.unsettled = true;
        self.leftovers.push_back(Leftover {
            session: id,
            ended: Some(self.clock),
        });
        self.orphans += self.waiting.remove(&id).unwrap_or(0);
        if departed {
            self.departed.insert(session.instance, self.clock);
            self.forget(rules);
        }
    }

    /// Forgets instances that have been gone for longer than anything is remembered.
    fn forget(&mut self, rules: &Rules) {
        let (clock, memory) = (self.clock, rules.memory);
        let instances = &mut self.instances;
        self.departed.retain(|name, at| {
            let keep = *at + memory > clock;
            if !keep {
                instances.remove(name);
            }
            keep
        });
    }

    /// Settles a part of what sessions left behind, at most [`MAX_SETTLED`] grants and calls in one step. Until then a call counts as open, and its charge
    /// stays: rather too much than too little.
    pub(super) fn settle_leftovers(&mut self, rules: &Rules, step: &mut Step) {
        while let Some(Leftover { session, ended }) = self.leftovers.front().cloned() {
            let room = MAX_SETTLED - step.settled;
            step.settled += self.refund_inbox(rules, session, room);
            let room = MAX_SETTLED - step.settled;
            let calls = match ended {
                Some(_) => self.calls.first_of(session, room),
                None => Vec::new(),
            };
            step.settled += calls.len();
            for (granted, deployment) in calls {
                // P8: what was not reported was dispatched by the end of the session, or never will be (P9).
                let at = ended.unwrap_or(self.clock);
                if !without(Part::P8SessionEnd) {
                    self.dispatched(rules, granted, at, Dispatch::Assumed);
                }
                self.release(session, granted, &deployment);
            }
            if step.settled == MAX_SETTLED {
                break;
            }
            self.leftovers.pop_front();
        }
        step.more |= !self.leftovers.is_empty();
    }

    /// Takes back grants that were not delivered to a session, at most `most`. Returns how many items that were.
    fn refund_inbox(&mut self, rules: &Rules, id: SessionId, most: usize) -> usize {
        let Some(items) = self.inbox.get_mut(&id) else {
            return 0;
        };
        let taken: Vec<Item> = items.drain(..most.min(items.len())).collect();
        if items.is_empty() {
            self.inbox.remove(&id);
        }
        for item in &taken {
            if let Item::Grant { grant, .. } = item {
                self.release(id, grant.granted, &grant.deployment);
                self.refund(rules, grant.granted);
            }
        }
        taken.len()
    }

    /// Gives a permit's concurrency back, and the probe if it was one.
    pub(super) fn release(
        &mut self,
        session: SessionId,
        granted: Seq,
        deployment: &std::sync::Arc<str>,
    ) {
        if self.calls.remove(session, granted, deployment)
            && let Some(Health { probe, .. }) = self.health.get_mut(deployment)
            && *probe == granted
        {
            *probe = Seq::NONE;
        }
    }

    /// P7: ends the sessions of instances unresponsive for too long.
    pub(super) fn reap(&mut self, rules: &Rules, step: &Step) {
        if self.lease <= self.reap_at || without(Part::P7Unresponsive) {
            return;
        }
        let after = rules.reap_after();
        let dead: Vec<SessionId> = self
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
            .unwrap_or(Micros::MAX);
    }

    /// P10: takes grants back that were not delivered in time, and believes their owner no more.
    pub(super) fn take_back(&mut self, rules: &Rules, step: &Step) {
        if self.lease <= self.take_back_at || without(Part::P10TakenBack) {
            return;
        }
        let within = rules.deliver_within();
        // Of a session that is believed no more, or has ended, they are taken back already.
        let pending: Vec<(SessionId, Micros)> = self
            .inbox
            .iter()
            .filter(|(id, _)| self.sessions.get(id).is_some_and(|s| !s.unresponsive))
            .filter_map(|(id, items)| Some((*id, oldest(items)?)))
            .collect();
        self.take_back_at = Micros::MAX;
        for (id, since) in pending {
            if id == step.session || since + within >= self.lease {
                self.take_back_at = self.take_back_at.min(since + within);
                continue;
            }
            if let Some(session) = self.sessions.get_mut(&id) {
                session.unresponsive = true;
            }
            self.orphans += self.waiting.remove(&id).unwrap_or(0);
            self.leftovers.push_back(Leftover {
                session: id,
                ended: None,
            });
        }
    }
}

/// Since when the oldest of the undelivered grants waits, on the lease clock.
fn oldest(items: &[Item]) -> Option<Micros> {
    let since = items.iter().filter_map(|item| match item {
        Item::Grant { since, .. } => Some(*since),
        Item::Refusal { .. } => None,
    });
    since.min()
}
