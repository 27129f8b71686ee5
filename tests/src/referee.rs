//! Judges a run from what its clients and its upstream saw.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// One request's way through the queue: its priority and the numbers of `x-vorrang-ticket`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    /// Lower is better.
    pub priority: i32,
    /// Drawn at the first entry.
    pub arrival: u64,
    /// Drawn at the last entry.
    pub entered: u64,
    /// Drawn at the grant.
    pub granted: u64,
    /// What it was ordered by first: its priority, or with aging its score.
    pub score: i64,
    /// Its start tag, with fair shares; else 0.
    pub start: u64,
}

impl Passage {
    /// What A1 orders by.
    pub fn key(&self) -> (i64, u64, u64) {
        (self.score, self.start, self.arrival)
    }
}

/// Every (winner, inverted): b was inverted by a iff E(b) < G(a) < G(b) and (score, start, arrival) of b is less.
pub fn inversions(passages: &[Passage]) -> Vec<(Passage, Passage)> {
    let mut granted = passages.to_vec();
    granted.sort_unstable_by_key(|passage| passage.granted);
    let mut found = Vec::new();
    for (index, b) in granted.iter().enumerate() {
        // Only those granted while b waited: a soak has more passages than could be paired.
        let from = granted.partition_point(|a| a.granted <= b.entered);
        let meanwhile = granted.get(from..index).unwrap_or_default().iter();
        let won = meanwhile.filter(|a| a.granted < b.granted && b.key() < a.key());
        found.extend(won.map(|a| (*a, *b)));
    }
    found
}

/// The most of `times` (microseconds, in any order) that lie in one half-open window of `length`.
pub fn fullest_window(times: &[u64], length: Duration) -> usize {
    let times = sorted(times);
    let ends = |start: u64| u128::from(start) + length.as_micros();
    let counts = times.iter().enumerate().map(|(first, &start)| {
        let inside = |&&time: &&u64| u128::from(time) < ends(start);
        times[first..].iter().take_while(inside).count()
    });
    counts.max().unwrap_or(0)
}

/// A limit of so many calls in every window.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// How many.
    pub calls: usize,
    /// The window.
    pub window: Duration,
    /// How much longer than the window an entry counts.
    pub guard: Duration,
}

impl Limit {
    /// Judges A3 by when calls were dispatched and when they arrived, and returns [`slowest_refill`] of the dispatches.
    ///
    /// The limit is one of dispatches, and there it is exact. What deliveries took beyond half the guard, as on a machine that is
    /// busy with something else, is taken off the windows at the upstream; on a quiet machine that is nothing.
    ///
    /// # Errors
    /// A window is over the limit, or a call has no dispatch of its own.
    pub fn judge(self, dispatched: &[u64], arrived: &[u64]) -> Result<Duration> {
        let (dispatched, arrived) = (sorted(dispatched), sorted(arrived));
        ensure!(
            dispatched.len() == arrived.len(),
            "{} dispatched, {} arrived",
            dispatched.len(),
            arrived.len()
        );
        let fullest = fullest_window(&dispatched, self.window);
        ensure!(
            fullest <= self.calls,
            "{fullest} dispatched in a window: {dispatched:?}"
        );
        let mut slowest = 0;
        for (from, to) in dispatched.iter().zip(&arrived) {
            let took = to.checked_sub(*from);
            slowest = slowest.max(took.context("a call arrived before it was dispatched")?);
        }
        let slowest = Duration::from_micros(slowest);
        println!("the slowest delivery took {slowest:?}");
        let window = self.window - slowest.saturating_sub(self.guard / 2).min(self.window);
        let fullest = fullest_window(&arrived, window);
        ensure!(
            fullest <= self.calls,
            "{fullest} arrived in {window:?}: {arrived:?}"
        );
        Ok(slowest_refill(&dispatched, self.calls))
    }
}

/// How long a slot in a window of `limit` stayed taken at most: the longest time from a call to the `limit`-th after it. Under
/// load this is the window and its guard; more means that a window was not filled.
pub fn slowest_refill(times: &[u64], limit: usize) -> Duration {
    let times = sorted(times);
    let spans = times.iter().zip(times.iter().skip(limit));
    let longest = spans.map(|(from, to)| to - from).max();
    Duration::from_micros(longest.unwrap_or(0))
}

/// The longest time without a call.
pub fn longest_gap(times: &[u64]) -> Duration {
    slowest_refill(times, 1)
}

