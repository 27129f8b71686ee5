//! Clients that disconnect, and instances that are terminated.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::Instant;
use vorrang_tests::{
    Act, Chat, Gateway, Redis, Upstream, config, until,
    upstream::{Fate, Seen},
};

/// A7: the ticket of a client that disconnects leaves the queue at once, and the next ticket is granted, on another
/// instance.
#[tokio::test]
async fn disconnect_frees_the_queue_head_for_another_instance() -> Result<()> {
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    upstream.plan(&[Act::hold()], Act::default()).await?;
    let url = format!("redis_url: {}", redis.url());
    let config = config(&upstream.url(), &["max_parallel_requests: 1"], &[], &[&url]);
    let (gateway, other) = (
        Gateway::start(&config).await?,
        Gateway::start(&config).await?,
    );

    let running = gateway.client().send(Chat::new("running"));
    upstream.seen(1).await?;
    let leaver = gateway.client().send(Chat::new("leaver").priority(-5));
    gateway.waiting(1).await?;
    let patient = other.client().send(Chat::new("patient").priority(5));
    let depth = |depth: f64| {
        let look = || other.metric("vorrang_queue_depth", "");
        async move { until("the queue's depth", look, |seen| *seen == depth).await }
    };
    depth(2.0).await?;
    leaver.abort();
    depth(1.0).await?;
    ensure!(upstream.calls().await?.len() == 1, "nothing came of it");
    upstream.release().await?;
    running.await??.ok()?;
    patient.await??.ok()?;
    let users: Vec<_> = upstream.seen(2).await?.iter().map(Seen::user).collect();
    ensure!(users == ["running", "patient"], "{users:?}");
    Ok(())
}

/// A7: a disconnect during a call ends the upstream call, and its slot is free for the next one.
#[tokio::test]
async fn disconnect_ends_the_upstream_call_and_frees_its_slot() -> Result<()> {
    let upstream = Upstream::start().await?;
    upstream
        .plan(&[Act::hold(), Act::hold()], Act::default())
        .await?;
    let config = config(&upstream.url(), &["max_parallel_requests: 1"], &[], &[]);
    let gateway = Gateway::start(&config).await?;
    let broken = |count: usize| {
        let all = move |calls: &Vec<Seen>| {
            calls
                .iter()
                .filter(|call| call.fate == Fate::Broken)
                .count()
                == count
        };
        let upstream = &upstream;
        async move { until("a broken call", || upstream.calls(), all).await }
    };
    let leaver = gateway.client().send(Chat::new("leaver"));
    upstream.seen(1).await?;
    leaver.abort();
    broken(1).await?;
    // In the middle of a stream it is the same.
    let chat = Chat::new("stream").with("stream", true);
    let mut answer = gateway
        .client()
        .post("/chat/completions")
        .json(&chat.body)
        .send()
        .await?;
    ensure!(answer.chunk().await?.is_some());
    drop(answer);
    broken(2).await?;
    gateway.client().chat(&Chat::new("next")).await?.ok()?;
    Ok(())
}

/// SIGTERM: waiting requests are served within the grace time, new connections are refused, and the exit code is 0.
#[tokio::test]
async fn terminated_instance_serves_waiting_requests() -> Result<()> {
    let upstream = Upstream::start().await?;
    upstream.plan(&[Act::hold()], Act::default()).await?;
    let config = config(&upstream.url(), &["max_parallel_requests: 1"], &[], &[]);
    let mut gateway = Gateway::start(&config).await?;
    let mut replies = vec![gateway.client().send(Chat::new("running"))];
    upstream.seen(1).await?;
    replies.push(gateway.client().send(Chat::new("waiting")));
    replies.push(gateway.client().send(Chat::new("waiting").priority(3)));
    gateway.waiting(2).await?;
    gateway.terminate()?;
    let client = vorrang_tests::Client::new(gateway.url())?;
    let refused = || async { Ok(client.get("/health/liveliness").await.is_err()) };
    until("refused connections", refused, |refused| *refused).await?;
    upstream.release().await?;
    for reply in replies {
        reply.await??.ok()?;
    }
    ensure!(gateway.ended().await?.success());
    upstream.seen(3).await?;
    Ok(())
}

/// P11: an instance that closes its session frees its slots at once, not only after a lease.
#[tokio::test]
async fn terminated_instance_frees_its_slots_at_once() -> Result<()> {
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    upstream.plan(&[Act::hold()], Act::default()).await?;
    let url = format!("redis_url: {}", redis.url());
    let lease = Duration::from_secs(12);
    let lease_line = format!("lease_seconds: {}", lease.as_secs());
    let ours = [
        url.as_str(),
        "grace_seconds: 1",
        "window_seconds: 1",
        &lease_line,
    ];
    let limits = ["max_parallel_requests: 1", "rpm: 100"];
    let config = config(&upstream.url(), &limits, &[], &ours);
    let (mut going, staying) = (
        Gateway::start(&config).await?,
        Gateway::start(&config).await?,
    );
    let _held = going.client().send(Chat::new("held"));
    upstream.seen(1).await?;
    let head = going.client().send(Chat::new("head").priority(-1));
    going.waiting(1).await?;
    let behind = staying.client().send(Chat::new("behind"));
    staying.waiting(1).await?;
    let start = Instant::now();
    going.terminate()?;
    ensure!(going.ended().await?.success());
    ensure!(head.await??.status == 503);
    behind.await??.ok()?;
    ensure!(start.elapsed() < lease / 2, "{:?}", start.elapsed());
    Ok(())
}
