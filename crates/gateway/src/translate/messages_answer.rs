//! A chat's answer as one of Anthropic's messages.

use serde_json::{Value, json};

use super::shared;

/// `None`: it is no answer of a chat.
pub(super) fn answer(chat: &Value) -> Option<Value> {
    let choice = chat["choices"].get(0)?;
    let message = &choice["message"];
    if !message.is_object() {
        return None;
    }
    let mut blocks = Vec::new();
    if let Some(thoughts) = thoughts(message) {
        blocks.push(json!({"type": "thinking", "thinking": thoughts, "signature": ""}));
    }
    let text = shared::text_of(&message["content"], "");
    let refusal = message["refusal"].as_str().unwrap_or_default();
    for text in [text.as_str(), refusal] {
        if !text.is_empty() {
            blocks.push(json!({"type": "text", "text": text}));
        }
    }
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    let mut uses: Vec<Value> = calls.map(tool_use).collect();
    if message["function_call"].is_object() && uses.is_empty() {
        uses.push(tool_use(&json!({"function": message["function_call"]})));
    }
    let reason = reason(choice["finish_reason"].as_str(), !uses.is_empty(), refusal);
    blocks.extend(uses);
    Some(json!({
        "id": shared::id("msg_", &chat["id"]),
        "type": "message",
        "role": "assistant",
        "model": chat["model"],
        "content": blocks,
        "stop_reason": reason,
        "stop_sequence": null,
        "usage": shared::messages_usage(&chat["usage"]),
    }))
}

/// Servers name them differently.
pub(super) fn thoughts(message: &Value) -> Option<&str> {
    let names = ["reasoning_content", "reasoning"];
    let mut texts = names.iter().filter_map(|name| message[*name].as_str());
    texts.find(|text| !text.is_empty())
}

/// Some servers say `stop` where tools are called.
pub(super) fn reason(finish_reason: Option<&str>, calls: bool, refusal: &str) -> &'static str {
    match shared::stop_reason(finish_reason.unwrap_or_default()) {
        "end_turn" if calls => "tool_use",
        "end_turn" if !refusal.is_empty() => "refusal",
        reason => reason,
    }
}

fn tool_use(call: &Value) -> Value {
    let function = &call["function"];
    let input = match &function["arguments"] {
        // Ollama's own notation.
        Value::Object(object) => Value::Object(object.clone()),
        arguments => shared::arguments(arguments.as_str().unwrap_or_default()),
    };
    json!({
        "type": "tool_use", "id": shared::id("", &call["id"]), "name": function["name"], "input": input,
    })
}
