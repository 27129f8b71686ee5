//! Why a call was not answered, in the shape that clients of OpenAI, LiteLLM or Anthropic know.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    CallInfo, Endpoint, ErrorKind, Problem, call_headers, journal::milliseconds,
    provider::anthropic,
};

/// A failed call: the problem, and what was known of the call by then.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{problem}")]
#[non_exhaustive]
pub struct CallError {
    /// What went wrong.
    pub problem: Problem,
    /// For the access line and the answer's headers.
    pub info: Box<CallInfo>,
    /// Identifies the call in the answer's headers.
    pub call_id: String,
    /// What was called: Anthropic's endpoints have errors of a shape of their own. `None`: no model was.
    pub endpoint: Option<Endpoint>,
}

impl CallError {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.problem.status()
    }

    /// What kind of error it is: the `type` in its body.
    pub fn kind(&self) -> ErrorKind {
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

    /// Header `x-should-retry`: no, where an SDK's own retry would lose the position in the queue, or comes after our own retries;
    /// else what the upstream says.
    pub fn should_retry(&self) -> Option<bool> {
        match &self.problem {
            Problem::TimedOutWaiting { .. }
            | Problem::Exhausted { .. }
            | Problem::Cancelled { .. } => Some(false),
            // Another instance, or this one a moment later, can still serve it.
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

    /// The whole answer body: the upstream's own error where it sent one, else `{"error": {message, type, param, code}}`, or
    /// `{"type": "error", "error": {type, message}, "request_id"}` for Anthropic's endpoints.
    pub fn body(&self) -> Bytes {
        let upstreams = match &self.problem {
            Problem::Upstream { body, .. } => body.as_ref(),
            _ => None,
        };
        if self.endpoint.is_some_and(Endpoint::is_anthropic) {
            let (status, message) = (self.status(), self.message());
            return match upstreams {
                Some(body) => anthropic::shaped(status, body, &message, &self.call_id),
                None => {
                    let mut body = anthropic::error(status, &message, &self.call_id);
                    self.add_place(&mut body["error"]);
                    body.to_string().into()
                }
            };
        }
        if let Some(body) = upstreams.filter(|body| !anthropic::has_shape(body)) {
            return body.clone();
        }
        let mut error = json!({"message": self.message(), "type": self.kind().as_str(), "param": self.param(), "code": self.code()});
        self.add_place(&mut error);
        Bytes::from(json!({ "error": error }).to_string())
    }

    /// A request that was refused or timed out in the queue learns where it was in the queue: `position` and `least_wait_ms`, where they are known.
    fn add_place(&self, error: &mut Value) {
        let queued = matches!(self.kind(), ErrorKind::Timeout | ErrorKind::Throttling);
        let called = matches!(
            self.problem,
            Problem::Upstream { .. } | Problem::TimedOutCalling { .. } | Problem::Cooling { .. }
        );
        if called || !queued {
            return;
        }
        if let Some(position) = self.info.position {
            error["position"] = position.into();
            // `null`: it was paused.
            error["least_wait_ms"] = self.info.least_wait.map(milliseconds).into();
        }
    }

    /// Headers of the answer: `content-type`, `retry-after`, `x-should-retry`, and the `x-litellm-*` and `x-vorrang-*` that are known.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        call_headers::add(&mut headers, &self.info, &self.call_id);
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
            endpoint: Some(Endpoint::ChatCompletions),
        }
    }

    #[test]
    fn error_body_has_the_documented_format() {
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
    fn retry_after_is_rounded_up_to_at_least_one_second() {
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
    fn x_should_retry_of_the_upstream_passes_only_before_gateway_retries() {
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
    fn x_should_retry_is_false_after_a_timed_out_wait_and_absent_at_shutdown() {
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
