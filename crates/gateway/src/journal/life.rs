//! What is known of one call, from its coming to its end.

mod shown;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::StatusCode;
use tokio::time::Instant;
use vorrang_scheduler::{Claim, Seq};

pub(crate) use self::shown::{LifeView, OpenCallView, TicketLabel, milliseconds};
use super::GroupWaits;
use crate::{FallbackReason, PriorityClass, WaitOutcome};

/// A call that is granted and expires over and over has no more events than this.
const MOST_EVENTS: usize = 64;

/// One call. Its lock is the call's own: only who looks at it may have to wait for it.
#[derive(Debug)]
pub(crate) struct Life {
    call_id: Box<str>,
    key: Option<Box<str>>,
    came: Instant,
    course: Mutex<Course>,
}

#[derive(Debug, Default)]
struct Course {
    group: Option<Arc<str>>,
    model: Box<str>,
    tenant: Option<Box<str>>,
    streamed: bool,
    claim: Claim,
    /// Of its ticket in the group.
    arrival: Option<Seq>,
    wait: Option<Wait>,
    last_wait: Option<WaitOutcome>,
    /// Over all waits that ended.
    waited: Duration,
    attempt: u32,
    deployment: Option<Arc<str>>,
    dispatched: Option<Instant>,
    first_token: Option<Instant>,
    /// Why an operator cancelled its ticket.
    cancelled: Option<Box<str>>,
    events: Vec<(Instant, Event)>,
    end: Option<(Instant, Ended)>,
}

/// It waits in the queue.
#[derive(Debug)]
struct Wait {
    waits: Arc<GroupWaits>,
    since: Instant,
}

/// What enters a group's queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entered<'a> {
    pub(crate) group: &'a Arc<str>,
    pub(crate) waits: &'a Arc<GroupWaits>,
    /// As the group was called.
    pub(crate) model: &'a str,
    pub(crate) claim: Claim,
    pub(crate) streamed: bool,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All of the answer has been fetched.
    Answered(StatusCode),
    /// There is no answer.
    Failed(StatusCode),
    /// The answer broke off.
    BrokenOff,
    /// The client left before that.
    ClientLeft,
    /// It was a permit for a call outside of the gateway, which has ended.
    Returned,
}

#[derive(Debug)]
enum Event {
    Queued {
        group: Arc<str>,
        arrival: Option<Seq>,
        ahead: u64,
        /// `None`: it was paused.
        least_wait: Option<Duration>,
    },
    Granted {
        group: Arc<str>,
        arrival: Option<Seq>,
        waited: Duration,
    },
    Attempt {
        deployment: Arc<str>,
        attempt: u32,
    },
    FirstToken,
    Failed {
        status: StatusCode,
    },
    Moved {
        from: i32,
        to: i32,
    },
    Cancelled {
        reason: Box<str>,
    },
    FellBack {
        from: Arc<str>,
        to: Arc<str>,
        reason: FallbackReason,
    },
    Spilled {
        from: Arc<str>,
        to: Arc<str>,
    },
}

// === impl Life ===

