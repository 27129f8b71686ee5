//! `files_settings` and `finetune_settings`.

use super::*;
use vorrang_gateway::config::Account;

fn expected(accounts: &[(&'static str, &str, &str)]) -> Vec<(&'static str, String, String)> {
    let accounts = accounts.iter();
    let owned = |(settings, provider, base): &(&'static str, &str, &str)| {
        (*settings, (*provider).to_owned(), (*base).to_owned())
    };
    accounts.map(owned).collect()
}

fn providers(loaded: &Loaded) -> Vec<(&'static str, String, String)> {
    let of = |one: &'_ Account| {
        (
            one.settings,
            one.provider.clone(),
            one.upstream.api_base.clone(),
        )
    };
    loaded.config.accounts.iter().map(of).collect()
}

#[test]
fn accounts_are_found_like_deployments() {
    let text = "
files_settings:
- {custom_llm_provider: azure, api_base: os.environ/BASE, api_key: os.environ/KEY, api_version: 2025-04-01-preview}
- {custom_llm_provider: openai, api_key: k}
- {custom_llm_provider: mine, api_base: 'http://host/v1/'}
finetune_settings:
- {custom_llm_provider: azure, api_base: 'https://a.openai.azure.com/openai/deployments/d', api_key: k, api_version: latest}
- {custom_llm_provider: mistral}
";
    let variables = env(&[
        ("BASE", "https://a.openai.azure.com"),
        ("KEY", "k"),
        ("MISTRAL_API_KEY", "k"),
    ]);
    let loaded = Config::parse(&format!("{MODEL}{text}"), "config.yaml", &variables).unwrap();
    assert_eq!(loaded.warnings(), [""; 0]);
    let azure = "https://a.openai.azure.com/openai";
    assert_eq!(
        providers(&loaded),
        expected(&[
            ("files_settings", "azure", azure),
            ("files_settings", "openai", "https://api.openai.com/v1"),
            ("files_settings", "mine", "http://host/v1"),
            ("finetune_settings", "azure", &format!("{azure}/v1")),
            ("finetune_settings", "mistral", "https://api.mistral.ai/v1"),
        ])
    );
    let plan = loaded.config.plan();
    assert!(
        plan.contains(&format!("files_settings azure: {azure}\n")),
        "{plan}"
    );
    let report = Config::parse(&format!("{MODEL}{text}"), "config.yaml", &variables);
    assert!(Loaded::report(&report).contains("\"accounts\""));
    assert!(loaded.config.spends_keys());
}

#[test]
fn account_that_cannot_be_called_is_left_out_with_a_warning() {
    let loaded = with_model(
        "files_settings:
- {custom_llm_provider: anthropic, api_key: k}
- {custom_llm_provider: manus, api_key: k}
- {custom_llm_provider: openai, api_key: k, api_base: 'http://a/v1'}
- {custom_llm_provider: openai, api_key: k, api_base: 'http://b/v1'}
- {custom_llm_provider: groq, api_key: k, api_bse: x, langfuse_host: y}
",
    );
    assert_eq!(
        providers(&loaded),
        expected(&[
            ("files_settings", "openai", "http://a/v1"),
            ("files_settings", "groq", "https://api.groq.com/openai/v1"),
        ])
    );
    let warnings = loaded.warnings();
    for (warning, words) in warnings.iter().zip([
        "config.yaml:5: files_settings[0].custom_llm_provider: the account is left out: anthropic keeps them",
        "config.yaml:6: files_settings[1].custom_llm_provider: the account is left out: the provider manus",
        "config.yaml:8: files_settings[3].custom_llm_provider: stands more than once",
        "config.yaml:9: files_settings[4].langfuse_host: this LiteLLM setting does nothing here",
        "config.yaml:9: files_settings[4].api_bse: unknown setting",
    ]) {
        assert!(warning.starts_with(words), "{warning}");
    }
    assert_eq!(warnings.len(), 5, "{warnings:?}");
}

#[test]
fn wrong_accounts_are_errors() {
    for (entry, words) in [
        (
            "{api_key: k}",
            "custom_llm_provider: expected the name of a provider",
        ),
        (
            "{custom_llm_provider: openai, api_key: os.environ/GONE}",
            "the environment variable GONE is not set",
        ),
        (
            "{custom_llm_provider: openai, api_base: nothing}",
            "expected a URL",
        ),
        (
            "{custom_llm_provider: openai, api_base: 'https://a/v1?b=c'}",
            "expected a URL without `?`",
        ),
        (
            "{custom_llm_provider: openai, api_base: 'https://a:b@c/v1', api_key: k}",
            "expected the credentials once",
        ),
        (
            "{custom_llm_provider: azure, api_base: 'https://a', api_key: k, api_version: 'a b'}",
            "expected a version",
        ),
        ("{custom_llm_provider: openai, timeout: -1}", "timeout"),
        ("nothing", "expected a mapping"),
    ] {
        let error = error_with_model(&format!("files_settings:\n- {entry}\n"));
        assert!(
            error.contains("files_settings[0]") && error.contains(words),
            "{error}"
        );
    }
    let error = error_with_model("files_settings: {custom_llm_provider: openai}\n");
    assert!(error.contains("files_settings: expected a list"), "{error}");
}

#[test]
fn checks_of_files_are_refused_where_files_are_served() {
    let checks = "general_settings: {max_file_size_mb: 1, blocked_file_extensions: [exe]}
litellm_settings: {require_managed_files: true}
";
    assert!(with_model(checks).config.accounts.is_empty());
    let served = format!("files_settings: [{{custom_llm_provider: openai, api_key: k}}]\n{checks}");
    let error = error_with_model(&served);
    for name in [
        "max_file_size_mb",
        "blocked_file_extensions",
        "require_managed_files",
    ] {
        assert!(
            error.contains(&format!("{name}: is not supported")),
            "{error}"
        );
    }
}
