//! Whether tenants of one priority that always have something waiting are served alike.
//!
//! Over stretches of ten windows, one starting with each window, Jain's index of what each tenant was granted by its weight: 1 where all
//! were granted alike, 1/n where one of n got everything. Who did not have a request waiting all the time asked for less than its share
//! and is not compared.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Fate, Verdict, waits::queued};
use crate::log::Log;

/// So many windows make a stretch: grants of a tenant are told apart one by one, and a few of them are no share.
const WINDOWS: u64 = 10;

/// How alike tenants of a priority were served.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fairness {
    /// Theirs.
    pub priority: i32,
    /// The least index of a stretch.
    pub least: f64,
    /// The mean of all.
    pub mean: f64,
    /// Those with at least two tenants to compare.
    pub stretches: Vec<Stretch>,
}

/// Ten windows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Stretch {
    /// Seconds since the run's start.
    pub from: f64,
    /// The same.
    pub to: f64,
    /// How many had a request waiting all the time.
    pub tenants: u64,
    /// Jain's index of what they were granted.
    pub index: f64,
}

/// What a tenant asked for and was given at one priority. Times are microseconds.
#[derive(Debug, Default)]
struct Tenant {
    /// When a request of its waited, from and to.
    waits: Vec<(u64, u64)>,
    /// When it was granted one, and what of its share that took.
    grants: Vec<(u64, f64)>,
}

/// By priority, where there are tenants to compare for long enough.
pub fn fairness(log: &Log, fates: &[Fate]) -> Vec<Fairness> {
    let stretches = stretches(log);
    if stretches.is_empty() {
        return Vec::new();
    }
    let mut by_priority: BTreeMap<i32, Vec<Tenant>> = BTreeMap::new();
    for ((priority, _), mut tenant) in tenants(log, fates) {
        tenant.settle();
        by_priority.entry(priority).or_default().push(tenant);
    }
    let judge = |(priority, tenants): (i32, Vec<Tenant>)| {
        let stretches: Vec<Stretch> = stretches
            .iter()
            .filter_map(|&stretch| compare(&tenants, stretch))
            .collect();
        let indices = || stretches.iter().map(|stretch| stretch.index);
        let least = indices().min_by(f64::total_cmp)?;
        Some(Fairness {
            priority,
            least,
            mean: indices().sum::<f64>() / stretches.len() as f64,
            stretches,
        })
    };
    by_priority.into_iter().filter_map(judge).collect()
}

/// What was expected against what was found: the least index of all.
pub(super) fn verdict(expected: f64, found: &[Fairness]) -> Verdict {
    let name = "fairness";
    let worst = found.iter().min_by(|a, b| a.least.total_cmp(&b.least));
    let Some(worst) = worst else {
        return Verdict {
            name,
            passed: None,
            figure: "-".into(),
            detail: "no two tenants of one priority waited for ten windows on end".into(),
        };
    };
    Verdict {
        name,
        passed: Some(worst.least >= expected),
        figure: format!("{:.3}", worst.least),
        detail: format!("{}; at least {expected}", worst.words()),
    }
}

impl Fairness {
    /// How many were compared, the fewest and the most.
    pub fn tenants(&self) -> (u64, u64) {
        let counts = || self.stretches.iter().map(|stretch| stretch.tenants);
        (counts().min().unwrap_or(0), counts().max().unwrap_or(0))
    }

    /// All but the figure itself.
    pub fn words(&self) -> String {
        let (few, many) = self.tenants();
        let tenants = if few == many {
            many.to_string()
        } else {
            format!("{few} to {many}")
        };
        format!(
            "Jain's index of {tenants} tenants of priority {}, the least of {} stretches of ten windows; mean {:.3}",
            self.priority,
            self.stretches.len(),
            self.mean
        )
    }
}

/// All that lie within the judged time: from the expectation's start on, for as long as requests are sent.
fn stretches(log: &Log) -> Vec<(u64, u64)> {
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let from = micros(log.scenario.expect.slots_from.0);
    let end = micros(log.scenario.length());
    let window = log.window().max(1);
    let of = |number: u64| {
        let start = from.checked_add(number.checked_mul(window)?)?;
        let to = start.checked_add(window.checked_mul(WINDOWS)?)?;
        (to <= end).then_some((start, to))
    };
    (0..).map_while(of).collect()
}

