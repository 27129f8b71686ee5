//! Part 9: instructions of each request, counted by callgrind: the figure to watch from commit to commit.
//!
//! Time on a shared machine differs by more than most changes do; instructions differ by less than one per cent. Each scenario runs
//! twice, with few requests and with many, and the difference is divided by the difference of requests: what a process does at its start
//! and end falls out.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;
use vorrang_scheduler::{Deployment, GroupConfig, LimitKind};

use super::Context;
use crate::{
    baseline::{Baseline, Build, DEV},
    callgrind::{Totals, each, parse},
    load::{Clients, Target},
    peer::{Peer, connect},
    redis::Redis,
    results::{Metric, Part, Samples},
    servers::{CHAT, Launch, Upstream, callgrind, group, mock},
};

/// Requests before any is counted: by then pools, buffers and tables have their sizes.
const WARM: u64 = 200;
/// Requests of the two runs.
const COUNTS: [u64; 2] = [200, 1000];
/// The same of steps, each of which costs as much as several requests.
const WARM_STEPS: u64 = 50;
/// Steps of the two runs.
const STEPS: [u64; 2] = [50, 300];
/// The same of the dev profile, which executes several times the instructions.
const DEV_COUNTS: [u64; 2] = [50, 200];
/// The scenarios of a quick run, and of the dev profile beside those of Redis.
const QUICK: [&str; 2] = ["mock", "forward"];
const ON_REDIS: &str = "mock_on_redis";
/// Heartbeats come by the clock, a sixth of the lease apart: with that of 3 s a busy machine would count several per cent more.
const LEASE_SECONDS: u64 = 20;
/// No entry leaves its window while steps are counted, however long that takes.
const DAY: Duration = Duration::from_secs(86_400);
/// A limit that is never reached.
const PLENTY: u64 = 1_000_000_000;

const INSTRUCTIONS: Metric = Metric {
    name: "instructions",
    unit: "each",
};
const ALLOCATIONS: Metric = Metric {
    name: "allocations",
    unit: "each",
};

/// What is counted.
enum Scenario {
    /// Requests to the gateway.
    Requests {
        config: Value,
        model: String,
        logs: bool,
    },
    /// Steps of so many requests each, in Redis.
    Steps(usize),
}

pub(crate) async fn measure(context: &Context, build: Build) -> Result<Baseline> {
    let upstream = Upstream::start(&context.directory).await?;
    let redis = Redis::start(&context.directory).await?;
    let requests = |config: Value, model: &str, logs| Scenario::Requests {
        config: ends_at_once(config),
        model: model.into(),
        logs,
    };
    let forward = |tls, size, logs| requests(upstream.forwarding(), &group(tls, size), logs);
    let mut on_redis = mock(Some(&redis.url()));
    on_redis["vorrang_settings"]["lease_seconds"] = LEASE_SECONDS.into();
    let scenarios = [
        ("mock", requests(mock(None), "bench", false)),
        ("mock_access_line", requests(mock(None), "bench", true)),
        (ON_REDIS, requests(on_redis, "bench", false)),
        ("forward", forward(false, 200, false)),
        ("forward_20kB", forward(false, 20_000, false)),
        ("forward_tls", forward(true, 200, false)),
        ("redis.step_1", Scenario::Steps(1)),
        ("redis.step_8", Scenario::Steps(8)),
    ];
    let is_wanted = |name: &str, scenario: &Scenario| match build {
        Build::Release => !context.quick || QUICK.contains(&name),
        Build::Dev => QUICK.contains(&name) || matches!(scenario, Scenario::Steps(_)),
    };
    let scenarios = scenarios
        .iter()
        .filter(|(name, scenario)| is_wanted(name, scenario));
    // What waits for its lease to begin with runs beside all others: what else runs changes no count.
    let (slow, others): (Vec<_>, Vec<_>) = scenarios.partition(|(name, _)| *name == ON_REDIS);
    let (slow, others) = tokio::try_join!(
        one_by_one(context, build, &slow),
        one_by_one(context, build, &others)
    )?;
    let figures = slow.into_iter().chain(others).collect();
    let versions = [
        ("redis", redis.version().await?),
        ("rustc", version("rustc")?),
        ("valgrind", version("valgrind")?),
    ];
    Ok(Baseline {
        about: ABOUT.into(),
        versions: versions
            .map(|(what, version)| (what.into(), version))
            .into(),
        figures,
    })
}

fn version(program: &str) -> Result<String> {
    let text = crate::printed(Path::new(program), &["--version"]);
    Ok(crate::version(&text.with_context(|| program.to_owned())?))
}

