//! The referee on the health of deployments (A9).

use vorrang_scheduler::Tokens;

use crate::{
    groups::ALWAYS,
    referee::{Dispatch, ON_ITS_WAY, Referee},
    scenario::SECOND,
};

/// What the referee knows of a deployment's last cooldown.
#[derive(Debug, Default)]
pub(crate) struct Cooldown {
    from: u64,
    /// 0: there was none yet.
    until: u64,
    /// The status that led to it.
    status: u16,
    /// When a probe last succeeded.
    healed: u64,
    /// Failures that count, and since when.
    fails: u32,
    since: u64,
    /// Nobody knows how many there were, until it begins anew.
    uncounted: bool,
}

impl Cooldown {
    /// A probe has succeeded since, if only just before the report that cooled: who knows which of them came first.
    fn healed(&self) -> bool {
        self.healed >= self.from
    }

    /// No probe has succeeded since it was cooled, nor so shortly before that the group may have heard of it later.
    fn surely_sick(&self) -> bool {
        self.until > 0 && self.healed + ON_ITS_WAY < self.from
    }

    fn surely_healed(&self) -> bool {
        self.from + ON_ITS_WAY < self.healed
    }
}

impl Referee {
    /// A9, of a call that goes out.
    pub(crate) fn judge_health(&mut self, d: &Dispatch) {
        // A grant may be dispatched long after it was made, when its answer was lost; and its number follows the time, but not quite (P5). Two probes
        // at once are near in both. A last healthy deployment is probed once a second.
        let patience = SECOND;
        let near = |distance: u64| distance + patience / 20 + ON_ITS_WAY < patience;
        let probes = self.open.iter().filter(|(granted, o)| {
            let soon = near(granted.abs_diff(d.granted)) && near(o.at.abs_diff(d.at));
            o.deployment == d.deployment && o.probe && !o.excused && soon
        });
        if d.probe && probes.count() > 1 {
            self.violations.push(format!("A9: two probes at {}", d.at));
        }
        if !self.strict {
            return;
        }
        let cooldown = &self.cooldowns[d.deployment];
        let known = cooldown.from + ON_ITS_WAY < d.at;
        if known && d.at < cooldown.until && !cooldown.healed() {
            self.violations.push(format!(
                "A9: dispatched at {} to a deployment that cools until {}",
                d.at, cooldown.until
            ));
        }
        if self.faultless && known && cooldown.surely_sick() && !d.probe {
            self.violations.push(format!(
                "A9: dispatched at {} to a deployment that nobody has probed since {}",
                d.at, cooldown.until
            ));
        }
        if self.faultless
            && self.frank()
            && d.probe
            && cooldown.surely_healed()
            && cooldown.healed + ON_ITS_WAY < d.at
        {
            self.violations.push(format!(
                "A9: probed at {} although a probe succeeded at {}",
                d.at, cooldown.healed
            ));
        }
    }

    /// Reported by an instance: from a little later on nothing may be dispatched there until `until`.
    pub(crate) fn cooled(&mut self, deployment: usize, from: u64, until: u64, status: u16) {
        let former = &self.cooldowns[deployment];
        let longer = until > former.until;
        self.cooldowns[deployment] = Cooldown {
            from,
            until: former.until.max(until),
            status: if longer { status } else { former.status },
            fails: 0,
            uncounted: false,
            ..*former
        };
    }

    /// A probe has failed, which cools the deployment; unless another probe has succeeded meanwhile: then it counts like any other failure.
    pub(crate) fn probe_failed(&mut self, deployment: usize, now: u64, cool: u64, status: u16) {
        let cooldown = &self.cooldowns[deployment];
        let healed = cooldown.healed > 0 && cooldown.healed();
        if healed && cooldown.healed + ON_ITS_WAY < now {
            self.failed(deployment, now, status);
        } else if healed || status != 0 {
            // The group may have heard of either first. With an upstream's own error it cools, unless no other deployment is healthy: then another probe
            // follows soon.
            self.cooled(deployment, now, now, status);
        } else {
            self.cooled(deployment, now, now + cool, status);
        }
    }

