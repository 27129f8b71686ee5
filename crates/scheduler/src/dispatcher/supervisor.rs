//! Keeps a group served: a dispatcher that panics is replaced.

use std::{panic::AssertUnwindSafe, sync::Arc};

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
use crate::config::GroupConfig;

/// Opening messages of a dispatcher's successor have numbers above all of its own (P1).
const SUCCESSOR: u64 = 1 << 32;

/// Runs a group's dispatcher, and another one where it panics. The successor knows nothing of what was before, like an instance that has just started: waiting tickets enter
/// the queue again, and the group takes what was granted for dispatched.
pub(crate) async fn supervise(
    instance: Arc<str>,
    config: GroupConfig,
    around: Surroundings,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let mut openings = 0;
    loop {
        let now = Instant::now().saturating_duration_since(around.started);
        let core = Core::new(instance.clone(), &config, now.into()).opening_after(openings);
        let running = AssertUnwindSafe(run(core, &around, &mut commands));
        if running.catch_unwind().await.is_ok() {
            return;
        }
        let group = &*around.board.name;
        tracing::error!(
            group,
            "the dispatcher panicked; another one takes its place"
        );
        around.board.clear();
        around.observer.dispatcher_replaced(group);
        openings += SUCCESSOR;
        // As long as until its session is missed at the latest: a fault that comes again at once must not keep a core busy.
        sleep(around.lease / 6).await;
    }
}
