//! What the referee judges at the end: windows, order, reserves, pacing and fair shares.

use std::collections::BTreeMap;

use vorrang_scheduler::{LimitKind, Seq};

use crate::{
    referee::{Dispatch, PROPAGATION, Referee, order},
    scenario::WINDOW,
};

impl Referee {
    /// P1 (sessions and replays): a lost reply is replayed, so no grant is lost unless its session has ended or its entry has expired.
    fn judge_lost_grants(&mut self) {
        let shortest = |d| {
            let limits = self.limits(d, LimitKind::Requests);
            limits.map(|l| l.1).min().unwrap_or(0)
        };
        let long = (0..self.config.deployments.len()).all(|d| shortest(d) >= WINDOW);
        if self.faultless && long && !self.any_unresponsive && !self.undelivered.is_empty() {
            let lost = format!(
                "P1: grants that no instance received: {:?}",
                self.undelivered
            );
            self.violations.push(lost);
        }
    }

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
        self.judge_reserve();
        self.judge_pace();
        self.judge_shares();
        if self.reordered {
            return;
        }
        let order = |d: &Dispatch| order(&self.rules, d.priority, d.start, d.arrival);
        // The local fallback (P21) draws its own numbers.
        let by_backend = |d: &&Dispatch| d.granted < Seq(1 << 52) && d.arrival < Seq(1 << 52);
        for a in self.dispatches.iter().filter(by_backend) {
            for b in self.dispatches.iter().filter(by_backend) {
                let overtaken = b.entered < a.granted && a.granted < b.granted;
                if overtaken && order(b) < order(a) {
                    self.violations
                        .push(format!("A1: {a:?} was granted before {b:?}"));
                    return;
                }
            }
        }
    }

    /// Tickets that are worse than the reserve's priority leave the reserve free.
    fn judge_reserve(&mut self) {
        let aged = self.config.aging.is_some();
        let worse = |d: &&Dispatch| d.sent && !aged && d.priority > self.rules.reserve_priority;
        let mut found = Vec::new();
        for last in self.dispatches.iter().filter(worse) {
            for (limit, length) in self.limits(last.deployment, LimitKind::Requests) {
                let before = |d: &&Dispatch| {
                    d.sent
                        && d.deployment == last.deployment
                        && d.granted <= last.granted
                        && d.at + length > last.at
                };
                let within = self.dispatches.iter().filter(before).count() as u64;
                let part = self.part(limit, true);
                if within > part {
                    found.push(format!(
                        "A2: {within} calls within {length} us, {part} are left to {last:?}"
                    ));
                }
            }
        }
        self.violations.extend(found);
    }

    /// Paced calls are an interval apart, except for one that uses the tolerance. Judged where no message is lost: a late refund moves the pace back late.
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
                    if took + 2 * PROPAGATION < length / limit {
                        found.push(format!("A2: three paced calls within {took} us: {three:?}"));
                    }
                }
            }
        }
        self.violations.extend(found);
    }

    /// P19 (fair shares): while two tenants of one priority are backlogged, their services differ by at most their largest tickets. Here twice that, because
    /// grants that are received too late are made again.
    fn judge_shares(&mut self) {
        if !self.config.fair || self.config.aging.is_some() || !(self.strict && self.faultless) {
            return;
        }
        let mut queues: BTreeMap<(i32, u64), Vec<&Dispatch>> = BTreeMap::new();
        for dispatch in &self.dispatches {
            let queue = queues.entry((dispatch.priority, dispatch.share.tenant));
            queue.or_default().push(dispatch);
        }
        let mut found = Vec::new();
        for queue in queues.values() {
            for (a, b) in queue.iter().flat_map(|a| queue.iter().map(move |b| (a, b))) {
                if a.arrival < b.arrival && a.start > b.start {
                    found.push(format!(
                        "A1: of one tenant {b:?} has a lower start tag than {a:?}"
                    ));
                }
            }
        }
        for ((priority, tenant), queue) in &queues {
            let others = queues.range((*priority, tenant + 1)..=(*priority, u64::MAX));
            for (_, other) in others {
                for (from, to) in intersect(&backlogged(queue), &backlogged(other)) {
                    let services = |queue: &[&Dispatch], sign: i64| -> Vec<(Seq, i64)> {
                        let within = queue.iter().filter(|d| (from..to).contains(&d.granted));
                        within
                            .map(|d| (d.granted, sign * d.share.cost.cast_signed()))
                            .collect()
                    };
                    let mut services = [services(queue, 1), services(other, -1)].concat();
                    services.sort_unstable();
                    let (mut ahead, mut most, mut least) = (0, 0, 0);
                    for (_, service) in services {
                        ahead += service;
                        (most, least) = (ahead.max(most), ahead.min(least));
                    }
                    let largest = |queue: &[&Dispatch]| queue.iter().map(|d| d.share.cost).max();
                    let bound = largest(queue).unwrap_or(0) + largest(other).unwrap_or(0);
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

    /// All violations, except those that the scenario excuses.
    pub(crate) fn findings(&mut self) -> Vec<String> {
        let mut found = std::mem::take(&mut self.violations);
        let excused = |v: &String| {
            v.contains("calls within") || v.contains("calls open") || v.starts_with("A1")
        };
        found.retain(|v| {
            !(self.undetected_failover && excused(v) || self.clock_ahead && v.starts_with("A3"))
        });
        found.truncate(20);
        found
    }
}

/// The periods, by sequence number, in which at least one of these tickets waited.
fn backlogged(queue: &[&Dispatch]) -> Vec<(Seq, Seq)> {
    let mut waits: Vec<_> = queue.iter().map(|d| (d.entered, d.granted)).collect();
    waits.sort_unstable();
    let mut all: Vec<(Seq, Seq)> = Vec::new();
    for (from, to) in waits {
        match all.last_mut() {
            Some((_, end)) if from < *end => *end = to.max(*end),
            _ => all.push((from, to)),
        }
    }
    all
}

/// The common parts of two lists of periods.
fn intersect(first: &[(Seq, Seq)], other: &[(Seq, Seq)]) -> Vec<(Seq, Seq)> {
    let pairs = first.iter().flat_map(|a| other.iter().map(move |b| (a, b)));
    let common = pairs.map(|(a, b)| (a.0.max(b.0), a.1.min(b.1)));
    common.filter(|(from, to)| from < to).collect()
}
