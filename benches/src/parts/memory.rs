//! Part 7: memory of an instance, idle and by waiting request, and the time until it is ready.

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Duration, Instant, sleep},
};

use super::Context;
use crate::{
    load::Clients,
    redis::Redis,
    results::{Metric, Part, Samples},
    rounds::order,
    servers::{Launch, get, mock},
};

const READY: Metric = Metric {
    name: "ready after",
    unit: "ms",
};
const IDLE: Metric = Metric {
    name: "idle",
    unit: "MB",
};
const WAITING: Metric = Metric {
    name: "each waiting request",
    unit: "kB",
};

/// For all requests to be in the queue.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(context: &Context) -> Result<Part> {
    let mut samples = Samples::default();
    for round in 0..context.rounds {
        for index in order(2, round) {
            measure(context, &mut samples, index == 1).await?;
        }
    }
    Ok(Part {
        name: "memory",
        title: "Memory and start of an instance",
        about: "Resident memory of the process. A waiting request has its own connection and a body of 0.2 kB, which is part of it. Ready: from the start of the process to the first 200 of /health/readiness; a new group on Redis takes a lease (3 s) to be sure that no other instance knows it.",
        figures: samples.figures(&[]),
    })
}

async fn measure(context: &Context, samples: &mut Samples, on_redis: bool) -> Result<()> {
    let name = if on_redis { "Redis" } else { "memory" };
    let redis = Redis::start(&context.directory).await?;
    let mut config = mock(on_redis.then(|| redis.url()).as_deref());
    config["model_list"][0]["litellm_params"]["rpm"] = json!(1);
    let launch = Launch {
        name: format!("memory-{name}"),
        binary: &context.binary,
        directory: &context.directory,
        config,
        logs: false,
        counted: None,
    };
    let start = Instant::now();
    let server = launch.start().await?;
    samples.add(
        "an instance",
        name,
        READY,
        start.elapsed().as_secs_f64() * 1000.0,
    );
    let idle = server.process.memory()?;
    samples.add("an instance", name, IDLE, idle as f64 / 1e6);
    // The one request of this minute.
    let target = server.chat();
    Clients::connect(std::slice::from_ref(&target), 1).await?;
    let before = server.process.memory()?;
    let count = context.either(4000, 500);
    let mut waiting = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(server.address).await?;
        stream.write_all(&target.request).await?;
        waiting.push(stream);
    }
    let start = Instant::now();
    while !get(server.address, "/metrics")
        .await?
        .1
        .contains(&metric(count))
    {
        ensure!(start.elapsed() < PATIENCE, "{count} requests do not wait");
        sleep(Duration::from_millis(20)).await;
    }
    let each = (server.process.memory()? as f64 - before as f64) / count as f64;
    samples.add("an instance", name, WAITING, each / 1000.0);
    Ok(())
}

/// The line of the metrics that says that so many wait.
fn metric(count: usize) -> String {
    format!("vorrang_waiting{{group=\"bench\"}} {count}\n")
}
