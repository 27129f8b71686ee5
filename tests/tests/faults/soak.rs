//! All of it at random: `scripts/soak [MINUTES] [SEED]`.

use std::{env, time::Duration};

use anyhow::{Context as _, Result, ensure};
use redis::Value;
use tokio::time::{Instant, sleep};
use vorrang_tests::{Act, Chat, Client, Redis, Relay, Upstream, relay::LinkState, until_within};

use crate::{
    fleet::{CALL_MS, Fleet, configured},
    load::{Rules, Target},
    pace::{CALLS, PACE},
};

/// SplitMix64: the same faults for the same seed, whatever version of whatever library.
struct Dice(u64);

struct Soak {
    fleet: Fleet,
    relays: Vec<Relay>,
    dice: Dice,
}

/// The faults of a soak.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    KillAndFlush,
    Restart,
    Stop,
    Flush,
    EmptyRedis,
    Scripts,
    Connections,
    Memory,
    Sleep,
    Snapshot,
    CutOff(LinkState),
    CutAllOff(LinkState),
    Reset,
    Storm,
    Errors,
    Stalls,
    Leavers,
    Quiet,
}

const FAULTS: [Fault; 26] = [
    Fault::Kill,
    Fault::Kill,
    Fault::KillAndFlush,
    Fault::Restart,
    Fault::Stop,
    Fault::Stop,
    Fault::Flush,
    Fault::Flush,
    Fault::EmptyRedis,
    Fault::Scripts,
    Fault::Connections,
    Fault::Memory,
    Fault::Sleep,
    Fault::Snapshot,
    Fault::CutOff(LinkState::Cut),
    Fault::CutOff(LinkState::RepliesHeld),
    Fault::CutOff(LinkState::RequestsHeld),
    Fault::CutOff(LinkState::Resetting),
    Fault::CutAllOff(LinkState::Cut),
    Fault::CutAllOff(LinkState::Resetting),
    Fault::Reset,
    Fault::Storm,
    Fault::Errors,
    Fault::Stalls,
    Fault::Leavers,
    Fault::Quiet,
];

/// A1, A3, A6, A7, A8: faults of all kinds in random order, some of them before the last one is over. At the end
/// nothing has leaked: no ticket, permit, session or key, no memory, no descriptor.
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
    let mut soak = Soak::start(Dice(seed)).await?;
    let load = soak.fleet.load("r");
    load.progress(2 * PACE.limit).await?;
    let files = soak.most(|gateway| Ok(gateway.descriptors()? as u64))?;
    let memory = soak.most(vorrang_tests::Gateway::memory)?;
    let start = Instant::now();
    let mut round = 0;
    while start.elapsed() < time {
        let fault = FAULTS[soak.dice.below(FAULTS.len())];
        if matches!(fault, Fault::Restart | Fault::Kill | Fault::KillAndFlush) {
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
        round += 1;
    }
    soak.fleet.upstream.plan(&[], Act::after(CALL_MS)).await?;
    load.progress(PACE.limit).await?;
    let rules = Rules {
        attempts: 3,
        statuses: &[408, 429, 500, 502, 503],
        calls: false,
        standstill: 20 * PACE.window,
        beside: Some("leaver-"),
        ..Rules::default()
    };
    let summary = soak.fleet.judge(load, rules).await?;
    println!("{round} faults in {:?}: {summary:?}", start.elapsed());
    soak.nothing_left(files, memory).await
}

// === impl Dice ===

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        // The remainder is below an usize.
        usize::try_from(self.next() % limit as u64).unwrap_or(0)
    }

    /// Up to so long.
    fn time(&mut self, most: Duration) -> Duration {
        most * u32::try_from(self.below(1000)).unwrap_or(0) / 1000
    }
}

// === impl Soak ===

impl Soak {
    async fn start(dice: Dice) -> Result<Self> {
        let redis = Redis::with(&["--enable-debug-command", "yes"]).await?;
        let upstream = Upstream::start().await?;
        let mut relays = Vec::new();
        for _ in 0..3 {
            relays.push(Relay::to(redis.port()).await?);
        }
        let limits = [
            format!("rpm: {}", PACE.limit),
            format!("max_parallel_requests: {CALLS}"),
            "timeout: 1".to_owned(),
        ];
        let router = ["cooldown_time: 1"];
        // The order with the most state that a loss can damage.
        let fair = ["groups: {model: {fair_by: header:x-team}}"];
        let configs = relays
            .iter()
            .map(|relay| configured(&upstream, &relay.url(), &limits, &router, &fair));
        let configs: Vec<String> = configs.collect();
        let setup = Box::new(move |index: usize| (configs[index].clone(), Vec::new()));
        let fleet = Fleet::with(redis, upstream, 3, setup).await?;
        Ok(Self {
            fleet,
            relays,
            dice,
        })
    }

