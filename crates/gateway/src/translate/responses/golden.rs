//! Requests, answers and streams of a chat and of the Responses API, as clients and servers write them.

use serde_json::{Value, json};

use crate::{
    problem::Problem,
    request::edits::Edits,
    translate::{
        Asked, Format, Translation,
        golden::{answer, written},
        golden_events::{data, named, translated},
    },
};

const OF_CHAT: Translation = Translation {
    client: Format::Chat,
    upstream: Format::Responses,
};

const OF_MESSAGES: Translation = Translation {
    client: Format::Messages,
    upstream: Format::Responses,
};

fn of_chat(body: &Value) -> Result<Value, Problem> {
    written(OF_CHAT, body, &Edits::default())
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
}

fn function() -> Value {
    json!({"type": "function", "function": {"name": "weather", "description": "Now", "parameters": schema()}})
}

fn tool() -> Value {
    json!({"type": "function", "name": "weather", "description": "Now", "parameters": schema(), "strict": false})
}

#[test]
fn chat_becomes_a_request_of_the_responses_api() {
    let thoughts =
        json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"});
    let chat = json!({
        "model": "m",
        "priority": 3,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Metric."}]},
            {"role": "user", "name": "ann", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
            ]},
            {"role": "assistant", "content": "I look.", "reasoning_items": [thoughts], "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Rome\"}"}},
                {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": ""}},
            ]},
            {"role": "tool", "tool_call_id": "call_1", "content": "20"},
            {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "21"}]},
            {"role": "assistant", "content": null, "refusal": "No."},
            {"role": "user", "content": "And?"},
        ],
        "tools": [function(), {"type": "function", "function": {"name": "now", "strict": true}}, {"type": "code_interpreter"}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": false,
        "max_completion_tokens": 50,
        "temperature": 1.5,
        "top_p": 0.9,
        "reasoning_effort": "high",
        "verbosity": "low",
        "logprobs": true,
        "top_logprobs": 2,
        "user": "u-1",
        "metadata": {"a": "b"},
        "seed": 1,
        "frequency_penalty": 0.1,
        "n": 1,
        "stop": [],
        "stream": true,
        "stream_options": {"include_usage": true},
        "truncation": "auto",
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema(), "strict": true}},
        "web_search_options": {"search_context_size": "low", "user_location": {"type": "approximate", "approximate": {"city": "Bern"}}},
    });
    assert_eq!(
        of_chat(&chat).unwrap(),
        json!({
            "model": "up",
            "input": [
                {"type": "message", "role": "system", "content": "Be brief."},
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Metric."}]},
                {"type": "message", "role": "user", "content": [
                    {"type": "input_text", "text": "What is this?"},
                    {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0K", "detail": "low"},
                    {"type": "input_image", "image_url": "https://example.com/a.jpg", "detail": "auto"},
                    {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"},
                ]},
                thoughts,
                {"type": "message", "role": "assistant", "content": "I look."},
                {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{\"city\":\"Rome\"}"},
                {"type": "function_call", "call_id": "call_2", "name": "weather", "arguments": ""},
                {"type": "function_call_output", "call_id": "call_1", "output": "20"},
                {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "21"}]},
                {"type": "message", "role": "assistant", "content": "No."},
                {"type": "message", "role": "user", "content": "And?"},
            ],
            "tools": [
                tool(),
                {"type": "function", "name": "now", "parameters": {"type": "object", "properties": {}}, "strict": true},
                {"type": "code_interpreter"},
                {"type": "web_search", "search_context_size": "low", "user_location": {"type": "approximate", "city": "Bern"}},
            ],
            "tool_choice": {"type": "function", "name": "weather"},
            "parallel_tool_calls": false,
            "max_output_tokens": 50,
            "temperature": 1.5,
            "top_p": 0.9,
            "reasoning": {"effort": "high"},
            "text": {
                "format": {"type": "json_schema", "name": "x", "schema": schema(), "strict": true},
                "verbosity": "low",
            },
            "include": ["message.output_text.logprobs"],
            "top_logprobs": 2,
            "user": "u-1",
            "stream": true,
            "truncation": "auto",
            "store": false,
        })
    );
}

