//! How a call is shown to operators.

use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;
use vorrang_scheduler::Seq;

use super::{Course, Ended, Event, Life};
use crate::{WaitOutcome, journal::Clock};

/// A call as it is shown. A field that another version does not send has its default.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LifeView {
    pub(crate) call_id: String,
    pub(crate) group: String,
    pub(crate) key: Option<String>,
    pub(crate) model: String,
    pub(crate) priority: i32,
    pub(crate) tokens: u64,
    pub(crate) streamed: bool,
    pub(crate) instance: String,
    pub(crate) came_unix_ms: u64,
    pub(crate) waited_ms: u64,
    /// Since it came; once it has ended, until then.
    pub(crate) age_ms: u64,
    pub(crate) state: String,
    pub(crate) outcome: Option<String>,
    pub(crate) status: Option<u16>,
    pub(crate) deployment: Option<String>,
    pub(crate) attempts: u32,
    pub(crate) ticket: Option<String>,
    pub(crate) position: Option<u64>,
    pub(crate) least_wait_ms: Option<u64>,
    /// It waits, and not in the queue, because its key is paused.
    pub(crate) held: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) events: Option<Vec<Value>>,
}

/// An open call as it is shown.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct OpenCallView {
    pub(crate) call_id: String,
    pub(crate) key: Option<String>,
    pub(crate) priority: i32,
    pub(crate) instance: String,
    pub(crate) deployment: Option<String>,
    pub(crate) waited_ms: u64,
    pub(crate) running_ms: u64,
    pub(crate) attempt: u32,
    pub(crate) first_token_ms: Option<u64>,
    pub(crate) streamed: bool,
}

/// What only its instance knows of a ticket.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TicketLabel {
    pub(crate) arrival: u64,
    /// Since the call came.
    pub(crate) age_ms: Option<u64>,
    pub(crate) call_id: String,
    pub(crate) key: Option<String>,
    pub(crate) model: String,
    pub(crate) tenant: Option<String>,
}

pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Life {
    /// How it is shown; its instance and position are filled in by others.
    pub(crate) fn view(&self, clock: Clock, with_events: bool) -> LifeView {
        let course = self.course();
        let now = Instant::now();
        let end = course.end.map_or(now, |(at, _)| at);
        let waits = course.wait.as_ref().map(|wait| now - wait.since);
        let (outcome, status) = match course.end {
            Some((_, how)) => {
                let (outcome, status) = course.outcome(how);
                (Some(outcome.to_owned()), status)
            }
            None => (None, None),
        };
        let state = match (
            &course.end,
            &course.wait,
            course.dispatched,
            course.first_token,
        ) {
            (Some(_), ..) => "ended",
            (_, _, Some(_), Some(_)) => "answering",
            (_, None, Some(_), _) => "calling",
            _ => "waiting",
        };
        LifeView {
            call_id: self.call_id.to_string(),
            group: course.group.as_deref().unwrap_or_default().to_owned(),
            key: self.key.as_deref().map(Into::into),
            model: course.model.to_string(),
            priority: course.claim.priority,
            tokens: course.claim.tokens.total(),
            streamed: course.streamed,
            instance: String::new(),
            came_unix_ms: milliseconds(clock.unix(self.came)),
            waited_ms: milliseconds(course.waited + waits.unwrap_or_default()),
            age_ms: milliseconds(end - self.came),
            state: state.to_owned(),
            outcome,
            status: status.map(|status| status.as_u16()),
            deployment: course.deployment.as_deref().map(Into::into),
            attempts: course.attempt,
            ticket: course.arrival.map(|arrival| arrival.to_string()),
            position: None,
            held: false,
            least_wait_ms: None,
            events: with_events.then(|| course.shown_events(self.came)),
        }
    }

    /// How it is shown among open calls; `None`: it is none.
    pub(crate) fn open_call(&self) -> Option<OpenCallView> {
        let course = self.course();
        let dispatched = course.dispatched.filter(|_| course.end.is_none())?;
        let begun = course.first_token;
        Some(OpenCallView {
            call_id: self.call_id.to_string(),
            key: self.key.as_deref().map(Into::into),
            priority: course.claim.priority,
            instance: String::new(),
            deployment: course.deployment.as_deref().map(Into::into),
            waited_ms: milliseconds(course.waited),
            running_ms: milliseconds(dispatched.elapsed()),
            attempt: course.attempt,
            first_token_ms: begun.map(|at| milliseconds(at - dispatched)),
            streamed: course.streamed,
        })
    }

    /// What a list of tickets shows of it, while it waits in this group.
    pub(crate) fn label(&self, group: &str) -> Option<TicketLabel> {
        let course = self.course();
        let arrival = course.arrival.filter(|_| course.wait.is_some())?;
        (course.group.as_deref() == Some(group)).then(|| TicketLabel {
            arrival: arrival.0,
            age_ms: Some(milliseconds(self.came.elapsed())),
            call_id: self.call_id.to_string(),
            key: self.key.as_deref().map(Into::into),
            model: course.model.to_string(),
            tenant: course.tenant.as_deref().map(Into::into),
        })
    }
}

