//! What is known of one request, for its line in the log and for metrics.

use std::{
    net::IpAddr,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use http::StatusCode;
use tokio::time::Instant;
use vorrang_gateway::{
    CallInfo, Endpoint, Events, FallbackReason, Joined, Place, Stage, UpstreamCall, UpstreamEvents,
    WaitOutcome,
};
use vorrang_scheduler::Tokens;

use crate::{
    connection::slots::CallSlot, metrics::Metrics, shadow::Shadowed, traces::RequestTrace,
    watched_call::WatchedCall,
};

/// What a request's line will say, filled in while the request is served. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Record(Arc<Recorded>);

#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) call_id: Box<str>,
    /// Where the request comes from; `None`: nobody says.
    pub(crate) client: Option<IpAddr>,
    pub(crate) metrics: Arc<Metrics>,
    known: Mutex<RequestFacts>,
    stage: Mutex<Staged>,
    pub(crate) came: Instant,
}

impl Deref for Record {
    type Target = Recorded;

    fn deref(&self) -> &Recorded {
        &self.0
    }
}

/// What a call whose answer has not begun is doing, and since when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Staged {
    pub(crate) stage: Stage,
    pub(crate) since: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct RequestFacts {
    pub(crate) key: Option<String>,
    /// What is called, where that is a model.
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) group: Option<String>,
    pub(crate) priority: Option<i32>,
    pub(crate) waited: Option<Duration>,
    pub(crate) deployment: Option<String>,
    pub(crate) attempts: Option<u32>,
    /// What it asked of the first queue that it entered.
    pub(crate) joined: Option<Joined>,
    /// How long its upstream calls took together, and what the last of them used.
    pub(crate) called: Option<Duration>,
    pub(crate) used: Option<Tokens>,
    /// How often another group took it over, the group that it was sent to then, and the group whose queue it left.
    pub(crate) fallbacks: Option<u32>,
    pub(crate) fallback_from: Option<String>,
    pub(crate) spilled_from: Option<String>,
    /// Status of an error that was sent as an event, when the answer's status was out.
    pub(crate) stream_error: Option<StatusCode>,
    pub(crate) slot: Option<Weak<CallSlot>>,
    /// What the shadow knows of its latest wait.
    pub(crate) shadowed: Option<Shadowed>,
    /// Where traces are sent.
    pub(crate) trace: Option<Arc<RequestTrace>>,
    /// Where a waiting call can be asked for its place.
    pub(crate) place: Option<Place>,
}

// === impl Record ===

impl Record {
    pub(crate) fn new(call_id: Box<str>, client: Option<IpAddr>, metrics: Arc<Metrics>) -> Self {
        let stage = Stage::Checking;
        let since = Instant::now();
        Self(Arc::new(Recorded {
            call_id,
            client,
            metrics,
            known: Mutex::default(),
            stage: Mutex::new(Staged { stage, since }),
            came: since,
        }))
    }
}

impl Recorded {
    pub(crate) fn known(&self) -> MutexGuard<'_, RequestFacts> {
        // A panic between two assignments leaves nothing worse than a line that says less.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of the caller's key, never the key.
    pub(crate) fn key(&self, name: &str) {
        self.known().key = Some(name.into());
    }

    /// A model is called.
    pub(crate) fn endpoint(&self, endpoint: Endpoint) {
        self.known().endpoint = Some(endpoint);
    }

