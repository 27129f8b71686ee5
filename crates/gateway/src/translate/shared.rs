//! What all translations have in common: reasons for the end of an answer, usage, and names.

use serde_json::{Map, Value, json};

use super::invalid;
use crate::problem::Problem;
pub(super) use crate::provider::mock::now;

/// An error if a chat has one of these fields, and asks with it for what the upstream's format does not have.
pub(super) fn refuse(
    chat: &Map<String, Value>,
    names: &'static [&'static str],
) -> Result<(), Problem> {
    let asks = |name: &'static str| {
        let Some(value) = chat.get(name) else {
            return false;
        };
        match name {
            "n" => *value != 1,
            "logprobs" => *value != false,
            "top_logprobs" => *value != 0,
            "modalities" => *value != json!(["text"]),
            "stop" => *value != json!([]),
            _ => true,
        }
    };
    let asked = names.iter().find(|name| asks(name));
    asked.map_or(Ok(()), |name| {
        let message =
            format!("'{name}' has no counterpart in the format of the model's server; drop_params leaves it out");
        Err(invalid(name, message))
    })
}

/// Why a chat's answer ended, by Anthropic's reason.
pub(super) fn finish_reason(stop_reason: &Value) -> &'static str {
    match stop_reason.as_str().unwrap_or_default() {
        "max_tokens" | "model_context_window_exceeded" => "length",
        "tool_use" => "tool_calls",
        "refusal" => "content_filter",
        _ => "stop",
    }
}

/// Why a message ended, by OpenAI's reason.
pub(super) fn stop_reason(finish_reason: &str) -> &'static str {
    match finish_reason {
        "length" => "max_tokens",
        "tool_calls" | "function_call" => "tool_use",
        "content_filter" => "refusal",
        _ => "end_turn",
    }
}

fn amount(usage: &Value, name: &str) -> u64 {
    usage[name].as_u64().unwrap_or(0)
}

/// A chat's usage, of a message's. Anthropic counts cached input apart.
pub(super) fn chat_usage(usage: &Value) -> Value {
    let read = amount(usage, "cache_read_input_tokens");
    let written = amount(usage, "cache_creation_input_tokens");
    let input = amount(usage, "input_tokens")
        .saturating_add(read)
        .saturating_add(written);
    let output = amount(usage, "output_tokens");
    json!({
        "prompt_tokens": input,
        "completion_tokens": output,
        "total_tokens": input.saturating_add(output),
        "prompt_tokens_details": {"cached_tokens": read},
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
    })
}

/// A message's usage, of a chat's.
pub(super) fn messages_usage(usage: &Value) -> Value {
    let cached = amount(&usage["prompt_tokens_details"], "cached_tokens")
        .max(amount(usage, "prompt_cache_hit_tokens"));
    let written = amount(usage, "cache_creation_input_tokens");
    let input = amount(usage, "prompt_tokens")
        .saturating_sub(cached)
        .saturating_sub(written);
    json!({
        "input_tokens": input,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": amount(usage, "completion_tokens"),
    })
}

/// The arguments of a tool call as an object. What is none stays readable for whoever runs the tool.
pub(super) fn arguments(text: &str) -> Value {
    if text.trim().is_empty() {
        return json!({});
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Value::Object(object),
        _ => json!({"arguments": text}),
    }
}

/// The id of a tool call as Anthropic takes it: letters, digits, `_` and `-`.
pub(super) fn tool_id(id: &str) -> String {
    let taken = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' {
            c
        } else {
            '_'
        }
    };
    id.chars().map(taken).collect()
}

/// An id with the beginning that the format's ids have.
pub(super) fn id(beginning: &str, other: &Value) -> String {
    match other.as_str() {
        Some(id) if !id.is_empty() => {
            let mut known = ["msg_", "chatcmpl-", "resp_"].iter();
            let bare = known
                .find_map(|begins| id.strip_prefix(begins))
                .unwrap_or(id);
            format!("{beginning}{bare}")
        }
        _ => format!("{beginning}{}", uuid::Uuid::new_v4().simple()),
    }
}

/// The texts of a content that is a text or a list of parts with texts, joined.
pub(super) fn text_of(content: &Value, join: &str) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| match part {
                Value::String(text) => Some(text.as_str()),
                part => part["text"].as_str().or(part["refusal"].as_str()),
            });
            texts.collect::<Vec<_>>().join(join)
        }
        _ => String::new(),
    }
}
