//! How fast everything goes: short windows for every change, the real ones by `scripts/faults --full`.

use std::{env::var_os, sync::LazyLock, time::Duration};

/// The times and sizes of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) window: Duration,
    pub(crate) guard: Duration,
    pub(crate) lease: Duration,
    /// `rpm`: calls in a window.
    pub(crate) limit: usize,
    /// How often a fault is repeated where once proves little.
    pub(crate) rounds: usize,
    /// How long an overload lasts.
    pub(crate) overload: Duration,
}

/// `max_parallel_requests`.
pub(crate) const CALLS: usize = 10;

/// What a busy machine may add to a bound of the contract.
pub(crate) const SLACK: Duration = Duration::from_secs(2);

pub(crate) static PACE: LazyLock<Pace> = LazyLock::new(|| {
    if var_os("VORRANG_FAULTS_FULL").is_some() {
        Pace {
            window: Duration::from_secs(60),
            guard: Duration::from_millis(100),
            lease: Duration::from_secs(3),
            limit: 600,
            rounds: 10,
            overload: Duration::from_secs(60),
        }
    } else {
        Pace {
            window: Duration::from_secs(2),
            guard: Duration::from_millis(100),
            lease: Duration::from_millis(500),
            limit: 30,
            rounds: 3,
            overload: Duration::from_secs(6),
        }
    }
});

impl Pace {
    /// Longer than anything takes that the contract bounds.
    pub(crate) fn patience(&self) -> Duration {
        2 * self.window + 2 * self.lease + Duration::from_secs(30)
    }

    /// The longest time without a call while tickets wait, where nothing is lost: a window and its guard, and what a
    /// dead instance may hold up (A6).
    pub(crate) fn standstill(&self) -> Duration {
        self.window + self.guard + self.lease + SLACK
    }
}
