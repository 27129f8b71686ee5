//! Counts and percentiles of some requests.

use serde::Serialize;

use crate::{judge::Fate, log::Record};

/// Where percentile curves have a point: parts of ten thousand.
const POINTS: [u32; 14] = [
    0, 1000, 2500, 5000, 7500, 9000, 9500, 9800, 9900, 9950, 9980, 9990, 9999, 10_000,
];

/// What became of some requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// How many there were.
    pub sent: u64,
    /// With a whole answer.
    pub answered: u64,
    /// Hung up by plan.
    pub left: u64,
    /// With an error, or for a known reason.
    pub failed: u64,
    /// Without either.
    pub lost: u64,
    /// In the queue, of answered requests.
    pub wait: Option<Percentiles>,
    /// From the intended start to the answer's head, of the same.
    pub head: Option<Percentiles>,
    /// From the intended start to the answer's end, of the same.
    pub latency: Option<Percentiles>,
}

/// Seconds that so many per cent stay at or below.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// All but one of a hundred.
    pub p99: f64,
    /// All but one of a thousand.
    pub p999: f64,
    /// All.
    pub most: f64,
}

pub(super) fn waited(record: &Record) -> Option<f64> {
    let ticket = record.ticket.as_ref()?;
    Some(ticket.waited as f64 / 1e6)
}

/// From when it was meant to be sent: a generator that stalls does not hide what users would have waited.
pub(super) fn latency(record: &Record) -> f64 {
    record.end.saturating_sub(record.meant) as f64 / 1e6
}

fn to_head(record: &Record) -> Option<f64> {
    Some(record.head?.saturating_sub(record.meant) as f64 / 1e6)
}

/// The value that so many parts of ten thousand of the sorted values do not exceed (nearest rank).
fn at(sorted: &[f64], parts: u32) -> Option<f64> {
    let rank = (sorted.len() as u64 * u64::from(parts)).div_ceil(10_000);
    let index = usize::try_from(rank.saturating_sub(1)).ok()?;
    sorted.get(index).copied()
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// Points of a percentile curve: (per cent, value).
pub(super) fn curve(values: Vec<f64>) -> Vec<(f64, f64)> {
    let values = sorted(values);
    let point = |parts: u32| Some((f64::from(parts) / 100.0, at(&values, parts)?));
    POINTS.into_iter().filter_map(point).collect()
}

impl Percentiles {
    pub(super) fn of(values: Vec<f64>) -> Option<Self> {
        let values = sorted(values);
        Some(Self {
            p50: at(&values, 5000)?,
            p90: at(&values, 9000)?,
            p99: at(&values, 9900)?,
            p999: at(&values, 9990)?,
            most: at(&values, 10_000)?,
        })
    }
}

impl Figures {
    pub(super) fn of<'a>(records: impl Iterator<Item = (&'a Record, &'a Fate)>) -> Self {
        let records: Vec<(&Record, &Fate)> = records.collect();
        let count =
            |is: fn(&Fate) -> bool| records.iter().filter(|(_, fate)| is(fate)).count() as u64;
        let answered = || {
            let answered = records.iter().filter(|(_, fate)| **fate == Fate::Answered);
            answered.map(|(record, _)| *record)
        };
        Self {
            sent: records.len() as u64,
            answered: answered().count() as u64,
            left: count(|fate| *fate == Fate::Left),
            failed: count(|fate| matches!(fate, Fate::Failed(_))),
            lost: count(|fate| matches!(fate, Fate::Lost(_))),
            wait: Percentiles::of(answered().filter_map(waited).collect()),
            head: Percentiles::of(answered().filter_map(to_head).collect()),
            latency: Percentiles::of(answered().map(latency).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let values: Vec<f64> = (1..=1000).rev().map(f64::from).collect();
        let percentiles = Percentiles::of(values).unwrap();
        let expected = Percentiles {
            p50: 500.0,
            p90: 900.0,
            p99: 990.0,
            p999: 999.0,
            most: 1000.0,
        };
        assert_eq!(percentiles, expected);
        assert_eq!(Percentiles::of(vec![7.0]).unwrap().p50, 7.0);
        assert_eq!(Percentiles::of(Vec::new()), None);
        assert_eq!(curve(vec![3.0, 1.0])[0], (0.0, 1.0));
    }
}
