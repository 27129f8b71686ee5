//! Why a call was not answered, in the shape OpenAI's and LiteLLM's clients know.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;

use crate::{CallInfo, call_headers};

/// A failed call: the problem, and what was known of the call by then.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{problem}")]
pub struct CallError {
    /// What went wrong.
    pub problem: Problem,
    /// For the access line and the answer's headers.
    pub info: Box<CallInfo>,
    /// Identifies the call in the answer's headers.
    pub call_id: String,
}

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
    /// The request's time was up while it waited (408). Retrying would lose its place.
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
        /// When a request as patient as this one will be served, if nobody else comes.
        retry_after: Duration,
    },
    /// This instance has no room for so many calls, and this was the worst of those that waited (429).
    #[error("No deployments available for selected model, Try again in {} seconds. This instance has no room for more waiting requests.", seconds(*retry_after))]
    TurnedAway {
        /// When the queue as it stands will have been served.
        retry_after: Duration,
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

impl Problem {
    pub(crate) fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid {
            message: message.into(),
            param: Some(param),
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Invalid { .. } | Self::NeverFits { .. } => StatusCode::BAD_REQUEST,
            Self::ModelNotAllowed { .. } => StatusCode::FORBIDDEN,
            Self::TimedOutWaiting { .. } | Self::TimedOutCalling { .. } => {
                StatusCode::REQUEST_TIMEOUT
            }
            Self::BackendSilent { .. }
            | Self::BackendRefuses { .. }
            | Self::BackendRecovering
            | Self::Closed => StatusCode::SERVICE_UNAVAILABLE,
            Self::QueueFull { .. }
            | Self::KeyQueueFull { .. }
            | Self::TooLate { .. }
            | Self::TurnedAway { .. }
            | Self::Exhausted { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Cooling { status, .. } | Self::Upstream { status, .. } => *status,
            Self::Unreachable { .. } => StatusCode::BAD_GATEWAY,
        }
    }

    /// The error's `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Invalid { .. } | Self::NeverFits { .. } => "invalid_request_error",
            Self::ModelNotAllowed { .. } => "key_model_access_denied",
            Self::TimedOutWaiting { .. } | Self::TimedOutCalling { .. } => "timeout_error",
            Self::BackendSilent { .. }
            | Self::BackendRefuses { .. }
            | Self::BackendRecovering
            | Self::Closed => "service_unavailable_error",
            Self::QueueFull { .. }
            | Self::KeyQueueFull { .. }
            | Self::TooLate { .. }
            | Self::TurnedAway { .. } => "throttling_error",
            Self::Exhausted { .. } => "insufficient_quota",
            Self::Unreachable { .. } => "internal_server_error",
            Self::Cooling { status, .. } | Self::Upstream { status, .. } => match status.as_u16() {
                401 => "auth_error",
                408 => "timeout_error",
                429 => "throttling_error",
                503 => "service_unavailable_error",
                400..=499 => "invalid_request_error",
                _ => "internal_server_error",
            },
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

/// Whole seconds, at least one, rounded up: who comes back then is not too early.
fn seconds(time: Duration) -> u64 {
    time.as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0))
        .max(1)
}

