//! Redis missing, slow or empty: requests wait within their time, and nothing is lost or doubled.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::task::JoinHandle;
use vorrang_tests::{
    Chat, Gateway, Redis, Reply, Upstream, config,
    referee::{Limit, inversions},
    until,
};

const LEASE: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(3);
const GUARD: Duration = Duration::from_millis(150);

fn settings(redis: &Redis, upstream: &Upstream, limits: &[&str]) -> String {
    let ours = [
        format!("redis_url: {}", redis.url()),
        format!("lease_seconds: {}", LEASE.as_secs()),
        format!("window_seconds: {}", WINDOW.as_secs()),
        format!("guard_ms: {}", GUARD.as_millis()),
    ];
    config(
        &upstream.url(),
        limits,
        &[],
        &ours.each_ref().map(String::as_str),
    )
}

async fn unready(gateway: &Gateway) -> Result<Reply> {
    let look = || gateway.client().get("/health/readiness");
    until("no readiness", look, |reply| reply.status == 503).await
}

/// A Redis that is not there yet: no readiness, and a request whose time is up gets the cause; service begins when it is up.
#[tokio::test]
async fn instance_waits_for_a_redis_that_starts_later() -> Result<()> {
    let (mut redis, upstream) = (Redis::reserve()?, Upstream::start().await?);
    let gateway = Gateway::launch(&settings(&redis, &upstream, &["rpm: 100"]), &[]).await?;
    let reason = unready(&gateway).await?.text.to_lowercase();
    ensure!(reason.contains("redis"), "{reason}");
    ensure!(gateway.client().get("/health/liveliness").await?.status == 200);
    let patient = gateway.client().send(Chat::new("patient"));
    let hasty = Chat::new("hasty").with("timeout", 2);
    let hasty = gateway.client().chat(&hasty).await?;
    ensure!(hasty.status == 503, "{hasty:?}");
    ensure!(hasty.error()?.contains("Redis"), "{hasty:?}");
    ensure!(
        hasty.took >= Duration::from_secs(2),
        "it waits within its time: {hasty:?}"
    );
    redis.restart().await?;
    gateway.ready().await?;
    patient.await??.ok()?;
    upstream.seen(1).await?;
    Ok(())
}

/// Sends `count` requests over two instances, five of which pass; `disturb`s Redis while the others wait; expects that all are
/// answered, come once, in order, and never more than five in a window.
async fn disturbed<F>(disturb: impl FnOnce(Redis, [Gateway; 2]) -> F) -> Result<()>
where
    F: Future<Output = Result<(Redis, [Gateway; 2])>>,
{
    const COUNT: u32 = 20;
    const LIMIT: usize = 5;
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let settings = settings(&redis, &upstream, &[&format!("rpm: {LIMIT}")]);
    let gateways = [
        Gateway::start(&settings).await?,
        Gateway::start(&settings).await?,
    ];
    let send = |index: u32| -> JoinHandle<Result<Reply>> {
        let chat = Chat::new(&format!("r{index}")).priority([3, 0, -1][index as usize % 3]);
        gateways[index as usize % 2].client().send(chat)
    };
    let replies: Vec<_> = (0..COUNT).map(send).collect();
    upstream.seen(LIMIT).await?;
    let (redis, gateways) = disturb(redis, gateways).await?;
    let mut passages = Vec::new();
    for reply in replies {
        passages.push(reply.await??.ok()?.passage()?);
    }
    let inverted = inversions(&passages);
    ensure!(inverted.is_empty(), "{inverted:?}");
    let calls = upstream.seen(COUNT as usize).await?;
    let mut users: Vec<_> = calls.iter().map(|call| call.user()).collect();
    users.sort_unstable();
    users.dedup();
    ensure!(users.len() == COUNT as usize, "{users:?}");
    let mut dispatched = Vec::new();
    for gateway in &gateways {
        dispatched.extend(gateway.dispatches()?);
    }
    let arrived: Vec<u64> = calls.iter().map(|call| call.at).collect();
    let limit = Limit {
        calls: LIMIT,
        window: WINDOW,
        guard: GUARD,
    };
    limit.judge(&dispatched, &arrived)?;
    for gateway in &gateways {
        gateway.ready().await?;
    }
    drop(redis);
    Ok(())
}

/// P1-P3, P12: Redis is killed while tickets wait, and comes back empty after a while.
#[tokio::test]
async fn restarted_redis_neither_loses_nor_doubles_nor_over_admits() -> Result<()> {
    disturbed(async |mut redis, gateways| {
        redis.stop()?;
        // Longer than the lease: both notice.
        for gateway in &gateways {
            unready(gateway).await?;
        }
        redis.restart().await?;
        Ok((redis, gateways))
    })
    .await
}

/// P7: Redis does not answer for longer than the lease, with its connections open; no instance is taken for dead.
#[tokio::test]
async fn frozen_redis_neither_loses_nor_doubles_nor_over_admits() -> Result<()> {
    disturbed(async |redis, gateways| {
        redis.freeze()?;
        for gateway in &gateways {
            unready(gateway).await?;
        }
        redis.thaw()?;
        Ok((redis, gateways))
    })
    .await
}

/// A6, P10: an instance that is stopped for longer than the lease and then goes on: nothing of it is lost or doubled.
#[tokio::test]
async fn frozen_instance_neither_loses_nor_doubles_nor_over_admits() -> Result<()> {
    disturbed(async |redis, gateways| {
        gateways[0].freeze()?;
        let other = &gateways[1];
        // The fleet has dropped its tickets when the other one's are all there are.
        let waiting = async || {
            let own = other.metric("vorrang_waiting", "").await?;
            Ok((own, other.metric("vorrang_queue_depth", "").await?))
        };
        until("the silent one's tickets to go", waiting, |(own, all)| {
            own == all
        })
        .await?;
        gateways[0].thaw()?;
        Ok((redis, gateways))
    })
    .await
}

/// P2: a script cache that is lost (as in a failover) is filled again, unseen by any client.
#[tokio::test]
async fn a_lost_script_cache_is_no_error() -> Result<()> {
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let gateway = Gateway::start(&settings(&redis, &upstream, &["rpm: 1000"])).await?;
    for index in 0..5 {
        let connection = &mut redis.connection().await?;
        let () = redis::cmd("SCRIPT")
            .arg("FLUSH")
            .query_async(connection)
            .await?;
        gateway
            .client()
            .chat(&Chat::new(&format!("r{index}")))
            .await?
            .ok()?;
    }
    upstream.seen(5).await?;
    Ok(())
}
