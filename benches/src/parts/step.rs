//! Part 3: the step alone, as Redis measures it, beside the least Lua that could do the job.

use std::sync::Arc;

use anyhow::{Result, ensure};
use redis::Script;
use tokio::time::Duration;
use vorrang_scheduler::{
    Claim, Deployment, Entry, GroupConfig, LimitKind, backend::RedisBackend, message::Op,
};

use super::Context;
use crate::{
    commandstats::{between, inside, steps},
    peer::{Peer, connect},
    redis::Redis,
    results::{Metric, Part, Samples},
    rounds::order,
    stats::slope,
};

/// The command's time in Redis.
const TIME: Metric = Metric {
    name: "time in Redis",
    unit: "us per step",
};
/// Of the whole process, with what it reads and writes.
const PROCESSOR: Metric = Metric {
    name: "CPU of Redis",
    unit: "us per step",
};
/// By the line through all sizes of steps.
const FURTHER: Metric = Metric {
    name: "each further request",
    unit: "us",
};
/// The same of the process.
const FURTHER_CPU: Metric = Metric {
    name: "each further request, CPU",
    unit: "us",
};
const COMMANDS: Metric = Metric {
    name: "commands within",
    unit: "per step",
};

const STEP: &str = "step";
const LEAST: &str = "least Lua";
/// Requests of a step.
const SIZES: [usize; 3] = [1, 8, 32];
/// The size of a step where something else differs.
const USUAL: usize = 8;
/// A limit that is never reached.
const PLENTY: u64 = 1_000_000_000;
/// Tokens that a request reserves.
const TOKENS: u64 = 10;
/// Joins of a message that fills a queue.
const FILL: usize = 250;
/// Messages after which other sessions need a heartbeat: long before their lease ends.
const BEAT: usize = 40;
const WINDOW: Duration = Duration::from_secs(60);
/// Full for as long as the run lasts.
const LONG_WINDOW: Duration = Duration::from_secs(86_400);

/// What differs from the usual step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// So many requests join, are granted, and end.
    Turn(usize),
    /// Nothing happened.
    Heartbeat,
    /// All windows are full: a ticket joins and leaves, and none is granted.
    Full,
    /// So many wait behind the calls that are open.
    Deep(usize),
}

struct Case {
    point: String,
    kind: Kind,
    config: GroupConfig,
}

fn deployment(name: &str, limits: &[(LimitKind, u64)]) -> Deployment {
    let all = limits.iter();
    all.fold(Deployment::new(name), |deployment, (kind, limit)| {
        deployment.limit(*kind, *limit, WINDOW)
    })
}

fn cases(context: &Context) -> Vec<Case> {
    let requests =
        |limit| GroupConfig::new(vec![deployment("first", &[(LimitKind::Requests, limit)])]);
    let case = |point: &str, kind, config| Case {
        point: point.into(),
        kind,
        config,
    };
    let mut cases: Vec<Case> = SIZES
        .iter()
        .map(|&size| case(&size_point(size), Kind::Turn(size), requests(PLENTY)))
        .collect();
    let tokens = [(LimitKind::Requests, PLENTY), (LimitKind::Tokens, PLENTY)];
    let three = ["first", "second", "third"].map(|name| deployment(name, &tokens[..1]));
    let full = Deployment::new("first").limit(LimitKind::Requests, 1000, LONG_WINDOW);
    let full = GroupConfig::new(vec![full]);
    cases.extend([
        case("heartbeat", Kind::Heartbeat, requests(PLENTY)),
        case("full windows, 1 joins", Kind::Full, full),
        case(
            "8 requests, rpm and tpm",
            Kind::Turn(USUAL),
            GroupConfig::new(vec![deployment("first", &tokens)]),
        ),
        case(
            "8 requests, 3 deployments",
            Kind::Turn(USUAL),
            GroupConfig::new(three.into()),
        ),
    ]);
    for &waiting in context.either(&[10, 1000, 100_000, 1_000_000][..], &[10, 10_000]) {
        let open = [(LimitKind::Concurrency, USUAL as u64)];
        let config = GroupConfig::new(vec![deployment("first", &open)]);
        cases.push(case(
            &format!("8 requests, {waiting} waiting"),
            Kind::Deep(waiting),
            config,
        ));
    }
    cases
}

fn size_point(size: usize) -> String {
    format!("{size} request{}", if size == 1 { "" } else { "s" })
}

