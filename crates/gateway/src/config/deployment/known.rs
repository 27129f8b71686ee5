//! What the parameters of `litellm_params` are that no other module reads: fields of requests, settings of LiteLLM's, or neither.

/// What a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A field of requests: sent where a request does not have it.
    Field,
    /// A setting of LiteLLM's that does nothing here, and why.
    Setting(&'static str),
    /// The same, and calls differ by it.
    Missed(&'static str),
    /// Probably a credential of something that is not called here.
    Credential,
    /// None of them: LiteLLM sends it upstream.
    Unknown,
}

/// Fields of requests that providers know, beyond what all of them know.
#[rustfmt::skip]
const FIELDS: &[&str] = &[
    // OpenAI's
    "audio", "best_of", "chat_template_kwargs", "dimensions", "echo", "encoding_format", "frequency_penalty", "function_call",
    "functions", "input_type", "instructions", "language", "logit_bias", "logprobs", "max_completion_tokens", "max_output_tokens",
    "max_tokens", "metadata", "modalities", "n", "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key",
    "prompt_cache_retention", "quality", "reasoning", "reasoning_effort", "response_format", "safety_identifier", "seed",
    "service_tier", "size", "speed", "stop", "timestamp_granularities", "store", "stream", "stream_options", "style", "suffix", "temperature", "text",
    "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user", "verbosity", "voice", "web_search_options",
    // others'
    "cache_control", "context_management", "disable_reasoning", "do_sample", "documents", "enable_thinking", "guided_choice",
    "guided_grammar", "guided_json", "guided_regex", "keep_alive", "max_new_tokens", "min_p", "min_tokens", "mirostat",
    "models", "num_ctx", "num_predict", "options", "plugins", "provider", "random_seed", "reasoning_format",
    "reasoning_split", "repeat_penalty", "repetition_penalty", "return_citations", "route", "safe_prompt", "safety_settings",
    "search_domain_filter", "search_parameters", "search_recency_filter", "skip_special_tokens", "thinking", "thinking_budget",
    "top_a", "top_k", "transforms", "typical_p", "usage", "web_search",
];

const COSTS: &str = "costs are not counted";
const AUTHORITY: &str = "it belongs to a provider that is not called here";
const LOGS: &str = "a deployment has no callbacks of its own; use /metrics, the log and traces";
const CACHE: &str = "answers are not cached";
const ROUTERS: &str = "a group is chosen by its name only";
const CLIENTS: &str = "clients choose neither keys nor addresses";
const AS_THEY_ARE: &str = "requests and answers pass as they are";

/// LiteLLM's settings by their whole names.
#[rustfmt::skip]
const SETTINGS: &[(&[&str], &str)] = &[
    (&["tags", "tag_regex"], "tags do not choose deployments"),
    (&["region_name", "allowed_model_region", "data_residency"], "regions do not choose deployments"),
    (&["cost_per_second", "cost_per_query", "tiered_pricing", "max_budget", "budget_duration"], COSTS),
    (&["default_api_key_rpm_limit", "default_api_key_tpm_limit"], "limits are those of deployments"),
    (&["cache", "caching", "caching_groups", "cache_key", "ttl"], CACHE),
    (&["configurable_clientside_auth_params", "allow_client_keepalive_override"], CLIENTS),
    (&["litellm_credential_name"], "give the deployment its api_key"),
    (&["use_chat_completions_api", "use_litellm_proxy", "modify_params", "disable_add_transform_inline_image_block"], AS_THEY_ARE),
    (&["retry_policy", "retry_strategy", "allowed_fails", "allowed_fails_policy"], "use num_retries and cooldown_time"),
    (&["routing_strategy"], "it is one for all groups, in router_settings"),
    (&["request_timeout", "force_timeout", "mock_timeout", "timeout_by_service_tier", "stream_timeout_by_service_tier"], "use timeout and stream_timeout"),
    (&["base_model", "model_info", "hf_model_name"], "nothing is looked up by it"),
    (&["callbacks", "success_callback", "failure_callback", "logger_fn", "verbose", "turn_off_message_logging", "no-log",
       "litellm_disabled_callbacks", "litellm_request_debug"], LOGS),
    (&["use_in_pass_through", "provider_affinity_header", "silent_model"], "only this deployment's own calls are made"),
    (&["vector_store_id", "vector_bucket_name", "index_name", "embedding_model", "bucket_name", "max_file_size_mb", "search_tool_name",
       "deployment_id", "model_alias_map", "enable_tag_filtering", "fastest_response", "weights"],
     "only calls of models are made, and each is made once"),
    (&["include_server_side_tool_invocations", "max_agentic_loops", "stream_chunk_size", "complete_response",
       "fireworks_forward_user_id"], AS_THEY_ARE),
    (&["use_xai_oauth", "github_copilot_auth_type", "github_copilot_user_session", "openai_federation"], "give the deployment its api_key"),
    (&["no_log", "log_client_error_tracebacks"], LOGS),
    (&["api_version", "azure_scope", "tenant_id", "client_id", "client_secret", "project"], AUTHORITY),
];

/// Those that change calls in LiteLLM.
#[rustfmt::skip]
const MISSED: &[(&[&str], &str)] = &[
    (&["custom_prompt_dict", "roles", "bos_token", "eos_token", "initial_prompt_value", "final_prompt_value",
       "ensure_alternating_roles", "user_continue_message", "assistant_continue_message", "supports_system_message",
       "litellm_system_prompt", "merge_reasoning_content_in_choices", "enable_prompt_caching"], AS_THEY_ARE),
    (&["enable_json_schema_validation"], "answers are not compared with their schema"),
    (&["fallbacks", "context_window_fallbacks", "context_window_fallback_dict", "content_policy_fallbacks", "max_fallbacks"],
     "fallbacks are named for groups, in router_settings"),
    (&["prompt_id", "prompt_variables", "prompt_version", "prompt_environment", "prompt_label"],
     "prompts are not kept here; requests carry theirs"),
    (&["provider_specific_header"], "use extra_headers"),
];

/// And by how their names begin.
#[rustfmt::skip]
const BEGINNINGS: &[(&[&str], &str)] = &[
    (&["input_cost_", "output_cost_", "cache_creation_", "cache_read_", "ocr_cost_", "annotation_cost_", "search_context_cost_",
       "citation_cost_", "google_maps_grounding_", "regional_processing_uplift_", "regional_endpoint_uplift_"], COSTS),
    (&["aws_", "s3_", "bedrock_", "vertex_", "gcs_", "watsonx_", "azure_", "anthropic_", "openai_identity_",
       "openai_service_account_", "token_exchange_", "milvus_", "valkey_"], AUTHORITY),
    (&["langfuse_", "langsmith_", "arize_", "dd_", "posthog_", "newrelic_", "signoz_", "humanloop_", "weave_"], LOGS),
    (&["auto_router_", "complexity_router_", "adaptive_router_", "quality_router_", "router_"], ROUTERS),
    (&["litellm_"], AS_THEY_ARE),
];

/// What names of credentials hold.
const SECRETIVE: &[&str] = &[
    "api_key",
    "apikey",
    "secret",
    "password",
    "credential",
    "access_key",
    "private_key",
    "access_token",
];

/// What a parameter that no other module reads is.
pub(super) fn role(name: &str) -> Role {
    if FIELDS.contains(&name) {
        return Role::Field;
    }
    let missed = MISSED.iter().find(|(names, _)| names.contains(&name));
    if let Some((_, reason)) = missed {
        return Role::Missed(reason);
    }
    let whole = SETTINGS.iter().find(|(names, _)| names.contains(&name));
    let begins = |names: &[&str]| names.iter().any(|beginning| name.starts_with(beginning));
    let found = whole.or_else(|| BEGINNINGS.iter().find(|(names, _)| begins(names)));
    if let Some((_, reason)) = found {
        return Role::Setting(reason);
    }
    let lower = name.to_ascii_lowercase();
    if SECRETIVE.iter().any(|part| lower.contains(part)) {
        return Role::Credential;
    }
    Role::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credential_settings_are_never_request_fields() {
        for name in [
            "aws_secret_access_key",
            "vertex_credentials",
            "client_secret",
            "langfuse_secret",
            "my_api_key",
            "OPENAI_API_KEY",
            "azure_password",
            "huggingface_access_token",
        ] {
            assert!(
                !matches!(role(name), Role::Field | Role::Unknown),
                "{name}: {:?}",
                role(name)
            );
        }
        assert_eq!(role("prompt_cache_key"), Role::Field);
    }

    #[test]
    fn litellm_settings_are_not_request_fields() {
        for name in [
            "input_cost_per_token",
            "cache_read_input_token_cost",
            "tags",
            "litellm_credential_name",
        ] {
            assert!(matches!(role(name), Role::Setting(_)), "{name}");
        }
        assert!(matches!(role("litellm_system_prompt"), Role::Missed(_)));
        assert_eq!(role("temperature"), Role::Field);
        assert_eq!(role("something_new"), Role::Unknown);
    }
}
