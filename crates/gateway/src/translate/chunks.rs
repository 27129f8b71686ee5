//! The chunks of one chat, as they are written.

use std::io::Write as _;

use serde_json::{Value, json};

use super::{Asked, shared};

/// A sign of life: a comment.
pub(super) const PING: &[u8] = b": ping\n\n";

/// Writes the chunks of one chat.
#[derive(Debug)]
pub(super) struct Chunks {
    asked: Asked,
    id: String,
    created: u64,
    model: Value,
    done: bool,
}

impl Chunks {
    pub(super) fn new(asked: Asked) -> Self {
        Self {
            asked,
            id: String::new(),
            created: shared::now(),
            model: Value::Null,
            done: false,
        }
    }

    /// Whether the last chunk, or an error, has been written.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// The first chunk. `id` and `model`: as the upstream names them.
    pub(super) fn begin(&mut self, id: &Value, model: &Value, out: &mut Vec<u8>) {
        self.id = shared::id("chatcmpl-", id);
        self.model = model.clone();
        self.delta(json!({"role": "assistant", "content": ""}), out);
    }

    pub(super) fn delta(&self, delta: Value, out: &mut Vec<u8>) {
        self.chunk(delta, Value::Null, None, out);
    }

    /// A piece of the answer's text with the probabilities of its tokens.
    pub(super) fn probable(&self, delta: Value, logprobs: Value, out: &mut Vec<u8>) {
        self.chunk(delta, logprobs, None, out);
    }

    /// The chunk that says why the answer ends.
    pub(super) fn finish(&self, reason: &str, out: &mut Vec<u8>) {
        self.chunk(json!({}), Value::Null, Some(reason), out);
    }

    /// The end of the stream. `usage`: a chat's.
    pub(super) fn stop(&mut self, usage: Value, out: &mut Vec<u8>) {
        if self.asked.usage {
            let mut chunk = self.object(json!([]));
            chunk["usage"] = usage;
            written(&chunk, out);
        } else {
            // Once: an answer has one end.
            let _ = self.asked.hidden.set(usage.to_string());
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
        self.done = true;
    }

    /// An error, after which nothing comes.
    pub(super) fn failed(&mut self, error: &Value, out: &mut Vec<u8>) {
        written(&json!({"error": error}), out);
        self.done = true;
    }

    fn chunk(&self, delta: Value, logprobs: Value, reason: Option<&str>, out: &mut Vec<u8>) {
        let choice =
            json!({"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason});
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