    /// A failure that only counts: after more than the allowed ones the deployment cools.
    pub(crate) fn failed(&mut self, deployment: usize, now: u64, status: u16) {
        if !self.faultless {
            // What the group counted before a loss is forgotten.
            return;
        }
        let cooldown = &mut self.cooldowns[deployment];
        // What an upstream's own errors cost depends on successes and on other deployments: see the tests of steps.
        cooldown.uncounted |= status != 0;
        // One that passes a report which begins the count anew may count or not; and the group's minute may have begun earlier.
        let unsure = now < cooldown.from.max(cooldown.healed) + ON_ITS_WAY;
        let late = cooldown.fails > 0 && now >= cooldown.since + 50 * SECOND;
        cooldown.uncounted |= unsure || late;
        if cooldown.uncounted {
            return;
        }
        if cooldown.fails == 0 {
            cooldown.since = now;
        }
        cooldown.fails += 1;
        if cooldown.fails > self.config.allowed_fails {
            let cool = self.rules.deployments[deployment].cooldown;
            self.cooled(deployment, now, now + cool, status);
        }
    }

    /// A probe has succeeded: that ends a cooldown, too, that others have reported while it was out.
    pub(crate) fn healed(&mut self, deployment: usize, now: u64) {
        let cooldown = &mut self.cooldowns[deployment];
        (cooldown.healed, cooldown.fails, cooldown.uncounted) = (now, 0, false);
        cooldown.until = cooldown.until.min(now);
        // Other probes that are out are calls like any other from now on.
        let others = self
            .open
            .values_mut()
            .filter(|o| o.deployment == deployment);
        others.for_each(|other| other.probe = false);
    }

    /// Deployments cool only when an upstream says so, and never without the referee's knowledge.
    fn frank(&self) -> bool {
        self.config.allowed_fails == ALWAYS
    }

    /// A probe goes only where no healthy deployment has room; `granted` were granted and are not dispatched yet.
    pub(crate) fn probes(
        &mut self,
        now: u64,
        deployment: usize,
        tokens: Tokens,
        granted: &[(usize, Tokens)],
    ) {
        // After a loss many go at once, and are not all seen here yet.
        if !self.strict || !self.faultless || !self.frank() {
            return;
        }
        for other in (0..self.cooldowns.len()).filter(|other| *other != deployment) {
            let cooldown = &self.cooldowns[other];
            let healthy = cooldown.until == 0 || cooldown.healed() && cooldown.healed < now;
            if healthy && self.room(other, now, tokens, granted) {
                self.violations.push(format!(
                    "A9: {deployment} was probed at {now} and {other} is healthy and has room"
                ));
            }
        }
    }

    /// Nobody waits for a group whose every deployment refuses its key or its model.
    pub(crate) fn hopeless(&mut self, now: u64, waiting: bool) {
        let refuses = |c: &Cooldown| {
            matches!(c.status, 401 | 402 | 404)
                && c.from + ON_ITS_WAY < now
                && now < c.until
                && !c.healed()
        };
        if !(self.strict
            && self.faultless
            && self.frank()
            && waiting
            && self.cooldowns.iter().all(refuses))
        {
            self.hopeless_since = None;
            return;
        }
        let since = *self.hopeless_since.get_or_insert(now);
        if now - since > ON_ITS_WAY {
            self.violations.push(format!(
                "A9: since {since} a ticket waits for deployments that refuse everybody"
            ));
        }
    }

    /// A ticket was told an upstream's status: only where every deployment refuses its key or its model.
    pub(crate) fn given_up(&mut self, now: u64, status: u16) {
        // Another cooldown may have been reported since, and not be known to the group yet.
        let refuses = |c: &Cooldown| {
            let refused = matches!(c.status, 401 | 402 | 404) && now < c.until + ON_ITS_WAY;
            refused && c.from <= now || now < c.from + ON_ITS_WAY
        };
        if self.strict && self.faultless && self.frank() && !self.cooldowns.iter().all(refuses) {
            self.violations.push(format!(
                "A9: refused with {status} at {now}, and not every deployment refuses"
            ));
        }
    }
}
