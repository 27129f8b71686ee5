//! What the queue costs Redis (issue 2, done when 5).

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};
use vorrang_tests::{Chat, Gateway, Redis, Upstream, config};

/// At one connection, one request after the other, at most 2 EVALSHA per request.
#[tokio::test]
async fn a_request_costs_at_most_two_steps() -> Result<()> {
    const REQUESTS: u64 = 500;
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let url = format!("redis_url: {}", redis.url());
    let config = config(&upstream.url(), &["rpm: 100000"], &[], &[&url]);
    let gateway = Gateway::start(&config).await?;
    let before = redis.calls("evalsha").await?;
    let start = Instant::now();
    for index in 0..REQUESTS {
        gateway
            .client()
            .chat(&Chat::new(&index.to_string()))
            .await?
            .ok()?;
    }
    let (took, steps) = (start.elapsed(), redis.calls("evalsha").await? - before);
    println!("{steps} EVALSHA for {REQUESTS} requests, one after the other, in {took:?}");
    // A heartbeat every half second (a sixth of the lease) is due whether requests come or not.
    let heartbeats = took.as_millis() as u64 / 500 + 1;
    ensure!(steps <= 2 * REQUESTS + heartbeats, "{steps} steps");
    Ok(())
}

/// Waiting costs nothing: the commands per second of two instances are the same with 10 and with 1,000 tickets in the queue.
#[tokio::test]
async fn a_thousand_waiting_tickets_cost_no_more_than_ten() -> Result<()> {
    const WATCHED: Duration = Duration::from_secs(5);
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
        let (before, start) = (redis.calls("evalsha").await?, Instant::now());
        sleep(WATCHED).await;
        let steps = redis.calls("evalsha").await? - before;
        let rate = steps as f64 / start.elapsed().as_secs_f64();
        println!("{count} waiting on two instances: {rate:.1} EVALSHA per second");
        rates.push(rate);
    }
    ensure!(rates[1] < 1.5 * rates[0] + 1.0, "{rates:?}");
    for task in waiting {
        task.abort();
    }
    Ok(())
}