pub(crate) async fn run(context: &Context) -> Result<Part> {
    let redis = Redis::start(&context.directory).await?;
    let cases = cases(context);
    let mut peers = enter(&connect(&redis.url())?, &cases).await?;
    for (index, case) in cases.iter().enumerate() {
        prepare(&mut peers, index, case.kind).await?;
    }
    let script = Script::new(include_str!("../least.lua"));
    let count = context.either(400, 50);
    let mut samples = Samples::default();
    for round in 0..context.rounds {
        let (mut points, mut least_points) = (Vec::new(), Vec::new());
        for index in order(cases.len() + SIZES.len(), round) {
            // A session whose instance says nothing for the lease is over.
            for peer in &mut peers {
                peer.step(Vec::new()).await?;
            }
            let (before, cpu) = (redis.commands().await?, redis.process.cpu()?);
            let (point, contender, size) = match cases.get(index) {
                Some(case) => {
                    for _ in 0..count {
                        act(&mut peers[index], case.kind).await?;
                    }
                    let is_usual = |size: &usize| case.point == size_point(*size);
                    let size = SIZES.into_iter().find(is_usual);
                    (case.point.clone(), STEP, size)
                }
                None => {
                    let size = SIZES[index - cases.len()];
                    for _ in 0..count {
                        least(&redis, &script, size).await?;
                    }
                    (size_point(size), LEAST, Some(size))
                }
            };
            let cpu = redis.process.cpu()?.saturating_sub(cpu);
            let since = between(&before, &redis.commands().await?);
            let (steps, commands) = (steps(&since), inside(&since));
            let calls = steps.calls as f64;
            let cpu = cpu.as_secs_f64() * 1e6 / calls;
            samples.add(&point, contender, TIME, steps.each());
            samples.add(&point, contender, PROCESSOR, cpu);
            samples.add(&point, contender, COMMANDS, commands as f64 / calls);
            if let Some(size) = size {
                let points = if contender == STEP {
                    &mut points
                } else {
                    &mut least_points
                };
                points.push((size as f64, [steps.each(), cpu]));
            }
        }
        for (name, points) in [(LEAST, &least_points), (STEP, &points)] {
            for (metric, of) in [(FURTHER, 0), (FURTHER_CPU, 1)] {
                let line: Vec<(f64, f64)> = points.iter().map(|(x, y)| (*x, y[of])).collect();
                if let Some(slope) = slope(&line) {
                    samples.add("slope of 1, 8, 32", name, metric, slope);
                }
            }
        }
    }
    Ok(Part {
        name: "step",
        title: "The step alone",
        about: "As INFO commandstats says. A step of n requests: n calls are reported as dispatched and ended, n tickets join and are granted at once; one deployment with a limit of requests, if nothing else is said. Beside it a script without any of the promises: it takes the head of a sorted set, and counts requests and open calls.",
        figures: samples.figures(&[
            (TIME, LEAST),
            (PROCESSOR, LEAST),
            (FURTHER, LEAST),
            (COMMANDS, LEAST),
        ]),
    })
}

/// All at once, as a new group takes a lease to recover.
async fn enter(backend: &Arc<RedisBackend>, cases: &[Case]) -> Result<Vec<Peer>> {
    let entering = cases
        .iter()
        .map(|case| Peer::enter(backend, &case.point, "one", &case.config));
    futures_util::future::try_join_all(entering).await
}

/// Fills what the case needs to be full.
async fn prepare(peers: &mut [Peer], index: usize, kind: Kind) -> Result<()> {
    let mut left = match kind {
        Kind::Turn(_) | Kind::Heartbeat => return Ok(()),
        Kind::Full => {
            while peers[index].grants_of(USUAL, TOKENS).await? > 0 {}
            return Ok(());
        }
        Kind::Deep(waiting) => waiting,
    };
    let mut messages = 0;
    while left > 0 {
        let joining = left.min(FILL);
        let join = Op::Join(Entry::new(Claim::new(0, TOKENS)));
        let answer = peers[index].step(vec![join; joining]).await?;
        peers[index].hold(answer.grants);
        left -= joining;
        messages += 1;
        if messages % BEAT == 0 {
            for peer in peers.iter_mut() {
                peer.step(Vec::new()).await?;
            }
        }
    }
    Ok(())
}

async fn act(peer: &mut Peer, kind: Kind) -> Result<()> {
    match kind {
        Kind::Turn(size) => peer.turn(size, TOKENS).await,
        Kind::Heartbeat => peer.turn(0, TOKENS).await,
        Kind::Deep(_) => {
            let granted = peer.grants_of(USUAL, TOKENS).await?;
            ensure!(granted == USUAL, "{granted} of {USUAL} were granted");
            Ok(())
        }
        Kind::Full => {
            let claim = Claim::new(0, TOKENS);
            let answer = peer.step(vec![Op::Join(Entry::new(claim))]).await?;
            ensure!(answer.grants.is_empty(), "the windows are not full");
            let leave = Op::Leave {
                claim,
                arrival: answer.base,
            };
            peer.step(vec![leave]).await?;
            Ok(())
        }
    }
}

async fn least(redis: &Redis, script: &Script, size: usize) -> Result<()> {
    let mut call = script.prepare_invoke();
    call.key("least:queue")
        .key("least:window")
        .key("least:open");
    call.arg(PLENTY).arg(PLENTY).arg(size);
    for request in 0..size {
        call.arg(format!("one:{request:020}"));
    }
    let granted: Vec<String> = call.invoke_async(&mut redis.connection()).await?;
    ensure!(
        granted.len() == size,
        "{} of {size} were granted",
        granted.len()
    );
    Ok(())
}
