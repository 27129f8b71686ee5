//! Requests, answers and streams of a chat and of Converse, as clients and Bedrock write them.

use serde_json::{Value, json};

use crate::{
    problem::Problem,
    request::edits::Edits,
    translate::{
        Asked, Format, Translation,
        golden::{answer, written_for},
        golden_events::{data, translated},
    },
};

const OF_CHAT: Translation = Translation {
    client: Format::Chat,
    upstream: Format::Converse,
};

const OF_MESSAGES: Translation = Translation {
    client: Format::Messages,
    upstream: Format::Converse,
};

const MODEL: &str = "amazon.nova-pro-v1:0";

fn of_chat(body: &Value) -> Result<Value, Problem> {
    written_for(MODEL, OF_CHAT, body, &Edits::default())
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
}

fn function() -> Value {
    json!({"type": "function", "function": {"name": "weather", "description": "Now", "parameters": schema()}})
}

fn tool() -> Value {
    json!({"toolSpec": {"name": "weather", "description": "Now", "inputSchema": {"json": schema()}}})
}

#[test]
fn chat_becomes_a_request_of_converse() {
    let chat = json!({
        "model": "m",
        "priority": 3,
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
            {"role": "user", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/"}},
                {"type": "file", "file": {"filename": "my_report (1).pdf", "file_data": "data:application/pdf;base64,JVBE"}},
            ]},
            {"role": "assistant", "content": "I look.", "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Rome\"}"}},
                {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": ""}},
            ]},
            {"role": "tool", "tool_call_id": "call_1", "content": "20"},
            {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "21"}]},
            {"role": "user", "content": "And?"},
        ],
        "tools": [function()],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": false,
        "max_completion_tokens": 50,
        "temperature": 1.5,
        "top_p": 0.9,
        "top_k": 7,
        "stop": "END",
        "user": "u-1",
        "seed": 1,
        "service_tier": "flex",
        "stream": true,
        "stream_options": {"include_usage": true},
        "guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"},
        "additionalModelRequestFields": {"a": 1},
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    });
    assert_eq!(
        of_chat(&chat).unwrap(),
        json!({
            "system": [{"text": "Be brief."}, {"cachePoint": {"type": "default"}}],
            "messages": [
                {"role": "user", "content": [
                    {"text": "What is this?"},
                    {"image": {"format": "jpeg", "source": {"bytes": "/9j/"}}},
                    {"document": {"format": "pdf", "name": "my report (1)", "source": {"bytes": "JVBE"}}},
                ]},
                {"role": "assistant", "content": [
                    {"text": "I look."},
                    {"toolUse": {"toolUseId": "call_1", "name": "weather", "input": {"city": "Rome"}}},
                    {"toolUse": {"toolUseId": "call_2", "name": "weather", "input": {}}},
                ]},
                {"role": "user", "content": [
                    {"toolResult": {"toolUseId": "call_1", "content": [{"text": "20"}]}},
                    {"toolResult": {"toolUseId": "call_2", "content": [{"text": "21"}]}},
                    {"text": "And?"},
                ]},
            ],
            "inferenceConfig": {"maxTokens": 50, "temperature": 1.0, "topP": 0.9, "stopSequences": ["END"]},
            "toolConfig": {"tools": [tool()], "toolChoice": {"tool": {"name": "weather"}}},
            "guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"},
            "additionalModelRequestFields": {"a": 1, "inferenceConfig": {"topK": 7}},
            "outputConfig": {"textFormat": {
                "type": "json_schema", "structure": {"jsonSchema": {"schema": "{\"type\":\"object\"}"}},
            }},
            "serviceTier": {"type": "flex"},
        })
    );
}

#[test]
fn fields_of_a_model_follow_from_its_name() {
    let chat = json!({
        "model": "m", "messages": [{"role": "user", "content": "hi"}], "reasoning_effort": "low", "top_k": 7,
    });
    for (model, expected) in [
        (
            "us.amazon.nova-2-lite-v1:0",
            json!({"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}, "inferenceConfig": {"topK": 7}}),
        ),
        (
            "deepseek.v3-v1:0",
            json!({"reasoning_effort": "low", "top_k": 7}),
        ),
        ("meta.llama3-3-70b-instruct-v1:0", json!({"top_k": 7})),
    ] {
        let body = written_for(model, OF_CHAT, &chat, &Edits::default()).unwrap();
        assert_eq!(
            body,
            json!({
                "messages": [{"role": "user", "content": [{"text": "hi"}]}], "additionalModelRequestFields": expected,
            }),
            "{model}"
        );
    }
}

#[test]
fn messages_become_a_request_of_converse_by_way_of_a_chat() {
    let messages = json!({
        "model": "m", "max_tokens": 50, "system": "Be brief.", "stream": true,
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"name": "weather", "description": "Now", "input_schema": schema()}],
        "tool_choice": {"type": "any"},
    });
    assert_eq!(
        written_for(MODEL, OF_MESSAGES, &messages, &Edits::default()).unwrap(),
        json!({
            "system": [{"text": "Be brief."}],
            "messages": [{"role": "user", "content": [{"text": "hi"}]}],
            "inferenceConfig": {"maxTokens": 50},
            "toolConfig": {"tools": [tool()], "toolChoice": {"any": {}}},
        })
    );
}

