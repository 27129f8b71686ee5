//! What an instance remembers, so that a group that lost its state can be told (P11, P12).

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    cost::{Cost, Tokens},
    message::{Answer, UsageSnapshot},
    units::{Micros, Seq},
};

/// A charge of the last window.
#[derive(Debug, Clone)]
pub(super) struct LoggedCharge {
    pub deployment: Arc<str>,
    pub tokens: Tokens,
    /// When the call was dispatched, on the local clock; for one that was not when its session ended, that time.
    pub at: Micros,
    /// Tokens used above the reservation, and when that became known.
    pub excess: Option<(Tokens, Micros)>,
}

/// Everything that outlives a session.
#[derive(Debug, Default)]
pub(super) struct ChargeLog {
    pub charges: BTreeMap<Seq, LoggedCharge>,
    /// Grants given back unused, and when that was on the local clock. Also those whose refund was confirmed: an older state may come back that
    /// does not know of it, and would count them for a window.
    pub refunds: BTreeMap<Seq, Micros>,
    /// Deployment, until when on the local clock, status.
    pub cooldowns: BTreeMap<Arc<str>, (Micros, u16)>,
    /// Sorted by name.
    pub peers: Vec<Arc<str>>,
    /// When they died, on the local clock.
    pub departed: Vec<(Arc<str>, Micros)>,
    /// What was used when last looked, and when that was on the local clock.
    pub view: Option<(UsageSnapshot, Micros)>,
}

impl ChargeLog {
    /// What of this instance's calls counts in a window of this span.
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

    /// Takes what an answer says about cooldowns. `ids`: the deployments of the own rules.
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

    /// Takes what an answer says about the group. `ids`: the deployments of the own rules. `late`: it may be older than P13 allows for, and is no usage snapshot.
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
            // Others have deployments, and windows, that this instance does not know.
            self.view = None;
        } else if !answer.recovering && !late {
            let used = ids
                .iter()
                .zip(&answer.used)
                .map(|(id, used)| (id.clone(), used.cost))
                .collect();
            self.view = Some((
                UsageSnapshot {
                    age: Micros::ZERO,
                    number: answer.seen,
                    used,
                },
                now,
            ));
        }
    }

    /// Forgets what is older than anything that counts.
    pub(super) fn forget(&mut self, now: Micros, memory: Micros) {
        let recent = |at: Micros| at + memory > now;
        self.charges
            .retain(|_, d| recent(d.at) || d.excess.is_some_and(|(_, at)| recent(at)));
        self.refunds.retain(|_, at| recent(*at));
        self.cooldowns.retain(|_, (until, _)| *until > now);
        self.departed.retain(|(_, at)| recent(*at));
    }
}
