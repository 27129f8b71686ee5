//! The ops of a message: what happened on its sender's side.

use std::sync::Arc;

use super::{
    Health, Item, Key, Kind, QueueEntry, State, Step,
    windows::{self, Charge, Dispatch},
};
use crate::{
    bounds,
    claim::{Claim, Entry, Share},
    cost::{Cost, Tokens},
    message::{MAX_ORPHANS, MAX_SWEEP, Message, NEVER_FITS, Op, QUEUE_FULL},
    mutation::{Part, without},
    rules::{DeploymentRules, PROBE_PACE, Rules},
    units::{Micros, Seq, SessionId},
};

/// Failures are counted over this long.
pub(crate) const FAIL_WINDOW: Micros = Micros(60_000_000);

/// What happens when a ticket comes into a full queue.
enum Overflow {
    /// It is the worst itself.
    Refuse,
    /// The last entry has to go, or with fair shares the newest one of the longest line of the worst priority.
    Displace(QueueEntry),
    /// More orphaned entries stand behind than one step drops: it comes in above the cap rather than being refused because of them.
    Admit,
}

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
                        self.pace.take_back(rules, &of, less);
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
                Op::Hold {
                    granted,
                    deployment,
                    probe,
                } => {
                    // A number that a snapshot names was drawn (P5): it never comes again.
                    self.last = self.last.max(bounds::seen(*granted));
                    // What the instance's former session left may not be settled yet.
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
                        // Who learnt of a cooldown from an answer does not know its status.
                        let unknown = *status == 0 && health.until > self.clock;
                        let status = if unknown { health.status } else { *status };
                        (health.until, health.status) = (until, status);
                    } else if health.status == 0 && health.until > self.clock {
                        health.status = *status;
                    }
                }
                Op::CloseSession { .. } => {}
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
            // Tickets that join now get higher numbers. With fair shares they may still be granted before tickets of other tenants of their priority.
            let all = if rules.fair && rules.aging == Micros::ZERO {
                let fair = &self.queue.fair;
                self.queue.at_least(i64::from(priority) - 1)
                    + fair.behind_better_than(priority)
                    + fair.waiting(priority, share.tenant)
            } else {
                self.queue.at_least(rules.score(priority, self.last.0))
            };
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
                    self.turn_away(worse, QUEUE_FULL, step);
                }
                Overflow::Admit => {}
            }
        }
        if self.queue.enter(rules, entry, joining.start, entered) {
            *self.waiting.entry(step.session).or_default() += 1;
        }
    }

    /// Tells a ticket that has left the queue why.
    pub(super) fn turn_away(&mut self, entry: QueueEntry, code: u16, step: &mut Step) {
        if entry.session == step.session {
            step.refusals.push((entry.arrival, code));
        } else {
            self.inbox
                .entry(entry.session)
                .or_default()
                .push(Item::Refusal {
                    arrival: entry.arrival,
                    code,
                });
            if let Some(owner) = self.sessions.get(&entry.session) {
                step.wakes.insert(owner.instance.clone());
            }
        }
    }

    /// P8 (the dispatch is reported): a grant's open charge gets its time.
    pub(super) fn dispatched(&mut self, rules: &Rules, granted: Seq, at: Micros, by: Dispatch) {
        let key = Key {
            kind: Kind::Grant,
            number: granted,
        };
        self.windows.date(rules, self.expired_until(), key, at, by);
    }

    /// Undoes a grant's charge.
    pub(super) fn refund(&mut self, rules: &Rules, granted: Seq) {
        let key = Key {
            kind: Kind::Grant,
            number: granted,
        };
        if let Some(entry) = self.windows.remove(rules, key) {
            self.pace.take_back(rules, &entry.deployment, entry.cost);
        }
    }

    /// `served`: it was granted.
    pub(super) fn leave(&mut self, rules: &Rules, entry: QueueEntry, served: bool) {
        if self.queue.leave(rules, entry, served, self.clock)
            && let Some(waiting) = self.waiting.get_mut(&entry.session)
        {
            *waiting -= 1;
        }
    }

    /// Whether an entry's session has ended or lost its entry in the queue.
    pub(super) fn is_orphaned(&self, entry: QueueEntry) -> bool {
        self.sessions
            .get(&entry.session)
            .is_none_or(|s| s.unresponsive)
    }

    fn drop_orphan(&mut self, rules: &Rules, entry: QueueEntry) {
        self.queue.leave(rules, entry, false, self.clock);
        self.orphans -= 1;
    }

    /// What happens when a ticket comes into a full queue. Orphaned entries behind the worst one are dropped, at most [`MAX_ORPHANS`] in one step (P16).
    fn overflow(&mut self, rules: &Rules, entry: QueueEntry, step: &mut Step) -> Overflow {
        loop {
            let worst = if rules.fair {
                let (priority, tenant) = self.queue.fair.longest(&entry);
                let newest = self.queue.fair.newest(priority, tenant);
                let own = (priority, tenant) == (entry.priority, entry.tenant);
                newest.map(|newest| (newest, own && newest.arrival < entry.arrival))
            } else {
                self.queue.last().map(|last| (last, last < entry))
            };
            match worst {
                Some((orphan, _)) if self.is_orphaned(orphan) => {
                    if step.dropped == MAX_ORPHANS {
                        step.more = true;
                        return Overflow::Admit;
                    }
                    step.dropped += 1;
                    self.drop_orphan(rules, orphan);
                }
                Some((worst, false)) => return Overflow::Displace(worst),
                Some((_, true)) | None => return Overflow::Refuse,
            }
        }
    }

    /// The first entry that is no orphan; orphans before it are dropped, at most [`MAX_ORPHANS`] in one step.
    pub(super) fn head(&mut self, rules: &Rules, step: &mut Step) -> Option<QueueEntry> {
        while let Some(entry) = self.queue.first() {
            if !self.is_orphaned(entry) {
                return Some(entry);
            }
            if step.dropped == MAX_ORPHANS {
                step.more = true;
                return None;
            }
            step.dropped += 1;
            self.drop_orphan(rules, entry);
        }
        None
    }

    /// Looks at some entries for those of ended sessions, so that they do not stay for ever behind better ones.
    pub(super) fn sweep(&mut self, rules: &Rules, step: &mut Step) {
        if self.orphans == 0 {
            self.sweep = (0, 0);
            return;
        }
        let most = sweeps(step);
        let entries = look(self.queue.iter(), self.sweep.0, most);
        self.sweep.0 = self.sweep_these(rules, entries, self.sweep.0, most, step);
        let most = sweeps(step);
        let entries = look(self.queue.fair.behind(), self.sweep.1, most);
        self.sweep.1 = self.sweep_these(rules, entries, self.sweep.1, most, step);
    }

    /// Returns where to go on.
    fn sweep_these(
        &mut self,
        rules: &Rules,
        entries: Vec<QueueEntry>,
        from: u64,
        most: usize,
        step: &mut Step,
    ) -> u64 {
        let looked = entries.len();
        let orphans: Vec<QueueEntry> = entries
            .into_iter()
            .filter(|p| self.is_orphaned(*p))
            .collect();
        for entry in &orphans {
            self.drop_orphan(rules, *entry);
        }
        step.dropped += orphans.len();
        if looked < most {
            0
        } else {
            from + (most - orphans.len()) as u64
        }
    }

    /// Whether any deployment that the entry's instance knows could ever take it, under the limits it goes by.
    pub(super) fn ever_fits(&self, rules: &Rules, entry: QueueEntry) -> bool {
        without(Part::A5NeverFits) || self.fits_idle(self.limits_for(rules, entry), entry)
    }

    /// The rules that a ticket goes by: those in force, or while configurations differ the newest limits, for a ticket that the stricter ones would never let go (A5).
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

/// At how many entries the sweep looks: at no more than may be dropped.
fn sweeps(step: &Step) -> usize {
    MAX_SWEEP.min(MAX_ORPHANS - step.dropped)
}

fn look(entries: impl Iterator<Item = QueueEntry>, from: u64, most: usize) -> Vec<QueueEntry> {
    let from = usize::try_from(from).unwrap_or(usize::MAX);
    entries.skip(from).take(most).collect()
}

/// The sender's entry. With fair shares it is to be found in its line.
fn entry(rules: &Rules, step: &Step, claim: &Claim, arrival: Seq) -> QueueEntry {
    let Claim {
        priority,
        tokens,
        share,
        tried,
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

// === A9: what failures cost a deployment ===

impl State {
    /// Weighs against failures, from the first one on.
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
        // A slow probe may come after another one has succeeded: it is a call like any other then.
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
            // A request that fails everywhere counts once, and proves nothing as a probe.
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

    /// The next probe may go out so long after the last one.
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
