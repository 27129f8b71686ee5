//! Fields that LiteLLM sends in a provider's own format, where its OpenAI-compatible endpoint is called here.

use std::collections::HashMap;

use crate::support::*;
use serde_json::Value;
use vorrang_gateway::{Call, Config, Endpoint, Loaded};

fn entry(params: &str) -> String {
    format!("model_list:\n- {{model_name: m, litellm_params: {{{params}}}}}\n")
}

fn load(params: &str) -> Loaded {
    let env = HashMap::<String, String>::new();
    Config::parse(&entry(params), "config.yaml", &env).unwrap()
}

fn gemini(base: &str, model: &str, more: &str) -> String {
    format!("model: gemini/{model}, api_base: '{base}/openai', api_key: k{more}")
}

fn ollama(base: &str, more: &str) -> String {
    format!("model: ollama_chat/qwen3, api_base: '{base}'{more}")
}

/// What arrives of a chat that has these fields besides.
async fn arrives(upstream: &mut Upstream, params: &str, fields: &str) -> String {
    let (router, _) = router(&entry(params));
    router.call(chat(fields)).await.unwrap();
    let body = String::from_utf8(upstream.next().await.body.to_vec()).unwrap();
    let (_, fields) = body.split_once(r#""messages":[]"#).unwrap();
    fields.trim_end_matches('}').to_owned()
}

#[tokio::test]
async fn gemini_chats_carry_only_fields_that_google_takes() {
    let mut upstream = Upstream::start([]).await;
    let own = r#","seed":1,"frequency_penalty":0.1,"top_k":3,"logprobs":true,"metadata":{},"temperature":0.5,"store":null,"user":"u""#;
    let kept = r#","temperature":0.5,"store":null,"user":"u""#;
    let params = gemini(&upstream.base, "gemini-2.5-flash", "");
    assert_eq!(arrives(&mut upstream, &params, own).await, kept);
    let params = gemini(&upstream.base, "gemini-2.5-flash", ", drop_params: true");
    let kept = kept.replace(r#","store":null"#, "");
    assert_eq!(arrives(&mut upstream, &params, own).await, kept);
}

#[tokio::test]
async fn gemini_gets_the_budget_of_thinking_in_googles_form() {
    let mut upstream = Upstream::start([]).await;
    let own = r#","thinking":{"type":"enabled","budget_tokens":64}"#;
    let config = r#","extra_body":{"google":{"thinking_config":{"thinking_budget":64"#;
    let default = ", thinking: {type: enabled, budget_tokens: 64}";
    for (model, more, own, expected) in [
        ("gemini-2.5-flash", "", own, config),
        ("gemini-2.5-flash", default, "", config),
        ("gemini-3-pro-preview", "", own, ""),
        ("gemini-3-pro-preview", default, "", ""),
    ] {
        let params = gemini(&upstream.base, model, more);
        assert_eq!(
            arrives(&mut upstream, &params, own).await,
            expected,
            "{model}"
        );
    }
}

/// Clients of Anthropic's format never see the signature; those of OpenAI's mostly drop it.
#[tokio::test]
async fn gemini_3_gets_a_signature_for_calls_of_tools_that_lost_it() {
    let mut upstream = Upstream::start([]).await;
    let params = gemini(&upstream.base, "gemini-3-flash-preview", "");
    let (router, _) = router(&entry(&params));
    let of_chat = r#"{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]},
                      {"role":"tool","tool_call_id":"a","content":"1"}]}"#;
    let of_messages = r#"{"model":"m","max_tokens":9,"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":{}}]},
                          {"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"1"}]}]}"#;
    for (endpoint, body) in [
        (Endpoint::ChatCompletions, of_chat),
        (Endpoint::Messages, of_messages),
    ] {
        // The answer of this upstream is none of a chat.
        let _ = router.call(Call::new(endpoint, body)).await;
        let seen: Value = serde_json::from_slice(&upstream.next().await.body).unwrap();
        let call = &seen["messages"][0]["tool_calls"][0];
        assert_eq!(call["function"]["name"], "f", "{seen}");
        assert_eq!(
            call["extra_content"]["google"]["thought_signature"],
            "skip_thought_signature_validator",
            "{seen}"
        );
    }
}

#[tokio::test]
async fn other_endpoints_of_gemini_get_all_fields() {
    let mut upstream = Upstream::start([]).await;
    let params = gemini(&upstream.base, "gemini-embedding-001", "");
    let (router, _) = router(&entry(&params));
    let call = Call::new(
        Endpoint::Embeddings,
        r#"{"model":"m","input":"a","dimensions":3}"#,
    );
    router.call(call).await.unwrap();
    let body = upstream.next().await.body;
    assert_eq!(
        body,
        r#"{"model":"gemini-embedding-001","input":"a","dimensions":3}"#
    );
}

#[test]
fn defaults_that_gemini_does_not_take_are_differences() {
    let params = "model: gemini/gemini-2.5-flash, api_key: k, temperature: 0, top_k: 3, thinking: {type: enabled, budget_tokens: 9}, \
                  extra_body: {safety_settings: []}";
    let loaded = load(params);
    let warnings = loaded.warnings();
    let edits = format!("{:?}", loaded.config.groups[0].deployments[0].edits);
    assert!(
        edits.contains(r#"defaults: ["temperature", "thinking"]"#),
        "{edits}"
    );
    for expected in [
        "top_k: does nothing here",
        "thinking: only the budget",
        "extra_body: safety_settings does nothing here",
    ] {
        let told = warnings.iter().filter(|warning| warning.contains(expected));
        assert_eq!(told.count(), 1, "{expected}: {warnings:?}");
    }
    assert_eq!(warnings.len(), 3, "{warnings:?}");
}

#[tokio::test]
async fn ollama_options_become_fields_that_its_openai_endpoint_has() {
    let mut upstream = Upstream::start([]).await;
    let more = ", think: false, format: json, num_predict: 9, extra_body: {options: {seed: 3, num_ctx: 7}}";
    let params = ollama(&upstream.base, more);
    assert_eq!(
        arrives(&mut upstream, &params, "").await,
        r#","reasoning_effort":"none","response_format":{"type":"json_object"},"max_tokens":9,"seed":3"#
    );
    let own = r#","max_completion_tokens":5,"reasoning_effort":"low""#;
    let params = ollama(&upstream.base, ", think: true, num_predict: 9");
    assert_eq!(
        arrives(&mut upstream, &params, own).await,
        r#","max_tokens":5,"reasoning_effort":"low""#
    );
}

#[test]
fn options_that_ollamas_openai_endpoint_ignores_are_differences() {
    let params = "model: ollama/qwen3, num_ctx: 9, mirostat: 1, num_gpu: 1, extra_body: {options: {num_ctx: 7}, keep_alive: 5m}";
    let loaded = load(params);
    let warnings = loaded.warnings();
    let edits = format!("{:?}", loaded.config.groups[0].deployments[0].edits);
    assert!(edits.contains("defaults: []"), "{edits}");
    for expected in [
        "litellm_params.num_ctx:",
        "mirostat:",
        "num_gpu:",
        "extra_body: num_ctx",
        "extra_body: keep_alive",
    ] {
        let told = |warning: &&String| warning.contains(&format!("{expected} does nothing here"));
        assert_eq!(
            warnings.iter().filter(told).count(),
            1,
            "{expected}: {warnings:?}"
        );
    }
    assert_eq!(warnings.len(), 5, "{warnings:?}");
}
