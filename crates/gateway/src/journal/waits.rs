//! How many tickets of a group wait on this instance, by the class of their priority: now, and over the last minutes.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    Clock, Histogram,
    histogram::{BUCKETS, bucket},
};
use crate::PriorityClass;

/// The distance of two samples of the history.
pub(crate) const STEP_SECONDS: u64 = 5;
/// Ten minutes.
pub(crate) const HISTORY_STEPS: usize = 120;
/// A minute.
const GRANT_STEPS: u64 = 12;
/// Waits are counted by intervals of so long, and so many: the last five minutes, and the interval that has begun.
const INTERVAL_SECONDS: u64 = 30;
const INTERVALS: u64 = 11;

/// The waits of one group on this instance.
#[derive(Debug)]
pub(crate) struct GroupWaits {
    clock: Clock,
    classes: Mutex<Classes>,
}

#[derive(Debug, Default)]
struct Classes {
    /// The step that the histories end with.
    step: u64,
    /// Of a class whose tickets have ever waited here.
    of: [Option<Box<ClassWaits>>; PriorityClass::ALL.len()],
}

#[derive(Debug)]
struct ClassWaits {
    waiting: u64,
    /// Waiting at the beginning of each step, at the step's remainder.
    history: [u32; HISTORY_STEPS],
    /// Grants in a step.
    grants: [(u64, u64); GRANT_STEPS as usize],
    /// Waits that ended with a grant in an interval.
    intervals: [Interval; INTERVALS as usize],
}

#[derive(Debug, Clone, Copy)]
struct Interval {
    number: u64,
    counts: [u32; BUCKETS],
}

/// What one instance reports of a class.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ClassReport {
    pub(crate) class: String,
    pub(crate) waiting: u64,
    /// Within the last minute.
    pub(crate) granted: u64,
    /// Waits until a grant within the last five minutes.
    pub(crate) waits: Histogram,
    /// The oldest first; empty where none has waited.
    pub(crate) history: Vec<u32>,
}

/// What one instance reports of a group's waits.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct WaitsReport {
    /// The last step of all histories: seconds since 1970, divided by [`STEP_SECONDS`].
    pub(crate) step: u64,
    pub(crate) classes: Vec<ClassReport>,
}

// === impl GroupWaits ===

impl GroupWaits {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            classes: Mutex::default(),
        }
    }

    fn classes(&self) -> MutexGuard<'_, Classes> {
        // Numbers only: a panic elsewhere leaves nothing worse than a count that is off.
        self.classes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seconds(&self, now: Instant) -> u64 {
        self.clock.unix(now).as_secs()
    }

    /// A ticket has entered the queue.
    pub(crate) fn entered(&self, class: PriorityClass, now: Instant) {
        let step = self.seconds(now) / STEP_SECONDS;
        let mut classes = self.classes();
        classes.advance(step);
        classes.of(class).waiting += 1;
    }

    /// It has another priority.
    pub(crate) fn moved(&self, from: PriorityClass, to: PriorityClass) {
        let step = self.seconds(Instant::now()) / STEP_SECONDS;
        let mut classes = self.classes();
        classes.advance(step);
        let of = classes.of(from);
        of.waiting = of.waiting.saturating_sub(1);
        classes.of(to).waiting += 1;
    }

    /// It does not wait any more. `granted`: how long it waited for its grant.
    pub(crate) fn left(&self, class: PriorityClass, granted: Option<Duration>, now: Instant) {
        let seconds = self.seconds(now);
        let mut classes = self.classes();
        classes.advance(seconds / STEP_SECONDS);
        let of = classes.of(class);
        of.waiting = of.waiting.saturating_sub(1);
        if let Some(waited) = granted {
            of.granted(seconds, waited);
        }
    }

    pub(crate) fn report(&self) -> WaitsReport {
        let seconds = self.seconds(Instant::now());
        let step = seconds / STEP_SECONDS;
        let mut classes = self.classes();
        classes.advance(step);
        let known = PriorityClass::ALL.into_iter().zip(&classes.of);
        let report = |(class, of): (PriorityClass, &Option<Box<ClassWaits>>)| {
            Some(of.as_ref()?.report(class, seconds))
        };
        WaitsReport {
            step,
            classes: known.filter_map(report).collect(),
        }
    }
}

impl Classes {
    fn of(&mut self, class: PriorityClass) -> &mut ClassWaits {
        self.of[class as usize].get_or_insert_with(|| Box::new(ClassWaits::new()))
    }

    /// Nothing has changed since the last change: what waited then waited at the beginning of each step since.
    fn advance(&mut self, step: u64) {
        let passed = step.saturating_sub(self.step).min(HISTORY_STEPS as u64);
        for of in self.of.iter_mut().flatten() {
            for missed in 0..passed {
                let at = (step - missed) % HISTORY_STEPS as u64;
                of.history[at as usize] = u32::try_from(of.waiting).unwrap_or(u32::MAX);
            }
        }
        self.step = self.step.max(step);
    }
}

