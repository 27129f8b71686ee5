//! The ops of a message: what happened on the sender. `lua/ops.lua` has the same functions in the same order; each kind of op is a function there.

use std::sync::Arc;

use super::{
    Health, Item, Key, Kind, QueueEntry, State, Step,
    queue::Overflow,
    windows::{self, Charge, Dispatch},
};
use crate::{
    bounds,
    claim::{Claim, Entry, Share},
    cost::{Cost, Tokens},
    message::{Message, NEVER_FITS, Op, QUEUE_FULL},
    mutation::{Part, without},
    rules::{DeploymentRules, NONE, PROBE_PACE, Rules},
    units::{Micros, Seq, SessionId},
};

/// Failures count for this long.
pub(crate) const FAIL_WINDOW: Micros = Micros(60_000_000);

impl State {
    /// Executes the ops in order.
    pub(super) fn apply(&mut self, rules: &Rules, message: &Message, step: &mut Step) {
        for op in message.ops.iter().map(Op::bounded) {
            match &op {
                Op::Join(entry) => self.join(rules, *entry, step),
                Op::Leave { claim, arrival } => {
                    self.leave(rules, entry(rules, step, claim, *arrival), false);
                }
                Op::Done {
                    granted,
                    deployment,
                    tokens,
                    excess,
                    ok,
                } => {
                    if *ok {
                        self.count_success(deployment);
                    }
                    self.dispatched(rules, *granted, self.clock, Dispatch::Reported);
                    self.release(step.session, *granted, deployment);
                    let key = Key {
                        kind: Kind::Grant,
                        number: *granted,
                    };
                    if let Some((of, less)) = self.windows.shrink(rules, key, *tokens) {
                        self.pace.refund(rules, &of, less);
                    }
                    let above = *excess != Tokens::ZERO && !without(Part::P14Excess);
                    if let Some(of) = counted(rules, deployment).filter(|_| above) {
                        let key = Key {
                            kind: Kind::Excess,
                            number: *granted,
                        };
                        let cost = Cost::excess(*excess);
                        self.pace.advance(rules, of, self.clock, cost);
                        let charge = Charge {
                            deployment: deployment.clone(),
                            cost,
                            at: self.clock,
                            dispatch: Dispatch::Reported,
                        };
                        self.windows.insert(rules, self.clock, key, charge);
                    }
                }
                Op::Sent { granted, age } => {
                    let at = self.clock.saturating_sub(*age);
                    self.dispatched(rules, *granted, at, Dispatch::Reported);
                }
                Op::Unused { granted } => {
                    if let Some(deployment) = self.calls.deployment(step.session, *granted) {
                        self.release(step.session, *granted, &deployment);
                    }
                    self.refund(rules, *granted);
                }
                Op::Report {
                    granted,
                    deployment,
                    probe,
                    again,
                    ok,
                    status,
                    cool,
                } => {
                    if *ok && *probe {
                        self.health.remove(deployment);
                    } else if !*ok {
                        let failure = Failure {
                            granted: *granted,
                            probe: *probe,
                            again: *again,
                            status: *status,
                            cool: u64::try_from(*cool).ok().map(Micros),
                        };
                        self.count_failure(rules, deployment, failure);
                    }
                }
                Op::Measured { deployment, took } => self.measured(rules, deployment, *took),
                Op::Hold {
                    granted,
                    deployment,
                    probe,
                } => {
                    // P5 (sequence numbers): a number in a snapshot was drawn, so it must not be drawn again.
                    self.last = self.last.max(bounds::seen(*granted));
                    // The call may also be one of the instance's former session that is not settled yet.
                    let former = self
                        .sessions
                        .get(&step.session)
                        .map_or(SessionId::NONE, |s| s.former);
                    self.calls.remove(former, *granted, deployment);
                    self.calls.add(step.session, *granted, deployment);
                    if let Some(health) = self
                        .health
                        .get_mut(deployment)
                        .filter(|h| *probe && h.probe == Seq::NONE)
                    {
                        (health.probe, health.probed) = (*granted, self.clock);
                    }
                }
                Op::Charge {
                    granted,
                    excess,
                    deployment,
                    requests,
                    tokens,
                    age,
                } => {
                    self.last = self.last.max(bounds::seen(*granted));
                    if counted(rules, deployment).is_some() {
                        let kind = if *excess { Kind::Excess } else { Kind::Grant };
                        let key = Key {
                            kind,
                            number: *granted,
                        };
                        let known = self.windows.get(key).map(|entry| &entry.charge);
                        let known = known.filter(|c| c.dispatch == Dispatch::Reported);
                        let at = self.clock.saturating_sub(*age);
                        let charge = Charge {
                            deployment: deployment.clone(),
                            cost: Cost {
                                requests: *requests,
                                tokens: *tokens,
                            },
                            at: known
                                .filter(|_| !without(Part::P12LaterTime))
                                .map_or(at, |known| known.at.max(at)),
                            dispatch: Dispatch::Reported,
                        };
                        self.windows
                            .insert(rules, self.expired_until(), key, charge);
                    }
                }
                Op::Cool {
                    deployment,
                    left,
                    status,
                } => {
                    let until = self.clock + *left;
                    let health = self.health.entry(deployment.clone()).or_default();
                    if until > health.until {
                        // An instance that learned of a cooldown from a reply does not know its status.
                        let unknown = *status == 0 && health.until > self.clock;
                        let status = if unknown { health.status } else { *status };
                        (health.until, health.status) = (until, status);
                    } else if health.status == 0 && health.until > self.clock {
                        health.status = *status;
                    }
                }
                Op::Move { claim, arrival, to } => {
                    let ahead = self.move_ticket(rules, claim, *arrival, *to, step);
                    step.ranks.push(ahead.map_or(NONE, u64::cast_signed));
                }
                Op::Rank { claim, arrival } => {
                    let ahead = match *arrival {
                        Seq::NONE => {
                            let ahead = self.ahead_of_new(rules, claim);
                            Some(ahead.saturating_sub(self.orphans))
                        }
                        arrival => self.ahead_of(rules, entry(rules, step, claim, arrival)),
                    };
                    step.ranks.push(ahead.map_or(NONE, u64::cast_signed));
                }
                Op::Look { from, most } => {
                    step.look.get_or_insert((*from, *most));
                }
                // They are in force since before the other ops.
                Op::Override(_) | Op::Overrides(_) => {}
                Op::CloseSession { .. } => {}
            }
        }
    }

