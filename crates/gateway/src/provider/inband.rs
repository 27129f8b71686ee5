//! Errors inside of answers whose status says success.

use std::sync::LazyLock;

use bytes::Bytes;
use http::StatusCode;
use memchr::memmem;
use serde_json::{Value, json};

/// What an upstream reports as an error in a 2xx answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InBand {
    /// Its own status; 500 where it names none.
    pub(crate) status: StatusCode,
    /// `{"error": ...}`, or the whole where the upstream wraps its error in another way.
    pub(crate) body: Bytes,
}

/// What stands in each error.
static ERROR: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new("\"error"));

/// The error in one JSON value, if it is one. `named`: an event stream calls it an error.
pub(crate) fn error_in(json: &[u8], named: bool) -> Option<InBand> {
    // Most values are no errors: only a possible error is parsed.
    if !named && ERROR.find(json).is_none() {
        return None;
    }
    let value: Value = match serde_json::from_slice(json) {
        Ok(value) => value,
        Err(_) if named => Value::from(String::from_utf8_lossy(json)),
        Err(_) => return None,
    };
    let value = match value {
        Value::Array(mut list) if !list.is_empty() => list.swap_remove(0),
        value => value,
    };
    let error = error_of(&value).or_else(|| named.then(|| value.clone()))?;
    let status = status_of(&error)
        .or_else(|| status_of(&value))
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = Bytes::from(json!({ "error": error }).to_string());
    Some(InBand { status, body })
}

fn error_of(value: &Value) -> Option<Value> {
    let says = |error: &Value| match error {
        Value::Object(fields) => !fields.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => false,
    };
    // The Responses API puts the error of its event `response.failed` into the response.
    for error in [&value["error"], &value["response"]["error"]] {
        if says(error) {
            return Some(error.clone());
        }
    }
    if value["object"] == "error" || value["type"] == "error" {
        return Some(value.clone());
    }
    // OpenRouter puts a provider's error into the choice.
    let choices = value["choices"].as_array()?;
    let error = choices.iter().map(|choice| &choice["error"]);
    error.into_iter().find(|error| says(error)).cloned()
}

/// The HTTP status that an error stands for.
fn status_of(error: &Value) -> Option<StatusCode> {
    let number = |value: &Value| {
        let number = match value {
            Value::Number(number) => number.as_u64()?,
            Value::String(text) => text.trim().parse().ok()?,
            _ => return None,
        };
        let number = u16::try_from(number).ok()?;
        (400..600).contains(&number).then_some(number)
    };
    let word = |value: &Value| {
        Some(match value.as_str()?.to_ascii_lowercase().as_str() {
            "rate_limit_error"
            | "rate_limit_exceeded"
            | "resource_exhausted"
            | "insufficient_quota"
            | "throttling_error"
            | "too_many_requests" => 429,
            "overloaded_error" | "overloaded" | "unavailable" | "service_unavailable_error" => 503,
            "invalid_request_error"
            | "badrequesterror"
            | "invalid_argument"
            | "invalid_prompt"
            | "invalid_image"
            | "context_length_exceeded" => 400,
            "authentication_error" | "auth_error" | "invalid_api_key" | "unauthenticated" => 401,
            "billing_error" => 402,
            "permission_error" | "permission_denied" => 403,
            "not_found_error" | "model_not_found" | "not_found" => 404,
            "request_too_large" => 413,
            "timeout_error" | "deadline_exceeded" => 504,
            _ => return None,
        })
    };
    let keys = ["code", "status", "status_code", "http_status", "type"];
    let found = keys
        .iter()
        .find_map(|key| number(&error[key]))
        .or_else(|| keys.iter().find_map(|key| word(&error[key])))?;
    StatusCode::from_u16(found).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: &str) -> Option<u16> {
        error_in(json.as_bytes(), false).map(|error| error.status.as_u16())
    }

    #[test]
    fn error_in_a_200_body_gets_the_status_that_it_names() {
        for (json, expected) in [
            (r#"{"error":{"message":"no","code":429}}"#, 429),
            (r#"{"error":{"message":"no","code":"503"}}"#, 503),
            (r#"{"error":{"status":"RESOURCE_EXHAUSTED"}}"#, 429),
            (r#"{"error":{"type":"overloaded_error"}}"#, 503),
            (
                r#"{"error":{"code":"rate_limit_exceeded","type":"requests"}}"#,
                429,
            ),
            (r#"{"error":{"type":"invalid_request_error"}}"#, 400),
            (r#"{"error":{"message":"no"}}"#, 500),
            (r#"{"error":{"message":"no","code":99999999999}}"#, 500),
            (r#"{"error":{"message":"no","code":200}}"#, 500),
            (r#"{"error":"no"}"#, 500),
            (r#"{"error":"no","status":404}"#, 404),
            (r#"[{"error":{"code":400}}]"#, 400),
            (r#"{"object":"error","message":"no","code":404}"#, 404),
            (
                r#"{"type":"error","error":{"type":"rate_limit_error"}}"#,
                429,
            ),
            (r#"{"choices":[{"error":{"code":502}}]}"#, 502),
            (
                r#"{"type":"error","code":"rate_limit_exceeded","message":"no"}"#,
                429,
            ),
            (
                r#"{"type":"response.failed","response":{"error":{"code":"server_error","message":"no"}}}"#,
                500,
            ),
            (
                r#"{"type":"response.failed","response":{"error":{"code":"invalid_prompt","message":"no"}}}"#,
                400,
            ),
        ] {
            assert_eq!(status(json), Some(expected), "{json}");
        }
    }

    #[test]
    fn empty_error_fields_and_quoted_errors_are_no_errors() {
        for json in [
            "{}",
            "[]",
            "",
            "{\"error",
            r#"{"error":null,"choices":[]}"#,
            r#"{"error":{},"choices":[]}"#,
            r#"{"type":"response.created","response":{"error":null}}"#,
            r#"{"error":"","error_code":0}"#,
            r#"{"choices":[{"message":{"content":"{\"error\":{\"code\":429}}"}}]}"#,
            r#"{"choices":[{"delta":{"error":{"code":429}}}]}"#,
        ] {
            assert_eq!(status(json), None, "{json}");
        }
    }

    #[test]
    fn event_named_error_is_an_error_with_any_data() {
        let error = error_in(b"no more \xff", true).unwrap();
        assert_eq!(error.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(error.body, "{\"error\":\"no more \u{fffd}\"}");
        let error = error_in(br#"{"message":"slow down","code":429}"#, true).unwrap();
        assert_eq!(error.status, StatusCode::TOO_MANY_REQUESTS);
    }
}
