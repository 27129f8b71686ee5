//! Redis missing at the start: requests wait within their time.

use std::time::Duration;

use anyhow::{Result, ensure};
use vorrang_tests::{Chat, Gateway, Redis, Reply, Upstream, config, until};

async fn unready(gateway: &Gateway) -> Result<Reply> {
    let look = || gateway.client().get("/health/readiness");
    until("no readiness", look, |reply| reply.status == 503).await
}

/// Redis is not running yet: readiness fails, and a request that times out gets the cause. Service begins when Redis
/// starts.
#[tokio::test]
async fn instance_waits_for_a_redis_that_starts_later() -> Result<()> {
    let (mut redis, upstream) = (Redis::reserve()?, Upstream::start().await?);
    let url = format!("redis_url: {}", redis.url());
    let ours = [&*url, "lease_seconds: 1"];
    let config = config(&upstream.url(), &["rpm: 100"], &[], &ours);
    let gateway = Gateway::launch(&config, &[]).await?;
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
