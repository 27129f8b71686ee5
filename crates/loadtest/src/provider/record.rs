//! What the provider remembers.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Fault, Kind, Limits, Tally};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not yet.
    Open,
    /// Answered to its last byte.
    Answered,
    /// 429: it should not have come. Its limit is in [`Arrival::violated`].
    Refused,
    /// By a fault: an error, or a reset.
    Failed,
    /// Its caller went away first.
    Left,
    /// It was no request of OpenAI's API.
    Invalid,
}

/// One call. Times are microseconds since the last reset, by a monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// `request_id` of its body, a field of the load test's own: one for each request of a client, whatever the number of attempts. Empty if absent.
    pub id: String,
    /// When its head was read.
    pub at: u64,
    /// When it was over; none while it is open.
    pub end: Option<u64>,
    /// As it was called.
    pub model: String,
    /// What it was charged at first.
    pub reserved: u64,
    /// What it used, where it was answered.
    pub used: Option<u64>,
    /// How it ended.
    pub outcome: Outcome,
    /// What went wrong with it by intent.
    pub fault: Option<Fault>,
    /// The limit it was above.
    pub violated: Option<Kind>,
}

/// How many there were.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Calls that arrived.
    pub arrived: u64,
    /// By how they ended.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Calls above a limit, by limit.
    pub violations: Tally,
}

/// `GET /report`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The clock of the arrivals: microseconds since the last reset.
    pub now: u64,
    /// How long a window is, seconds.
    pub window_seconds: f64,
    /// What it allows.
    pub limits: Limits,
    /// How many came.
    pub counts: Counts,
    /// The most there was in one window, or open at once.
    pub fullest: Tally,
    /// All that arrived, in order.
    pub arrivals: Vec<Arrival>,
    /// The longest that the provider's own process did not get to run, microseconds: by so much its clock may be wrong about an arrival.
    pub held_up: u64,
}

impl Report {
    /// What its requests per window come to.
    pub fn requests_per_second(&self) -> Option<f64> {
        let rpm = self.limits.rpm?;
        #[expect(clippy::cast_precision_loss, reason = "a limit")]
        let rate = rpm as f64 / self.window_seconds;
        Some(rate)
    }

    /// Converts all times to a clock that started so much later.
    pub fn shift(&mut self, later: Duration) {
        let later = u64::try_from(later.as_micros()).unwrap_or(u64::MAX);
        self.now = self.now.saturating_sub(later);
        for arrival in &mut self.arrivals {
            arrival.at = arrival.at.saturating_sub(later);
            arrival.end = arrival.end.map(|end| end.saturating_sub(later));
        }
    }
}

impl Tally {
    /// One more of a kind.
    pub(crate) fn count(&mut self, kind: Kind) {
        *match kind {
            Kind::Requests => &mut self.requests,
            Kind::Tokens => &mut self.tokens,
            Kind::Concurrency => &mut self.concurrency,
        } += 1;
    }

    /// Of all kinds.
    pub fn total(&self) -> u64 {
        self.requests + self.tokens + self.concurrency
    }
}
