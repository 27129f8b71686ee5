//! `litellm_settings`: any variable of LiteLLM's module may stand there.

use super::{
    AS_THEY_ARE, CACHE, CALLBACKS, COSTS, DATABASE, LOG_LEVEL, MODELS_ONLY, Meaning, Row, UI,
};

const KEYS: &str = "give each deployment its api_key, or put it into the environment";
const METRICS: &str = "metrics are those of docs/operations.md";
const CONNECTIONS: &str = "connections are HTTP/1.1, pooled and encrypted as the address says";
const PROMPTS: &str = "prompts are not kept here; requests carry theirs";

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    Row {
        meaning: Meaning::Served,
        names: &[
            "drop_params", "model_group_settings", "request_timeout", "num_retries", "allowed_fails", "cooldown_time", "ssl_verify",
            "require_auth_for_metrics_endpoint", "fallbacks", "default_fallbacks", "context_window_fallbacks",
            "content_policy_fallbacks", "max_fallbacks", "enable_preview_features",
        ],
    },
    Row {
        meaning: Meaning::Refused,
        names: &[
            "guardrails", "pre_call_rules", "post_call_rules", "blocked_user_list", "banned_keywords_list",
            "llm_guard_mode", "output_parse_pii", "enable_json_schema_validation", "validate_end_user_id_in_db",
            "block_requests_for_models_without_pricing", "priority_reservation", "ssl_security_level",
        ],
    },
    Row { meaning: Meaning::NotServed("use router_settings.fallbacks"), names: &["model_fallbacks"] },
    Row {
        meaning: Meaning::NotServed(KEYS),
        names: &[
            "api_key", "openai_key", "groq_key", "gigachat_key", "xai_key", "databricks_key", "openai_like_key",
            "azure_key", "anthropic_key", "replicate_key", "bytez_key", "gdc_key", "gdc_api_base", "cohere_key",
            "infinity_key", "clarifai_key", "maritalk_key", "ai21_key", "ollama_key", "openrouter_key",
            "datarobot_key", "predibase_key", "predibase_tenant_id", "huggingface_key", "togetherai_api_key",
            "cloudflare_api_key", "vercel_ai_gateway_key", "baseten_key", "llama_api_key", "aleph_alpha_key",
            "nlp_cloud_key", "novita_api_key", "snowflake_key", "gradient_ai_api_key", "nebius_key", "wandb_key",
            "heroku_key", "cometapi_key", "ovhcloud_key", "lemonade_key", "sap_service_key", "amazon_nova_api_key",
            "inception_key",
        ],
    },
    Row {
        meaning: Meaning::NotServed("give each deployment its address and parameters"),
        names: &[
            "api_base", "api_version", "organization", "project", "headers", "vertex_project", "vertex_location",
            "credential_list", "enable_azure_ad_token_refresh", "proxy_auth", "max_tokens", "use_litellm_proxy",
        ],
    },
    Row {
        meaning: Meaning::NotServed("name its address as a deployment's api_base"),
        names: &[
            "custom_provider_map",
        ],
    },
    Row {
        meaning: Meaning::NotServed("other names of groups stand in router_settings.model_group_alias"),
        names: &[
            "model_alias_map",
        ],
    },
    Row {
        meaning: Meaning::NotDone("an upstream call carries a traceparent where traces are sent, and none otherwise"),
        names: &[
            "forward_traceparent_to_llm_provider",
        ],
    },
    Row {
        meaning: Meaning::NotDone(AS_THEY_ARE),
        names: &[
            "modify_params", "add_function_to_prompt", "custom_prompt_dict", "vertex_ai_safety_settings",
            "enable_gemini_default_thinking_level_low", "gemini_include_thoughts_default", "reasoning_auto_summary",
            "openai_system_messages_first", "enable_anthropic_prompt_caching", "anthropic_prompt_caching_ttl",
            "route_all_chat_openai_to_responses", "use_chat_completions_url_for_anthropic_messages",
            "overwrite_user_with_key_hash", "include_cost_in_streaming_usage", "parse_tool_call_from_content",
        ],
    },
    Row {
        meaning: Meaning::Idle(AS_THEY_ARE),
        names: &[
            "bedrock_neutralize_orphaned_tool_blocks", "strip_anthropic_total_tokens", "gemini_live_defer_setup",
            "disable_add_transform_inline_image_block", "disable_anthropic_gemini_context_caching_transform",
            "disable_vertex_batch_output_transformation", "disable_add_prefix_to_prompt",
            "disable_copilot_system_to_assistant", "disable_stop_sequence_limit", "filter_invalid_headers",
            "add_user_information_to_llm_headers", "bedrock_request_metadata_fields",
            "skip_system_message_in_guardrail", "skip_tool_message_in_guardrail", "check_provider_endpoint",
            "responses",
        ],
    },
    Row {
        meaning: Meaning::Idle("vorrang_settings.keepalive_seconds says how often a silent stream gets a comment"),
        names: &[
            "anthropic_sse_ping_interval_seconds", "sse_keepalive_ping_interval_seconds",
        ],
    },
    Row {
        meaning: Meaning::Callbacks,
        names: &["callbacks", "success_callback", "failure_callback"],
    },
    Row {
        meaning: Meaning::Idle(CALLBACKS),
        names: &[
            "input_callback", "service_callback",
            "service_callbacks", "audit_log_callbacks", "batch_line_item_callbacks", "cold_storage_custom_logger",
            "callback_settings", "langfuse_default_tags", "langfuse_enable_update_trace_keys", "langsmith_batch_size",
            "argilla_batch_size", "argilla_transformation_object", "datadog_use_v1", "gcs_pub_sub_use_v1",
            "generic_api_use_v1", "logged_real_time_event_types", "standard_logging_payload_excluded_fields",
            "store_audit_logs", "dynamodb_table_name", "s3_callback_params", "s3_audit_callback_params",
            "datadog_llm_observability_params", "datadog_params", "newrelic_params", "pointfive_params",
            "zerobus_params", "aws_sqs_callback_params", "generic_logger_headers", "otel_tenant_destination_mode",
            "allow_dynamic_callback_disabling", "global_disable_no_log_param", "disable_streaming_logging", "email",
            "token",
        ],
    },
    Row {
        meaning: Meaning::Idle("prompts, answers and keys are never logged"),
        names: &[
            "turn_off_message_logging", "redact_user_api_key_info", "redact_messages_in_exceptions",
            "log_raw_request_response", "log_client_error_tracebacks", "log_auth_failure_key_identity",
        ],
    },
    Row {
        meaning: Meaning::Idle("logs are JSON wherever they do not go to a terminal, one line for each request"),
        names: &[
            "json_logs", "request_correlation_in_logs", "error_logs", "suppress_debug_info",
        ],
    },
    Row { meaning: Meaning::Idle(LOG_LEVEL), names: &["set_verbose", "logging", "log_level"] },
    Row {
        meaning: Meaning::NotDone(CACHE),
        names: &[
            "cache", "caching", "caching_with_models", "enable_caching_on_provider_specific_optional_params",
        ],
    },
    Row {
        meaning: Meaning::Idle("answers are not cached; the cache's Redis is the queue's where no other is named"),
        names: &[
            "cache_params", "default_in_memory_ttl", "default_redis_ttl", "default_redis_batch_cache_expiry",
            "force_redis_hash_tag_grouping",
        ],
    },
    Row {
        meaning: Meaning::NotDone(COSTS),
        names: &[
            "max_budget", "budget_duration", "max_user_budget", "max_end_user_budget", "max_end_user_budget_id",
            "tag_budget_config", "budget_exceeded_status_code", "budget_exceeded_throttle_percentage",
        ],
    },
    Row {
        meaning: Meaning::Idle(COSTS),
        names: &[
            "default_soft_budget", "budget_rollover", "extra_spend_tag_headers", "disable_end_user_cost_tracking",
            "disable_end_user_cost_tracking_prometheus_only", "enable_end_user_cost_tracking_prometheus_only",
            "cost_discount_config", "cost_margin_config", "apply_search_free_tier", "model_cost",
            "model_cost_map_url", "disable_token_counter", "disable_hf_tokenizer_download",
            "disable_add_user_agent_to_request_tags",
        ],
    },
    Row {
        meaning: Meaning::Idle(DATABASE),
        names: &[
            "default_key_generate_params", "default_key_max_budget_alert_emails", "upperbound_key_generate_params",
            "key_generation_settings", "default_internal_user_params", "default_end_user_params",
            "default_team_params", "default_team_settings", "default_max_internal_user_budget",
            "max_internal_user_budget", "internal_user_budget_duration", "personal_key_model_access_from_teams",
            "enable_key_alias_format_validation", "key_alias_pattern", "enable_model_config_credential_overrides",
        ],
    },
    Row {
        meaning: Meaning::Idle(METRICS),
        names: &[
            "prometheus_initialize_budget_metrics", "prometheus_latency_buckets", "custom_prometheus_metadata_labels",
            "custom_prometheus_tags", "prometheus_metrics_config", "prometheus_exclude_metrics",
            "prometheus_exclude_labels", "prometheus_emit_stream_label",
            "prometheus_emit_input_sequence_length_label", "prometheus_deployment_and_latency_caller_identity",
            "prometheus_emit_rate_limit_labels", "prometheus_user_budget_label_include_email_alias",
            "prometheus_end_user_metrics_max_series_per_metric", "prometheus_end_user_metrics_ttl_seconds",
            "prometheus_end_user_metrics_cleanup_interval_seconds", "prometheus_metrics_max_series_per_metric",
            "prometheus_metrics_ttl_seconds", "prometheus_metrics_cleanup_interval_seconds",
        ],
    },
    Row {
        meaning: Meaning::NotDone(CONNECTIONS),
        names: &[
            "ssl_certificate", "ssl_ecdh_curve", "http2", "network_mock", "force_ipv4",
        ],
    },
    Row {
        meaning: Meaning::Idle(CONNECTIONS),
        names: &[
            "use_aiohttp_transport", "disable_aiohttp_transport", "aiohttp_trust_env", "disable_aiohttp_trust_env",
            "in_memory_llm_clients_cache", "safe_memory_mode", "client_session", "aclient_session", "use_client",
        ],
    },
    Row {
        meaning: Meaning::Idle("addresses come from the file only"),
        names: &[
            "user_url_validation", "user_url_allowed_hosts", "provider_url_destination_allowed_hosts",
        ],
    },
    Row { meaning: Meaning::Idle("use num_retries"), names: &["retry", "num_retries_per_request", "retry_policy"] },
    Row {
        meaning: Meaning::NotServed(PROMPTS),
        names: &[
            "global_prompt_directory", "global_bitbucket_config", "global_gitlab_config", "prompt_name_config_map",
        ],
    },
    Row {
        meaning: Meaning::NotDone(MODELS_ONLY),
        names: &[
            "public_mcp_servers", "public_mcp_hub_strict_whitelist", "public_skills_index", "public_agent_groups",
            "agent_search_embedding_model", "mcp_tool_search", "skill_search_embedding_model",
            "vector_store_registry", "vector_store_index_registry", "vector_store_search_failure_mode",
            "enable_loadbalancing_on_batch_endpoints", "require_managed_files",
        ],
    },
    Row {
        meaning: Meaning::Idle(UI),
        names: &[
            "public_model_groups", "public_model_groups_links", "max_ui_session_budget", "blog_posts_url",
            "autorouter_presets_url",
        ],
    },
    Row {
        meaning: Meaning::Idle("it belongs to guardrails, which are refused where they are asked for"),
        names: &[
            "llamaguard_model_name", "openai_moderations_model_name", "presidio_ad_hoc_recognizers",
            "google_moderation_confidence_threshold", "llamaguard_unsafe_content_categories",
            "guardrail_name_config_map", "priority_reservation_settings",
        ],
    },
    Row {
        meaning: Meaning::Idle("it says nothing about calls"),
        names: &[
            "telemetry", "return_response_headers", "expose_router_debug_in_errors",
            "litellm_mode", "config_path", "adapters", "anthropic_beta_headers_url", "secret_manager_client",
        ],
    },
];
