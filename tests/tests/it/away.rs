//! Redis is away, and the instances go on with their parts of the limits (`when_redis_is_away: share`), or without limits.

use std::time::Duration;

use anyhow::{Result, ensure};
use vorrang_tests::{Chat, Gateway, Redis, Upstream, config, referee::Limit, until};

const WINDOW: Duration = Duration::from_secs(3);
const LIMIT: usize = 10;

fn settings(redis: &Redis, upstream: &Upstream, limits: &[&str], more: &[&str]) -> String {
    let url = format!("redis_url: {}", redis.url());
    let window = format!("window_seconds: {}", WINDOW.as_secs());
    let mut ours = vec![url.as_str(), window.as_str(), "lease_seconds: 1"];
    ours.extend(more);
    config(&upstream.url(), limits, &[], &ours)
}

async fn away(gateway: &Gateway, expected: bool) -> Result<()> {
    let look = || gateway.metric("vorrang_redis_away", r#"group="model""#);
    let expected = f64::from(u8::from(expected));
    until("redis_away", look, |value| (*value - expected).abs() < 0.5).await?;
    Ok(())
}

/// A3 while no instance reaches Redis: each of two uses at most half of the limit, and together they stay within it, also
/// when Redis returns empty.
#[tokio::test]
async fn instances_share_the_limit_while_redis_is_away() -> Result<()> {
    let (mut redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let limits = [&*format!("rpm: {LIMIT}")];
    let settings = settings(&redis, &upstream, &limits, &["when_redis_is_away: share"]);
    let gateways = [
        Gateway::start(&settings).await?,
        Gateway::start(&settings).await?,
    ];
    let send = |index: usize| {
        gateways[index % 2]
            .client()
            .send(Chat::new(&format!("r{index}")))
    };
    let mut replies: Vec<_> = (0..60).map(send).collect();
    upstream.seen(LIMIT).await?;
    redis.stop()?;
    for gateway in &gateways {
        away(gateway, true).await?;
        gateway.ready().await?;
    }
    let before = upstream.count().await?;
    // Two windows of the fleet without Redis.
    upstream.seen(before + 2 * LIMIT).await?;
    redis.restart().await?;
    for gateway in &gateways {
        away(gateway, false).await?;
    }
    for reply in replies.drain(..) {
        reply.await??.ok()?;
    }
    let calls = upstream.seen(60).await?;
    ensure!(calls.len() == 60, "{} calls", calls.len());
    let mut dispatched = Vec::new();
    for gateway in &gateways {
        dispatched.extend(gateway.dispatches()?);
    }
    let arrived: Vec<u64> = calls.iter().map(|call| call.at).collect();
    let limit = Limit {
        calls: LIMIT,
        window: WINDOW,
        guard: Duration::from_millis(100),
    };
    limit.judge(&dispatched, &arrived)?;
    Ok(())
}

/// A group without limits needs no Redis to grant.
#[tokio::test]
async fn group_without_limits_is_served_while_redis_is_away() -> Result<()> {
    let (mut redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let gateway = Gateway::start(&settings(&redis, &upstream, &[], &[])).await?;
    gateway.client().chat(&Chat::new("before")).await?.ok()?;
    redis.stop()?;
    gateway.client().chat(&Chat::new("while")).await?.ok()?;
    away(&gateway, true).await?;
    gateway.ready().await?;
    redis.restart().await?;
    away(&gateway, false).await?;
    gateway.client().chat(&Chat::new("after")).await?.ok()?;
    Ok(())
}
