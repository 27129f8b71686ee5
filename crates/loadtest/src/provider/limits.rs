//! The provider's limits, exact: what a call is charged, and whether it should have been made.
//!
//! Nothing here reads a clock: `now` is the time since some start, and never goes back.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};
use vorrang_scenario::settings::Limits;

/// Which limit a call ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `rpm`.
    Requests,
    /// `tpm`.
    Tokens,
    /// `concurrency`.
    Concurrency,
}

/// A call that should not have been made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// The limit.
    pub kind: Kind,
    /// When there may be room again.
    pub retry_after: Duration,
}

/// One number for each limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Of requests.
    pub requests: u64,
    /// Of tokens.
    pub tokens: u64,
    /// Of open calls.
    pub concurrency: u64,
}

/// A sliding window: an entry made at t counts in [t, t + length).
#[derive(Debug)]
struct Window {
    length: Duration,
    entries: VecDeque<(Duration, u64)>,
    /// How many entries have left: the name of the oldest that is still there.
    removed: u64,
    sum: u64,
}

/// An entry's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry(u64);

/// Counts calls against [`Limits`].
#[derive(Debug)]
pub struct Meter {
    limits: Limits,
    requests: Window,
    tokens: Window,
    open: u64,
    fullest: Tally,
}

/// What one call holds, given back by [`Meter::end`].
#[derive(Debug)]
pub struct Charge {
    tokens: Entry,
    reserved: u64,
}

// === impl Window ===

impl Window {
    fn new(length: Duration) -> Self {
        Self {
            length,
            entries: VecDeque::new(),
            removed: 0,
            sum: 0,
        }
    }

    /// Drops what has left by `now`.
    fn slide(&mut self, now: Duration) {
        while let Some(&(time, amount)) = self.entries.front() {
            if time + self.length > now {
                return;
            }
            self.entries.pop_front();
            self.removed += 1;
            self.sum -= amount;
        }
    }

    fn add(&mut self, now: Duration, amount: u64) -> Entry {
        self.entries.push_back((now, amount));
        self.sum += amount;
        Entry(self.removed + self.entries.len() as u64 - 1)
    }

    /// Makes an entry smaller where it is, if it is still there.
    fn shrink(&mut self, entry: Entry, amount: u64) {
        let index = entry.0.checked_sub(self.removed);
        let index = index.and_then(|index| usize::try_from(index).ok());
        if let Some((_, held)) = index.and_then(|index| self.entries.get_mut(index)) {
            let given_back = held.saturating_sub(amount);
            *held -= given_back;
            self.sum -= given_back;
        }
    }

    /// When `amount` more will be within `limit`, if nothing else comes; a whole window where it never is.
    fn room(&self, now: Duration, amount: u64, limit: u64) -> Duration {
        let mut sum = self.sum;
        for &(time, held) in &self.entries {
            if sum + amount <= limit {
                break;
            }
            sum -= held;
            if sum + amount <= limit {
                return (time + self.length).saturating_sub(now);
            }
        }
        self.length
    }
}

// === impl Meter ===

impl Meter {
    /// Nothing charged yet.
    pub fn new(limits: Limits, window: Duration) -> Self {
        Self {
            limits,
            requests: Window::new(window),
            tokens: Window::new(window),
            open: 0,
            fullest: Tally::default(),
        }
    }

    /// A call arrives that will use up to `tokens`. It counts whether it is within the limits or not: the provider has it on its ledger.
    ///
    /// # Errors
    /// It is above a limit; of several the first of requests, tokens, concurrency is named.
    pub fn arrive(&mut self, now: Duration, tokens: u64) -> (Charge, Result<(), Violation>) {
        self.requests.slide(now);
        self.tokens.slide(now);
        let verdict = self.verdict(now, tokens);
        self.requests.add(now, 1);
        let entry = self.tokens.add(now, tokens);
        self.open += 1;
        let fullest = &mut self.fullest;
        fullest.requests = fullest.requests.max(self.requests.sum);
        fullest.tokens = fullest.tokens.max(self.tokens.sum);
        let charge = Charge {
            tokens: entry,
            reserved: tokens,
        };
        (charge, verdict)
    }

    fn verdict(&self, now: Duration, tokens: u64) -> Result<(), Violation> {
        let windows = [
            (Kind::Requests, &self.requests, 1, self.limits.rpm),
            (Kind::Tokens, &self.tokens, tokens, self.limits.tpm),
        ];
        for (kind, window, amount, limit) in windows {
            if let Some(limit) = limit
                && window.sum + amount > limit
            {
                let retry_after = window.room(now, amount, limit);
                return Err(Violation { kind, retry_after });
            }
        }
        Ok(())
    }

    /// Whether more calls are open than may be, the one that just arrived included. Asked apart from the windows: a call whose caller
    /// has left may end a moment after its successor arrived on another connection.
    pub fn crowded(&self) -> bool {
        self.limits
            .concurrency
            .is_some_and(|limit| self.open > limit)
    }

