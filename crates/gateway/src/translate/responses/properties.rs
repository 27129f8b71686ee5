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
        upstream: Format::Responses,
    }
}

/// An item of an output.
#[derive(Debug, Clone)]
enum Item {
    Thoughts(Vec<String>),
    Text(Vec<String>),
    Refusal(String),
    Call(String, String),
    Search,
}

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        prop::collection::vec(".{1,8}", 0..3).prop_map(Item::Thoughts),
        prop::collection::vec(".{0,12}", 1..3).prop_map(Item::Text),
        ".{1,8}".prop_map(Item::Refusal),
        ("[a-z]{1,5}", "(\\{\"a\":\\[1,2\\]\\})?")
            .prop_map(|(name, input)| Item::Call(name, input)),
        Just(Item::Search),
    ]
}

fn whole(index: usize, item: &Item) -> Value {
    let texts = |kind: &str, texts: &[String]| -> Vec<Value> {
        texts
            .iter()
            .map(|text| json!({"type": kind, "text": text}))
            .collect()
    };
    match item {
        Item::Thoughts(parts) => {
            json!({"type": "reasoning", "summary": texts("summary_text", parts)})
        }
        Item::Text(parts) => json!({"type": "message", "content": texts("output_text", parts)}),
        Item::Refusal(text) => {
            json!({"type": "message", "content": [{"type": "refusal", "refusal": text}]})
        }
        Item::Call(name, arguments) => {
            json!({"type": "function_call", "call_id": format!("c{index}"), "name": name, "arguments": arguments})
        }
        Item::Search => json!({"type": "web_search_call"}),
    }
}

/// The events of an item, its texts in pieces of so many characters.
fn events(index: usize, item: &Item, cut: usize) -> Vec<Value> {
    let mut begun = whole(index, item);
    if begun["type"] == "function_call" {
        begun["arguments"] = "".into();
    }
    let mut all =
        vec![json!({"type": "response.output_item.added", "output_index": index, "item": begun})];
    let mut add = |kind: &str, counter: &str, parts: &[String]| {
        for (part, text) in parts.iter().enumerate() {
            let letters: Vec<char> = text.chars().collect();
            all.extend(letters.chunks(cut).map(|piece| {
                let piece: String = piece.iter().collect();
                json!({"type": kind, "output_index": index, counter: part, "delta": piece})
            }));
        }
    };
    match item {
        Item::Thoughts(parts) => add(
            "response.reasoning_summary_text.delta",
            "summary_index",
            parts,
        ),
        Item::Text(parts) => add("response.output_text.delta", "content_index", parts),
        Item::Refusal(text) => add(
            "response.refusal.delta",
            "content_index",
            std::slice::from_ref(text),
        ),
        Item::Call(_, text) => {
            add(
                "response.function_call_arguments.delta",
                "unused",
                std::slice::from_ref(text),
            );
        }
        Item::Search => {}
    }
    all.push(json!({"type": "response.output_item.done", "output_index": index, "item": whole(index, item)}));
    all
}

proptest! {
    #[test]
    fn stream_says_the_same_as_the_whole_response(items in prop::collection::vec(item(), 0..6), cut in 1..5_usize) {
        let output: Vec<Value> = items.iter().enumerate().map(|(index, item)| whole(index, item)).collect();
        let usage = json!({"input_tokens": 5, "output_tokens": 7, "total_tokens": 12});
        let response = json!({"id": "resp_1", "status": "completed", "model": "m", "output": output, "usage": usage});
        let mut stream = vec![json!({"type": "response.created", "response": {"id": "resp_1", "model": "m"}})];
        stream.extend(items.iter().enumerate().flat_map(|(index, item)| events(index, item, cut)));
        stream.push(json!({"type": "response.completed", "response": response}));

        stream_says(of(Format::Chat), &stream, &response, &["content", "refusal", "reasoning_content", "tool_calls"])?;
    }

    #[test]
    fn any_request_is_translated_or_a_400(
        messages in prop::collection::vec(any_json(), 0..5), tools in any_json(), other in any_json(),
    ) {
        let body = json!({
            "model": "m", "max_tokens": 5, "messages": messages, "tools": tools, "tool_choice": other,
            "response_format": other, "reasoning_effort": other, "include": other, "logprobs": true,
            "stream_options": other, "web_search_options": other, "system": other, "thinking": other,
        });
        for client in CLIENTS {
            request_is_taken(of(client), "up", &body)?;
        }
    }

    #[test]
    fn any_answer_and_event_is_taken(
        values in prop::collection::vec(any_json(), 0..8),
        kinds in prop::collection::vec(prop::sample::select(&[
            "created", "output_text.delta", "output_item.added", "output_item.done", "function_call_arguments.delta",
            "reasoning_summary_text.delta", "output_text.annotation.added", "completed", "incomplete", "failed",
        ][..]), 8),
    ) {
        for client in CLIENTS {
            let all = values.iter().zip(&kinds).map(|(value, kind)| {
                let data = json!({
                    "type": format!("response.{kind}"), "item": value, "delta": value, "response": value,
                    "annotation": value, "output_index": value,
                });
                (json!({"output": value, "usage": value}), String::new(), data)
            });
            answers_are_taken(of(client), all)?;
        }
    }
}
