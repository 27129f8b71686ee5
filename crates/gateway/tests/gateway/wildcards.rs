//! Groups whose name has a `*`: which names lead to them, and what their upstreams get.

use std::collections::HashMap;

use crate::support::*;
use serde_json::Value;
use vorrang_gateway::{Call, Config, Endpoint, Loaded, config::Target};

fn load(text: &str, variables: &[(&str, &str)]) -> Loaded {
    let variables = variables.iter();
    let env: HashMap<String, String> = variables
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Config::parse(text, "config.yaml", &env).unwrap()
}

fn call(model: &str) -> Call {
    let body = serde_json::json!({"model": model, "messages": [], "max_tokens": 9});
    Call::new(Endpoint::ChatCompletions, body.to_string())
}

/// An entry of `model_list`.
fn entry(name: &str, model: &str, base: &str, more: &str) -> String {
    format!(
        "- {{model_name: '{name}', litellm_params: {{model: '{model}', api_base: '{base}', {more}}}}}\n"
    )
}

fn sent(seen: &Seen) -> Value {
    serde_json::from_slice(&seen.body).unwrap()
}

#[tokio::test]
async fn upstream_gets_what_the_star_stands_for() {
    let mut upstream = Upstream::start([]).await;
    let list = [
        entry("openai/*", "openai/*", &upstream.base, ""),
        entry("team-*-x", "openai/org/*", &upstream.base, ""),
        entry("fixed/*", "openai/one", &upstream.base, ""),
    ];
    let (router, _scheduler) = router(&format!("model_list:\n{}", list.concat()));
    for (asked, model) in [
        ("openai/gpt-4o", "gpt-4o"),
        ("openai/a/b:c", "a/b:c"),
        ("team-7-x", "org/7"),
        ("fixed/any", "one"),
    ] {
        let answer = router.call(call(asked)).await.unwrap();
        assert_eq!(sent(&upstream.next().await)["model"], model, "{asked}");
        // Metrics and logs have one name for all of them.
        assert!(answer.info.group.contains('*'), "{}", answer.info.group);
    }
}

#[tokio::test]
async fn exact_names_win_over_patterns_and_longer_patterns_over_shorter() {
    let mut upstream = Upstream::start([]).await;
    let list = [
        entry("*", "openai/short-*", &upstream.base, ""),
        entry("gpt-*", "openai/long-*", &upstream.base, ""),
        entry("gpt-4o", "openai/exact", &upstream.base, ""),
    ];
    let (router, _scheduler) = router(&format!("model_list:\n{}", list.concat()));
    for (asked, model) in [
        ("gpt-4o", "exact"),
        ("gpt-4", "long-4"),
        ("llama", "short-llama"),
    ] {
        router.call(call(asked)).await.unwrap();
        assert_eq!(sent(&upstream.next().await)["model"], model);
    }
}

#[tokio::test]
async fn names_that_fit_no_pattern_get_400() {
    let list = entry("openai/*", "openai/*", "http://localhost:9/v1", "");
    let (router, _scheduler) = router(&format!("model_list:\n{list}"));
    for name in ["gpt-4o", "my/openai/gpt-4o", ""] {
        let error = router.call(call(name)).await.unwrap_err();
        assert_eq!(error.status(), 400);
        let text = error.problem.to_string();
        assert!(text.contains("Invalid model name passed in"), "{text}");
    }
}

#[tokio::test]
async fn all_names_of_a_pattern_share_its_limits() {
    let upstream = Upstream::start([]).await;
    let list = entry("openai/*", "openai/*", &upstream.base, "rpm: 1");
    let (router, _scheduler) = router(&format!("model_list:\n{list}"));
    router.call(call("openai/one")).await.unwrap();
    let waiting = queued(&router, call("openai/two")).await;
    assert!(!waiting.is_finished());
    waiting.abort();
}

#[tokio::test]
async fn alias_of_a_name_that_a_pattern_stands_for_sends_that_name() {
    let mut upstream = Upstream::start([]).await;
    let list = entry("openai/*", "openai/*", &upstream.base, "");
    let settings = "router_settings: {model_group_alias: {mine: openai/gpt-4o}}";
    let (router, _scheduler) = router(&format!("model_list:\n{list}{settings}\n"));
    router.call(call("mine")).await.unwrap();
    assert_eq!(sent(&upstream.next().await)["model"], "gpt-4o");
}

#[tokio::test]
async fn keys_may_name_patterns_and_names_that_patterns_stand_for() {
    let upstream = Upstream::start([]).await;
    let list = entry("openai/*", "openai/*", &upstream.base, "");
    let keys = "vorrang_settings: {keys: [{name: a, key: ka, models: ['openai/gpt-*']}, {name: b, key: kb, models: [openai/o3]}, {name: c, key: kc, models: ['openai/*']}]}\ngeneral_settings: {master_key: sk-m}";
    let text = format!("model_list:\n{list}{keys}\n");
    let policies = load(&text, &[]).config.keys;
    let (router, _scheduler) = router(&text);
    for (key, name, status) in [
        (0, "openai/gpt-4o", 200),
        (0, "openai/o3", 403),
        (1, "openai/o3", 200),
        (1, "openai/gpt-4o", 403),
        (2, "openai/any", 200),
    ] {
        let call = Call {
            key: Some(policies[key].policy.clone()),
            ..call(name)
        };
        let got = router.call(call).await;
        let got = got.map_or_else(|error| error.status(), |answer| answer.status);
        assert_eq!(got, status, "{key} {name}");
    }
}

