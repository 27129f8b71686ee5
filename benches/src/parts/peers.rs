//! Part 8: LiteLLM's proxy with the same mock model and a Redis of its own.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use super::{CPU, Context, MEDIAN, P99, RATE, REDIS_CPU, visit};
use crate::{
    answers,
    load::Target,
    process::{Process, free_port},
    redis::Redis,
    results::{Metric, Part, Samples},
    rounds::order,
    servers::{CHAT, Launch, Server, clear, get},
};

const MEMORY: Metric = Metric {
    name: "memory after the load",
    unit: "MB",
};

const OURS: &str = "Vorrang";
/// LiteLLM refuses to start without one, or with a weak one.
const KEY: &str = "sk-of-the-bench-0123456789abcdef";
/// LiteLLM takes a while to import all that it is made of.
const PATIENCE: Duration = Duration::from_secs(180);
/// A limit that is never reached.
const PLENTY: u64 = 1_000_000_000;

/// `litellm`: its command, in the virtual environment that `scripts/bench` made.
pub(crate) async fn run(context: &Context, litellm: &Path) -> Result<Part> {
    let (our_redis, its_redis) = (
        Redis::start(&context.directory).await?,
        Redis::start(&context.directory).await?,
    );
    let ours = Launch {
        name: "peers".into(),
        binary: &context.binary,
        directory: &context.directory,
        config: config(&our_redis),
        logs: true,
        counted: None,
    };
    let output = command(litellm).arg("--version").output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let name = format!("LiteLLM {}", crate::version(&printed));
    let contenders = [
        (OURS, ours.start().await?, &our_redis),
        (
            &*name,
            start(context, litellm, &its_redis).await?,
            &its_redis,
        ),
    ];
    let mut samples = Samples::default();
    for round in 0..context.rounds {
        for &clients in context.either(&[1, 16, 64][..], &[16]) {
            for index in order(contenders.len(), round) {
                let (name, server, redis) = &contenders[index];
                let target = Target::keyed(server.address, CHAT, "bench", KEY);
                let (server_cpu, redis_cpu) = ([&server.process], [&redis.process]);
                let processes = [(CPU, &server_cpu[..]), (REDIS_CPU, &redis_cpu[..])];
                let point = format!("c = {clients}");
                let load = (&[target][..], clients);
                visit(context, &mut samples, (&point, name), load, &processes).await?;
                samples.add(&point, name, MEMORY, server.process.memory()? as f64 / 1e6);
            }
        }
    }
    Ok(Part {
        name: "peers",
        title: "LiteLLM's proxy beside it",
        about: "One process of each, with its own Redis, the same file (a mock model with a limit of requests, usage-based routing, a master key) and the same requests, which have a priority. Both write their usual log to a file.",
        figures: samples.figures(&[
            (RATE, OURS),
            (MEDIAN, OURS),
            (P99, OURS),
            (CPU, OURS),
            (REDIS_CPU, OURS),
            (MEMORY, OURS),
        ]),
    })
}

/// Read by both.
fn config(redis: &Redis) -> Value {
    json!({
        "model_list": [{
            "model_name": "bench",
            "litellm_params": {
                "model": "openai/bench", "api_key": "none", "mock_response": answers::SHORT, "rpm": PLENTY,
            },
        }],
        "router_settings": {
            "redis_host": "127.0.0.1", "redis_port": redis.port(), "routing_strategy": "usage-based-routing-v2",
        },
        "general_settings": {"master_key": KEY},
    })
}

/// It asks no network for prices, and tells nobody that it runs.
fn command(litellm: &Path) -> Command {
    let mut command = Command::new(litellm);
    clear(&mut command);
    command
        .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        .env("LITELLM_TELEMETRY", "False");
    command
}

async fn start(context: &Context, litellm: &Path, redis: &Redis) -> Result<Server> {
    let file = context.directory.join("litellm.json");
    fs::write(&file, serde_json::to_vec_pretty(&config(redis))?)?;
    let port = free_port()?;
    let mut command = command(litellm);
    command
        .arg("--config")
        .arg(&file)
        .args(["--host", "127.0.0.1", "--num_workers", "1", "--port"])
        .arg(port.to_string())
        .current_dir(&context.directory);
    let mut process = Process::start("litellm", command, &context.directory)?;
    let address = ([127, 0, 0, 1], port).into();
    let begun = Instant::now();
    while !get(address, "/health/liveliness")
        .await
        .is_ok_and(|(status, _)| status == 200)
    {
        process.runs()?;
        ensure!(
            begun.elapsed() < PATIENCE,
            "LiteLLM is not up after {PATIENCE:?}"
        );
        sleep(Duration::from_millis(100)).await;
    }
    Ok(Server { process, address })
}
