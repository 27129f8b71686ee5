//! Part 5: what Redis is asked for: by request, and by second while requests wait.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};
use vorrang_scheduler::{Deployment, Group, GroupConfig, LimitKind, NoObserver, Scheduler, Ticket};

use super::{Context, STEPS};
use crate::{
    commandstats::{Commands, between, inside, steps},
    load::Clients,
    peer::connect,
    redis::Redis,
    results::{Metric, Part, Samples},
    rounds::order,
    servers::{Launch, mock},
};

const COMMANDS: Metric = Metric {
    name: "commands within steps",
    unit: "per request",
};
const RECEIVED: Metric = Metric {
    name: "to Redis",
    unit: "bytes per request",
};
const SENT: Metric = Metric {
    name: "from Redis",
    unit: "bytes per request",
};
const KEPT: Metric = Metric {
    name: "memory in Redis",
    unit: "bytes per request",
};
const STEPS_BY_SECOND: Metric = Metric {
    name: "steps",
    unit: "1/s",
};
const COMMANDS_BY_SECOND: Metric = Metric {
    name: "commands within steps",
    unit: "1/s",
};
const RECEIVED_BY_SECOND: Metric = Metric {
    name: "to Redis",
    unit: "bytes/s",
};
const SENT_BY_SECOND: Metric = Metric {
    name: "from Redis",
    unit: "bytes/s",
};
const CPU_BY_SECOND: Metric = Metric {
    name: "Redis CPU",
    unit: "ms/s",
};

/// Instances that share the waiting tickets.
const INSTANCES: usize = 2;
/// For all tickets to be in the queue.
const PATIENCE: Duration = Duration::from_secs(120);
const DAY: Duration = Duration::from_secs(86_400);

/// What Redis has counted so far.
struct Counted {
    commands: Commands,
    stored: u64,
    cpu: Duration,
    network: [u64; 3],
}

impl Counted {
    /// The network last: what is asked for before counts in neither of two looks, but for a command that asks.
    async fn now(redis: &Redis) -> Result<Self> {
        Ok(Self {
            commands: redis.commands().await?,
            stored: redis.stored().await?,
            cpu: redis.process.cpu()?,
            network: redis.network().await?,
        })
    }

    /// Bytes received and sent until now, without those of this look.
    async fn network_since(&self, redis: &Redis) -> Result<[f64; 2]> {
        let now = redis.network().await?;
        let received = now[0] - self.network[0];
        let sent = (now[1] - self.network[1]).saturating_sub(self.network[2]);
        Ok([received as f64, sent as f64])
    }
}

pub(crate) async fn run(context: &Context) -> Result<Part> {
    let mut samples = Samples::default();
    requests(context, &mut samples).await?;
    waiting(context, &mut samples).await?;
    Ok(Part {
        name: "traffic",
        title: "What Redis is asked for",
        about: "c: connections to one instance, each with one request at a time. Waiting: tickets of two instances that wait for a full window, by the scheduler as a library. Memory: what a request adds to the keys of its group until its window is over (MEMORY USAGE).",
        figures: samples.figures(&[]),
    })
}

async fn requests(context: &Context, samples: &mut Samples) -> Result<()> {
    let redis = Redis::start(&context.directory).await?;
    let launch = Launch {
        name: "traffic".into(),
        binary: &context.binary,
        directory: &context.directory,
        config: mock(Some(&redis.url())),
        logs: false,
        counted: None,
    };
    let server = launch.start().await?;
    let clients = context.either(&[1, 16, 64][..], &[1, 64]);
    for round in 0..context.rounds {
        for index in order(clients.len(), round) {
            let mut connected = Clients::connect(&[server.chat()], clients[index]).await?;
            let before = Counted::now(&redis).await?;
            let done = connected.time(context.visit()).await?;
            let [received, sent] = before.network_since(&redis).await?;
            let since = between(&before.commands, &redis.commands().await?);
            let kept = redis.stored().await? as f64 - before.stored as f64;
            for (metric, sum) in [
                (STEPS, steps(&since).calls as f64),
                (COMMANDS, inside(&since) as f64),
                (RECEIVED, received),
                (SENT, sent),
                (KEPT, kept),
            ] {
                let point = format!("c = {}", clients[index]);
                samples.add(&point, "each request", metric, sum / done.requests());
            }
        }
    }
    Ok(())
}

/// Instances with tickets that wait.
struct Waiting {
    redis: Redis,
    schedulers: Vec<Scheduler>,
    _tickets: Vec<Ticket>,
}

async fn waiting(context: &Context, samples: &mut Samples) -> Result<()> {
    let depths = context.either(&[10, 1000, 10_000, 100_000][..], &[10, 10_000]);
    let starting = depths.iter().map(|&depth| Waiting::start(context, depth));
    let contenders = try_join_all(starting).await?;
    // Heartbeats come twice a second.
    let length = context.either(Duration::from_secs(4), Duration::from_secs(2));
    for round in 0..context.rounds {
        for index in order(depths.len(), round) {
            let redis = &contenders[index].redis;
            let (before, start) = (Counted::now(redis).await?, Instant::now());
            sleep(length).await;
            let [received, sent] = before.network_since(redis).await?;
            let seconds = start.elapsed().as_secs_f64();
            let cpu = redis.process.cpu()?.saturating_sub(before.cpu);
            let since = between(&before.commands, &redis.commands().await?);
            for (metric, sum) in [
                (STEPS_BY_SECOND, steps(&since).calls as f64),
                (COMMANDS_BY_SECOND, inside(&since) as f64),
                (RECEIVED_BY_SECOND, received),
                (SENT_BY_SECOND, sent),
                (CPU_BY_SECOND, cpu.as_secs_f64() * 1000.0),
            ] {
                let point = format!("{} waiting", depths[index]);
                samples.add(&point, "each second", metric, sum / seconds);
            }
        }
    }
    for waiting in contenders {
        for scheduler in &waiting.schedulers {
            scheduler.close(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

impl Waiting {
    async fn start(context: &Context, depth: usize) -> Result<Self> {
        let redis = Redis::start(&context.directory).await?;
        let limited = Deployment::new("first").limit(LimitKind::Requests, 1, DAY);
        let config = GroupConfig::new(vec![limited]);
        let (mut schedulers, mut groups) = (Vec::new(), Vec::new());
        for index in 0..INSTANCES {
            let backend = connect(&redis.url())?;
            let scheduler = Scheduler::new(backend, format!("bench-{index}"), Arc::new(NoObserver));
            groups.push(scheduler.open("bench", &config));
            schedulers.push(scheduler);
        }
        let first = groups.first().context("no instance")?;
        drop(first.join(0, 0).granted().await?.dispatch()?);
        let tickets: Vec<Ticket> = (0..depth)
            .map(|index| groups[index % INSTANCES].join(0, 0))
            .collect();
        until_deep(&groups, depth).await?;
        Ok(Self {
            redis,
            schedulers,
            _tickets: tickets,
        })
    }
}

async fn until_deep(groups: &[Group], depth: usize) -> Result<()> {
    let start = Instant::now();
    while groups
        .iter()
        .any(|group| group.status().depth < depth as u64)
    {
        anyhow::ensure!(
            start.elapsed() < PATIENCE,
            "{depth} tickets do not enter the queue"
        );
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
