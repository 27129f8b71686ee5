//! What a run shows on the terminal while it runs.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, interval_at},
};

use crate::{
    log::{Ended, Record},
    scenario::Scenario,
};

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    left: AtomicU64,
    /// On their way, one for each traffic.
    open: Vec<AtomicI64>,
}

/// Counts, and prints once a second.
#[derive(Debug)]
pub(crate) struct Progress {
    counters: Arc<Counters>,
    printer: JoinHandle<()>,
}

/// One request that is on its way.
#[derive(Debug)]
pub(crate) struct Counted {
    counters: Arc<Counters>,
    traffic: usize,
}

impl Progress {
    /// Prints from `start` on.
    pub(crate) fn begin(scenario: &Scenario, start: Instant) -> Self {
        let counters = Arc::new(Counters {
            open: scenario.traffic.iter().map(|_| AtomicI64::new(0)).collect(),
            ..Counters::default()
        });
        let names = scenario.traffic.iter().map(|one| one.name.clone());
        let (names, shown) = (names.collect::<Vec<_>>(), counters.clone());
        let length = scenario.length();
        let printer = tokio::spawn(async move {
            // On a terminal one line is kept up to date; elsewhere there are fewer lines.
            let terminal = io::stderr().is_terminal();
            let period = Duration::from_secs(if terminal { 1 } else { 5 });
            let mut ticks = interval_at(start + period, period);
            loop {
                ticks.tick().await;
                let line = shown.line(start.elapsed(), length, &names);
                let line = if terminal {
                    format!("\r\x1b[2K{line}")
                } else {
                    format!("{line}\n")
                };
                // A closed output is no reason to stop.
                drop(io::stderr().write_all(line.as_bytes()));
            }
        });
        Self { counters, printer }
    }

    /// A request leaves.
    pub(crate) fn sent(&self, traffic: usize) -> Counted {
        self.counters.sent.fetch_add(1, Relaxed);
        self.counters.open[traffic].fetch_add(1, Relaxed);
        Counted {
            counters: self.counters.clone(),
            traffic,
        }
    }

    /// Stops printing.
    pub(crate) fn end(self) {
        self.printer.abort();
        if io::stderr().is_terminal() {
            drop(io::stderr().write_all(b"\n"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.printer.abort();
    }
}

impl Counted {
    /// It is over.
    pub(crate) fn over(self, record: &Record) {
        let counters = &self.counters;
        counters.open[self.traffic].fetch_sub(1, Relaxed);
        let counter = match record.ended {
            Ended::Answered => &counters.answered,
            Ended::Left => &counters.left,
            _ => &counters.failed,
        };
        counter.fetch_add(1, Relaxed);
    }
}

impl Counters {
    fn line(&self, now: Duration, length: Duration, names: &[String]) -> String {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        let mut line = format!(
            "{:>4} s{}  sent {}  answered {}  failed {}  left {}  open",
            now.as_secs(),
            if now > length { " (draining)" } else { "" },
            count(&self.sent),
            count(&self.answered),
            count(&self.failed),
            count(&self.left),
        );
        for (name, open) in names.iter().zip(&self.open) {
            // Writing to a `String` cannot fail.
            let _ = write!(line, "  {name} {}", open.load(Relaxed));
        }
        line
    }
}