#[test]
fn what_has_no_equivalent_is_a_clear_400_or_left_out_with_drop_params() {
    let drop = Edits {
        drop_params: true,
        ..Edits::default()
    };
    let user = |content: Value| json!([{"role": "user", "content": content}]);
    let called = json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "a", "content": "x"},
    ]);
    for (field, value, messages, dropped) in [
        ("n", json!(2), user(json!("hi")), true),
        ("logprobs", json!(true), user(json!("hi")), true),
        ("tool_choice", json!("none"), called, true),
        (
            "tools",
            json!([{"type": "custom", "custom": {}}]),
            user(json!("hi")),
            false,
        ),
        (
            "tools",
            json!([{"type": "web_search_1", "name": "a"}]),
            user(json!("hi")),
            false,
        ),
        (
            "messages",
            user(json!([{"type": "input_audio"}])),
            Value::Null,
            false,
        ),
        (
            "messages",
            user(json!([{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}])),
            Value::Null,
            false,
        ),
        (
            "messages",
            user(json!([{"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AA"}}])),
            Value::Null,
            false,
        ),
    ] {
        let mut body = json!({"model": "m", "messages": messages, "tools": [function()]});
        body[field] = value.clone();
        let problem = of_chat(&body).unwrap_err();
        assert_eq!(
            (problem.status().as_u16(), problem.param()),
            (400, Some(field)),
            "{field} {value}"
        );
        let left = written_for(MODEL, OF_CHAT, &body, &drop);
        assert_eq!(left.is_ok(), dropped, "{field} {value}");
    }
    // Without calls before it a chat that may call none simply has none.
    let body = json!({"model": "m", "messages": user(json!("hi")), "tools": [function()], "tool_choice": "none"});
    assert!(of_chat(&body).unwrap().get("toolConfig").is_none());
}

fn whole() -> Value {
    json!({
        "output": {"message": {"role": "assistant", "content": [
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "sig"}}},
            {"text": "I "},
            {"citationsContent": {"content": [{"text": "look."}], "citations": []}},
            {"toolUse": {"toolUseId": "tooluse_1", "name": "weather", "input": {"city": "Rome"}}},
            {"toolUse": {"toolUseId": "tooluse_2", "name": "now", "input": {}}},
        ]}},
        "stopReason": "tool_use",
        "usage": {"inputTokens": 3, "outputTokens": 20, "totalTokens": 123, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 0},
        "metrics": {"latencyMs": 7},
    })
}

#[test]
fn answer_of_converse_becomes_a_chats() {
    let mut chat = answer(OF_CHAT, &whole());
    assert!(chat["created"].take().is_u64());
    let id = chat["id"].take();
    assert!(id.as_str().unwrap().starts_with("chatcmpl-"), "{id}");
    assert_eq!(
        chat,
        json!({
            "id": null, "object": "chat.completion", "created": null, "model": "up",
            "choices": [{
                "index": 0, "logprobs": null, "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant", "content": "I look.", "refusal": null, "reasoning_content": "hm",
                    "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "sig"}],
                    "tool_calls": [
                        {"id": "tooluse_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Rome\"}"}},
                        {"id": "tooluse_2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
                    ],
                },
            }],
            "usage": {
                "prompt_tokens": 103, "completion_tokens": 20, "total_tokens": 123,
                "prompt_tokens_details": {"cached_tokens": 100},
                "cache_read_input_tokens": 100, "cache_creation_input_tokens": 0,
            },
        })
    );
    let message = answer(OF_MESSAGES, &whole());
    assert_eq!(message["stop_reason"], "tool_use");
    assert_eq!(
        message["content"][1],
        json!({"type": "text", "text": "I look."})
    );
    for body in ["{}", "[]", r#"{"output":{}}"#, r#"{"message":"no"}"#] {
        assert_eq!(
            OF_CHAT.answer(body.as_bytes(), &Asked::default()),
            None,
            "{body}"
        );
    }
}

