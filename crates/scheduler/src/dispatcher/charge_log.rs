//! The charge log: what an instance keeps in order to report it after a loss (P11, P12).

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    cost::{Cost, Tokens},
    message::{Answer, UsageSnapshot},
    units::{Micros, Seq},
};

/// A charge that may still count.
#[derive(Debug, Clone)]
pub(super) struct LoggedCharge {
    pub deployment: Arc<str>,
    pub tokens: Tokens,
    /// When the call was dispatched, on the local clock; if it was not dispatched before its session ended, the end of the session.
    pub at: Micros,
    /// Tokens above the reservation, and when they became known.
    pub excess: Option<(Tokens, Micros)>,
}

/// All that an instance knows beyond its session.
#[derive(Debug, Default)]
pub(super) struct ChargeLog {
    pub charges: BTreeMap<Seq, LoggedCharge>,
    /// Grants that returned unused, and when that was on the local clock. They are kept after the refund was confirmed too, because an older state may replace this one,
    /// and would count them for a window.
    pub refunds: BTreeMap<Seq, Micros>,
    /// By deployment, the end of its cooldown on the local clock, and its status.
    pub cooldowns: BTreeMap<Arc<str>, (Micros, u16)>,
    /// The instances with a session, sorted by name.
    pub peers: Vec<Arc<str>>,
    /// Departed instances, and when they departed, on the local clock.
    pub departed: Vec<(Arc<str>, Micros)>,
    /// The last usage snapshot, and when it was taken, on the local clock.
    pub usage: Option<(UsageSnapshot, Micros)>,
}

impl ChargeLog {
    /// What this instance's calls count in a window of this span.
    pub(super) fn sent_within(&self, deployment: &str, span: Micros, now: Micros) -> Cost {
        let of_it = self
            .charges
            .values()
            .filter(|d| &*d.deployment == deployment);
        let counts = |at: Micros| at + span > now;
        of_it.fold(Cost::default(), |mut sum, charge| {
            if counts(charge.at) {
                sum += Cost::call(charge.tokens);
            }
            if let Some((excess, _)) = charge.excess.filter(|(_, at)| counts(*at)) {
                sum += Cost::excess(excess);
            }
            sum
        })
    }

    /// Learns the cooldowns of an answer. `ids`: the deployments of the instance's rules.
    pub(super) fn learn_cooldowns(&mut self, now: Micros, answer: &Answer, ids: &[Arc<str>]) {
        for (id, used) in ids.iter().zip(&answer.used) {
            if used.cooling > Micros::ZERO {
                let known = self
                    .cooldowns
                    .entry(id.clone())
                    .or_insert((Micros::ZERO, 0));
                known.0 = known.0.max(now + used.cooling);
            }
        }
    }

    /// Learns what an answer says about the group. `ids`: the deployments of the instance's rules. `late`: it may be older than P13 allows for, and is no usage snapshot.
    pub(super) fn learn(&mut self, now: Micros, late: bool, answer: &Answer, ids: &[Arc<str>]) {
        if !answer.peers.is_empty() {
            self.peers.clone_from(&answer.peers);
            self.departed = answer
                .departed
                .iter()
                .map(|(name, age)| (name.clone(), now.saturating_sub(*age)))
                .collect();
        }
        self.learn_cooldowns(now, answer, ids);
        if answer.configurations > 1 {
            // Other instances may have deployments and windows that this one does not know.
            self.usage = None;
        } else if !answer.recovering && !late {
            let used = ids
                .iter()
                .zip(&answer.used)
                .map(|(id, used)| (id.clone(), used.cost))
                .collect();
            self.usage = Some((
                UsageSnapshot {
                    age: Micros::ZERO,
                    number: answer.seen,
                    used,
                },
                now,
            ));
        }
    }

    /// Drops all that can no longer count.
    pub(super) fn forget(&mut self, now: Micros, log_time: Micros) {
        let recent = |at: Micros| at + log_time > now;
        self.charges
            .retain(|_, d| recent(d.at) || d.excess.is_some_and(|(_, at)| recent(at)));
        self.refunds.retain(|_, at| recent(*at));
        self.cooldowns.retain(|_, (until, _)| *until > now);
        self.departed.retain(|(_, at)| recent(*at));
    }
}
