//! How many client connections and calls this process may have open at once. A call may need an upstream connection.
//!
//! Both take slots of one budget of file descriptors. A part of it is kept for accepting: while less than that is left,
//! connections that are idle are closed, and of the calls that wait the worst are turned away.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use vorrang_gateway::Room;

pub(crate) use crate::connection::budget::Budget;

/// A connection that has been idle for less may be about to send its next request.
const IDLE_AT_LEAST: Duration = Duration::from_secs(1);

/// How long a new connection may take to send its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(5);

/// How long a call may wait for a slot, while others are turned away or end.
const CALL_WAITS: Duration = Duration::from_secs(1);

/// Connections and calls that hold slots.
#[derive(Debug)]
pub(crate) struct Slots {
    budget: Budget,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    next: u64,
    connections: HashMap<u64, Open>,
    /// Connections without a request, by the time from which they may be closed to make room.
    idle: BTreeSet<(Instant, u64)>,
    /// Calls that were granted, by priority.
    granted: BTreeMap<i32, usize>,
}

#[derive(Debug)]
struct Open {
    requests: usize,
    idle_since: Instant,
    closable_from: Instant,
    close: CancellationToken,
}

// === impl Slots ===

impl Slots {
    pub(crate) fn new(budget: Budget) -> Arc<Self> {
        Arc::new(Self {
            budget,
            state: Mutex::default(),
            freed: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing here panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more client connection may be accepted. Cancel-safe.
    pub(crate) async fn acceptable(&self) {
        loop {
            // Registered before the check, so that no slot that is freed after it is missed.
            let freed = self.freed.notified();
            {
                let mut state = self.state();
                if state.used < self.budget.acceptable() {
                    return;
                }
                state.close_longest_idle();
            }
            // Connections become idle for long enough as time goes by, which nothing signals.
            let _ = timeout(IDLE_AT_LEAST, freed).await;
        }
    }

    /// The slot of a connection that was accepted.
    pub(crate) fn connection(self: &Arc<Self>) -> Arc<ConnectionSlot> {
        let mut state = self.state();
        let id = state.open();
        if self.is_short(state.used) {
            state.close_longest_idle();
        }
        Arc::new(ConnectionSlot {
            slots: self.clone(),
            id,
        })
    }

    /// A slot for a call; `None` where none becomes free soon.
    pub(crate) async fn call(self: &Arc<Self>) -> Option<Arc<CallSlot>> {
        if let Some(slot) = self.call_now() {
            return Some(slot);
        }
        timeout(CALL_WAITS, async {
            loop {
                let freed = self.freed.notified();
                if let Some(slot) = self.call_now() {
                    return slot;
                }
                freed.await;
            }
        })
        .await
        .ok()
    }

    /// A slot for a call, if one is free.
    fn call_now(self: &Arc<Self>) -> Option<Arc<CallSlot>> {
        let mut state = self.state();
        if state.used >= self.budget.total {
            state.close_longest_idle();
            return None;
        }
        state.used += 1;
        Some(Arc::new(CallSlot {
            slots: self.clone(),
            priority: OnceLock::new(),
        }))
    }

    /// Closes the connection that has been idle for longest: descriptors ran out, whatever the budget says.
    pub(crate) fn close_idle(&self) {
        self.state().close_longest_idle();
    }

    fn is_short(&self, used: usize) -> bool {
        used > self.budget.total - self.budget.reserve
    }

    fn free(&self, change: impl FnOnce(&mut State)) {
        {
            let mut state = self.state();
            state.used -= 1;
            change(&mut state);
        }
        self.freed.notify_waiters();
    }

    /// How many there are, for metrics.
    pub(crate) fn total(&self) -> usize {
        self.budget.total
    }

    /// How many are taken by client connections, and by calls.
    pub(crate) fn used(&self) -> (usize, usize) {
        let state = self.state();
        let connections = state.connections.len();
        (connections, state.used - connections)
    }
}

impl Room for Slots {
    /// A new call took a slot, and over HTTP/1 another one for its connection. A call that ends gives back as much, or one if it came over
    /// HTTP/2: then two have to end where it gets tight.
    fn excess(&self, worst_priority: i32) -> usize {
        let mut state = self.state();
        if !self.is_short(state.used) || state.close_longest_idle() {
            return 0;
        }
        if state.used > self.budget.total - self.budget.reserve / 2 {
            return 2;
        }
        // Granted calls cannot be turned away: better calls may use half of the reserve beside them.
        let granted_worse = state.granted.last_key_value();
        usize::from(granted_worse.is_none_or(|(worst, _)| *worst <= worst_priority))
    }
}

// === impl State ===

impl State {
    fn open(&mut self) -> u64 {
        let (id, idle_since) = (self.next, Instant::now());
        self.next += 1;
        self.used += 1;
        let closable_from = idle_since + FIRST_REQUEST;
        self.idle.insert((closable_from, id));
        let open = Open {
            requests: 0,
            idle_since,
            closable_from,
            close: CancellationToken::new(),
        };
        self.connections.insert(id, open);
        id
    }

    /// Closes the connection that has been closable for longest.
    fn close_longest_idle(&mut self) -> bool {
        let Some(&(closable_from, id)) = self.idle.first() else {
            return false;
        };
        if Instant::now() < closable_from {
            return false;
        }
        // It counts until it is closed, but is signalled only once.
        self.idle.remove(&(closable_from, id));
        if let Some(open) = self.connections.get(&id) {
            open.close.cancel();
        }
        true
    }
}

/// One client connection's slot, given back with its drop.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    slots: Arc<Slots>,
    id: u64,
}

// === impl ConnectionSlot ===

impl ConnectionSlot {
    /// A request on it begins.
    pub(crate) fn begin(self: &Arc<Self>) -> Exchange {
        let mut state = self.slots.state();
        let state = &mut *state;
        if let Some(open) = state.connections.get_mut(&self.id) {
            open.requests += 1;
            state.idle.remove(&(open.closable_from, self.id));
        }
        Exchange(self.clone())
    }

    /// Since when it has had no request; `None` while it has one.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let state = self.slots.state();
        let open = state.connections.get(&self.id)?;
        (open.requests == 0).then_some(open.idle_since)
    }

    /// Cancelled when it has to close because it is idle and its slot is needed.
    pub(crate) fn close(&self) -> CancellationToken {
        let state = self.slots.state();
        let open = state.connections.get(&self.id);
        open.map(|open| open.close.clone()).unwrap_or_default()
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.slots.free(|state| {
            if let Some(open) = state.connections.remove(&self.id) {
                state.idle.remove(&(open.closable_from, self.id));
            }
        });
    }
}

/// A request and its answer on a connection, until the drop.
#[derive(Debug)]
pub(crate) struct Exchange(Arc<ConnectionSlot>);

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.0.slots.state();
        let state = &mut *state;
        if let Some(open) = state.connections.get_mut(&self.0.id) {
            open.requests -= 1;
            if open.requests == 0 {
                open.idle_since = Instant::now();
                open.closable_from = open.idle_since + IDLE_AT_LEAST;
                state.idle.insert((open.closable_from, self.0.id));
            }
        }
    }
}

