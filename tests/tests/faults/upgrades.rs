//! Two versions of the gateway in one fleet: roll-outs forward and back.
//!
//! `scripts/test` builds the previous version, and names it with `VORRANG_PREVIOUS_BIN`.

use std::{
    env::var_os,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use vorrang_tests::{Chat, Gateway, Redis, Start, Upstream, gateway::executable, until};

use crate::{
    fleet::{Fleet, Setup, configured, limited},
    load::{Load, Rules, Summary},
    pace::{CALLS, PACE},
};

const INSTANCES: usize = 3;

/// More than may call at once, so that some wait; not many, as each roll-out step waits for the worst of them.
const CLIENTS: usize = CALLS + 2;

/// Which instances are of the version under test; the others are of the previous one.
type Renewed = Arc<[AtomicBool; INSTANCES]>;

/// `None`: there is no previous version here.
fn previous() -> Option<PathBuf> {
    let found = var_os("VORRANG_PREVIOUS_BIN").filter(|path| !path.is_empty());
    if found.is_none() {
        eprintln!(
            "\n!!!! SKIPPED: upgrades: there is no previous version; scripts/test builds it\n"
        );
    }
    found.map(PathBuf::from)
}

/// The version of the state that this executable stores, by the names of its keys.
async fn schema(executable: &Path) -> Result<String> {
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let start = Start {
        config: limited(&upstream, &redis.url()),
        executable: Some(executable.into()),
        ..Start::default()
    };
    let gateway = Gateway::launch_as(&start).await?;
    gateway.ready().await?;
    gateway.client().chat(&Chat::new("one")).await?.ok()?;
    let keys: Vec<String> = redis::from_redis_value(redis.command(&["KEYS", "*"]).await?)?;
    let key = keys.first().context("no keys")?;
    let schema = key.split(':').nth(1).context(key.clone())?;
    Ok(schema.into())
}

/// Each instance as its version starts, with the configuration of that version.
fn setup(renewed: &Renewed, previous: PathBuf, configs: [String; 2]) -> Setup {
    let renewed = renewed.clone();
    Box::new(move |index| {
        let new = renewed[index].load(Ordering::Relaxed);
        Start {
            config: configs[usize::from(new)].clone(),
            executable: (!new).then(|| previous.clone()),
            ..Start::default()
        }
    })
}

/// Replaces one instance after the other by the other version, forward and then back, in another order. `between` is what happens to
/// the fleet each time.
async fn roll(
    fleet: &mut Fleet,
    renewed: &Renewed,
    load: &Load,
    between: impl AsyncFn(&Fleet) -> Result<()>,
) -> Result<()> {
    for index in [0, 1, 2, 1, 0, 2] {
        // A client retries once: it must not reach two ending instances in a row.
        load.settled().await?;
        renewed[index].fetch_xor(true, Ordering::Relaxed);
        fleet.replace(index).await?;
        load.progress(PACE.limit / 2).await?;
        between(fleet).await?;
        load.progress(10).await?;
    }
    Ok(())
}

/// A1, A3, A6, A8, P3, P20: a fleet of this version and the previous one is one fleet, forward and back, also where its state is lost
/// meanwhile. Operators see all instances from each, and what a later version asks is ignored.
/// Where the versions' states differ, each has its own, and the operator halves the limits meanwhile (docs/operations.md, upgrades).
#[tokio::test]
async fn fleet_of_two_versions_loses_doubles_inverts_and_over_admits_nothing() -> Result<()> {
    let Some(previous) = previous() else {
        return Ok(());
    };
    let (before, now) = (schema(&previous).await?, schema(executable()?).await?);
    println!("state of the previous version: {before}, of this one: {now}");
    if before != now {
        let summary = halves(previous, "").await?;
        ensure!(summary.died == 0, "{summary:?}");
        return Ok(());
    }
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let config = limited(&upstream, &redis.url());
    let renewed = Renewed::default();
    let setup = setup(&renewed, previous, [config.clone(), config]);
    let mut fleet = Fleet::with(redis, upstream, INSTANCES, setup).await?;
    let load = Load::start("r", &fleet.targets, CLIENTS);
    load.progress(10).await?;
    roll(&mut fleet, &renewed, &load, async |fleet| {
        for gateway in &fleet.gateways {
            all_are_seen_from(gateway).await?;
        }
        ask_the_unknown(&fleet.redis).await?;
        fleet.redis.flush().await
    })
    .await?;
    for gateway in &fleet.gateways {
        all_are_seen_from(gateway).await?;
    }
    let rules = Rules {
        // A loss costs a window more: conservative charges (P13).
        standstill: PACE.standstill() + PACE.window + PACE.guard + PACE.lease,
        ..Rules::default()
    };
    let summary = fleet.judge(load, rules).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// A3: fleets that share no state keep a limit together if each has the half of it: what operators do while versions with different
/// states are there. Namespaces of their own divide them in the same way.
#[tokio::test]
async fn two_fleets_without_common_state_keep_the_limit_by_halves() -> Result<()> {
    let summary = halves(executable()?.into(), "redis_namespace: renewed").await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// Rolls out forward and back with half of the limits. `new`: a further line of the new version's `vorrang_settings`.
async fn halves(previous: PathBuf, new: &str) -> Result<Summary> {
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let limits = [
        format!("rpm: {}", PACE.limit / 2),
        format!("max_parallel_requests: {}", CALLS / 2),
    ];
    let config = |more: &[&str]| configured(&upstream, &redis.url(), &limits, &[], more);
    let more: Vec<&str> = Some(new)
        .filter(|line| !line.is_empty())
        .into_iter()
        .collect();
    let configs = [config(&[]), config(&more)];
    let renewed = Renewed::default();
    let setup = setup(&renewed, previous, configs);
    let mut fleet = Fleet::with(redis, upstream, INSTANCES, setup).await?;
    let load = Load::start("r", &fleet.targets, CLIENTS);
    load.progress(10).await?;
    roll(&mut fleet, &renewed, &load, async |_| Ok(())).await?;
    let rules = Rules {
        order: false,
        ..Rules::default()
    };
    fleet.judge(load, rules).await
}

/// Operators see every instance, with its own answer.
async fn all_are_seen_from(gateway: &Gateway) -> Result<()> {
    let look = async || gateway.client().get("/admin/overview").await?.ok()?.json();
    let all = |overview: &serde_json::Value| {
        let instances = overview["instances"].as_array();
        let answered = instances.map(|all| all.iter().filter(|one| one["answered"] == json!(true)));
        answered.is_some_and(|answered| answered.count() == INSTANCES)
    };
    until("all instances", look, all).await?;
    Ok(())
}

/// Posts what only a later version could ask, to all that listen.
async fn ask_the_unknown(redis: &Redis) -> Result<()> {
    let channels = redis.command(&["PUBSUB", "CHANNELS", "*:post:*"]).await?;
    let channels: Vec<String> = redis::from_redis_value(channels)?;
    ensure!(channels.len() >= INSTANCES, "{channels:?}");
    let post =
        json!({"from": "later", "id": 1, "question": {"ask": "dance", "steps": 3}, "urgent": true});
    for channel in channels {
        redis
            .command(&["PUBLISH", &channel, &post.to_string()])
            .await?;
    }
    Ok(())
}
