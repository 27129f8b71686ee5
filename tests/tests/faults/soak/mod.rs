//! All of it at random: `scripts/soak [MINUTES] [SEED]`.
//!
//! The last instance is the veteran: it is never replaced, and so it shows what leaks.

mod dice;
mod faults;
mod guests;
mod setup;
mod strike;
mod watch;

use std::{collections::BTreeMap, env, time::Duration};

use anyhow::{Context as _, Result, ensure};
use redis::Value;
use tokio::time::Instant;
use vorrang_tests::{Act, Gateway, Redis, Relay, until_within};

use self::{
    dice::Dice,
    faults::{FAULTS, Fault},
    guests::Guests,
    setup::Configurations,
    strike::PIECES,
    watch::Watch,
};
use crate::{
    fleet::{CALL_MS, Fleet},
    load::{Load, Rules},
    pace::PACE,
};

/// Instances; the last one is the veteran.
const INSTANCES: usize = 3;

/// Clients of the load: as many requests as a window admits, so that most of them wait.
const CLIENTS: usize = 30;

/// Descriptors that come and go: all clients and guests may have met on one instance, each keeps a connection for a while, and so do calls
/// upstream.
const POOLED: u64 = 120;

struct Soak {
    fleet: Fleet,
    /// Takes over in a failover.
    spare: Redis,
    relays: Vec<Relay>,
    configurations: Configurations,
    guests: Guests,
    dice: Dice,
}

/// A1, A3, A6, A7, A8: faults of all kinds in random order, some of them before the last one is over. At the end
/// nothing has leaked: no ticket, permit, session or key, no memory, no descriptor, no task.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_faults_lose_double_and_leak_nothing() -> Result<()> {
    let number = |name: &str| -> Result<Option<u64>> {
        let value = env::var(name).ok();
        value
            .map(|value| value.parse().with_context(|| format!("{name}={value}")))
            .transpose()
    };
    let minutes = number("VORRANG_SOAK_MINUTES")?;
    let seed = number("VORRANG_SOAK_SEED")?.unwrap_or(1);
    let time = minutes.map_or(Duration::from_secs(10), |minutes| {
        Duration::from_secs(60 * minutes)
    });
    println!("soak: seed {seed}, {time:?}");
    // To look for one thing: only faults whose names contain one of these.
    let only = env::var("VORRANG_SOAK_ONLY").unwrap_or_default();
    let wanted = |fault: &Fault| {
        only.split(',')
            .any(|part| format!("{fault:?}").contains(part))
    };
    let faults: Vec<_> = FAULTS.into_iter().filter(wanted).collect();
    let mut soak = Soak::start(Dice::new(seed)).await?;
    let load = Load::streaming("r", &soak.fleet.targets, CLIENTS, PIECES);
    load.progress(2 * PACE.limit).await?;
    let files = soak.most(|gateway| Ok(gateway.descriptors()? as u64))?;
    let memory = soak.most(Gateway::memory)?;
    let start = Instant::now();
    let mut watch = Watch::new();
    let mut round = 0;
    let mut counts = BTreeMap::<String, usize>::new();
    while start.elapsed() < time {
        let fault = faults[soak.dice.below(faults.len())];
        if fault.ends_an_instance() {
            // A client retries once: it must not reach two ending instances in a row.
            load.settled().await?;
        }
        println!("{:>8.1?} {round}: {fault:?}", start.elapsed());
        soak.strike(fault, round)
            .await
            .with_context(|| format!("{round}: {fault:?}"))?;
        // Half of the time the next one comes before this one is over.
        if soak.dice.below(2) == 0 {
            load.progress(5)
                .await
                .with_context(|| format!("after {round}: {fault:?}"))?;
        }
        *counts.entry(format!("{fault:?}")).or_default() += 1;
        watch.look(&soak.fleet).await?;
        round += 1;
    }
    soak.fleet.upstream.plan(&[], Act::after(CALL_MS)).await?;
    load.progress(PACE.limit).await?;
    let alive: Vec<u32> = soak.fleet.gateways.iter().map(Gateway::id).collect();
    let guests = soak.guests.end(&alive).await?;
    let rules = Rules {
        attempts: guests::ATTEMPTS,
        statuses: guests::STATUSES,
        calls: false,
        standstill: 20 * PACE.window,
        beside: Some(guests::PREFIX),
        ..Rules::default()
    };
    let summary = soak.fleet.judge(load, rules).await?;
    println!("{round} faults in {:?}: {summary:?}", start.elapsed());
    println!("{counts:?}");
    let calls = soak.fleet.upstream.calls().await?;
    println!("{:?}", guests.judge(&calls)?);
    soak.nothing_left(files, memory).await?;
    watch.judge()
}

impl Soak {
    async fn start(dice: Dice) -> Result<Self> {
        let (redis, spare) = (setup::redis().await?, setup::redis().await?);
        let upstream = vorrang_tests::Upstream::start().await?;
        let mut relays = Vec::new();
        for _ in 0..INSTANCES {
            relays.push(Relay::to(redis.port()).await?);
        }
        let configurations = Configurations::new(&upstream, &relays)?;
        let setup = configurations.setup();
        let fleet = Fleet::with(redis, upstream, INSTANCES, setup).await?;
        Ok(Self {
            fleet,
            spare,
            relays,
            configurations,
            guests: Guests::default(),
            dice,
        })
    }

    fn most(&self, look: impl Fn(&Gateway) -> Result<u64>) -> Result<u64> {
        let mut most = 0;
        for gateway in &self.fleet.gateways {
            most = most.max(look(gateway)?);
        }
        Ok(most)
    }

    /// When all are idle they close their sessions; then only the entries of the last window are left in Redis.
    async fn nothing_left(&self, files: u64, memory: u64) -> Result<()> {
        let redis = &self.fleet.redis;
        let sizes = async || -> Result<Vec<u64>> {
            let mut sizes = Vec::new();
            for key in ["queue", "behind", "by_cost", "calls"] {
                sizes.push(redis.members("model", key).await?);
            }
            // Sessions, inboxes, answers.
            for letter in ['S', 'B', 'A'] {
                sizes.push(redis.records("model", letter).await? as u64);
            }
            Ok(sizes)
        };
        let gone = |sizes: &Vec<u64>| sizes.iter().all(|size| *size == 0);
        until_within(PACE.patience(), "goodbyes", sizes, gone).await?;
        let entries = redis.members("model", "entries").await?;
        ensure!(entries <= 2 * PACE.limit as u64, "{entries} entries");
        let keys = redis.command(&["KEYS", "*"]).await?;
        let keys: Vec<String> = redis::from_redis_value(keys)?;
        ensure!(keys.len() <= watch::KEYS, "{keys:?}");
        for key in &keys {
            let life = redis.command(&["TTL", key]).await?;
            ensure!(
                matches!(life, Value::Int(1..)),
                "{key} lives for ever: {life:?}"
            );
        }
        let open = async || self.most(|gateway| Ok(gateway.descriptors()? as u64));
        let few = |open: &u64| *open <= files + POOLED;
        let open = until_within(PACE.patience(), "closed files", open, few).await?;
        let now = self.most(Gateway::memory)?;
        println!(
            "entries left: {entries}; descriptors: {files}, now {open}; memory: {memory}, now {now}"
        );
        ensure!(
            now < memory + 64 * 1024 * 1024,
            "{now} bytes after {memory}"
        );
        Ok(())
    }
}