    /// What the call is doing until its answer begins. It only changes while the call is polled.
    pub(crate) fn staged(&self) -> Staged {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a waiting call can be asked for its place.
    pub(crate) fn place(&self) -> Option<Place> {
        self.known().place.clone()
    }

    /// An error was sent as an event of a stream that had begun with a 200.
    pub(crate) fn failed_in_stream(&self, status: StatusCode) {
        self.known().stream_error = Some(status);
    }

    /// The call's slot, which learns of its grant.
    pub(crate) fn slot(&self, slot: &Arc<CallSlot>) {
        self.known().slot = Some(Arc::downgrade(slot));
    }

    /// An upstream call is over, so long after its dispatch.
    pub(crate) fn called(&self, took: Duration, used: Option<Tokens>) {
        let mut known = self.known();
        known.called = Some(known.called.unwrap_or_default() + took);
        known.used = used;
        if let Some(shadowed) = known.shadowed.take() {
            shadowed.called(took, used);
        }
    }

    /// How the call went.
    pub(crate) fn call(&self, info: &CallInfo) {
        if info.group.is_empty() {
            return;
        }
        let mut known = self.known();
        keep(&mut known.group, &info.group);
        known.priority = Some(info.priority);
        known.waited = Some(info.waited);
        match &*info.deployment {
            "" => known.deployment = None,
            id => keep(&mut known.deployment, id),
        }
        known.attempts = Some(info.attempts);
        known.fallbacks = Some(info.fallbacks).filter(|count| *count > 0);
        known.fallback_from.clone_from(&info.fallback_from);
        known.spilled_from.clone_from(&info.spilled_from);
    }
}

/// Most of what is told was known before.
fn keep(known: &mut Option<String>, text: &str) {
    if known.as_deref() != Some(text) {
        *known = Some(text.to_owned());
    }
}

/// Events of a call go to the metrics, and here: the access line of a client that left has no other source.
impl Events for Record {
    fn joined(&self, group: &str, joined: &Joined) {
        let mut known = self.known();
        known.joined.get_or_insert(*joined);
        if let Some(shadow) = &*self.metrics.shadow.load() {
            known.shadowed = shadow.joined(group, known.key.as_deref(), joined);
        }
    }

    fn upstream(&self, group: &str, deployment: &str, status: u16, latency: Duration) {
        keep(&mut self.known().deployment, deployment);
        self.metrics.upstream(group, deployment, status, latency);
    }

    fn calls_upstream(&self, call: &UpstreamCall<'_>) -> Option<Box<dyn UpstreamEvents>> {
        Some(Box::new(WatchedCall::new(self, call)))
    }

    fn queued(&self, _: &str, _: i32, ahead: u64, least_wait: Duration) {
        if let Some(trace) = &self.known().trace {
            trace.queued(ahead, least_wait);
        }
    }

    fn waited(&self, group: &str, priority: i32, waited: Duration, outcome: WaitOutcome) {
        let slot = {
            let mut known = self.known();
            keep(&mut known.group, group);
            known.priority = Some(priority);
            known.waited = Some(known.waited.unwrap_or_default() + waited);
            if let Some(shadowed) = &mut known.shadowed {
                shadowed.waited(waited, outcome);
            }
            if let Some(trace) = &known.trace {
                trace.waited(group, priority, waited, outcome);
            }
            known.slot.as_ref().and_then(Weak::upgrade)
        };
        if let (Some(slot), WaitOutcome::Granted) = (slot, outcome) {
            slot.granted(priority);
        }
        self.metrics.waited(group, priority, waited, outcome);
    }

    fn fell_back(&self, group: &str, to: &str, reason: FallbackReason) {
        {
            let mut known = self.known();
            known.fallbacks = Some(known.fallbacks.unwrap_or_default() + 1);
            known.fallback_from.get_or_insert_with(|| group.into());
            if let Some(trace) = &known.trace {
                trace.fell_back(group, to, reason);
            }
        }
        self.metrics.fell_back(group, to, reason);
    }

    fn spilled(&self, group: &str, to: &str) {
        {
            let mut known = self.known();
            known.spilled_from = Some(group.into());
            if let Some(trace) = &known.trace {
                trace.spilled(group, to);
            }
        }
        self.metrics.spilled(group, to);
    }

    fn waits_at(&self, place: &Place) {
        self.known().place = Some(place.clone());
    }

    fn stage(&self, stage: Stage) {
        let since = Instant::now();
        let mut staged = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        *staged = Staged { stage, since };
    }
}
