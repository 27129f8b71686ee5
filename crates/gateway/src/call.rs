//! What goes into a [`Router`](crate::Router), and what it reports of a call.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use vorrang_scheduler::{Claim, Numbers};

use crate::{
    Endpoint, Place, UpstreamCall, UpstreamEvents,
    provider::{anthropic, forwarded},
};

/// Longer times mean "for ever": the clock's arithmetic stays far from its ends.
pub(crate) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What the caller's key says about its calls.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeyPolicy {
    /// The key's name, never the key.
    pub name: String,
    /// It may use the admin API.
    pub admin: bool,
    /// Priority where the request names none.
    pub default_priority: Option<i32>,
    /// No call gets a better (lower) priority than this: it is clamped, not refused.
    pub best_priority: Option<i32>,
    /// The model names (or aliases) it may call, with at most one `*` in each; `None`: all.
    pub models: Option<Vec<String>>,
    /// The weight of its tenants in groups with fair shares: how much service relative to weight 1; `None`: 1.
    pub weight: Option<f64>,
    /// At most this many of its requests wait on one instance.
    pub max_waiting: Option<u64>,
    /// What the bodies of its waiting requests may take together, bytes; `None`: half of what all may.
    pub max_waiting_body_bytes: Option<usize>,
}

impl KeyPolicy {
    /// Whether it may call `group` by the name `model`: a group's name allows its aliases, too, and a name with `*` all that it
    /// stands for.
    pub(crate) fn allows(&self, model: &str, group: &str) -> bool {
        let allows = |name: &String| {
            name == model
                || name == group
                || name.split_once('*').is_some_and(|(start, end)| {
                    let rest = model.strip_prefix(start);
                    rest.is_some_and(|rest| rest.ends_with(end))
                })
        };
        self.models
            .as_ref()
            .is_none_or(|models| models.iter().any(allows))
    }

    pub(crate) fn weight(&self) -> f64 {
        self.weight.unwrap_or(1.0)
    }
}

/// A setting that a caller may give beside the body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Setting<T> {
    /// It is not given.
    #[default]
    Unset,
    /// It is given.
    Set(T),
    /// It is given, but not readable: the call is refused, unless its body gives the setting, too.
    Invalid,
}

impl<T> From<Option<T>> for Setting<T> {
    fn from(parsed: Option<T>) -> Self {
        parsed.map_or(Self::Invalid, Self::Set)
    }
}

impl Setting<i32> {
    /// A priority as text.
    pub fn priority(text: &str) -> Self {
        text.trim().parse().ok().into()
    }
}

impl Setting<u32> {
    /// A number of retries as text.
    pub fn count(text: &str) -> Self {
        text.trim().parse().ok().into()
    }
}

impl Setting<Duration> {
    /// A time in seconds as text, fractions allowed, above 0.
    pub fn seconds(text: &str) -> Self {
        seconds(text).into()
    }
}

/// A time in seconds, above 0 and not longer than [`LONGEST`].
pub(crate) fn seconds(text: &str) -> Option<Duration> {
    let seconds = text.trim().parse::<f64>().ok();
    let seconds = seconds.filter(|seconds| *seconds > 0.0)?;
    let time = Duration::try_from_secs_f64(seconds.min(LONGEST.as_secs_f64())).ok();
    time.filter(|time| !time.is_zero())
}

/// One request as it came in.
#[derive(Debug, Clone)]
pub struct Call {
    /// Which API it is.
    pub endpoint: Endpoint,
    /// The model; it comes before the body's.
    pub model: Option<String>,
    /// The body as it was sent: JSON, or a form where the endpoint takes one.
    pub body: Bytes,
    /// The body's `content-type`: a form's has its boundary.
    pub content_type: Option<HeaderValue>,
    /// Its priority, where the body names none.
    pub priority: Setting<i32>,
    /// Its time, where the body names none.
    pub timeout: Setting<Duration>,
    /// Attempts in a group after the first, where the body does not say.
    pub num_retries: Setting<u32>,
    /// One attempt of a streamed call, where the body does not say.
    pub stream_timeout: Setting<Duration>,
    /// The content codings that the answer's bytes may have, as a list like `gzip, br;q=0.5`; `None`: none.
    pub codings: Option<String>,
    /// `anthropic-version` and `anthropic-beta` of the client: upstreams that speak Anthropic's format get them.
    pub anthropic_headers: HeaderMap,
    /// Headers of the client for upstreams of groups that pass them on ([`Call::pass_headers`]).
    pub passed_headers: HeaderMap,
    /// Values that say whose share of a group it takes from: under `fair_by: header:NAME` the value of `name`, in lower case.
    pub labels: HashMap<String, Bytes>,
    /// Whether the body must carry a priority (`/queue/chat/completions`).
    pub priority_required: bool,
    /// The caller's key, where keys are configured.
    pub key: Option<KeyPolicy>,
    /// Identifies the call in answers and logs.
    pub call_id: String,
    /// What messages call the operation, for example `/chat/completions`.
    pub operation: String,
    /// Receives what happens, for metrics.
    pub events: Arc<dyn Events>,
}

