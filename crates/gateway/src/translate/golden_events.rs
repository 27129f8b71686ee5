//! Streams in both formats, as servers write them.

use serde_json::{Value, json};

use super::{
    golden::{TO_CHAT, TO_MESSAGES},
    *,
};
use crate::codec::sse::EventDecoder;

/// A stream's translation, and whether it was whole.
pub(super) fn translated(translation: Translation, asked: Asked, stream: &str) -> (String, bool) {
    let (mut translator, mut out) = (translation.events(asked), Vec::new());
    let mut result = Ok(());
    EventDecoder::default().feed(stream.as_bytes(), |event| {
        if result.is_ok() {
            result = translator.feed(event, &mut out);
        }
    });
    let result = result.and_then(|()| translator.end(&mut out));
    (String::from_utf8(out).unwrap(), result.is_ok())
}

/// The data of a stream's events, which have Anthropic's names where they have any.
pub(super) fn data(stream: &str) -> Vec<Value> {
    let mut all = Vec::new();
    EventDecoder::default().feed(stream.as_bytes(), |event| {
        if event.data != b"[DONE]" {
            let value: Value = serde_json::from_slice(&event.data).unwrap();
            if !event.name.is_empty() {
                assert_eq!(value["type"].as_str().unwrap().as_bytes(), event.name);
            }
            all.push(value);
        }
    });
    all
}

pub(super) fn named(events: &[Value]) -> String {
    let event = |event: &Value| {
        format!(
            "event: {}\ndata: {event}\n\n",
            event["type"].as_str().unwrap()
        )
    };
    events.iter().map(event).collect()
}

fn chunks(deltas: &[(Value, Value)], usage: &Value) -> String {
    let chunk = |(delta, reason): &(Value, Value)| {
        let chunk = json!({
            "id": "chatcmpl-9", "object": "chat.completion.chunk", "created": 1, "model": "gpt",
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        });
        format!("data: {chunk}\n\n")
    };
    let chunks: String = deltas.iter().map(chunk).collect();
    format!(
        "{chunks}data: {}\n\ndata: [DONE]\n\n",
        json!({"choices": [], "usage": usage})
    )
}

fn tool_stream() -> Vec<Value> {
    vec![
        json!({"type": "message_start", "message": {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "stop_reason": null,
            "usage": {"input_tokens": 3, "cache_read_input_tokens": 100, "output_tokens": 1},
        }}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "ping"}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "I look."}}),
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ""}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{\"city\":"}}),
        json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "\"Rome\"}"}}),
        json!({"type": "content_block_stop", "index": 2}),
        json!({"type": "content_block_start", "index": 3, "content_block": {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}}}),
        json!({"type": "content_block_stop", "index": 3}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": {"output_tokens": 20}}),
        json!({"type": "message_stop"}),
    ]
}

#[test]
fn stream_of_a_message_becomes_chunks_of_a_chat() {
    let asked = Asked {
        usage: true,
        ..Asked::default()
    };
    let (stream, whole) = translated(TO_MESSAGES, asked, &named(&tool_stream()));
    assert!(whole && stream.ends_with("data: [DONE]\n\n"), "{stream}");
    assert!(stream.contains("\n\n: ping\n\n"), "{stream}");
    let chunks = data(&stream);
    let deltas: Vec<&Value> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"].get(0).map(|choice| &choice["delta"]))
        .collect();
    assert_eq!(
        json!(deltas),
        json!([
            {"role": "assistant", "content": ""},
            {"reasoning_content": "hm", "thinking_blocks": [{"type": "thinking", "thinking": "hm"}]},
            {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "sig"}]},
            {"content": "I look."},
            {"tool_calls": [{"index": 0, "id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": "{\"city\":"}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": "\"Rome\"}"}}]},
            {"tool_calls": [{"index": 1, "id": "toolu_2", "type": "function", "function": {"name": "now", "arguments": ""}}]},
            {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
            {},
        ])
    );
    let (last, before) = chunks.split_last().unwrap();
    assert_eq!(
        before.last().unwrap()["choices"][0]["finish_reason"],
        "tool_calls"
    );
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["prompt_tokens"], 103);
    assert_eq!(last["usage"]["completion_tokens"], 20);
    assert!(before.iter().all(|chunk| {
        chunk["id"] == "chatcmpl-1" && chunk["model"] == "claude" && chunk["usage"].is_null()
    }));
    let (stream, _) = translated(TO_MESSAGES, Asked::default(), &named(&tool_stream()));
    assert!(!stream.contains("usage"), "{stream}");
}

#[test]
fn stream_of_a_message_that_breaks_off_or_fails_is_no_whole_answer() {
    let mut events = tool_stream();
    events.truncate(8);
    let (stream, whole) = translated(TO_MESSAGES, Asked::default(), &named(&events));
    assert!(!whole && !stream.contains("[DONE]"), "{stream}");
    events.push(
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    );
    let (stream, _) = translated(TO_MESSAGES, Asked::default(), &named(&events));
    let last = data(&stream).pop().unwrap();
    assert_eq!(
        last,
        json!({"error": {"message": "Overloaded", "type": "overloaded_error", "param": null, "code": null}})
    );
}

