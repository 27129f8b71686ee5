//! The opening of a session and its snapshot (P12).

use std::sync::Arc;

use super::{
    charge_log::LoggedCharge,
    core::{Core, Pending, Permitted},
};
use crate::message::{Op, OpenSession, UsageSnapshot};
use crate::mutation::{Part, without};
use crate::units::{Micros, Seq};

impl Core {
    /// Replaces the pending ops by a snapshot, which contains them. Charges come first, so that no grant is made before they are known.
    pub(super) fn take_snapshot(&mut self, now: Micros) {
        self.charge_log.forget(now, self.log_time());
        self.pending.clear();
        // P9 (dispatch within the session): a call that was not dispatched in its session never will be. Until its permit returns it counts as dispatched.
        let undispatched = |permit: &&Permitted| permit.held.grant.counted && !permit.dispatched;
        for (granted, permit) in self
            .permits
            .iter()
            .filter(|(_, permit)| undispatched(permit))
        {
            self.charge_log.charges.insert(*granted, permit.charge(now));
        }
        // They come first: what is charged for unaccounted instances goes by the limits in force.
        if self.overrides.version > Seq::NONE && !without(Part::P23Reported) {
            let mut overrides = self.overrides.clone();
            if self.in_fallback() {
                // The parts of the limits are by them already.
                overrides.limits.clear();
            }
            self.pending
                .push_back(Pending::Op(Op::Overrides(overrides)));
        }
        let charges = self.charge_log.charges.iter();
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
        let cooldowns = self.charge_log.cooldowns.iter();
        for (deployment, (until, status)) in cooldowns.filter(|_| !without(Part::P12Cooldowns)) {
            let op = Op::Cool {
                deployment: deployment.clone(),
                left: until.saturating_sub(now),
                status: *status,
            };
            self.pending.push_back(Pending::Op(op));
        }
        let refunds = self.charge_log.refunds.keys();
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

    /// The opening of a session, with ages as of now.
    pub(super) fn open_session(&mut self, now: Micros) -> OpenSession {
        self.open_session_number += 1;
        let own = self.fallback.as_ref();
        let aged = |at: Micros| now.saturating_sub(at);
        OpenSession {
            number: self.open_session_number,
            rules: own.map_or(&self.rules, |own| &own.rules).clone(),
            rules_version: if own.is_some() { 0 } else { self.rules_version },
            peers: self.charge_log.peers.clone(),
            departed: self
                .charge_log
                .departed
                .iter()
                .map(|(name, at)| (name.clone(), aged(*at)))
                .collect(),
            view: self
                .charge_log
                .usage
                .iter()
                .map(|(usage, at)| UsageSnapshot {
                    age: aged(*at),
                    ..usage.clone()
                })
                .collect(),
        }
    }

    /// A charge of the log with its age as of now; `None` if it was refunded since.
    pub(super) fn logged_charge(&self, now: Micros, granted: Seq, excess: bool) -> Option<Op> {
        let LoggedCharge {
            deployment,
            tokens,
            at,
            excess: above,
        } = self.charge_log.charges.get(&granted)?;
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