impl Call {
    /// A call with nothing but its body: what most users of the SDK need. Other fields are set as in `Call { key, ..Call::new(..) }`.
    pub fn new(endpoint: Endpoint, body: impl Into<Bytes>) -> Self {
        Self::named(uuid::Uuid::new_v4().to_string(), endpoint, body)
    }

    /// The same under an id of the caller's.
    pub fn named(call_id: impl Into<String>, endpoint: Endpoint, body: impl Into<Bytes>) -> Self {
        Self {
            endpoint,
            model: None,
            body: body.into(),
            content_type: None,
            priority: Setting::Unset,
            timeout: Setting::Unset,
            num_retries: Setting::Unset,
            stream_timeout: Setting::Unset,
            codings: None,
            anthropic_headers: HeaderMap::new(),
            passed_headers: HeaderMap::new(),
            labels: HashMap::new(),
            priority_required: false,
            key: None,
            call_id: call_id.into(),
            operation: endpoint.path().into(),
            events: Arc::new(NoEvents),
        }
    }

    /// Takes what an upstream may get of a client's headers.
    pub fn take_headers(&mut self, headers: &HeaderMap) {
        self.anthropic_headers = anthropic::of_client(headers);
    }

    /// Takes what groups with `forward_client_headers_to_llm_api` pass on of a client's headers: never a credential.
    pub fn pass_headers(&mut self, headers: &HeaderMap) {
        self.passed_headers = forwarded::of_client(headers);
    }
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitOutcome {
    /// A permit was granted.
    Granted,
    /// The request's time was up.
    TimedOut,
    /// The client left.
    Gone,
    /// The cost is above every deployment's limits.
    NeverFits,
    /// The queue was at its depth cap, or the key had `max_waiting` requests in it.
    QueueFull,
    /// The wait would surely have been longer than the request's time.
    TooLate,
    /// The process was short of room, and this was the worst of its waiting calls.
    TurnedAway,
    /// Every deployment cools because of a 401, 402 or 404; or for any reason, and a fallback takes over.
    Cooling,
    /// It left for the queue of another group (`spill`).
    Spilled,
    /// An operator cancelled it.
    Cancelled,
    /// The instance is shutting down.
    Closed,
}

impl WaitOutcome {
    /// A short stable word for a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::TimedOut => "timed_out",
            Self::Gone => "gone",
            Self::NeverFits => "never_fits",
            Self::QueueFull => "queue_full",
            Self::TooLate => "too_late",
            Self::TurnedAway => "turned_away",
            Self::Cooling => "cooling",
            Self::Spilled => "spilled",
            Self::Cancelled => "cancelled",
            Self::Closed => "closed",
        }
    }
}

/// Why a call goes on in another group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FallbackReason {
    /// The attempts in its group failed.
    Failure,
    /// Every deployment of its group cools.
    Cooling,
    /// It is too long for the model, or for every limit of the group.
    ContextWindow,
    /// The provider's content policy refuses it.
    ContentPolicy,
}

impl FallbackReason {
    /// A short stable word for a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Cooling => "cooling",
            Self::ContextWindow => "context_window",
            Self::ContentPolicy => "content_policy",
        }
    }
}

/// What a streamed call is doing whose answer has not begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// It may yet be refused without a wait; or the call is not streamed.
    #[default]
    Checking,
    /// It waits in the queue, and where is not known: its backend has not answered yet.
    Entering,
    /// It waits in the queue.
    Queued {
        /// How many were surely before it when it entered.
        ahead: u64,
        /// How long it surely waits from then on; `None`: its group or its key is paused.
        least_wait: Option<Duration>,
    },
    /// Its upstream call is made.
    Calling,
    /// The upstream has begun an event stream and sent no event yet.
    Silent {
        /// How often a comment is to be written meanwhile; zero: never.
        keepalive: Duration,
    },
}

