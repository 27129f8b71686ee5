//! The life of a permit: what is charged, what is refunded, and how a retry keeps its place in the queue.
//!
//!     cargo run -p vorrang-scheduler --example permit

use std::{sync::Arc, time::Duration};

use vorrang_scheduler::{
    Deployment, Group, GroupConfig, LimitKind, NoObserver, Scheduler, Tokens,
    backend::MemoryBackend,
};

#[tokio::main]
pub(crate) async fn main() -> anyhow::Result<()> {
    let backend = Arc::new(MemoryBackend::new());
    let scheduler = Scheduler::new(backend, "instance-1", Arc::new(NoObserver));
    let deployment =
        Deployment::new("upstream").limit(LimitKind::Tokens, 1_000, Duration::from_secs(60));
    let group = scheduler.open("my-model", &GroupConfig::new(vec![deployment]));

    // 600 tokens are reserved, for as long as the permit is there. Dropped before its call goes out, it is refunded.
    let permit = group.join(0, 600).granted().await?;
    drop(permit);
    assert_eq!(used(&group, 0).await, 0);

    // Once the call is dispatched its charge stays, whatever becomes of it ...
    let permit = group.join(0, 600).granted().await?;
    let call = permit.dispatch()?;
    // ... unless certainly nothing was sent. The ticket can enter the queue again, with its first arrival.
    let paused = call.not_sent();
    assert_eq!(used(&group, 0).await, 0);

    let mut call = paused.enter().granted().await?.dispatch()?;
    call.succeeded();
    // The reservation is corrected to what was really used.
    call.used_tokens(Tokens::new(150, 50));
    drop(call);
    assert_eq!(used(&group, 200).await, 200);

    // A failed attempt: the deployment cools for a moment, and the retry comes before all that came after its first arrival.
    let mut call = group.join(0, 100).granted().await?.dispatch()?;
    let arrival = call.numbers().arrival;
    call.failed(429, Some(Duration::from_millis(300)));
    let call = call.retry().granted().await?.dispatch()?;
    assert_eq!(call.numbers().arrival, arrival);
    println!("the retry waited {} ms", call.waited().as_millis());
    Ok(())
}

/// Tokens used as the fleet counts them, as soon as that is `expected`, or after a second.
async fn used(group: &Group, expected: u64) -> u64 {
    for _ in 0..100 {
        let status = group.status();
        let used = status.deployments.first().map(|d| d.tokens.total());
        if used == Some(expected) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let status = group.status();
    status.deployments.first().map_or(0, |d| d.tokens.total())
}
