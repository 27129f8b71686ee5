//! Requests and whole answers in both formats, as clients and servers write them.

use serde_json::{Value, json};

use super::*;

pub(super) const TO_MESSAGES: Translation = Translation {
    client: Format::Chat,
    upstream: Format::Messages,
};

pub(super) const TO_CHAT: Translation = Translation {
    client: Format::Messages,
    upstream: Format::Chat,
};

/// A client's chat or messages at an upstream of another format, which calls the model `up`.
pub(super) fn written(
    translation: Translation,
    body: &Value,
    edits: &Edits,
) -> Result<Value, Problem> {
    written_for("up", translation, body, edits)
}

/// The same for a model.
pub(super) fn written_for(
    model: &str,
    translation: Translation,
    body: &Value,
    edits: &Edits,
) -> Result<Value, Problem> {
    let endpoint = match translation.client {
        Format::Messages => Endpoint::Messages,
        _ => Endpoint::ChatCompletions,
    };
    let text = body.to_string();
    let request = Request::parse(endpoint, text.as_bytes(), None).unwrap();
    let body = translation.body(&request, model, edits, true)?;
    Ok(serde_json::from_slice(&body).unwrap())
}

fn translated(endpoint: Endpoint, body: &Value, edits: &Edits) -> Result<Value, Problem> {
    let translation = match endpoint {
        Endpoint::Messages => TO_CHAT,
        _ => TO_MESSAGES,
    };
    written(translation, body, edits)
}

fn to_messages(body: &Value) -> Value {
    translated(Endpoint::ChatCompletions, body, &Edits::default()).unwrap()
}

fn to_chat(body: &Value) -> Value {
    translated(Endpoint::Messages, body, &Edits::default()).unwrap()
}

pub(super) fn asked() -> Asked {
    Asked {
        model: "up".into(),
        ..Asked::default()
    }
}

pub(super) fn answer(translation: Translation, body: &Value) -> Value {
    let answer = translation
        .answer(body.to_string().as_bytes(), &asked())
        .unwrap();
    serde_json::from_slice(&answer).unwrap()
}

fn weather_tool() -> (Value, Value) {
    let schema =
        json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    (
        json!({"type": "function", "function": {"name": "weather", "description": "Now", "parameters": schema}}),
        json!({"name": "weather", "input_schema": schema, "description": "Now"}),
    )
}

#[test]
fn chat_with_tools_and_images_becomes_messages() {
    let (function, tool) = weather_tool();
    let chat = json!({
        "model": "m",
        "priority": 3,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Metric.", "cache_control": {"type": "ephemeral"}}]},
            {"role": "user", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
            ]},
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Rome\"}"}},
                {"id": "functions.weather:1", "type": "function", "function": {"name": "weather", "arguments": ""}},
            ]},
            {"role": "tool", "tool_call_id": "call_1", "content": "20"},
            {"role": "tool", "tool_call_id": "functions.weather:1", "content": [{"type": "text", "text": "21"}]},
            {"role": "user", "content": "And?"},
        ],
        "tools": [function],
        "tool_choice": "required",
        "parallel_tool_calls": false,
        "max_completion_tokens": 50,
        "stop": "END",
        "temperature": 1.5,
        "top_p": 0.9,
        "top_k": 7,
        "user": "u-1",
        "seed": 1,
        "frequency_penalty": 0.1,
        "n": 1,
        "stream": true,
        "stream_options": {"include_usage": true},
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    });
    assert_eq!(
        to_messages(&chat),
        json!({
            "model": "up",
            "system": [
                {"type": "text", "text": "Be brief."},
                {"type": "text", "text": "Metric.", "cache_control": {"type": "ephemeral"}},
            ],
            "messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0K"}},
                    {"type": "image", "source": {"type": "url", "url": "https://example.com/a.jpg"}},
                    {"type": "document", "title": "a.pdf", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}},
                ]},
                {"role": "assistant", "content": [
                    {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}},
                    {"type": "tool_use", "id": "functions_weather_1", "name": "weather", "input": {}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "20"}]},
                    {"type": "tool_result", "tool_use_id": "functions_weather_1", "content": [{"type": "text", "text": "21"}]},
                    {"type": "text", "text": "And?"},
                ]},
            ],
            "max_tokens": 50,
            "stop_sequences": ["END"],
            "temperature": 1.0,
            "top_p": 0.9,
            "top_k": 7,
            "tools": [tool],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
            "metadata": {"user_id": "u-1"},
            "stream": true,
            "output_config": {"format": {"type": "json_schema", "schema": {"type": "object", "additionalProperties": false}}},
        })
    );
}

