//! More requests than the limits admit.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep},
};
use vorrang_tests::{
    Act, Chat, Gateway, Redis, Reply, Upstream,
    referee::{inversions, longest_gap},
    until_within,
};

use crate::{
    fleet::{CALL_MS, configured},
    pace::{CALLS, PACE, SLACK},
};

/// A1, A3, A4: four times as many requests as the limit, by a schedule that does not wait for answers. The goodput
/// stays at the limit. Users are below it, and never wait longer than for the next free slot. The worst and newest are
/// refused.
#[tokio::test]
async fn best_priority_is_fully_served_at_four_times_the_limit() -> Result<()> {
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    upstream.plan(&[], Act::after(CALL_MS)).await?;
    let limits = [
        format!("rpm: {}", PACE.limit),
        format!("max_parallel_requests: {CALLS}"),
    ];
    let cap = format!("max_queue_depth: {}", 2 * PACE.limit);
    let config = configured(&upstream, &redis.url(), &limits, &[], &[&cap]);
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(Gateway::start(&config).await?);
    }
    let gateways = Arc::new(gateways);
    let mut ticks = interval(PACE.window / (4 * u32::try_from(PACE.limit)?));
    let mut requests = JoinSet::new();
    let start = Instant::now();
    for number in 0_usize.. {
        ticks.tick().await;
        if start.elapsed() > PACE.overload {
            break;
        }
        // A fifth are users: four fifths of the limit.
        let user = number % 5 == 0;
        let chat = Chat::new(&number.to_string()).priority(if user { 0 } else { 100 });
        let client = gateways[number % 3].client().clone();
        requests.spawn(async move { (user, client.chat(&chat).await) });
    }
    let overloaded = upstream.count().await?;
    let replies: Vec<(bool, Result<Reply>)> = requests.join_all().await;
    let (mut passages, mut refused, mut longest) = (Vec::new(), 0, Duration::ZERO);
    for (user, reply) in replies {
        let reply = reply?;
        if reply.status == 200 {
            passages.push(reply.passage()?);
            if user {
                longest = longest.max(reply.took);
            }
            continue;
        }
        ensure!(reply.status == 429 && !user, "{reply:?}");
        reply.error()?;
        let seconds: u64 = reply.header("retry-after").parse()?;
        // Two windowfuls wait at most, and one is under way.
        let most = 3 * (PACE.window + PACE.guard) + Duration::from_secs(1);
        ensure!((1..=most.as_secs() + 1).contains(&seconds), "{reply:?}");
        refused += 1;
    }
    let inverted = inversions(&passages);
    ensure!(inverted.is_empty(), "{inverted:?}");
    println!(
        "{overloaded} calls in {:?}, {refused} refused; a user waited {longest:?} at most",
        PACE.overload
    );
    // Of four windowfuls for each window one is served and at most two wait.
    ensure!(refused >= PACE.limit * 9 / 10, "only {refused} refused");
    let next_free = PACE.window + PACE.guard + 3 * Duration::from_millis(CALL_MS) + SLACK;
    ensure!(longest < next_free, "a user waited {longest:?}");
    let calls = upstream.seen(passages.len()).await?;
    let arrived: Vec<u64> = calls.iter().map(|call| call.at).collect();
    let mut dispatched = Vec::new();
    for gateway in gateways.iter() {
        dispatched.extend(gateway.dispatches()?);
    }
    crate::load::windows(&dispatched, &arrived, PACE.limit)?;
    ensure!(longest_gap(&arrived) < PACE.standstill());
    // Whole windows, of which the last may just have begun.
    let windows = PACE.overload.as_micros() / (PACE.window + PACE.guard + SLACK / 4).as_micros();
    let least = PACE.limit * usize::try_from(windows)?;
    ensure!(overloaded >= least, "{overloaded} calls instead of {least}");
    Ok(())
}

