//! Pacing, reserves, aging and fair shares (docs/scheduling.md), most of it over three instances on one Redis. Load tests
//! measure waits; these tests check the order and the times of calls.

use anyhow::{Result, ensure};
use tokio::task::JoinHandle;
use vorrang_tests::{
    Act, Chat, Gateway, Redis, Reply, Upstream, config,
    referee::{fullest_window, inversions},
    until,
};

use crate::fleet::{Fleet, GUARD, LIMIT, PRIORITIES, WINDOW};

/// What a busy machine may move from one part of a window to the next.
const LATE: usize = 4;

impl Fleet {
    /// When calls were dispatched, microseconds, in order.
    fn dispatched(&self) -> Result<Vec<u64>> {
        let mut times = Vec::new();
        for gateway in &self.gateways {
            times.extend(gateway.dispatches()?);
        }
        times.sort_unstable();
        Ok(times)
    }
}

/// P18 (pacing): a backlog is spread evenly without losing a slot. Without pacing the whole window goes at once.
#[tokio::test]
async fn pacing_spreads_a_backlog_over_all_instances() -> Result<()> {
    let part = WINDOW / 4;
    let most = LIMIT / 4 + 2 + LATE;
    let at_once = Fleet::with(&[]).await?;
    let replies = at_once.send("r", LIMIT, &[0, 1, 2], &[1000]);
    at_once.judge("r", replies).await?;
    let fullest = fullest_window(&at_once.dispatched()?, part);
    ensure!(fullest > most, "{fullest} without pacing");

    let fleet = Fleet::with(&["pace_worse_than: 0"]).await?;
    let replies = fleet.send("r", 2 * LIMIT, &[0, 1, 2], &[1, 1000]);
    fleet.judge("r", replies).await?;
    let fullest = fullest_window(&fleet.dispatched()?, part);
    ensure!(fullest <= most, "{fullest} in a quarter of a window");
    // Those that are not paced go at once, and the windows stay whole.
    let replies = fleet.send("urgent", LIMIT, &[0, 1, 2], &[-5, 0]);
    fleet.judge("urgent", replies).await?;
    fleet.windows().await?;
    Ok(())
}

/// P18 (reserve): batch jobs leave a fifth of the first window, and urgent requests use it.
#[tokio::test]
async fn reserve_is_kept_by_all_instances() -> Result<()> {
    let fleet = Fleet::with(&["groups: {model: {reserve: {priority: 0, share: 0.2}}}"]).await?;
    let left = LIMIT / 5;
    let jobs = fleet.send("job", 2 * LIMIT, &[0, 1], &[1000]);
    fleet.upstream.seen(LIMIT - left).await?;
    let users = fleet.send("user", left, &[2], &[0]);
    fleet.judge("user", users).await?;
    fleet.judge("job", jobs).await?;
    fleet.windows().await?;
    let calls = fleet.upstream.calls().await?;
    let mut times = Vec::new();
    for call in calls.iter().filter(|call| call.user().starts_with("job")) {
        times.push(call.at);
    }
    let fullest = fullest_window(&times, WINDOW - GUARD);
    ensure!(fullest <= LIMIT - left, "{fullest} jobs in a window");
    Ok(())
}

/// A1, P18 (aging): by the scores of the tickets there is no inversion, by their priorities alone there are some.
#[tokio::test]
async fn aging_orders_by_score() -> Result<()> {
    let fleet = Fleet::with(&["groups: {model: {aging_seconds: 0.0001}}"]).await?;
    let used = fleet.send("used", LIMIT, &[0, 1, 2], &[0]);
    fleet.judge("used", used).await?;
    let each = 15;
    let early = fleet.send("early", 3 * each, &[0, 1, 2], &PRIORITIES);
    for gateway in &fleet.gateways {
        gateway.waiting(each as u32).await?;
    }
    // 13 levels (from 3 to -10) equal 1.3 ms, and the early tickets arrived longer before the late ones.
    let late = fleet.send("late", LIMIT, &[0, 1, 2], &[-10, 3]);
    let mut passages = Vec::new();
    for reply in early.into_iter().chain(late) {
        passages.push(reply.await??.ok()?.passage()?);
    }
    let inverted = inversions(&passages);
    ensure!(inverted.is_empty(), "{inverted:?}");
    for passage in &mut passages {
        passage.score = passage.priority.into();
    }
    ensure!(!inversions(&passages).is_empty(), "nobody has aged");
    fleet.windows().await?;
    Ok(())
}

/// A chat with a key, on its way.
fn send(gateway: &Gateway, key: &str, name: &str) -> JoinHandle<Result<Reply>> {
    let post = gateway.client().post("/v1/chat/completions");
    let post = post.bearer_auth(key).json(&Chat::new(name).body);
    tokio::spawn(Reply::of(post))
}

/// Waits until so many tickets wait in the whole fleet, as this instance knows it.
async fn depth(gateway: &Gateway, tickets: u32) -> Result<()> {
    let look = || gateway.metric("vorrang_queue_depth", "");
    #[expect(clippy::float_cmp, reason = "both are small whole numbers")]
    let holds = |depth: &f64| *depth == f64::from(tickets);
    until(&format!("a depth of {tickets}"), look, holds).await?;
    Ok(())
}

/// P19 (fair shares): two keys share a deployment that takes one call at a time. The backlog is on one instance, the
/// new tenant on another.
#[tokio::test]
async fn new_tenant_is_next_despite_a_backlog_on_redis() -> Result<()> {
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let url = format!("redis_url: {}", redis.url());
    let ours = [
        "groups: {model: {fair_by: key}}",
        "keys: [{name: batch, key: sk-batch}, {name: chat, key: sk-chat}]",
        &url,
    ];
    let config = config(&upstream.url(), &["max_parallel_requests: 1"], &[], &ours);
    let (one, other) = (
        &Gateway::start(&config).await?,
        &Gateway::start(&config).await?,
    );
    upstream.plan(&[Act::hold()], Act::default()).await?;
    let held = send(one, "sk-batch", "held");
    upstream.seen(1).await?;
    let mut replies: Vec<_> = (0..30)
        .map(|index| send(one, "sk-batch", &format!("batch-{index}")))
        .collect();
    depth(one, 30).await?;
    replies.push(send(other, "sk-chat", "chat"));
    depth(other, 31).await?;
    upstream.release().await?;

    held.await??.ok()?;
    let mut passages = Vec::new();
    for reply in replies {
        passages.push(reply.await??.ok()?.passage()?);
    }
    // First the request that was already the head, then the new tenant's.
    let calls = upstream.seen(32).await?;
    let users: Vec<_> = calls.iter().map(|call| call.user()).collect();
    ensure!(users[2] == "chat", "{users:?}");
    ensure!(inversions(&passages).is_empty(), "{passages:?}");
    passages.sort_unstable_by_key(|passage| passage.granted);
    let starts: Vec<_> = passages.iter().map(|passage| passage.start).collect();
    ensure!(starts.is_sorted() && starts[0] > 0, "{starts:?}");
    // By arrival alone it would have been the last.
    let last = passages.iter().max_by_key(|passage| passage.arrival);
    ensure!(last == passages.get(1), "{passages:?}");
    Ok(())
}
