//! What holds for the translations of every format: whatever comes from outside is taken, and a stream says the same as the whole answer.

use proptest::{prelude::*, test_runner::TestCaseResult};
use serde_json::json;

use super::{
    golden::{TO_CHAT, TO_MESSAGES},
    golden_events::{data, named, translated},
    *,
};

/// Formats of clients.
pub(super) const CLIENTS: [Format; 2] = [Format::Chat, Format::Messages];

/// JSON of the words that the formats have, in any places.
pub(super) fn json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "text",
        "user",
        "assistant",
        "tool",
        "tool_use",
        "tool_result",
        "image",
        "image_url",
        "function",
        "auto",
        "document",
        "data:a/b;base64,AA",
        "base64",
        "enabled",
        "system",
        "thinking",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "type",
        "role",
        "content",
        "text",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "id",
        "input",
        "source",
        "url",
        "image_url",
        "tool_use_id",
        "tool_call_id",
        "thinking_blocks",
        "data",
        "file",
        "usage",
        "choices",
        "message",
        "delta",
        "index",
        "content_block",
        "error",
        "finish_reason",
        "stop_reason",
    ]);
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6).prop_map(|fields| {
                let fields = fields
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value));
                Value::Object(fields.collect())
            }),
        ]
    })
}

/// The message that a client makes of a stream's chunks, and why it ended.
fn joined(chunks: &[Value]) -> Value {
    let mut message = json!({});
    let mut reason = Value::Null;
    for choice in chunks.iter().filter_map(|chunk| chunk["choices"].get(0)) {
        for name in ["content", "refusal", "reasoning_content"] {
            if let Some(piece) = choice["delta"][name].as_str() {
                let before = message[name].as_str().unwrap_or_default();
                message[name] = format!("{before}{piece}").into();
            }
        }
        for call in choice["delta"]["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            let piece = call["function"]["arguments"].as_str().unwrap();
            if index == message["tool_calls"].as_array().map_or(0, Vec::len) {
                let calls = &mut message["tool_calls"];
                calls.is_null().then(|| *calls = json!([]));
                calls.as_array_mut().unwrap().push(json!({
                    "id": call["id"], "type": "function",
                    "function": {"name": call["function"]["name"], "arguments": piece},
                }));
            } else {
                let arguments = &mut message["tool_calls"][index]["function"]["arguments"];
                *arguments = format!("{}{piece}", arguments.as_str().unwrap()).into();
            }
        }
        if choice["finish_reason"].is_string() {
            reason = choice["finish_reason"].clone();
        }
    }
    json!({"message": message, "finish_reason": reason})
}

/// A chat's stream says the same as the whole answer. `fields`: of its message, as far as the answer has them.
pub(super) fn stream_says(
    translation: Translation,
    stream: &[Value],
    whole: &Value,
    fields: &[&str],
) -> TestCaseResult {
    let asked = Asked {
        usage: true,
        ..Asked::default()
    };
    let (text, ended) = translated(translation, asked.clone(), &named(stream));
    prop_assert!(ended);
    let chunks = data(&text);
    let answer = translation.answer(whole.to_string().as_bytes(), &asked);
    let answer: Value = serde_json::from_slice(&answer.unwrap()).unwrap();
    let choice = &answer["choices"][0];
    let mut expected = json!({"message": {}, "finish_reason": choice["finish_reason"]});
    for name in fields {
        let value = &choice["message"][*name];
        if !value.is_null() {
            expected["message"][*name] = value.clone();
        }
    }
    // Every stream begins with an empty text.
    let content = expected["message"]["content"].as_str().unwrap_or_default();
    expected["message"]["content"] = content.to_owned().into();
    prop_assert_eq!(joined(&chunks), expected);
    prop_assert_eq!(&chunks.last().unwrap()["usage"], &answer["usage"]);
    Ok(())
}

/// A request is translated, or a 400.
pub(super) fn request_is_taken(
    translation: Translation,
    model: &str,
    body: &Value,
) -> TestCaseResult {
    let endpoint = match translation.client {
        Format::Messages => Endpoint::Messages,
        _ => Endpoint::ChatCompletions,
    };
    let text = body.to_string();
    if let Ok(request) = Request::parse(endpoint, text.as_bytes(), None)
        && let Err(problem) = translation.body(&request, model, &Edits::default(), true)
    {
        prop_assert_eq!(problem.status().as_u16(), 400);
    }
    Ok(())
}

/// Whole answers, and events of a stream with their names: none is too odd.
pub(super) fn answers_are_taken(
    translation: Translation,
    all: impl IntoIterator<Item = (Value, String, Value)>,
) -> TestCaseResult {
    let mut events = translation.events(Asked::default());
    let mut out = Vec::new();
    for (answer, name, data) in all {
        let _ = translation.answer(answer.to_string().as_bytes(), &Asked::default());
        let event = Event {
            name: name.into_bytes(),
            data: data.to_string().into_bytes(),
        };
        let _ = events.feed(&event, &mut out);
    }
    let _ = events.end(&mut out);
    prop_assert!(std::str::from_utf8(&out).is_ok());
    Ok(())
}

proptest! {
    #[test]
    fn any_request_is_translated_or_a_400(
        messages in prop::collection::vec(json(), 0..5), system in json(), tools in json(), choice in json(), other in json(),
    ) {
        let body = json!({
            "model": "m", "max_tokens": 5, "messages": messages, "system": system, "tools": tools, "tool_choice": choice,
            "thinking": other, "metadata": other, "stop": other, "reasoning_effort": other, "output_config": other,
            "response_format": other, "temperature": other,
        });
        for translation in [TO_CHAT, TO_MESSAGES] {
            request_is_taken(translation, "up", &body)?;
        }
    }

    #[test]
    fn any_answer_and_event_is_taken(values in prop::collection::vec(json(), 0..8), name in "(error|ping|message_start)?") {
        for translation in [TO_MESSAGES, TO_CHAT] {
            let all = values.iter().map(|value| (value.clone(), name.clone(), value.clone()));
            answers_are_taken(translation, all)?;
        }
    }
}
