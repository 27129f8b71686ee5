//! Where a waiting call is in its queue, whenever it is asked for.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;

use super::Inner;
use crate::{journal::Life, waiting::estimates};

/// A waiting call, to ask for its present place. Cheap to clone.
#[derive(Clone)]
pub struct Place {
    pub(super) router: Weak<ArcSwap<Inner>>,
    pub(super) life: Arc<Life>,
}

impl Place {
    /// How many tickets are surely before it now, and how long it surely waits yet. It takes a step. `None`: it does not wait in the
    /// queue, or the backend does not answer.
    pub async fn now(&self) -> Option<(u64, Duration)> {
        let (name, claim, arrival) = self.life.place()?;
        let router = self.router.upgrade()?.load_full();
        let group = router.group_of_name(&name)?;
        let ahead = group.queue.position(arrival).await.ok()??;
        let status = group.queue.status();
        let least = estimates::least_wait(&status, ahead, claim.priority, &group.settings);
        Some((ahead, least))
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.life.call_id()).finish()
    }
}
