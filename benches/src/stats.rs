//! The harness's arithmetic: medians, spreads, ratios, slopes.

use serde::{Deserialize, Serialize};

/// The middle and the ends of some values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// None without values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let upper = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[upper - 1], sorted[upper])
        } else {
            sorted[upper]
        };
        Some(Self {
            median,
            least,
            most,
        })
    }
}

/// The spread of `values[round] / reference[round]`: what disturbs a whole round disturbs both.
pub(crate) fn ratios(values: &[f64], reference: &[f64]) -> Option<Spread> {
    let pairs = values.iter().zip(reference);
    let ratios: Vec<f64> = pairs
        .filter(|(_, reference)| **reference != 0.0)
        .map(|(value, reference)| value / reference)
        .collect();
    Spread::of(&ratios)
}

/// The value that `part` (0 to 1) of the sorted values do not exceed (nearest rank).
pub(crate) fn percentile(sorted: &[u64], part: f64) -> Option<u64> {
    debug_assert!(sorted.is_sorted());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the number of values"
    )]
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// How much `y` grows for each further `x`: the line through all points with the least squares.
pub(crate) fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|p| p.0), mean(|p| p.1));
    let across: f64 = points
        .iter()
        .map(|(x, y)| (x - x_mean) * (y - y_mean))
        .sum();
    let along: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    (along > 0.0).then(|| across / along)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_an_even_count_is_between_the_middle_values() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 2.5, 4.0));
        assert_eq!(Spread::of(&[7.0, 9.0, 1.0]).unwrap().median, 7.0);
        assert_eq!(Spread::of(&[]), None);
    }

    /// The second round was slow for both: the ratio does not show it.
    #[test]
    fn ratio_is_the_median_of_the_ratios_of_each_round() {
        let spread = ratios(&[20.0, 80.0, 30.0], &[10.0, 40.0, 10.0]).unwrap();
        assert_eq!((spread.least, spread.median, spread.most), (2.0, 2.0, 3.0));
        assert_eq!(ratios(&[1.0], &[0.0]), None);
    }

    #[test]
    fn percentile_is_a_measured_value() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&values, 0.5), Some(50));
        assert_eq!(percentile(&values, 0.99), Some(99));
        assert_eq!(percentile(&values, 1.0), Some(100));
        assert_eq!(percentile(&[3], 0.0), Some(3));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn slope_is_what_each_further_unit_adds() {
        assert_eq!(
            slope(&[(1.0, 110.0), (8.0, 180.0), (32.0, 420.0)]),
            Some(10.0)
        );
        assert_eq!(slope(&[(1.0, 5.0)]), None);
        assert_eq!(slope(&[]), None);
    }
}
