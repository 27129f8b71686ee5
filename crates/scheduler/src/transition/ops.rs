//! The ops of a message: what happened on its sender's side.

use super::{Cost, Flight, Health, Item, Key, Kind, MAX_DROPS, Place, State, Step, fair, windows};
use crate::{
    claim::{Claim, Share},
    message::{Message, NEVER_FITS, Op, QUEUE_FULL},
    rules::{DeploymentRules, Rules},
};

/// Failures are counted over this long.
const FAIL_WINDOW: u64 = 60_000_000;

impl State {
    /// Executes the ops in order.
    pub(super) fn apply(&mut self, rules: &Rules, message: &Message, step: &mut Step) {
        for op in &message.ops {
            match op {
                Op::Join {
                    claim,
                    arrival,
                    start,
                } => self.join(rules, *claim, *arrival, *start, step),
                Op::Leave {
                    claim,
                    arrival,
                    start,
                } => self.leave(place(rules, step, claim, *arrival, *start)),
                Op::Done {
                    granted,
                    deployment,
                    tokens,
                    excess,
                } => {
                    self.release(*granted, step.session);
                    if let Ok(tokens) = u64::try_from(*tokens) {
                        let key = Key {
                            kind: Kind::Grant,
                            number: *granted,
                        };
                        if let Some((of, less)) = self.windows.shrink(rules, key, tokens) {
                            self.pace.take_back(rules, &of, less);
                        }
                    }
                    if let Some(of) = counted(rules, deployment).filter(|_| *excess > 0) {
                        let key = Key {
                            kind: Kind::Excess,
                            number: *granted,
                        };
                        let cost = Cost {
                            requests: 0,
                            tokens: *excess,
                        };
                        self.pace.advance(rules, of, self.clock, cost);
                        self.windows.insert(
                            rules,
                            self.clock,
                            key,
                            deployment,
                            cost,
                            Some(self.clock),
                        );
                    }
                }
                Op::Unused { granted } => {
                    self.release(*granted, step.session);
                    self.refund(rules, *granted);
                }
                Op::Report {
                    granted,
                    deployment,
                    ok,
                    status,
                    cool,
                } => {
                    if *ok {
                        if self
                            .health
                            .get(deployment)
                            .is_some_and(|h| h.probe == *granted)
                        {
                            self.health.remove(deployment);
                        }
                    } else {
                        let health = self.health.entry(deployment.clone()).or_default();
                        health.fail(rules, self.clock, *granted, *status, *cool);
                    }
                }
                Op::Hold {
                    granted,
                    deployment,
                    probe,
                } => {
                    let flight = Flight {
                        session: step.session,
                        deployment: deployment.clone(),
                    };
                    // A number that a snapshot names was drawn (P5): it never comes again.
                    self.last = self.last.max(*granted);
                    let former = self.inflight.insert(*granted, flight);
                    if let Some(open) = former.and_then(|f| self.open.get_mut(&f.deployment)) {
                        *open -= 1;
                    }
                    *self.open.entry(deployment.clone()).or_default() += 1;
                    if let Some(health) = self
                        .health
                        .get_mut(deployment)
                        .filter(|h| *probe && h.probe == 0)
                    {
                        health.probe = *granted;
                    }
                }
                Op::Remember {
                    granted,
                    excess,
                    deployment,
                    requests,
                    tokens,
                    age,
                } => {
                    self.last = self.last.max(*granted);
                    if counted(rules, deployment).is_some() {
                        let kind = if *excess { Kind::Excess } else { Kind::Grant };
                        let key = Key {
                            kind,
                            number: *granted,
                        };
                        let told = self.clock.saturating_sub(*age);
                        let stamp = self
                            .windows
                            .get(key)
                            .and_then(|e| e.stamp)
                            .map_or(told, |at| at.max(told));
                        let cost = Cost {
                            requests: *requests,
                            tokens: *tokens,
                        };
                        self.windows.insert(
                            rules,
                            self.expired_until(),
                            key,
                            deployment,
                            cost,
                            Some(stamp),
                        );
                    }
                }
                Op::Cool {
                    deployment,
                    left,
                    status,
                } => {
                    let until = self.clock + left;
                    let health = self.health.entry(deployment.clone()).or_default();
                    if until > health.until {
                        // Who learnt of a cooldown from an answer does not know its status.
                        let unknown = *status == 0 && health.until > self.clock;
                        let status = if unknown { health.status } else { *status };
                        (health.until, health.status) = (until, status);
                    } else if health.status == 0 && health.until > self.clock {
                        health.status = *status;
                    }
                }
                Op::Bye { .. } => {}
            }
        }
    }

    /// For each ticket that comes new, how many were surely before it when the step began; 0 for one that comes again.
    pub(super) fn ahead(&self, rules: &Rules, message: &Message) -> Vec<u64> {
        let leaving = message
            .ops
            .iter()
            .filter(|op| matches!(op, Op::Leave { .. }))
            .count() as u64;
        let surely = |claim: &Claim| {
            let Claim {
                priority, share, ..
            } = *claim;
            // Those that come now get higher numbers. With fair shares they may come between, but for their own tenant's.
            let (better, own) = if rules.fair && rules.aging == 0 {
                let own = self.queue.fair.waiting(priority, share.tenant);
                (i64::from(priority) - 1, own)
            } else {
                (rules.score(priority, self.last), 0)
            };
            (self.queue.at_least(better) + own).saturating_sub(self.ghosts + leaving)
        };
        let joins = message.ops.iter().filter_map(|op| match op {
            Op::Join { claim, arrival, .. } => Some(if *arrival == 0 { surely(claim) } else { 0 }),
            _ => None,
        });
        joins.collect()
    }

