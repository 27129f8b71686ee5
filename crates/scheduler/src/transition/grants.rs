//! Grants: the head, a deployment with room, and when there will be room. `lua/grants.lua` has the same functions in the same order.

use super::{
    Grant, Item, Key, Kind, QueueEntry, State, Step,
    windows::{self, Charge, Demand, Dispatch},
};
use crate::{
    cost::{COUNTED, Cost},
    message::{HELD, MAX_GRANTS, MAX_WALK, NEVER_FITS, reason},
    mutation::{Part, without},
    rules::{DeploymentRules, NONE, PROBE_PACE, Rules, WHOLE},
    units::{Micros, Seq},
};

/// Statuses that waiting does not mend: a wrong key, no funds, no such model.
pub(crate) const HOPELESS: [u16; 3] = [401, 402, 404];

/// What happens to the head.
enum Choice {
    /// It is granted on the deployment of this index; true: as its probe.
    Grant(usize, bool),
    Wait,
    Refuse(u16),
}

/// Whether a deployment's health admits the head.
#[derive(PartialEq, Eq, Clone, Copy)]
enum Fitness {
    Healthy,
    /// It cools until then, because of this status.
    Cooling(Micros, u16),
    /// Its cooldown is over, and it may be probed.
    Due,
    /// A probe is open. Another one may follow then.
    Probing(Micros),
}

impl State {
    /// Grants or refuses heads until one has to wait (A1, A2, A4, A5).
    pub(super) fn grant_heads(&mut self, rules: &Rules, step: &mut Step) {
        let mut done = 0;
        while let Some(head) = self.head(rules, step) {
            if self.overrides.paused && !without(Part::P23Paused) {
                return;
            }
            let choice = self.choose(rules, head, step);
            if matches!(choice, Choice::Wait) {
                return;
            }
            if done == MAX_GRANTS && !without(Part::P16Grants) {
                step.more = true;
                return;
            }
            done += 1;
            self.leave(rules, head, matches!(choice, Choice::Grant(..)));
            match choice {
                Choice::Grant(index, probe) => {
                    self.make_grant(rules, head, &rules.deployments[index], probe, step)
                }
                Choice::Refuse(code) => self.refuse_ticket(head, code, step),
                Choice::Wait => {}
            }
        }
    }

    fn make_grant(
        &mut self,
        rules: &Rules,
        head: QueueEntry,
        deployment: &DeploymentRules,
        probe: bool,
        step: &mut Step,
    ) {
        let granted = self.draw_granted(step);
        let id = deployment.id.clone();
        let counted = !deployment.windows.is_empty();
        let mine = head.session == step.session;
        self.calls.add(head.session, granted, &id);
        if probe && let Some(health) = self.health.get_mut(&id) {
            (health.probe, health.probed) = (granted, self.clock);
        }
        if counted {
            let cost = Cost::call(head.tokens);
            let key = Key {
                kind: Kind::Grant,
                number: granted,
            };
            let charge = Charge {
                deployment: id.clone(),
                cost,
                at: self.clock,
                dispatch: if without(Part::P8OpenCharge) {
                    Dispatch::Reported
                } else {
                    Dispatch::Open
                },
            };
            self.windows.insert(rules, self.clock, key, charge);
            self.pace.advance(rules, deployment, self.clock, cost);
        }
        let grant = Grant {
            arrival: head.arrival,
            granted,
            deployment: id,
            counted,
            probe,
            score: head.score,
            start: if rules.fair {
                self.queue.fair.reported_start(rules, head.start)
            } else {
                0
            },
        };
        if mine {
            step.grants.push(grant);
            return;
        }
        let since = self.lease;
        self.revoke_at = self.revoke_at.min(since + rules.deliver_within());
        self.add_to_inbox(head.session, Item::Grant { grant, since }, step);
    }

    /// A9 (health): a probe that is open for longer than the deployment's cooldown time, at least a second, may be followed by another.
    fn fitness(&self, deployment: &DeploymentRules) -> Fitness {
        let Some(health) = self
            .health
            .get(&deployment.id)
            .filter(|h| h.until > Micros::ZERO)
        else {
            return Fitness::Healthy;
        };
        let patience = if health.paced {
            PROBE_PACE
        } else {
            deployment.probe_patience()
        };
        let next_probe = health.probed + patience;
        if health.until > self.clock && !without(Part::A9Cooldown) {
            Fitness::Cooling(health.until, health.status)
        } else if health.probe != Seq::NONE && next_probe > self.clock && !without(Part::A9OneProbe)
        {
            Fitness::Probing(next_probe)
        } else {
            Fitness::Due
        }
    }

