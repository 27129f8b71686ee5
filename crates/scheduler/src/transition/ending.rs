//! Ends of sessions (P7), and grants that are not delivered in time (P10). Calls and grants of ended sessions are settled in parts (P16). `lua/ending.lua` has the
//! same functions in the same order.

use super::{Item, State, Step, windows::Dispatch};
use crate::{
    message::MAX_SETTLED,
    mutation::{Part, without},
    rules::Rules,
    units::{Micros, SessionId},
};

/// A session whose calls or grants are not settled yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leftover {
    session: SessionId,
    /// When the session ended, on the group clock; `None`: it is unresponsive, and only its undelivered grants are revoked.
    ended: Option<Micros>,
}

impl State {
    /// Refunds undelivered grants of a session, at most `most`. Returns how many grants and refusals it removed.
    fn refund_inbox(&mut self, rules: &Rules, id: SessionId, most: usize) -> usize {
        let Some(items) = self.inbox.get_mut(&id) else {
            return 0;
        };
        let removed: Vec<Item> = items.drain(..most.min(items.len())).collect();
        if items.is_empty() {
            self.inbox.remove(&id);
        }
        for item in &removed {
            if let Item::Grant { grant, .. } = item {
                self.release(id, grant.granted, &grant.deployment);
                self.refund(rules, grant.granted);
            }
        }
        removed.len()
    }

    /// Releases open calls of an ended session, at most `most`, and returns how many. P8 (dispatch report): unreported dispatches were made before the session's end,
    /// or never will be (P9).
    fn release_calls(&mut self, rules: &Rules, id: SessionId, ended: Micros, most: usize) -> usize {
        let calls = self.calls.first_of(id, most);
        for (granted, deployment) in &calls {
            if !without(Part::P8SessionEnd) {
                self.dispatched(rules, *granted, ended, Dispatch::Assumed);
            }
            self.release(id, *granted, deployment);
        }
        calls.len()
    }

    /// Settles calls and grants of ended sessions, at most [`MAX_SETTLED`] in one step (P16). Until then a call counts as open and its charge stays: too much rather
    /// than too little.
    pub(super) fn settle_leftovers(&mut self, rules: &Rules, step: &mut Step) {
        while let Some(Leftover { session, ended }) = self.leftovers.front().cloned() {
            let room = MAX_SETTLED - step.settled;
            step.settled += self.refund_inbox(rules, session, room);
            if let Some(ended) = ended {
                let room = MAX_SETTLED - step.settled;
                step.settled += self.release_calls(rules, session, ended, room);
            }
            if step.settled == MAX_SETTLED {
                break;
            }
            self.leftovers.pop_front();
        }
        step.more |= !self.leftovers.is_empty();
    }

    /// Forgets instances that departed longer ago than the charge log reaches back.
    fn forget_departed(&mut self, rules: &Rules) {
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

    /// Ends a session: its queue entries are orphaned. [`Self::settle_leftovers`] refunds its undelivered grants and releases its open calls.
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
            self.forget_departed(rules);
        }
    }

    /// The sender closes its session. `clean`: no charge of the sender counts any more (P11).
    pub(super) fn close_session(
        &mut self,
        rules: &Rules,
        instance: &str,
        clean: bool,
        step: &mut Step,
    ) {
        self.end_session(rules, step.session, !clean);
        self.settle_leftovers(rules, step);
        if clean {
            self.instances.remove(instance);
        }
    }

    /// P7 (lease clock): ends the sessions that have sent nothing for too long.
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

    /// P10 (delivery deadline): revokes grants that were not delivered in time. Their session is unresponsive then.
    pub(super) fn revoke_undelivered(&mut self, rules: &Rules, step: &Step) {
        if self.lease <= self.revoke_at || without(Part::P10Revoked) {
            return;
        }
        let within = rules.deliver_within();
        // Grants of a session that is unresponsive or has ended are revoked already.
        let pending: Vec<(SessionId, Micros)> = self
            .inbox
            .iter()
            .filter(|(id, _)| self.sessions.get(id).is_some_and(|s| !s.unresponsive))
            .filter_map(|(id, items)| Some((*id, oldest(items)?)))
            .collect();
        self.revoke_at = Micros::MAX;
        for (id, since) in pending {
            if id == step.session || since + within >= self.lease {
                self.revoke_at = self.revoke_at.min(since + within);
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

/// When the oldest of the undelivered grants was made, on the lease clock.
fn oldest(items: &[Item]) -> Option<Micros> {
    let since = items.iter().filter_map(|item| match item {
        Item::Grant { since, .. } => Some(*since),
        Item::Refusal { .. } => None,
    });
    since.min()
}