    /// For each new ticket, how many tickets were surely ahead of it when the step began; 0 for a ticket that enters again.
    pub(super) fn count_ahead(&self, rules: &Rules, message: &Message) -> Vec<u64> {
        let leaving = message
            .ops
            .iter()
            .filter(|op| matches!(op, Op::Leave { .. }))
            .count() as u64;
        let surely = |claim: &Claim| {
            let all = self.ahead_of_new(rules, claim);
            all.saturating_sub(self.orphans + leaving)
        };
        let joins = message.ops.iter().filter_map(|op| match op.bounded() {
            Op::Join(entry) if entry.arrival == Seq::NONE => Some(surely(&entry.claim)),
            Op::Join(_) => Some(0),
            _ => None,
        });
        joins.collect()
    }

    fn join(&mut self, rules: &Rules, joining: Entry, step: &mut Step) {
        let entered = self.draw();
        if step.base == Seq::NONE {
            step.base = entered;
        }
        let arrival = match joining.arrival {
            Seq::NONE => entered,
            first => first,
        };
        let entry = entry(rules, step, &joining.claim, arrival);
        if !self.ever_fits(rules, entry) {
            step.refusals.push((arrival, NEVER_FITS));
            return;
        }
        if rules.max_queue_depth > 0 && self.depth() >= rules.max_queue_depth {
            match self.overflow(rules, entry, step) {
                Overflow::Refuse => {
                    step.refusals.push((arrival, QUEUE_FULL));
                    return;
                }
                Overflow::Displace(worse) => {
                    self.leave(rules, worse, false);
                    self.refuse_ticket(worse, QUEUE_FULL, step);
                }
                Overflow::Admit => {}
            }
        }
        if self.queue.enter(rules, entry, joining.start, entered) {
            *self.waiting.entry(step.session).or_default() += 1;
        }
    }

