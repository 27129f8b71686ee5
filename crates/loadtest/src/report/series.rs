//! A run over time.

use std::collections::HashMap;

use serde::Serialize;

use crate::{judge::Wait, log::Log};

/// Values at evenly spaced times, the ends of equal bins.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// Seconds since the run's start.
    pub time: Vec<f64>,
    /// By traffic: calls that reached the provider within the window before.
    pub in_window: Vec<Vec<u64>>,
    /// By traffic: the most requests that waited at once within the bin.
    pub waiting: Vec<Vec<u64>>,
    /// Requests that clients meant to send within the window before.
    pub offered: Vec<u64>,
    /// The share of slots used within the bin while tickets waited, 0 to 1.
    pub used: Vec<Option<f64>>,
}

impl Series {
    /// Of a run. `window`: microseconds; `used` has one value for each bin.
    pub fn new(log: &Log, waits: &[Wait], window: u64, used: Vec<Option<f64>>) -> Self {
        let bins = used.len().max(1);
        let length = (log.end() / bins as u64).max(1);
        let ends: Vec<u64> = (1..=bins as u64).map(|bin| bin * length).collect();
        let by_traffic = |count: &dyn Fn(usize) -> Vec<u64>| -> Vec<Vec<u64>> {
            (0..log.scenario.traffic.len()).map(count).collect()
        };
        let traffics: HashMap<&str, usize> = log
            .records
            .iter()
            .map(|record| (record.id.as_str(), record.traffic))
            .collect();
        let mut arrivals = vec![Vec::new(); log.scenario.traffic.len()];
        for arrival in log.provider.iter().flat_map(|report| &report.arrivals) {
            if let Some(&traffic) = traffics.get(arrival.id.as_str()) {
                arrivals[traffic].push(arrival.at);
            }
        }
        let meant: Vec<u64> = log.records.iter().map(|record| record.meant).collect();
        Self {
            in_window: by_traffic(&|traffic| trailing(&arrivals[traffic], &ends, window)),
            waiting: by_traffic(&|traffic| {
                let of = waits.iter().filter(|wait| wait.traffic == traffic);
                most_at_once(of, length, bins)
            }),
            offered: trailing(&meant, &ends, window),
            time: ends.iter().map(|&end| end as f64 / 1e6).collect(),
            used,
        }
    }
}

/// How many of the sorted `times` lie in (end - window, end], for each end.
fn trailing(times: &[u64], ends: &[u64], window: u64) -> Vec<u64> {
    debug_assert!(times.is_sorted());
    let until = |end: u64| times.partition_point(|&time| time <= end) as u64;
    let count = |&end: &u64| match end.checked_sub(window) {
        Some(start) => until(end) - until(start),
        None => until(end),
    };
    ends.iter().map(count).collect()
}

fn most_at_once<'a>(waits: impl Iterator<Item = &'a Wait>, length: u64, bins: usize) -> Vec<u64> {
    let mut changes: Vec<(u64, i64)> = waits
        .flat_map(|wait| [(wait.from, 1), (wait.to, -1)])
        .collect();
    // At equal times ends come first: a request that follows another at once does not overlap with it.
    changes.sort_unstable();
    let mut most = vec![0; bins];
    let (mut now, mut next) = (0_i64, changes.iter().peekable());
    for (bin, most) in most.iter_mut().enumerate() {
        let end = (bin as u64 + 1) * length;
        *most = now;
        while let Some((_, by)) = next.next_if(|(time, _)| *time < end) {
            now += by;
            *most = (*most).max(now);
        }
    }
    let unsigned = |count: i64| u64::try_from(count).unwrap_or(0);
    most.into_iter().map(unsigned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_count_covers_the_window_before_each_end() {
        let times = [1, 5, 5, 10, 20];
        assert_eq!(trailing(&times, &[5, 10, 15, 20], 5), [3, 1, 0, 1]);
    }

    #[test]
    fn waiting_count_reports_its_peak() {
        let wait = |from, to| Wait {
            traffic: 0,
            from,
            to,
        };
        let waits = [wait(0, 12), wait(3, 5), wait(5, 8), wait(25, 26)];
        assert_eq!(most_at_once(waits.iter(), 10, 3), [2, 1, 1]);
    }
}
