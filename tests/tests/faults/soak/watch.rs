//! What must not grow, minute by minute.

use anyhow::{Context as _, Result, ensure};
use tokio::time::Instant;
use vorrang_tests::Gateway;

use super::{CLIENTS, INSTANCES};
use crate::fleet::Fleet;

/// Keys that the soak's group may have in Redis.
pub(super) const KEYS: usize = 9;

/// How much memory the veteran may gain from the middle of the first third to that of the last, bytes. In an hour it serves some ten
/// thousand requests meanwhile and sees hundreds of faults: less than a kilobyte for each request. What it holds at a time changes
/// that much by itself: an overload's three hundred requests, and the pages that the allocator keeps of them.
const GAIN: u64 = 8 * 1024 * 1024;

/// The same for what Redis holds: it holds far less.
const REDIS_GAIN: u64 = 1024 * 1024;

/// The same for descriptors and tasks: all clients of the load may have been on the veteran in the last third, and none in the first.
const CONNECTIONS: u64 = CLIENTS as u64;

/// Rows that are needed to tell a trend.
const ENOUGH: usize = 8;

/// At one moment, or the least of a minute: load comes and goes, and what leaks stays.
#[derive(Debug, Clone, Copy)]
struct Row {
    memory: [u64; INSTANCES],
    descriptors: [u64; INSTANCES],
    tasks: [u64; INSTANCES],
    keys: u64,
    redis_memory: u64,
    functions_memory: u64,
    entries: u64,
    sessions: u64,
}

/// One figure of a row.
type Figure = fn(&Row) -> u64;

pub(super) struct Watch {
    start: Instant,
    /// Of whole minutes.
    rows: Vec<Row>,
    now: Option<Row>,
}

impl Row {
    async fn of(fleet: &Fleet) -> Result<Self> {
        let redis = &fleet.redis;
        let info = redis.command(&["INFO", "memory"]).await?;
        let info: String = redis::from_redis_value(info)?;
        let figure = |name: &str| -> Result<u64> {
            let line = info
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            Ok(line.with_context(|| name.to_owned())?.trim().parse()?)
        };
        let mut row = Self {
            memory: [0; INSTANCES],
            descriptors: [0; INSTANCES],
            tasks: [0; INSTANCES],
            keys: redis::from_redis_value(redis.command(&["DBSIZE"]).await?)?,
            redis_memory: figure("used_memory")?,
            functions_memory: figure("used_memory_vm_functions")?,
            // There is nothing right after a flush.
            entries: redis.members("model", "entries").await.unwrap_or(0),
            sessions: redis.records("model", 'S').await.unwrap_or(0) as u64,
        };
        for (index, gateway) in fleet.gateways.iter().enumerate() {
            row.memory[index] = gateway.memory()?;
            row.descriptors[index] = gateway.descriptors()? as u64;
            row.tasks[index] = tasks(gateway).await?;
        }
        Ok(row)
    }

    /// The least of both; of what has bounds of its own, the most.
    fn and(self, other: Self) -> Self {
        let least = |one: [u64; INSTANCES], two: [u64; INSTANCES]| {
            let mut both = one;
            both.iter_mut()
                .zip(two)
                .for_each(|(one, two)| *one = two.min(*one));
            both
        };
        Self {
            memory: least(self.memory, other.memory),
            descriptors: least(self.descriptors, other.descriptors),
            tasks: least(self.tasks, other.tasks),
            keys: self.keys.max(other.keys),
            redis_memory: self.redis_memory.min(other.redis_memory),
            functions_memory: self.functions_memory.min(other.functions_memory),
            entries: self.entries.max(other.entries),
            sessions: self.sessions.max(other.sessions),
        }
    }

