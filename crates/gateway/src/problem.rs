//! What went wrong with a call, and whose side it was on.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::{Endpoint, FallbackReason, router::chain::reason};

/// What went wrong. Each variant knows its side: the client's, ours, the backend's or the upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The client's own mistake (400).
    #[error("{message}")]
    Invalid {
        /// For the client.
        message: String,
        /// The field at fault.
        param: Option<&'static str>,
    },
    /// The caller's key does not allow the model (403).
    #[error(
        "key not allowed to access model. This key can only access models={allowed:?}. Tried to access {model}"
    )]
    ModelNotAllowed {
        /// What was asked for.
        model: String,
        /// What the key may call.
        allowed: Vec<String>,
    },
    /// The cost is above every deployment's limits (400).
    #[error("{message}")]
    NeverFits {
        /// For the client.
        message: String,
    },
    /// The request's time was up while it waited (408). A retry would lose its position.
    #[error("{message}")]
    TimedOutWaiting {
        /// For the client: LiteLLM's words, and what the queue waits for.
        message: String,
    },
    /// The time was up during an upstream call (408).
    #[error("Request timed out: {group} did not answer within {} seconds", after.as_secs_f32())]
    TimedOutCalling {
        /// The group.
        group: String,
        /// The time that was allowed.
        after: Duration,
    },
    /// The request's time was up, and Redis has not answered for longer than the lease (503).
    #[error("Redis has not answered for {} s: nothing can be granted until it does", silent_for.as_secs())]
    BackendSilent {
        /// How long it has been silent.
        silent_for: Duration,
    },
    /// The request's time was up, and Redis answers, but refuses what the queue needs (503).
    #[error(
        "Redis refuses the queue's commands ({cause}): nothing can be granted until it takes them"
    )]
    BackendRefuses {
        /// Why, without Redis' own words.
        cause: &'static str,
    },
    /// The request's time was up while the group's state in Redis was not there or was being made anew (503).
    #[error("The queue's state in Redis is being restored: nothing can be granted until it is")]
    BackendRecovering,
    /// The queue is at its depth cap (429).
    #[error("No deployments available for selected model, Try again in {} seconds. The queue of {group} is full.", seconds(*retry_after))]
    QueueFull {
        /// The group.
        group: String,
        /// When its queue as it stands will have been served.
        retry_after: Duration,
    },
    /// So many requests of its key wait on this instance (429).
    #[error("No deployments available for selected model, Try again in {} seconds. {most} requests of this key are waiting already, as many as may.", seconds(*retry_after))]
    KeyQueueFull {
        /// As many as may.
        most: u64,
        /// When the queue as it stands will have been served.
        retry_after: Duration,
    },
    /// The wait is surely longer than the request's time (429).
    #[error("No deployments available for selected model, Try again in {} seconds. The wait in the queue of {group} is at least {} seconds, longer than the request's timeout.", seconds(*retry_after), least.as_secs())]
    TooLate {
        /// The group.
        group: String,
        /// How long it surely is.
        least: Duration,
        /// When a request with the same timeout will be served, if no other request comes.
        retry_after: Duration,
    },
    /// This instance has no room for so many calls, and this was the worst of those that waited (429).
    #[error("No deployments available for selected model, Try again in {} seconds. This instance has no room for more waiting requests.", seconds(*retry_after))]
    TurnedAway {
        /// When the queue as it stands will have been served.
        retry_after: Duration,
    },
    /// An operator has cancelled it while it waited (409).
    #[error("Request cancelled by an operator while it waited: {reason}")]
    Cancelled {
        /// The operator's words.
        reason: String,
    },
    /// This instance is shutting down (503).
    #[error("This instance is shutting down")]
    Closed,
    /// Every deployment cools because of an upstream's 401 or 404 (that status).
    #[error("Every deployment of {group} is cooling down after an upstream {}", status.as_u16())]
    Cooling {
        /// The group.
        group: String,
        /// The upstream's status.
        status: StatusCode,
    },
    /// Every deployment cools, and no fallback could serve the request either (429).
    #[error("No deployments available for selected model, Try again in {} seconds. Every deployment of {group} is cooling down after failures.", seconds(*retry_after))]
    AllCooling {
        /// The group.
        group: String,
        /// When the first cooldown ends.
        retry_after: Duration,
    },
    /// Every deployment cools because its quota is exhausted (429).
    #[error("The quota of every deployment of {group} is exhausted")]
    Exhausted {
        /// The group.
        group: String,
    },
    /// The upstream answered with an error, in its status or inside of an answer (its status).
    #[error("{message}")]
    Upstream {
        /// The upstream's.
        status: StatusCode,
        /// For the client, where the upstream sent no error object.
        message: String,
        /// The upstream's own JSON error object.
        body: Option<Bytes>,
        /// How long the upstream asked to wait; for a 429 that does not say, its deployment's cooldown.
        retry_after: Option<Duration>,
        /// The upstream's `x-should-retry`; no, where a quota is exhausted.
        should_retry: Option<bool>,
    },
    /// The upstream could not be reached, broke off before its answer began, or sent what is no answer (502).
    #[error("{message}")]
    Unreachable {
        /// For the client.
        message: String,
    },
}

