//! The events of Converse as the chunks of a chat: each is one of Anthropic's under another name.

use serde_json::{Value, json};

use super::answer;
use crate::{
    codec::sse::Event,
    translate::{Asked, BrokenOff, ToChat, chat_events::ChatEvents, shared},
};

/// What is known of a stream so far.
#[derive(Debug)]
pub(in crate::translate) struct ConverseEvents {
    chat: ChatEvents,
    model: String,
    /// The reason of the end has come. The usage may follow.
    stopped: bool,
}

impl ToChat for ConverseEvents {
    fn feed(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<(), BrokenOff> {
        let data = serde_json::from_slice(&event.data).map_err(|_| BrokenOff::NO_JSON)?;
        if !self.chat.is_done() {
            self.event(&data, out);
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> bool {
        if self.stopped && !self.chat.is_done() {
            self.take(json!({"type": "message_stop"}), out);
        }
        self.chat.is_done()
    }
}

impl ConverseEvents {
    pub(in crate::translate) fn new(asked: Asked) -> Self {
        Self {
            model: asked.model.clone(),
            chat: ChatEvents::new(asked),
            stopped: false,
        }
    }

    fn event(&mut self, data: &Value, out: &mut Vec<u8>) {
        match data["type"].as_str().unwrap_or_default() {
            "messageStart" => {
                let id = shared::id("msg_", &Value::Null);
                let message = json!({"id": id, "model": self.model, "usage": {}});
                self.take(json!({"type": "message_start", "message": message}), out);
            }
            "contentBlockStart" => {
                let tool = &data["start"]["toolUse"];
                if tool.is_object() {
                    self.start(
                        json!({
                            "type": "tool_use", "id": tool["toolUseId"], "name": tool["name"], "input": {},
                        }),
                        out,
                    );
                }
            }
            "contentBlockDelta" => self.delta(&data["delta"], out),
            "contentBlockStop" => self.take(json!({"type": "content_block_stop"}), out),
            "messageStop" => {
                self.stopped = true;
                let reason = answer::stop_reason(&data["stopReason"]);
                let delta = json!({"stop_reason": reason});
                self.take(json!({"type": "message_delta", "delta": delta}), out);
            }
            "metadata" => {
                let usage = answer::usage(&data["usage"]);
                self.take(json!({"type": "message_delta", "usage": usage}), out);
                self.take(json!({"type": "message_stop"}), out);
            }
            // Bedrock's exceptions in Anthropic's form.
            "error" => self.chat.event(data, out),
            _ => {}
        }
    }

    fn delta(&mut self, delta: &Value, out: &mut Vec<u8>) {
        let thoughts = &delta["reasoningContent"];
        let piece = if delta["text"].is_string() {
            json!({"type": "text_delta", "text": delta["text"]})
        } else if delta["toolUse"].is_object() {
            json!({"type": "input_json_delta", "partial_json": delta["toolUse"]["input"]})
        } else if thoughts["text"].is_string() {
            json!({"type": "thinking_delta", "thinking": thoughts["text"]})
        } else if thoughts["signature"].is_string() {
            json!({"type": "signature_delta", "signature": thoughts["signature"]})
        } else if thoughts["redactedContent"].is_string() {
            let data = &thoughts["redactedContent"];
            return self.start(json!({"type": "redacted_thinking", "data": data}), out);
        } else {
            return;
        };
        self.take(json!({"type": "content_block_delta", "delta": piece}), out);
    }

    fn start(&mut self, block: Value, out: &mut Vec<u8>) {
        self.take(
            json!({"type": "content_block_start", "content_block": block}),
            out,
        );
    }

    fn take(&mut self, event: Value, out: &mut Vec<u8>) {
        self.chat.event(&event, out);
    }
}
