//! The chunks of a chat as the events of Anthropic's messages.
//!
//! Blocks come one after the other: each is closed before the next begins. A chat names the tool call that a piece belongs
//! to instead; pieces of a call that came too early wait until its block can begin.

use std::io::Write as _;

use serde_json::{Value, json};

use super::{Asked, BrokenOff, messages_answer, shared};
use crate::{codec::sse::Event, provider::anthropic};

/// More calls, or more text of calls that wait, than any model makes: memory stays bounded.
const MOST_CALLS: usize = 128;
const MOST_WAITING_BYTES: usize = 1024 * 1024;

/// What is known of a stream so far.
#[derive(Debug)]
pub(crate) struct MessagesEvents {
    asked: Asked,
    begun: bool,
    /// Of the block that is open, or of the next.
    index: u64,
    open: Option<Open>,
    calls: Vec<Call>,
    /// The call whose block is open or comes next.
    current: usize,
    refusal: bool,
    reason: Option<String>,
    usage: Value,
    done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Text,
    Thinking,
    Tool,
}

#[derive(Debug, Default)]
struct Call {
    /// The chat's number of it.
    number: u64,
    id: Value,
    name: String,
    /// Pieces that wait for its block.
    waiting: String,
    arguments: Nesting,
    begun: bool,
}

/// How far the JSON of a call's arguments has come.
#[derive(Debug, Default)]
struct Nesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
    whole: bool,
}

impl Nesting {
    fn feed(&mut self, json: &str) {
        for byte in json.bytes() {
            match (self.in_string, byte) {
                (true, _) if self.escaped => self.escaped = false,
                (true, b'\\') => self.escaped = true,
                (true, b'"') => self.in_string = false,
                (true, _) => {}
                (false, b'"') => self.in_string = true,
                (false, b'{' | b'[') => {
                    self.depth += 1;
                    self.whole = false;
                }
                (false, b'}' | b']') => {
                    self.depth = self.depth.saturating_sub(1);
                    self.whole = self.depth == 0;
                }
                (false, _) => {}
            }
        }
    }
}

impl MessagesEvents {
    pub(super) fn new(asked: Asked) -> Self {
        Self {
            asked,
            begun: false,
            index: 0,
            open: None,
            calls: Vec::new(),
            current: 0,
            refusal: false,
            reason: None,
            usage: Value::Null,
            done: false,
        }
    }

    pub(super) fn feed(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<(), BrokenOff> {
        let data = event.data.trim_ascii();
        if self.done || data.is_empty() {
            return Ok(());
        }
        if data == b"[DONE]" {
            return self.end(out);
        }
        if let Some(error) = crate::provider::inband::error_in(data, event.name == b"error") {
            self.failed(&error.body, error.status, out);
            return Ok(());
        }
        let Ok(chunk) = serde_json::from_slice::<Value>(data) else {
            return Err(BrokenOff::NO_JSON);
        };
        if !chunk.is_object() {
            return Ok(());
        }
        self.begin(&chunk, out);
        if chunk["usage"].is_object() {
            self.usage = chunk["usage"].clone();
        }
        let choice = &chunk["choices"][0];
        self.delta(&choice["delta"], out)?;
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.reason = Some(reason.to_owned());
        }
        if choice["usage"].is_object() {
            self.usage = choice["usage"].clone();
        }
        Ok(())
    }

    pub(super) fn end(&mut self, out: &mut Vec<u8>) -> Result<(), BrokenOff> {
        if self.done {
            return Ok(());
        }
        let Some(reason) = self.reason.take() else {
            return Err(BrokenOff(
                "the upstream's stream ended before its last chunk",
            ));
        };
        self.rest_of_calls(out);
        self.close(out);
        let refusal = if self.refusal { "refused" } else { "" };
        let reason = messages_answer::reason(Some(&reason), !self.calls.is_empty(), refusal);
        event(
            &json!({
                "type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null},
                "usage": shared::messages_usage(&self.usage),
            }),
            out,
        );
        event(&json!({"type": "message_stop"}), out);
        self.done = true;
        Ok(())
    }

    fn failed(&mut self, body: &[u8], status: http::StatusCode, out: &mut Vec<u8>) {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let error = &body["error"];
        let message = error["message"].as_str().or(error.as_str());
        let message = message.unwrap_or("The upstream reported an error");
        let error = json!({"type": anthropic::kind_of(status), "message": message});
        event(&json!({"type": "error", "error": error}), out);
        self.done = true;
    }

    fn begin(&mut self, chunk: &Value, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let message = json!({
            "id": shared::id("msg_", &chunk["id"]), "type": "message", "role": "assistant",
            "model": chunk["model"], "content": [], "stop_reason": null, "stop_sequence": null,
            // Known at the end only: an estimate until then.
            "usage": {
                "input_tokens": self.asked.input_tokens, "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0, "output_tokens": 0,
            },
        });
        event(&json!({"type": "message_start", "message": message}), out);
    }