impl Life {
    pub(super) fn new(call_id: &str, key: Option<&str>) -> Self {
        Self {
            call_id: call_id.into(),
            key: key.map(Into::into),
            came: Instant::now(),
            course: Mutex::default(),
        }
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        // What is left by a panic between two assignments is only shown.
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn call_id(&self) -> &str {
        &self.call_id
    }

    #[cfg(test)]
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    pub(super) fn came(&self) -> Instant {
        self.came
    }

    pub(super) fn has_group(&self) -> bool {
        self.course().group.is_some()
    }

    /// Whether it is, or ended, in this group.
    pub(crate) fn is_of(&self, group: &str) -> bool {
        self.course().group.as_deref() == Some(group)
    }

    pub(super) fn waits_as(&self, group: &str, arrival: Seq) -> bool {
        let course = self.course();
        course.wait.is_some()
            && course.arrival == Some(arrival)
            && course.group.as_deref() == Some(group)
    }

    /// How its ticket of this group left, in words; `None`: there was none, or it still waits.
    pub(super) fn has_left(&self, group: &str, arrival: Seq) -> Option<String> {
        let of_it = |event: &Event| match event {
            Event::Queued {
                group: of,
                arrival: known,
                ..
            }
            | Event::Granted {
                group: of,
                arrival: known,
                ..
            } => **of == *group && *known == Some(arrival),
            _ => false,
        };
        if self.waits_as(group, arrival) {
            return None;
        }
        let course = self.course();
        let events = course.events.iter().map(|(_, event)| event);
        let mut of_it = events.clone().filter(|event| of_it(event)).peekable();
        of_it.peek()?;
        let granted = of_it.any(|event| matches!(event, Event::Granted { .. }));
        // A call whose ticket is cancelled enters no other queue.
        let last = course.arrival == Some(arrival) && course.group.as_deref() == Some(group);
        let cancelled = events.filter(|_| last).find_map(|event| match event {
            Event::Cancelled { reason } => Some(reason),
            _ => None,
        });
        Some(match cancelled {
            Some(reason) => format!("it was cancelled ({reason})"),
            None if granted => "it was granted".into(),
            None => "it has left the queue without a grant".into(),
        })
    }

    /// The group that it asks for is known; its priority, and whether it is streamed.
    pub(crate) fn asks_for(&self, group: &Arc<str>, model: &str, priority: i32, streamed: bool) {
        let mut course = self.course();
        course.group = Some(group.clone());
        course.model = model.into();
        course.claim.priority = priority;
        course.streamed = streamed;
    }

    /// It has entered the queue of a group, or enters it again.
    pub(crate) fn enters(&self, entered: Entered<'_>) {
        let mut course = self.course();
        if course.group.as_ref() != Some(entered.group) {
            course.group = Some(entered.group.clone());
            course.arrival = None;
        }
        if *course.model != *entered.model {
            course.model = entered.model.into();
        }
        course.streamed = entered.streamed;
        course.claim = entered.claim;
        (course.dispatched, course.first_token) = (None, None);
        let since = Instant::now();
        course.leave(WaitOutcome::Gone, since);
        let waits = entered.waits.clone();
        waits.entered(PriorityClass::of(entered.claim.priority), since);
        course.wait = Some(Wait { waits, since });
    }

    /// Whose share of the group it takes from.
    pub(crate) fn tenant(&self, name: String) {
        self.course().tenant = Some(name.into());
    }

    /// It waits, and so many were surely before it.
    pub(crate) fn queued(&self, arrival: Option<Seq>, ahead: u64, least_wait: Option<Duration>) {
        let mut course = self.course();
        course.arrival = arrival.or(course.arrival);
        if let Some(group) = course.group.clone() {
            let arrival = course.arrival;
            course.happened(Event::Queued {
                group,
                arrival,
                ahead,
                least_wait,
            });
        }
    }

    /// Its ticket's sequence number is known.
    pub(crate) fn arrived(&self, arrival: Seq) {
        self.course().arrival = Some(arrival);
    }

    /// It does not wait any more.
    pub(crate) fn leaves(&self, outcome: WaitOutcome) {
        self.course().leave(outcome, Instant::now());
    }

    /// The priority that it has now: an operator may have changed it.
    pub(crate) fn priority(&self) -> i32 {
        self.course().claim.priority
    }

    /// What it asks of its queue, and its place there, while it waits.
    pub(crate) fn place(&self) -> Option<(Arc<str>, Claim, Seq)> {
        let course = self.course();
        let waits = course.wait.is_some();
        let place = course.group.clone().zip(course.arrival);
        place
            .filter(|_| waits)
            .map(|(group, arrival)| (group, course.claim, arrival))
    }

    /// An operator gave its ticket another priority. The one that it had.
    pub(crate) fn moved(&self, priority: i32) -> i32 {
        let mut course = self.course();
        let from = course.claim.priority;
        course.claim.priority = priority;
        if let Some(wait) = &course.wait {
            let waits = wait.waits.clone();
            waits.moved(PriorityClass::of(from), PriorityClass::of(priority));
        }
        course.happened(Event::Moved { from, to: priority });
        from
    }

    /// An operator cancels its ticket. To be called before the ticket ends: its client is told why.
    pub(crate) fn cancels(&self, reason: &str) {
        self.course().cancelled = Some(reason.into());
    }

    /// Its ticket was cancelled: why.
    pub(crate) fn is_cancelled(&self) -> String {
        let mut course = self.course();
        let reason = course.cancelled.clone().unwrap_or_default();
        course.happened(Event::Cancelled {
            reason: reason.clone(),
        });
        reason.into()
    }

    /// Its upstream call is made.
    pub(crate) fn attempts(&self, deployment: &Arc<str>, attempt: u32) {
        let mut course = self.course();
        course.attempt = attempt;
        course.deployment = Some(deployment.clone());
        let now = Instant::now();
        course.dispatched = Some(now);
        let deployment = deployment.clone();
        let event = Event::Attempt {
            deployment,
            attempt,
        };
        course.happened_at(now, event);
    }

    /// Its answer has begun.
    pub(crate) fn begins(&self) {
        let mut course = self.course();
        let now = Instant::now();
        course.first_token = Some(now);
        course.happened_at(now, Event::FirstToken);
    }

    /// The attempt failed.
    pub(crate) fn fails(&self, status: StatusCode) {
        let mut course = self.course();
        course.dispatched = None;
        course.happened(Event::Failed { status });
    }

    /// Another group takes it over.
    pub(crate) fn falls_back(&self, from: &Arc<str>, to: &Arc<str>, reason: FallbackReason) {
        let (from, to) = (from.clone(), to.clone());
        self.course().happened(Event::FellBack { from, to, reason });
    }

    /// It leaves for another group's queue.
    pub(crate) fn spills(&self, from: &Arc<str>, to: &Arc<str>) {
        let (from, to) = (from.clone(), to.clone());
        self.course().happened(Event::Spilled { from, to });
    }

    /// It has ended, unless it had before.
    pub(crate) fn ends(&self, how: Ended) {
        let mut course = self.course();
        let now = Instant::now();
        course.leave(WaitOutcome::Gone, now);
        course.end.get_or_insert((now, how));
    }
}

impl Course {
    fn happened(&mut self, event: Event) {
        self.happened_at(Instant::now(), event);
    }