/// One call's slot, given back with its drop.
#[derive(Debug)]
pub(crate) struct CallSlot {
    slots: Arc<Slots>,
    /// RequestFacts when it was granted.
    priority: OnceLock<i32>,
}

// === impl CallSlot ===

impl CallSlot {
    /// The call does not wait any more: it has its permit.
    pub(crate) fn granted(&self, priority: i32) {
        // A call that is tried again is granted again.
        if self.priority.set(priority).is_ok() {
            *self.slots.state().granted.entry(priority).or_default() += 1;
        }
    }
}

impl Drop for CallSlot {
    fn drop(&mut self) {
        self.slots.free(|state| {
            let Some(priority) = self.priority.get() else {
                return;
            };
            if let Entry::Occupied(mut calls) = state.granted.entry(*priority) {
                *calls.get_mut() -= 1;
                if *calls.get() == 0 {
                    calls.remove();
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Eight slots, of which four are kept.
    fn eight() -> Arc<Slots> {
        Slots::new(Budget {
            total: 8,
            reserve: 4,
            idle_upstream: 1,
        })
    }

    #[test]
    fn descriptor_budget_fits_the_file_limit_and_always_admits_calls() {
        for files in [0, 64, 100, 256, 1024, 1 << 20] {
            let budget = Budget::of(files);
            assert!(budget.reserve < budget.total, "{files}: {budget:?}");
            assert!(
                budget.total + budget.idle_upstream <= files.saturating_sub(64).max(32),
                "{files}: {budget:?}"
            );
        }
        // Both of what a waiting HTTP/1 request holds, and room to accept.
        let small = Budget::of(256);
        assert_eq!((small.total, small.reserve), (168, 21));
    }

    #[tokio::test(start_paused = true)]
    async fn scarce_slots_close_the_longest_idle_connection() {
        let slots = eight();
        let mut connections = Vec::new();
        for _ in 0..4 {
            connections.push(slots.connection());
            drop(connections.last().unwrap().begin());
            tokio::time::advance(IDLE_AT_LEAST).await;
        }
        let closing = |connections: &[Arc<ConnectionSlot>]| {
            let closing = connections.iter().map(|open| open.close().is_cancelled());
            closing.collect::<Vec<_>>()
        };
        let busy = connections[0].begin();
        assert_eq!(connections[0].idle_since(), None);
        connections.push(slots.connection());
        assert_eq!(closing(&connections), [false, true, false, false, false]);
        assert_eq!(slots.excess(0), 0, "another idle connection makes room");
        assert_eq!(closing(&connections), [false, true, true, false, false]);
        drop(busy);
        assert!(connections[0].idle_since().is_some());
        assert_eq!(slots.excess(0), 0);
        // The others have only just become idle, or have not had the time for their first request.
        assert_eq!(slots.excess(0), 1);
        assert_eq!(closing(&connections), [false, true, true, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn scarce_slots_turn_calls_away_if_no_connection_is_idle() {
        let slots = eight();
        let mut held = Vec::new();
        for (calls, excess) in [(1, 0), (2, 0), (3, 1), (4, 2)] {
            let connection = slots.connection();
            held.push((connection.begin(), slots.call().await.unwrap()));
            assert_eq!(slots.excess(0), excess, "{calls} calls");
        }
        assert!(slots.call().await.is_none());
        held.truncate(2);
        assert_eq!(slots.excess(0), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn last_slots_are_kept_for_calls_of_accepted_connections() {
        let slots = eight();
        let mut held = Vec::new();
        for _ in 0..6 {
            slots.acceptable().now_or_never().unwrap();
            held.push(slots.connection());
        }
        assert!(slots.acceptable().now_or_never().is_none());
        let calls = [slots.call().await.unwrap(), slots.call().await.unwrap()];
        assert!(slots.call().await.is_none());
        drop(calls);
        // None of them has sent a request in time: the oldest is closed.
        let close = held[0].close();
        let accepting = tokio::spawn({
            let slots = slots.clone();
            async move { slots.acceptable().await }
        });
        close.cancelled().await;
        drop(held.remove(0));
        accepting.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn calls_better_than_granted_ones_may_use_half_of_the_slot_reserve() {
        let slots = eight();
        let mut held = Vec::new();
        for _ in 0..5 {
            held.push(slots.call().await.unwrap());
        }
        held[0].granted(1000);
        assert_eq!(slots.excess(1000), 1);
        assert_eq!(slots.excess(999), 0);
        held.push(slots.call().await.unwrap());
        assert_eq!(slots.excess(999), 0);
        held.push(slots.call().await.unwrap());
        assert_eq!(slots.excess(999), 2, "the other half is for accepting");
        held.truncate(5);
        held[0].granted(1000);
        drop(held.remove(0));
        let _another = slots.call().await.unwrap();
        assert_eq!(slots.excess(999), 1, "none is granted any more");
    }
}