/// Two runs of each scenario, at once.
async fn one_by_one(
    context: &Context,
    build: Build,
    scenarios: &[&(&'static str, Scenario)],
) -> Result<Vec<(String, f64)>> {
    let mut figures = Vec::new();
    for (name, scenario) in scenarios {
        let (counts, prefix) = match (scenario, build) {
            (Scenario::Requests { .. }, Build::Release) => (COUNTS, ""),
            (Scenario::Requests { .. }, Build::Dev) => (DEV_COUNTS, DEV),
            (Scenario::Steps(_), _) => (STEPS, ""),
        };
        let (fewer, more) = tokio::try_join!(
            count(context, name, scenario, counts[0]),
            count(context, name, scenario, counts[1]),
        )?;
        let (instructions, allocations) = each((counts[0], fewer), (counts[1], more));
        figures.push((format!("{prefix}{name}.instructions"), instructions.round()));
        if let Scenario::Requests { .. } = scenario {
            let rounded = (allocations * 10.0).round() / 10.0;
            figures.push((format!("{prefix}{name}.allocations"), rounded));
        }
    }
    Ok(figures)
}

const ABOUT: &str = "Instructions and allocations of each request, and instructions of each step in Redis, by callgrind \
    (one worker thread, one connection; `dev.`: of the dev profile, all others of the release build). Written by `scripts/bench --accept`, \
    which says how; `scripts/bench --check` and `scripts/test` compare.";

/// As a part of a full run.
pub(crate) fn part(baseline: &Baseline) -> Part {
    let mut samples = Samples::default();
    for (figure, value) in &baseline.figures {
        if let Some(name) = figure.strip_suffix(".instructions") {
            samples.add(name, "vorrang", INSTRUCTIONS, *value);
        } else if let Some(name) = figure.strip_suffix(".allocations") {
            samples.add(name, "vorrang", ALLOCATIONS, *value);
        }
    }
    Part {
        name: "instructions",
        title: "Instructions of each request (callgrind)",
        about: "Of the process in which it happens: the gateway, or Redis for its steps. One worker thread, one connection. The kernel's are not counted.",
        figures: samples.figures(&[]),
    }
}

/// Runs a scenario with so many requests beyond those that warm up.
async fn count(
    context: &Context,
    name: &str,
    scenario: &Scenario,
    requests: u64,
) -> Result<Totals> {
    let out = context
        .directory
        .join(format!("{name}-{requests}.callgrind"));
    match scenario {
        Scenario::Requests {
            config,
            model,
            logs,
        } => {
            let launch = Launch {
                name: format!("{name}-{requests}"),
                binary: &context.binary,
                directory: &context.directory,
                config: with_namespace(config, requests),
                logs: *logs,
                counted: Some(out.clone()),
            };
            let mut server = launch.start().await?;
            let target = Target::chat(server.address, CHAT, model, false);
            let mut clients = Clients::connect(&[target], 1).await?;
            clients.count(usize::try_from(WARM + requests)?).await?;
            server.process.terminate().await?;
        }
        Scenario::Steps(each) => steps(&context.directory, &out, *each, requests).await?,
    }
    totals(&out)
}

/// Limits open calls, so that each end of a call goes at once: others linger for a time that valgrind's slowness could exceed or not.
fn ends_at_once(mut config: Value) -> Value {
    for model in config["model_list"].as_array_mut().into_iter().flatten() {
        model["litellm_params"]["max_parallel_requests"] = PLENTY.into();
    }
    config
}

/// The two runs on one Redis are fleets of their own.
fn with_namespace(config: &Value, requests: u64) -> Value {
    let mut config = config.clone();
    if config["vorrang_settings"]["redis_url"].is_string() {
        config["vorrang_settings"]["redis_namespace"] = format!("run-{requests}").into();
    }
    config
}

async fn steps(directory: &Path, out: &Path, each: usize, steps: u64) -> Result<()> {
    let mut command = callgrind(out);
    // What Redis does by the clock, as seldom as it can.
    command.args(["redis-server", "--hz", "1", "--dynamic-hz", "no"]);
    let mut redis = Redis::under(command, directory).await?;
    let config = GroupConfig::new(vec![Deployment::new("first").limit(
        LimitKind::Requests,
        PLENTY,
        DAY,
    )]);
    let backend = connect(&redis.url())?;
    let mut peer = Peer::enter(&backend, "bench", "one", &config).await?;
    for _ in 0..WARM_STEPS + steps {
        peer.turn(each, 10).await?;
    }
    redis.process.terminate().await?;
    Ok(())
}

fn totals(out: &PathBuf) -> Result<Totals> {
    let text = fs::read_to_string(out).with_context(|| out.display().to_string())?;
    parse(&text).with_context(|| format!("{} has no totals", out.display()))
}