/// A full queue refuses the worst and newest ticket, a new one or a waiting one, on whichever instance it is.
/// `retry-after` is accurate: by then the queue has been served.
#[tokio::test]
async fn full_queue_refuses_the_worst_on_any_instance() -> Result<()> {
    const ROOM: usize = 3;
    const CAP: u32 = 4;
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let limits = [format!("rpm: {ROOM}")];
    let cap = format!("max_queue_depth: {CAP}");
    let config = configured(&upstream, &redis.url(), &limits, &[], &[&cap]);
    let (one, two) = (
        Gateway::start(&config).await?,
        Gateway::start(&config).await?,
    );
    for user in 0..ROOM {
        one.client()
            .chat(&Chat::new(&format!("used-{user}")))
            .await?
            .ok()?;
    }
    let mut waiting = Vec::new();
    for number in 1..=CAP {
        waiting.push(
            one.client()
                .send(Chat::new(&format!("batch-{number}")).priority(10)),
        );
        one.waiting(number).await?;
    }
    let refused = |reply: Reply| -> Result<u64> {
        ensure!(reply.status == 429, "{reply:?}");
        reply.error()?;
        Ok(reply.header("retry-after").parse()?)
    };
    let asked = Instant::now();
    // Refused: a ticket equal to the last one, and a worse one.
    let back = refused(two.client().chat(&Chat::new("newest").priority(10)).await?)?;
    refused(two.client().chat(&Chat::new("worst").priority(11)).await?)?;
    // A ticket better than the last one, on another instance, displaces it.
    let user = two.client().send(Chat::new("user").priority(0));
    let displaced = waiting.pop().map(|last| async move { last.await? });
    if let Some(displaced) = displaced {
        refused(displaced.await?)?;
    }
    one.waiting(CAP - 1).await?;
    two.waiting(1).await?;
    let depth = || two.metric("vorrang_queue_depth", "");
    until_within(PACE.patience(), "an empty queue", depth, |depth| {
        *depth == 0.0
    })
    .await?;
    let (told, served) = (Duration::from_secs(back), asked.elapsed());
    ensure!(
        told + SLACK > served && told < served + SLACK,
        "told {told:?}, served after {served:?}"
    );
    let user = user.await??.ok()?.passage()?;
    let mut passages = vec![user];
    for reply in waiting {
        passages.push(reply.await??.ok()?.passage()?);
    }
    ensure!(
        passages.iter().all(|other| user.granted <= other.granted),
        "{passages:?}"
    );
    ensure!(inversions(&passages).is_empty(), "{passages:?}");
    upstream.seen(ROOM + CAP as usize).await?;
    Ok(())
}

/// With `refuse_late` a request that cannot be served in its time is refused at once, on any instance. A better one is
/// served in the same time, and so is a retry at `retry-after`.
#[tokio::test]
async fn refuse_late_refuses_requests_that_cannot_meet_their_timeout() -> Result<()> {
    const ROOM: u32 = 3;
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let limits = [format!("rpm: {ROOM}")];
    let config = configured(
        &upstream,
        &redis.url(),
        &limits,
        &[],
        &["refuse_late: true"],
    );
    let (one, two) = (
        Gateway::start(&config).await?,
        Gateway::start(&config).await?,
    );
    // The slots of this window and the next two are taken.
    let mut waiting = Vec::new();
    for number in 0..3 * ROOM {
        let patient = one.client().send(Chat::new(&format!("patient-{number}")));
        waiting.push(patient);
        if let Some(number) = number.checked_sub(ROOM - 1) {
            one.waiting(number).await?;
        }
    }
    let time = 1.75 * PACE.window.as_secs_f64();
    let hasty = |user: &str| Chat::new(user).with("timeout", time);
    let refused = two.client().chat(&hasty("hasty")).await?;
    ensure!(refused.status == 429, "{refused:?}");
    refused.error()?;
    ensure!(
        refused.took < SLACK.min(PACE.window),
        "told after {:?}",
        refused.took
    );
    let better = two.client().send(hasty("better").priority(-1));
    let back: u64 = refused.header("retry-after").parse()?;
    let back = Duration::from_secs(back);
    // It would wait for less than three windows, and has the time of nearly two.
    ensure!(back <= 2 * PACE.window, "{refused:?}");
    // A little later, as the estimate does not include the guards of the windows.
    sleep(back + SLACK / 4).await;
    two.client().chat(&hasty("back")).await?.ok()?;
    better.await??.ok()?;
    for patient in waiting {
        patient.await??.ok()?;
    }
    upstream.seen(3 * ROOM as usize + 2).await?;
    Ok(())
}
