//! The events of Anthropic's messages as the chunks of a chat.

use std::io::Write as _;

use serde_json::{Value, json};

use super::{Asked, BrokenOff, shared};
use crate::codec::sse::Event;

/// What is known of a stream so far.
#[derive(Debug)]
pub(crate) struct ChatEvents {
    asked: Asked,
    id: String,
    created: u64,
    model: Value,
    /// Numbers of tools among all blocks: so many have begun.
    calls: u64,
    /// The block that is open calls a tool, and nothing of its input has come.
    empty_call: bool,
    usage: Value,
    done: bool,
}

impl ChatEvents {
    pub(super) fn new(asked: Asked) -> Self {
        Self {
            asked,
            id: String::new(),
            created: shared::now(),
            model: Value::Null,
            calls: 0,
            empty_call: false,
            usage: json!({}),
            done: false,
        }
    }

    pub(super) fn feed(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<(), BrokenOff> {
        let Ok(data) = serde_json::from_slice::<Value>(&event.data) else {
            return Err(BrokenOff(
                "the upstream sent an event that is not valid JSON",
            ));
        };
        match data["type"].as_str().unwrap_or_default() {
            "message_start" => {
                let message = &data["message"];
                self.id = shared::id("chatcmpl-", &message["id"]);
                self.model = message["model"].clone();
                self.used(&message["usage"]);
                self.delta(json!({"role": "assistant", "content": ""}), out);
            }
            "content_block_start" => self.block(&data["content_block"], out),
            "content_block_delta" => self.piece(&data["delta"], out),
            "content_block_stop" if std::mem::take(&mut self.empty_call) => {
                self.arguments("{}", out);
            }
            "message_delta" => {
                self.used(&data["usage"]);
                let reason = &data["delta"]["stop_reason"];
                if reason.is_string() {
                    self.chunk(json!({}), Some(shared::finish_reason(reason)), out);
                }
            }
            "message_stop" => self.stop(out),
            // A sign of life stays one.
            "ping" => out.extend_from_slice(b": ping\n\n"),
            "error" => {
                let error = &data["error"];
                let error = json!({
                    "message": error["message"], "type": error["type"], "param": null, "code": null,
                });
                written(&json!({"error": error}), out);
                self.done = true;
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn end(&mut self, _: &mut Vec<u8>) -> Result<(), BrokenOff> {
        if self.done {
            Ok(())
        } else {
            Err(BrokenOff(
                "the upstream's stream ended before its last event",
            ))
        }
    }

    fn stop(&mut self, out: &mut Vec<u8>) {
        if self.asked.usage {
            let mut chunk = self.object(json!([]));
            chunk["usage"] = shared::chat_usage(&self.usage);
            written(&chunk, out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
        self.done = true;
    }

    fn block(&mut self, block: &Value, out: &mut Vec<u8>) {
        match block["type"].as_str().unwrap_or_default() {
            "tool_use" => {
                let call = json!({
                    "index": self.calls, "id": block["id"], "type": "function",
                    "function": {"name": block["name"], "arguments": ""},
                });
                self.calls += 1;
                self.delta(json!({"tool_calls": [call]}), out);
                // Some servers send all of the input at once, here.
                match &block["input"] {
                    Value::Object(input) if !input.is_empty() => {
                        self.arguments(&block["input"].to_string(), out);
                    }
                    _ => self.empty_call = true,
                }
            }
            "text" => {
                if let Some(text) = block["text"].as_str().filter(|text| !text.is_empty()) {
                    self.delta(json!({"content": text}), out);
                }
            }
            "redacted_thinking" => self.delta(json!({"thinking_blocks": [block]}), out),
            _ => {}
        }
    }

    fn piece(&mut self, delta: &Value, out: &mut Vec<u8>) {
        match delta["type"].as_str().unwrap_or_default() {
            "text_delta" => self.delta(json!({"content": delta["text"]}), out),
            "input_json_delta" => {
                let json = delta["partial_json"].as_str().unwrap_or_default();
                if !json.is_empty() {
                    self.empty_call = false;
                    self.arguments(json, out);
                }
            }
            "thinking_delta" => {
                let thoughts = &delta["thinking"];
                let block = json!({"type": "thinking", "thinking": thoughts});
                let delta = json!({"reasoning_content": thoughts, "thinking_blocks": [block]});
                self.delta(delta, out);
            }
            "signature_delta" => {
                let block =
                    json!({"type": "thinking", "thinking": "", "signature": delta["signature"]});
                self.delta(json!({"thinking_blocks": [block]}), out);
            }
            _ => {}
        }
    }

    /// More of the input of the tool that was called last.
    fn arguments(&self, json: &str, out: &mut Vec<u8>) {
        let index = self.calls.saturating_sub(1);
        let call = json!({"index": index, "function": {"arguments": json}});
        self.delta(json!({"tool_calls": [call]}), out);
    }

    /// Later amounts replace earlier ones.
    fn used(&mut self, usage: &Value) {
        for (name, amount) in usage.as_object().into_iter().flatten() {
            if amount.is_u64() {
                self.usage[name] = amount.clone();
            }
        }
    }

    fn delta(&self, delta: Value, out: &mut Vec<u8>) {
        self.chunk(delta, None, out);
    }

    fn chunk(&self, delta: Value, reason: Option<&str>, out: &mut Vec<u8>) {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason});
        let mut chunk = self.object(json!([choice]));
        if self.asked.usage {
            chunk["usage"] = Value::Null;
        }
        written(&chunk, out);
    }

    fn object(&self, choices: Value) -> Value {
        json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
            "choices": choices,
        })
    }
}

fn written(chunk: &Value, out: &mut Vec<u8>) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "data: {chunk}\n\n");
}