#[test]
fn messages_with_tools_and_images_become_a_chat() {
    let (function, tool) = weather_tool();
    let messages = json!({
        "model": "m",
        "max_tokens": 50,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "Metric."}],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0K"}},
                {"type": "image", "source": {"type": "url", "url": "https://example.com/a.jpg"}},
                {"type": "document", "title": "a.pdf", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}},
                {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "20"},
                {"type": "tool_result", "tool_use_id": "toolu_2", "is_error": true, "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                ]},
                {"type": "text", "text": "And?"},
            ]},
            {"role": "assistant", "content": "Well"},
            {"role": "user", "content": "Go on"},
        ],
        "tools": [tool],
        "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": true},
        "stop_sequences": ["END"],
        "temperature": 0.5,
        "top_k": 7,
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "metadata": {"user_id": "u".repeat(70)},
        "stream": true,
        "timeout": 9,
    });
    let data = "data:image/png;base64,iVBORw0K";
    assert_eq!(
        to_chat(&messages),
        json!({
            "model": "up",
            "messages": [
                {"role": "system", "content": "Be brief.\n\nMetric."},
                {"role": "user", "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": data}},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg"}},
                    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
                    {"type": "text", "text": "words"},
                ]},
                {"role": "assistant", "content": "I look.", "tool_calls": [
                    {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Rome\"}"}},
                    {"id": "toolu_2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
                ]},
                {"role": "tool", "tool_call_id": "toolu_1", "content": "20"},
                {"role": "tool", "tool_call_id": "toolu_2", "content": "see"},
                {"role": "user", "content": [
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                    {"type": "text", "text": "And?"},
                ]},
                {"role": "assistant", "content": "Well"},
                {"role": "user", "content": "Go on"},
            ],
            "tools": [function],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
            "parallel_tool_calls": false,
            "stop": ["END"],
            "user": "u".repeat(64),
            "reasoning_effort": "medium",
            "max_tokens": 50,
            "temperature": 0.5,
            "stream": true,
            "stream_options": {"include_usage": true},
        })
    );
}

#[test]
fn chat_without_a_maximum_or_a_user_turn_is_completed() {
    let chat = json!({"model": "m", "messages": [{"role": "system", "content": "Say hi"}]});
    assert_eq!(
        to_messages(&chat),
        json!({
            "model": "up", "max_tokens": 4096,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Say hi"}]}],
        })
    );
    let edits = Edits {
        defaults: vec![("max_tokens".into(), "77".into())],
        ..Edits::default()
    };
    let body = translated(Endpoint::ChatCompletions, &chat, &edits).unwrap();
    assert_eq!(body["max_tokens"], 77);
}

#[test]
fn deployments_changes_apply_to_the_chat_that_messages_become() {
    let edits = Edits {
        defaults: vec![("reasoning_effort".into(), "\"low\"".into())],
        drops: vec!["user".into()],
        renames: vec![("max_tokens", "max_completion_tokens")],
        ..Edits::default()
    };
    let messages = json!({
        "model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}], "metadata": {"user_id": "u"},
    });
    assert_eq!(
        translated(Endpoint::Messages, &messages, &edits).unwrap(),
        json!({
            "model": "up", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 5,
            "reasoning_effort": "low",
        })
    );
}

#[test]
fn what_has_no_equivalent_is_a_clear_400_or_left_out_with_drop_params() {
    let drop = Edits {
        drop_params: true,
        ..Edits::default()
    };
    for (endpoint, field, value, dropped) in [
        (Endpoint::ChatCompletions, "n", json!(2), true),
        (Endpoint::ChatCompletions, "logprobs", json!(true), true),
        (
            Endpoint::ChatCompletions,
            "modalities",
            json!(["text", "audio"]),
            true,
        ),
        (Endpoint::ChatCompletions, "functions", json!([]), true),
        (
            Endpoint::ChatCompletions,
            "tools",
            json!([{"type": "custom", "custom": {}}]),
            false,
        ),
        (
            Endpoint::ChatCompletions,
            "tool_choice",
            json!({"type": "allowed_tools"}),
            false,
        ),
        (
            Endpoint::ChatCompletions,
            "messages",
            json!([{"role": "user", "content": [{"type": "input_audio"}]}]),
            false,
        ),
        (
            Endpoint::ChatCompletions,
            "messages",
            json!([{"role": "function", "content": "x"}]),
            false,
        ),
        (
            Endpoint::ChatCompletions,
            "messages",
            json!([{"role": "user", "content": 7}]),
            false,
        ),
        (Endpoint::ChatCompletions, "messages", json!(["hi"]), false),
        (
            Endpoint::Messages,
            "mcp_servers",
            json!([{"url": "https://x"}]),
            true,
        ),
        (
            Endpoint::Messages,
            "tools",
            json!([{"type": "web_search_20250305", "name": "web_search"}]),
            true,
        ),
        (
            Endpoint::Messages,
            "tools",
            json!([{"input_schema": {}}]),
            false,
        ),
        (
            Endpoint::Messages,
            "messages",
            json!([{"role": "user", "content": [{"type": "container_upload"}]}]),
            false,
        ),
        (
            Endpoint::Messages,
            "messages",
            json!([{"role": "critic", "content": "x"}]),
            false,
        ),
        (
            Endpoint::Messages,
            "messages",
            json!([{"role": "assistant", "content": null}]),
            false,
        ),
    ] {
        let (function, _) = weather_tool();
        let mut body =
            json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
        if field == "tool_choice" {
            body["tools"] = json!([function]);
        }
        body[field] = value.clone();
        let problem = translated(endpoint, &body, &Edits::default()).unwrap_err();
        assert_eq!(
            (problem.status().as_u16(), problem.param()),
            (400, Some(field)),
            "{field} {value}"
        );
        let left = translated(endpoint, &body, &drop);
        assert_eq!(left.is_ok(), dropped, "{field} {value}");
        if let Ok(left) = left {
            assert!(left.get(field).is_none(), "{left}");
        }
    }
}