#[tokio::test]
async fn wildcard_of_azure_puts_the_model_into_the_path() {
    let mut upstream = Upstream::start([]).await;
    let base = upstream.base.strip_suffix("/v1").unwrap();
    let list = entry("azure/*", "azure/*", base, "api_key: k");
    let (router, _scheduler) = router(&format!("model_list:\n{list}"));
    router.call(call("azure/my deployment/x")).await.unwrap();
    let seen = upstream.next().await;
    assert_eq!(
        seen.path,
        "/openai/deployments/my%20deployment%2Fx/chat/completions"
    );
    assert_eq!(sent(&seen)["model"], "my deployment/x");
}

#[tokio::test]
async fn fields_follow_from_the_model_of_the_request() {
    let mut upstream = Upstream::start([]).await;
    let list = entry("openai/*", "openai/*", &upstream.base, "");
    let (router, _scheduler) = router(&format!("model_list:\n{list}"));
    router.call(call("openai/gpt-5-mini")).await.unwrap();
    assert_eq!(sent(&upstream.next().await)["max_completion_tokens"], 9);
    router.call(call("openai/gpt-4o")).await.unwrap();
    assert_eq!(sent(&upstream.next().await)["max_tokens"], 9);
}

const ALL: &str =
    "model_list:\n- {model_name: '*', litellm_params: {model: '*'}, model_info: {id: w}}\n";

#[test]
fn star_alone_becomes_a_group_for_each_provider_with_a_key() {
    let keys = [("GROQ_API_KEY", "gk"), ("ANTHROPIC_API_KEY", "ak")];
    let config = load(ALL, &keys).config;
    let names: Vec<_> = config.groups.iter().map(|group| &*group.name).collect();
    assert_eq!(
        names,
        ["anthropic/*", "ollama/*", "ollama_chat/*", "groq/*"]
    );
    for group in &config.groups {
        let deployment = &group.deployments[0];
        let (provider, _) = group.name.split_once('/').unwrap();
        assert_eq!(deployment.id, format!("w:{provider}"));
        let Target::Upstream(upstream) = &deployment.target else {
            panic!("{deployment:?}");
        };
        let own_key = !provider.starts_with("ollama");
        assert_eq!(upstream.api_key.is_some(), own_key, "{provider}");
    }
}

#[test]
fn settings_of_star_are_those_of_every_group_made_of_it() {
    let settings = "vorrang_settings: {groups: {'*': {max_queue_depth: 7}}}\n";
    let config = load(&format!("{ALL}{settings}"), &[("GROQ_API_KEY", "gk")]).config;
    assert!(config.groups.len() > 1);
    for group in &config.groups {
        assert_eq!(group.max_queue_depth, Some(7), "{}", group.name);
    }
}

#[tokio::test]
async fn bare_names_lead_to_their_provider_of_star() {
    let mut upstream = Upstream::start([]).await;
    let variables = [
        ("OPENAI_API_KEY", "ok"),
        ("OPENAI_BASE_URL", &*upstream.base),
    ];
    let config = load(ALL, &variables).config;
    let router = router_with(config);
    for (asked, model) in [("gpt-4o", "gpt-4o"), ("openai/my-model", "my-model")] {
        let answer = router.call(call(asked)).await.unwrap();
        assert_eq!(sent(&upstream.next().await)["model"], model);
        assert_eq!(answer.info.group, "openai/*");
    }
    // There is no key for it, and nothing else takes it.
    for name in ["claude-sonnet-4-5", "llama-3"] {
        let error = router.call(call(name)).await.unwrap_err();
        assert_eq!(error.status(), 400, "{name}");
    }
}

#[test]
fn key_beside_star_goes_to_openai_only() {
    let text = ALL.replace("model: '*'}", "model: '*', api_key: mine}");
    let loaded = load(&text, &[("GROQ_API_KEY", "gk")]);
    let key = |name: &str| {
        let mut groups = loaded.config.groups.iter();
        let group = groups.find(|group| group.name == name).unwrap();
        match &group.deployments[0].target {
            Target::Upstream(upstream) => upstream.api_key.clone(),
            other => panic!("{other:?}"),
        }
    };
    use secrecy::ExposeSecret as _;
    assert_eq!(key("openai/*").unwrap().expose_secret(), "mine");
    assert_eq!(key("groq/*").unwrap().expose_secret(), "gk");
    let said = |text: &&String| text.contains("is sent to OpenAI only");
    assert_eq!(loaded.warnings().iter().filter(said).count(), 1);
}
