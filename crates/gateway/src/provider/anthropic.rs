//! Anthropic's own conventions: headers, and the shape of errors.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::config::Upstream;

/// Which version of the API a request means; every request needs one.
const VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// What a request wants beside that version.
const BETA: HeaderName = HeaderName::from_static("anthropic-beta");

/// The beta that calls with an OAuth token belong to.
const OAUTH: &str = "oauth-2025-04-20";

const CURRENT: HeaderValue = HeaderValue::from_static("2023-06-01");

/// What of a client's headers an upstream of Anthropic's format gets.
pub(crate) fn of_client(headers: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for name in [VERSION, BETA] {
        for value in headers.get_all(&name) {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}

/// Adds what each request to this upstream needs.
pub(crate) fn complete(headers: &mut HeaderMap, upstream: &Upstream) {
    headers.entry(VERSION).or_insert(CURRENT);
    if upstream.has_oauth_token()
        && !has_beta(headers, OAUTH)
        && !has_beta(&upstream.headers, OAUTH)
    {
        headers.append(BETA, HeaderValue::from_static(OAUTH));
    }
}

fn has_beta(headers: &HeaderMap, beta: &str) -> bool {
    let values = headers.get_all(BETA).iter();
    let mut texts = values.filter_map(|value| value.to_str().ok());
    texts.any(|text| text.split(',').any(|one| one.trim() == beta))
}

/// Takes a deployment's header into those of a request: it replaces the request's, but betas are wanted by both.
pub(crate) fn merge(headers: &mut HeaderMap, name: &HeaderName, value: &HeaderValue) {
    if *name == BETA {
        headers.append(name.clone(), value.clone());
    } else {
        headers.insert(name.clone(), value.clone());
    }
}

/// How Anthropic's clients tell errors apart.
pub(crate) fn kind_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

/// An error as Anthropic's clients know it: `{"type": "error", "error": {"type", "message"}, "request_id"}`.
pub fn error(status: StatusCode, message: &str, request_id: &str) -> Value {
    json!({
        "type": "error",
        "error": {"type": kind_of(status), "message": message},
        "request_id": request_id,
    })
}

/// Whether an error has this shape.
pub(crate) fn has_shape(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Shape<'a> {
        #[serde(borrow)]
        r#type: std::borrow::Cow<'a, str>,
    }
    serde_json::from_slice(body).is_ok_and(|shape: Shape<'_>| shape.r#type == "error")
}

/// An upstream's error in Anthropic's shape, as it came where it has that shape.
pub(crate) fn shaped(status: StatusCode, body: &Bytes, message: &str, request_id: &str) -> Bytes {
    if has_shape(body) {
        return body.clone();
    }
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = value["error"]["message"].as_str().unwrap_or(message);
    Bytes::from(error(status, message, request_id).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_headers_of_a_client_pass_and_betas_of_file_and_client_are_joined() {
        let mut client = HeaderMap::new();
        for (name, value) in [
            ("anthropic-version", "2024-01-01"),
            ("anthropic-beta", "a"),
            ("x-api-key", "sk-client"),
            ("anthropic-dangerous-direct-browser-access", "true"),
        ] {
            client.insert(name, HeaderValue::from_static(value));
        }
        let mut passed = of_client(&client);
        let upstream = Upstream::new("http://h", None);
        complete(&mut passed, &upstream);
        merge(&mut passed, &BETA, &HeaderValue::from_static("b"));
        assert_eq!(passed.len(), 3);
        assert_eq!(passed[&VERSION], "2024-01-01");
        let betas: Vec<_> = passed.get_all(&BETA).iter().collect();
        assert_eq!(betas, ["a", "b"]);
        let mut none = HeaderMap::new();
        complete(&mut none, &upstream);
        assert_eq!(none[&VERSION], CURRENT);
    }

    #[test]
    fn upstream_errors_pass_in_anthropics_shape_and_others_get_it() {
        let native = Bytes::from_static(
            br#"{"type":"error","error":{"type":"x","message":"m"},"request_id":"r"}"#,
        );
        let status = StatusCode::TOO_MANY_REQUESTS;
        assert_eq!(shaped(status, &native, "m", "id"), native);
        let other = Bytes::from_static(br#"{"error":{"message":"slow","code":"rate_limit"}}"#);
        let value: Value = serde_json::from_slice(&shaped(status, &other, "m", "id")).unwrap();
        assert_eq!(value, error(status, "slow", "id"));
        assert_eq!(value["error"]["type"], "rate_limit_error");
    }
}