    /// What the head needs, and what it may use of the limits. Pacing and the reserve do not hold it while better tickets wait behind it, as they can with aging (P18).
    fn demand_of(&self, rules: &Rules, head: QueueEntry) -> Demand {
        let lifted = |threshold: i32| {
            rules.aging > Micros::ZERO
                && self.queue.any_as_good(threshold)
                && !without(Part::P18Lifted)
        };
        let demand = Demand::of(rules, head.priority, head.tokens);
        Demand {
            left: if lifted(rules.reserve_priority) {
                WHOLE
            } else {
                demand.left
            },
            paced: demand.paced && !lifted(rules.pace_worse_than),
            ..demand
        }
    }

    fn slot_free(&self, deployment: &DeploymentRules, demand: Demand) -> bool {
        deployment.concurrency == NONE
            || without(Part::A2Slots)
            || self.calls.open(&deployment.id)
                < demand.part_of(deployment.concurrency).unsigned_abs()
    }

    fn window_free(&self, deployment: &DeploymentRules, demand: Demand) -> bool {
        deployment
            .windows
            .iter()
            .enumerate()
            .all(|(i, w)| windows::fits(w, self.windows.total(deployment, i), demand))
            || without(Part::A3Windows)
    }

    /// When pacing admits the head on this deployment; 0 if pacing does not hold it.
    fn pace_due(&self, rules: &Rules, deployment: &DeploymentRules, demand: Demand) -> Micros {
        if demand.paced && !without(Part::P18Pacing) {
            self.pace.due(rules, deployment, demand.tokens)
        } else {
            Micros::ZERO
        }
    }

    fn choose(&self, rules: &Rules, head: QueueEntry, step: &mut Step) -> Choice {
        if self.overrides.holds(head.key) && !without(Part::P23Held) {
            return Choice::Refuse(HELD);
        }
        let rules = self.limits_for(rules, head);
        let demand = self.demand_of(rules, head);
        let mut healthy = Vec::new();
        let mut due = None::<usize>;
        let order = |index: usize| rules.deployments[index].order;
        let mut hopeless = None;
        let mut hope = false;
        for (index, deployment) in rules.deployments.iter().enumerate() {
            if !self.knows(head.session, &deployment.id) {
                continue;
            }
            let fitness = self.fitness(deployment);
            match fitness {
                Fitness::Cooling(_, status) if HOPELESS.contains(&status) => {
                    hopeless = hopeless.or(Some(status))
                }
                _ => hope = true,
            }
            if matches!(fitness, Fitness::Healthy | Fitness::Due)
                && self.slot_free(deployment, demand)
                && self.window_free(deployment, demand)
                && self.pace_due(rules, deployment, demand) <= self.clock
            {
                match fitness {
                    Fitness::Healthy => healthy.push(index),
                    _ if due.is_none_or(|due| order(index) < order(due)) => due = Some(index),
                    _ => {}
                }
            }
        }
        // A retry prefers deployments that it has not tried, and takes a tried one rather than leave room idle (A8, A4).
        let untried = |index: &usize| !self.has_tried(head, &rules.deployments[*index].id);
        if healthy.iter().any(untried) {
            healthy.retain(untried);
        }
        if !without(Part::P22Order) {
            let least = healthy.iter().map(|index| order(*index)).min();
            healthy.retain(|index| Some(order(*index)) == least);
        }
        // Otherwise a deployment that has cooled once would get no call before the others are full.
        let returns = |due: &usize| {
            let as_good = healthy.first().is_some_and(|first| {
                order(*due) < order(*first)
                    || order(*due) == order(*first) && rules.deployments[*due].weight > 0
            });
            as_good && untried(due) && !without(Part::P22Returns)
        };
        if let Some(index) = due.filter(|due| returns(due) || without(Part::A9HealthyFirst)) {
            return Choice::Grant(index, true);
        }
        match (healthy.as_slice(), due, hopeless) {
            ([], Some(index), _) => Choice::Grant(index, true),
            ([], None, Some(status)) if !hope => Choice::Refuse(status),
            ([], None, _) if !self.ever_fits(rules, head) => Choice::Refuse(NEVER_FITS),
            ([], None, _) => Choice::Wait,
            ([index], ..) => Choice::Grant(*index, false),
            _ => Choice::Grant(self.pick(rules, healthy, step), false),
        }
    }

