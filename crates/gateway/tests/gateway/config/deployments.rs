//! Where a deployment's calls go, and its ids.

use super::*;

#[test]
fn provider_prefixes_resolve_to_base_url_and_model() {
    let text = "model_list:\n- {model_name: a, litellm_params: {model: gpt-4o, api_key: k}}\n\
                - {model_name: b, litellm_params: {model: openai/meta/llama, api_base: 'http://h:8000/v1/', api_key: k}}\n\
                - {model_name: c, litellm_params: {model: hosted_vllm/q/w, api_base: 'http://h/v1'}}\n\
                - {model_name: d, litellm_params: {model: nobody/x, api_base: 'http://h/v1'}}\n";
    let loaded = load(text);
    let (warnings, config) = (loaded.warnings(), loaded.config);
    let seen: Vec<(String, String)> = config
        .groups
        .iter()
        .map(|group| match &group.deployments[0].target {
            Target::Upstream(upstream) => (
                upstream.api_base.clone(),
                group.deployments[0].model.clone(),
            ),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        ("https://api.openai.com/v1", "gpt-4o"),
        ("http://h:8000/v1", "meta/llama"),
        ("http://h/v1", "q/w"),
        ("http://h/v1", "x"),
    ];
    assert_eq!(
        seen,
        expected.map(|(base, model)| (base.to_owned(), model.to_owned()))
    );
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("the provider nobody is not known here"),
        "{warnings:?}"
    );
}

#[test]
fn openai_api_key_of_the_environment_is_sent_to_openai_only() {
    let text = "model_list:\n- {model_name: a, litellm_params: {model: gpt-4o}}\n- {model_name: b, litellm_params: {model: openai/x, api_base: 'http://h/v1'}}\n";
    let config = Config::parse(text, "config.yaml", &env(&[("OPENAI_API_KEY", "sk-env")]))
        .unwrap()
        .config;
    let key = |group: usize| match &config.groups[group].deployments[0].target {
        Target::Upstream(upstream) => upstream
            .api_key
            .as_ref()
            .map(|key| key.expose_secret().to_owned()),
        other => panic!("{other:?}"),
    };
    assert_eq!((key(0).as_deref(), key(1)), (Some("sk-env"), None));
    let missing = load(text).warnings();
    assert!(missing[0].contains("OPENAI_API_KEY"), "{missing:?}");
}

fn ids(text: &str, of: impl Fn(&DeploymentSettings) -> &String) -> Vec<String> {
    let groups = load(text).config.groups;
    let deployments = groups.iter().flat_map(|group| &group.deployments);
    deployments
        .map(|deployment| of(deployment).clone())
        .collect()
}

#[test]
fn public_deployment_ids_reveal_neither_keys_nor_base_urls() {
    let entry = |key: &str, base: &str| {
        format!(
            "- {{model_name: m, litellm_params: {{model: openai/x, api_base: '{base}', api_key: {key}}}}}\n"
        )
    };
    let of = |entries: &[String], of: fn(&DeploymentSettings) -> &String| {
        ids(&format!("model_list:\n{}", entries.concat()), of)
    };
    let first = [
        entry("~", "https://u:p@host/v1/secret-a"),
        entry("sk-b", "https://host/v1"),
    ];
    let other = [
        entry("sk-c", "https://host/v1/secret-c"),
        entry("~", "https://u:q@host/v1"),
    ];
    let shown = of(&first, |deployment| &deployment.id);
    assert_eq!(shown, of(&other, |deployment| &deployment.id));
    assert_ne!(shown[0], shown[1], "each has its own");
    let elsewhere = of(&[entry("sk-a", "https://elsewhere/v1")], |deployment| {
        &deployment.id
    });
    assert_ne!(shown[0], elsewhere[0]);
    // Ids of the shared state still differ between accounts.
    let state = of(&first, |deployment| &deployment.state_id);
    assert!(
        of(&other, |deployment| &deployment.state_id)
            .iter()
            .all(|id| !state.contains(id))
    );
}

#[test]
fn state_ids_ignore_limits_and_other_entries() {
    let ids = |text: &str| ids(text, |deployment| &deployment.state_id);
    let entry = |name: &str, params: &str| {
        format!(
            "- {{model_name: {name}, litellm_params: {{model: gpt-x, mock_response: hi{params}}}}}\n"
        )
    };
    let base = ids(&format!(
        "model_list:\n{}{}",
        entry("m", ""),
        entry("m", ", rpm: 5")
    ));
    assert_eq!(base.len(), 2);
    assert!(
        base[0] != base[1]
            && base
                .iter()
                .all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
    );
    // Other limits, or another entry before these, do not change their ids.
    let moved = ids(&format!(
        "model_list:\n{}{}{}",
        entry("m", ", api_key: k"),
        entry("m", ", tpm: 9"),
        entry("m", "")
    ));
    assert_eq!(moved[1..], base);
    assert_ne!(
        moved[0],
        ids(&format!("model_list:\n{}", entry("m", ", api_key: l")))[0]
    );
    assert_ne!(
        base[0],
        ids(&format!("model_list:\n{}", entry("other", "")))[0]
    );

    let own = "model_list:\n- {model_name: m, litellm_params: {model: gpt-x, mock_response: hi}, model_info: {id: one, mode: chat}}\n";
    assert_eq!(ids(own), ["one"]);
    let twice = format!("{own}{}", own.trim_start_matches("model_list:\n"));
    assert_eq!(
        error(&twice),
        "config.yaml:3: model_list[1].model_info.id: another deployment of m has the same id; expected one of its own"
    );
}

#[test]
fn hosts_that_no_url_may_have_are_taken_without_tls() {
    let entry = |url: &str| {
        format!(
            "- {{model_name: m, litellm_params: {{model: openai/x, api_base: '{url}/v1', api_key: k}}}}\n"
        )
    };
    let text = format!(
        "model_list:\n{}{}{}",
        entry("http://my_host:8000"),
        entry("http://10.0.0.5"),
        entry("http://qwen3.6:80"),
    );
    let loaded = load(&text);
    assert_eq!(loaded.warnings(), Vec::<String>::new());
    let hosts = loaded.config.hosts();
    assert!(hosts.contains("qwen3.6:80"), "{hosts:?}");
    let plan = loaded.config.plan();
    assert!(plan.contains("http://qwen3.6/v1"), "{plan}");
    let error = error(&format!("model_list:\n{}", entry("https://qwen3.6")));
    assert!(error.contains("expected http:// before a host"), "{error}");
}

#[test]
fn alias_that_is_a_list_leads_nowhere() {
    let loaded = with_model("router_settings: {model_group_alias: {a: [m], b: m}}\n");
    assert_eq!(loaded.config.aliases.len(), 1);
    assert_eq!(loaded.diagnostics[0].code, "group-missing");
}
