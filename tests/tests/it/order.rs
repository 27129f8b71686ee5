//! One instance: order and time of grants.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use vorrang_tests::{
    Act, Chat, Gateway, Redis, Upstream, config,
    referee::{Limit, Passage, inversions, slowest_refill},
};

use crate::fleet::{GUARD, SLACK, WINDOW};

/// A1, A3, A4, A7: one instance on Redis.
#[tokio::test]
async fn thirty_requests_pass_in_order_ten_in_a_window_on_redis() -> Result<()> {
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let ours = [
        format!("window_seconds: {}", WINDOW.as_secs()),
        format!("guard_ms: {}", GUARD.as_millis()),
        format!("redis_url: {}", redis.url()),
    ];
    let ours = ours.each_ref().map(String::as_str);
    let limits = ["rpm: 10", "max_parallel_requests: 10"];
    let gateway = Gateway::start(&config(&upstream.url(), &limits, &[], &ours)).await?;

    // These calls use up the window, and hold all permits until the queue is built.
    upstream
        .plan(&vec![Act::hold(); 10], Act::default())
        .await?;
    let send = |chat: Chat| gateway.client().send(chat);
    let held = |index: usize| send(Chat::new(&format!("used-{index}")).priority(7));
    let held: Vec<_> = (0..10).map(held).collect();
    upstream.seen(10).await?;
    let mut replies = Vec::new();
    let mut expected = Vec::new();
    for index in 0_u32..30 {
        let priority = [5, 0, i32::MAX, -3, 0][index as usize % 5];
        expected.push((priority, index));
        let chat = Chat::new(&format!("patient-{index}")).priority(priority);
        replies.push((index, send(chat)));
        // They arrive one after the other: the next is sent when this one waits.
        gateway.waiting(index + 1).await?;
    }
    expected.sort_unstable();

    // They time out while no permit is free: the best, a middle and the worst entry leave the queue.
    let time = Duration::from_millis(500);
    let impatient = |priority: i32| {
        let chat = Chat::new("impatient").priority(priority);
        send(chat.with("timeout", time.as_secs_f64()))
    };
    for reply in [-1000, 0, 1000].map(impatient) {
        let reply = reply.await??;
        ensure!(reply.status == 408, "{reply:?}");
        ensure!(
            reply
                .error()?
                .starts_with("Request timed out while polling queue")
        );
        // An SDK's own retry would lose the position.
        ensure!(reply.header("x-should-retry") == "false", "{reply:?}");
        let late = reply.took.saturating_sub(time);
        ensure!(reply.took >= time && late < SLACK, "{reply:?}");
    }
    upstream.release().await?;
    for reply in held {
        reply.await??.ok()?;
    }
    let mut passages: Vec<(Passage, u32)> = Vec::new();
    for (index, reply) in replies {
        passages.push((reply.await??.ok()?.passage()?, index));
    }

    passages.sort_unstable_by_key(|(passage, _)| passage.granted);
    let order: Vec<_> = passages
        .iter()
        .map(|(passage, index)| (passage.priority, *index))
        .collect();
    ensure!(order == expected, "{order:?} instead of {expected:?}");
    let passages: Vec<_> = passages.into_iter().map(|(passage, _)| passage).collect();
    ensure!(inversions(&passages).is_empty(), "{passages:?}");

    // The same at the upstream. Within a window all calls are sent at the same moment.
    let calls = upstream.seen(40).await?;
    for (window, expected) in calls[10..].chunks(10).zip(expected.chunks(10)) {
        let users: BTreeSet<_> = window.iter().map(|call| call.user()).collect();
        let expected = expected.iter().map(|(_, index)| format!("patient-{index}"));
        let expected: BTreeSet<_> = expected.collect();
        ensure!(users == expected, "{users:?} instead of {expected:?}");
    }
    let arrived: Vec<u64> = calls.iter().map(|call| call.at).collect();
    let limit = Limit {
        calls: 10,
        window: WINDOW,
        guard: GUARD,
    };
    let dispatched = gateway.dispatches()?;
    limit.judge(&dispatched, &arrived)?;
    // Of those that all waited when the first of them went.
    let refill = slowest_refill(&dispatched[10..], 10);
    ensure!(
        refill < WINDOW + GUARD + SLACK,
        "a place stayed empty: {refill:?}"
    );
    Ok(())
}