#[test]
fn short_chat_stays_short_and_is_stored_only_if_it_says_so() {
    let chat = |more: Value| {
        let mut chat = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        chat.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let mut body = of_chat(&chat).unwrap();
        let body = body.as_object_mut().unwrap();
        assert_eq!(body.remove("model").unwrap(), "up");
        assert_eq!(
            body.remove("input").unwrap(),
            json!([{"type": "message", "role": "user", "content": "hi"}])
        );
        Value::Object(std::mem::take(body))
    };
    assert_eq!(chat(json!({})), json!({"store": false}));
    assert_eq!(chat(json!({"store": true})), json!({"store": true}));
    let summary = json!({"effort": "low", "summary": "detailed"});
    for (asked, expected) in [
        (
            json!({"reasoning_effort": summary}),
            json!({"reasoning": summary, "store": false}),
        ),
        (
            json!({"response_format": {"type": "json_object"}, "tool_choice": "required"}),
            json!({"text": {"format": {"type": "json_object"}}, "tool_choice": "required", "store": false}),
        ),
        (
            json!({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [
                {"type": "function", "function": {"name": "a"}},
            ]}}}),
            json!({
                "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "a"}]},
                "store": false,
            }),
        ),
        (
            json!({"max_tokens": 20, "stream_options": {"include_obfuscation": false}}),
            json!({"max_output_tokens": 20, "stream_options": {"include_obfuscation": false}, "store": false}),
        ),
    ] {
        assert_eq!(chat(asked), expected);
    }
}

