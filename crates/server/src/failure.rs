//! Errors the server itself answers, in the shape that clients of OpenAI, LiteLLM or Anthropic know.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

/// An answer of the shape `{"error": {"message", "type", "param", "code"}}`; `code` is the status as a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    status: StatusCode,
    kind: &'static str,
    message: String,
    param: Option<&'static str>,
    // Boxed: most failures have none, and a `Result` is as large as its error.
    extra: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Failure {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            param: None,
            extra: None,
        }
    }

    /// 400: the client's request is at fault.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// 401: no key, or one that is not known. `why` never contains the key.
    pub(crate) fn unauthorized(why: &str) -> Self {
        let mut failure = Self::new(
            StatusCode::UNAUTHORIZED,
            "auth_error",
            format!("Authentication Error, {why}"),
        );
        failure.extra = Some(Box::new((
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"vorrang\""),
        )));
        failure
    }

    /// 403: the key may not do this.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", message)
    }

    /// 404: nothing of this name is there.
    pub(crate) fn no_such(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
    }

    /// 409: what is to be changed is not there any more.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict_error", message)
    }

    /// 503: another instance or the backend does not answer.
    pub(crate) fn unanswered(message: impl Into<String>) -> Self {
        let mut failure = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "service_unavailable_error",
            message,
        );
        failure.extra = Some(Box::new((
            header::RETRY_AFTER,
            HeaderValue::from_static("1"),
        )));
        failure
    }

    /// 404: nothing is served under this path.
    pub(crate) fn not_found(path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            format!("Not Found: nothing is served at {path}"),
        )
    }

    /// 404: no such model, or none that the caller's key allows.
    pub(crate) fn no_such_model(id: &str) -> Self {
        let mut failure = Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            format!("The model `{id}` does not exist or you do not have access to it."),
        );
        failure.param = Some("model");
        failure
    }

    /// 405: the path is served, but not by this method.
    pub(crate) fn method_not_allowed(method: &http::Method, path: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request_error",
            format!("Method Not Allowed: {path} does not take {method}"),
        )
    }

    /// 408: the client took too long to send its body.
    pub(crate) fn body_timed_out() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout_error",
            "Request timed out while reading its body",
        )
    }

    /// 415: the body is compressed.
    pub(crate) fn coded_body() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            "Request bodies are taken without a content coding: leave out content-encoding",
        )
    }

    /// 413: the body is above `vorrang_settings.max_body_bytes`.
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            format!("Request body is larger than {limit} bytes (vorrang_settings.max_body_bytes)"),
        )
    }

    /// 415: where no key is needed, a body has to say that it is JSON.
    pub(crate) fn unsupported_media_type() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            "Unsupported Media Type: send the body with `Content-Type: application/json`",
        )
    }

    /// 415: a web page's form, where there are no keys.
    pub(crate) fn form_of_a_page() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            "Unsupported Media Type: a form from a web page needs the header `Authorization: Bearer`",
        )
    }

    /// 421: the host is none of `vorrang_settings.allowed_hosts`.
    pub(crate) fn misdirected() -> Self {
        Self::new(
            StatusCode::MISDIRECTED_REQUEST,
            "invalid_request_error",
            "Misdirected Request: this host is not served here (vorrang_settings.allowed_hosts)",
        )
    }

    /// 429: as many calls as this process has file descriptors for are under way.
    pub(crate) fn no_room() -> Self {
        let mut failure = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "throttling_error",
            "This instance has no room for more requests. Try again in 1 seconds.",
        );
        failure.extra = Some(Box::new((
            header::RETRY_AFTER,
            HeaderValue::from_static("1"),
        )));
        failure
    }

    /// 429: the bodies of waiting requests take all that `vorrang_settings.max_waiting_body_bytes` allows them.
    pub(crate) fn bodies_full(retry_after: Duration) -> Self {
        let mut failure = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "throttling_error",
            format!(
                "The bodies of waiting requests take all the memory that they may \
                 (max_waiting_body_bytes, of the key or in total). Try again in {} seconds.",
                retry_after.as_secs()
            ),
        );
        let seconds = HeaderValue::from(retry_after.as_secs());
        failure.extra = Some(Box::new((header::RETRY_AFTER, seconds)));
        failure
    }

    /// 500: a fault of ours.
    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_server_error",
            "Internal server error",
        )
    }

    /// 502: the upstream answered a streamed call with something else, when the event stream had begun.
    pub(crate) fn no_event_stream() -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "internal_server_error",
            "The upstream answered a streamed request without an event stream",
        )
    }

    /// 503: this instance is shutting down; another one, or this one restarted, will serve after `retry_after`.
    pub(crate) fn shutting_down(retry_after: Duration) -> Self {
        let mut failure = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "service_unavailable_error",
            "This instance is shutting down",
        );
        failure.extra = Some(Box::new((
            header::RETRY_AFTER,
            HeaderValue::from(retry_after.as_secs().max(1)),
        )));
        failure
    }
}

impl Failure {
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn body(&self) -> serde_json::Value {
        serde_json::json!({
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.status.as_str(),
            }
        })
    }
}

impl Failure {
    /// The same in Anthropic's shape.
    pub(crate) fn anthropic_body(&self, request_id: &str) -> serde_json::Value {
        vorrang_gateway::anthropic_error(self.status, &self.message, request_id)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        if let Some((name, value)) = self.extra.as_deref() {
            response.headers_mut().insert(name, value.clone());
        }
        // A layer writes it in Anthropic's shape, where the path asks for that.
        response.extensions_mut().insert(self);
        response
    }
}
