//! An answer of Converse as one of Anthropic's messages.

use serde_json::{Value, json};

use crate::translate::shared;

/// `model`: what Bedrock calls it, as the answer does not say. `None`: it is no answer.
pub(in crate::translate) fn answer(answer: &Value, model: &str) -> Option<Value> {
    let blocks = answer["output"]["message"]["content"].as_array()?;
    let content: Vec<Value> = blocks.iter().filter_map(block).collect();
    Some(json!({
        "id": shared::id("msg_", &Value::Null), "type": "message", "role": "assistant", "model": model,
        "content": content,
        "stop_reason": stop_reason(&answer["stopReason"]), "stop_sequence": null,
        "usage": usage(&answer["usage"]),
    }))
}

fn block(block: &Value) -> Option<Value> {
    let (kind, value) = block.as_object()?.iter().next()?;
    Some(match kind.as_str() {
        "text" => json!({"type": "text", "text": value}),
        "toolUse" => json!({
            "type": "tool_use", "id": value["toolUseId"], "name": value["name"], "input": value["input"],
        }),
        "reasoningContent" => match &value["redactedContent"] {
            Value::Null => {
                let thoughts = &value["reasoningText"];
                let mut block = json!({"type": "thinking", "thinking": thoughts["text"]});
                // Thoughts without one are not to be sent again.
                if thoughts["signature"].is_string() {
                    block["signature"] = thoughts["signature"].clone();
                }
                block
            }
            data => json!({"type": "redacted_thinking", "data": data}),
        },
        "citationsContent" => {
            json!({"type": "text", "text": shared::text_of(&value["content"], "")})
        }
        // Images and what Bedrock's own tools did: a chat has no form for them.
        _ => return None,
    })
}

/// Most of Converse's reasons are Anthropic's.
pub(super) fn stop_reason(reason: &Value) -> Value {
    match reason.as_str() {
        Some("guardrail_intervened" | "content_filtered") => "refusal".into(),
        _ => reason.clone(),
    }
}

/// A message's usage.
pub(super) fn usage(usage: &Value) -> Value {
    let amount = |name: &str| usage[name].as_u64().unwrap_or(0);
    json!({
        "input_tokens": amount("inputTokens"),
        "cache_read_input_tokens": amount("cacheReadInputTokens"),
        "cache_creation_input_tokens": amount("cacheWriteInputTokens"),
        "output_tokens": amount("outputTokens"),
    })
}
