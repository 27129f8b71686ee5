//! `mock_response`: answers made in process, in the exact shapes of OpenAI and Anthropic.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

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
    pub(super) fn json(body: &impl Serialize, usage: Usage) -> Self {
        let mut bytes = Vec::with_capacity(512);
        write(&mut bytes, body);
        Self {
            content_type: "application/json",
            chunks: vec![bytes.into()],
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
    let chat = request.endpoint == Endpoint::ChatCompletions;
    let prefix = if chat { "chatcmpl" } else { "cmpl" };
    let mock = Mock {
        chat,
        model,
        text,
        choices,
        id: format!("{prefix}-{}", uuid::Uuid::new_v4().simple()),
        created: now(),
        usage: UsageObject {
            prompt_tokens: prompt,
            completion_tokens: completion,
            total_tokens: usage.total(),
        },
    };
    if !request.stream {
        return Ok(MockAnswer::json(&mock.whole(), usage));
    }
    let wants_usage = request.fields.get("stream_options").is_some_and(|options| {
        serde_json::from_str::<Value>(options).is_ok_and(|options| options["include_usage"] == true)
    });
    Ok(MockAnswer {
        content_type: "text/event-stream; charset=utf-8",
        chunks: mock.events(wants_usage),
        usage,
    })
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs())
}

/// What a deployment answers, whole or in chunks.
struct Mock<'a> {
    /// Chat, not text.
    chat: bool,
    model: &'a str,
    text: &'a str,
    choices: u64,
    id: String,
    created: u64,
    usage: UsageObject,
}

/// A whole answer, or a chunk of one.
#[derive(Serialize)]
struct Object<'a, Choices> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Choices,
    system_fingerprint: Null,
    /// `Some(None)`: null.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageObject>>,
}

/// Written as `null`.
type Null = ();

#[derive(Clone, Copy, Serialize)]
struct UsageObject {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

/// A whole answer's choice: a message of a chat, or a text.
#[derive(Serialize)]
struct Choice<'a> {
    index: u64,
    finish_reason: &'static str,
    logprobs: Null,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    refusal: Null,
}

/// A chunk's choice: what a chat adds to its message, or to the text.
#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Delta<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    logprobs: Null,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

impl Mock<'_> {
    fn object<Choices>(&self, object: &'static str, choices: Choices) -> Object<'_, Choices> {
        Object {
            id: &self.id,
            object,
            created: self.created,
            model: self.model,
            choices,
            system_fingerprint: (),
            usage: None,
        }
    }

    fn whole(&self) -> Object<'_, Vec<Choice<'_>>> {
        let kind = if self.chat {
            "chat.completion"
        } else {
            "text_completion"
        };
        let choice = |index| Choice {
            index,
            finish_reason: "stop",
            logprobs: (),
            message: self.chat.then_some(Message {
                role: "assistant",
                content: self.text,
                refusal: (),
            }),
            text: (!self.chat).then_some(self.text),
        };
        let choices = (0..self.choices).map(choice).collect();
        Object {
            usage: Some(Some(self.usage)),
            ..self.object(kind, choices)
        }
    }

    /// The role first, then word by word, then the reason for the end: for each choice. Then the usage, where it is asked for.
    fn events(&self, wants_usage: bool) -> Vec<Bytes> {
        let kind = if self.chat {
            "chat.completion.chunk"
        } else {
            "text_completion"
        };
        let mut events = Events::default();
        for index in 0..self.choices {
            let mut push = |role, text, finish_reason| {
                let delta = Delta {
                    role,
                    content: text,
                };
                let choice = ChunkChoice {
                    index,
                    delta: self.chat.then_some(delta),
                    text: text.or(Some("")).filter(|_| !self.chat),
                    logprobs: (),
                    finish_reason,
                };
                events.push(&Object {
                    usage: wants_usage.then_some(None),
                    ..self.object(kind, [choice])
                });
            };
            if self.chat {
                push(Some("assistant"), Some(""), None);
            }
            for word in self.text.split_inclusive(' ') {
                push(None, Some(word), None);
            }
            push(None, None, Some("stop"));
        }
        if wants_usage {
            events.push(&Object {
                usage: Some(Some(self.usage)),
                ..self.object::<[ChunkChoice<'_>; 0]>(kind, [])
            });
        }
        events.end()
    }
}

/// Events on their way to a client, in one piece of memory.
#[derive(Default)]
struct Events {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Events {
    fn push(&mut self, event: &impl Serialize) {
        self.bytes.extend_from_slice(b"data: ");
        write(&mut self.bytes, event);
        self.bytes.extend_from_slice(b"\n\n");
        self.ends.push(self.bytes.len());
    }

    fn end(mut self) -> Vec<Bytes> {
        self.bytes.extend_from_slice(b"data: [DONE]\n\n");
        self.ends.push(self.bytes.len());
        let mut bytes = Bytes::from(self.bytes);
        let mut begin = 0;
        let cut = |end| {
            let event = bytes.split_to(end - begin);
            begin = end;
            event
        };
        self.ends.into_iter().map(cut).collect()
    }
}

/// Adds a value's JSON.
fn write(out: &mut Vec<u8>, value: &impl Serialize) {
    let written = serde_json::to_writer(out, value);
    // Texts and numbers, written to memory.
    debug_assert!(written.is_ok());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