/// What a call asks of the queue that it enters.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Joined {
    /// Its priority, the tokens that are reserved for it, and its tenant's share.
    pub claim: Claim,
    /// The priority that the request itself names; `None`: it names none.
    pub asked_priority: Option<i32>,
    /// The time that the call has had from its beginning on.
    pub timeout: Duration,
    /// How much of it is left.
    pub left: Duration,
    /// It asks for an event stream.
    pub streamed: bool,
    /// An attempt in this group has failed before: the ticket enters again.
    pub again: bool,
}

impl Joined {
    /// A call that has just come and names no priority itself.
    pub fn new(claim: Claim, timeout: Duration) -> Self {
        Self {
            claim,
            asked_priority: None,
            timeout,
            left: timeout,
            streamed: false,
            again: false,
        }
    }
}

/// Receives events of a call, for metrics. All methods do nothing unless overridden.
pub trait Events: Send + Sync + std::fmt::Debug {
    /// It enters the queue of `group`; [`Events::waited`] follows when that wait ends. A call that is retried enters once per attempt.
    fn joined(&self, _group: &str, _joined: &Joined) {}
    /// An upstream call's answer began, or it failed: `status` is the answer's or its error's, 0 where there was none. `latency` is until then.
    fn upstream(&self, _group: &str, _deployment: &str, _status: u16, _latency: Duration) {}
    /// An upstream call is about to be made. What is returned receives what becomes of it.
    fn calls_upstream(&self, _call: &UpstreamCall<'_>) -> Option<Box<dyn UpstreamEvents>> {
        None
    }
    /// One wait in the queue ended. A call that is retried waits once per attempt; `waited` is this wait alone.
    fn waited(&self, _group: &str, _priority: i32, _waited: Duration, _outcome: WaitOutcome) {}
    /// A call that `group` could not serve goes on in the group `to`.
    fn fell_back(&self, _group: &str, _to: &str, _reason: FallbackReason) {}
    /// A call has left the queue of `group` for that of the group `to`.
    fn spilled(&self, _group: &str, _to: &str) {}
    /// It has entered the queue of `group` and waits: `ahead` were surely before it, and it surely waits for `least_wait`. A call that
    /// is retried may wait again; one that goes at once does not.
    fn queued(&self, _group: &str, _priority: i32, _ahead: u64, _least_wait: Duration) {}
    /// A streamed call waits in a queue: where it can be asked for its present place.
    fn waits_at(&self, _place: &Place) {}
    /// A streamed call whose answer has not begun does something else now.
    fn stage(&self, _stage: Stage) {}
}

/// Ignores all events.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvents;

impl Events for NoEvents {}

/// What is known of a call, for the access line and the answer's headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallInfo {
    /// The group's name (aliases resolved); empty where the model is unknown.
    pub group: String,
    /// Whether it asked for an event stream.
    pub streamed: bool,
    /// The effective priority.
    pub priority: i32,
    /// Whether a priority came with the request, its key, its group or the router's default.
    pub prioritized: bool,
    /// Time in the queue, over all attempts.
    pub waited: Duration,
    /// Its position when it came into the queue, 1 for the head; where its time was up, its last. `None` where it went at once.
    pub position: Option<u64>,
    /// How long it was surely to wait then; `None` where it went at once, and while its group or its key is paused.
    pub least_wait: Option<Duration>,
    /// Id of the deployment of the last attempt; empty where there was none.
    pub deployment: String,
    /// Upstream attempts made, in all groups.
    pub attempts: u32,
    /// Those of them that repeated one in the same group.
    pub retries: u32,
    /// How often another group took it over.
    pub fallbacks: u32,
    /// The group that it was sent to, where another took it over.
    pub fallback_from: Option<String>,
    /// The group whose queue it left because the wait was too long.
    pub spilled_from: Option<String>,
    /// How often a comment is to be written into an event stream that is silent; zero: never.
    pub keepalive: Duration,
    /// Numbers of the last grant.
    pub numbers: Option<Numbers>,
}