#[test]
fn messages_become_a_request_of_the_responses_api_by_way_of_a_chat() {
    let messages = json!({
        "model": "m", "max_tokens": 50, "system": "Be brief.", "stream": true,
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "20"}]},
        ],
        "tools": [{"name": "weather", "description": "Now", "input_schema": schema()}],
        "tool_choice": {"type": "any"},
        "thinking": {"type": "enabled", "budget_tokens": 2048},
    });
    let edits = Edits {
        renames: vec![("max_tokens", "max_completion_tokens")],
        ..Edits::default()
    };
    assert_eq!(
        written(OF_MESSAGES, &messages, &edits).unwrap(),
        json!({
            "model": "up",
            "input": [
                {"type": "message", "role": "system", "content": "Be brief."},
                {"type": "message", "role": "user", "content": "hi"},
                {"type": "function_call", "call_id": "toolu_1", "name": "weather", "arguments": "{\"city\":\"Rome\"}"},
                {"type": "function_call_output", "call_id": "toolu_1", "output": "20"},
            ],
            "tools": [tool()],
            "tool_choice": "required",
            "max_output_tokens": 50,
            "reasoning": {"effort": "medium"},
            "stream": true,
            "store": false,
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
    for (field, value, dropped) in [
        ("n", json!(2), true),
        ("stop", json!("END"), true),
        ("audio", json!({}), true),
        ("modalities", json!(["text", "audio"]), true),
        ("functions", json!([]), true),
        ("function_call", json!("auto"), true),
        (
            "tools",
            json!([{"type": "custom", "custom": {"name": "a"}}]),
            false,
        ),
        (
            "tools",
            json!([{"type": "function", "function": {}}]),
            false,
        ),
        ("tool_choice", json!({"type": "custom"}), false),
        ("tool_choice", json!({"type": "function"}), false),
        ("response_format", json!({"type": "json_schema"}), false),
        ("messages", user(json!([{"type": "input_audio"}])), false),
        ("messages", user(json!([{"type": "image_url"}])), false),
        ("messages", user(json!(7)), false),
        (
            "messages",
            json!([{"role": "function", "content": "x"}]),
            false,
        ),
        ("messages", json!([{"role": "tool", "content": "x"}]), false),
        (
            "messages",
            json!([{"role": "assistant", "tool_calls": [{"id": "a"}]}]),
            false,
        ),
        ("messages", json!(["hi"]), false),
    ] {
        let mut body = json!({"model": "m", "messages": user(json!("hi"))});
        body[field] = value.clone();
        let problem = of_chat(&body).unwrap_err();
        assert_eq!(
            (problem.status().as_u16(), problem.param()),
            (400, Some(field)),
            "{field} {value}"
        );
        let left = written(OF_CHAT, &body, &drop);
        assert_eq!(left.is_ok(), dropped, "{field} {value}");
        if let Ok(left) = left {
            assert!(left.get(field).is_none(), "{left}");
        }
    }
}

fn usage() -> Value {
    json!({
        "input_tokens": 103, "input_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 0},
        "output_tokens": 20, "output_tokens_details": {"reasoning_tokens": 12}, "total_tokens": 123,
    })
}

fn chat_usage() -> Value {
    json!({
        "prompt_tokens": 103, "prompt_tokens_details": {"cached_tokens": 100},
        "completion_tokens": 20, "completion_tokens_details": {"reasoning_tokens": 12}, "total_tokens": 123,
    })
}

fn response(status: &str, output: &Value) -> Value {
    json!({
        "id": "resp_1", "object": "response", "created_at": 7, "status": status, "model": "o3", "error": null,
        "incomplete_details": null, "output": output, "usage": usage(), "service_tier": "default",
    })
}

fn output() -> Value {
    json!([
        {"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA", "summary": [
            {"type": "summary_text", "text": "First"}, {"type": "summary_text", "text": "Then"},
        ]},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [
            {"type": "output_text", "text": "Über ", "annotations": [], "logprobs": []},
            {"type": "output_text", "text": "it.", "annotations": [
                {"type": "url_citation", "start_index": 0, "end_index": 2, "title": "T", "url": "https://a"},
                {"type": "file_path", "file_id": "f", "index": 0},
            ], "logprobs": [{"token": "it.", "logprob": -0.5, "bytes": [105], "top_logprobs": []}]},
        ]},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": "{\"city\":\"Rome\"}"},
        {"type": "function_call", "id": "fc_2", "call_id": "call_2", "name": "now", "arguments": "{}"},
    ])
}

#[test]
fn response_becomes_a_chats_answer() {
    assert_eq!(
        answer(OF_CHAT, &response("completed", &output())),
        json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 7, "model": "o3", "service_tier": "default",
            "choices": [{
                "index": 0,
                "finish_reason": "tool_calls",
                "logprobs": {"refusal": null, "content": [{"token": "it.", "logprob": -0.5, "bytes": [105], "top_logprobs": []}]},
                "message": {
                    "role": "assistant", "content": "Über it.", "refusal": null,
                    "tool_calls": [
                        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Rome\"}"}},
                        {"id": "call_2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
                    ],
                    "annotations": [{"type": "url_citation", "url_citation": {
                        "start_index": 5, "end_index": 7, "title": "T", "url": "https://a",
                    }}],
                    "reasoning_content": "First\n\nThen",
                    "reasoning_items": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA", "summary": [
                        {"type": "summary_text", "text": "First"}, {"type": "summary_text", "text": "Then"},
                    ]}],
                },
            }],
            "usage": chat_usage(),
        })
    );
}

#[test]
fn response_becomes_a_message_by_way_of_a_chat() {
    assert_eq!(
        answer(OF_MESSAGES, &response("completed", &output())),
        json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": "o3",
            "content": [
                {"type": "thinking", "thinking": "First\n\nThen", "signature": ""},
                {"type": "text", "text": "Über it."},
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}},
                {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
            ],
            "stop_reason": "tool_use", "stop_sequence": null,
            "usage": {"input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 100, "output_tokens": 20},
        })
    );
}

