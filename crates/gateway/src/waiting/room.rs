//! Which calls may go on waiting when the process has no room for all of them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// The room that a process has for calls: file descriptors above all.
pub trait Room: Send + Sync + fmt::Debug {
    /// How many waiting calls have to end now, where the worst of them has this priority. Asked each time a call begins to wait; that call
    /// counts as waiting.
    fn excess(&self, worst_priority: i32) -> usize;
}

/// There is room for every call.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unbounded;

impl Room for Unbounded {
    fn excess(&self, _: i32) -> usize {
        0
    }
}

/// (priority, order of arrival): the greatest is the worst.
type Rank = (i32, u64);

/// All calls of this process that wait for a permit, of all groups.
#[derive(Debug)]
pub(crate) struct WaitingCalls {
    room: Arc<dyn Room>,
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    arrivals: u64,
    by_rank: BTreeMap<Rank, oneshot::Sender<()>>,
}

// === impl WaitingCalls ===

impl WaitingCalls {
    pub(crate) fn new(room: Arc<dyn Room>) -> Self {
        Self {
            room,
            calls: Mutex::default(),
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        // Each change is one operation on the map: a panic elsewhere leaves it whole.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rank of a call that arrives now. A call that is retried keeps it.
    pub(crate) fn rank(&self, priority: i32) -> Rank {
        let mut calls = self.calls();
        calls.arrivals += 1;
        (priority, calls.arrivals)
    }

    /// Enters a call. Where the room is short, the worst waiting calls are turned away; this may be one of them.
    pub(crate) fn enter(&self, rank: Rank) -> WaitingCall<'_> {
        let (sender, turned_away) = oneshot::channel();
        let worst = {
            let mut calls = self.calls();
            calls.by_rank.insert(rank, sender);
            calls
                .by_rank
                .last_key_value()
                .map_or(rank, |(rank, _)| *rank)
        };
        for _ in 0..self.room.excess(worst.0) {
            let Some((_, worst)) = self.calls().by_rank.pop_last() else {
                break;
            };
            // A dropped receiver means that the call has left by itself, which makes room as well.
            let _ = worst.send(());
        }
        WaitingCall {
            calls: self,
            rank,
            turned_away,
        }
    }
}

/// A call that waits. Dropping it ends its wait.
#[derive(Debug)]
pub(crate) struct WaitingCall<'a> {
    calls: &'a WaitingCalls,
    rank: Rank,
    turned_away: oneshot::Receiver<()>,
}

// === impl WaitingCall ===

impl WaitingCall<'_> {
    /// Done when the call has to make room. Cancel-safe, and pending for ever after it was done.
    pub(crate) async fn turned_away(&mut self) {
        if (&mut self.turned_away).await.is_err() {
            // The sender lives in the map until it has sent.
            std::future::pending().await
        }
    }
}

impl Drop for WaitingCall<'_> {
    fn drop(&mut self) {
        self.calls.calls().by_rank.remove(&self.rank);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;

    use super::*;

    /// Has a number of calls too many, once.
    #[derive(Debug, Default)]
    struct Short(AtomicUsize);

    impl Room for Short {
        fn excess(&self, _: i32) -> usize {
            self.0.swap(0, Ordering::Relaxed)
        }
    }

    #[test]
    fn worst_priority_then_latest_arrival_is_turned_away() {
        let room = Arc::new(Short::default());
        let calls = WaitingCalls::new(room.clone());
        let ranks = [1000, 1000, 5, 1000, 0].map(|priority| calls.rank(priority));
        let [first, second, better, latest, urgent] = ranks;
        // A retried call comes back late and keeps its rank.
        let mut waiting: Vec<_> = [latest, second, better, first]
            .map(|rank| calls.enter(rank))
            .into();
        room.0.store(2, Ordering::Relaxed);
        waiting.push(calls.enter(urgent));
        let left: Vec<_> = waiting
            .iter_mut()
            .filter_map(|call| call.turned_away().now_or_never().map(|()| call.rank))
            .collect();
        assert_eq!(left, [latest, second]);
    }

    #[test]
    fn entering_call_of_worst_rank_is_turned_away_itself() {
        let room = Arc::new(Short::default());
        let calls = WaitingCalls::new(room.clone());
        let mut better = calls.enter(calls.rank(0));
        room.0.store(1, Ordering::Relaxed);
        let mut worse = calls.enter(calls.rank(1));
        assert!(worse.turned_away().now_or_never().is_some());
        assert!(better.turned_away().now_or_never().is_none());
    }

    #[test]
    fn dropped_waiting_calls_are_not_counted() {
        let room = Arc::new(Short::default());
        let calls = WaitingCalls::new(room.clone());
        drop(calls.enter(calls.rank(1000)));
        assert!(calls.calls().by_rank.is_empty());
    }
}