    fn join(&mut self, rules: &Rules, claim: Claim, arrival: u64, start: u64, step: &mut Step) {
        let entered = self.draw();
        if step.base == 0 {
            step.base = entered;
        }
        let (new, arrival) = (arrival == 0, if arrival == 0 { entered } else { arrival });
        let start = if rules.fair {
            let (priority, tenant) = (claim.priority, claim.share.tenant);
            // With aging the clock is the floor, also for what was told under other rules.
            let floor = match rules.aging {
                0 if new => self.queue.fair.floor(priority).unwrap_or(self.horizon),
                0 => 0,
                _ => arrival,
            };
            let from = if new {
                self.queue.fair.start(priority, tenant, floor, self.era)
            } else {
                start.max(floor)
            };
            step.starts.push(from.max(1));
            from.max(1)
        } else {
            0
        };
        let place = place(rules, step, &claim, arrival, start);
        if !self.ever_fits(rules, place) {
            step.refusals.push((arrival, NEVER_FITS));
            return;
        }
        if rules.max_queue_depth > 0 && self.depth() >= rules.max_queue_depth {
            let Some(worst) = self.worst() else { return };
            if place > worst {
                step.refusals.push((arrival, QUEUE_FULL));
                return;
            }
            self.leave(worst);
            self.turn_away(worst, QUEUE_FULL, step);
        }
        if self.queue.insert(place) {
            *self.waiting.entry(step.session).or_default() += 1;
            if rules.fair {
                let end = fair::end(rules, start, place.cost);
                let told = self.recovery.is_some();
                self.queue.fair.enter(&place, end, entered, self.era, told);
                self.horizon = self.horizon.max(end);
            }
        }
    }

    /// Tells a ticket that has left the queue why.
    pub(super) fn turn_away(&mut self, place: Place, code: u16, step: &mut Step) {
        if place.session == step.session {
            step.refusals.push((place.arrival, code));
        } else {
            self.inbox
                .entry(place.session)
                .or_default()
                .push(Item::Refusal {
                    arrival: place.arrival,
                    code,
                });
            if let Some(owner) = self.sessions.get(&place.session) {
                step.wakes.insert(owner.instance.clone());
            }
        }
    }

    /// Undoes a grant's debit.
    pub(super) fn refund(&mut self, rules: &Rules, granted: u64) {
        let key = Key {
            kind: Kind::Grant,
            number: granted,
        };
        if let Some(entry) = self.windows.remove(rules, key) {
            self.pace.take_back(rules, &entry.deployment, entry.cost);
        }
    }

    pub(super) fn leave(&mut self, place: Place) {
        if self.queue.remove(place, self.clock)
            && let Some(waiting) = self.waiting.get_mut(&place.session)
        {
            *waiting -= 1;
        }
    }

    /// Whether a place's session has ended or lost its place in the queue.
    pub(super) fn is_ghost(&self, place: Place) -> bool {
        self.sessions.get(&place.session).is_none_or(|s| s.silent)
    }

    /// The last place that is no ghost; ghosts behind it are dropped.
    fn worst(&mut self) -> Option<Place> {
        while let Some(place) = self.queue.last() {
            if !self.is_ghost(place) {
                return Some(place);
            }
            self.queue.remove(place, self.clock);
            self.ghosts -= 1;
        }
        None
    }

    /// The first place that is no ghost; ghosts before it are dropped, at most [`MAX_DROPS`] in one step.
    pub(super) fn head(&mut self, step: &mut Step) -> Option<Place> {
        while let Some(place) = self.queue.first() {
            if !self.is_ghost(place) {
                return Some(place);
            }
            if step.dropped == MAX_DROPS {
                step.more = true;
                return None;
            }
            step.dropped += 1;
            self.queue.remove(place, self.clock);
            self.ghosts -= 1;
        }
        None
    }

    /// Whether any deployment that the place's instance knows could ever take it.
    pub(super) fn ever_fits(&self, rules: &Rules, place: Place) -> bool {
        let demand = windows::Demand::of(rules, place.priority, place.tokens);
        rules
            .deployments
            .iter()
            .any(|d| windows::ever_fits(d, demand) && self.knows(place.session, &d.id))
    }
}

/// A deployment whose grants are counted in windows.
fn counted<'a>(rules: &'a Rules, deployment: &str) -> Option<&'a DeploymentRules> {
    let mut deployments = rules.deployments.iter();
    deployments.find(|d| &*d.id == deployment && !d.windows.is_empty())
}

/// The sender's place.
fn place(rules: &Rules, step: &Step, claim: &Claim, arrival: u64, start: u64) -> Place {
    let Claim {
        priority,
        tokens,
        share,
    } = *claim;
    let (from, start, share) = if rules.fair {
        (start.max(1), start.max(1), share)
    } else {
        (arrival, 0, Share::default())
    };
    Place {
        score: rules.score(priority, from),
        start,
        arrival,
        session: step.session,
        tokens,
        tenant: share.tenant,
        cost: share.cost,
        priority,
    }
}

impl Health {
    /// A9: at once when the upstream said so, otherwise after more than the allowed failures; a probe has none.
    fn fail(&mut self, rules: &Rules, now: u64, granted: u64, status: u16, cool: i64) {
        let probing = self.probe == granted && granted != 0;
        let cool = match u64::try_from(cool) {
            Ok(cool) => cool,
            Err(_) => {
                if now >= self.since + FAIL_WINDOW {
                    (self.fails, self.since) = (0, now);
                }
                self.fails += 1;
                if self.fails <= rules.allowed_fails && !probing {
                    return;
                }
                rules.cooldown
            }
        };
        self.fails = 0;
        if probing {
            self.probe = 0;
        }
        let until = now + cool;
        if until > self.until {
            (self.until, self.status) = (until, status);
        }
    }
}
