//! The open-session message and its snapshot: what a session begins with (P12).

use std::sync::Arc;

use super::{
    charge_log::LoggedCharge,
    core::{Core, Pending, Permitted},
};
use crate::message::{Op, OpenSession, UsageSnapshot};
use crate::mutation::{Part, without};
use crate::units::{Micros, Seq};

impl Core {
    /// Replaces what was to be sent by the snapshot, in which all of that is folded in: charges first, so that no grant is made before they are known.
    pub(super) fn take_snapshot(&mut self, now: Micros) {
        self.memory.forget(now, self.remember_for());
        self.pending.clear();
        // P9: a call that was not dispatched in its session never will be. Until its permit is back it counts as if it had been.
        let undispatched = |permit: &&Permitted| permit.held.grant.counted && !permit.dispatched;
        for (granted, permit) in self
            .permits
            .iter()
            .filter(|(_, permit)| undispatched(permit))
        {
            self.memory.charges.insert(*granted, permit.charge(now));
        }
        let charges = self.memory.charges.iter();
        for (granted, charge) in charges.filter(|_| !without(Part::P12Charges)) {
            self.pending.push_back(Pending::Charge(*granted, false));
            if charge.excess.is_some() {
                self.pending.push_back(Pending::Charge(*granted, true));
            }
        }
        let permits = self.permits.iter();
        for (granted, permit) in permits.filter(|_| !without(Part::P12OpenCalls)) {
            let hold = Op::Hold {
                granted: *granted,
                deployment: permit.deployment().clone(),
                probe: permit.probing,
            };
            self.pending.push_back(Pending::Op(hold));
        }
        let cooldowns = self.memory.cooldowns.iter();
        for (deployment, (until, status)) in cooldowns.filter(|_| !without(Part::P12Cooldowns)) {
            let op = Op::Cool {
                deployment: deployment.clone(),
                left: until.saturating_sub(now),
                status: *status,
            };
            self.pending.push_back(Pending::Op(op));
        }
        let refunds = self.memory.refunds.keys();
        for granted in refunds.filter(|_| !without(Part::P12Refunds)) {
            self.pending
                .push_back(Pending::Op(Op::Unused { granted: *granted }));
        }
        let mut tickets: Vec<_> = self
            .tickets
            .iter()
            .map(|(id, t)| ((t.entry.claim.priority, t.order(), *id), *id))
            .collect();
        tickets.sort_unstable();
        self.pending
            .extend(tickets.into_iter().map(|(_, id)| Pending::Join(id)));
        self.snapshot_left = self.pending.len();
    }

    /// The open-session message itself, with ages as of now.
    pub(super) fn open_session(&mut self, now: Micros) -> OpenSession {
        self.open_session_number += 1;
        let own = self.fallback.as_ref();
        let aged = |at: Micros| now.saturating_sub(at);
        OpenSession {
            number: self.open_session_number,
            rules: own.map_or(&self.rules, |own| &own.rules).clone(),
            rules_version: if own.is_some() { 0 } else { self.rules_version },
            peers: self.memory.peers.clone(),
            departed: self
                .memory
                .departed
                .iter()
                .map(|(name, at)| (name.clone(), aged(*at)))
                .collect(),
            view: self
                .memory
                .view
                .iter()
                .map(|(view, at)| UsageSnapshot {
                    age: aged(*at),
                    ..view.clone()
                })
                .collect(),
        }
    }

    /// A logged charge with its age as of now; `None` if it has been given back since.
    pub(super) fn remembered(&self, now: Micros, granted: Seq, excess: bool) -> Option<Op> {
        let LoggedCharge {
            deployment,
            tokens,
            at,
            excess: above,
        } = self.memory.charges.get(&granted)?;
        let deployment: Arc<str> = deployment.clone();
        let (requests, tokens, at) = if excess {
            let (tokens, at) = (*above)?;
            (0, tokens, at)
        } else {
            (1, *tokens, *at)
        };
        Some(Op::Charge {
            granted,
            excess,
            deployment,
            requests,
            tokens,
            age: now.saturating_sub(at),
        })
    }
}
