//! What this instance knows of its calls: those under way, the latest that ended, and how long tickets of each group wait.
//!
//! All of it is bounded, and lives in memory only.

mod histogram;
mod life;
mod waits;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;
use vorrang_scheduler::Seq;

pub(crate) use self::{
    histogram::Histogram,
    life::{Ended, Entered, Life, LifeView, OpenCallView, TicketLabel, milliseconds},
    waits::{GroupWaits, HISTORY_STEPS, STEP_SECONDS, WaitsReport},
};

/// So many ended calls are kept.
const ENDED: usize = 2000;

/// The calls of this instance.
#[derive(Debug)]
pub(crate) struct Journal {
    clock: Clock,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    begun: u64,
    /// By the order of their beginnings: a client may use an id twice.
    running: BTreeMap<u64, Arc<Life>>,
    ended: VecDeque<Arc<Life>>,
}

/// Times of the journal on the wall clock, so that those of several instances can be put side by side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
    unix: Duration,
}

/// A call that is under way: it has ended when this is dropped.
#[derive(Debug)]
pub(crate) struct LiveCall {
    journal: Arc<Journal>,
    life: Arc<Life>,
    number: u64,
    /// How it has ended where nothing else is said before it is dropped.
    end: Ended,
}

// === impl Clock ===

impl Clock {
    pub(crate) fn started_now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            origin: Instant::now(),
            unix: unix.unwrap_or_default(),
        }
    }

    pub(crate) fn unix(&self, time: Instant) -> Duration {
        self.unix + time.saturating_duration_since(self.origin)
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.origin.elapsed()
    }
}

// === impl Journal ===

impl Journal {
    pub(crate) fn new() -> Self {
        Self {
            clock: Clock::started_now(),
            calls: Mutex::default(),
        }
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        // Each change is one operation on a collection: a panic elsewhere leaves it whole.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call has come.
    pub(crate) fn begin(self: &Arc<Self>, call_id: &str, key: Option<&str>) -> LiveCall {
        let life = Arc::new(Life::new(call_id, key));
        let mut calls = self.calls();
        calls.begun += 1;
        let number = calls.begun;
        calls.running.insert(number, life.clone());
        LiveCall {
            journal: self.clone(),
            life,
            number,
            end: Ended::ClientLeft,
        }
    }

    fn ended(&self, number: u64) {
        let dropped = {
            let mut calls = self.calls();
            let Some(life) = calls.running.remove(&number) else {
                return;
            };
            // One that no group has been found for is of no queue's interest.
            if life.has_group() {
                calls.ended.push_back(life);
            }
            if calls.ended.len() > ENDED {
                calls.ended.pop_front()
            } else {
                None
            }
        };
        // Freed without the lock.
        drop(dropped);
    }

    /// The calls under way, the oldest first.
    pub(crate) fn running(&self) -> Vec<Arc<Life>> {
        self.calls().running.values().cloned().collect()
    }

    /// The calls under way and the latest that ended, the newest first.
    fn all(&self) -> Vec<Arc<Life>> {
        let calls = self.calls();
        let running = calls.running.values().rev();
        running.chain(calls.ended.iter().rev()).cloned().collect()
    }

    /// The call of this id: where there are several, one that is under way, else the latest.
    pub(crate) fn find(&self, call_id: &str) -> Option<Arc<Life>> {
        let mut all = self.all().into_iter();
        all.find(|life| life.call_id() == call_id && life.has_group())
    }

    /// The call whose ticket waits in this group.
    pub(crate) fn waiting(&self, group: &str, arrival: Seq) -> Option<Arc<Life>> {
        let mut running = self.running().into_iter();
        running.find(|life| life.waits_as(group, arrival))
    }

    /// How a ticket of this group left that was here, in words; `None`: it was not, or still waits.
    pub(crate) fn has_left(&self, group: &str, arrival: Seq) -> Option<String> {
        let mut all = self.all().into_iter();
        all.find_map(|life| life.has_left(group, arrival))
    }

    /// The latest calls, of one group or of all, the newest first: those under way and those that ended.
    pub(crate) fn latest(&self, group: Option<&str>, most: usize) -> Vec<LifeView> {
        let mut all = self.all();
        all.retain(|life| group.map_or_else(|| life.has_group(), |group| life.is_of(group)));
        all.sort_by_key(|life| std::cmp::Reverse(life.came()));
        let latest = all.iter().take(most);
        latest.map(|life| life.view(self.clock, false)).collect()
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls")
            .field("running", &self.running.len())
            .field("ended", &self.ended.len())
            .finish()
    }
}

// === impl LiveCall ===

impl LiveCall {
    /// With another end when it is dropped.
    pub(crate) fn ending_as(self, end: Ended) -> Self {
        let mut call = self;
        call.end = end;
        call
    }
}

impl std::ops::Deref for LiveCall {
    type Target = Arc<Life>;

