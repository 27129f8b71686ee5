//! Chats for Claude: what follows from the model's name, and what only Anthropic's format has.

use serde_json::{Value, json};

use super::*;

fn for_model(model: &str, chat: &Value, drop_params: bool) -> Value {
    let text = chat.to_string();
    let request = Request::parse(Endpoint::ChatCompletions, text.as_bytes(), None).unwrap();
    let edits = Edits {
        drop_params,
        ..Edits::default()
    };
    let body = golden::TO_MESSAGES.body(&request, model, &edits, true);
    serde_json::from_slice(&body.unwrap()).unwrap()
}

fn chat(more: Value) -> Value {
    let mut chat = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    let (Value::Object(fields), Value::Object(more)) = (&mut chat, more) else {
        panic!("objects")
    };
    fields.extend(more);
    chat
}

#[test]
fn chat_without_a_maximum_gets_the_models_own() {
    for (model, thinking, expected) in [
        ("claude-sonnet-4-5", Value::Null, 64_000),
        ("us.anthropic.claude-opus-4-6-v1", Value::Null, 128_000),
        ("claude-3-haiku@20240307", Value::Null, 4096),
        ("unknown", Value::Null, 4096),
        // The thoughts and the answer are counted together.
        ("claude-3-7-sonnet-20250219", json!(16_000), 20_096),
        ("claude-sonnet-4-5", json!(1024), 64_000),
    ] {
        let thinking = match thinking {
            Value::Null => json!({}),
            budget => json!({"thinking": {"type": "enabled", "budget_tokens": budget}}),
        };
        let body = for_model(model, &chat(thinking), false);
        assert_eq!(body["max_tokens"], expected, "{model}");
    }
    let own = chat(json!({"max_tokens": 7}));
    assert_eq!(for_model("claude-sonnet-4-5", &own, false)["max_tokens"], 7);
}

#[test]
fn cache_control_of_a_message_ends_its_blocks() {
    let control = json!({"type": "ephemeral", "ttl": "1h"});
    let chat = json!({
        "model": "m", "max_tokens": 1,
        "messages": [
            {"role": "system", "content": "be brief", "cache_control": control},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "cache_control": control},
            {"role": "assistant", "content": null, "cache_control": control, "tool_calls": [
                {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ]},
            {"role": "tool", "tool_call_id": "t", "content": "1", "cache_control": control},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}, "cache_control": control}],
    });
    assert_eq!(
        for_model("claude-sonnet-4-5", &chat, false),
        json!({
            "model": "claude-sonnet-4-5", "max_tokens": 1,
            "system": [{"type": "text", "text": "be brief", "cache_control": control}],
            "messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": "a"},
                    {"type": "text", "text": "b", "cache_control": control},
                ]},
                {"role": "assistant", "content": [
                    {"type": "tool_use", "id": "t", "name": "f", "input": {}, "cache_control": control},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "1"}], "cache_control": control},
                ]},
            ],
            "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}, "cache_control": control}],
        })
    );
}

#[test]
fn drop_params_leaves_out_sampling_that_newer_models_refuse() {
    let warm = chat(json!({"temperature": 0.5, "top_p": 0.9}));
    let names = |body: &Value| {
        let object = body.as_object().unwrap();
        [
            object.contains_key("temperature"),
            object.contains_key("top_p"),
        ]
    };
    for (model, drop, kept) in [
        ("claude-opus-4-7", true, false),
        ("claude-opus-4-7", false, true),
        ("claude-sonnet-4-5", true, true),
    ] {
        let body = for_model(model, &warm, drop);
        assert_eq!(names(&body), [kept, kept], "{model} {drop}");
    }
    let one = chat(json!({"temperature": 1}));
    assert_eq!(
        names(&for_model("claude-opus-4-7", &one, true)),
        [true, false]
    );
}

#[test]
fn user_that_is_an_address_or_a_number_is_not_sent() {
    for (user, sent) in [
        ("u-1", true),
        ("me@localhost", true),
        ("2024", true),
        ("ann@example.com", false),
        ("+49 (30) 1234-567", false),
    ] {
        for field in [
            json!({"user": user}),
            json!({"metadata": {"user_id": user}}),
        ] {
            let body = for_model("claude-sonnet-4-5", &chat(field), false);
            assert_eq!(body["metadata"]["user_id"] == user, sent, "{user}");
        }
    }
}