#[test]
fn reason_of_the_end_is_the_status_of_the_response() {
    let text = |text: &str| json!([{"type": "message", "content": [{"type": "output_text", "text": text}]}]);
    let choice = |response: &Value| answer(OF_CHAT, response)["choices"][0].take();
    assert_eq!(
        choice(&response("completed", &text("hi")))["finish_reason"],
        "stop"
    );
    for (reason, expected) in [
        (json!("max_output_tokens"), "length"),
        (json!("content_filter"), "content_filter"),
        (Value::Null, "length"),
    ] {
        let mut incomplete = response("incomplete", &json!([]));
        incomplete["incomplete_details"] = json!({"reason": reason});
        let choice = choice(&incomplete);
        assert_eq!(choice["finish_reason"], expected);
        assert_eq!(choice["message"]["content"], "");
    }
    let refused = json!([{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]);
    let choice = choice(&response("completed", &refused));
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["message"]["refusal"], "No.");
    assert_eq!(choice["message"]["content"], Value::Null);
    for body in [
        "{}",
        "[]",
        r#"{"output":[],"status":"queued"}"#,
        r#"{"output":[],"status":"cancelled"}"#,
    ] {
        assert_eq!(
            OF_CHAT.answer(body.as_bytes(), &Asked::default()),
            None,
            "{body}"
        );
    }
}

/// What a server sends for [`output`].
fn stream() -> Vec<Value> {
    let text = |part: u64, piece: &str, logprobs: Value| {
        json!({
            "type": "response.output_text.delta", "output_index": 2, "content_index": part, "delta": piece,
            "logprobs": logprobs,
        })
    };
    let thought = |part: u64, piece: &str| {
        json!({
            "type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": part, "delta": piece,
        })
    };
    let item = |kind: &str, index: usize| json!({"type": kind, "output_index": index, "item": output()[index]});
    let mut begun = output()[3].clone();
    begun["arguments"] = "".into();
    let created = json!({"id": "resp_1", "object": "response", "status": "in_progress", "model": "o3", "error": null, "output": []});
    vec![
        json!({"type": "response.created", "response": created}),
        json!({"type": "response.in_progress", "response": created}),
        thought(0, "Fir"),
        thought(0, "st"),
        thought(1, "Then"),
        item("response.output_item.done", 0),
        item("response.output_item.added", 1),
        text(0, "Über ", json!([])),
        text(1, "it", json!([])),
        text(1, ".", json!([{"token": ".", "logprob": -0.5}])),
        json!({
            "type": "response.output_text.annotation.added", "output_index": 2, "content_index": 1, "annotation_index": 0,
            "annotation": output()[2]["content"][1]["annotations"][0],
        }),
        json!({"type": "response.output_item.added", "output_index": 3, "item": begun}),
        json!({"type": "response.function_call_arguments.delta", "output_index": 3, "delta": "{\"city\":"}),
        json!({"type": "response.function_call_arguments.delta", "output_index": 3, "delta": "\"Rome\"}"}),
        json!({"type": "response.function_call_arguments.done", "output_index": 3, "arguments": "{\"city\":\"Rome\"}"}),
        item("response.output_item.done", 3),
        // As servers do that call at once.
        item("response.output_item.added", 4),
        item("response.output_item.done", 4),
        json!({"type": "response.completed", "response": response("completed", &output())}),
    ]
}

#[test]
fn stream_of_a_response_becomes_chunks_of_a_chat() {
    let asked = Asked {
        usage: true,
        ..Asked::default()
    };
    let (text, whole) = translated(OF_CHAT, asked, &named(&stream()));
    assert!(whole && text.ends_with("data: [DONE]\n\n"), "{text}");
    // Events without a counterpart are signs of life: the state, the search, and ends of calls.
    assert_eq!(text.matches(": ping\n\n").count(), 4, "{text}");
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
            {"reasoning_content": "Fir"},
            {"reasoning_content": "st"},
            {"reasoning_content": "\n\nThen"},
            {"reasoning_items": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA", "summary": [
                {"type": "summary_text", "text": "First"}, {"type": "summary_text", "text": "Then"},
            ]}]},
            {"content": "Über "},
            {"content": "it"},
            {"content": "."},
            {"annotations": [{"type": "url_citation", "url_citation": {
                "start_index": 5, "end_index": 7, "title": "T", "url": "https://a",
            }}]},
            call(0, "call_1", "weather"),
            more(0, "{\"city\":"),
            more(0, "\"Rome\"}"),
            call(1, "call_2", "now"),
            more(1, "{}"),
            {},
        ])
    );
    let (last, before) = chunks.split_last().unwrap();
    assert_eq!(
        before.last().unwrap()["choices"][0]["finish_reason"],
        "tool_calls"
    );
    assert_eq!(
        (&last["choices"], &last["usage"]),
        (&json!([]), &chat_usage())
    );
    let probable = &before[7]["choices"][0]["logprobs"];
    assert_eq!(
        *probable,
        json!({"content": [{"token": ".", "logprob": -0.5}], "refusal": null})
    );
    assert!(before.iter().all(|chunk| {
        chunk["id"] == "chatcmpl-1" && chunk["model"] == "o3" && chunk["usage"].is_null()
    }));
    let (text, _) = translated(OF_CHAT, Asked::default(), &named(&stream()));
    assert!(!text.contains("usage"), "{text}");
}