    /// The earliest time at which the head can be granted if nothing else happens; `None`: only an op can make room. It is exact unless more than [`MAX_WALK`] entries
    /// must expire before, or one of them is open: then it is a lower bound.
    pub(super) fn next_free(&self, rules: &Rules, head: QueueEntry) -> Option<Micros> {
        if self.overrides.paused || without(Part::A4NextFree) {
            return None;
        }
        let rules = self.limits_for(rules, head);
        let demand = self.demand_of(rules, head);
        let mut best = None::<Micros>;
        let mut blocked: Vec<(&DeploymentRules, Micros, Vec<Cost>)> = Vec::new();
        for deployment in &rules.deployments {
            let from = match self.fitness(deployment) {
                Fitness::Healthy | Fitness::Due => self.clock,
                Fitness::Cooling(until, _) | Fitness::Probing(until) => until,
            };
            if !self.slot_free(deployment, demand)
                || !windows::ever_fits(deployment, demand)
                || !self.knows(head.session, &deployment.id)
            {
                continue;
            }
            let from = from.max(self.pace_due(rules, deployment, demand));
            if self.window_free(deployment, demand) {
                best = Some(best.map_or(from, |b| b.min(from)));
            } else {
                let totals = (0..deployment.windows.len())
                    .map(|i| self.windows.total(deployment, i))
                    .collect();
                blocked.push((deployment, from, totals));
            }
        }
        for (walked, (at, charge, index)) in self.windows.expiries(rules).enumerate() {
            if blocked.is_empty() || best.is_some_and(|best| best <= at) {
                break;
            }
            if walked == MAX_WALK {
                best = Some(at);
                break;
            }
            let Some(found) = blocked.iter().position(|(d, ..)| d.id == charge.deployment) else {
                continue;
            };
            let (deployment, from, totals) = &mut blocked[found];
            let Some(index) = index else {
                // The entry is not recounted yet, so this is a lower bound.
                best = Some(best.map_or(at, |b| b.min(at)));
                break;
            };
            totals[index] -= charge.cost;
            if deployment
                .windows
                .iter()
                .zip(totals.iter())
                .all(|(w, total)| windows::fits(w, *total, demand))
            {
                let at = at.max(*from);
                best = Some(best.map_or(at, |b| b.min(at)));
                blocked.remove(found);
            }
        }
        best
    }

    /// Why the head waits: the reasons of all deployments that it could be granted on.
    pub(super) fn reasons(&self, rules: &Rules, head: QueueEntry) -> u64 {
        if self.overrides.paused {
            return reason::PAUSED;
        }
        let rules = self.limits_for(rules, head);
        let demand = self.demand_of(rules, head);
        let mut reasons = 0;
        for deployment in &rules.deployments {
            if !self.knows(head.session, &deployment.id) || !windows::ever_fits(deployment, demand)
            {
                continue;
            }
            let mut add = |reason: u64, holds: bool| reasons |= if holds { reason } else { 0 };
            let fitness = self.fitness(deployment);
            add(reason::COOLDOWN, matches!(fitness, Fitness::Cooling(..)));
            add(reason::PROBING, matches!(fitness, Fitness::Probing(_)));
            add(reason::CONCURRENCY, !self.slot_free(deployment, demand));
            for (i, window) in deployment.windows.iter().enumerate() {
                let total = self.windows.total(deployment, i);
                let fits = windows::fits_kinds(window, total, demand);
                for (kind, fits) in COUNTED.into_iter().zip(fits) {
                    add(reason::of_limit(kind), !fits);
                }
            }
            add(
                reason::PACING,
                self.pace_due(rules, deployment, demand) > self.clock,
            );
            let room =
                |demand| self.slot_free(deployment, demand) && self.window_free(deployment, demand);
            add(reason::RESERVE, room(demand.with_all()) && !room(demand));
        }
        reasons
    }
}
