//! The headers of an answer: what passes from the upstream, and what is ours.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::CallInfo;

/// What LiteLLM's clients and ours read, from what is known of a call.
pub(crate) fn of_call(info: &CallInfo, call_id: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    insert(&mut headers, "x-litellm-call-id", call_id);
    if info.group.is_empty() {
        return headers;
    }
    insert(&mut headers, "x-litellm-model-group", &info.group);
    let priority = info.priority.to_string();
    insert(&mut headers, "x-vorrang-priority", &priority);
    insert(&mut headers, "x-litellm-priority", &priority);
    if info.prioritized {
        insert(
            &mut headers,
            "x-litellm-request-prioritization-used",
            "True",
        );
    }
    insert(
        &mut headers,
        "x-vorrang-wait-ms",
        &info.waited.as_millis().to_string(),
    );
    if let Some(least) = info.least_wait {
        insert(
            &mut headers,
            "x-vorrang-least-wait-ms",
            &least.as_millis().to_string(),
        );
    }
    insert(
        &mut headers,
        "x-litellm-attempted-retries",
        &info.retries.to_string(),
    );
    insert(
        &mut headers,
        "x-litellm-attempted-fallbacks",
        &info.fallbacks.to_string(),
    );
    if let Some(group) = &info.fallback_from {
        insert(&mut headers, "x-vorrang-fallback-from", group);
    }
    if let Some(group) = &info.spilled_from {
        insert(&mut headers, "x-vorrang-spilled-from", group);
    }
    if !info.deployment.is_empty() {
        insert(&mut headers, "x-litellm-model-id", &info.deployment);
    }
    if let Some(numbers) = info.numbers {
        let mut text = format!(
            "arrival={}, entered={}, granted={}",
            numbers.arrival, numbers.entered, numbers.granted
        );
        if let Some(start) = numbers.start {
            text += &format!(", start={start}");
        }
        // Without aging it is the priority, which stands in a header of its own.
        if numbers.score != i64::from(info.priority) {
            text += &format!(", score={}", numbers.score);
        }
        insert(&mut headers, "x-vorrang-ticket", &text);
    }
    headers
}

/// A value that no header can carry (a group's name may hold anything) is left out.
fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// Copies what describes the answer's bytes or the upstream's own limits. Everything else (connection, cookies, server names) stays behind;
/// the length is set by the body.
pub(crate) fn pass(upstream: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in upstream {
        let text = name.as_str();
        let described = matches!(
            *name,
            header::CONTENT_TYPE | header::CONTENT_ENCODING | header::CACHE_CONTROL
        ) || matches!(text, "x-request-id" | "request-id");
        let limits = ["x-ratelimit-", "openai-", "anthropic-"];
        if described || limits.iter().any(|begins| text.starts_with(begins)) {
            to.append(name, value.clone());
        }
    }
}
