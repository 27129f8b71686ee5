//! The parts of a run, each with one question.

pub(crate) mod fleet;
pub(crate) mod forward;
pub(crate) mod instructions;
pub(crate) mod memory;
pub(crate) mod mock;
pub(crate) mod peers;
pub(crate) mod step;
pub(crate) mod traffic;
pub(crate) mod wake;

use std::path::PathBuf;

use anyhow::Result;
use tokio::time::Duration;

use crate::{
    load::{Clients, Done, Target},
    process::Process,
    results::{Metric, Samples},
};

/// What all parts need.
pub(crate) struct Context {
    /// The gateway.
    pub(crate) binary: PathBuf,
    /// For files of the run; it goes with it.
    pub(crate) directory: PathBuf,
    pub(crate) rounds: usize,
    pub(crate) quick: bool,
}

impl Context {
    /// Where fewer will do in a quick run.
    pub(crate) fn either<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// How long one contender is under load.
    pub(crate) fn visit(&self) -> Duration {
        self.either(Duration::from_secs(1), Duration::from_millis(300))
    }
}

pub(crate) const RATE: Metric = Metric {
    name: "requests",
    unit: "1/s",
};
pub(crate) const MEDIAN: Metric = Metric {
    name: "p50",
    unit: "us",
};
pub(crate) const P99: Metric = Metric {
    name: "p99",
    unit: "us",
};
/// By the requests.
pub(crate) const STEPS: Metric = Metric {
    name: "steps per request",
    unit: "",
};
/// Of the server's process, by its requests.
pub(crate) const CPU: Metric = Metric {
    name: "CPU per request",
    unit: "us",
};
pub(crate) const REDIS_CPU: Metric = Metric {
    name: "Redis CPU per request",
    unit: "us",
};

/// One visit: `clients` connections to `targets` for the time of a visit, and the processor time of `processes` by their metric.
pub(crate) async fn visit(
    context: &Context,
    samples: &mut Samples,
    (point, contender): (&str, &str),
    (targets, clients): (&[Target], usize),
    processes: &[(Metric, &[&Process])],
) -> Result<Done> {
    let mut clients = Clients::connect(targets, clients).await?;
    let cpu = || -> Result<Vec<Duration>> {
        let of =
            |(_, processes): &(Metric, &[&Process])| processes.iter().map(|one| one.cpu()).sum();
        processes.iter().map(of).collect()
    };
    let before = cpu()?;
    let done = clients.time(context.visit()).await?;
    let after = cpu()?;
    for (metric, value) in [
        (RATE, done.per_second()),
        (MEDIAN, done.latency(0.5)),
        (P99, done.latency(0.99)),
    ] {
        samples.add(point, contender, metric, value);
    }
    for (((metric, _), before), after) in processes.iter().zip(before).zip(after) {
        let used = after.saturating_sub(before).as_secs_f64() * 1e6;
        samples.add(point, contender, *metric, used / done.requests());
    }
    Ok(done)
}
