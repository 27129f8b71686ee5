//! One instance: order and time of grants.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use vorrang_tests::{
    Chat, Gateway, Redis, Upstream, config,
    referee::{Limit, Passage, inversions},
};

const WINDOW: Duration = Duration::from_secs(4);
const GUARD: Duration = Duration::from_millis(200);

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
    let gateway = Gateway::start(&config(&upstream.url(), &["rpm: 10"], &[], &ours)).await?;

    let used_up: Vec<_> = (0..10)
        .map(|index| {
            gateway
                .client()
                .send(Chat::new(&format!("used-{index}")).priority(7))
        })
        .collect();
    for reply in used_up {
        reply.await??.ok()?;
    }

    // They time out long before there is room: the best, a middle and the worst entry leave the queue.
    let impatient = Duration::from_millis(1500);
    let mut expected = Vec::new();
    let mut impatients = Vec::new();
    for (waiting, priority) in [(1, -1000), (2, 0), (3, 1000)] {
        let chat = Chat::new("impatient").priority(priority);
        let chat = chat.with("timeout", impatient.as_secs_f64());
        impatients.push(gateway.client().send(chat));
        gateway.waiting(waiting).await?;
    }
    let mut replies = Vec::new();
    for (index, waiting) in (0_i32..30).zip(4..) {
        let priority = [5, 0, i32::MAX, -3, 0][index as usize % 5];
        let chat = Chat::new(&format!("patient-{index}")).priority(priority);
        expected.push((priority, index));
        replies.push((index, gateway.client().send(chat)));
        // They arrive one after the other: the next is sent when this one waits.
        gateway.waiting(waiting).await?;
    }
    expected.sort_unstable();

    for reply in impatients {
        let reply = reply.await??;
        ensure!(reply.status == 408, "{reply:?}");
        ensure!(
            reply
                .error()?
                .starts_with("Request timed out while polling queue")
        );
        // An SDK's own retry would lose the position.
        ensure!(reply.header("x-should-retry") == "false", "{reply:?}");
        let late = reply.took.saturating_sub(impatient);
        ensure!(
            reply.took >= impatient && late < Duration::from_secs(1),
            "{reply:?}"
        );
    }
    let mut passages: Vec<(Passage, i32)> = Vec::new();
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
    let refill = limit.judge(&gateway.dispatches()?, &arrived)?;
    ensure!(
        refill < WINDOW + GUARD + Duration::from_secs(1),
        "a place stayed empty: {refill:?}"
    );
    Ok(())
}
