//! One process, state in memory: the best priority goes first, as soon as the limit has room.
//!
//!     cargo run -p vorrang-scheduler --example memory

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use vorrang_scheduler::{
    Deployment, GroupConfig, LimitKind, NoObserver, Scheduler, backend::MemoryBackend,
};

#[tokio::main]
pub(crate) async fn main() -> anyhow::Result<()> {
    let backend = Arc::new(MemoryBackend::new());
    let scheduler = Scheduler::new(backend, "instance-1", Arc::new(NoObserver));
    let one_per_second =
        Deployment::new("upstream").limit(LimitKind::Requests, 1, Duration::from_secs(1));
    let group = scheduler.open("my-model", &GroupConfig::new(vec![one_per_second]));

    // Takes the only slot of this second.
    let call = group.join(0, 0).granted().await?.dispatch()?;
    drop(call);

    let (went, mut order) = mpsc::unbounded_channel();
    for (name, priority) in [("batch", 10), ("interactive", 0)] {
        let (mut ticket, went) = (group.join(priority, 0), went.clone());
        tokio::spawn(async move {
            let call = ticket.granted().await?.dispatch()?;
            println!("{name} goes after {:.1} s", call.waited().as_secs_f64());
            went.send(name)?;
            anyhow::Ok(())
        });
    }
    assert_eq!(order.recv().await, Some("interactive"));
    assert_eq!(order.recv().await, Some("batch"));
    Ok(())
}
