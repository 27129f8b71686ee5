//! The referee judges the health of deployments (A9).

use vorrang_scheduler::Tokens;

use crate::{
    groups::ANY_NUMBER,
    referee::{Dispatch, PROPAGATION, Referee},
    scenario::SECOND,
};

/// The last cooldown of a deployment.
#[derive(Debug, Default)]
pub(crate) struct Cooldown {
    from: u64,
    /// 0 before the first cooldown.
    until: u64,
    /// The status that caused it.
    status: u16,
    /// When a probe last succeeded.
    healed: u64,
    /// Failures that count.
    fails: u32,
    /// When the first of them was.
    since: u64,
    /// The group may count other failures than the referee, until the count restarts.
    uncertain: bool,
}

impl Cooldown {
    /// A probe has succeeded since the cooldown began, or at the same time.
    fn healed(&self) -> bool {
        self.healed >= self.from
    }

    /// No probe has succeeded since the cooldown began, nor so shortly before that the group may have received that report later.
    fn surely_unhealthy(&self) -> bool {
        self.until > 0 && self.healed + PROPAGATION < self.from
    }

    fn surely_healed(&self) -> bool {
        self.from + PROPAGATION < self.healed
    }
}

impl Referee {
    /// Judges a dispatch.
    pub(crate) fn judge_health(&mut self, d: &Dispatch) {
        // Another probe may go a second after the last one. A grant may be dispatched long after it was made, if its reply was lost, and its number follows the
        // clock only roughly (P5). So two probes are at the same time if they are close in both.
        let probe_time = SECOND;
        let close = |distance: u64| distance + probe_time / 20 + PROPAGATION < probe_time;
        let probes = self.open.iter().filter(|(granted, o)| {
            let same_time = close(granted.0.abs_diff(d.granted.0)) && close(o.at.abs_diff(d.at));
            o.deployment == d.deployment && o.probe && !o.excused && same_time
        });
        if d.probe && probes.count() > 1 {
            self.violations
                .push(format!("A9: two probes at the same time, {}", d.at));
        }
        if !self.strict {
            return;
        }
        let cooldown = &self.cooldowns[d.deployment];
        let known = cooldown.from + PROPAGATION < d.at;
        if known && d.at < cooldown.until && !cooldown.healed() {
            self.violations.push(format!(
                "A9: dispatched at {} to a deployment that cools until {}",
                d.at, cooldown.until
            ));
        }
        if self.faultless && known && cooldown.surely_unhealthy() && !d.probe {
            self.violations.push(format!(
                "A9: dispatched at {} to a deployment that no ticket has probed since {}",
                d.at, cooldown.until
            ));
        }
        if self.faultless
            && self.only_explicit_cooldowns()
            && d.probe
            && cooldown.surely_healed()
            && cooldown.healed + PROPAGATION < d.at
        {
            self.violations.push(format!(
                "A9: probed at {} although a probe succeeded at {}",
                d.at, cooldown.healed
            ));
        }
    }

    /// An instance reports a cooldown: soon after, no call may be dispatched there until `until`.
    pub(crate) fn cooled(&mut self, deployment: usize, from: u64, until: u64, status: u16) {
        let former = &self.cooldowns[deployment];
        let longer = until > former.until;
        self.cooldowns[deployment] = Cooldown {
            from,
            until: former.until.max(until),
            status: if longer { status } else { former.status },
            fails: 0,
            uncertain: false,
            ..*former
        };
    }

    /// A probe has failed, which cools the deployment. If another probe has succeeded meanwhile, it counts like any other failure.
    pub(crate) fn probe_failed(&mut self, deployment: usize, now: u64, cool: u64, status: u16) {
        let cooldown = &self.cooldowns[deployment];
        let healed = cooldown.healed > 0 && cooldown.healed();
        if healed && cooldown.healed + PROPAGATION < now {
            self.failed(deployment, now, status);
        } else if healed || status != 0 {
            // The group may have received either report first. A server error cools the deployment unless no other is healthy. Then another probe follows soon.
            self.cooled(deployment, now, now, status);
        } else {
            self.cooled(deployment, now, now + cool, status);
        }
    }

    /// A failure that is counted: more than the allowed ones cool the deployment.
    pub(crate) fn failed(&mut self, deployment: usize, now: u64, status: u16) {
        if !self.faultless {
            // A loss forgets the group's count.
            return;
        }
        let cooldown = &mut self.cooldowns[deployment];
        // Whether server errors cool depends on successes and on other deployments: the tests of steps show that.
        cooldown.uncertain |= status != 0;
        // A report that restarts the count may arrive before or after this failure, and the group's minute may have begun earlier.
        let overlaps = now < cooldown.from.max(cooldown.healed) + PROPAGATION;
        let late = cooldown.fails > 0 && now >= cooldown.since + 50 * SECOND;
        cooldown.uncertain |= overlaps || late;
        if cooldown.uncertain {
            return;
        }
        if cooldown.fails == 0 {
            cooldown.since = now;
        }
        cooldown.fails += 1;
        if cooldown.fails > self.config.allowed_fails {
            let cool = self.rules.deployments[deployment].cooldown.0;
            self.cooled(deployment, now, now + cool, status);
        }
    }

