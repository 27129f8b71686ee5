//! Whatever comes from outside is taken, and a stream says the same as the whole answer.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::translate::{
    Format, Translation,
    properties::{CLIENTS, answers_are_taken, json as any_json, request_is_taken, stream_says},
};

fn of(client: Format) -> Translation {
    Translation {
        client,
        upstream: Format::Converse,
    }
}

/// A block of an answer, as whole and as the events of a stream.
fn block() -> impl Strategy<Value = (Value, Vec<Value>)> {
    let pieces = || prop::collection::vec(".{1,5}", 1..4);
    prop_oneof![
        pieces().prop_map(|pieces| {
            let deltas = pieces.iter().map(|piece| json!({"text": piece})).collect();
            (json!({"text": pieces.concat()}), deltas)
        }),
        pieces().prop_map(|pieces| {
            let deltas = pieces.iter().map(|piece| json!({"reasoningContent": {"text": piece}})).collect();
            (json!({"reasoningContent": {"reasoningText": {"text": pieces.concat()}}}), deltas)
        }),
        (0..9_u64, any::<bool>()).prop_map(|(number, empty)| {
            let input = if empty { json!({}) } else { json!({"a": number}) };
            let text = input.to_string();
            let (first, second) = text.split_at(1);
            let deltas = if empty { vec![] } else {
                [first, second].map(|piece| json!({"toolUse": {"input": piece}})).to_vec()
            };
            (json!({"toolUse": {"toolUseId": format!("t{number}"), "name": "f", "input": input}}), deltas)
        }),
    ]
}

proptest! {
    #[test]
    fn stream_says_the_same_as_the_whole_answer(blocks in prop::collection::vec(block(), 0..6)) {
        let content: Vec<&Value> = blocks.iter().map(|(whole, _)| whole).collect();
        let usage = json!({"inputTokens": 5, "outputTokens": 7, "totalTokens": 12});
        let whole = json!({"output": {"message": {"role": "assistant", "content": content}}, "stopReason": "end_turn", "usage": usage});
        let mut stream = vec![json!({"type": "messageStart", "role": "assistant"})];
        for (index, (whole, deltas)) in blocks.iter().enumerate() {
            if whole["toolUse"].is_object() {
                stream.push(json!({"type": "contentBlockStart", "contentBlockIndex": index, "start": whole}));
            }
            stream.extend(deltas.iter().map(|delta| json!({"type": "contentBlockDelta", "contentBlockIndex": index, "delta": delta})));
            stream.push(json!({"type": "contentBlockStop", "contentBlockIndex": index}));
        }
        stream.push(json!({"type": "messageStop", "stopReason": "end_turn"}));
        stream.push(json!({"type": "metadata", "usage": usage}));

        stream_says(of(Format::Chat), &stream, &whole, &["content", "reasoning_content", "tool_calls"])?;
    }

    #[test]
    fn any_request_is_translated_or_a_400(
        messages in prop::collection::vec(any_json(), 0..5), tools in any_json(), other in any_json(),
    ) {
        let body = json!({
            "model": "m", "max_tokens": 5, "messages": messages, "tools": tools, "tool_choice": other,
            "response_format": other, "reasoning_effort": other, "stop": other, "service_tier": other, "top_k": other,
            "additionalModelRequestFields": other, "system": other, "thinking": other,
        });
        for client in CLIENTS {
            request_is_taken(of(client), "amazon.nova-2", &body)?;
        }
    }

    #[test]
    fn any_answer_and_event_is_taken(
        values in prop::collection::vec(any_json(), 0..8),
        kinds in prop::collection::vec(prop::sample::select(&[
            "messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata", "error",
        ][..]), 8),
    ) {
        for client in CLIENTS {
            let all = values.iter().zip(&kinds).map(|(value, kind)| {
                let answer = json!({"output": {"message": {"content": value}}, "stopReason": value, "usage": value});
                let data = json!({
                    "type": kind, "start": {"toolUse": value}, "delta": value, "stopReason": value, "usage": value, "error": value,
                });
                (answer, String::new(), data)
            });
            answers_are_taken(of(client), all)?;
        }
    }
}
