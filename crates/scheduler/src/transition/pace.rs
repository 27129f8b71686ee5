//! Pacing (P18): a GCRA (generic cell rate algorithm) beside each window limit. All grants advance its time, and only paced tickets wait for it. `lua/pace.lua` has
//! the same functions in the same order.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    cost::{Cost, KINDS, Tokens},
    rules::{DeploymentRules, Rules, Window},
    units::Micros,
};

/// For each deployment and window, and each kind of limit: when the next unit would be due if all grants so far had been spread evenly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pace {
    due: BTreeMap<Arc<str>, Vec<[Micros; KINDS]>>,
}

/// By how much an amount advances the time of a limit: as long as it lasts at the limit's rate, at most the window. In doubles, as Lua computes it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the span"
)]
fn increment(window: &Window, limit: i64, amount: u64) -> Micros {
    if limit <= 0 {
        return Micros::ZERO;
    }
    let time = amount as f64 * window.span.0 as f64 / limit as f64;
    Micros(time.min(window.span.0 as f64).floor() as u64)
}

fn increments(window: &Window, cost: Cost) -> [Micros; KINDS] {
    let amounts = cost.amounts();
    std::array::from_fn(|k| increment(window, window.limits[k], amounts[k]))
}

impl Pace {
    /// Advances the times by a grant, or by tokens above a reservation.
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
            for (due, increment) in due.iter_mut().zip(increments(window, cost)) {
                // An amount beyond the limit holds no ticket longer than the window does.
                *due = ((*due).max(now) + increment).min(now + window.span);
            }
        }
    }

    /// Moves the times back by a grant that was not used, or not all of it.
    pub(super) fn refund(&mut self, rules: &Rules, deployment: &str, cost: Cost) {
        let of = rules.deployments.iter().find(|d| &*d.id == deployment);
        let (Some(due), Some(of), true) = (self.due.get_mut(deployment), of, rules.paces()) else {
            return;
        };
        for (due, window) in due.iter_mut().zip(&of.windows) {
            for (due, increment) in due.iter_mut().zip(increments(window, cost)) {
                *due = due.saturating_sub(increment);
            }
        }
    }

    /// When a paced ticket of so many tokens may be granted. Its own cost is its tolerance.
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
                let own = increments(window, Cost::call(tokens));
                due.iter()
                    .zip(own)
                    .map(|(due, increment)| due.saturating_sub(increment))
            });
        times.max().unwrap_or(Micros::ZERO)
    }
}
