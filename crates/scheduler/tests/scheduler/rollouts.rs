//! Roll-outs (P20): instances with different configurations in one group, with tokio's clock paused.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use vorrang_scheduler::{backend::MemoryBackend, *};

fn requests(id: &str, limit: u64) -> GroupConfig {
    let deployment = Deployment::new(id);
    let limited = deployment.limit(LimitKind::Requests, limit, Duration::from_secs(60));
    GroupConfig::new(vec![limited])
}

fn instance(backend: &Arc<MemoryBackend>, name: &str) -> Scheduler {
    Scheduler::new(backend.clone(), name, Arc::new(NoObserver))
}

async fn dispatched(group: &Group) -> ActiveCall {
    let permit = group.join(0, 0).granted().await.unwrap();
    permit.dispatch().unwrap()
}

/// A new API key makes a new deployment id. Each instance uses its own deployment, and both report that configurations differ.
#[tokio::test(start_paused = true)]
async fn instances_with_different_deployments_do_not_block_each_other() {
    let backend = Arc::new(MemoryBackend::new());
    let (old, new) = (instance(&backend, "old"), instance(&backend, "new"));
    let old = old.open("group", &requests("old-key", 1));
    drop(dispatched(&old).await);
    let waiting = tokio::spawn(async move {
        let start = Instant::now();
        drop(dispatched(&old).await);
        (start.elapsed(), old.status().configurations)
    });
    sleep(Duration::from_secs(1)).await;
    let new = new.open("group", &requests("new-key", 1));
    // The old instance's ticket stays the head of the queue, and waits for its own deployment.
    let start = Instant::now();
    assert_eq!(dispatched(&new).await.deployment(), 0);
    assert!(start.elapsed() >= Duration::from_secs(59));
    let (waited, configurations) = waiting.await.unwrap();
    assert!(waited <= Duration::from_secs(61), "{waited:?}");
    assert_eq!((configurations, new.status().configurations), (2, 2));
}