/// The most of these (from, to), in microseconds, that overlap.
pub fn most_at_once(spans: &[(u64, u64)]) -> usize {
    let ends = spans.iter().map(|&(_, to)| (to, false));
    let mut edges: Vec<_> = spans.iter().map(|&(from, _)| (from, true)).collect();
    edges.extend(ends);
    // At the same moment an end comes before a begin.
    edges.sort_unstable();
    let (mut open, mut most) = (0_usize, 0);
    for (_, begins) in edges {
        open = if begins {
            open + 1
        } else {
            open.saturating_sub(1)
        };
        most = most.max(open);
    }
    most
}

fn sorted(times: &[u64]) -> Vec<u64> {
    let mut times = times.to_vec();
    times.sort_unstable();
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passage(priority: i32, arrival: u64, entered: u64, granted: u64) -> Passage {
        Passage {
            priority,
            arrival,
            entered,
            granted,
            score: priority.into(),
            start: 0,
        }
    }

    #[test]
    fn referee_counts_a_worse_grant_before_a_better_waiting_ticket() {
        let (worse, better) = (passage(5, 1, 1, 3), passage(0, 2, 2, 4));
        assert_eq!(inversions(&[better, worse]), [(worse, better)]);
        // In the queue's order there is none, and none where the better one came after the grant.
        assert!(inversions(&[passage(5, 1, 1, 4), passage(0, 2, 2, 3)]).is_empty());
        assert!(inversions(&[passage(5, 1, 1, 2), passage(0, 3, 3, 4)]).is_empty());
    }

    #[test]
    fn referee_counts_a_later_arrival_granted_first_within_a_priority() {
        let (late, early) = (passage(0, 2, 2, 3), passage(0, 1, 1, 4));
        assert_eq!(inversions(&[early, late]), [(late, early)]);
        // A retry that came back after the grant of a later one was not in the queue then.
        assert!(inversions(&[passage(0, 1, 5, 6), late]).is_empty());
    }

    #[test]
    fn referee_counts_a_later_start_tag_granted_first_with_fair_shares() {
        let starting = |start, passage| Passage { start, ..passage };
        let late = starting(20, passage(0, 1, 1, 3));
        let early = starting(10, passage(0, 2, 2, 4));
        assert_eq!(inversions(&[early, late]), [(late, early)]);
        assert!(inversions(&[starting(30, early), late]).is_empty());
    }

    #[test]
    fn fullest_window_slides_and_is_half_open() {
        let second = Duration::from_secs(1);
        assert_eq!(fullest_window(&[], second), 0);
        assert_eq!(fullest_window(&[1_000_000, 0], second), 1);
        assert_eq!(fullest_window(&[0, 600_000, 999_999, 1_000_000], second), 3);
    }

    #[test]
    fn judge_is_exact_at_dispatch_and_excuses_slow_delivery() {
        let limit = Limit {
            calls: 2,
            window: Duration::from_secs(1),
            guard: Duration::from_millis(50),
        };
        let fine = limit
            .judge(&[0, 1, 1_050_000], &[9, 10, 1_050_009])
            .unwrap();
        assert_eq!(fine, Duration::from_micros(1_050_000));
        assert!(limit.judge(&[0, 1, 999_999], &[9, 10, 1_050_009]).is_err());
        // Slow deliveries excuse the upstream's windows, but only by what they took.
        let late = [200_000, 200_001, 1_100_000];
        assert!(limit.judge(&[0, 1, 1_050_000], &late).is_ok());
        assert!(limit.judge(&[170_000, 180_000, 1_180_000], &late).is_err());
        assert!(limit.judge(&[0, 1], &[9, 10, 11]).is_err());
        assert!(limit.judge(&[5], &[4]).is_err());
    }

    #[test]
    fn refill_time_is_from_a_call_to_the_one_that_replaces_it() {
        assert_eq!(
            slowest_refill(&[0, 10, 1_100, 1_150, 2_300], 2),
            Duration::from_micros(1_200)
        );
        assert_eq!(slowest_refill(&[0, 10], 2), Duration::ZERO);
        assert_eq!(longest_gap(&[100, 0, 30]), Duration::from_micros(70));
    }

    #[test]
    fn most_at_once_counts_overlaps_but_not_consecutive_calls() {
        assert_eq!(most_at_once(&[]), 0);
        assert_eq!(most_at_once(&[(0, 10), (10, 20), (20, 30)]), 1);
        assert_eq!(most_at_once(&[(0, 10), (5, 20), (9, 30), (10, 11)]), 3);
    }
}
