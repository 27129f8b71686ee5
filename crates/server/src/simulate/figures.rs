//! Sums of many waits, in little memory.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

/// A wait counts in a bucket that is at most 1/128 wide, relative to it.
const PRECISION: u32 = 7;

/// How many waits there were of each length, with an error below 1 %.
#[derive(Debug, Clone, Default)]
pub(super) struct Waits {
    buckets: BTreeMap<u16, u64>,
    count: u64,
    sum: f64,
    most: Duration,
}

fn bucket(micros: u64) -> u16 {
    let bits = u64::BITS - micros.leading_zeros();
    let shift = bits.saturating_sub(PRECISION + 1);
    let index = (u64::from(shift) << PRECISION) + (micros >> shift);
    u16::try_from(index).unwrap_or(u16::MAX)
}

/// The middle of a bucket.
fn middle(bucket: u16) -> Duration {
    let index = u64::from(bucket);
    let shift = (index >> PRECISION).saturating_sub(1);
    let low = (index - (shift << PRECISION)) << shift;
    Duration::from_micros(low + ((1 << shift) >> 1))
}

impl Waits {
    pub(super) fn add(&mut self, wait: Duration) {
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        *self.buckets.entry(bucket(micros)).or_default() += 1;
        self.count += 1;
        self.sum += wait.as_secs_f64();
        self.most = self.most.max(wait);
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The wait that so many of ten thousand do not exceed.
    fn at(&self, parts: u64) -> f64 {
        let rank = (u128::from(self.count) * u128::from(parts))
            .div_ceil(10_000)
            .max(1);
        let mut seen = 0_u128;
        for (bucket, count) in &self.buckets {
            seen += u128::from(*count);
            if seen >= rank {
                return middle(*bucket).min(self.most).as_secs_f64();
            }
        }
        self.most.as_secs_f64()
    }

    #[expect(clippy::cast_precision_loss, reason = "a mean")]
    pub(super) fn percentiles(&self) -> Option<Percentiles> {
        (self.count > 0).then(|| Percentiles {
            mean: self.sum / self.count as f64,
            p50: self.at(5_000),
            p90: self.at(9_000),
            p99: self.at(9_900),
            max: self.most.as_secs_f64(),
        })
    }

    /// Points of the percentile curve: (per cent, seconds).
    #[expect(clippy::cast_precision_loss, reason = "parts of ten thousand")]
    pub(super) fn curve(&self) -> Vec<(f64, f64)> {
        const POINTS: [u64; 13] = [
            0, 1000, 2500, 5000, 7500, 9000, 9500, 9800, 9900, 9950, 9990, 9999, 10_000,
        ];
        if self.count == 0 {
            return Vec::new();
        }
        POINTS
            .iter()
            .map(|parts| (*parts as f64 / 100.0, self.at(*parts)))
            .collect()
    }
}

/// Seconds that so many per cent of the granted requests waited at most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// Of all.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// All but one of a hundred.
    pub p99: f64,
    /// All.
    pub max: f64,
}

/// What became of some requests.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    pub(super) waits: Waits,
    pub(super) timed_out: u64,
    pub(super) refused: u64,
}

/// The same, to show.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FigureLine {
    /// How many were granted.
    pub granted: u64,
    /// How many waited until their time was up, or their client left.
    pub timed_out: u64,
    /// How many the queue refused.
    pub refused: u64,
    /// Of the granted ones; none without any.
    pub wait: Option<Percentiles>,
}

impl Figures {
    pub(super) fn line(&self) -> FigureLine {
        FigureLine {
            granted: self.waits.count(),
            timed_out: self.timed_out,
            refused: self.refused,
            wait: self.waits.percentiles(),
        }
    }
}

/// Values over time, in at most so many bins: their width doubles when there are too many.
#[derive(Debug, Clone)]
pub(super) struct Series<T> {
    pub(super) width: Duration,
    pub(super) bins: Vec<T>,
}

const MOST_BINS: usize = 480;

impl<T: Default> Series<T> {
    pub(super) fn new() -> Self {
        Self {
            width: Duration::from_secs(1),
            bins: Vec::new(),
        }
    }

    /// The bin of a time. `merge` adds a bin to the one before it.
    pub(super) fn at(&mut self, time: Duration, merge: impl Fn(&mut T, T)) -> &mut T {
        let index = |width: Duration| {
            let index = time.as_micros() / width.as_micros().max(1);
            usize::try_from(index).unwrap_or(usize::MAX)
        };
        while index(self.width) >= MOST_BINS {
            self.width *= 2;
            let mut merged = Vec::with_capacity(MOST_BINS / 2);
            for (n, bin) in std::mem::take(&mut self.bins).into_iter().enumerate() {
                match merged.last_mut() {
                    Some(last) if n % 2 == 1 => merge(last, bin),
                    _ => merged.push(bin),
                }
            }
            self.bins = merged;
        }
        let index = index(self.width);
        if self.bins.len() <= index {
            self.bins.resize_with(index + 1, T::default);
        }
        &mut self.bins[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_sketch_are_within_one_per_cent() {
        let mut random = fastrand_like(7);
        let mut all: Vec<u64> = (0..50_000).map(|_| random() % 3_000_000_000).collect();
        all.extend((0..50_000).map(|_| random() % 3_000));
        let mut waits = Waits::default();
        for micros in &all {
            waits.add(Duration::from_micros(*micros));
        }
        all.sort_unstable();
        for (point, found) in waits.curve() {
            let rank = (all.len() as f64 * point / 100.0).ceil().max(1.0) as usize;
            let exact = all[rank - 1] as f64 / 1e6;
            assert!(
                (found - exact).abs() <= exact * 0.01 + 1e-6,
                "{point} %: {found} for {exact}"
            );
        }
        let percentiles = waits.percentiles().unwrap();
        assert_eq!(percentiles.max, all[all.len() - 1] as f64 / 1e6);
        assert!(waits.buckets.len() < 4_000);
    }

    /// A generator that needs no crate.
    fn fastrand_like(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state >> 20
        }
    }

    #[test]
    fn series_keeps_its_sum_when_bins_are_merged() {
        let mut series = Series::<u64>::new();
        for second in 0..10_000 {
            *series.at(Duration::from_secs(second), |a, b| *a += b) += 1;
        }
        assert!(series.bins.len() <= MOST_BINS && series.bins.iter().sum::<u64>() == 10_000);
        assert_eq!(series.width, Duration::from_secs(32));
    }
}
