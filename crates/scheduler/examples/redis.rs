//! A fleet: every process that runs this on the same Redis shares one queue and one limit. Start several, on as many machines as you like.
//!
//!     REDIS_URL=redis://127.0.0.1:6379 cargo run -p vorrang-scheduler --example redis

use std::{env, process, sync::Arc, time::Duration};

use anyhow::Context as _;
use vorrang_scheduler::{
    Deployment, GroupConfig, LimitKind, NoObserver, Scheduler,
    backend::{Backend as _, RedisBackend, RedisOptions},
};

#[tokio::main]
pub(crate) async fn main() -> anyhow::Result<()> {
    let url = env::var("REDIS_URL").context("REDIS_URL names the Redis to use")?;
    let backend = RedisBackend::connect(&RedisOptions::new(url))?;
    // Steps are tried for ever while Redis is away. This one says at once what is wrong.
    backend.check().await?;

    // Unique for each start of a process, on all machines.
    let instance = format!("example-{}", process::id());
    let scheduler = Scheduler::new(backend, instance, Arc::new(NoObserver));
    let ten_per_second =
        Deployment::new("upstream").limit(LimitKind::Requests, 10, Duration::from_secs(1));
    let group = scheduler.open("my-model", &GroupConfig::new(vec![ten_per_second]));

    for _ in 0..5 {
        let call = group.join(0, 0).granted().await?.dispatch()?;
        // The numbers are of the whole fleet.
        println!("granted {}", call.numbers().granted);
    }
    scheduler.close(Duration::from_secs(5)).await;
    Ok(())
}