/// By priority and name.
fn tenants(log: &Log, fates: &[Fate]) -> BTreeMap<(i32, String), Tenant> {
    let arrivals = log.arrivals();
    let none = Vec::new();
    let priorities = log.priorities();
    let mut tenants: BTreeMap<_, Tenant> = BTreeMap::new();
    for (record, fate) in log.records.iter().zip(fates) {
        let traffic = record.traffic;
        if !log.scenario.has_tenants(traffic) {
            continue;
        }
        let name = log.scenario.sharer(traffic, record.tenant);
        let tenant = tenants.entry((priorities[traffic], name)).or_default();
        let arrivals = arrivals.get(record.id.as_str()).unwrap_or(&none);
        let wait = queued(record, arrivals);
        tenant.waits.extend(wait);
        // A call counts as service whatever its outcome, also if its client gives up meanwhile; a retry does not count again.
        let called = arrivals.first().map(|arrival| arrival.at);
        let answered = wait.filter(|_| *fate == Fate::Answered);
        if let Some(at) = called.or(answered.map(|(_, to)| to)) {
            let part = 1.0 / log.scenario.traffic[traffic].weight;
            tenant.grants.push((at, part));
        }
    }
    tenants
}

impl Tenant {
    /// Waits that touch become one, and all is in order.
    fn settle(&mut self) {
        self.grants.sort_by_key(|&(at, _)| at);
        self.waits.sort_unstable();
        self.waits.dedup_by(|next, last| {
            let touch = next.0 <= last.1;
            if touch {
                last.1 = last.1.max(next.1);
            }
            touch
        });
    }

    /// Whether one of its requests waited at each moment.
    fn backlogged(&self, (from, to): (u64, u64)) -> bool {
        let after = self.waits.partition_point(|&(start, _)| start <= from);
        let last = after.checked_sub(1).map(|index| self.waits[index]);
        last.is_some_and(|(_, end)| end >= to)
    }

    /// What it was granted, by its weight.
    fn service(&self, (from, to): (u64, u64)) -> f64 {
        let first = self.grants.partition_point(|&(at, _)| at < from);
        let grants = self.grants[first..].iter();
        let within = grants.take_while(|&&(at, _)| at < to);
        within.map(|&(_, part)| part).sum()
    }
}

fn compare(tenants: &[Tenant], stretch: (u64, u64)) -> Option<Stretch> {
    let compared = tenants.iter().filter(|tenant| tenant.backlogged(stretch));
    let service: Vec<f64> = compared.map(|tenant| tenant.service(stretch)).collect();
    let index = jain(&service)?;
    let seconds = |micros: u64| micros as f64 / 1e6;
    Some(Stretch {
        from: seconds(stretch.0),
        to: seconds(stretch.1),
        tenants: service.len() as u64,
        index,
    })
}

/// Jain's index; none where there are not two tenants to compare, or no tenant got anything.
fn jain(service: &[f64]) -> Option<f64> {
    let sum: f64 = service.iter().sum();
    let squares: f64 = service.iter().map(|x| x * x).sum();
    let index = sum * sum / (service.len() as f64 * squares);
    (service.len() > 1 && squares > 0.0).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jain_index_is_the_share_of_tenants_served_alike() {
        let index = |service: &[f64]| jain(service).unwrap();
        assert_eq!(index(&[3.0, 3.0, 3.0]), 1.0);
        assert_eq!(index(&[8.0, 0.0, 0.0, 0.0]), 0.25);
        assert!((index(&[1.0, 3.0]) - 0.8).abs() < 1e-12);
        assert_eq!(jain(&[3.0]), None);
        assert_eq!(jain(&[0.0, 0.0]), None);
    }

    #[test]
    fn adjacent_waits_merge_and_gaps_separate_them() {
        let mut tenant = Tenant {
            waits: vec![(20, 30), (0, 10), (5, 20), (2, 3), (31, 40)],
            grants: vec![(30, 1.0), (10, 0.5), (20, 1.0)],
        };
        tenant.settle();
        assert_eq!(tenant.waits, [(0, 30), (31, 40)]);
        assert!(tenant.backlogged((0, 30)) && tenant.backlogged((7, 25)));
        assert!(!tenant.backlogged((0, 31)) && !tenant.backlogged((25, 35)));
        assert!(!tenant.backlogged((41, 42)));
        assert_eq!(tenant.service((10, 30)), 1.5);
    }
}
