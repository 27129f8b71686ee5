//! The referee judges idle room (A4): what fits, as far as the upstream sees.

use vorrang_scheduler::{LimitKind, Tokens};

use crate::{
    referee::{Referee, amount, token_kinds},
    scenario::{MS, WINDOW},
};

/// Millionths of a whole.
const WHOLE: u64 = 1_000_000;

/// What may hold all waiting tickets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Held {
    /// The reserve holds some of them.
    pub(crate) by_reserve: bool,
    /// Pacing holds some of them.
    pub(crate) by_pacing: bool,
}

impl Referee {
    /// A ticket of this cost fits now, as far as the upstream sees.
    pub(crate) fn room(
        &self,
        deployment: usize,
        now: u64,
        tokens: Tokens,
        granted: &[(usize, Tokens)],
    ) -> bool {
        self.part_free(deployment, now, tokens, granted, false)
    }

    /// The part of a limit that tickets may use which the reserve holds (`reserved`), or all of it.
    pub(crate) fn part(&self, limit: u64, reserved: bool) -> u64 {
        if reserved && limit > 0 {
            (limit * self.rules.left / WHOLE).max(1)
        } else {
            limit
        }
    }

    fn part_free(
        &self,
        deployment: usize,
        now: u64,
        tokens: Tokens,
        granted: &[(usize, Tokens)],
        reserved: bool,
    ) -> bool {
        let margin = 5 * MS + self.late;
        let counted = |length: u64| length + (length / 20).min(100 * MS) + margin;
        let of_window = |at: u64, length: u64| at + counted(length) > now;
        let granted: Vec<Tokens> = granted
            .iter()
            .filter(|(d, _)| *d == deployment)
            .map(|(_, tokens)| *tokens)
            .collect();
        let open = self.open.values().filter(|o| o.deployment == deployment);
        let busy = (open.count() + granted.len()) as u64;
        self.limits(deployment, LimitKind::Concurrency)
            .all(|(limit, _)| busy < self.part(limit, reserved))
            && self
                .limits(deployment, LimitKind::Requests)
                .all(|(limit, length)| {
                    let recent = self
                        .dispatches
                        .iter()
                        .rev()
                        .take_while(|d| of_window(d.at, length))
                        .filter(|d| d.deployment == deployment);
                    let undelivered = self
                        .undelivered
                        .values()
                        .filter(|at| of_window(**at, length));
                    ((recent.count() + undelivered.count() + granted.len()) as u64)
                        < self.part(limit, reserved)
                })
            && token_kinds().all(|kind| {
                let mut limits = self.limits(deployment, kind);
                limits.all(|(limit, length)| {
                    let excess = self.excess[deployment].iter();
                    let excess = excess.filter(|(at, _)| of_window(*at, length));
                    let more = excess.map(|(_, tokens)| tokens).chain(&granted);
                    let more: u64 = more.map(|tokens| amount(kind, *tokens)).sum();
                    let known = self.tokens(kind, deployment, now, counted(length));
                    known + more + amount(kind, tokens) <= self.part(limit, reserved)
                })
            })
    }

    /// A4 (no idle room): called at each sample. `waiting` is the largest cost of each kind on a reachable instance, `granted` are the grants that are about to
    /// be dispatched. A paced ticket may wait for two windows, because bursts of better tickets advance the pace. Not for groups whose deployments cool.
    pub(crate) fn judge_idle(
        &mut self,
        now: u64,
        waiting: Option<Tokens>,
        held: Held,
        granted: &[(usize, Tokens)],
        allowed: u64,
    ) {
        let free = |tokens| {
            (0..self.config.deployments.len())
                .any(|d| self.part_free(d, now, tokens, granted, held.by_reserve))
        };
        if !waiting.is_some_and(free) {
            self.idle_since = None;
            return;
        }
        let since = self.idle_since.filter(|(then, _)| *then == held);
        let (_, since) = *self.idle_since.insert(since.unwrap_or((held, now)));
        let idle = now - since;
        let allowed = allowed + if held.by_pacing { 2 * WINDOW } else { 0 };
        self.longest_idle = self.longest_idle.max(idle);
        if idle > allowed {
            self.violations.push(format!(
                "A4: room and a ticket for it since {}, at {now}",
                now - idle
            ));
            self.idle_since = Some((held, now));
        }
    }
}
