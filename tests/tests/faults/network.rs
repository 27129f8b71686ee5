//! Redis behind a network that drops, delays, resets and half-opens.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::{Instant, sleep, timeout};
use vorrang_tests::{Act, Chat, Redis, Relay, Upstream, config, relay::LinkState, until};

use crate::{
    fleet::{Fleet, alike, configured, limited},
    load::Rules,
    pace::{CALLS, PACE, SLACK},
};

/// A fleet with both limits each instance of which reaches Redis through a relay of its own.
async fn relayed() -> Result<(Fleet, Vec<Relay>)> {
    relayed_with(limited).await
}

/// The same, configured like this for its upstream and a relay.
async fn relayed_with(setup: fn(&Upstream, &str) -> String) -> Result<(Fleet, Vec<Relay>)> {
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let mut relays = Vec::new();
    for _ in 0..3 {
        relays.push(Relay::to(redis.port()).await?);
    }
    let configs = relays.iter().map(|relay| setup(&upstream, &relay.url()));
    let configs: Vec<String> = configs.collect();
    let setup = Box::new(move |index: usize| configs[index].clone().into());
    Ok((Fleet::with(redis, upstream, 3, setup).await?, relays))
}

/// Waits until an instance has noticed that it is disconnected.
async fn cut_off(fleet: &Fleet, index: usize) -> Result<()> {
    let look = || fleet.gateways[index].client().get("/health/readiness");
    until("no readiness", look, |reply| reply.status == 503).await?;
    Ok(())
}

/// Instances may be unresponsive with open calls, so `max_parallel_requests` is not judged (docs/protocol.md, limits).
/// The longest standstill is that of all instances disconnected for `leases`.
fn cut(leases: u32) -> Rules {
    Rules {
        calls: false,
        standstill: PACE.standstill() + leases * PACE.lease + PACE.window,
        ..Rules::default()
    }
}

/// A1, A3, A6, P1: one instance is disconnected for longer than the lease: no traffic, held replies, held requests,
/// resets. The others keep serving. Its tickets stay, and what it had sent before is executed late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disconnected_instance_blocks_no_others() -> Result<()> {
    let (fleet, relays) = relayed().await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    for (index, state) in [
        LinkState::Cut,
        LinkState::RepliesHeld,
        LinkState::RequestsHeld,
        LinkState::Resetting,
    ]
    .into_iter()
    .enumerate()
    {
        let index = index % relays.len();
        fleet.busy(index).await?;
        relays[index].set(state);
        sleep(2 * PACE.lease).await;
        // The other two thirds of the clients can get so many answers.
        load.progress(10).await?;
        cut_off(&fleet, index).await?;
        relays[index].set(LinkState::Up);
        fleet.gateways[index].ready().await?;
        load.progress(5).await?;
    }
    let summary = fleet.judge(load, cut(2)).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// A6, P1: an instance that has all permits is disconnected: no traffic, held replies, held requests, resets. Another
/// instance has the permits within the lease, even if messages of the first one still arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permits_of_a_disconnected_instance_return_within_the_lease() -> Result<()> {
    let (fleet, relays) = relayed_with(|upstream, url| {
        let limit = format!("max_parallel_requests: {CALLS}");
        configured(upstream, url, &[limit], &[], &[])
    })
    .await?;
    let [holder, other, _] = &*fleet.gateways else {
        bail!("not three instances");
    };
    for state in [
        LinkState::Cut,
        LinkState::RepliesHeld,
        LinkState::RequestsHeld,
        LinkState::Resetting,
    ] {
        let before = fleet.upstream.count().await?;
        let held = vec![Act::hold(); CALLS];
        fleet.upstream.plan(&held, Act::default()).await?;
        let chat = |number: usize| holder.client().send(Chat::new(&format!("held-{number}")));
        let held: Vec<_> = (0..CALLS).map(chat).collect();
        let count = || fleet.upstream.count();
        let all = |count: &usize| *count == before + CALLS;
        until("all permits to be out", count, all).await?;
        let next = other.client().send(Chat::new("next"));
        other.waiting(1).await?;
        relays[0].set(state);
        let cut = Instant::now();
        timeout(PACE.patience(), next).await???.ok()?;
        let took = cut.elapsed();
        println!("{state:?}: {took:?}");
        ensure!(took < PACE.lease + SLACK, "{state:?}: {took:?}");
        cut_off(&fleet, 0).await?;
        relays[0].set(LinkState::Up);
        fleet.upstream.release().await?;
        for reply in held {
            reply.await??.ok()?;
        }
        fleet.empty().await?;
    }
    Ok(())
}

