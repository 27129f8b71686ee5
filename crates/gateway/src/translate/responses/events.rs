//! The events of the Responses API as the chunks of a chat.

use serde_json::{Value, json};

use super::answer;
use crate::{
    codec::sse::Event,
    provider::inband,
    translate::{
        Asked, BrokenOff, ToChat,
        chunks::{Chunks, PING},
    },
};

/// More calls than any model makes: memory stays bounded.
const MOST_CALLS: usize = 128;

/// What is known of a stream so far.
#[derive(Debug)]
pub(in crate::translate) struct ResponsesEvents {
    chunks: Chunks,
    begun: bool,
    calls: Vec<Call>,
    /// Characters of the texts of earlier parts, and which part is the current one.
    text: Text,
    /// Where the thoughts of the last piece stood.
    thought: Option<(Value, Value)>,
}

#[derive(Debug)]
struct Call {
    /// The number of its item in the output.
    output: Value,
    /// Nothing of its arguments has come.
    empty: bool,
}

#[derive(Debug, Default)]
struct Text {
    part: (Value, Value),
    /// Characters of the answer before this part, and of the part.
    before: usize,
    within: usize,
}

impl Text {
    fn add(&mut self, part: (Value, Value), piece: &str) {
        if self.part != part {
            self.before += std::mem::take(&mut self.within);
            self.part = part;
        }
        self.within += piece.chars().count();
    }
}

impl ToChat for ResponsesEvents {
    fn feed(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<(), BrokenOff> {
        // Some servers end their streams as a chat's.
        if self.chunks.is_done() || !event.answers() {
            return Ok(());
        }
        let data = event.data.trim_ascii();
        if let Some(error) = inband::error_in(data, event.name == b"error") {
            self.failed(&error.body, out);
            return Ok(());
        }
        let data = serde_json::from_slice(data).map_err(|_| BrokenOff::NO_JSON)?;
        let before = out.len();
        self.event(&data, out)?;
        if out.len() == before {
            // Searches and thoughts that nobody sees may take minutes.
            out.extend_from_slice(PING);
        }
        Ok(())
    }

    fn end(&mut self, _: &mut Vec<u8>) -> bool {
        self.chunks.is_done()
    }
}

impl ResponsesEvents {
    pub(in crate::translate) fn new(asked: Asked) -> Self {
        Self {
            chunks: Chunks::new(asked),
            begun: false,
            calls: Vec::new(),
            text: Text::default(),
            thought: None,
        }
    }

    fn event(&mut self, data: &Value, out: &mut Vec<u8>) -> Result<(), BrokenOff> {
        let response = &data["response"];
        if !std::mem::replace(&mut self.begun, true) {
            self.chunks.begin(&response["id"], &response["model"], out);
        }
        let piece = data["delta"].as_str().unwrap_or_default();
        match data["type"].as_str().unwrap_or_default() {
            "response.output_text.delta" => {
                self.text.add(part(data), piece);
                let probable = data["logprobs"].as_array().cloned().unwrap_or_default();
                let probable = answer::probabilities(probable);
                self.chunks
                    .probable(json!({"content": piece}), probable, out);
            }
            "response.refusal.delta" => self.chunks.delta(json!({"refusal": piece}), out),
            "response.reasoning_summary_text.delta" => {
                self.think(data, &data["summary_index"], piece, out);
            }
            "response.reasoning_text.delta" => {
                self.think(data, &data["content_index"], piece, out);
            }
            "response.output_text.annotation.added" => {
                self.text.add(part(data), "");
                let citation = answer::citation(&data["annotation"], self.text.before);
                if let Some(citation) = citation {
                    self.chunks.delta(json!({"annotations": [citation]}), out);
                }
            }
            "response.output_item.added" if is_call(&data["item"]) => self.call(data, out)?,
            "response.function_call_arguments.delta" => self.arguments(data, piece, out),
            "response.function_call_arguments.done" => self.rest(data, data, out),
            "response.output_item.done" if is_call(&data["item"]) => {
                self.rest(data, &data["item"], out);
            }
            "response.output_item.done" => {
                if let Some(thoughts) = answer::kept(&data["item"]) {
                    self.chunks
                        .delta(json!({"reasoning_items": [thoughts]}), out);
                }
            }
            "response.completed" | "response.incomplete" => {
                let reason = answer::finish_reason(response, !self.calls.is_empty());
                let Some(reason) = reason else {
                    return Err(BrokenOff("the upstream's answer ended, but not as one"));
                };
                self.chunks.finish(reason, out);
                self.chunks.stop(answer::usage(&response["usage"]), out);
            }
            _ => {}
        }
        Ok(())
    }

    /// A piece of thoughts; another part of them is another paragraph.
    fn think(&mut self, data: &Value, index: &Value, piece: &str, out: &mut Vec<u8>) {
        if piece.is_empty() {
            return;
        }
        let place = (data["output_index"].clone(), index.clone());
        let last = self.thought.replace(place.clone());
        let apart = last.is_some_and(|last| last != place);
        let between = if apart { answer::BETWEEN_THOUGHTS } else { "" };
        let thoughts = format!("{between}{piece}");
        self.chunks
            .delta(json!({"reasoning_content": thoughts}), out);
    }

    fn call(&mut self, data: &Value, out: &mut Vec<u8>) -> Result<(), BrokenOff> {
        if self.calls.len() >= MOST_CALLS {
            return Err(BrokenOff("the upstream calls too many tools"));
        }
        let item = &data["item"];
        let call = json!({
            "index": self.calls.len(), "id": item["call_id"], "type": "function",
            "function": {"name": item["name"], "arguments": ""},
        });
        self.calls.push(Call {
            output: data["output_index"].clone(),
            empty: true,
        });
        self.chunks.delta(json!({"tool_calls": [call]}), out);
        Ok(())
    }

    /// A piece of the arguments of the call that an event names, else of the last.
    fn arguments(&mut self, data: &Value, piece: &str, out: &mut Vec<u8>) {
        let output = &data["output_index"];
        let found = self.calls.iter().rposition(|call| call.output == *output);
        let Some(index) = found.or(self.calls.len().checked_sub(1)) else {
            return;
        };
        if piece.is_empty() {
            return;
        }
        self.calls[index].empty = false;
        let call = json!({"index": index, "function": {"arguments": piece}});
        self.chunks.delta(json!({"tool_calls": [call]}), out);
    }

    /// The arguments of a call that is whole, where none came piece by piece.
    fn rest(&mut self, data: &Value, item: &Value, out: &mut Vec<u8>) {
        let output = &data["output_index"];
        let call = self.calls.iter().rfind(|call| call.output == *output);
        if call.is_some_and(|call| call.empty) {
            self.arguments(data, answer::arguments(item), out);
        }
    }

    /// `body`: `{"error": ...}`. The code of an error says more than its type.
    fn failed(&mut self, body: &[u8], out: &mut Vec<u8>) {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let error = &body["error"];
        let message = error["message"].as_str().or(error.as_str());
        let message = message.unwrap_or("The upstream reported an error");
        let kind = match error["type"].as_str() {
            Some(kind) if kind != "error" => kind,
            _ => error["code"].as_str().unwrap_or("server_error"),
        };
        let error = json!({
            "message": message, "type": kind, "param": error["param"], "code": error["code"],
        });
        self.chunks.failed(&error, out);
    }
}

fn is_call(item: &Value) -> bool {
    item["type"] == "function_call"
}

/// Which part of the answer a piece of text belongs to.
fn part(data: &Value) -> (Value, Value) {
    (data["output_index"].clone(), data["content_index"].clone())
}
