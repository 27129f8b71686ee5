//! The events of Anthropic's messages as the chunks of a chat.

use serde_json::{Value, json};

use super::{
    Asked, BrokenOff, ToChat,
    chunks::{Chunks, PING},
    shared,
};
use crate::codec::sse::Event;

/// What is known of a stream so far.
#[derive(Debug)]
pub(crate) struct ChatEvents {
    chunks: Chunks,
    /// Numbers of tools among all blocks: so many have begun.
    calls: u64,
    /// The block that is open calls a tool, and nothing of its input has come.
    empty_call: bool,
    usage: Value,
}

impl ToChat for ChatEvents {
    fn feed(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<(), BrokenOff> {
        let data = serde_json::from_slice(&event.data).map_err(|_| BrokenOff::NO_JSON)?;
        self.event(&data, out);
        Ok(())
    }

    fn end(&mut self, _: &mut Vec<u8>) -> bool {
        self.is_done()
    }
}

impl ChatEvents {
    pub(super) fn new(asked: Asked) -> Self {
        Self {
            chunks: Chunks::new(asked),
            calls: 0,
            empty_call: false,
            usage: json!({}),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.chunks.is_done()
    }

    /// Takes an event's data.
    pub(super) fn event(&mut self, data: &Value, out: &mut Vec<u8>) {
        match data["type"].as_str().unwrap_or_default() {
            "message_start" => {
                let message = &data["message"];
                self.used(&message["usage"]);
                self.chunks.begin(&message["id"], &message["model"], out);
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
                    self.chunks.finish(shared::finish_reason(reason), out);
                }
            }
            "message_stop" => self.chunks.stop(shared::chat_usage(&self.usage), out),
            // A sign of life stays one.
            "ping" => out.extend_from_slice(PING),
            "error" => {
                let error = &data["error"];
                let error = json!({
                    "message": error["message"], "type": error["type"], "param": null, "code": null,
                });
                self.chunks.failed(&error, out);
            }
            _ => {}
        }
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
        self.chunks.delta(delta, out);
    }
}
