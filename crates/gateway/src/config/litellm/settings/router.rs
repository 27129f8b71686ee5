//! `router_settings`.

use super::{ALERTS, AS_THEY_ARE, CACHE, COSTS, HEALTH, LOG_LEVEL, MODELS_ONLY, Meaning, Row};

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    Row {
        meaning: Meaning::Served,
        names: &[
            "redis_url", "redis_host", "redis_port", "redis_password", "redis_username", "redis_db", "redis_ssl",
            "redis_startup_nodes", "startup_nodes", "redis_sentinel_nodes", "sentinel_nodes", "redis_service_name",
            "service_name", "redis_sentinel_password", "sentinel_password", "cache_kwargs", "polling_interval", "default_priority", "num_retries", "timeout", "stream_timeout",
            "default_max_parallel_requests", "model_group_alias", "retry_after", "allowed_fails", "cooldown_time",
            "disable_cooldowns", "routing_strategy", "routing_strategy_args", "fallbacks", "default_fallbacks",
            "context_window_fallbacks", "content_policy_fallbacks", "max_fallbacks", "default_litellm_params",
        ],
    },
    Row {
        meaning: Meaning::NotDone("a mistake of the client's goes to no fallback: the next provider would refuse it, too"),
        names: &["fallback_on_unsupported_params"],
    },
    Row {
        meaning: Meaning::Idle("what a key may call is said by its `models` in vorrang_settings.keys"),
        names: &["fallback_access_check", "fallback_budget_check"],
    },
    Row { meaning: Meaning::Refused, names: &["guardrail_list", "enable_tag_filtering"] },
    Row {
        meaning: Meaning::NotDone("all errors that can be retried share num_retries"),
        names: &[
            "retry_policy", "model_group_retry_policy",
        ],
    },
    Row { meaning: Meaning::NotDone("all failures share allowed_fails"), names: &["allowed_fails_policy"] },
    Row {
        meaning: Meaning::NotDone("there is one strategy for all groups"),
        names: &[
            "routing_groups", "enable_weighted_failover",
        ],
    },
    Row {
        meaning: Meaning::NotDone("any deployment with room may take the next call of a conversation"),
        names: &[
            "optional_pre_call_checks", "deployment_affinity_ttl_seconds", "model_group_affinity_config",
        ],
    },
    Row {
        meaning: Meaning::NotServed("name each model in model_list, or a pattern with `*`"),
        names: &[
            "router_general_settings",
        ],
    },
    Row { meaning: Meaning::NotServed(MODELS_ONLY), names: &["assistants_config", "search_tools"] },
    Row {
        meaning: Meaning::Idle("limits are always checked before a call; a request that is too long is refused by its provider"),
        names: &[
            "enable_pre_call_checks",
        ],
    },
    Row {
        meaning: Meaning::Idle("tags do not choose deployments"),
        names: &[
            "tag_filtering_match_any", "tag_routing_prefix",
        ],
    },
    Row {
        meaning: Meaning::Idle("a deployment that cannot be called is always left out"),
        names: &[
            "ignore_invalid_deployments",
        ],
    },
    Row { meaning: Meaning::Idle(CACHE), names: &["cache_responses", "caching_groups"] },
    Row { meaning: Meaning::Idle("connections are pooled"), names: &["client_ttl"] },
    Row { meaning: Meaning::Idle(LOG_LEVEL), names: &["debug_level", "set_verbose"] },
    Row { meaning: Meaning::NotDone(COSTS), names: &["provider_budget_config"] },
    Row { meaning: Meaning::Idle(ALERTS), names: &["alerting_config"] },
    Row {
        meaning: Meaning::Idle(HEALTH),
        names: &[
            "enable_health_check_routing", "health_check_staleness_threshold", "health_check_ignore_transient_errors",
            "background_health_check_model_groups",
        ],
    },
    Row { meaning: Meaning::Idle(AS_THEY_ARE), names: &["plugins", "auto_router_capability_limit"] },
    Row {
        meaning: Meaning::Idle("it is no argument of LiteLLM's router, which ignores it, too; it stands in model_list or litellm_settings"),
        names: &[
            "model_list", "max_retries", "weights",
        ],
    },
];