    fn delta(&mut self, delta: &Value, out: &mut Vec<u8>) -> Result<(), BrokenOff> {
        if let Some(thoughts) = messages_answer::thoughts(delta) {
            let piece = json!({"type": "thinking_delta", "thinking": thoughts});
            self.piece(Open::Thinking, piece, out);
        }
        let text = shared::text_of(&delta["content"], "");
        let refusal = delta["refusal"].as_str().unwrap_or_default();
        self.refusal |= !refusal.is_empty();
        for text in [text.as_str(), refusal] {
            if !text.is_empty() {
                self.piece(Open::Text, json!({"type": "text_delta", "text": text}), out);
            }
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.call(call, out)?;
        }
        Ok(())
    }

    /// A piece of a text or of thoughts. While calls wait nothing else may come between.
    fn piece(&mut self, kind: Open, piece: Value, out: &mut Vec<u8>) {
        if self.open != Some(kind) {
            if self.open == Some(Open::Tool) {
                self.rest_of_calls(out);
            }
            self.close(out);
            let block = match kind {
                Open::Thinking => json!({"type": "thinking", "thinking": "", "signature": ""}),
                _ => json!({"type": "text", "text": ""}),
            };
            self.start(kind, &block, out);
        }
        self.send(&piece, out);
    }

    fn call(&mut self, piece: &Value, out: &mut Vec<u8>) -> Result<(), BrokenOff> {
        let at = self.place(piece)?;
        let function = &piece["function"];
        let call = &mut self.calls[at];
        if call.name.is_empty() {
            call.name = function["name"].as_str().unwrap_or_default().to_owned();
        }
        if call.id.is_null() {
            call.id = piece["id"].clone();
        }
        let arguments = match &function["arguments"] {
            Value::String(text) => text.clone(),
            Value::Object(_) => function["arguments"].to_string(),
            _ => String::new(),
        };
        call.arguments.feed(&arguments);
        call.waiting.push_str(&arguments);
        // The next call may begin when the one before is whole.
        while self.current < at && self.calls[self.current].arguments.whole {
            self.advance(out);
        }
        if at < self.current {
            // Its block is closed. White space after its end changes nothing.
            let late = std::mem::take(&mut self.calls[at].waiting);
            if !late.trim().is_empty() {
                return Err(BrokenOff("the upstream goes back to an earlier tool call"));
            }
        } else if at == self.current {
            self.stream_call(out);
        }
        let waiting = self.calls.iter().map(|call| call.waiting.len());
        if waiting.sum::<usize>() > MOST_WAITING_BYTES {
            return Err(BrokenOff("the upstream mixes too much of its tool calls"));
        }
        Ok(())
    }

    /// Where the call of a piece is. Servers that number none, or all alike, give each its id.
    fn place(&mut self, piece: &Value) -> Result<usize, BrokenOff> {
        let id = &piece["id"];
        let number = piece["index"].as_u64();
        let found = match number {
            Some(number) => {
                let known = |call: &Call| {
                    call.number == number
                        && (id.as_str().is_none_or(str::is_empty) || call.id == *id)
                };
                self.calls.iter().rposition(known)
            }
            None if id.is_string() => self.calls.iter().position(|call| call.id == *id),
            None => self.calls.len().checked_sub(1),
        };
        if let Some(at) = found {
            return Ok(at);
        }
        if self.calls.len() >= MOST_CALLS {
            return Err(BrokenOff("the upstream calls too many tools"));
        }
        self.calls.push(Call {
            number: number.unwrap_or(self.calls.len() as u64),
            ..Call::default()
        });
        Ok(self.calls.len() - 1)
    }

    /// Sends what waits of the current call.
    fn stream_call(&mut self, out: &mut Vec<u8>) {
        let call = &mut self.calls[self.current];
        if call.name.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut call.waiting);
        if !std::mem::replace(&mut call.begun, true) {
            let id = shared::id("", &call.id);
            let block = json!({"type": "tool_use", "id": id, "name": call.name, "input": {}});
            self.close(out);
            self.start(Open::Tool, &block, out);
        }
        if !waiting.is_empty() {
            let piece = json!({"type": "input_json_delta", "partial_json": waiting});
            self.send(&piece, out);
        }
    }

    fn advance(&mut self, out: &mut Vec<u8>) {
        self.stream_call(out);
        self.current += 1;
    }

    /// All calls that have come, in their order.
    fn rest_of_calls(&mut self, out: &mut Vec<u8>) {
        while self.current < self.calls.len() {
            self.advance(out);
        }
    }

    fn start(&mut self, kind: Open, block: &Value, out: &mut Vec<u8>) {
        let start =
            json!({"type": "content_block_start", "index": self.index, "content_block": block});
        event(&start, out);
        self.open = Some(kind);
    }

    fn send(&self, piece: &Value, out: &mut Vec<u8>) {
        let delta = json!({"type": "content_block_delta", "index": self.index, "delta": piece});
        event(&delta, out);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.open.take().is_some() {
            event(
                &json!({"type": "content_block_stop", "index": self.index}),
                out,
            );
            self.index += 1;
        }
    }
}

fn event(data: &Value, out: &mut Vec<u8>) {
    let name = data["type"].as_str().unwrap_or_default();
    // Writing to a vector cannot fail.
    let _ = write!(out, "event: {name}\ndata: {data}\n\n");
}
