//! LiteLLM's settings that are known and do nothing here.

use crate::config::{Kind, read::Section};

/// Settings of LiteLLM's that people have in their files and that are not served here: said, never silently dropped.
pub(in crate::config) fn not_served(
    root: &Section<'_>,
    router: &Section<'_>,
    litellm: &Section<'_>,
    general: &Section<'_>,
) {
    router.not_served(&[
        ("fallbacks", "a group falls back on no other group yet"),
        (
            "default_fallbacks",
            "a group falls back on no other group yet",
        ),
        (
            "context_window_fallbacks",
            "a group falls back on no other group yet",
        ),
        (
            "content_policy_fallbacks",
            "a group falls back on no other group yet",
        ),
        ("max_fallbacks", "a group falls back on no other group yet"),
        (
            "retry_policy",
            "all errors that can be retried share num_retries",
        ),
        (
            "model_group_retry_policy",
            "all errors that can be retried share num_retries",
        ),
        ("allowed_fails_policy", "all failures share allowed_fails"),
        (
            "enable_pre_call_checks",
            "limits are always checked before a call",
        ),
        ("enable_tag_filtering", "tags do not choose deployments"),
        ("cache_responses", "answers are not cached"),
        ("caching_groups", "answers are not cached"),
        ("client_ttl", "connections are pooled"),
        ("debug_level", "use the environment variable RUST_LOG"),
        ("set_verbose", "use the environment variable RUST_LOG"),
        ("provider_budget_config", "costs are not counted"),
        ("alerting_config", "use /metrics"),
    ]);
    litellm.not_served(&[
        ("modify_params", "requests pass as they are"),
        (
            "callbacks",
            "there are no callbacks; use /metrics and the log",
        ),
        (
            "success_callback",
            "there are no callbacks; use /metrics and the log",
        ),
        (
            "failure_callback",
            "there are no callbacks; use /metrics and the log",
        ),
        (
            "service_callbacks",
            "there are no callbacks; use /metrics and the log",
        ),
        ("cache", "answers are not cached"),
        (
            "cache_params",
            "answers are not cached; the queue's Redis stands in router_settings",
        ),
        ("fallbacks", "a group falls back on no other group yet"),
        (
            "default_fallbacks",
            "a group falls back on no other group yet",
        ),
        (
            "context_window_fallbacks",
            "a group falls back on no other group yet",
        ),
        ("set_verbose", "use the environment variable RUST_LOG"),
        (
            "json_logs",
            "logs are JSON wherever they do not go to a terminal",
        ),
        ("turn_off_message_logging", "messages are never logged"),
        ("redact_user_api_key_info", "keys are never logged"),
        ("max_budget", "costs are not counted"),
        ("budget_duration", "costs are not counted"),
    ]);
    general.not_served(&[
        (
            "database_url",
            "there is no database; keys stand in vorrang_settings.keys",
        ),
        ("database_connection_pool_limit", "there is no database"),
        ("store_model_in_db", "there is no database"),
        ("alerting", "use /metrics"),
        (
            "coordination_redis",
            "the queue's Redis is named by vorrang_settings.redis_url or router_settings",
        ),
        (
            "litellm_key_header_name",
            "keys come as x-litellm-api-key, Authorization, api-key or x-api-key",
        ),
        (
            "max_parallel_requests",
            "use a deployment's max_parallel_requests",
        ),
        (
            "global_max_parallel_requests",
            "use a deployment's max_parallel_requests",
        ),
        ("background_health_checks", "health is seen from the calls"),
        ("health_check_interval", "health is seen from the calls"),
        ("proxy_batch_write_at", "there is no database"),
        ("disable_spend_logs", "there is no database"),
    ]);
    if root.node("include").is_some() {
        let text = "there is no such file beside this one, and what it holds is missing";
        root.tell(Kind::NO_INCLUDE, "include", text);
    }
    root.not_served(&[
        ("credential_list", "give a deployment its api_key"),
        (
            "callback_settings",
            "there are no callbacks; use /metrics and the log",
        ),
        ("mcp_servers", "only models are served"),
    ]);
}