impl ClassWaits {
    fn new() -> Self {
        Self {
            waiting: 0,
            history: [0; HISTORY_STEPS],
            grants: [(0, 0); GRANT_STEPS as usize],
            intervals: [Interval {
                number: 0,
                counts: [0; BUCKETS],
            }; INTERVALS as usize],
        }
    }

    fn granted(&mut self, seconds: u64, waited: Duration) {
        let step = seconds / STEP_SECONDS;
        let grants = &mut self.grants[(step % GRANT_STEPS) as usize];
        if grants.0 != step {
            *grants = (step, 0);
        }
        grants.1 += 1;
        let number = seconds / INTERVAL_SECONDS;
        let interval = &mut self.intervals[(number % INTERVALS) as usize];
        if interval.number != number {
            interval.number = number;
            interval.counts.fill(0);
        }
        let ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        let count = &mut interval.counts[bucket(ms)];
        *count = count.saturating_add(1);
    }

    fn report(&self, class: PriorityClass, seconds: u64) -> ClassReport {
        let step = seconds / STEP_SECONDS;
        let grants = self.grants.iter();
        let recent = grants.filter(|(of, _)| of + GRANT_STEPS > step);
        let number = seconds / INTERVAL_SECONDS;
        let mut counts = [0; BUCKETS];
        let intervals = self.intervals.iter();
        for interval in intervals.filter(|one| one.number + INTERVALS > number) {
            for (sum, count) in counts.iter_mut().zip(&interval.counts) {
                *sum += u64::from(*count);
            }
        }
        let steps = HISTORY_STEPS as u64;
        let oldest_first = (1..=steps).map(|later| (step + later) % steps);
        let history: Vec<_> = oldest_first.map(|at| self.history[at as usize]).collect();
        ClassReport {
            class: class.as_str().to_owned(),
            waiting: self.waiting,
            granted: recent.map(|(_, count)| count).sum(),
            waits: Histogram::of(&counts),
            history: if history.iter().all(|waiting| *waiting == 0) {
                Vec::new()
            } else {
                history
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const URGENT: PriorityClass = PriorityClass::Negative;
    const BATCH: PriorityClass = PriorityClass::ThousandUp;

    fn class(report: &WaitsReport, class: PriorityClass) -> &ClassReport {
        let mut classes = report.classes.iter();
        classes.find(|one| one.class == class.as_str()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn history_has_what_waited_at_each_step_without_a_sampler() {
        let waits = GroupWaits::new(Clock::started_now());
        for _ in 0..3 {
            waits.entered(BATCH, Instant::now());
        }
        advance(Duration::from_secs(50)).await;
        waits.left(BATCH, None, Instant::now());
        waits.moved(BATCH, URGENT);
        advance(Duration::from_secs(10)).await;
        let report = waits.report();
        assert_eq!(class(&report, BATCH).waiting, 1);
        assert_eq!(class(&report, URGENT).waiting, 1);
        let history = &class(&report, BATCH).history;
        assert_eq!(history.len(), HISTORY_STEPS);
        assert_eq!(history.iter().filter(|waiting| **waiting == 3).count(), 10);
        assert_eq!(history.iter().filter(|waiting| **waiting == 1).count(), 2);
        assert_eq!(history[HISTORY_STEPS - 2..], [1, 1]);
        assert_eq!(
            class(&report, URGENT).history[HISTORY_STEPS - 3..],
            [0, 1, 1]
        );
        // All of it is forgotten after ten minutes.
        waits.left(BATCH, None, Instant::now());
        advance(Duration::from_secs(1000)).await;
        assert!(class(&waits.report(), BATCH).history.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn grants_count_for_a_minute_and_waits_for_five() {
        let waits = GroupWaits::new(Clock::started_now());
        waits.entered(URGENT, Instant::now());
        waits.left(URGENT, Some(Duration::from_millis(1000)), Instant::now());
        waits.entered(URGENT, Instant::now());
        waits.left(URGENT, None, Instant::now());
        let now = waits.report();
        let urgent = class(&now, URGENT);
        assert_eq!(
            (urgent.granted, urgent.waits.count(), urgent.waiting),
            (1, 1, 0)
        );
        assert!(urgent.waits.permille_ms(500).unwrap().abs_diff(1000) < 70);
        advance(Duration::from_secs(61)).await;
        let later = waits.report();
        let urgent = class(&later, URGENT);
        assert_eq!((urgent.granted, urgent.waits.count()), (0, 1));
        advance(Duration::from_secs(300)).await;
        assert_eq!(class(&waits.report(), URGENT).waits.count(), 0);
    }
}