    fn happened_at(&mut self, now: Instant, event: Event) {
        if self.events.len() < MOST_EVENTS {
            self.events.push((now, event));
        }
    }

    fn leave(&mut self, outcome: WaitOutcome, now: Instant) {
        let Some(Wait { waits, since }) = self.wait.take() else {
            return;
        };
        let waited = now - since;
        self.waited += waited;
        self.last_wait = Some(outcome);
        let granted = outcome == WaitOutcome::Granted;
        let class = PriorityClass::of(self.claim.priority);
        waits.left(class, granted.then_some(waited), now);
        if let (true, Some(group)) = (granted, self.group.clone()) {
            let arrival = self.arrival;
            let event = Event::Granted {
                group,
                arrival,
                waited,
            };
            self.happened_at(now, event);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::journal::Clock;

    fn words(view: &LifeView) -> Vec<String> {
        let events = view.events.iter().flatten();
        events
            .map(|event| event["what"].as_str().unwrap().to_owned())
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn life_tells_each_stage_of_a_call_with_its_time() {
        let clock = Clock::started_now();
        let waits = Arc::new(GroupWaits::new(clock));
        let life = Life::new("c", Some("k"));
        let group: Arc<str> = "g".into();
        let claim = Claim::new(5, 70);
        let entered = Entered {
            group: &group,
            waits: &waits,
            model: "alias",
            claim,
            streamed: true,
        };
        life.enters(entered);
        life.queued(Some(Seq(9)), 2, Some(Duration::from_secs(3)));
        assert_eq!(life.view(clock, false).state, "waiting");
        assert_eq!(life.label("g").unwrap().arrival, 9);
        assert!(life.label("h").is_none());
        advance(Duration::from_secs(2)).await;
        life.moved(-1);
        assert_eq!(life.place().unwrap().1.priority, -1);
        life.leaves(WaitOutcome::Granted);
        assert!(life.place().is_none() && life.label("g").is_none());
        life.attempts(&"d".into(), 1);
        assert_eq!(life.view(clock, false).state, "calling");
        life.fails(StatusCode::BAD_GATEWAY);
        life.enters(Entered {
            claim: Claim::new(-1, 70),
            ..entered
        });
        life.leaves(WaitOutcome::Granted);
        life.attempts(&"e".into(), 2);
        advance(Duration::from_secs(1)).await;
        life.begins();
        let call = life.open_call().unwrap();
        assert_eq!(
            (call.first_token_ms, call.waited_ms, call.attempt),
            (Some(1000), 2000, 2)
        );
        assert_eq!(life.view(clock, false).state, "answering");
        life.ends(Ended::Answered(StatusCode::OK));
        life.ends(Ended::ClientLeft);
        let view = life.view(clock, true);
        assert_eq!(
            words(&view),
            [
                "came",
                "queued",
                "moved",
                "granted",
                "attempt",
                "failed",
                "granted",
                "attempt",
                "first_token",
                "ended"
            ]
        );
        assert_eq!(view.outcome.as_deref(), Some("answered"));
        assert_eq!((view.age_ms, view.priority), (3000, -1));
        assert!(life.open_call().is_none());
        // Both classes are empty again.
        let report = waits.report();
        assert!(report.classes.iter().all(|class| class.waiting == 0));
    }

    #[test]
    fn events_of_one_call_are_bounded_and_its_end_is_always_told() {
        let life = Life::new("c", None);
        for _ in 0..1000 {
            life.fails(StatusCode::BAD_GATEWAY);
        }
        life.ends(Ended::Failed(StatusCode::BAD_GATEWAY));
        let words = words(&life.view(Clock::started_now(), true));
        assert_eq!(words.len(), MOST_EVENTS + 2);
        assert_eq!(words.last().unwrap(), "ended");
    }
}
