//! `mock_response` in Anthropic's format.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    provider::mock::MockAnswer,
    request::Request,
    tokens::{self, usage::Usage},
};

/// A message with the text, as a whole or as the events that make one up.
pub(super) fn message(request: &Request<'_>, model: &str, text: &str) -> MockAnswer {
    let usage = Usage {
        input: tokens::input_tokens(request),
        output: (text.len() as u64).div_ceil(tokens::BYTES_PER_TOKEN),
    };
    let id = format!("msg_{}", uuid::Uuid::new_v4().simple());
    let message = |content: Value, reason: Option<&str>, output: u64| {
        json!({
            "id": id, "type": "message", "role": "assistant", "model": model, "content": content,
            "stop_reason": reason, "stop_sequence": null,
            "usage": {
                "input_tokens": usage.input, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                "output_tokens": output,
            },
        })
    };
    if !request.stream {
        let content = json!([{"type": "text", "text": text}]);
        let whole = message(content, Some("end_turn"), usage.output);
        return MockAnswer::json(&whole, usage);
    }
    let mut events = vec![
        json!({"type": "message_start", "message": message(json!([]), None, 0)}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    ];
    events.extend(text.split_inclusive(' ').map(|word| {
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})
    }));
    events.extend([
        json!({"type": "content_block_stop", "index": 0}),
        json!({
            "type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
            "usage": {"output_tokens": usage.output},
        }),
        json!({"type": "message_stop"}),
    ]);
    let event = |event: &Value| {
        let name = event["type"].as_str().unwrap_or_default();
        Bytes::from(format!("event: {name}\ndata: {event}\n\n"))
    };
    MockAnswer {
        content_type: "text/event-stream; charset=utf-8",
        chunks: events.iter().map(event).collect(),
        usage,
    }
}

/// How many tokens the request has, by its text.
pub(super) fn count(request: &Request<'_>) -> MockAnswer {
    let usage = Usage {
        input: 0,
        output: 0,
    };
    MockAnswer::json(&json!({"input_tokens": tokens::counted(request)}), usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Endpoint;

    fn mocked(endpoint: Endpoint, rest: &str) -> String {
        let body = format!(
            r#"{{"model":"m","max_tokens":9,"system":"1234","messages":[{{"role":"user","content":"12345678"}}]{rest}}}"#
        );
        let request = Request::parse(endpoint, body.as_bytes(), None).unwrap();
        let answer = match endpoint {
            Endpoint::CountTokens => count(&request),
            _ => message(&request, "m", "Hello big world!"),
        };
        String::from_utf8(answer.chunks.concat()).unwrap()
    }

    #[test]
    fn mock_message_has_anthropics_format_whole_and_in_events() {
        let whole: Value = serde_json::from_str(&mocked(Endpoint::Messages, "")).unwrap();
        assert_eq!(whole["content"][0]["text"], "Hello big world!");
        assert_eq!(whole["stop_reason"], "end_turn");
        assert_eq!(whole["usage"]["input_tokens"], 3);
        assert_eq!(whole["usage"]["output_tokens"], 4);
        let stream = mocked(Endpoint::Messages, r#","stream":true"#);
        let names: Vec<&str> = stream
            .lines()
            .filter_map(|line| line.strip_prefix("event: "))
            .collect();
        assert_eq!(names.first(), Some(&"message_start"));
        assert_eq!(names.last(), Some(&"message_stop"));
        assert_eq!(
            names.iter().filter(|name| name.ends_with("_delta")).count(),
            4
        );
        let counted = mocked(Endpoint::CountTokens, "");
        assert_eq!(counted, r#"{"input_tokens":3}"#);
    }
}
