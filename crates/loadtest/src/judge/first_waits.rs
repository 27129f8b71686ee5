//! How soon a new tenant is served: behind the backlog of others, or within one round.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Fate, waits::queued};
use crate::log::{Log, Record};

/// How long the first request of each tenant of a traffic waited.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FirstWaits {
    /// How many there are.
    pub tenants: u64,
    /// Those whose first request was not answered: it waited for as long as its client stayed.
    pub unanswered: u64,
    /// Seconds, of all.
    pub median: f64,
    /// The longest.
    pub most: f64,
}

/// By traffic; none where a traffic's tenants cannot be told apart.
pub fn first_waits(log: &Log, fates: &[Fate]) -> Vec<Option<FirstWaits>> {
    let arrivals = log.arrivals();
    let none = Vec::new();
    // Records are in the order they were meant to be sent.
    let mut firsts: BTreeMap<(usize, u64), (&Record, &Fate)> = BTreeMap::new();
    for (record, fate) in log.records.iter().zip(fates) {
        let tenant = (record.traffic, record.tenant);
        firsts.entry(tenant).or_insert((record, fate));
    }
    let of = |traffic: usize| {
        if !log.scenario.has_tenants(traffic) {
            return None;
        }
        let of_traffic = || {
            firsts
                .range((traffic, 0)..(traffic + 1, 0))
                .map(|(_, one)| *one)
        };
        let mut waits: Vec<u64> = of_traffic()
            .filter_map(|(record, _)| {
                let arrivals = arrivals.get(record.id.as_str()).unwrap_or(&none);
                let (from, to) = queued(record, arrivals)?;
                Some(to - from)
            })
            .collect();
        waits.sort_unstable();
        let seconds = |micros: &u64| *micros as f64 / 1e6;
        Some(FirstWaits {
            tenants: of_traffic().count() as u64,
            unanswered: of_traffic()
                .filter(|(_, fate)| **fate != Fate::Answered)
                .count() as u64,
            median: seconds(waits.get(waits.len().saturating_sub(1) / 2)?),
            most: seconds(waits.last()?),
        })
    };
    (0..log.scenario.traffic.len()).map(of).collect()
}