    /// P23 (operators): a ticket gets another priority. Returns how many tickets are ahead of it then; `None`: it is not in the queue.
    fn move_ticket(
        &mut self,
        rules: &Rules,
        claim: &Claim,
        arrival: Seq,
        to: i32,
        step: &Step,
    ) -> Option<u64> {
        let now = self.clock;
        let from = entry(rules, step, claim, arrival);
        if !self.queue.leave(rules, from, false, now) {
            return None;
        }
        let claim = Claim {
            priority: to,
            ..*claim
        };
        let moved = entry(rules, step, &claim, arrival);
        // It is the last one that has entered, though it draws no number.
        if !self.queue.enter(rules, moved, 0, self.last)
            && let Some(waiting) = self.waiting.get_mut(&step.session)
        {
            *waiting -= 1;
        }
        self.ahead_of(rules, moved)
    }

    /// Tells the owner of a ticket that has left the queue that it is refused, and why.
    pub(super) fn refuse_ticket(&mut self, entry: QueueEntry, code: u16, step: &mut Step) {
        let arrival = entry.arrival;
        if entry.session == step.session {
            step.refusals.push((arrival, code));
        } else {
            self.add_to_inbox(entry.session, Item::Refusal { arrival, code }, step);
        }
    }

    /// P8 (dispatch report): gives a grant's open charge its time.
    pub(super) fn dispatched(&mut self, rules: &Rules, granted: Seq, at: Micros, by: Dispatch) {
        let key = Key {
            kind: Kind::Grant,
            number: granted,
        };
        self.windows
            .set_dispatch_time(rules, self.expired_until(), key, at, by);
    }

    /// Removes the charge of a grant.
    pub(super) fn refund(&mut self, rules: &Rules, granted: Seq) {
        let key = Key {
            kind: Kind::Grant,
            number: granted,
        };
        if let Some(entry) = self.windows.remove(rules, key) {
            self.pace.refund(rules, &entry.deployment, entry.cost);
        }
    }

    /// A ticket leaves; `granted`: because it is granted.
    pub(super) fn leave(&mut self, rules: &Rules, entry: QueueEntry, granted: bool) {
        if self.queue.leave(rules, entry, granted, self.clock)
            && let Some(waiting) = self.waiting.get_mut(&entry.session)
        {
            *waiting -= 1;
        }
    }

    /// Whether a ticket could ever fit on any deployment that its instance knows, under the limits that apply to it.
    pub(super) fn ever_fits(&self, rules: &Rules, entry: QueueEntry) -> bool {
        without(Part::A5NeverFits) || self.fits_idle(self.limits_for(rules, entry), entry)
    }

    /// P20 (roll-outs): the rules that apply to a ticket: those in force, or while configurations differ the newest limits, for a ticket that the stricter limits never
    /// admit (A5).
    pub(super) fn limits_for<'a>(&'a self, rules: &'a Rules, entry: QueueEntry) -> &'a Rules {
        match &self.configurations.newest {
            Some(newest)
                if self.configurations.len() > 1
                    && !self.fits_idle(rules, entry)
                    && !without(Part::P20NewestLimits) =>
            {
                newest
            }
            _ => rules,
        }
    }

    fn fits_idle(&self, rules: &Rules, entry: QueueEntry) -> bool {
        let demand = windows::Demand::of(rules, entry.priority, entry.tokens);
        rules
            .deployments
            .iter()
            .any(|d| windows::ever_fits(d, demand) && self.knows(entry.session, &d.id))
    }
}

