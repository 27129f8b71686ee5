//! Three instances, one Redis, one quota.

use std::{collections::HashMap, time::Duration};

use anyhow::{Result, ensure};
use tokio::task::JoinHandle;
use vorrang_tests::{
    Act, Chat, Gateway, Redis, Reply, Seen, Upstream, config,
    referee::{Limit, inversions},
};

pub(crate) const LIMIT: usize = 40;
pub(crate) const WINDOW: Duration = Duration::from_secs(3);
pub(crate) const GUARD: Duration = Duration::from_millis(150);
const LEASE: Duration = Duration::from_secs(2);
/// What a busy machine may add to a bound of the contract.
pub(crate) const SLACK: Duration = Duration::from_secs(1);

pub(crate) const PRIORITIES: [i32; 5] = [-10, 0, 3, 500, 1000];

pub(crate) struct Fleet {
    _redis: Redis,
    pub(crate) upstream: Upstream,
    pub(crate) gateways: Vec<Gateway>,
}

impl Fleet {
    async fn start() -> Result<Self> {
        Self::with(&[]).await
    }

    /// With more lines of `vorrang_settings`.
    pub(crate) async fn with(more: &[&str]) -> Result<Self> {
        let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
        upstream.plan(&[], Act::after(20)).await?;
        let ours = [
            format!("redis_url: {}", redis.url()),
            format!("window_seconds: {}", WINDOW.as_secs_f64()),
            format!("guard_ms: {}", GUARD.as_millis()),
            format!("lease_seconds: {}", LEASE.as_secs_f64()),
        ];
        let ours: Vec<&str> = ours
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        let config = config(&upstream.url(), &[&format!("rpm: {LIMIT}")], &[], &ours);
        let mut gateways = Vec::new();
        for _ in 0..3 {
            gateways.push(Gateway::launch(&config, &[]).await?);
        }
        for gateway in &gateways {
            gateway.ready().await?;
        }
        Ok(Self {
            _redis: redis,
            upstream,
            gateways,
        })
    }

    /// `count` requests of all priorities, in turn over these instances.
    pub(crate) fn send(
        &self,
        name: &str,
        count: usize,
        over: &[usize],
        priorities: &[i32],
    ) -> Vec<JoinHandle<Result<Reply>>> {
        let chat = |index: usize| {
            let gateway = &self.gateways[over[index % over.len()]];
            // Not in step with the instances, so that each one has requests of all priorities.
            let priority = priorities[(index / over.len()) % priorities.len()];
            gateway
                .client()
                .send(Chat::new(&format!("{name}-{index}")).priority(priority))
        };
        (0..count).map(chat).collect()
    }

    /// Each of these was answered 200 and reached the upstream exactly once, and no ticket was overtaken.
    pub(crate) async fn judge(
        &self,
        name: &str,
        replies: Vec<JoinHandle<Result<Reply>>>,
    ) -> Result<()> {
        let mut passages = Vec::new();
        let count = replies.len();
        for reply in replies {
            passages.push(reply.await??.ok()?.passage()?);
        }
        let inverted = inversions(&passages);
        ensure!(
            inverted.is_empty(),
            "{} inversions: {inverted:?}",
            inverted.len()
        );
        let mut came: HashMap<String, usize> = HashMap::new();
        for call in self.upstream.calls().await? {
            *came.entry(call.user()).or_default() += 1;
        }
        for index in 0..count {
            let user = format!("{name}-{index}");
            let times = came.get(&user).copied().unwrap_or(0);
            ensure!(times == 1, "{user} came {times} times");
        }
        Ok(())
    }

    /// No window was over the limit. Returns how long a slot stayed taken or empty at most.
    pub(crate) async fn windows(&self) -> Result<Duration> {
        let mut dispatched = Vec::new();
        for gateway in &self.gateways {
            dispatched.extend(gateway.dispatches()?);
        }
        let calls = self.upstream.calls().await?;
        let arrived: Vec<u64> = calls.iter().map(|call| call.at).collect();
        let limit = Limit {
            calls: LIMIT,
            window: WINDOW,
            guard: GUARD,
        };
        limit.judge(&dispatched, &arrived)
    }
}

/// A1, A3, A4: over three instances.
#[tokio::test]
async fn three_hundred_requests_pass_once_in_order_and_fill_every_window() -> Result<()> {
    let fleet = Fleet::start().await?;
    let replies = fleet.send("r", 300, &[0, 1, 2], &PRIORITIES);
    fleet.judge("r", replies).await?;
    ensure!(fleet.upstream.calls().await?.len() == 300);
    let refill = fleet.windows().await?;
    ensure!(
        refill < WINDOW + GUARD + SLACK,
        "a place stayed empty: {refill:?}"
    );
    Ok(())
}

/// A1: users that arrive later on one instance are served before jobs that wait on another.
#[tokio::test]
async fn batch_job_never_overtakes_a_user_of_another_instance() -> Result<()> {
    let fleet = Fleet::start().await?;
    for reply in fleet.send("used", LIMIT, &[0, 1, 2], &[0]) {
        reply.await??.ok()?;
    }
    let jobs = fleet.send("job", LIMIT, &[0], &[1000]);
    fleet.gateways[0].waiting(LIMIT as u32).await?;
    let users = fleet.send("user", LIMIT, &[1], &[0]);
    fleet.gateways[1].waiting(LIMIT as u32).await?;
    fleet.judge("user", users).await?;
    fleet.judge("job", jobs).await?;
    let calls = fleet.upstream.seen(3 * LIMIT).await?;
    let is_user = |call: &Seen| call.user().starts_with("user");
    ensure!(calls[LIMIT..2 * LIMIT].iter().all(is_user), "{calls:?}");
    ensure!(fleet.windows().await? < WINDOW + GUARD + SLACK);
    Ok(())
}
