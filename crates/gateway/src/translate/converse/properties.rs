//! Whatever comes from outside is taken, and a stream says the same as the whole answer.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    Endpoint,
    codec::sse::Event,
    request::{Request, edits::Edits},
    translate::{
        Asked, Format, Translation,
        golden::any_bodies,
        golden_events::{data, named, translated},
        responses::properties::joined,
    },
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

        let asked = Asked { usage: true, ..Asked::default() };
        let (text, ended) = translated(of(Format::Chat), asked.clone(), &named(&stream));
        prop_assert!(ended);
        let chunks = data(&text);
        let answer = of(Format::Chat).answer(whole.to_string().as_bytes(), &asked).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let mut expected = json!({"message": {}, "finish_reason": answer["choices"][0]["finish_reason"]});
        for name in ["content", "reasoning_content", "tool_calls"] {
            let value = &answer["choices"][0]["message"][name];
            if !value.is_null() {
                expected["message"][name] = value.clone();
            }
        }
        // Every stream begins with an empty text.
        let content = expected["message"]["content"].as_str().unwrap_or_default().to_owned();
        expected["message"]["content"] = content.into();
        prop_assert_eq!(joined(&chunks), expected);
        prop_assert_eq!(&chunks.last().unwrap()["usage"], &answer["usage"]);
    }

    #[test]
    fn any_request_is_translated_or_a_400(
        messages in prop::collection::vec(any_bodies::json(), 0..5), tools in any_bodies::json(), other in any_bodies::json(),
    ) {
        let body = json!({
            "model": "m", "max_tokens": 5, "messages": messages, "tools": tools, "tool_choice": other,
            "response_format": other, "reasoning_effort": other, "stop": other, "service_tier": other, "top_k": other,
            "additionalModelRequestFields": other, "system": other, "thinking": other,
        });
        for (endpoint, client) in [(Endpoint::ChatCompletions, Format::Chat), (Endpoint::Messages, Format::Messages)] {
            let text = body.to_string();
            let Ok(request) = Request::parse(endpoint, text.as_bytes(), None) else { continue };
            if let Err(problem) = of(client).body(&request, "amazon.nova-2", &Edits::default(), true) {
                prop_assert_eq!(problem.status().as_u16(), 400);
            }
        }
    }

    #[test]
    fn any_answer_and_event_is_taken(
        values in prop::collection::vec(any_bodies::json(), 0..8),
        kinds in prop::collection::vec(prop::sample::select(&[
            "messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata", "error",
        ][..]), 8),
    ) {
        for client in [Format::Chat, Format::Messages] {
            let mut translator = of(client).events(Asked::default());
            let mut out = Vec::new();
            for (value, kind) in values.iter().zip(&kinds) {
                let answer = json!({"output": {"message": {"content": value}}, "stopReason": value, "usage": value});
                let _ = of(client).answer(answer.to_string().as_bytes(), &Asked::default());
                let data = json!({
                    "type": kind, "start": {"toolUse": value}, "delta": value, "stopReason": value, "usage": value, "error": value,
                });
                let event = Event { name: Vec::new(), data: data.to_string().into_bytes() };
                let _ = translator.feed(&event, &mut out);
            }
            let _ = translator.end(&mut out);
            prop_assert!(std::str::from_utf8(&out).is_ok());
        }
    }
}