    /// A probe has succeeded. That also ends cooldowns that were reported while it was open.
    pub(crate) fn healed(&mut self, deployment: usize, now: u64) {
        let cooldown = &mut self.cooldowns[deployment];
        (cooldown.healed, cooldown.fails, cooldown.uncertain) = (now, 0, false);
        cooldown.until = cooldown.until.min(now);
        // Other open probes are ordinary calls from now on.
        let others = self
            .open
            .values_mut()
            .filter(|o| o.deployment == deployment);
        others.for_each(|other| other.probe = false);
    }

    /// Since `then` a deployment is surely healthy, or a cooldown is over that its upstream named, and no ticket has probed it yet.
    pub(crate) fn may_be_called(&self, deployment: usize, then: u64) -> bool {
        let cooldown = &self.cooldowns[deployment];
        if cooldown.until == 0 || cooldown.surely_healed() {
            return cooldown.healed < then;
        }
        let mut dispatches = self.dispatches.iter().rev();
        let called = dispatches.any(|d| d.deployment == deployment && d.at >= cooldown.from);
        let named = matches!(cooldown.status, 401 | 429);
        named && cooldown.from < then && cooldown.until < then && !called
    }

    /// Deployments cool only for a time that the upstream names, so the referee knows all cooldowns.
    pub(crate) fn only_explicit_cooldowns(&self) -> bool {
        self.config.allowed_fails == ANY_NUMBER
    }

    /// Judges a probe: no healthy deployment that comes first may have room. `tried` are those that the request has tried, as bits. `granted` are the grants that are not dispatched yet.
    pub(crate) fn judge_probe(
        &mut self,
        now: u64,
        deployment: usize,
        tokens: Tokens,
        tried: u64,
        granted: &[(usize, Tokens)],
    ) {
        // After a loss many calls are dispatched at once, and not all of them are noted yet.
        if !self.strict || !self.faultless || !self.only_explicit_cooldowns() {
            return;
        }
        let order = |deployment: usize| self.rules.deployments[deployment].order;
        let others = (0..self.cooldowns.len()).filter(|other| *other != deployment);
        // A deployment of no higher order than the one that the request would be granted otherwise is probed at once (P22). That is an untried one.
        let several_orders = others
            .clone()
            .any(|other| order(other) != order(deployment));
        let tried = |deployment: usize| tried >> deployment & 1 == 1;
        let spare = self.rules.deployments[deployment].weight == 0;
        let first = |other: &usize| {
            let before = if spare || tried(deployment) {
                order(*other) <= order(deployment)
            } else {
                order(*other) < order(deployment)
            };
            before && !(several_orders && tried(*other))
        };
        for other in others.filter(first) {
            let cooldown = &self.cooldowns[other];
            let healthy = cooldown.until == 0 || cooldown.healed() && cooldown.healed < now;
            if healthy && self.room(other, now, tokens, granted) {
                self.violations.push(format!(
                    "A9: {deployment} was probed at {now} and {other} is healthy and has room"
                ));
            }
        }
    }

    /// Judges waiting tickets: none may wait while every deployment refuses the key or the model.
    pub(crate) fn judge_hopeless(&mut self, now: u64, waiting: bool) {
        let refuses = |c: &Cooldown| {
            matches!(c.status, 401 | 402 | 404)
                && c.from + PROPAGATION < now
                && now < c.until
                && !c.healed()
        };
        if !(self.strict
            && self.faultless
            && self.only_explicit_cooldowns()
            && waiting
            && self.cooldowns.iter().all(refuses))
        {
            self.hopeless_since = None;
            return;
        }
        let since = *self.hopeless_since.get_or_insert(now);
        if now - since > PROPAGATION {
            self.violations.push(format!(
                "A9: since {since} a ticket waits though every deployment refuses all calls"
            ));
        }
    }

    /// Judges a ticket that was refused with an upstream's status: every deployment must refuse the key or the model.
    pub(crate) fn refused(&mut self, now: u64, status: u16) {
        // The group may not know of another cooldown that was reported since.
        let refuses = |c: &Cooldown| {
            let refusing = matches!(c.status, 401 | 402 | 404) && now < c.until + PROPAGATION;
            refusing && c.from <= now || now < c.from + PROPAGATION
        };
        if self.strict
            && self.faultless
            && self.only_explicit_cooldowns()
            && !self.cooldowns.iter().all(refuses)
        {
            self.violations.push(format!(
                "A9: refused with {status} at {now}, and not every deployment refuses"
            ));
        }
    }
}
