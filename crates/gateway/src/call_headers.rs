//! The headers of an answer: what passes from the upstream, and what is ours.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::CallInfo;

const CALL_ID: HeaderName = HeaderName::from_static("x-litellm-call-id");
const GROUP: HeaderName = HeaderName::from_static("x-litellm-model-group");
const DEPLOYMENT: HeaderName = HeaderName::from_static("x-litellm-model-id");
const RETRIES: HeaderName = HeaderName::from_static("x-litellm-attempted-retries");
const FALLBACKS: HeaderName = HeaderName::from_static("x-litellm-attempted-fallbacks");
const LITELLM_PRIORITY: HeaderName = HeaderName::from_static("x-litellm-priority");
const PRIORITIZED: HeaderName = HeaderName::from_static("x-litellm-request-prioritization-used");
const PRIORITY: HeaderName = HeaderName::from_static("x-vorrang-priority");
const WAIT_MS: HeaderName = HeaderName::from_static("x-vorrang-wait-ms");
const POSITION: HeaderName = HeaderName::from_static("x-vorrang-position");
const LEAST_WAIT_MS: HeaderName = HeaderName::from_static("x-vorrang-least-wait-ms");
const FALLBACK_FROM: HeaderName = HeaderName::from_static("x-vorrang-fallback-from");
const SPILLED_FROM: HeaderName = HeaderName::from_static("x-vorrang-spilled-from");
const TICKET: HeaderName = HeaderName::from_static("x-vorrang-ticket");

/// So many headers an answer has, with those that its server adds: a map that grows costs more than one of the right size.
const USUAL: usize = 20;

/// A map with room for what [`add`] adds.
pub(crate) fn roomy() -> HeaderMap {
    HeaderMap::with_capacity(USUAL)
}

/// Adds what LiteLLM's clients and ours read, from what is known of a call.
pub(crate) fn add(headers: &mut HeaderMap, info: &CallInfo, call_id: &str) {
    headers.reserve(USUAL.saturating_sub(headers.len()));
    insert(headers, CALL_ID, call_id);
    if info.group.is_empty() {
        return;
    }
    insert(headers, GROUP, &info.group);
    let priority = match u64::try_from(info.priority) {
        Ok(priority) => number(priority),
        Err(_) => HeaderValue::from(info.priority),
    };
    headers.insert(PRIORITY, priority.clone());
    headers.insert(LITELLM_PRIORITY, priority);
    if info.prioritized {
        headers.insert(PRIORITIZED, HeaderValue::from_static("True"));
    }
    headers.insert(WAIT_MS, milliseconds(info.waited));
    if let Some(position) = info.position {
        headers.insert(POSITION, number(position));
    }
    if let Some(least) = info.least_wait {
        headers.insert(LEAST_WAIT_MS, milliseconds(least));
    }
    headers.insert(RETRIES, number(info.retries.into()));
    headers.insert(FALLBACKS, number(info.fallbacks.into()));
    if let Some(group) = &info.fallback_from {
        insert(headers, FALLBACK_FROM, group);
    }
    if let Some(group) = &info.spilled_from {
        insert(headers, SPILLED_FROM, group);
    }
    if !info.deployment.is_empty() {
        insert(headers, DEPLOYMENT, &info.deployment);
    }
    if let Some(numbers) = info.numbers {
        let mut text = String::with_capacity(96);
        let mut digits = itoa::Buffer::new();
        let mut add = |name: &str, digits: &str| {
            text.push_str(name);
            text.push_str(digits);
        };
        add("arrival=", digits.format(numbers.arrival.0));
        add(", entered=", digits.format(numbers.entered.0));
        add(", granted=", digits.format(numbers.granted.0));
        if let Some(start) = numbers.start {
            add(", start=", digits.format(start));
        }
        // Without aging it is the priority, which stands in a header of its own.
        if numbers.score != i64::from(info.priority) {
            add(", score=", digits.format(numbers.score));
        }
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(TICKET, value);
        }
    }
}

fn milliseconds(time: Duration) -> HeaderValue {
    number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Most of these numbers are small.
fn number(number: u64) -> HeaderValue {
    const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let digit = usize::try_from(number)
        .ok()
        .and_then(|number| DIGITS.get(number));
    digit.map_or_else(
        || HeaderValue::from(number),
        |digit| HeaderValue::from_static(digit),
    )
}

/// A value that no header can carry (a group's name may hold anything) is left out.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
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
