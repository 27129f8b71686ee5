//! `general_settings`.

use super::{ALERTS, COSTS, DATABASE, HEALTH, MODELS_ONLY, Meaning, Row, UI};

const MCP: &str = "there is no MCP";
const FILES: &str = "it is about files that LiteLLM keeps or reads";
const UPLOADS: &str = "without files_settings no file is served; with it this is refused";
const PASSWORDS: &str = "there is no web interface to log into";

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    Row {
        meaning: Meaning::Served,
        names: &[
            "master_key", "litellm_key_header_name", "max_request_size_mb", "forward_client_headers_to_llm_api", "enforce_fallback_model_access",
            "completion_model", "image_generation_model", "moderation_model", "enforce_user_param", "enforced_params",
            "coordination_redis",
        ],
    },
    Row {
        meaning: Meaning::Refused,
        names: &[
            "custom_auth", "custom_auth_run_common_checks", "enable_jwt_auth", "litellm_jwtauth",
            "enable_oauth2_auth", "enable_oauth2_proxy_auth", "oauth2_config_mappings", "enforce_rbac",
            "role_permissions", "allowed_ips", "trusted_proxy_ranges", "mcp_internal_ip_ranges", "allowed_routes",
            "admin_only_routes", "custom_key_policy",
            "reject_clientside_metadata_tags", "max_response_size_mb", "max_in_flight_requests_per_worker",
            "max_queued_requests_per_worker", "key_management_system", "key_management_settings", "use_google_kms",
            "use_azure_key_vault", "use_aws_secret_manager",
        ],
    },
    Row {
        meaning: Meaning::NotServed("only models are served: name each in model_list"),
        names: &[
            "pass_through_endpoints", "enable_openai_websocket_passthrough",
        ],
    },
    Row {
        meaning: Meaning::NotServed("what a client sends to authenticate is never passed on; give the deployment its api_key"),
        names: &[
            "forward_llm_provider_auth_headers", "allow_client_side_credentials",
        ],
    },
    Row { meaning: Meaning::NotDone("give the deployment its organization"), names: &["forward_openai_org_id"] },
    Row {
        meaning: Meaning::NotDone("a path needs a key or does not, as in docs/operations.md"),
        names: &[
            "public_routes", "allow_public_health_readiness_details",
        ],
    },
    Row {
        meaning: Meaning::NotDone("LiteLLM does not enforce it by default either; use a deployment's max_parallel_requests"),
        names: &[
            "global_max_parallel_requests", "max_parallel_requests",
        ],
    },
    Row {
        meaning: Meaning::NotDone(MODELS_ONLY),
        names: &[
            "search_tools", "enable_mcp_registry", "enable_claude_code_gateway",
            "claude_code_gateway_managed_settings",
        ],
    },
    Row {
        meaning: Meaning::NotDone("a refused call is answered with its own error only"),
        names: &[
            "expose_fallback_errors_to_caller", "include_call_id_in_error_body",
        ],
    },
    Row {
        meaning: Meaning::NotDone("/v1/models lists what is configured"),
        names: &[
            "model_list_healthy_only", "infer_model_from_keys", "use_team_public_model_name",
            "disable_model_info_refresh",
        ],
    },
    Row { meaning: Meaning::Idle("a call always ends when its client leaves"), names: &["cancel_on_disconnect"] },
    Row {
        meaning: Meaning::Idle("the usage of a stream is passed on where the upstream sends it"),
        names: &[
            "always_include_stream_usage",
        ],
    },
    Row {
        meaning: Meaning::Idle("while Redis is away, vorrang_settings.when_redis_is_away says what happens"),
        names: &[
            "fail_closed_rate_limit_enforcement", "fail_closed_budget_enforcement",
        ],
    },
    Row {
        meaning: Meaning::Idle("after SIGTERM waiting calls are served for vorrang_settings.grace_seconds"),
        names: &[
            "enable_drain_endpoint", "drain_endpoint_token",
        ],
    },
    Row {
        meaning: Meaning::Idle("vorrang_settings.max_queue_depth and the request's time bound the queue"),
        names: &[
            "admission_queue_timeout_seconds",
        ],
    },
    Row {
        meaning: Meaning::Idle("tokens are counted as each deployment's limits say"),
        names: &[
            "token_rate_limit_type", "disable_retry_on_max_parallel_request_limit_error",
            "disable_fallbacks_on_per_model_rate_limits",
        ],
    },
    Row {
        meaning: Meaning::Idle("`user` of the body, or vorrang_settings.groups.NAME.fair_by, says whose a call is"),
        names: &[
            "user_header_name", "user_header_mappings", "use_x_forwarded_for", "missing_session_id",
        ],
    },
    Row {
        meaning: Meaning::Idle("responses that are stored are not served"),
        names: &[
            "disable_responses_id_security", "allow_unmanaged_response_ids", "passthrough_managed_object_ids",
            "pass_through_request_timeout", "responses_websocket_session_limit_seconds",
        ],
    },
    Row {
        meaning: Meaning::Idle("addresses come from the file only"),
        names: &[
            "user_url_validation", "user_url_allowed_hosts", "provider_url_destination_allowed_hosts",
        ],
    },
    Row {
        meaning: Meaning::Idle("a weak or missing key is taken; --require-keys refuses a missing one"),
        names: &[
            "dangerously_permit_weak_or_unset_master_key",
        ],
    },
    Row {
        meaning: Meaning::Idle(DATABASE),
        names: &[
            "database_url", "database_connection_pool_limit", "database_connection_timeout",
            "database_connection_pool_timeout", "database_connect_timeout", "database_socket_timeout",
            "database_max_idle_connection_lifetime", "database_extra_connection_params",
            "database_disable_prepared_statements", "database_type", "database_args", "disable_prisma_schema_update",
            "allow_requests_on_db_unavailable", "store_model_in_db", "supported_db_objects",
            "proxy_config_reload_interval_seconds", "scheduled_job_stagger", "use_redis_transaction_buffer",
            "proxy_batch_write_at", "user_api_key_cache_max_size", "user_api_key_cache_ttl", "custom_key_generate",
            "custom_key_update", "disable_custom_api_keys", "disable_key_generate_for_org_admin",
            "disable_master_key_return", "disable_auto_add_proxy_admin_to_teams", "default_team_disabled",
            "team_metadata_schema", "team_metadata_validation_error_message", "team_metadata_validation_timeout",
            "custom_team_metadata_validate", "service_account_settings", "apply_user_budget_to_team_keys",
            "agent_access_default_deny", "vector_store_deny_by_default", "search_tool_deny_by_default",
        ],
    },
    Row {
        meaning: Meaning::Idle(COSTS),
        names: &[
            "disable_spend_logs", "disable_spend_updates", "disable_error_logs", "store_prompts_in_spend_logs",
            "disable_requester_ip_address_logging", "spend_logs_metadata_fields", "spend_report_frequency",
            "spend_capture_rate_check", "maximum_spend_logs_retention_period",
            "maximum_spend_logs_retention_interval", "maximum_spend_logs_cleanup_cron",
            "maximum_autorouter_session_retention_period", "maximum_health_check_retention_period",
            "maximum_daily_tag_spend_retention_period", "use_spend_logs_partitioning",
            "maximum_spend_logs_cleanup_batch_size", "maximum_spend_logs_cleanup_max_batches",
            "maximum_spend_logs_cleanup_run_budget", "maximum_spend_logs_cleanup_batch_timeout",
            "disable_budget_reservation", "disable_reset_budget", "proxy_budget_rescheduler_max_time",
            "proxy_budget_rescheduler_min_time", "track_unmanaged_batch_cost", "proxy_batch_polling_interval",
        ],
    },
    Row {
        meaning: Meaning::Idle(ALERTS),
        names: &[
            "alerting", "alert_types", "alert_type_config", "alert_to_webhook_url", "alerting_args",
            "alerting_threshold", "slack", "email",
        ],
    },
    Row { meaning: Meaning::Idle("traces are sent where OTEL_EXPORTER_OTLP_ENDPOINT says"), names: &["otel", "tracing"] },
    Row {
        meaning: Meaning::Idle(HEALTH),
        names: &[
            "background_health_checks", "health_check_interval", "health_check_concurrency",
            "health_check_skip_disabled_background_models", "background_health_check_model_groups",
            "health_check_details", "health_check_ignore_transient_errors", "health_check_staleness_threshold",
            "enable_health_check_routing", "use_shared_health_check",
        ],
    },
    Row {
        meaning: Meaning::Idle(UPLOADS),
        names: &[
            "max_batch_file_size_mb", "max_batch_file_records", "max_batch_file_uploads_per_day",
            "max_file_downloads_per_minute", "max_file_size_mb", "allowed_file_extensions", "blocked_file_extensions",
        ],
    },
    Row {
        meaning: Meaning::Idle(FILES),
        names: &[
            "disable_batch_input_file_rate_limiting", "skip_batch_input_file_rate_limiting_for_models",
            "skip_batch_input_file_rate_limiting_for_providers", "transcribe_media_buckets",
            "disable_bedrock_agent_runtime_passthrough",
        ],
    },
    Row {
        meaning: Meaning::Idle(UI),
        names: &[
            "ui_access_mode", "plugins", "control_plane_url", "custom_sso", "custom_ui_sso_sign_in_handler",
            "auto_redirect_ui_login_to_sso", "hide_default_credentials_hint", "enable_public_model_hub",
            "allow_cli_sso_verification_uri_complete", "litellm_license", "allow_user_auth",
        ],
    },
    Row {
        meaning: Meaning::Idle(PASSWORDS),
        names: &[
            "max_failed_login_attempts_per_source", "max_failed_login_attempts_per_source_overrides",
            "failed_login_window_seconds", "failed_login_block_seconds", "password_policy_min_length",
            "password_policy_require_uppercase", "password_policy_require_lowercase",
            "password_policy_require_numbers", "password_policy_require_special_characters",
            "password_policy_check_breached_passwords", "disable_password_login_when_sso_enabled",
            "disable_env_credential_login",
        ],
    },
    Row {
        meaning: Meaning::Idle(MCP),
        names: &[
            "mcp_advertised_versions", "mcp_disabled_capabilities", "mcp_allowed_clients",
            "mcp_require_explicit_server_scope", "mcp_client_id_header", "mcp_client_side_auth_header_name",
            "mcp_trusted_proxy_ranges", "mcp_xff_num_trusted_hops", "mcp_prefer_client_id_metadata_document",
            "mcp_required_fields", "mcp_session_token_signing", "mcp_allow_all_keys_respects_mcp_scope",
            "user_mcp_management_mode", "require_end_user_mcp_access_defined", "require_key_mcp_access_defined",
        ],
    },
    // In no version's list, and yet in many files: LiteLLM reads them in other sections.
    Row {
        meaning: Meaning::Idle("LiteLLM reads it in litellm_settings only"),
        names: &[
            "set_verbose", "request_timeout", "drop_params", "max_budget", "budget_duration",
            "max_internal_user_budget", "internal_user_budget_duration", "default_internal_user_params",
            "key_generation_settings", "default_key_generate_params", "disable_end_user_cost_tracking",
        ],
    },
];
