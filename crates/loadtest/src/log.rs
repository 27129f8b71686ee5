//! What a run leaves: all that is needed to judge it, and nothing judged yet.

use std::{collections::BTreeMap, fs, io, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{provider::Report, scenario::Scenario};

/// A whole run. Times are microseconds since its start, by one monotonic clock.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Log {
    /// What was run.
    pub scenario: Scenario,
    /// What it was drawn with.
    pub seed: u64,
    /// When it started, seconds since 1970.
    pub started: u64,
    /// Where the requests went.
    pub targets: Vec<String>,
    /// What happened by the scenario.
    pub events: Vec<Happened>,
    /// One for each request, by the time it was meant to be sent.
    pub records: Vec<Record>,
    /// What the provider saw, if it could be asked; its clock is ours.
    pub provider: Option<Report>,
}

/// An event that has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// When it began.
    pub from: u64,
    /// When it was done.
    pub at: u64,
    /// In words.
    pub what: String,
    /// The target whose connections it cut, an index.
    pub killed: Option<usize>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The name by which the provider knows it.
    pub id: String,
    /// Its phase, an index.
    pub phase: usize,
    /// Its traffic, an index.
    pub traffic: usize,
    /// Whose it is.
    pub tenant: u64,
    /// When it was meant to be sent: what its latency is measured from.
    pub meant: u64,
    /// When it was sent.
    pub sent: u64,
    /// When its answer's head came.
    pub head: Option<u64>,
    /// When it was over.
    pub end: u64,
    /// The target that took it, an index.
    pub target: usize,
    /// How it ended.
    pub ended: Ended,
    /// Its way through the queue, by its answer's headers.
    pub ticket: Option<Ticket>,
}

/// How a request ended, as its client saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// With a whole 200.
    Answered,
    /// With an error.
    Status(u16),
    /// Its client hung up, as planned.
    Left,
    /// The connection broke before the answer's end.
    Cut,
    /// No target took the connection.
    Unreachable,
    /// It had no answer when the run was over.
    Unanswered,
}

/// What an answer's headers say of its ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The queue: numbers of different groups cannot be compared.
    pub group: String,
    /// The effective one.
    pub priority: i32,
    /// Drawn at the first entry.
    pub arrival: u64,
    /// Drawn at the last entry.
    pub entered: u64,
    /// Drawn at the grant.
    pub granted: u64,
    /// Its start tag, with fair shares: it orders before the arrival. Else 0.
    #[serde(default)]
    pub start: u64,
    /// What it was ordered by before that, where that is not its priority (aging).
    #[serde(default)]
    pub score: Option<i64>,
    /// How long it waited in all, microseconds (from milliseconds).
    pub waited: u64,
    /// How long it would wait at least, as the gateway thought when it came.
    #[serde(default)]
    pub least_wait: Option<u64>,
    /// Attempts beyond the first.
    pub retries: u64,
}

impl Log {
    /// The file's name in a run's directory.
    pub const FILE: &str = "log.json";

    /// Writes it into a directory.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        fs::write(directory.join(Self::FILE), bytes)
    }

    /// Reads it from a run's directory.
    ///
    /// # Errors
    /// It is not there, or is no log.
    pub fn load(directory: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(
            directory.join(Self::FILE),
        )?)?)
    }

    /// When everything was over.
    pub fn end(&self) -> u64 {
        self.records
            .iter()
            .map(|record| record.end)
            .max()
            .unwrap_or(0)
    }

    /// How long the limits' window is, microseconds.
    pub fn window(&self) -> u64 {
        let window = match &self.provider {
            Some(report) => Duration::from_secs_f64(report.window_seconds),
            None => self.scenario.provider.window.0,
        };
        u64::try_from(window.as_micros()).unwrap_or(u64::MAX)
    }

    /// By traffic: what it asks for, else what the gateway gave it.
    pub fn priorities(&self) -> Vec<i32> {
        let mut given = vec![0; self.scenario.traffic.len()];
        for record in &self.records {
            if let Some(ticket) = &record.ticket {
                given[record.traffic] = ticket.priority;
            }
        }
        let asked = self.scenario.traffic.iter().map(|one| one.priority);
        let both = asked.zip(given);
        both.map(|(asked, given)| asked.unwrap_or(given)).collect()
    }

    /// The provider's arrivals by request.
    pub fn arrivals(&self) -> BTreeMap<&str, Vec<&crate::provider::Arrival>> {
        let mut by_id: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        let arrivals = self.provider.iter().flat_map(|report| &report.arrivals);
        for arrival in arrivals {
            by_id.entry(&arrival.id).or_default().push(arrival);
        }
        by_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_without_fair_share_fields_is_readable() {
        let old = r#"{"group": "g", "priority": 1, "arrival": 2, "entered": 3, "granted": 4, "waited": 5, "retries": 0}"#;
        let ticket: Ticket = serde_json::from_str(old).unwrap();
        assert_eq!((ticket.start, ticket.score), (0, None));
    }
}