#[test]
fn chunks_of_a_chat_become_the_stream_of_a_message() {
    let call = |index: u64, id: &str, name: &str, arguments: &str| json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}]});
    let more = |index: u64, arguments: &str| json!({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]});
    let stream = chunks(
        &[
            (json!({"role": "assistant", "content": ""}), Value::Null),
            (json!({"reasoning_content": "hm"}), Value::Null),
            (json!({"content": "I "}), Value::Null),
            (json!({"content": "look."}), Value::Null),
            (call(0, "call_1", "weather", ""), Value::Null),
            (more(0, "{\"city\":"), Value::Null),
            (more(0, "\"Rome\"}"), Value::Null),
            (call(1, "call_2", "now", ""), Value::Null),
            (more(1, "{}"), Value::Null),
            (json!({}), json!("tool_calls")),
        ],
        &json!({"prompt_tokens": 103, "completion_tokens": 20, "total_tokens": 123, "prompt_tokens_details": {"cached_tokens": 100}}),
    );
    let asked = Asked {
        input_tokens: 99,
        ..Asked::default()
    };
    let (stream, whole) = translated(TO_CHAT, asked, &stream);
    assert!(whole);
    assert_eq!(
        json!(data(&stream)),
        json!([
            {"type": "message_start", "message": {
                "id": "msg_9", "type": "message", "role": "assistant", "model": "gpt", "content": [], "stop_reason": null,
                "stop_sequence": null,
                "usage": {"input_tokens": 99, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0},
            }},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "I "}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "look."}},
            {"type": "content_block_stop", "index": 1},
            {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}}},
            {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{\"city\":"}},
            {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "\"Rome\"}"}},
            {"type": "content_block_stop", "index": 2},
            {"type": "content_block_start", "index": 3, "content_block": {"type": "tool_use", "id": "call_2", "name": "now", "input": {}}},
            {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
            {"type": "content_block_stop", "index": 3},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": {
                "input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 100, "output_tokens": 20,
            }},
            {"type": "message_stop"},
        ])
    );
}

/// The blocks of a translated stream: the names of its tools with their inputs, and its texts.
fn blocks(stream: &str) -> Vec<(String, String)> {
    let (mut blocks, mut open): (Vec<(String, String)>, bool) = (Vec::new(), false);
    for event in data(stream) {
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                assert!(
                    !std::mem::replace(&mut open, true),
                    "a block in a block: {stream}"
                );
                assert_eq!(event["index"], blocks.len());
                let name = event["content_block"]["name"].as_str().unwrap_or("text");
                blocks.push((name.into(), String::new()));
            }
            "content_block_delta" => {
                let delta = &event["delta"];
                let piece = delta["partial_json"].as_str().or(delta["text"].as_str());
                blocks.last_mut().unwrap().1 += piece.unwrap();
            }
            "content_block_stop" => assert!(std::mem::replace(&mut open, false)),
            _ => {}
        }
    }
    blocks
}

#[test]
fn tool_calls_of_any_server_become_blocks_one_after_the_other() {
    let piece = |index: Value, id: Value, name: Value, arguments: &str| json!({"index": index, "id": id, "function": {"name": name, "arguments": arguments}});
    let first = |index: u64, arguments: &str| {
        piece(
            index.into(),
            format!("c{index}").into(),
            format!("f{index}").into(),
            arguments,
        )
    };
    let next =
        |index: u64, arguments: &str| piece(index.into(), Value::Null, Value::Null, arguments);
    let f = |name: &str, input: &str| (name.to_owned(), input.to_owned());
    let expected = vec![f("f0", r#"{"a":"}"}"#), f("f1", r#"{"b":[1]}"#)];
    let mixed = [
        json!([first(0, ""), first(1, "")]),
        json!([next(0, r#"{"a":"#)]),
        json!([next(1, r#"{"b":"#)]),
        json!([next(0, r#""}"}"#)]),
        json!([next(1, "[1]}")]),
    ];
    let at_once = [json!([first(0, r#"{"a":"}"}"#), first(1, r#"{"b":[1]}"#)])];
    let unnumbered = [
        json!([piece(Value::Null, "c0".into(), "f0".into(), r#"{"a":"}"}"#)]),
        json!([piece(Value::Null, "c1".into(), "f1".into(), r#"{"b":[1]}"#)]),
    ];
    let all_zero = [
        json!([piece(0.into(), "c0".into(), "f0".into(), r#"{"a":"}"}"#)]),
        json!([piece(0.into(), "c1".into(), "f1".into(), r#"{"b":"#)]),
        json!([piece(0.into(), "".into(), Value::Null, "[1]}")]),
    ];
    for deltas in [&mixed[..], &at_once, &unnumbered, &all_zero] {
        let mut all: Vec<(Value, Value)> = deltas
            .iter()
            .map(|calls| (json!({"tool_calls": calls}), Value::Null))
            .collect();
        all.push((json!({}), json!("stop")));
        let stream = chunks(&all, &Value::Null);
        let (stream, whole) = translated(TO_CHAT, Asked::default(), &stream);
        assert!(whole);
        assert_eq!(blocks(&stream), expected);
        assert!(stream.contains(r#""stop_reason":"tool_use""#), "{stream}");
    }
}

#[test]
fn chunks_that_break_off_or_fail_are_no_whole_message() {
    let begun = chunks(&[(json!({"content": "I "}), Value::Null)], &Value::Null);
    let (stream, whole) = translated(TO_CHAT, Asked::default(), &begun);
    assert!(!whole && !stream.contains("message_stop"), "{stream}");
    let begun = begun.replace("data: [DONE]\n\n", "");
    let failed =
        format!("{begun}data: {{\"error\":{{\"message\":\"slow down\",\"code\":429}}}}\n\n");
    let (stream, whole) = translated(TO_CHAT, Asked::default(), &failed);
    assert!(whole);
    assert_eq!(
        data(&stream).pop().unwrap(),
        json!({"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}})
    );
    // Without the mark of the end, but with the reason: it is whole.
    let ended = chunks(&[(json!({"content": "hi"}), json!("length"))], &Value::Null);
    let ended = ended.replace("data: [DONE]\n\n", "");
    let (stream, whole) = translated(TO_CHAT, Asked::default(), &ended);
    assert!(
        whole && stream.contains(r#""stop_reason":"max_tokens""#),
        "{stream}"
    );
}
