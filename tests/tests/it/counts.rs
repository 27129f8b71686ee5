//! What the queue costs Redis.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};
use vorrang_tests::{Chat, Gateway, Redis, Upstream, config};

/// At one connection, one request after the other, at most 2 FCALL per request.
#[tokio::test]
async fn request_costs_at_most_two_steps() -> Result<()> {
    const REQUESTS: u64 = 500;
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let url = format!("redis_url: {}", redis.url());
    let config = config(&upstream.url(), &["rpm: 100000"], &[], &[&url]);
    let gateway = Gateway::start(&config).await?;
    let before = redis.calls("fcall").await?;
    let start = Instant::now();
    for index in 0..REQUESTS {
        gateway
            .client()
            .chat(&Chat::new(&index.to_string()))
            .await?
            .ok()?;
    }
    let (took, steps) = (start.elapsed(), redis.calls("fcall").await? - before);
    println!("{steps} FCALL for {REQUESTS} requests, one after the other, in {took:?}");
    // A heartbeat every half second (a sixth of the lease) is due whether requests come or not.
    let heartbeats = took.as_millis() as u64 / 500 + 1;
    ensure!(steps <= 2 * REQUESTS + heartbeats, "{steps} steps");
    Ok(())
}

/// Waiting tickets cost no commands: two instances send as many a second with 10 as with 1,000 tickets in the queue, and
/// their steps execute as many in Redis.
#[tokio::test]
async fn thousand_waiting_tickets_cost_no_more_commands_than_ten() -> Result<()> {
    const WATCHED: Duration = Duration::from_secs(10);
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let url = format!("redis_url: {}", redis.url());
    let config = config(&upstream.url(), &["rpm: 1"], &[], &[&url]);
    let gateways = [
        Gateway::start(&config).await?,
        Gateway::start(&config).await?,
    ];
    gateways[0]
        .client()
        .chat(&Chat::new("used-up"))
        .await?
        .ok()?;
    let mut waiting = Vec::new();
    let mut rates = Vec::new();
    for count in [10_u32, 1000] {
        while waiting.len() < count as usize {
            let gateway = &gateways[waiting.len() % 2];
            let priority = i32::try_from(waiting.len() % 7)?;
            let chat = Chat::new("waiting").priority(priority);
            waiting.push(gateway.client().send(chat.with("timeout", 55)));
        }
        for gateway in &gateways {
            gateway.waiting(count / 2).await?;
        }
        let start = Instant::now();
        let before = [redis.calls("fcall").await?, redis.commands().await?];
        sleep(WATCHED).await;
        let after = [redis.calls("fcall").await?, redis.commands().await?];
        let seconds = start.elapsed().as_secs_f64();
        let rate = [0, 1].map(|of| (after[of] - before[of]) as f64 / seconds);
        let [steps, commands] = rate;
        println!(
            "{count} waiting on two instances: {steps:.1} FCALL and {commands:.1} commands in all per second"
        );
        rates.push(rate);
    }
    // Independent of the queue, there may be one heartbeat more or less.
    for (few, many) in rates[0].iter().zip(rates[1]) {
        ensure!(many < 1.2 * few + 1.0, "{rates:?}");
    }
    for task in waiting {
        task.abort();
    }
    Ok(())
}
