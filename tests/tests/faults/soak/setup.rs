//! What the instances and the Redis servers of a soak are started with.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::Result;
use vorrang_tests::{Redis, Relay, Start, Upstream};

use super::INSTANCES;
use crate::{
    clocks::Clocks,
    fleet::{Setup, configured},
    pace::{CALLS, PACE},
};

/// The instances' user: the rights that docs/operations.md names, and no others.
pub(super) const USER: [&str; 37] = [
    "vorrang",
    "on",
    ">soak",
    "~vorrang:*",
    "&vorrang:*",
    "+fcall",
    "+function|load",
    "+ping",
    "+unwatch",
    "+info",
    "+time",
    "+select",
    "+config|get",
    "+subscribe",
    "+publish",
    "+hset",
    "+hget",
    "+hmget",
    "+hgetall",
    "+hkeys",
    "+hdel",
    "+unlink",
    "+expire",
    "+exists",
    "+zadd",
    "+zrem",
    "+zrange",
    "+zrangebyscore",
    "+zrevrangebyscore",
    "+zrangebylex",
    "+zrevrangebylex",
    "+zcount",
    "+zlexcount",
    "+zmscore",
    "+zscore",
    "+zrank",
    "+zremrangebyrank",
];

/// Descriptors of an instance: enough for 168 requests that wait.
const FILES: u32 = 512;

/// Waiting requests in the fleet: more than the load's, fewer than an overload's.
const DEPTH: usize = 200;

/// A server with that user. It keeps the user when it restarts.
pub(super) async fn redis() -> Result<Redis> {
    let mut options = vec![
        "--enable-debug-command",
        "yes",
        // A failover is over before the window is.
        "--repl-diskless-sync-delay",
        "0",
        "--user",
    ];
    options.extend(USER);
    Redis::with(&options).await
}

/// The instances' configurations and clocks.
pub(super) struct Configurations {
    /// The usual one of each instance, and the one with lower limits.
    texts: Vec<[String; 2]>,
    /// Which instances have the lower limits.
    lower: Arc<[AtomicBool; INSTANCES]>,
    clocks: Arc<Clocks>,
}

impl Configurations {
    pub(super) fn new(upstream: &Upstream, relays: &[Relay]) -> Result<Self> {
        let text = |relay: &Relay, rpm: usize, calls: usize| {
            let limits = [
                format!("rpm: {rpm}"),
                format!("max_parallel_requests: {calls}"),
                "timeout: 1".to_owned(),
            ];
            // The order with the most state that a loss can damage.
            let fair = "groups: {model: {fair_by: header:x-team}}";
            let depth = format!("max_queue_depth: {DEPTH}");
            let url = relay.url().replace("//", "//vorrang:soak@");
            configured(
                upstream,
                &url,
                &limits,
                &["cooldown_time: 1"],
                &[fair, &depth],
            )
        };
        let both = |relay: &Relay| {
            [
                text(relay, PACE.limit, CALLS),
                text(relay, PACE.limit * 2 / 3, CALLS * 2 / 3),
            ]
        };
        let configurations = Self {
            texts: relays.iter().map(both).collect(),
            lower: Arc::default(),
            clocks: Clocks::new()?,
        };
        for index in 0..INSTANCES {
            configurations.set_clock(index, 0)?;
        }
        Ok(configurations)
    }

    /// Each instance starts with its configuration and clock of that time.
    pub(super) fn setup(&self) -> Setup {
        let (texts, lower) = (self.texts.clone(), self.lower.clone());
        let clocks = self.clocks.clone();
        Box::new(move |index| Start {
            config: texts[index][usize::from(lower[index].load(Ordering::Relaxed))].clone(),
            env: clocks.environment(index),
            files: Some(FILES),
            ..Start::default()
        })
    }

    /// The other configuration of this instance from its next start on, and its text.
    pub(super) fn change(&self, index: usize) -> &str {
        let was = self.lower[index].fetch_xor(true, Ordering::Relaxed);
        &self.texts[index][usize::from(!was)]
    }

    /// Sets the clock of an instance, by whole days: the judge knows what they are by the clock of this machine.
    pub(super) fn set_clock(&self, index: usize, days: i64) -> Result<()> {
        self.clocks.set(index, days * 24)
    }
}