#[test]
fn reason_of_the_end_is_converses() {
    for (stop, finish) in [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("malformed_model_output", "stop"),
    ] {
        let mut whole = whole();
        whole["stopReason"] = stop.into();
        assert_eq!(
            answer(OF_CHAT, &whole)["choices"][0]["finish_reason"],
            finish,
            "{stop}"
        );
    }
}

/// Events as they are after AWS's frames.
fn events(events: &[Value]) -> String {
    let event = |event: &Value| {
        format!(
            "event: {}\ndata: {event}\n\n",
            event["type"].as_str().unwrap()
        )
    };
    events.iter().map(event).collect()
}

fn stream() -> Vec<Value> {
    let delta = |index: u64, delta: Value| json!({"type": "contentBlockDelta", "contentBlockIndex": index, "delta": delta, "p": "abc"});
    let stop = |index: u64| json!({"type": "contentBlockStop", "contentBlockIndex": index});
    let call = |index: u64, id: &str, name: &str| {
        json!({
            "type": "contentBlockStart", "contentBlockIndex": index,
            "start": {"toolUse": {"toolUseId": id, "name": name}},
        })
    };
    vec![
        json!({"type": "messageStart", "role": "assistant"}),
        delta(0, json!({"reasoningContent": {"text": "hm"}})),
        delta(0, json!({"reasoningContent": {"signature": "sig"}})),
        stop(0),
        delta(1, json!({"text": "I "})),
        delta(1, json!({"text": "look."})),
        stop(1),
        call(2, "tooluse_1", "weather"),
        delta(2, json!({"toolUse": {"input": "{\"city\":"}})),
        delta(2, json!({"toolUse": {"input": "\"Rome\"}"}})),
        stop(2),
        call(3, "tooluse_2", "now"),
        stop(3),
        json!({"type": "messageStop", "stopReason": "tool_use"}),
        json!({"type": "metadata", "usage": whole()["usage"], "metrics": {"latencyMs": 7}}),
    ]
}

#[test]
fn stream_of_converse_becomes_chunks_of_a_chat_and_events_of_a_message() {
    let asked = Asked {
        usage: true,
        model: "up".into(),
        ..Asked::default()
    };
    let (text, whole) = translated(OF_CHAT, asked.clone(), &events(&stream()));
    assert!(whole && text.ends_with("data: [DONE]\n\n"), "{text}");
    let chunks = data(&text);
    let deltas: Vec<&Value> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"].get(0).map(|choice| &choice["delta"]))
        .collect();
    let call = |index: u64, id: &str, name: &str| json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}]});
    let more = |index: u64, arguments: &str| json!({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]});
    assert_eq!(
        json!(deltas),
        json!([
            {"role": "assistant", "content": ""},
            {"reasoning_content": "hm", "thinking_blocks": [{"type": "thinking", "thinking": "hm"}]},
            {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "sig"}]},
            {"content": "I "},
            {"content": "look."},
            call(0, "tooluse_1", "weather"),
            more(0, "{\"city\":"),
            more(0, "\"Rome\"}"),
            call(1, "tooluse_2", "now"),
            more(1, "{}"),
            {},
        ])
    );
    let (last, before) = chunks.split_last().unwrap();
    assert_eq!(
        before.last().unwrap()["choices"][0]["finish_reason"],
        "tool_calls"
    );
    assert_eq!(last["usage"]["total_tokens"], 123);
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["model"] == "up" && chunk["id"] == chunks[0]["id"])
    );

    let (text, whole) = translated(OF_MESSAGES, asked, &events(&stream()));
    assert!(whole, "{text}");
    let all = data(&text);
    let end = &all[all.len() - 2];
    assert_eq!(end["delta"]["stop_reason"], "tool_use");
    assert_eq!(end["usage"]["cache_read_input_tokens"], 100);
}

#[test]
fn stream_of_converse_ends_without_its_usage_but_not_without_its_reason() {
    let without_usage = &stream()[..14];
    let (text, whole) = translated(OF_CHAT, Asked::default(), &events(without_usage));
    assert!(whole && text.ends_with("data: [DONE]\n\n"), "{text}");
    let begun = events(&stream()[..13]);
    for translation in [OF_CHAT, OF_MESSAGES] {
        let (text, whole) = translated(translation, Asked::default(), &begun);
        assert!(!whole && !text.contains("[DONE]"), "{text}");
    }
    let error =
        json!({"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}});
    let failed = format!("{begun}{}", events(&[error]));
    let (text, _) = translated(OF_CHAT, Asked::default(), &failed);
    assert_eq!(data(&text).pop().unwrap()["error"]["message"], "slow down");
}
