//! Sends requests to the threads that simulate their groups.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::time::Instant;
use vorrang_gateway::Config;

use super::{Name, Names, Report, Simulate, Source, Traced, group::SimulatedGroup, report};

/// Requests travel in batches of this size.
const BATCH: usize = 512;

/// So many batches wait for a thread.
const AHEAD: usize = 16;

/// A request, and the name of its key.
type Sent = (Traced, Arc<str>);

/// Requests of one group, the group's name with the first.
struct Batch {
    group: Name,
    name: Arc<str>,
    requests: Vec<Sent>,
}

/// What all threads know.
#[derive(Clone, Copy)]
struct Both<'a> {
    new: &'a Config,
    old: Option<&'a Config>,
    round_trip: Duration,
    seed: u64,
}

/// A group that was simulated, or why it was not.
pub(super) enum Outcome {
    /// It was.
    Simulated(Box<SimulatedGroup>),
    /// So many requests of a group that a configuration does not have.
    Missing(u64),
}

/// By the names of groups.
pub(super) type Outcomes = BTreeMap<Arc<str>, Outcome>;

pub(super) fn run(
    options: &Simulate,
    config: &Config,
    against: Option<&Config>,
    source: &mut dyn Source,
) -> Result<Report> {
    let began = Instant::now();
    let both = Both {
        new: config,
        old: against,
        round_trip: options.round_trip,
        seed: options.seed,
    };
    let mut names = Names::new();
    let (outcomes, span) = thread::scope(|scope| -> Result<(Outcomes, Duration)> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores.max(2) - 1)
            .map(|_| {
                let (sender, receiver) = mpsc::sync_channel(AHEAD);
                (sender, scope.spawn(move || work(both, &receiver)))
            })
            .collect();
        let senders: Vec<SyncSender<(Duration, Batch)>> =
            workers.iter().map(|(sender, _)| sender.clone()).collect();
        let span = distribute(source, &mut names, &senders);
        drop(senders);
        let mut outcomes = Outcomes::new();
        for (sender, worker) in workers {
            drop(sender);
            let done = worker.join();
            outcomes.extend(done.ok().context("a thread of the simulation has failed")?);
        }
        Ok((outcomes, span?))
    })?;
    Ok(report::report(
        options,
        report::Simulated {
            configs: (config, against),
            outcomes: &outcomes,
            names: &names,
            counts: source.counts(),
            span,
            took: began.elapsed(),
        },
    ))
}

/// Reads all requests, and returns how long they came.
fn distribute(
    source: &mut dyn Source,
    names: &mut Names,
    workers: &[SyncSender<(Duration, Batch)>],
) -> Result<Duration> {
    let mut keys: HashMap<Name, Arc<str>> = HashMap::new();
    let mut batches: HashMap<Name, Batch> = HashMap::new();
    let mut first = None;
    let mut last = 0;
    let start = |first: Option<u64>| Duration::from_micros(first.unwrap_or(0));
    let send = |batch: Batch, first: Option<u64>| {
        let worker = usize::try_from(batch.group).unwrap_or(0) % workers.len();
        // A thread that has failed is found when it is joined.
        drop(workers[worker].send((start(first), batch)));
    };
    while let Some(traced) = source.next(names)? {
        first.get_or_insert(traced.at);
        last = traced.at;
        let key = keys
            .entry(traced.key)
            .or_insert_with(|| names.name(traced.key).into());
        let batch = batches.entry(traced.group).or_insert_with(|| Batch {
            group: traced.group,
            name: names.name(traced.group).into(),
            requests: Vec::with_capacity(BATCH),
        });
        batch.requests.push((traced, key.clone()));
        if batch.requests.len() == BATCH {
            let full = Batch {
                group: batch.group,
                name: batch.name.clone(),
                requests: std::mem::replace(&mut batch.requests, Vec::with_capacity(BATCH)),
            };
            send(full, first);
        }
    }
    for batch in batches.into_values() {
        send(batch, first);
    }
    Ok(Duration::from_micros(last - first.unwrap_or(last)))
}

fn work(both: Both<'_>, batches: &Receiver<(Duration, Batch)>) -> Outcomes {
    let mut groups: HashMap<Name, (Arc<str>, Outcome)> = HashMap::new();
    for (start, batch) in batches {
        let (_, outcome) = groups
            .entry(batch.group)
            .or_insert_with(|| (batch.name.clone(), both.open(&batch.name)));
        match outcome {
            Outcome::Missing(count) => *count += batch.requests.len() as u64,
            Outcome::Simulated(group) => {
                for (traced, key) in &batch.requests {
                    let at = Duration::from_micros(traced.at).saturating_sub(start);
                    group.arrive(at, traced, key, (both.new, both.old));
                }
            }
        }
    }
    groups
        .into_values()
        .map(|(name, mut outcome)| {
            if let Outcome::Simulated(group) = &mut outcome {
                group.finish();
            }
            (name, outcome)
        })
        .collect()
}

impl Both<'_> {
    fn open(&self, name: &str) -> Outcome {
        let new = self.new.group_called(name).map(|group| (self.new, group));
        let old = self
            .old
            .map(|old| old.group_called(name).map(|group| (old, group)));
        match (new, old) {
            (Some(new), None) => {
                let group = SimulatedGroup::new(new, None, self.round_trip, self.seed);
                Outcome::Simulated(Box::new(group))
            }
            (Some(new), Some(Some(old))) => {
                let group = SimulatedGroup::new(new, Some(old), self.round_trip, self.seed);
                Outcome::Simulated(Box::new(group))
            }
            _ => Outcome::Missing(0),
        }
    }
}
