//! Times by their length, in buckets that all instances have in common, so that their counts can be added.

use serde::{Deserialize, Serialize};

/// Times up to 8 ms have a bucket for each millisecond; each doubling above has eight.
const SUB_BUCKETS: u64 = 8;
const SUB_BITS: u32 = 3;
/// Longer times count as this long: four and a half hours.
const LONGEST_MS: u64 = (1 << 24) - 1;

/// So many buckets there are.
pub(crate) const BUCKETS: usize = bucket(LONGEST_MS) + 1;

/// The bucket of a time.
pub(crate) const fn bucket(ms: u64) -> usize {
    let ms = if ms < LONGEST_MS { ms } else { LONGEST_MS };
    if ms < SUB_BUCKETS {
        return ms as usize;
    }
    let octave = ms.ilog2();
    let within = (ms >> (octave - SUB_BITS)) & (SUB_BUCKETS - 1);
    ((octave - SUB_BITS + 1) as usize) * (SUB_BUCKETS as usize) + within as usize
}

/// The middle of a bucket, in milliseconds: at most a sixteenth away from each time in it.
fn middle_ms(bucket: usize) -> u64 {
    let bucket = (bucket as u64).min(BUCKETS as u64 - 1);
    if bucket < SUB_BUCKETS {
        return bucket;
    }
    let shift = bucket / SUB_BUCKETS - 1;
    let lower = (SUB_BUCKETS + bucket % SUB_BUCKETS) << shift;
    lower + (1 << shift) / 2
}

/// Counts of times, of the buckets that have any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Histogram(Vec<(usize, u64)>);

impl Histogram {
    /// Of the counts of all buckets.
    pub(crate) fn of(counts: &[u64; BUCKETS]) -> Self {
        let counts = counts.iter().copied().enumerate();
        Self(counts.filter(|(_, count)| *count > 0).collect())
    }

    /// Adds the counts of another.
    pub(crate) fn add(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            match self.0.binary_search_by_key(bucket, |(own, _)| *own) {
                Ok(index) => self.0[index].1 = self.0[index].1.saturating_add(*count),
                Err(index) => self.0.insert(index, (*bucket, *count)),
            }
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.0
            .iter()
            .fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// The time that so many of a thousand are not above, in milliseconds, give or take a sixteenth; `None` without any.
    pub(crate) fn permille_ms(&self, permille: u64) -> Option<u64> {
        let rank = (u128::from(self.count()) * u128::from(permille)).div_ceil(1000);
        let mut seen = 0;
        let mut buckets = self.0.iter();
        let found = buckets.find(|(_, count)| {
            seen += u128::from(*count);
            seen >= rank
        });
        found.map(|(bucket, _)| middle_ms(*bucket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_their_middle_is_within_a_sixteenth() {
        let mut last = 0;
        for ms in (0..5000).chain([1 << 20, LONGEST_MS, u64::MAX]) {
            let bucket = bucket(ms);
            assert!(bucket == last || bucket == last + 1 || ms >= 5000, "{ms}");
            assert!(bucket < BUCKETS);
            last = bucket;
            let ms = ms.min(LONGEST_MS);
            assert!(middle_ms(bucket).abs_diff(ms) <= ms / 16 + 1, "{ms}");
        }
    }

    #[test]
    fn merged_histograms_have_the_quantiles_of_all_times() {
        let of = |times: std::ops::Range<u64>| {
            let mut counts = [0; BUCKETS];
            times.for_each(|ms| counts[bucket(ms)] += 1);
            Histogram::of(&counts)
        };
        let mut merged = of(500..1000);
        merged.add(&of(0..500));
        assert_eq!(merged, of(0..1000));
        assert_eq!(merged.count(), 1000);
        for (permille, expected) in [(500, 499), (990, 989), (1000, 999)] {
            let ms = merged.permille_ms(permille).unwrap();
            assert!(
                ms.abs_diff(expected) <= expected / 16 + 1,
                "{permille}: {ms}"
            );
        }
        assert_eq!(Histogram::default().permille_ms(500), None);
    }

    #[test]
    fn histogram_of_another_version_with_unknown_buckets_is_added() {
        let mut own = Histogram::default();
        let foreign: Histogram = serde_json::from_str("[[9999,1],[3,2]]").unwrap();
        own.add(&foreign);
        assert_eq!(own.count(), 3);
        assert!(own.permille_ms(1000).is_some());
    }
}
