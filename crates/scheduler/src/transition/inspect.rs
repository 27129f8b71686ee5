//! For the tests of the protocol: counts of what the state holds, and partial writes.

use super::{Kind, State, recovery::Recovery, windows::Dispatch};
use crate::{rules::MAX_NUMBER, units::Seq};

/// What a group's state holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Queue entries of living sessions.
    pub waiting: u64,
    /// All queue entries, those of ended sessions included.
    pub entries: u64,
    /// Open calls.
    pub calls: u64,
    /// Open calls as deployments count them.
    pub open: u64,
    /// Undelivered grants and refusals.
    pub inbox: u64,
    /// Ended or unresponsive sessions whose calls and grants are not settled yet (P16).
    pub leftovers: u64,
    /// Sessions.
    pub sessions: u64,
    /// Sessions that are unresponsive (P10).
    pub unresponsive: u64,
    /// Conservative charges (P13).
    pub conservative: u64,
    /// Charges whose dispatch is not reported yet (P8).
    pub open_charges: u64,
    /// Charges that count from the end of their session (P8).
    pub assumed: u64,
    /// With fair shares, tickets behind the first of their tenant queue.
    pub behind: u64,
    /// Tenant queues with tickets.
    pub tenant_queues: u64,
    /// Tenant queues that are known, and their priorities.
    pub tenants: u64,
    /// Those of them that have no ticket.
    pub idle: u64,
    /// Queue entries that the sweep has passed.
    pub swept: u64,
    /// Entries that are counted by windows from before a change of configuration.
    pub unrecounted: u64,
    /// Deployments whose latency is measured.
    pub measured: u64,
    /// The group recovers.
    pub recovering: bool,
    /// The reported use is being summed up, in parts (P13, P16).
    pub summing: bool,
}

impl State {
    /// Counts.
    #[must_use]
    pub fn census(&self) -> Census {
        let sizes = self.queue.fair.sizes();
        Census {
            waiting: self.depth(),
            entries: self.queue.len(),
            calls: self.calls.len(),
            measured: self.latencies.len() as u64,
            open: self.calls.total(),
            inbox: self.undelivered(),
            leftovers: self.leftovers.len() as u64,
            sessions: self.session_count(),
            unresponsive: self.sessions.values().filter(|s| s.unresponsive).count() as u64,
            conservative: self
                .windows
                .iter()
                .filter(|(key, _)| key.kind == Kind::Conservative)
                .count() as u64,
            open_charges: self.windows.count(Dispatch::Open),
            assumed: self.windows.count(Dispatch::Assumed),
            behind: sizes.behind,
            tenant_queues: sizes.active,
            tenants: sizes.known,
            idle: sizes.idle,
            swept: self.sweep.0,
            unrecounted: self
                .rules()
                .map_or(0, |rules| self.windows.unrecounted(rules)),
            recovering: self.is_recovering(),
            summing: self.recovery.as_ref().is_some_and(Recovery::is_summing),
        }
    }

    /// [`Census::waiting`] without the rest: the simulation calls it thousands of times a second.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.depth()
    }

    /// [`Census::sessions`].
    #[must_use]
    pub fn session_count(&self) -> u64 {
        self.sessions.len() as u64
    }

    /// [`Census::inbox`].
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        self.inbox.values().map(|items| items.len() as u64).sum()
    }

    /// [`Census::recovering`].
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        self.recovery.is_some()
    }

    /// Requests of all conservative charges (P13).
    #[must_use]
    pub fn charged(&self) -> u64 {
        let conservative = self
            .windows
            .iter()
            .filter(|(k, _)| k.kind == Kind::Conservative);
        conservative.map(|(_, charge)| charge.cost.requests).sum()
    }

    /// Score, start tag and arrival of the last ticket of a living session.
    #[must_use]
    pub fn last_in_queue(&self) -> Option<(i64, u64, Seq)> {
        let living = self.queue.iter().filter(|entry| !self.is_orphaned(*entry));
        living
            .last()
            .map(|entry| (entry.score, entry.start, entry.arrival))
    }

    /// In debug builds, after each step: what must hold however extreme a message was, as far as sums show it.
    pub(super) fn assert_invariants(&self) {
        debug_assert!(self.last.0 <= MAX_NUMBER && self.queue.fair.highest_finish <= MAX_NUMBER);
        debug_assert!(self.orphans <= self.queue.len());
        debug_assert_eq!(self.calls.total(), self.calls.len());
        debug_assert!(self.windows.within_bounds());
    }

    /// Marks the last write as possibly partial (P17).
    pub fn make_dirty(&mut self) {
        self.dirty = true;
    }

    /// A partial write (P17): some parts of the state are from after a step, some from before it. `choice` says which.
    pub fn tear(&mut self, before: &State, choice: u32) {
        let old = |bit: u32| choice >> bit & 1 == 1;
        if old(0) {
            self.queue.clone_from(&before.queue);
        }
        if old(1) {
            self.sessions.clone_from(&before.sessions);
        }
        if old(2) {
            self.calls.clone_from(&before.calls);
        }
        if old(3) {
            self.inbox.clone_from(&before.inbox);
        }
        self.windows.tear(&before.windows, old(4), old(6));
        if old(5) {
            self.waiting.clone_from(&before.waiting);
            self.orphans = before.orphans;
        }
        self.dirty = true;
    }
}
