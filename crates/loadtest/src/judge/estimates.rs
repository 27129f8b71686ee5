//! How often the gateway's least wait was more than the wait: by such an estimate it could have refused a request that had the time.

use std::time::Duration;

use serde::Serialize;

use crate::log::{Log, Ticket};

/// What became of the estimates of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Estimates {
    /// Granted tickets with an estimate.
    pub told: u64,
    /// Those that waited less.
    pub wrong: u64,
    /// By how much at most.
    #[serde(serialize_with = "seconds")]
    pub most: Duration,
}

/// All estimates that can be judged. Of a ticket that was granted several times only the sum of its waits is known.
pub fn estimates(log: &Log) -> Estimates {
    let tickets = log.records.iter().filter_map(|one| one.ticket.as_ref());
    let mut all = Estimates::default();
    for Ticket {
        least_wait, waited, ..
    } in tickets.filter(|ticket| ticket.retries == 0)
    {
        let Some(least) = least_wait else { continue };
        all.told += 1;
        if waited < least {
            all.wrong += 1;
            all.most = all.most.max(Duration::from_micros(least - waited));
        }
    }
    all
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}