#[test]
fn stream_of_a_response_becomes_a_message_by_way_of_chunks() {
    let (text, whole) = translated(OF_MESSAGES, Asked::default(), &named(&stream()));
    assert!(whole, "{text}");
    let events = data(&text);
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| {
            let begun = event["content_block"]["type"].as_str();
            begun.or(event["type"].as_str()).unwrap()
        })
        .filter(|kind| !matches!(*kind, "content_block_delta" | "content_block_stop"))
        .collect();
    assert_eq!(
        kinds,
        [
            "message_start",
            "thinking",
            "text",
            "tool_use",
            "tool_use",
            "message_delta",
            "message_stop"
        ]
    );
    let end = &events[events.len() - 2];
    assert_eq!(end["delta"]["stop_reason"], "tool_use");
    assert_eq!(end["usage"]["cache_read_input_tokens"], 100);
    assert_eq!(end["usage"]["output_tokens"], 20);
    assert!(text.contains("\n\n: ping\n\n"), "{text}");
}

#[test]
fn stream_of_an_incomplete_response_ends_with_its_reason() {
    let mut incomplete = response("incomplete", &json!([]));
    incomplete["incomplete_details"] = json!({"reason": "max_output_tokens"});
    let events = [
        json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "half"}),
        json!({"type": "response.refusal.delta", "output_index": 0, "content_index": 1, "delta": "No."}),
        json!({"type": "response.incomplete", "response": incomplete}),
    ];
    let (text, whole) = translated(OF_CHAT, Asked::default(), &named(&events));
    assert!(whole, "{text}");
    let chunks = data(&text);
    assert_eq!(chunks[1]["choices"][0]["delta"], json!({"content": "half"}));
    assert_eq!(chunks[2]["choices"][0]["delta"], json!({"refusal": "No."}));
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "length");
}

#[test]
fn stream_of_a_response_that_breaks_off_or_fails_is_no_whole_answer() {
    let begun = named(&stream()[..10]);
    for translation in [OF_CHAT, OF_MESSAGES] {
        let (text, whole) = translated(translation, Asked::default(), &begun);
        assert!(!whole && !text.contains("[DONE]"), "{text}");
    }
    let mut failed = response("failed", &json!([]));
    failed["error"] = json!({"code": "rate_limit_exceeded", "message": "slow down"});
    for (event, kind, code) in [
        (
            json!({"type": "response.failed", "response": failed}),
            "rate_limit_exceeded",
            json!("rate_limit_exceeded"),
        ),
        (
            json!({"type": "error", "code": "rate_limit_exceeded", "message": "slow down", "param": null, "sequence_number": 3}),
            "rate_limit_exceeded",
            json!("rate_limit_exceeded"),
        ),
        (
            json!({"type": "error", "error": {"type": "too_many_requests", "message": "slow down"}}),
            "too_many_requests",
            Value::Null,
        ),
    ] {
        let stream = format!("{begun}{}", named(&[event]));
        let (text, whole) = translated(OF_CHAT, Asked::default(), &stream);
        assert!(whole, "{text}");
        assert_eq!(
            data(&text).pop().unwrap(),
            json!({"error": {"message": "slow down", "type": kind, "param": null, "code": code}})
        );
        let (text, _) = translated(OF_MESSAGES, Asked::default(), &stream);
        assert_eq!(
            data(&text).pop().unwrap(),
            json!({"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}})
        );
    }
}