impl Course {
    /// The outcome in a word, and the status of its answer.
    fn outcome(&self, how: Ended) -> (&'static str, Option<StatusCode>) {
        match how {
            Ended::Answered(status) => ("answered", Some(status)),
            Ended::BrokenOff => ("broken_off", None),
            Ended::ClientLeft => ("client_left", None),
            Ended::Returned => ("returned", None),
            Ended::Failed(status) => {
                let word = match self.last_wait {
                    Some(WaitOutcome::Granted) | None => "failed",
                    Some(refused) => refused.as_str(),
                };
                (word, Some(status))
            }
        }
    }

    fn shown_events(&self, came: Instant) -> Vec<Value> {
        let at = |time: Instant, what: &str, mut details: Value| {
            details["at_ms"] = milliseconds(time.saturating_duration_since(came)).into();
            details["what"] = what.into();
            details
        };
        let mut shown = vec![at(came, "came", json!({}))];
        shown.extend(self.events.iter().map(|(time, event)| {
            let (what, details) = event.shown();
            at(*time, what, details)
        }));
        if let Some((time, how)) = self.end {
            let (outcome, status) = self.outcome(how);
            let status = status.map(|status| status.as_u16());
            let details = json!({"outcome": outcome, "status": status});
            shown.push(at(time, "ended", details));
        }
        shown
    }
}

impl Event {
    fn shown(&self) -> (&'static str, Value) {
        let digits = |arrival: &Option<Seq>| arrival.map(|arrival| arrival.to_string());
        match self {
            Self::Queued {
                group,
                arrival,
                ahead,
                least_wait,
            } => (
                "queued",
                json!({"group": **group, "ticket": digits(arrival), "ahead": ahead,
                    "least_wait_ms": least_wait.map(milliseconds)}),
            ),
            Self::Granted {
                group,
                arrival,
                waited,
            } => (
                "granted",
                json!({"group": **group, "ticket": digits(arrival), "waited_ms": milliseconds(*waited)}),
            ),
            Self::Attempt {
                deployment,
                attempt,
            } => (
                "attempt",
                json!({"deployment": **deployment, "attempt": attempt}),
            ),
            Self::FirstToken => ("first_token", json!({})),
            Self::Failed { status } => ("failed", json!({"status": status.as_u16()})),
            Self::Moved { from, to } => ("moved", json!({"from": from, "priority": to})),
            Self::Cancelled { reason } => ("cancelled", json!({"reason": **reason})),
            Self::FellBack { from, to, reason } => (
                "fell_back",
                json!({"from": **from, "to": **to, "reason": reason.as_str()}),
            ),
            Self::Spilled { from, to } => ("spilled", json!({"from": **from, "to": **to})),
        }
    }
}
