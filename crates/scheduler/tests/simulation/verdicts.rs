//! What can be judged only when all is over: windows, order, and what is kept for the better ones.

use std::collections::BTreeMap;

use vorrang_scheduler::LimitKind;

use crate::{
    referee::{Dispatch, ON_ITS_WAY, Referee, order},
    scenario::WINDOW,
};

impl Referee {
    /// P1: an answer that is lost is given again, so that no grant is; unless its session has ended, or its entry has left a window.
    fn judge_lost_grants(&mut self) {
        let shortest = |d| {
            let limits = self.limits(d, LimitKind::Requests);
            limits.map(|l| l.1).min().unwrap_or(0)
        };
        let long = (0..self.config.deployments.len()).all(|d| shortest(d) >= WINDOW);
        if self.faultless && long && !self.silence && !self.undelivered.is_empty() {
            let lost = format!("P1: grants that nobody got: {:?}", self.undelivered);
            self.violations.push(lost);
        }
    }

    /// What can be judged only when all is over.
    pub(crate) fn close(&mut self) {
        self.judge_lost_grants();
        for deployment in 0..self.config.deployments.len() {
            let at: Vec<u64> = self
                .dispatches
                .iter()
                .filter(|d| d.sent && d.deployment == deployment)
                .map(|d| d.at)
                .collect();
            let limits: Vec<_> = self.limits(deployment, LimitKind::Requests).collect();
            for (limit, length) in limits {
                for (i, last) in at.iter().enumerate() {
                    let within = at[..=i]
                        .iter()
                        .rev()
                        .take_while(|first| *first + length > *last)
                        .count() as u64;
                    if within > limit {
                        self.violations.push(format!(
                            "A3: {within} calls within {length} us before {last}, limit {limit}"
                        ));
                        break;
                    }
                }
            }
        }
        self.judge_kept();
        self.judge_pace();
        self.judge_shares();
        if self.reordered {
            return;
        }
        let order = |d: &Dispatch| order(&self.rules, d.priority, d.start, d.arrival);
        // What an instance grants alone has numbers of its own.
        let drawn = |d: &&Dispatch| d.granted < 1 << 52 && d.arrival < 1 << 52;
        for a in self.dispatches.iter().filter(drawn) {
            for b in self.dispatches.iter().filter(drawn) {
                let overtaken = b.entered < a.granted && a.granted < b.granted;
                if overtaken && order(b) < order(a) {
                    self.violations.push(format!("A1: {a:?} went before {b:?}"));
                    return;
                }
            }
        }
    }

    /// What is kept for the better ones is left by the others.
    fn judge_kept(&mut self) {
        let aged = self.config.aging.is_some();
        let of_rest = |d: &&Dispatch| d.sent && !aged && d.priority > self.rules.reserve_priority;
        let mut found = Vec::new();
        for last in self.dispatches.iter().filter(of_rest) {
            for (limit, length) in self.limits(last.deployment, LimitKind::Requests) {
                let before = |d: &&Dispatch| {
                    d.sent
                        && d.deployment == last.deployment
                        && d.granted <= last.granted
                        && d.at + length > last.at
                };
                let within = self.dispatches.iter().filter(before).count() as u64;
                if within > self.part(limit, true) {
                    let part = self.part(limit, true);
                    found.push(format!(
                        "A2: {within} calls within {length} us, {part} are left to {last:?}"
                    ));
                }
            }
        }
        self.violations.extend(found);
    }

    /// Of what is paced one goes at a time, and one more: where nothing is lost, so that nothing is taken back late.
    fn judge_pace(&mut self) {
        let aged = self.config.aging.is_some();
        if aged || !self.strict {
            return;
        }
        let mut found = Vec::new();
        for deployment in 0..self.config.deployments.len() {
            let paced: Vec<&Dispatch> = self
                .dispatches
                .iter()
                .filter(|d| {
                    d.sent && d.deployment == deployment && d.priority > self.rules.pace_worse_than
                })
                .collect();
            for (limit, length) in self.limits(deployment, LimitKind::Requests) {
                for three in paced.windows(3) {
                    let took = three[2].at - three[0].at;
                    if took + 2 * ON_ITS_WAY < length / limit {
                        found.push(format!("A2: three paced calls within {took} us: {three:?}"));
                    }
                }
            }
        }
        self.violations.extend(found);
    }

    /// Fair shares: of two tenants that have tickets of one priority all the time neither gets more than the other but for what its largest ticket costs. Twice that,
    /// for grants that come too late and are given again.
    fn judge_shares(&mut self) {
        if !self.config.fair || self.config.aging.is_some() || !(self.strict && self.faultless) {
            return;
        }
        let mut lines: BTreeMap<(i32, u64), Vec<&Dispatch>> = BTreeMap::new();
        for dispatch in &self.dispatches {
            let line = lines.entry((dispatch.priority, dispatch.share.tenant));
            line.or_default().push(dispatch);
        }
        let mut found = Vec::new();
        for line in lines.values() {
            for (a, b) in line.iter().flat_map(|a| line.iter().map(move |b| (a, b))) {
                if a.arrival < b.arrival && a.start > b.start {
                    found.push(format!("A1: of one tenant {b:?} has its turn before {a:?}"));
                }
            }
        }
        for ((priority, tenant), line) in &lines {
            let others = lines.range((*priority, tenant + 1)..=(*priority, u64::MAX));
            for (_, other) in others {
                for (from, to) in both(&backlogged(line), &backlogged(other)) {
                    let taken = |line: &[&Dispatch], sign: i64| -> Vec<(u64, i64)> {
                        let within = line.iter().filter(|d| (from..to).contains(&d.granted));
                        within
                            .map(|d| (d.granted, sign * d.share.cost.cast_signed()))
                            .collect()
                    };
                    let mut steps = [taken(line, 1), taken(other, -1)].concat();
                    steps.sort_unstable();
                    let (mut ahead, mut most, mut least) = (0, 0, 0);
                    for (_, step) in steps {
                        ahead += step;
                        (most, least) = (ahead.max(most), ahead.min(least));
                    }
                    let largest = |line: &[&Dispatch]| line.iter().map(|d| d.share.cost).max();
                    let bound = largest(line).unwrap_or(0) + largest(other).unwrap_or(0);
                    if (most - least).unsigned_abs() > 2 * bound {
                        found.push(format!(
                            "shares: {} apart at priority {priority} from {from} to {to}",
                            most - least
                        ));
                    }
                }
            }
        }
        self.violations.extend(found);
    }

    /// All that was found.
    pub(crate) fn findings(&mut self) -> Vec<String> {
        let mut found = std::mem::take(&mut self.violations);
        let forgiven = |v: &String| {
            v.contains("calls within") || v.contains("calls open") || v.starts_with("A1")
        };
        found.retain(|v| !(self.forgets && forgiven(v) || self.hurried && v.starts_with("A3")));
        found.truncate(20);
        found
    }
}

/// From which numbers to which at least one of these tickets waited.
fn backlogged(line: &[&Dispatch]) -> Vec<(u64, u64)> {
    let mut waits: Vec<_> = line.iter().map(|d| (d.entered, d.granted)).collect();
    waits.sort_unstable();
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (from, to) in waits {
        match all.last_mut() {
            Some((_, end)) if from < *end => *end = to.max(*end),
            _ => all.push((from, to)),
        }
    }
    all
}

/// What is in both.
fn both(one: &[(u64, u64)], other: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (a, b)));
    let common = pairs.map(|(a, b)| (a.0.max(b.0), a.1.min(b.1)));
    common.filter(|(from, to)| from < to).collect()
}