/// Kinds of errors, as OpenAI's and LiteLLM's clients tell them apart by `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong, or can never be served.
    InvalidRequest,
    /// The key does not allow the model.
    ModelAccessDenied,
    /// The upstream refuses the deployment's key.
    Authentication,
    /// The request's time is over.
    Timeout,
    /// Too many requests.
    Throttling,
    /// A quota is used up.
    InsufficientQuota,
    /// An operator has cancelled the request.
    Cancelled,
    /// This instance, or what it depends on, cannot serve now.
    ServiceUnavailable,
    /// The upstream failed.
    InternalServer,
}

impl ErrorKind {
    /// The error's `type` on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request_error",
            Self::ModelAccessDenied => "key_model_access_denied",
            Self::Authentication => "auth_error",
            Self::Timeout => "timeout_error",
            Self::Throttling => "throttling_error",
            Self::InsufficientQuota => "insufficient_quota",
            Self::Cancelled => "cancelled_error",
            Self::ServiceUnavailable => "service_unavailable_error",
            Self::InternalServer => "internal_server_error",
        }
    }
}

impl std::fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Problem {
    pub(crate) fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid {
            message: message.into(),
            param: Some(param),
        }
    }

    /// The group's deployments have no such endpoint.
    pub(crate) fn no_endpoint(group: &str, endpoint: Endpoint, why: &str) -> Self {
        let path = endpoint.path();
        Self::invalid("model", format!("{path}: {group} {why}"))
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Invalid { .. } | Self::NeverFits { .. } => StatusCode::BAD_REQUEST,
            Self::ModelNotAllowed { .. } => StatusCode::FORBIDDEN,
            Self::TimedOutWaiting { .. } | Self::TimedOutCalling { .. } => {
                StatusCode::REQUEST_TIMEOUT
            }
            Self::Cancelled { .. } => StatusCode::CONFLICT,
            Self::BackendSilent { .. }
            | Self::BackendRefuses { .. }
            | Self::BackendRecovering
            | Self::Closed => StatusCode::SERVICE_UNAVAILABLE,
            Self::QueueFull { .. }
            | Self::KeyQueueFull { .. }
            | Self::TooLate { .. }
            | Self::TurnedAway { .. }
            | Self::AllCooling { .. }
            | Self::Exhausted { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Cooling { status, .. } | Self::Upstream { status, .. } => *status,
            Self::Unreachable { .. } => StatusCode::BAD_GATEWAY,
        }
    }

    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } | Self::NeverFits { .. } => ErrorKind::InvalidRequest,
            Self::ModelNotAllowed { .. } => ErrorKind::ModelAccessDenied,
            Self::TimedOutWaiting { .. } | Self::TimedOutCalling { .. } => ErrorKind::Timeout,
            Self::Cancelled { .. } => ErrorKind::Cancelled,
            Self::BackendSilent { .. }
            | Self::BackendRefuses { .. }
            | Self::BackendRecovering
            | Self::Closed => ErrorKind::ServiceUnavailable,
            Self::QueueFull { .. }
            | Self::KeyQueueFull { .. }
            | Self::TooLate { .. }
            | Self::AllCooling { .. }
            | Self::TurnedAway { .. } => ErrorKind::Throttling,
            Self::Exhausted { .. } => ErrorKind::InsufficientQuota,
            Self::Unreachable { .. } => ErrorKind::InternalServer,
            Self::Cooling { status, .. } | Self::Upstream { status, .. } => match status.as_u16() {
                401 => ErrorKind::Authentication,
                408 => ErrorKind::Timeout,
                429 => ErrorKind::Throttling,
                503 => ErrorKind::ServiceUnavailable,
                400..=499 => ErrorKind::InvalidRequest,
                _ => ErrorKind::InternalServer,
            },
        }
    }

    /// Why another model may take the request: it is too long for this one, or against its provider's policy; else `None`.
    pub fn refusal(&self) -> Option<FallbackReason> {
        match (self, reason(self)?) {
            (
                Self::Upstream { .. },
                refusal @ (FallbackReason::ContextWindow | FallbackReason::ContentPolicy),
            ) => Some(refusal),
            _ => None,
        }
    }

    /// The field at fault, where there is one.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::Invalid { param, .. } => *param,
            Self::ModelNotAllowed { .. } => Some("model"),
            _ => None,
        }
    }

    /// When it makes sense to come back.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::QueueFull { retry_after, .. }
            | Self::KeyQueueFull { retry_after, .. }
            | Self::TooLate { retry_after, .. }
            | Self::AllCooling { retry_after, .. }
            | Self::TurnedAway { retry_after } => Some(*retry_after),
            Self::Upstream { retry_after, .. } => *retry_after,
            // Another instance takes it at once.
            Self::Closed
            | Self::BackendSilent { .. }
            | Self::BackendRefuses { .. }
            | Self::BackendRecovering => Some(Duration::from_secs(1)),
            _ => None,
        }
        .map(|time| Duration::from_secs(seconds(time)))
    }
}

/// Whole seconds, at least one, rounded up: a retry after that time is not too early.
fn seconds(time: Duration) -> u64 {
    time.as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0))
        .max(1)
}
