//! An orderly end: what waits is refused, what is on its way ends first, and the session is closed, so that other instances need not wait for its lease.
//!
//!     cargo run -p vorrang-scheduler --example shutdown

use std::{sync::Arc, time::Duration};

use vorrang_scheduler::{
    Deployment, GroupConfig, LimitKind, NoObserver, Refused, Scheduler, backend::MemoryBackend,
};

#[tokio::main]
pub(crate) async fn main() -> anyhow::Result<()> {
    let backend = Arc::new(MemoryBackend::new());
    let scheduler = Scheduler::new(backend, "instance-1", Arc::new(NoObserver));
    let one_at_a_time =
        Deployment::new("upstream").limit(LimitKind::Concurrency, 1, Duration::ZERO);
    let group = scheduler.open("my-model", &GroupConfig::new(vec![one_at_a_time]));

    let call = group.join(0, 0).granted().await?.dispatch()?;
    let mut ticket = group.join(0, 0);
    let waiting = tokio::spawn(async move { ticket.granted().await.err() });
    let calling = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        println!("the call has ended");
        drop(call);
    });

    // At most so long: then the session is closed whatever is still on its way.
    scheduler.close(Duration::from_secs(10)).await;
    println!("closed");

    calling.await?;
    assert_eq!(waiting.await?, Some(Refused::Closed));
    println!("the waiting ticket was refused");
    Ok(())
}
