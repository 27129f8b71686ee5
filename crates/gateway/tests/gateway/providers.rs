//! Where deployments' calls go, and in which form: providers, Azure, request defaults, fields that upstreams refuse.

use std::{collections::HashMap, sync::Arc};

use crate::support::*;
use secrecy::ExposeSecret;
use vorrang_gateway::{
    Call, Config, Endpoint, Loaded, Router,
    config::{Dialect, KeyHeader, Target, Upstream as Server},
};
use vorrang_scheduler::{NoObserver, Scheduler, backend::MemoryBackend};

pub(crate) fn load(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, String> {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let env: HashMap<String, String> = variables.collect();
    Config::parse(text, "config.yaml", &env).map_err(|error| error.to_string())
}

/// One deployment `m` with these parameters.
pub(crate) fn entry(params: &str) -> String {
    format!("model_list:\n- {{model_name: m, litellm_params: {{{params}}}}}\n")
}

/// The server and the model's name there.
fn found(params: &str, variables: &[(&str, &str)]) -> (Server, String) {
    let config = load(&entry(params), variables).unwrap().config;
    let deployment = &config.groups[0].deployments[0];
    match &deployment.target {
        Target::Upstream(server) => (server.clone(), deployment.model.clone()),
        other => panic!("{params}: {other:?}"),
    }
}

fn base_and_model(params: &str) -> (String, String) {
    let (server, model) = found(params, &[]);
    (server.api_base, model)
}

pub(crate) fn router_of(text: &str) -> (Router, Vec<String>) {
    let loaded = load(text, &[]).unwrap();
    let (warnings, config) = (loaded.warnings(), loaded.config);
    let scheduler = Scheduler::new(
        Arc::new(MemoryBackend::new()),
        "instance",
        Arc::new(NoObserver),
    );
    (Router::new(Arc::new(config), scheduler), warnings)
}

#[test]
fn model_prefix_selects_its_provider() {
    for (params, base, model) in [
        (
            "model: groq/llama-3.3-70b",
            "https://api.groq.com/openai/v1",
            "llama-3.3-70b",
        ),
        (
            "model: openrouter/openai/gpt-4o",
            "https://openrouter.ai/api/v1",
            "openai/gpt-4o",
        ),
        (
            "model: anthropic/claude-sonnet-4-5",
            "https://api.anthropic.com/v1",
            "claude-sonnet-4-5",
        ),
        (
            "model: gemini/gemini-2.5-pro",
            "https://generativelanguage.googleapis.com/v1beta/openai",
            "gemini-2.5-pro",
        ),
        (
            "model: fireworks_ai/llama-v3p1-8b",
            "https://api.fireworks.ai/inference/v1",
            "accounts/fireworks/models/llama-v3p1-8b",
        ),
        (
            "model: fireworks_ai/accounts/me/models/x",
            "https://api.fireworks.ai/inference/v1",
            "accounts/me/models/x",
        ),
        (
            "model: ollama/qwen3:8b",
            "http://localhost:11434/v1",
            "qwen3:8b",
        ),
        (
            "model: 'openai//models/a.gguf', api_base: 'http://h:8080/v1'",
            "http://h:8080/v1",
            "/models/a.gguf",
        ),
        // The vendor before the slash belongs to the name there.
        (
            "model: mistralai/mistral-7b, api_base: 'https://openrouter.ai/api/v1'",
            "https://openrouter.ai/api/v1",
            "mistralai/mistral-7b",
        ),
        (
            "model: meta-llama/x, api_base: 'https://api.together.xyz/v1'",
            "https://api.together.xyz/v1",
            "meta-llama/x",
        ),
        (
            "model: qwen/x, custom_llm_provider: openai, api_base: 'http://h/v1'",
            "http://h/v1",
            "qwen/x",
        ),
        (
            "model: openai/x, custom_llm_provider: openai, api_base: 'http://h/v1'",
            "http://h/v1",
            "x",
        ),
        (
            "model: qwen/x, custom_llm_provider: groq",
            "https://api.groq.com/openai/v1",
            "qwen/x",
        ),
        (
            "model: openai/x, base_url: 'http://h/v1/'",
            "http://h/v1",
            "x",
        ),
        (
            "model: hosted_vllm/x, api_base: 'http://h/v1/chat/completions'",
            "http://h/v1",
            "x",
        ),
    ] {
        assert_eq!(
            base_and_model(params),
            (base.to_owned(), model.to_owned()),
            "{params}"
        );
    }
}

#[test]
fn claude_is_called_in_anthropics_format_at_its_own_address_as_elsewhere() {
    for (more, base) in [
        ("", "https://api.anthropic.com/v1"),
        (
            ", api_base: 'https://api.anthropic.com'",
            "https://api.anthropic.com/v1",
        ),
        (
            ", api_base: 'https://api.anthropic.com/v1/messages'",
            "https://api.anthropic.com/v1",
        ),
        (", api_base: 'http://h:1/x'", "http://h:1/x/v1"),
    ] {
        let params = format!("model: anthropic/claude-sonnet-4-5, api_key: k{more}");
        let (server, _) = found(&params, &[]);
        assert_eq!(server.api_base, base, "{params}");
        assert_eq!(server.dialect, Dialect::Anthropic, "{params}");
        assert_eq!(server.key_header, KeyHeader::XApiKey, "{params}");
    }
}

#[test]
fn bare_model_name_selects_its_provider() {
    let base = |params: &str| base_and_model(params).0;
    assert_eq!(
        base("model: claude-3-5-sonnet-20241022"),
        "https://api.anthropic.com/v1"
    );
    assert_eq!(
        base("model: command-r"),
        "https://api.cohere.ai/compatibility/v1"
    );
    assert_eq!(base("model: o3-mini"), "https://api.openai.com/v1");
    assert_eq!(
        base("model: gemini-1.5-flash, api_key: k"),
        "https://generativelanguage.googleapis.com/v1beta/openai"
    );
    assert_eq!(
        base("model: llama-3.3-70b-versatile, api_base: 'https://api.groq.com/openai/v1'"),
        "https://api.groq.com/openai/v1"
    );
    assert_eq!(base("model: mine, api_base: 'http://h/v1'"), "http://h/v1");
}

#[test]
fn ollama_base_url_always_ends_in_v1() {
    for base in [
        "http://h:11434",
        "http://h:11434/",
        "http://h:11434/v1",
        "http://h:11434/v1/",
        "http://h:11434/api",
    ] {
        for prefix in ["ollama", "ollama_chat"] {
            let params = format!("model: {prefix}/m, api_base: '{base}'");
            assert_eq!(base_and_model(&params).0, "http://h:11434/v1", "{params}");
        }
    }
    let (server, _) = found(
        "model: ollama/m",
        &[("OLLAMA_API_BASE", "http://box:11434")],
    );
    assert_eq!(server.api_base, "http://box:11434/v1");
}

#[test]
fn environment_api_keys_are_sent_to_their_provider_only() {
    let variables = [
        ("GROQ_API_KEY", "sk-groq"),
        ("OPENAI_API_KEY", "sk-openai"),
        ("ANTHROPIC_API_KEY", "sk-anthropic"),
        ("HOSTED_VLLM_API_KEY", "sk-vllm"),
    ];
    let key = |params: &str| {
        let (server, _) = found(params, &variables);
        server.api_key.map(|key| key.expose_secret().to_owned())
    };
    assert_eq!(key("model: groq/x").as_deref(), Some("sk-groq"));
    assert_eq!(
        key("model: claude-sonnet-4-5").as_deref(),
        Some("sk-anthropic")
    );
    assert_eq!(key("model: groq/x, api_key: own").as_deref(), Some("own"));
    // An empty key is none.
    assert_eq!(
        key("model: gpt-4o, api_key: ''").as_deref(),
        Some("sk-openai")
    );
    assert_eq!(
        key("model: groq/x, api_base: 'https://api.groq.com/openai/v1/'").as_deref(),
        Some("sk-groq")
    );
    assert_eq!(
        key("model: groq/x, api_base: 'https://other.example/v1'"),
        None
    );
    assert_eq!(
        key("model: groq/x, api_base: 'http://api.groq.com/openai/v1'"),
        None,
        "not in clear text"
    );
    assert_eq!(key("model: openai/x, api_base: 'http://h/v1'"), None);
    assert_eq!(key("model: mistral/x"), None);
    // Servers of one's own have no address that the key could belong to.
    assert_eq!(
        key("model: hosted_vllm/x, api_base: 'http://h/v1'").as_deref(),
        Some("sk-vllm")
    );
    let variables = [
        ("OPENAI_BASE_URL", "http://proxy/v1"),
        ("OPENAI_API_KEY", "sk-openai"),
    ];
    let (server, _) = found("model: gpt-4o", &variables);
    assert_eq!(server.api_base, "http://proxy/v1");
    assert!(server.api_key.is_some());
}

#[test]
fn missing_api_key_warning_names_its_variable() {
    let warnings = |params: &str| load(&entry(params), &[]).unwrap().warnings();
    let [warning] = &warnings("model: groq/x")[..] else {
        panic!()
    };
    assert!(
        warning.contains("GROQ_API_KEY") && warning.contains("api.groq.com"),
        "{warning}"
    );
    assert!(warnings("model: ollama/x").is_empty());
    let [warning] = &warnings("model: groq/x, api_key: '${GROQ_API_KEY}'")[..] else {
        panic!()
    };
    assert!(warning.contains("os.environ/NAME"), "{warning}");
}

#[test]
fn azure_urls_contain_deployment_and_version() {
    for (params, url) in [
        (
            "model: azure/dep, api_base: 'https://r.openai.azure.com/', api_version: 2024-10-21",
            "https://r.openai.azure.com/openai/deployments/dep?api-version=2024-10-21",
        ),
        (
            "model: azure/dep, api_base: 'https://r.openai.azure.com'",
            "https://r.openai.azure.com/openai/deployments/dep?api-version=2025-02-01-preview",
        ),
        (
            "model: azure/o_series/o1, api_base: 'https://r.openai.azure.com/openai/'",
            "https://r.openai.azure.com/openai/deployments/o1?api-version=2025-02-01-preview",
        ),
        (
            "model: azure/responses/gpt-5, api_base: 'https://r.openai.azure.com'",
            "https://r.openai.azure.com/openai/v1",
        ),
        (
            "model: azure/gpt-5-codex, api_base: 'https://r.openai.azure.com/openai/deployments/dep', api_version: 2025-04-01-preview",
            "https://r.openai.azure.com/openai?api-version=2025-04-01-preview",
        ),
        (
            "model: azure/x, api_base: 'https://r.openai.azure.com/openai/deployments/dep', api_version: v1",
            "https://r.openai.azure.com/openai/v1",
        ),
        (
            "model: azure_ai/codex-mini, api_base: 'https://r.services.ai.azure.com/models'",
            "https://r.services.ai.azure.com/openai/v1",
        ),
        (
            "model: 'azure/a b/c', api_base: 'https://gw.example/team'",
            "https://gw.example/team/openai/deployments/a%20b%2Fc?api-version=2025-02-01-preview",
        ),
        (
            "model: azure/x, api_base: 'https://r.openai.azure.com/openai/deployments/dep/chat/completions?api-version=2024-05-01'",
            "https://r.openai.azure.com/openai/deployments/dep?api-version=2024-05-01",
        ),
        (
            "model: azure/dep, api_base: 'https://r.openai.azure.com', api_version: latest",
            "https://r.openai.azure.com/openai/v1",
        ),
        (
            "model: azure/dep, api_base: 'https://r.openai.azure.com/openai/v1/', api_version: 2024-10-21",
            "https://r.openai.azure.com/openai/v1",
        ),
        (
            "model: azure/x, api_base: 'https://r.openai.azure.com/openai/deployments/dep', api_version: latest",
            "https://r.openai.azure.com/openai/v1",
        ),
        (
            "model: azure_ai/m, api_base: 'https://r.services.ai.azure.com'",
            "https://r.services.ai.azure.com/models?api-version=2024-05-01-preview",
        ),
        (
            "model: azure_ai/m, api_base: 'https://r.services.ai.azure.com/models/chat/completions?api-version=2025-01-01'",
            "https://r.services.ai.azure.com/models?api-version=2025-01-01",
        ),
        (
            "model: azure_ai/m, api_base: 'https://m.eastus.models.ai.azure.com/v1'",
            "https://m.eastus.models.ai.azure.com/v1",
        ),
    ] {
        let (server, _) = found(&format!("{params}, api_key: k"), &[]);
        let found = match &server.query {
            Some(query) => format!("{}?{query}", server.api_base),
            None => server.api_base.clone(),
        };
        assert_eq!(found, url, "{params}");
        assert_eq!(server.key_header, KeyHeader::ApiKey, "{params}");
    }
    let azure = "model: azure/dep, api_base: 'https://r.openai.azure.com'";
    let (server, _) = found(&format!("{azure}, azure_ad_token: tok"), &[]);
    assert_eq!(server.key_header, KeyHeader::Bearer);
    let variables = [
        ("AZURE_API_KEY", "k"),
        ("AZURE_API_BASE", "https://e.openai.azure.com"),
        ("AZURE_API_VERSION", "2024-06-01"),
    ];
    let (server, _) = found("model: azure/dep", &variables);
    assert_eq!(
        server.api_base,
        "https://e.openai.azure.com/openai/deployments/dep"
    );
    assert_eq!(server.query.as_deref(), Some("api-version=2024-06-01"));
    let error = load(&entry(&format!("{azure}, api_version: '1&x=y'")), &[]).unwrap_err();
    assert!(error.contains("api_version: expected a version"), "{error}");
}

#[tokio::test]
async fn azure_calls_send_api_version_as_query_and_api_key_as_header() {
    let mut upstream = Upstream::start([]).await;
    let base = upstream.base.trim_end_matches("/v1");
    let params =
        format!("model: azure/dep, api_base: '{base}', api_key: sk-azure, api_version: 2024-10-21");
    let (router, _) = router_of(&entry(&params));
    router.call(chat("")).await.unwrap();
    let seen = upstream.next().await;
    assert_eq!(seen.path, "/openai/deployments/dep/chat/completions");
    assert_eq!(seen.query.as_deref(), Some("api-version=2024-10-21"));
    assert_eq!(seen.headers["api-key"], "sk-azure");
    assert!(!seen.headers.contains_key("authorization"));
    assert_eq!(seen.body, r#"{"model":"dep","messages":[]}"#);
}

#[tokio::test]
async fn uncallable_deployment_is_left_out_and_calls_to_its_model_get_the_reason() {
    let mut upstream = Upstream::start([]).await;
    let base = &upstream.base;
    let text = format!(
        "model_list:\n\
         - {{model_name: good, litellm_params: {{model: openai/up, api_base: '{base}'}}}}\n\
         - {{model_name: good, litellm_params: {{model: zhipu/x}}}}\n\
         - {{model_name: lost, litellm_params: {{model: zhipu/glm, api_key: sk-zhipu}}}}\n\
         - {{model_name: gemini, litellm_params: {{model: gemini/gemini-2, api_base: 'http://other:1'}}}}\n\
         - {{model_name: bare, litellm_params: {{model: llama, api_key: sk-llama}}}}\n\
         - {{model_name: sage, litellm_params: {{model: sagemaker/x}}}}\n\
         - {{model_name: literal, litellm_params: {{model: openai/x, api_base: '${{BASE}}'}}}}\n"
    );
    let (router, warnings) = router_of(&text);
    let left_out = warnings
        .iter()
        .filter(|warning| warning.contains("is left out"))
        .count();
    assert_eq!((left_out, warnings.len()), (6, 6), "{warnings:#?}");
    let call = |model: &str| {
        Call::new(
            Endpoint::ChatCompletions,
            format!(r#"{{"model":"{model}","messages":[]}}"#),
        )
    };
    router.call(call("good")).await.unwrap();
    upstream.next().await;
    for (model, reason) in [
        ("lost", "the provider zhipu is not known here"),
        ("gemini", "Gemini's own format"),
        ("bare", "names no provider"),
        ("sage", "a format of its own"),
        ("literal", "os.environ/NAME"),
    ] {
        let problem = router.call(call(model)).await.unwrap_err().problem;
        assert_eq!(
            (problem.status().as_u16(), problem.param()),
            (400, Some("model"))
        );
        assert!(problem.to_string().contains(reason), "{problem}");
    }
    assert_eq!(router.models(None), ["good"]);
    let alone = load(&entry("model: zhipu/x"), &[]).unwrap_err();
    assert!(alone.ends_with("no other deployment is left"), "{alone}");
}

#[tokio::test]
async fn endpoint_missing_at_the_provider_gets_400_without_an_upstream_call() {
    let upstream = Upstream::start([]).await;
    let (router, _) = router_of(&entry(&format!(
        "model: perplexity/sonar, api_base: '{}'",
        upstream.base
    )));
    let call = Call::new(Endpoint::Completions, r#"{"model":"m","prompt":"hi"}"#);
    let problem = router.call(call).await.unwrap_err().problem;
    assert_eq!(problem.status().as_u16(), 400);
    assert!(
        problem.to_string().contains("without this endpoint"),
        "{problem}"
    );
    router.call(chat("")).await.unwrap();
    assert_eq!(upstream.pending(), 1);
}

#[test]
fn environment_variables_section_overrides_the_environment() {
    let text = "model_list:\n- {model_name: m, litellm_params: {model: groq/x}}\n\
                - {model_name: n, litellm_params: {model: openai/x, api_key: os.environ/MINE}}\n\
                environment_variables: {GROQ_API_KEY: sk-file, MINE: os.environ/OTHER, NUMBER: 5, FLAG: true}\n";
    let loaded = load(text, &[("GROQ_API_KEY", "sk-env"), ("OTHER", "sk-other")]).unwrap();
    assert!(loaded.warnings().is_empty(), "{:?}", loaded.warnings());
    let key = |group: usize| match &loaded.config.groups[group].deployments[0].target {
        Target::Upstream(server) => server
            .api_key
            .as_ref()
            .map(|key| key.expose_secret().to_owned()),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (key(0).as_deref(), key(1).as_deref()),
        (Some("sk-file"), Some("sk-other"))
    );
}

#[test]
fn addresses_lack_or_have_the_version_as_the_provider_needs_it() {
    for (params, base) in [
        ("model: mistral/m, api_base: 'http://h'", "http://h/v1"),
        ("model: mistral/m, api_base: 'http://h/v1/'", "http://h/v1"),
        (
            "model: huggingface/m, api_base: 'http://h/x'",
            "http://h/x/v1",
        ),
        (
            "model: cloudflare/@cf/m, api_base: 'https://api.cloudflare.com/client/v4/accounts/1/ai/run/'",
            "https://api.cloudflare.com/client/v4/accounts/1/ai/v1",
        ),
        (
            "model: infinity/m, api_base: 'http://h:7997'",
            "http://h:7997",
        ),
        (
            "model: veniceai/m, api_key: k",
            "https://api.venice.ai/api/v1",
        ),
    ] {
        let (found, _) = base_and_model(params);
        assert_eq!(found, base, "{params}");
    }
}

#[test]
fn account_of_the_environment_completes_cloudflares_address() {
    let params = "model: cloudflare/@cf/meta/llama, api_key: k";
    let (server, model) = found(params, &[("CLOUDFLARE_ACCOUNT_ID", "acc")]);
    let base = "https://api.cloudflare.com/client/v4/accounts/acc/ai/v1";
    assert_eq!(
        (server.api_base.as_str(), model.as_str()),
        (base, "@cf/meta/llama")
    );
    let error = load(&entry(params), &[]).unwrap_err();
    assert!(
        error.contains("CLOUDFLARE_API_BASE or CLOUDFLARE_ACCOUNT_ID"),
        "{error}"
    );
}

#[test]
fn plan_names_the_deployment_in_an_azure_address() {
    let params = "model: azure/my-dep, api_base: 'https://mine.openai.azure.com', api_key: k, api_version: 2024-10-21";
    let plan = load(&entry(params), &[]).unwrap().config.plan();
    let address = "https://mine.openai.azure.com/openai/deployments/my-dep";
    assert!(plan.contains(address), "{plan}");
}