    fn print(&self, minute: usize) {
        let mega = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
        println!(
            "| {minute} | {} | {:?} | {:?} | {} | {} | {} | {} | {} |",
            self.memory.map(mega).join(" "),
            self.descriptors,
            self.tasks,
            self.keys,
            mega(self.redis_memory),
            mega(self.functions_memory),
            self.entries,
            self.sessions
        );
    }
}

async fn tasks(gateway: &Gateway) -> Result<u64> {
    let tasks = gateway.metric("vorrang_tasks", "").await?;
    ensure!(tasks > 0.0, "no vorrang_tasks");
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small whole number"
    )]
    Ok(tasks as u64)
}

impl Watch {
    pub(super) fn new() -> Self {
        println!(
            "| minute | memory, MB, veteran last | descriptors | tasks | keys | Redis, MB | functions, MB | entries | sessions |"
        );
        Self {
            start: Instant::now(),
            rows: Vec::new(),
            now: None,
        }
    }

    /// To be called again and again.
    pub(super) async fn look(&mut self, fleet: &Fleet) -> Result<()> {
        let row = Row::of(fleet).await?;
        ensure!(row.keys <= KEYS as u64, "{row:?}");
        let minutes = self.start.elapsed().as_secs() / 60;
        match self.now {
            Some(before) if self.rows.len() as u64 == minutes => self.now = Some(before.and(row)),
            before => {
                if let Some(before) = before {
                    self.rows.push(before);
                    before.print(self.rows.len());
                }
                self.now = Some(row);
            }
        }
        Ok(())
    }

    /// Nothing of the veteran and of Redis grows: the medians of the first third and of the last one, without the first tenth, in which
    /// buffers and pools come to their sizes.
    pub(super) fn judge(&self) -> Result<()> {
        let rows = &self.rows[self.rows.len().div_ceil(10)..];
        if rows.len() < ENOUGH {
            println!("too short to tell a trend");
            return Ok(());
        }
        let third = rows.len() / 3;
        let (first, last) = (&rows[..third], &rows[rows.len() - third..]);
        let median = |rows: &[Row], value: Figure| {
            let mut values: Vec<u64> = rows.iter().map(value).collect();
            values.sort_unstable();
            values[values.len() / 2]
        };
        let figures: [(&str, Figure, u64); 5] = [
            ("memory", |row| row.memory[INSTANCES - 1], GAIN),
            (
                "descriptors",
                |row| row.descriptors[INSTANCES - 1],
                CLIENTS as u64,
            ),
            ("tasks", |row| row.tasks[INSTANCES - 1], CONNECTIONS),
            ("Redis' memory", |row| row.redis_memory, REDIS_GAIN),
            (
                "its functions' memory",
                |row| row.functions_memory,
                REDIS_GAIN,
            ),
        ];
        let mut grown = Vec::new();
        for (name, value, gain) in figures {
            let (before, after) = (median(first, value), median(last, value));
            println!("{name}: {before}, in the last third {after}; {gain} more are allowed");
            if after > before + gain {
                grown.push(name);
            }
        }
        ensure!(grown.is_empty(), "{grown:?} grew");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten minutes, after the first of which this many more of everything are there in each minute.
    fn growing(memory: u64, tasks: u64) -> Watch {
        let row = |minute: u64| Row {
            // Comes and goes.
            memory: [60_000_000 + minute % 3 * 1_000_000 + minute * memory; INSTANCES],
            descriptors: [40 + minute % 4; INSTANCES],
            tasks: [30 - minute % 4 + minute * tasks; INSTANCES],
            keys: 9,
            redis_memory: 1_200_000,
            functions_memory: 400_000,
            entries: 30,
            sessions: 3,
        };
        Watch {
            start: Instant::now(),
            rows: (0..10).map(row).collect(),
            now: None,
        }
    }

    #[test]
    fn trend_fails_and_what_comes_and_goes_does_not() {
        growing(0, 0).judge().unwrap();
        for grown in [growing(2_000_000, 0), growing(0, 6)] {
            grown.judge().unwrap_err();
        }
    }
}
