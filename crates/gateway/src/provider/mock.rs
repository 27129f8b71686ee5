//! `mock_response`: answers made in process, in the exact shapes of OpenAI and Anthropic.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    Endpoint,
    problem::Problem,
    provider::{mock_messages, mock_others},
    request::Request,
    tokens::{self, usage::Usage},
};

/// OpenAI's own bound on `n`: a mock must not be a way to fill the memory.
const MOST_CHOICES: u64 = 128;

/// The error that a mock's text asks for, as an upstream would have answered it.
pub(crate) fn raised(response: &str) -> Option<(StatusCode, &'static str)> {
    match response {
        "litellm.RateLimitError" => Some((
            StatusCode::TOO_MANY_REQUESTS,
            "litellm.RateLimitError: this is a mock rate limit error",
        )),
        "litellm.InternalServerError" => Some((
            StatusCode::INTERNAL_SERVER_ERROR,
            "litellm.InternalServerError: this is a mock internal server error",
        )),
        "litellm.ContextWindowExceededError" => Some((
            StatusCode::BAD_REQUEST,
            "litellm.ContextWindowExceededError: this is a mock context window exceeded error",
        )),
        _ if response.starts_with("Exception: content_filter_policy") => Some((
            StatusCode::BAD_REQUEST,
            "litellm.ContentPolicyViolationError: the request was filtered by a mock content management policy",
        )),
        _ => None,
    }
}

/// An answer's chunks and what it used.
#[derive(Debug)]
pub(crate) struct MockAnswer {
    pub(crate) content_type: &'static str,
    pub(crate) chunks: Vec<Bytes>,
    pub(crate) usage: Usage,
}

impl MockAnswer {
    /// One JSON object.
    pub(super) fn json(body: &Value, usage: Usage) -> Self {
        Self {
            content_type: "application/json",
            chunks: vec![Bytes::from(body.to_string())],
            usage,
        }
    }
}

/// Whether a mock has an answer, or an error, for an endpoint.
pub(crate) fn answers(endpoint: Endpoint, response: &str) -> bool {
    let others = [
        Endpoint::CountTokens,
        Endpoint::Embeddings,
        Endpoint::ImageGenerations,
    ];
    let ours = endpoint.writes_text() || others.contains(&endpoint);
    ours || raised(response).is_some()
}

/// Answers with the text.
pub(crate) fn answer(
    request: &Request<'_>,
    model: &str,
    text: &str,
) -> Result<MockAnswer, Problem> {
    match request.endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions => choices(request, model, text),
        Endpoint::Responses => Ok(mock_others::response(request, model, text)),
        Endpoint::Messages => Ok(mock_messages::message(request, model, text)),
        Endpoint::CountTokens => Ok(mock_messages::count(request)),
        Endpoint::Embeddings => mock_others::embeddings(request, model),
        _ => Ok(mock_others::image(text)),
    }
}

/// Answers with the text, as often as `n` asks for.
fn choices(request: &Request<'_>, model: &str, text: &str) -> Result<MockAnswer, Problem> {
    let choices = match request.fields.get("n").map(str::parse::<u64>) {
        None => 1,
        Some(Ok(n)) if (1..=MOST_CHOICES).contains(&n) => n,
        Some(_) => {
            return Err(Problem::invalid(
                "n",
                format!("Invalid value for 'n': expected an integer between 1 and {MOST_CHOICES}"),
            ));
        }
    };
    let prompt = tokens::input_tokens(request);
    let completion = (text.len() as u64).div_ceil(tokens::BYTES_PER_TOKEN) * choices;
    let usage = Usage {
        input: prompt,
        output: completion,
    };
    let usage_json = json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": usage.total()});
    let chat = request.endpoint == Endpoint::ChatCompletions;
    let mock = Mock {
        chat,
        model,
        text,
        choices,
        head: Head::new(if chat { "chatcmpl" } else { "cmpl" }),
    };
    if !request.stream {
        return Ok(MockAnswer::json(&mock.whole(&usage_json), usage));
    }
    let wants_usage = request.fields.get("stream_options").is_some_and(|options| {
        serde_json::from_str::<Value>(options).is_ok_and(|options| options["include_usage"] == true)
    });
    let mut events = mock.events();
    if wants_usage {
        for event in &mut events {
            event["usage"] = Value::Null;
        }
        events.push(mock.event(json!([]), Some(&usage_json)));
    }
    let mut chunks: Vec<Bytes> = events
        .iter()
        .map(|event| Bytes::from(format!("data: {event}\n\n")))
        .collect();
    chunks.push(Bytes::from_static(b"data: [DONE]\n\n"));
    Ok(MockAnswer {
        content_type: "text/event-stream; charset=utf-8",
        chunks,
        usage,
    })
}

/// What is the same in all chunks of an answer.
struct Head {
    id: String,
    created: u64,
}

impl Head {
    fn new(prefix: &str) -> Self {
        Self {
            id: format!("{prefix}-{}", uuid::Uuid::new_v4().simple()),
            created: now(),
        }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs())
}

struct Mock<'a> {
    /// Chat, not text.
    chat: bool,
    model: &'a str,
    text: &'a str,
    choices: u64,
    head: Head,
}

