//! Settings of LiteLLM's file that change what calls are, beside those of deployments' addresses.

use vorrang_gateway::{Call, Endpoint};

use crate::{
    providers::{entry, load, router_of},
    support::*,
};

#[tokio::test]
async fn completion_model_replaces_the_model_that_chats_name() {
    let mut upstream = Upstream::start([]).await;
    let base = &upstream.base;
    let (router, warnings) = router_of(&format!(
        "model_list:\n- {{model_name: all, litellm_params: {{model: openai/up, api_base: '{base}', api_key: k}}}}\n\
         general_settings: {{completion_model: all}}\n"
    ));
    assert_eq!(warnings, [""; 0]);
    let call = |endpoint, body: &'static str| router.call(Call::new(endpoint, body));
    call(
        Endpoint::ChatCompletions,
        r#"{"model":"any","messages":[]}"#,
    )
    .await
    .unwrap();
    let seen = upstream.next().await;
    assert!(
        seen.body.starts_with(br#"{"model":"up""#),
        "{:?}",
        seen.body
    );
    let other = call(Endpoint::Embeddings, r#"{"model":"any","input":"x"}"#);
    assert_eq!(other.await.unwrap_err().status(), 400);
}

#[tokio::test]
async fn default_litellm_params_stand_in_every_deployment() {
    let mut upstream = Upstream::start([]).await;
    let base = &upstream.base;
    let (router, warnings) = router_of(&format!(
        "model_list:\n- {{model_name: m, litellm_params: {{model: openai/up, api_base: '{base}', temperature: 1, top_p: 0.5}}}}\n\
         router_settings: {{default_litellm_params: {{api_key: sk-all, temperature: 0, seed: ~}}}}\n"
    ));
    assert_eq!(warnings, [""; 0]);
    router.call(chat("")).await.unwrap();
    let seen = upstream.next().await;
    assert_eq!(seen.headers["authorization"], "Bearer sk-all");
    let body: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(
        (&body["temperature"], &body["top_p"]),
        (&0.into(), &0.5.into())
    );
    assert!(body.get("seed").is_none());
    let wrong =
        entry("model: gpt-4o, api_key: k") + "router_settings: {default_litellm_params: [1]}\n";
    let error = load(&wrong, &[]).unwrap_err();
    assert!(
        error.contains("default_litellm_params: expected a mapping"),
        "{error}"
    );
}

#[test]
fn drop_params_that_is_a_list_counts_as_absent() {
    let params = "model: openai/up, api_base: 'http://h/v1', drop_params: [tool_choice]";
    let loaded = load(&entry(params), &[]).unwrap();
    assert!(
        loaded.warnings()[0].contains("is no boolean"),
        "{:?}",
        loaded.warnings()
    );
}

#[test]
fn limits_of_model_info_count_where_deployments_are_chosen_by_use() {
    let of = |strategy: &str| {
        let text = format!(
            "model_list:\n- model_name: m\n  litellm_params: {{model: openai/up, api_base: 'http://h/v1', tpm: 5}}\n  \
             model_info: {{rpm: 3, tpm: 9}}\nrouter_settings: {{routing_strategy: {strategy}}}\n"
        );
        let config = load(&text, &[]).unwrap().config;
        let limits = config.groups[0].deployments[0].limits.iter();
        limits.map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(of("usage-based-routing-v2"), ["rpm 3", "tpm 5"]);
    assert_eq!(of("simple-shuffle"), ["tpm 5"]);
}

#[tokio::test]
async fn fields_that_the_file_requires_are_missed() {
    let text = entry("model: openai/up, mock_response: hi")
        + "general_settings: {enforce_user_param: true, enforced_params: [metadata.team]}\n";
    let (router, warnings) = router_of(&text);
    assert_eq!(warnings, [""; 0]);
    for (fields, missing) in [
        ("", Some("'user'")),
        (r#","user":"u""#, Some("'metadata.team'")),
        (r#","user":"u","metadata":{"x":1}"#, Some("'metadata.team'")),
        (r#","user":"u","metadata":7"#, Some("'metadata.team'")),
        (r#","user":"u","metadata":{"team":null}"#, None),
    ] {
        let answer = router.call(chat(fields)).await;
        let error = answer.err().map(|error| (error.status(), error.message()));
        match (error, missing) {
            (None, None) => {}
            (Some((status, message)), Some(name)) => {
                assert!(
                    status == 400 && message.contains(name),
                    "{fields}: {message}"
                );
            }
            (error, _) => panic!("{fields}: {error:?}"),
        }
    }
}

#[test]
fn settings_of_deployments_that_change_calls_in_litellm_are_differences() {
    let params = "model: openai/up, api_base: 'http://h/v1', litellm_system_prompt: Hi, \
                  supports_system_message: false, fallbacks: [other], prompt_id: p, ensure_alternating_roles: ~, max_tokens: ~";
    let loaded = load(&entry(params), &[]).unwrap();
    let told = |key: &str| {
        let mut all = loaded.diagnostics.iter();
        let one = all.find(|one| one.key.as_deref().is_some_and(|path| path.ends_with(key)));
        one.map(|one| one.code)
    };
    for key in [
        "litellm_system_prompt",
        "supports_system_message",
        "fallbacks",
        "prompt_id",
    ] {
        assert_eq!(told(key), Some("setting-not-done"), "{key}");
    }
    assert_eq!(
        (told("ensure_alternating_roles"), told("max_tokens")),
        (None, None)
    );
    let error = load(
        &entry("model: openai/up, mock_response: x, guardrails: [pii]"),
        &[],
    )
    .unwrap_err();
    assert!(error.contains("guardrails: is not supported"), "{error}");
}

#[test]
fn callback_of_the_users_own_is_a_difference() {
    let text = entry("model: openai/up, mock_response: x")
        + "litellm_settings: {callbacks: [mine.handler], success_callback: [langfuse]}\nx-anchors: {a: 1}\n";
    let loaded = load(&text, &[]).unwrap();
    let codes: Vec<&str> = loaded.diagnostics.iter().map(|one| one.code).collect();
    assert_eq!(
        codes,
        ["setting-not-done", "setting-idle", "setting-idle"],
        "{:?}",
        loaded.warnings()
    );
}

#[tokio::test]
async fn openai_parameters_that_the_file_allows_are_not_left_out() {
    for (more, kept) in [("", false), (", allowed_openai_params: [thinking]", true)] {
        let mut upstream = Upstream::start([]).await;
        let params = format!(
            "model: openai/up, api_base: '{}', drop_params: true{more}",
            upstream.base
        );
        let (router, _) = router_of(&entry(&params));
        router.call(chat(r#","thinking":{}"#)).await.unwrap();
        let seen = upstream.next().await;
        let body: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
        assert_eq!(body.get("thinking").is_some(), kept, "{more}");
    }
}