    /// Records how many calls are open, after ends and arrivals at the same time are sorted.
    pub fn settle(&mut self) {
        self.fullest.concurrency = self.fullest.concurrency.max(self.open);
    }

    /// A call is over. `used`: its tokens, where known; else what was reserved stays. What was used beyond it enters now.
    pub fn end(&mut self, now: Duration, charge: &Charge, used: Option<u64>) {
        self.open -= 1;
        self.tokens.slide(now);
        match used {
            Some(used) if used > charge.reserved => {
                self.tokens.add(now, used - charge.reserved);
            }
            Some(used) => self.tokens.shrink(charge.tokens, used),
            None => {}
        }
    }

    /// The most that ever was in one window, or open at once; tokens at the moments of arrivals.
    pub fn fullest(&self) -> Tally {
        self.fullest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn meter(limits: Limits) -> Meter {
        Meter::new(limits, ms(1000))
    }

    fn requests(rpm: u64) -> Limits {
        Limits {
            rpm: Some(rpm),
            ..Limits::default()
        }
    }

    #[test]
    fn window_admits_up_to_its_limit_and_counts_violations() {
        let mut meter = meter(requests(2));
        assert!(meter.arrive(ms(0), 0).1.is_ok());
        assert!(meter.arrive(ms(400), 0).1.is_ok());
        let (_, verdict) = meter.arrive(ms(999), 0);
        let violation = verdict.unwrap_err();
        assert_eq!(violation.kind, Kind::Requests);
        assert_eq!(violation.retry_after, ms(1));
        assert_eq!(meter.fullest().requests, 3, "the violation has been made");
        // At 1000 the first one has just left: two of three are there.
        assert!(meter.arrive(ms(1000), 0).1.is_err());
        assert!(meter.arrive(ms(2000), 0).1.is_ok());
    }

    #[test]
    fn tokens_are_reserved_until_usage_is_known_and_then_corrected() {
        let limits = Limits {
            tpm: Some(100),
            ..Limits::default()
        };
        let mut meter = meter(limits);
        let (first, verdict) = meter.arrive(ms(0), 80);
        assert!(verdict.is_ok());
        let (refused, verdict) = meter.arrive(ms(100), 30);
        assert_eq!(verdict.unwrap_err().kind, Kind::Tokens);
        meter.end(ms(100), &refused, Some(0));
        meter.end(ms(200), &first, Some(10));
        let (second, verdict) = meter.arrive(ms(300), 90);
        assert!(verdict.is_ok(), "the first was corrected to 10");
        meter.end(ms(900), &second, Some(95));
        // At 1350 the first and the second have left; the second's 5 too many came at 900.
        assert!(meter.arrive(ms(1350), 96).1.is_err());
        assert!(meter.arrive(ms(3000), 100).1.is_ok());
    }

    #[test]
    fn correction_after_the_window_has_no_effect() {
        let limits = Limits {
            tpm: Some(10),
            ..Limits::default()
        };
        let mut meter = meter(limits);
        let (first, _) = meter.arrive(ms(0), 10);
        let (_, verdict) = meter.arrive(ms(1500), 10);
        assert!(verdict.is_ok());
        meter.end(ms(1600), &first, Some(0));
        assert!(meter.arrive(ms(1700), 1).1.is_err());
    }

    #[test]
    fn open_calls_count_until_their_end() {
        let limits = Limits {
            concurrency: Some(1),
            ..Limits::default()
        };
        let mut meter = meter(limits);
        let (first, verdict) = meter.arrive(ms(0), 0);
        assert!(verdict.is_ok() && !meter.crowded());
        let _second = meter.arrive(ms(1), 0);
        assert!(meter.crowded());
        meter.end(ms(2), &first, None);
        assert!(!meter.crowded());
        meter.settle();
        assert_eq!(meter.fullest().concurrency, 1);
    }

    proptest! {
        /// The window against its definition: the arrivals in (now - length, now].
        #[test]
        fn violations_match_the_sliding_window_definition(gaps in prop::collection::vec(0_u64..400, 1..80), rpm in 1_u64..8) {
            let mut meter = meter(requests(rpm));
            let mut times: Vec<u64> = Vec::new();
            let (mut now, mut fullest) = (0, 0);
            for gap in gaps {
                now += gap;
                let inside = times.iter().filter(|&&time| time + 1000 > now).count() as u64;
                let (_, verdict) = meter.arrive(ms(now), 0);
                prop_assert_eq!(verdict.is_err(), inside + 1 > rpm);
                if let Err(violation) = verdict {
                    let free = ms(now) + violation.retry_after;
                    let left = times.iter().filter(|&&time| ms(time + 1000) > free).count() as u64;
                    prop_assert!(left < rpm, "room at the reported time");
                }
                times.push(now);
                fullest = fullest.max(inside + 1);
            }
            prop_assert_eq!(meter.fullest().requests, fullest);
        }
    }
}
