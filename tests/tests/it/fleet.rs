//! Three instances, one Redis, one quota.

use std::{collections::HashMap, time::Duration};

use anyhow::{Result, ensure};
use tokio::task::JoinHandle;
use vorrang_tests::{
    Act, Chat, Gateway, Redis, Reply, Seen, Upstream, config,
    referee::{Limit, inversions},
    upstream::Fate,
};

pub(crate) const LIMIT: usize = 40;
pub(crate) const WINDOW: Duration = Duration::from_secs(3);
pub(crate) const GUARD: Duration = Duration::from_millis(150);
const LEASE: Duration = Duration::from_secs(2);
/// What a busy machine may add to a bound of the contract.
const SLACK: Duration = Duration::from_secs(1);

pub(crate) const PRIORITIES: [i32; 5] = [-10, 0, 3, 500, 1000];

pub(crate) struct Fleet {
    redis: Redis,
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
            redis,
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
            // Not in step with the instances: each has all priorities.
            let priority = priorities[(index / over.len()) % priorities.len()];
            gateway
                .client()
                .send(Chat::new(&format!("{name}-{index}")).priority(priority))
        };
        (0..count).map(chat).collect()
    }

    /// Waits until so many calls have been answered upstream, and none is open.
    async fn answered(&self, count: usize) -> Result<()> {
        let done = |calls: &Vec<Seen>| {
            calls.len() >= count && calls.iter().all(|call| call.fate == Fate::Answered)
        };
        vorrang_tests::until("answered calls", || self.upstream.calls(), done).await?;
        Ok(())
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

/// Issue 2, done when 3; A1, A3, A4: over three instances.
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

/// A1: jobs that wait on one instance are passed by the users who come later on another.
#[tokio::test]
async fn a_batch_job_never_overtakes_a_user_of_another_instance() -> Result<()> {
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

/// Issue 2, done when 4; A6: the tickets at the head die with their instance, and the others go within the lease.
#[tokio::test]
async fn killed_instance_blocks_others_no_longer_than_the_lease() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    for reply in fleet.send("used", LIMIT, &[0, 1, 2], &[0]) {
        reply.await??.ok()?;
    }
    let doomed = fleet.send("doomed", 2 * LIMIT, &[2], &[-1000]);
    fleet.gateways[2].waiting(2 * LIMIT as u32).await?;
    let replies = fleet.send("r", 3 * LIMIT, &[0, 1], &PRIORITIES);
    fleet.gateways[0].waiting(3 * LIMIT as u32 / 2).await?;
    fleet.gateways[1].waiting(3 * LIMIT as u32 / 2).await?;
    // One window of the instance to be killed is over, and none of its calls is under way.
    fleet.answered(2 * LIMIT).await?;
    fleet.gateways[2].kill()?;
    let mut answered = 0;
    for reply in doomed {
        answered += usize::from(reply.await?.is_ok_and(|reply| reply.status == 200));
    }
    ensure!(answered == LIMIT, "{answered} of the doomed were answered");
    fleet.judge("r", replies).await?;
    let refill = fleet.windows().await?;
    ensure!(
        refill < WINDOW + GUARD + LEASE + SLACK,
        "stopped for {refill:?}"
    );
    Ok(())
}

/// Issue 2, done when 4; P3, P5, P12: Redis forgets everything, twice, and no client notices.
#[tokio::test]
async fn flushed_redis_neither_loses_nor_doubles_nor_over_admits() -> Result<()> {
    let fleet = Fleet::start().await?;
    let replies = fleet.send("r", 4 * LIMIT, &[0, 1, 2], &PRIORITIES);
    // In the middle of a window, and in the moment when the next one is granted.
    fleet.answered(LIMIT).await?;
    fleet.redis.flush().await?;
    let begun = |calls: &Vec<Seen>| calls.len() > LIMIT;
    vorrang_tests::until("the second window", || fleet.upstream.calls(), begun).await?;
    fleet.redis.flush().await?;
    fleet.judge("r", replies).await?;
    ensure!(fleet.upstream.calls().await?.len() == 4 * LIMIT);
    fleet.windows().await?;
    Ok(())
}

/// P13: an instance is killed and Redis forgets everything within one window: what the killed instance was granted still counts.
#[tokio::test]
async fn kill_and_flush_in_one_window_do_not_over_admit() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    let doomed = fleet.send("doomed", LIMIT, &[2], &[0]);
    for reply in doomed {
        reply.await??.ok()?;
    }
    let replies = fleet.send("r", 2 * LIMIT, &[0, 1], &PRIORITIES);
    fleet.gateways[0].waiting(LIMIT as u32).await?;
    fleet.gateways[1].waiting(LIMIT as u32).await?;
    fleet.gateways[2].kill()?;
    fleet.redis.flush().await?;
    fleet.judge("r", replies).await?;
    ensure!(fleet.upstream.calls().await?.len() == 3 * LIMIT);
    fleet.windows().await?;
    Ok(())
}
