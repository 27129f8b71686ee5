//! Requests as OpenAI's API has them, and their answers' bytes.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

/// Of a call's text, roughly: what the gateway estimates with, too.
const BYTES_PER_TOKEN: usize = 4;

/// What an answer is made of: one for each token.
const WORDS: [&str; 8] = [
    "right ", "of ", "way ", "is ", "given, ", "never ", "taken; ", "so ",
];

/// What a call asks for.
#[derive(Debug, Deserialize)]
pub(crate) struct Wanted {
    pub(crate) model: String,
    stream: Option<bool>,
    messages: Option<Vec<Value>>,
    prompt: Option<Value>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    request_id: Option<String>,
}

/// One answer, to be given whole or in pieces.
#[derive(Debug)]
pub(crate) struct Answer {
    number: u64,
    chat: bool,
    model: String,
    prompt_tokens: u64,
    tokens: u64,
}

// === impl Wanted ===

impl Wanted {
    /// Reads a call's body.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(chat: bool, body: &[u8]) -> Result<Self, String> {
        let wanted: Self = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        match (chat, &wanted.messages, &wanted.prompt) {
            (true, None, _) => Err("Missing required parameter: 'messages'.".into()),
            (false, _, None) => Err("Missing required parameter: 'prompt'.".into()),
            _ => Ok(wanted),
        }
    }

    /// Whether the answer is wanted in pieces.
    pub(crate) fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    /// The client's own name of the request.
    pub(crate) fn id(&self) -> String {
        self.request_id.clone().unwrap_or_default()
    }

    /// The most tokens its answer may have.
    pub(crate) fn max_tokens(&self) -> Option<u64> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    /// Of its text.
    pub(crate) fn prompt_tokens(&self) -> u64 {
        let contents = self
            .messages
            .iter()
            .flatten()
            .map(|message| &message["content"]);
        let bytes: usize = contents.chain(&self.prompt).map(text_bytes).sum();
        bytes.div_ceil(BYTES_PER_TOKEN) as u64
    }
}

fn text_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(parts) => parts.iter().map(text_bytes).sum(),
        Value::Object(part) => part.get("text").map_or(0, text_bytes),
        _ => 0,
    }
}

// === impl Answer ===

impl Answer {
    pub(crate) fn new(number: u64, chat: bool, wanted: &Wanted, tokens: u64) -> Self {
        Self {
            number,
            chat,
            model: wanted.model.clone(),
            prompt_tokens: wanted.prompt_tokens(),
            tokens,
        }
    }

    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    pub(crate) fn total_tokens(&self) -> u64 {
        self.prompt_tokens + self.tokens
    }

    fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": self.total_tokens(),
        })
    }

    fn text(from: u64, to: u64) -> String {
        let words = WORDS.iter().cycle();
        let skipped = from % WORDS.len() as u64;
        words
            .skip(usize::try_from(skipped).unwrap_or_default())
            .take(usize::try_from(to - from).unwrap_or(usize::MAX))
            .copied()
            .collect()
    }

    /// All of it.
    pub(crate) fn whole(&self) -> Bytes {
        let text = Self::text(0, self.tokens);
        let (object, choice) = if self.chat {
            let message = json!({"role": "assistant", "content": text});
            (
                "chat.completion",
                json!({"index": 0, "message": message, "finish_reason": "stop"}),
            )
        } else {
            (
                "text_completion",
                json!({"index": 0, "text": text, "logprobs": null, "finish_reason": "stop"}),
            )
        };
        self.object(object, &[choice], &self.usage()).into()
    }

    /// The chunk of a stream with these of its tokens.
    pub(crate) fn chunk(&self, from: u64, to: u64) -> Bytes {
        let text = Self::text(from, to);
        self.event(&self.piece(&text, None), &Value::Null)
    }

    /// The last chunk, with the usage.
    pub(crate) fn last_chunk(&self) -> Bytes {
        let last = self.event(&self.piece("", Some("stop")), &self.usage());
        [&last[..], b"data: [DONE]\n\n"].concat().into()
    }

    fn piece(&self, text: &str, finish: Option<&str>) -> Value {
        if self.chat {
            json!({"index": 0, "delta": {"content": text}, "finish_reason": finish})
        } else {
            json!({"index": 0, "text": text, "logprobs": null, "finish_reason": finish})
        }
    }

    fn event(&self, choice: &Value, usage: &Value) -> Bytes {
        let object = if self.chat {
            "chat.completion.chunk"
        } else {
            "text_completion"
        };
        let object = self.object(object, std::slice::from_ref(choice), usage);
        format!("data: {object}\n\n").into()
    }

    fn object(&self, object: &str, choices: &[Value], usage: &Value) -> String {
        json!({
            "id": format!("simulated-{}", self.number), "object": object, "created": 1_700_000_000,
            "model": self.model, "choices": choices, "usage": usage,
        })
        .to_string()
    }
}

/// An error in OpenAI's shape.
pub(crate) fn error(status: u16, kind: &str, message: &str) -> Bytes {
    let error =
        json!({"message": message, "type": kind, "param": null, "code": status.to_string()});
    json!({"error": error}).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streamed_answer_equals_the_whole_answer() {
        let body =
            br#"{"model":"m","messages":[{"role":"user","content":"12345"}],"request_id":"x-1"}"#;
        let wanted = Wanted::parse(true, body).unwrap();
        assert_eq!((wanted.id().as_str(), wanted.prompt_tokens()), ("x-1", 2));
        let answer = Answer::new(1, true, &wanted, 11);
        let whole: Value = serde_json::from_slice(&answer.whole()).unwrap();
        let mut text = String::new();
        for (from, to) in [(0, 3), (3, 4), (4, 11)] {
            let chunk = answer.chunk(from, to);
            let data = std::str::from_utf8(&chunk)
                .unwrap()
                .strip_prefix("data: ")
                .unwrap();
            let chunk: Value = serde_json::from_str(data).unwrap();
            text += chunk["choices"][0]["delta"]["content"].as_str().unwrap();
        }
        assert_eq!(whole["choices"][0]["message"]["content"], text);
        assert_eq!(whole["usage"]["total_tokens"], 13);
        let last = answer.last_chunk();
        let last = std::str::from_utf8(&last).unwrap();
        assert!(last.contains("\"total_tokens\":13") && last.ends_with("data: [DONE]\n\n"));
    }

    #[test]
    fn invalid_call_is_refused_with_its_reason() {
        assert!(Wanted::parse(true, b"{").is_err());
        assert!(
            Wanted::parse(true, br#"{"model":"m"}"#)
                .unwrap_err()
                .contains("messages")
        );
        assert!(
            Wanted::parse(false, br#"{"model":"m","messages":[]}"#)
                .unwrap_err()
                .contains("prompt")
        );
    }
}