#[test]
fn message_becomes_a_chats_answer() {
    let message = json!({
        "id": "msg_01X", "type": "message", "role": "assistant", "model": "claude",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "text", "text": "I "}, {"type": "text", "text": "look."},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}},
            {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {}},
        ],
        "stop_reason": "tool_use", "stop_sequence": null,
        "usage": {"input_tokens": 3, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100, "output_tokens": 4},
    });
    let mut chat = answer(TO_MESSAGES, &message);
    assert!(chat["created"].take().is_u64());
    assert_eq!(
        chat,
        json!({
            "id": "chatcmpl-01X", "object": "chat.completion", "created": null, "model": "claude",
            "choices": [{
                "index": 0, "logprobs": null, "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant", "content": "I look.", "refusal": null, "reasoning_content": "hm",
                    "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "sig"}],
                    "tool_calls": [
                        {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Rome\"}"}},
                        {"id": "toolu_2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
                    ],
                },
            }],
            "usage": {
                "prompt_tokens": 123, "completion_tokens": 4, "total_tokens": 127,
                "prompt_tokens_details": {"cached_tokens": 100},
                "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20,
            },
        })
    );
    // A client sends the turn back: Claude gets its thoughts with their signature.
    let turn = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}, chat["choices"][0]["message"]]});
    assert_eq!(
        to_messages(&turn)["messages"][1]["content"],
        json!([
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}},
            {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {}},
        ])
    );
}

#[test]
fn chats_answer_becomes_a_message() {
    let chat = json!({
        "id": "chatcmpl-9", "object": "chat.completion", "model": "gpt",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {
            "role": "assistant", "content": "I look.", "reasoning_content": "hm",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Rome\"}"}},
                {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":"}},
            ],
        }}],
        "usage": {"prompt_tokens": 123, "completion_tokens": 4, "total_tokens": 127, "prompt_tokens_details": {"cached_tokens": 100}},
    });
    assert_eq!(
        answer(TO_CHAT, &chat),
        json!({
            "id": "msg_9", "type": "message", "role": "assistant", "model": "gpt",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}},
                {"type": "tool_use", "id": "call_2", "name": "weather", "input": {"arguments": "{\"city\":"}},
            ],
            "stop_reason": "tool_use", "stop_sequence": null,
            "usage": {"input_tokens": 23, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 100, "output_tokens": 4},
        })
    );
}

#[test]
fn reasons_of_the_end_come_to_each_other() {
    for (stop, finish, back) in [
        ("end_turn", "stop", "end_turn"),
        ("stop_sequence", "stop", "end_turn"),
        ("pause_turn", "stop", "end_turn"),
        ("max_tokens", "length", "max_tokens"),
        ("model_context_window_exceeded", "length", "max_tokens"),
        ("tool_use", "tool_calls", "tool_use"),
        ("refusal", "content_filter", "refusal"),
    ] {
        assert_eq!(shared::finish_reason(&stop.into()), finish);
        assert_eq!(shared::stop_reason(finish), back);
    }
    let refused = json!({"choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": null, "refusal": "No."}}]});
    let message = answer(TO_CHAT, &refused);
    assert_eq!(message["stop_reason"], "refusal");
    assert_eq!(message["content"], json!([{"type": "text", "text": "No."}]));
}

#[test]
fn what_is_no_answer_is_not_translated() {
    for body in [
        "",
        "[]",
        "{}",
        r#"{"choices":[]}"#,
        r#"{"content":"x"}"#,
        "busy",
    ] {
        assert_eq!(
            TO_MESSAGES.answer(body.as_bytes(), &asked()),
            None,
            "{body}"
        );
        assert_eq!(TO_CHAT.answer(body.as_bytes(), &asked()), None, "{body}");
    }
}
