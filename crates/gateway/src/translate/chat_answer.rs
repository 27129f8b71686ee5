//! An answer of Anthropic's messages as one of a chat.

use serde_json::{Value, json};

use super::shared;

/// `None`: it is no message.
pub(super) fn answer(message: &Value) -> Option<Value> {
    let blocks = message["content"].as_array()?;
    let (mut text, mut thoughts) = (String::new(), String::new());
    let (mut calls, mut thinking) = (Vec::new(), Vec::new());
    for block in blocks {
        match block["type"].as_str().unwrap_or_default() {
            "text" => text.push_str(block["text"].as_str().unwrap_or_default()),
            "tool_use" => {
                let input = match &block["input"] {
                    Value::Null => "{}".to_owned(),
                    input => input.to_string(),
                };
                calls.push(json!({
                    "id": block["id"], "type": "function",
                    "function": {"name": block["name"], "arguments": input},
                }));
            }
            "thinking" => {
                thoughts.push_str(block["thinking"].as_str().unwrap_or_default());
                thinking.push(block.clone());
            }
            "redacted_thinking" => thinking.push(block.clone()),
            // What Anthropic's own tools did: the texts say what came of it.
            _ => {}
        }
    }
    let content = if text.is_empty() && !calls.is_empty() {
        Value::Null
    } else {
        text.into()
    };
    let mut answer = json!({"role": "assistant", "content": content, "refusal": null});
    if !calls.is_empty() {
        answer["tool_calls"] = calls.into();
    }
    if !thoughts.is_empty() {
        answer["reasoning_content"] = thoughts.into();
    }
    if !thinking.is_empty() {
        answer["thinking_blocks"] = thinking.into();
    }
    Some(json!({
        "id": shared::id("chatcmpl-", &message["id"]),
        "object": "chat.completion",
        "created": shared::now(),
        "model": message["model"],
        "choices": [{
            "index": 0,
            "message": answer,
            "logprobs": null,
            "finish_reason": shared::finish_reason(&message["stop_reason"]),
        }],
        "usage": shared::chat_usage(&message["usage"]),
    }))
}
