//! Pacing: a GCRA beside each window limit. All grants advance its time; only tickets that are paced wait for it.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    cost::{Cost, KINDS, Tokens},
    rules::{DeploymentRules, Rules, Window},
    units::Micros,
};

/// For each deployment and window, and each kind of limit: when the next unit would be due if everything granted so far had been spread evenly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pace {
    due: BTreeMap<Arc<str>, Vec<[Micros; KINDS]>>,
}

/// For how long so many are enough at a limit's rate, at most its window: in doubles, as Lua computes it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the span"
)]
fn worth(window: &Window, limit: i64, amount: u64) -> Micros {
    if limit <= 0 {
        return Micros::ZERO;
    }
    let time = amount as f64 * window.span.0 as f64 / limit as f64;
    Micros(time.min(window.span.0 as f64).floor() as u64)
}

fn rates(window: &Window, cost: Cost) -> [Micros; KINDS] {
    let amounts = cost.amounts();
    std::array::from_fn(|k| worth(window, window.limits[k], amounts[k]))
}

impl Pace {
    /// Something was granted, or used above its reservation.
    pub(super) fn advance(
        &mut self,
        rules: &Rules,
        deployment: &DeploymentRules,
        now: Micros,
        cost: Cost,
    ) {
        if !rules.paces() {
            return;
        }
        let due = self.due.entry(deployment.id.clone()).or_default();
        due.resize(
            due.len().max(deployment.windows.len()),
            [Micros::ZERO; KINDS],
        );
        for (due, window) in due.iter_mut().zip(&deployment.windows) {
            for (due, worth) in due.iter_mut().zip(rates(window, cost)) {
                // What is used beyond a limit holds nobody longer than its window does.
                *due = ((*due).max(now) + worth).min(now + window.span);
            }
        }
    }

    /// A grant was not used, or not all of it.
    pub(super) fn take_back(&mut self, rules: &Rules, deployment: &str, cost: Cost) {
        let of = rules.deployments.iter().find(|d| &*d.id == deployment);
        let (Some(due), Some(of), true) = (self.due.get_mut(deployment), of, rules.paces()) else {
            return;
        };
        for (due, window) in due.iter_mut().zip(&of.windows) {
            for (due, worth) in due.iter_mut().zip(rates(window, cost)) {
                *due = due.saturating_sub(worth);
            }
        }
    }

    /// When a paced ticket of so many tokens may go: what it is worth itself is its tolerance.
    pub(super) fn due(
        &self,
        rules: &Rules,
        deployment: &DeploymentRules,
        tokens: Tokens,
    ) -> Micros {
        if !rules.paces() {
            return Micros::ZERO;
        }
        let due = self.due.get(&deployment.id).map_or(&[][..], |d| d);
        let times = due
            .iter()
            .zip(&deployment.windows)
            .flat_map(|(due, window)| {
                let rates = rates(window, Cost::call(tokens));
                due.iter()
                    .zip(rates)
                    .map(|(due, worth)| due.saturating_sub(worth))
            });
        times.max().unwrap_or(Micros::ZERO)
    }
}
