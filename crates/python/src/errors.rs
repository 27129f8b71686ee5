//! What goes wrong, by the names of LiteLLM's classes.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict},
};
use vorrang_gateway::{CallError, CallInfo, FallbackReason, Problem, SdkError};

use crate::info;

/// Why there is no answer.
pub(crate) struct Failure {
    class: &'static str,
    status: StatusCode,
    message: String,
    /// JSON, if it is anything.
    body: Bytes,
    headers: HeaderMap,
    info: CallInfo,
    provider: Option<&'static str>,
}

impl Failure {
    /// `info` is of the call as far as it has come.
    pub(crate) fn of(error: SdkError, info: &CallInfo, provider: Option<&'static str>) -> Self {
        let message = error.to_string();
        let failure = |class, status, body: Bytes| Self {
            class,
            status,
            message,
            body,
            headers: HeaderMap::new(),
            info: info.clone(),
            provider,
        };
        match error {
            SdkError::Call(error) => Self {
                class: class_of(&error.problem),
                status: error.status(),
                message: error.message(),
                body: error.body(),
                headers: error.headers(),
                info: *error.info,
                provider,
            },
            SdkError::Request(_) => {
                failure("BadRequestError", StatusCode::BAD_REQUEST, Bytes::new())
            }
            SdkError::Broken(_) => {
                failure("APIConnectionError", StatusCode::BAD_GATEWAY, Bytes::new())
            }
            SdkError::Event(json) => {
                failure("APIError", StatusCode::INTERNAL_SERVER_ERROR, json.into())
            }
            _ => failure("APIError", StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()),
        }
    }

    pub(crate) fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        let failure = PyDict::new(py);
        failure.set_item("class", self.class)?;
        failure.set_item("status", self.status.as_u16())?;
        failure.set_item("message", self.message)?;
        failure.set_item("body", PyBytes::new(py, &self.body))?;
        failure.set_item("headers", info::of_headers(py, &self.headers)?)?;
        let hidden = info::of_call(py, &self.info, &self.headers, self.provider)?;
        failure.set_item("hidden", hidden)?;
        Ok(failure)
    }
}

/// The deployment of the last attempt of a failed call.
pub(crate) fn info_of(error: &SdkError) -> Option<&CallInfo> {
    match error {
        SdkError::Call(error) => Some(CallError::info(error)),
        _ => None,
    }
}

/// LiteLLM's class for a problem: by what is wrong with the request where another model may take it, else by the
/// status.
fn class_of(problem: &Problem) -> &'static str {
    match problem.refusal() {
        Some(FallbackReason::ContextWindow) => return "ContextWindowExceededError",
        Some(FallbackReason::ContentPolicy) => return "ContentPolicyViolationError",
        _ => {}
    }
    if let Problem::Unreachable { .. } = problem {
        return "APIConnectionError";
    }
    match problem.status().as_u16() {
        400 => "BadRequestError",
        401 => "AuthenticationError",
        402 => "PaymentRequiredError",
        403 => "PermissionDeniedError",
        404 => "NotFoundError",
        408 | 504 => "Timeout",
        422 => "UnprocessableEntityError",
        429 => "RateLimitError",
        500 => "InternalServerError",
        502 => "BadGatewayError",
        503 => "ServiceUnavailableError",
        _ => "APIError",
    }
}
