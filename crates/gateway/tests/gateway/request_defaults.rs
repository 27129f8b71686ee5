//! What deployments add to requests and leave out of them: defaults, headers, fields that upstreams refuse.

use std::collections::HashMap;

use crate::support::*;
use vorrang_gateway::{Config, Loaded, Router};

fn load(text: &str) -> Result<Loaded, String> {
    let env = HashMap::<String, String>::new();
    Config::parse(text, "config.yaml", &env).map_err(|error| error.to_string())
}

fn warnings(text: &str) -> Vec<String> {
    load(text).unwrap().warnings()
}

/// One deployment `m` with these parameters.
fn entry(params: &str) -> String {
    format!("model_list:\n- {{model_name: m, litellm_params: {{{params}}}}}\n")
}

#[tokio::test]
async fn request_defaults_fill_absent_fields() {
    let mut upstream = Upstream::start([]).await;
    let params = "temperature: 0.2, max_tokens: 1e2, stop: [a], top_k: 5, extra_body: {provider: {ignore: [x]}, top_k: 6}, \
                  extra_headers: {x-team: red, Authorization: Bearer other}, organization: org-1, max_retries: 0, order: 2";
    let text = one(&upstream.base, params, "");
    let (warnings, (router, _)) = (warnings(&text), router(&text));
    assert!(
        warnings.iter().all(|warning| warning.contains("order")),
        "{warnings:?}"
    );
    router.call(chat("")).await.unwrap();
    let seen = upstream.next().await;
    assert_eq!(
        seen.body,
        r#"{"model":"up","messages":[],"temperature":0.2,"max_tokens":100,"stop":["a"],"provider":{"ignore":["x"]},"top_k":6}"#
    );
    assert_eq!(seen.headers["x-team"], "red");
    assert_eq!(seen.headers["openai-organization"], "org-1");
    assert_eq!(seen.headers["authorization"], "Bearer other");
    let own = r#","temperature":1.0,"stop":null,"max_completion_tokens":7,"provider":1,"top_k":1"#;
    router.call(chat(own)).await.unwrap();
    assert_eq!(
        upstream.next().await.body,
        format!(r#"{{"model":"up","messages":[]{own}}}"#)
    );
}

#[test]
fn unknown_parameters_are_forwarded_except_credentials_and_litellm_settings() {
    let params = "model: openai/x, api_base: 'http://h/v1', api_key: k, rpm_limit: 5, vertex_credentials: os.environ/NONE, \
                  my_secret: s, input_cost_per_token: 1, stream: true, num_ctx: 3";
    let loaded = load(&entry(params)).unwrap();
    let (warnings, config) = (loaded.warnings(), loaded.config);
    let edits = format!("{:?}", config.groups[0].deployments[0].edits);
    assert!(
        edits.contains("rpm_limit") && edits.contains("num_ctx"),
        "{edits}"
    );
    assert!(
        !["vertex", "secret", "cost", "stream"]
            .iter()
            .any(|part| edits.contains(part)),
        "{edits}"
    );
    assert_eq!(warnings.len(), 5, "{warnings:?}");
    let ollama = "model: ollama/x, num_ctx: 32768";
    let loaded = load(&entry(ollama)).unwrap();
    let (warnings, config) = (loaded.warnings(), loaded.config);
    let edits = format!("{:?}", config.groups[0].deployments[0].edits);
    assert!(edits.contains("defaults: []"), "{edits}");
    assert!(
        warnings[0].contains("num_ctx: does nothing here"),
        "{warnings:?}"
    );
    let error = load(&entry(
        "model: openai/x, api_base: 'http://h/v1', extra_body: [1]",
    ))
    .unwrap_err();
    assert!(
        error.contains("extra_body: expected a mapping, found a list"),
        "{error}"
    );
    let error = load(&entry(
        "model: openai/x, api_base: 'http://h/v1', extra_headers: {'a b': c}",
    ))
    .unwrap_err();
    assert!(
        error.contains("extra_headers.a b: expected the name of a header"),
        "{error}"
    );
}

#[tokio::test]
async fn drop_params_omits_fields_that_the_provider_refuses() {
    let mut upstream = Upstream::start([]).await;
    let base = upstream.base.clone();
    let params = |model: &str, more: &str| {
        entry(&format!(
            "model: {model}, api_base: '{base}', api_key: k{more}"
        ))
    };
    let rest = r#","temperature":0.3,"thinking":{},"max_tokens":5,"logprobs":true"#;
    let all = format!(r#""messages":[]{rest}"#);
    let global = "litellm_settings: {drop_params: true}\n";
    for (text, expected) in [
        (params("openai/qwen3", ""), all.clone()),
        (
            params("openai/qwen3", "") + global,
            r#""messages":[],"temperature":0.3,"max_tokens":5,"logprobs":true"#.into(),
        ),
        (
            params("openai/qwen3", ", drop_params: false") + global,
            all.clone(),
        ),
        (
            params("openai/o3-mini", ", drop_params: true"),
            r#""messages":[],"max_completion_tokens":5"#.into(),
        ),
        (
            params("openai/gpt-5.2", ""),
            all.replace("max_tokens", "max_completion_tokens"),
        ),
        (
            params("groq/llama", ", drop_params: true"),
            r#""messages":[],"temperature":0.3,"max_tokens":5"#.into(),
        ),
        (
            params("hosted_vllm/x", ", additional_drop_params: [temperature]"),
            all.replace(r#""temperature":0.3,"#, ""),
        ),
    ] {
        let (router, _) = router(&text);
        router.call(chat(rest)).await.unwrap();
        let body = String::from_utf8(upstream.next().await.body.to_vec()).unwrap();
        let (_, fields) = body.split_once(',').unwrap();
        assert_eq!(
            fields.trim_end_matches('}'),
            expected.trim_end_matches('}'),
            "{text}"
        );
    }
}

/// Fields of OpenAI's chats.
#[rustfmt::skip]
const FIELDS: &[&str] = &[
    "functions", "function_call", "temperature", "top_p", "n", "stream_options", "stop", "max_tokens", "modalities", "prediction", "audio",
    "presence_penalty", "frequency_penalty", "logit_bias", "user", "response_format", "seed", "tools", "tool_choice", "logprobs",
    "top_logprobs", "parallel_tool_calls", "reasoning_effort", "verbosity", "web_search_options", "service_tier", "store",
    "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "thinking",
];

#[tokio::test]
async fn drop_params_leaves_what_litellm_leaves() {
    let mut upstream = Upstream::start([]).await;
    let base = upstream.base.clone();
    let fields = FIELDS.iter().map(|name| format!(r#","{name}":1"#));
    let fields: String = fields.collect();
    let without = |names: &str| {
        let kept = FIELDS
            .iter()
            .filter(|name| !names.split(' ').any(|out| out == **name));
        kept.copied().collect::<Vec<_>>().join(" ")
    };
    for (model, expected) in [
        (
            "perplexity/sonar",
            "temperature top_p stream_options max_tokens presence_penalty frequency_penalty response_format reasoning_effort \
             web_search_options".to_owned(),
        ),
        (
            "nvidia_nim/llama",
            "temperature top_p stream_options stop max_tokens presence_penalty frequency_penalty response_format seed tools tool_choice \
             parallel_tool_calls".to_owned(),
        ),
        (
            "cerebras/llama",
            "temperature top_p stream_options stop max_tokens user response_format seed tools tool_choice reasoning_effort".to_owned(),
        ),
        (
            "mistral/mistral-large-latest",
            "temperature top_p stop max_tokens response_format random_seed tools tool_choice parallel_tool_calls reasoning_effort".to_owned(),
        ),
        ("groq/llama", without("n logit_bias logprobs top_logprobs user verbosity web_search_options thinking")),
        ("deepseek/deepseek-chat", without("user verbosity")),
        ("together_ai/x", without("user verbosity thinking")),
        ("hosted_vllm/x", without("user verbosity")),
        ("lm_studio/x", without("user verbosity thinking reasoning_effort")),
        ("dashscope/qwen-max", without("user verbosity thinking")),
        ("azure_ai/gpt-4o", without("verbosity thinking reasoning_effort")),
    ] {
        let text = format!("model: {model}, api_base: '{base}', api_key: k, drop_params: true");
        let (router, _) = router(&entry(&text));
        router.call(chat(&fields)).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&upstream.next().await.body).unwrap();
        let names = body.as_object().unwrap().keys().map(String::as_str);
        let names = names.filter(|name| !matches!(*name, "model" | "messages"));
        let names: Vec<&str> = names.collect();
        assert_eq!(names.join(" "), expected, "{model}");
    }
}

#[tokio::test]
async fn default_max_tokens_are_reserved() {
    let upstream = Upstream::start([Reply::Hang]).await;
    let text = one(&upstream.base, "max_tokens: 60, tpm: 100", "");
    let (router, _) = router(&text);
    let open = called(&router);
    until(&router, |status| {
        status
            .deployments
            .first()
            .is_some_and(|one| one.tokens.total() == 60)
    })
    .await;
    open.abort();
}

#[tokio::test]
async fn default_max_tokens_above_the_limit_is_admitted() {
    let upstream = Upstream::start([]).await;
    let (router, _) = router(&one(&upstream.base, "max_tokens: 131072, tpm: 100", ""));
    router.call(chat("")).await.unwrap();
}

fn called(router: &Router) -> tokio::task::JoinHandle<()> {
    let router = router.clone();
    tokio::spawn(async move {
        let _ = router.call(chat("")).await;
    })
}