/// A1, A3, P1: no instance reaches Redis for longer than the lease. Then all reconnect at once, and their old messages
/// arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disconnected_fleet_loses_nothing() -> Result<()> {
    let (fleet, relays) = relayed().await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    for state in [LinkState::Cut, LinkState::RepliesHeld, LinkState::Resetting] {
        relays.iter().for_each(|relay| relay.set(state));
        for index in 0..relays.len() {
            cut_off(&fleet, index).await?;
        }
        sleep(PACE.lease).await;
        relays.iter().for_each(|relay| relay.set(LinkState::Up));
        load.progress(10).await?;
    }
    let summary = fleet.judge(load, cut(8)).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// P1, P9: connections are reset again and again; then the network is slow, and then too slow (a round trip of more
/// than a twelfth of the lease). Nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_and_slow_networks_lose_nothing() -> Result<()> {
    let (fleet, relays) = relayed().await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    for round in 0..20 {
        relays[round % 3].reset();
        sleep(PACE.lease / 5).await;
    }
    load.progress(10).await?;
    for relay in &relays {
        relay.set(LinkState::Slow(PACE.guard / 20));
    }
    load.progress(PACE.limit).await?;
    // A round trip of the whole guard.
    for relay in &relays {
        relay.set(LinkState::Slow(PACE.guard / 2));
    }
    sleep(PACE.window).await;
    for relay in &relays {
        relay.set(LinkState::Up);
    }
    load.progress(10).await?;
    let summary = fleet.judge(load, cut(8)).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// One instance, with `rpm` only: a window's calls go at its beginning, and no other instance could use room that is
/// used too late. A heartbeat is a second: longer than any reply takes here, so that no message times out.
async fn single_instance() -> Result<(Fleet, Relay)> {
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let relay = Relay::to(redis.port()).await?;
    let ours = [
        format!("redis_url: {}", relay.url()),
        format!("window_seconds: {}", PACE.window.as_secs_f64()),
        format!("guard_ms: {}", PACE.guard.as_millis()),
        "lease_seconds: 6".to_owned(),
    ];
    let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
    let limit = format!("rpm: {}", PACE.limit);
    let config = config(&upstream.url(), &[&limit], &[], &ours);
    let fleet = Fleet::with(redis, upstream, 1, alike(config)).await?;
    Ok((fleet, relay))
}

/// A3, P9: replies take longer than the guard. Their grants count from the server's time. A call that used such a grant
/// would be sent when its room is about to be given to another ticket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_in_late_replies_do_not_exceed_the_limit() -> Result<()> {
    let (fleet, relay) = single_instance().await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    for _ in 0..2 {
        relay.set(LinkState::Slow(2 * PACE.guard));
        // A window's end comes while answers are slow, and the next one's when they are fast.
        sleep(PACE.window + PACE.guard + PACE.window / 4).await;
        relay.set(LinkState::Up);
        load.progress(PACE.limit + 10).await?;
    }
    let summary = fleet.judge(load, cut(0)).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}

/// A3, P1: the reply that grants a window's calls is lost with its connection, and replayed on the next one. The calls
/// count from their dispatch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_replayed_after_a_lost_reply_count_from_their_dispatch() -> Result<()> {
    let (fleet, relay) = single_instance().await?;
    let load = fleet.load("r");
    load.progress(10).await?;
    for _ in 0..2 {
        fleet.full().await?;
        let times = fleet.gateways[0].dispatches()?;
        let first = times.len().checked_sub(PACE.limit);
        let first = first.context("the window is not full")?;
        let first = UNIX_EPOCH + Duration::from_micros(times[first]);
        // Just before the end of its window.
        sleep(PACE.window.saturating_sub(first.elapsed()?)).await;
        relay.set(LinkState::RepliesHeld);
        sleep(5 * PACE.guard).await;
        relay.reset();
        sleep(PACE.guard / 5).await;
        relay.set(LinkState::Up);
        load.progress(PACE.limit + 10).await?;
    }
    let summary = fleet.judge(load, cut(0)).await?;
    ensure!(summary.died == 0, "{summary:?}");
    Ok(())
}
