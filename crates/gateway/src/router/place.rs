//! Where a waiting call is in its queue, whenever it is asked for.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;

use super::Inner;
use crate::journal::Life;

/// A waiting call, to ask for its present place. Cheap to clone.
#[derive(Clone)]
pub struct Place {
    pub(super) router: Weak<ArcSwap<Inner>>,
    pub(super) life: Arc<Life>,
}

impl Place {
    /// How many tickets are surely before it now, and how long it surely waits yet: `None` while it is paused. It takes a step.
    /// `None`: it does not wait in the queue, or the backend does not answer.
    pub async fn now(&self) -> Option<(u64, Option<Duration>)> {
        let (name, claim, arrival) = self.life.place()?;
        let router = self.router.upgrade()?.load_full();
        let group = router.group_of_name(&name)?;
        let ahead = group.queue.position(arrival).await.ok()??;
        Some((ahead, group.least_wait(ahead, claim.priority, claim.key)))
    }

    /// Whether an operator has paused its group or its key. The ticket of a paused key may be outside of the queue.
    pub fn is_paused(&self) -> bool {
        let paused = || {
            let (name, claim, _) = self.life.place()?;
            let router = self.router.upgrade()?.load_full();
            Some(router.group_of_name(&name)?.pauses(claim.key))
        };
        paused().unwrap_or(false)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.life.call_id()).finish()
    }
}
