//! An answer of the Responses API as one of a chat.

use serde_json::{Value, json};

use crate::translate::shared;

/// `None`: it is no response that has ended.
pub(in crate::translate) fn answer(response: &Value) -> Option<Value> {
    let items = response["output"].as_array()?;
    let (mut text, mut refusal, mut thoughts) = (String::new(), String::new(), String::new());
    let (mut calls, mut reasoning) = (Vec::new(), Vec::new());
    let (mut annotations, mut logprobs) = (Vec::new(), Vec::new());
    for item in items {
        match item["type"].as_str().unwrap_or_default() {
            "message" => {
                for part in item["content"].as_array().into_iter().flatten() {
                    let list = |name: &str| part[name].as_array().into_iter().flatten();
                    // Citations name places in the text before.
                    let offset = text.chars().count();
                    annotations.extend(list("annotations").filter_map(|one| citation(one, offset)));
                    logprobs.extend(list("logprobs").cloned());
                    text.push_str(part["text"].as_str().unwrap_or_default());
                    refusal.push_str(part["refusal"].as_str().unwrap_or_default());
                }
            }
            "function_call" => calls.push(json!({
                "id": item["call_id"], "type": "function",
                "function": {"name": item["name"], "arguments": arguments(item)},
            })),
            "reasoning" => {
                for part in thoughts_of(item) {
                    if !thoughts.is_empty() {
                        thoughts.push_str(BETWEEN_THOUGHTS);
                    }
                    thoughts.push_str(part["text"].as_str().unwrap_or_default());
                }
                reasoning.extend(kept(item));
            }
            // What the API's own tools did: the texts say what came of it.
            _ => {}
        }
    }
    let reason = finish_reason(response, !calls.is_empty())?;
    let content = if text.is_empty() && !(calls.is_empty() && refusal.is_empty()) {
        Value::Null
    } else {
        text.into()
    };
    let refusal = if refusal.is_empty() {
        Value::Null
    } else {
        refusal.into()
    };
    let mut message = json!({"role": "assistant", "content": content, "refusal": refusal});
    let lists = [
        ("tool_calls", calls),
        ("annotations", annotations),
        ("reasoning_items", reasoning),
    ];
    for (name, list) in lists {
        if !list.is_empty() {
            message[name] = list.into();
        }
    }
    if !thoughts.is_empty() {
        message["reasoning_content"] = thoughts.into();
    }
    let mut chat = json!({
        "id": shared::id("chatcmpl-", &response["id"]),
        "object": "chat.completion",
        "created": response["created_at"].as_f64().map_or_else(shared::now, seconds),
        "model": response["model"],
        "choices": [{
            "index": 0, "message": message, "logprobs": probabilities(logprobs),
            "finish_reason": reason,
        }],
        "usage": usage(&response["usage"]),
    });
    if let Some(tier) = response["service_tier"].as_str() {
        chat["service_tier"] = tier.into();
    }
    Some(chat)
}

/// The parts of a model's thoughts are paragraphs.
pub(super) const BETWEEN_THOUGHTS: &str = "\n\n";

/// Some servers send times with fractions.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast to an integer is bounded"
)]
fn seconds(time: f64) -> u64 {
    time as u64
}

/// Summaries where there are any, else the thoughts themselves, which open models show.
fn thoughts_of(item: &Value) -> &[Value] {
    let lists = [&item["summary"], &item["content"]];
    let mut lists = lists.into_iter().filter_map(Value::as_array);
    lists
        .find(|list| !list.is_empty())
        .map_or(&[], Vec::as_slice)
}

/// Thoughts in the form that a later request needs, under LiteLLM's name for it. Only their encrypted form can be read by
/// the model again, as answers are not stored.
pub(super) fn kept(item: &Value) -> Option<Value> {
    let encrypted = item["encrypted_content"].as_str()?;
    let summary = item["summary"].as_array().cloned().unwrap_or_default();
    let mut kept = json!({"type": "reasoning", "summary": summary, "encrypted_content": encrypted});
    if let Some(id) = item["id"].as_str() {
        kept["id"] = id.into();
    }
    Some(kept)
}

pub(super) fn arguments(item: &Value) -> &str {
    item["arguments"].as_str().unwrap_or_default()
}

/// A citation of a page as a chat has it. `offset`: characters of the answer before the text that it is about.
pub(super) fn citation(annotation: &Value, offset: usize) -> Option<Value> {
    if annotation["type"] != "url_citation" {
        return None;
    }
    let place = |name: &str| {
        let place = annotation[name].as_u64().unwrap_or(0);
        place.saturating_add(offset as u64)
    };
    Some(json!({
        "type": "url_citation",
        "url_citation": {
            "start_index": place("start_index"), "end_index": place("end_index"),
            "title": annotation["title"], "url": annotation["url"],
        },
    }))
}

pub(super) fn probabilities(of_tokens: Vec<Value>) -> Value {
    if of_tokens.is_empty() {
        return Value::Null;
    }
    json!({"content": of_tokens, "refusal": null})
}

/// Why an answer ended; `None`: it has not, or never will.
pub(super) fn finish_reason(response: &Value, calls: bool) -> Option<&'static str> {
    match response["status"].as_str().unwrap_or("completed") {
        "completed" if calls => Some("tool_calls"),
        "completed" => Some("stop"),
        "incomplete" => match response["incomplete_details"]["reason"].as_str() {
            Some("content_filter") => Some("content_filter"),
            _ => Some("length"),
        },
        _ => None,
    }
}

/// A chat's usage.
pub(super) fn usage(usage: &Value) -> Value {
    let amount = |usage: &Value, name: &str| usage[name].as_u64().unwrap_or(0);
    let input = amount(usage, "input_tokens");
    let output = amount(usage, "output_tokens");
    let total = usage["total_tokens"].as_u64();
    json!({
        "prompt_tokens": input,
        "completion_tokens": output,
        "total_tokens": total.unwrap_or_else(|| input.saturating_add(output)),
        "prompt_tokens_details": {
            "cached_tokens": amount(&usage["input_tokens_details"], "cached_tokens"),
        },
        "completion_tokens_details": {
            "reasoning_tokens": amount(&usage["output_tokens_details"], "reasoning_tokens"),
        },
    })
}