    fn most(&self, look: impl Fn(&vorrang_tests::Gateway) -> Result<u64>) -> Result<u64> {
        let mut most = 0;
        for gateway in &self.fleet.gateways {
            most = most.max(look(gateway)?);
        }
        Ok(most)
    }

    async fn strike(&mut self, fault: Fault, round: usize) -> Result<()> {
        let index = self.dice.below(3);
        let pause = self.dice.time(3 * PACE.lease);
        match fault {
            Fault::Kill | Fault::KillAndFlush => {
                self.fleet.kill(index)?;
                if matches!(fault, Fault::KillAndFlush) {
                    self.fleet.redis.flush().await?;
                }
                sleep(pause).await;
                self.fleet.revive(index).await?;
            }
            Fault::Restart => {
                let client = self.fleet.gateways[index].client().clone();
                self.fleet.targets.set(index, Target::Leaving(client));
                self.fleet.gateways[index].terminate()?;
                ensure!(self.fleet.gateways[index].ended().await?.success());
                self.fleet.revive(index).await?;
            }
            Fault::Stop => {
                self.fleet.gateways[index].freeze()?;
                sleep(pause).await;
                self.fleet.gateways[index].thaw()?;
            }
            Fault::Flush => self.fleet.redis.flush().await?,
            Fault::EmptyRedis => {
                self.fleet.redis.stop()?;
                sleep(pause).await;
                self.fleet.redis.restart().await?;
            }
            Fault::Snapshot => {
                self.command(&["SAVE"]).await?;
                sleep(pause + PACE.lease).await;
                self.fleet.redis.stop()?;
                self.fleet.redis.restart().await?;
            }
            Fault::Scripts => self.command(&["SCRIPT", "FLUSH"]).await?,
            Fault::Connections => {
                for kind in ["normal", "pubsub"] {
                    self.command(&["CLIENT", "KILL", "TYPE", kind]).await?;
                }
            }
            Fault::Memory => {
                self.command(&["CONFIG", "SET", "maxmemory", "1"]).await?;
                sleep(pause).await;
                self.command(&["CONFIG", "SET", "maxmemory", "0"]).await?;
            }
            Fault::Sleep => {
                let seconds = pause.as_secs_f64().to_string();
                self.command(&["DEBUG", "SLEEP", &seconds]).await?;
            }
            Fault::CutOff(state) => {
                self.relays[index].set(state);
                sleep(pause).await;
                self.relays[index].set(LinkState::Up);
            }
            Fault::CutAllOff(state) => {
                self.relays.iter().for_each(|relay| relay.set(state));
                sleep(pause).await;
                self.relays
                    .iter()
                    .for_each(|relay| relay.set(LinkState::Up));
            }
            Fault::Reset => self.relays.iter().for_each(Relay::reset),
            Fault::Storm => {
                let busy = Act {
                    retry_after: Some("1".into()),
                    ..Act::fail(429)
                };
                self.acts(busy).await?;
            }
            Fault::Errors => {
                let act =
                    [Act::fail(500), Act::fail(503), Act::late_reset()][self.dice.below(3)].clone();
                self.acts(act).await?;
            }
            Fault::Stalls => self.acts(Act::hold()).await?,
            Fault::Leavers => {
                // Of their own: their connections go with them.
                let client = Client::new(self.fleet.gateways[index].url())?;
                let chat = |number: usize| {
                    let priority = i32::try_from(number).unwrap_or(0) % 9 - 4;
                    Chat::new(&format!("leaver-{round}-{number}")).priority(priority)
                };
                let leavers: Vec<_> = (0..100).map(|number| client.send(chat(number))).collect();
                sleep(pause).await;
                leavers.iter().for_each(tokio::task::JoinHandle::abort);
            }
            Fault::Quiet => sleep(pause).await,
        }
        Ok(())
    }

    async fn command(&self, words: &[&str]) -> Result<()> {
        self.fleet.redis.command(words).await.map(drop)
    }

    /// Some of the next calls are answered so.
    async fn acts(&mut self, act: Act) -> Result<()> {
        let fine = Act::after(CALL_MS);
        let count = 1 + self.dice.below(2 * CALLS);
        let mut acts = Vec::new();
        for _ in 0..count {
            acts.push(if self.dice.below(2) == 0 {
                act.clone()
            } else {
                fine.clone()
            });
        }
        self.fleet.upstream.plan(&acts, fine).await
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
        ensure!(keys.len() <= 9, "{keys:?}");
        for key in &keys {
            let life = redis.command(&["TTL", key]).await?;
            ensure!(
                matches!(life, Value::Int(1..)),
                "{key} lives for ever: {life:?}"
            );
        }
        // All clients may have met on one instance; each keeps a connection for a while, and so do calls upstream.
        const POOLED: u64 = 120;
        let open = async || self.most(|gateway| Ok(gateway.descriptors()? as u64));
        let few = |open: &u64| *open <= files + POOLED;
        let open = until_within(PACE.patience(), "closed files", open, few).await?;
        let now = self.most(vorrang_tests::Gateway::memory)?;
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