impl CallError {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.problem.status()
    }

    /// The error's `type`, for example `invalid_request_error`.
    pub fn kind(&self) -> &'static str {
        self.problem.kind()
    }

    /// The field at fault, where there is one.
    pub fn param(&self) -> Option<&'static str> {
        self.problem.param()
    }

    /// The error's `code`: the status as a string, as LiteLLM writes it.
    pub fn code(&self) -> String {
        self.status().as_u16().to_string()
    }

    /// For the client; never a secret.
    pub fn message(&self) -> String {
        self.problem.to_string()
    }

    /// Header `retry-after`: whole seconds, at least one.
    pub fn retry_after(&self) -> Option<Duration> {
        self.problem.retry_after()
    }

    /// Header `retry-after-ms`: where the upstream asked for a part of a second.
    pub fn retry_after_ms(&self) -> Option<Duration> {
        match &self.problem {
            Problem::Upstream { retry_after, .. } => {
                retry_after.filter(|time| time.subsec_nanos() > 0)
            }
            _ => None,
        }
    }

    /// Header `x-should-retry`: no, where an SDK's own retry would lose the place in the queue, or comes after our own retries;
    /// else what the upstream says.
    pub fn should_retry(&self) -> Option<bool> {
        match &self.problem {
            Problem::TimedOutWaiting { .. } | Problem::Exhausted { .. } => Some(false),
            // Another instance, or this one in a moment, has not tried it yet.
            Problem::Closed
            | Problem::BackendSilent { .. }
            | Problem::BackendRefuses { .. }
            | Problem::BackendRecovering => None,
            _ if self.info.attempts > 1 => Some(false),
            Problem::Upstream { should_retry, .. } => *should_retry,
            _ => None,
        }
    }

    /// What was known of the call.
    pub fn info(&self) -> &CallInfo {
        &self.info
    }

    /// The whole answer body: the upstream's own error where it sent one, else `{"error": {message, type, param, code}}`.
    pub fn body(&self) -> Bytes {
        if let Problem::Upstream {
            body: Some(body), ..
        } = &self.problem
        {
            return body.clone();
        }
        let error = json!({"message": self.message(), "type": self.kind(), "param": self.param(), "code": self.code()});
        Bytes::from(json!({ "error": error }).to_string())
    }

    /// Headers of the answer: `content-type`, `retry-after`, `x-should-retry`, and the `x-litellm-*` and `x-vorrang-*` that are known.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = call_headers::of_call(&self.info, &self.call_id);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Some(time) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(time.as_secs()));
        }
        if let Some(time) = self.retry_after_ms() {
            let time = time.as_nanos().div_ceil(1_000_000);
            headers.insert(
                "retry-after-ms",
                HeaderValue::from(u64::try_from(time).unwrap_or(u64::MAX)),
            );
        }
        if let Some(retry) = self.should_retry() {
            headers.insert(
                "x-should-retry",
                HeaderValue::from_static(if retry { "true" } else { "false" }),
            );
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(problem: Problem) -> CallError {
        CallError {
            problem,
            info: Box::default(),
            call_id: "c".into(),
        }
    }

    #[test]
    fn an_error_has_the_documented_shape() {
        let error = error(Problem::invalid(
            "messages",
            "Missing required parameter: 'messages'.",
        ));
        let body: serde_json::Value = serde_json::from_slice(&error.body()).unwrap();
        let expected = json!({"error": {
            "message": "Missing required parameter: 'messages'.", "type": "invalid_request_error", "param": "messages", "code": "400",
        }});
        assert_eq!(body, expected);
    }

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds_and_at_least_one() {
        for (time, expected) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (6_999, 7)] {
            let problem = Problem::QueueFull {
                group: "g".into(),
                retry_after: Duration::from_millis(time),
            };
            assert_eq!(problem.retry_after(), Some(Duration::from_secs(expected)));
            let message = format!(
                "No deployments available for selected model, Try again in {expected} seconds."
            );
            assert!(problem.to_string().starts_with(&message), "{problem}");
        }
    }

    #[test]
    fn an_upstreams_hints_pass_until_our_own_retries_have_been_made() {
        let busy = |attempts| CallError {
            info: Box::new(CallInfo {
                attempts,
                ..CallInfo::default()
            }),
            ..error(Problem::Upstream {
                status: StatusCode::SERVICE_UNAVAILABLE,
                message: "busy".into(),
                body: None,
                retry_after: Some(Duration::from_micros(1_500_001)),
                should_retry: Some(true),
            })
        };
        let headers = busy(1).headers();
        assert_eq!(headers["retry-after"], "2");
        assert_eq!(headers["retry-after-ms"], "1501");
        assert_eq!(headers["x-should-retry"], "true");
        let headers = busy(2).headers();
        assert_eq!(headers["retry-after"], "2");
        assert_eq!(headers["x-should-retry"], "false");
    }

    #[test]
    fn only_a_wait_that_ran_out_tells_the_sdk_not_to_retry() {
        let waited = error(Problem::TimedOutWaiting {
            message: "Request timed out while polling queue.".into(),
        });
        assert_eq!(
            (waited.status().as_u16(), waited.message().as_str()),
            (408, "Request timed out while polling queue.")
        );
        assert_eq!(waited.headers()["x-should-retry"], "false");
        assert!(
            !error(Problem::Closed)
                .headers()
                .contains_key("x-should-retry")
        );
        assert_eq!(error(Problem::Closed).headers()["retry-after"], "1");
    }
}