impl Mock<'_> {
    fn object(&self, kind: &str, choices: Value) -> Value {
        json!({
            "id": self.head.id, "object": kind, "created": self.head.created, "model": self.model,
            "choices": choices, "system_fingerprint": null,
        })
    }

    fn whole(&self, usage: &Value) -> Value {
        let choice = |index| {
            if self.chat {
                json!({
                    "index": index, "finish_reason": "stop", "logprobs": null,
                    "message": {"role": "assistant", "content": self.text, "refusal": null},
                })
            } else {
                json!({"index": index, "finish_reason": "stop", "logprobs": null, "text": self.text})
            }
        };
        let kind = if self.chat {
            "chat.completion"
        } else {
            "text_completion"
        };
        let mut object = self.object(kind, (0..self.choices).map(choice).collect());
        object["usage"] = usage.clone();
        object
    }

    fn event(&self, choices: Value, usage: Option<&Value>) -> Value {
        let kind = if self.chat {
            "chat.completion.chunk"
        } else {
            "text_completion"
        };
        let mut object = self.object(kind, choices);
        if let Some(usage) = usage {
            object["usage"] = usage.clone();
        }
        object
    }

    /// The role first, then word by word, then the reason for the end: for each choice.
    fn events(&self) -> Vec<Value> {
        let mut events = Vec::new();
        for index in 0..self.choices {
            let mut push = |piece: &str, first: bool, reason: Option<&str>| {
                let choice = if self.chat {
                    let delta = match (first, reason) {
                        (true, _) => json!({"role": "assistant", "content": piece}),
                        (false, Some(_)) => json!({}),
                        (false, None) => json!({"content": piece}),
                    };
                    json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": reason})
                } else {
                    json!({"index": index, "text": piece, "logprobs": null, "finish_reason": reason})
                };
                events.push(self.event(json!([choice]), None));
            };
            if self.chat {
                push("", true, None);
            }
            for word in self.text.split_inclusive(' ') {
                push(word, false, None);
            }
            push("", false, Some("stop"));
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mock(endpoint: Endpoint, rest: &str) -> Result<MockAnswer, Problem> {
        let body = format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"12345678"}}],"prompt":"12345678"{rest}}}"#
        );
        answer(
            &Request::parse(endpoint, body.as_bytes(), None).unwrap(),
            "m",
            "Hello big world!",
        )
    }

    fn events(answer: &MockAnswer) -> Vec<Value> {
        let text = String::from_utf8(answer.chunks.concat()).unwrap();
        let mut lines: Vec<&str> = text
            .split_terminator("\n\n")
            .map(|event| event.strip_prefix("data: ").unwrap())
            .collect();
        assert_eq!(lines.pop(), Some("[DONE]"));
        lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn mock_chat_answer_has_openai_format() {
        let answer = mock(Endpoint::ChatCompletions, r#","n":2"#).unwrap();
        let body: Value = serde_json::from_slice(&answer.chunks.concat()).unwrap();
        assert_eq!(body["object"], "chat.completion");
        assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-"));
        let message = json!({"role": "assistant", "content": "Hello big world!", "refusal": null});
        assert_eq!(
            body["choices"][1],
            json!({"index": 1, "finish_reason": "stop", "logprobs": null, "message": message})
        );
        assert_eq!(
            body["usage"],
            json!({"prompt_tokens": 2, "completion_tokens": 8, "total_tokens": 10})
        );
        assert_eq!(answer.usage.total(), 10);
    }

    #[test]
    fn mock_text_answer_has_openai_format() {
        let answer = mock(Endpoint::Completions, "").unwrap();
        let body: Value = serde_json::from_slice(&answer.chunks.concat()).unwrap();
        assert_eq!(body["object"], "text_completion");
        assert_eq!(
            body["choices"],
            json!([{"index": 0, "finish_reason": "stop", "logprobs": null, "text": "Hello big world!"}])
        );
    }

    #[test]
    fn mock_stream_chunks_join_to_the_whole_text() {
        let chat = events(&mock(Endpoint::ChatCompletions, r#","stream":true"#).unwrap());
        assert_eq!(
            chat[0]["choices"][0]["delta"],
            json!({"role": "assistant", "content": ""})
        );
        assert!(chat.iter().all(
            |event| event["object"] == "chat.completion.chunk" && event.get("usage").is_none()
        ));
        let text: String = chat
            .iter()
            .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!(text, "Hello big world!");
        assert_eq!(chat.last().unwrap()["choices"][0]["finish_reason"], "stop");

        let completion = events(&mock(Endpoint::Completions, r#","stream":true"#).unwrap());
        let text: String = completion
            .iter()
            .filter_map(|event| event["choices"][0]["text"].as_str())
            .collect();
        assert_eq!(text, "Hello big world!");
    }

    #[test]
    fn mock_stream_includes_usage_only_on_request() {
        let events = events(
            &mock(
                Endpoint::ChatCompletions,
                r#","stream":true,"stream_options":{"include_usage":true}"#,
            )
            .unwrap(),
        );
        let (last, before) = events.split_last().unwrap();
        assert_eq!(last["choices"], json!([]));
        assert_eq!(last["usage"]["total_tokens"], 6);
        assert!(before.iter().all(|event| event["usage"].is_null()));
    }

    #[test]
    fn mock_refuses_more_choices_than_openai_allows() {
        for n in ["0", "129", "1.5", "\"2\""] {
            let problem = mock(Endpoint::ChatCompletions, &format!(r#","n":{n}"#)).unwrap_err();
            assert_eq!(
                (problem.status().as_u16(), problem.param()),
                (400, Some("n"))
            );
        }
    }
}