    fn deref(&self) -> &Arc<Life> {
        &self.life
    }
}

impl Drop for LiveCall {
    fn drop(&mut self) {
        self.life.ends(self.end);
        self.journal.ended(self.number);
    }
}

#[cfg(test)]
mod tests {
    use vorrang_scheduler::Claim;

    use super::*;

    fn enters(life: &Life, group: &str) {
        life.enters(Entered {
            group: &group.into(),
            waits: &Arc::new(GroupWaits::new(Clock::started_now())),
            model: group,
            claim: Claim::default(),
            streamed: false,
        });
    }

    #[test]
    fn journal_keeps_calls_under_way_and_a_bounded_number_of_ended_ones() {
        let journal = Arc::new(Journal::new());
        let first = journal.begin("first", None);
        enters(&first, "g");
        for index in 0..ENDED + 5 {
            let call = journal.begin(&format!("c{index}"), Some("k"));
            enters(&call, "g");
        }
        assert_eq!(journal.calls().ended.len(), ENDED);
        assert!(journal.find("c4").is_none());
        assert!(journal.find("c5").is_some());
        assert!(journal.find("first").is_some());
        drop(first);
        assert_eq!(journal.running().len(), 0);
        assert!(journal.find("first").is_some());
    }

    #[test]
    fn call_without_a_group_is_not_kept_after_its_end() {
        let journal = Arc::new(Journal::new());
        drop(journal.begin("lost", None));
        assert!(journal.find("lost").is_none());
        assert_eq!(journal.calls().ended.len(), 0);
    }

    #[test]
    fn id_that_is_used_twice_finds_the_call_under_way() {
        let journal = Arc::new(Journal::new());
        let old = journal.begin("same", Some("old"));
        enters(&old, "g");
        let new = journal.begin("same", Some("new"));
        enters(&new, "g");
        drop(new);
        assert_eq!(journal.find("same").unwrap().key(), Some("old"));
        drop(old);
        assert_eq!(journal.latest(Some("g"), 9).len(), 2);
        assert!(journal.latest(Some("h"), 9).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn ticket_is_found_while_it_waits_and_known_to_have_left_afterwards() {
        let journal = Arc::new(Journal::new());
        let call = journal.begin("c", None);
        enters(&call, "g");
        call.queued(Some(Seq(7)), 3, None);
        assert!(journal.waiting("g", Seq(7)).is_some());
        assert!(journal.waiting("h", Seq(7)).is_none());
        assert_eq!(journal.has_left("g", Seq(7)), None);
        call.leaves(crate::WaitOutcome::Granted);
        assert!(journal.waiting("g", Seq(7)).is_none());
        assert_eq!(journal.has_left("g", Seq(7)), Some("it was granted".into()));
        assert_eq!(journal.has_left("g", Seq(8)), None);
        drop(call);
        assert_eq!(journal.has_left("g", Seq(7)), Some("it was granted".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn ticket_that_left_is_known_as_granted_cancelled_or_gone() {
        let journal = Arc::new(Journal::new());
        let [cancelled, gone] = [Seq(1), Seq(2)].map(|arrival| {
            let call = journal.begin("c", None);
            enters(&call, "g");
            call.queued(Some(arrival), 0, None);
            call
        });
        cancelled.cancels("a duplicate");
        cancelled.is_cancelled();
        cancelled.leaves(crate::WaitOutcome::Cancelled);
        gone.leaves(crate::WaitOutcome::TimedOut);
        drop((cancelled, gone));
        let left = |arrival| journal.has_left("g", Seq(arrival)).unwrap();
        assert_eq!(left(1), "it was cancelled (a duplicate)");
        assert_eq!(left(2), "it has left the queue without a grant");
    }
}
