//! Replaces a dispatcher that has panicked.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, PoisonError},
};

use futures_util::FutureExt;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    core::Core,
    shared::Command,
    task::{Surroundings, run},
};
/// Open-session messages of a replacing dispatcher have higher numbers than all of its predecessor's (P1).
const SUCCESSOR: u64 = 1 << 32;

/// Runs a group's dispatcher, and replaces it if it panics. The replacement has no state, like that of an instance that has just started:
/// waiting tickets enter the queue again, and grants count as dispatched.
pub(crate) async fn supervise(
    instance: Arc<str>,
    around: Surroundings,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let mut openings = 0;
    loop {
        let now = Instant::now().saturating_duration_since(around.started);
        let config = around.config.lock();
        let config = config.unwrap_or_else(PoisonError::into_inner).clone();
        let core = Core::new(instance.clone(), &config, now.into()).opening_after(openings);
        let running = AssertUnwindSafe(run(core, &around, &mut commands));
        if running.catch_unwind().await.is_ok() {
            return;
        }
        let group = &*around.board.name;
        tracing::error!(group, "the dispatcher panicked and is replaced");
        around.board.clear();
        around.observer.dispatcher_replaced(group);
        openings += SUCCESSOR;
        // A heartbeat: a panic that repeats at once must not keep a CPU core busy.
        sleep(around.board.lease() / 6).await;
    }
}