fn of<'a>(rules: &'a Rules, deployment: &str) -> Option<&'a DeploymentRules> {
    rules.deployments.iter().find(|d| &*d.id == deployment)
}

/// A deployment whose grants are counted in windows.
fn counted<'a>(rules: &'a Rules, deployment: &str) -> Option<&'a DeploymentRules> {
    of(rules, deployment).filter(|d| !d.windows.is_empty())
}

/// An entry of the sender. With fair shares its score and start tag are those of its tenant queue.
fn entry(rules: &Rules, step: &Step, claim: &Claim, arrival: Seq) -> QueueEntry {
    let Claim {
        priority,
        tokens,
        share,
        key,
        tried,
        failed: _,
    } = *claim;
    let (score, share) = if rules.fair {
        (0, share)
    } else {
        (rules.score(priority, arrival.0), Share::default())
    };
    QueueEntry {
        score,
        start: 0,
        arrival,
        session: step.session,
        tokens,
        tenant: share.tenant,
        cost: share.cost,
        tried,
        key,
        priority,
    }
}

/// A call that failed, as in [`Op::Report`].
struct Failure {
    granted: Seq,
    probe: bool,
    again: bool,
    status: u16,
    cool: Option<Micros>,
}

// === A9 (health): when failures cool a deployment ===

impl State {
    /// A success weighs against failures, from the first failure on.
    fn count_success(&mut self, deployment: &str) {
        let now = self.clock;
        let Some(health) = self.health.get_mut(deployment) else {
            return;
        };
        if health.until == Micros::ZERO && now >= health.since + FAIL_WINDOW {
            self.health.remove(deployment);
        } else {
            health.successes += 1;
        }
    }

    fn count_failure(&mut self, rules: &Rules, deployment: &Arc<str>, failure: Failure) {
        let healthy = |d: &DeploymentRules| {
            self.health
                .get(&d.id)
                .is_none_or(|h| h.until == Micros::ZERO)
        };
        let mut others = rules.deployments.iter().filter(|d| d.id != *deployment);
        let last = !others.any(healthy);
        let cooldown = of(rules, deployment).map_or(rules.cooldown, |d| d.cooldown);
        let now = self.clock;
        let health = self.health.entry(deployment.clone()).or_default();
        // After the success of another probe, a slow probe is an ordinary call.
        let probing = failure.probe && health.until > Micros::ZERO;
        if health.probe == failure.granted {
            health.probe = Seq::NONE;
        }
        let Failure { status, .. } = failure;
        if let Some(cool) = failure.cool {
            health.cool(now + cool, status);
            return;
        }
        let answered = status != 0;
        if answered && failure.again && !without(Part::A9CountsOnce) {
            // A request that fails on every deployment counts once, and proves nothing as a probe.
            if health.paced {
                health.pace(now, status);
            }
            return;
        }
        if now >= health.since + FAIL_WINDOW {
            (health.fails, health.successes, health.since) = (0, 0, now);
        }
        health.fails += 1;
        let many = health.fails > rules.allowed_fails;
        let most = !answered || health.fails >= health.successes || without(Part::A9Weighed);
        if !(probing || many && most) {
            return;
        }
        if answered && last && !without(Part::A9LastHealthy) {
            health.pace(now, status);
        } else {
            health.cool(now + cooldown, status);
        }
    }
}

impl Health {
    fn cool(&mut self, until: Micros, status: u16) {
        (self.fails, self.successes, self.paced) = (0, 0, false);
        if until > self.until {
            (self.until, self.status) = (until, status);
        }
    }

    /// The deployment is probed once a second instead of cooling.
    fn pace(&mut self, now: Micros, status: u16) {
        let next = if self.paced {
            self.probed + PROBE_PACE
        } else {
            now
        };
        self.paced = true;
        if next.max(now) > self.until {
            (self.until, self.status) = (next.max(now), status);
        }
    }
}
