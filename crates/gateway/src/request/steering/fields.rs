//! The table of the fields, and what happens to each.
//!
//! docs/litellm-compatibility.md has the same table; a test holds them together.

use std::sync::LazyLock;

/// What happens to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handling {
    Obeyed,
    Dropped,
    /// A 400 that names it, unless it is null.
    Refused,
}
use Handling::{Dropped, Obeyed, Refused};

const CREDENTIALS: &str = "keys and addresses of upstreams come from the configuration only";
const CONTENT: &str =
    "requests and answers pass as they are, so that what it asks for would not be done";
const CACHE: &str = "answers are not cached";
const HEALTH: &str = "no caller changes limits or health that others share";
const LOGS: &str = "requests choose no callbacks, and bodies are never logged";
const CONFIGURED: &str = "the configuration says it";
const TESTING: &str = "for LiteLLM's own tests";

/// Name, what happens to it, and why or how.
#[rustfmt::skip]
pub(super) const FIELDS: &[(&str, Handling, &str)] = &[
    ("priority", Obeyed, "the order in the queue"),
    ("timeout", Obeyed, "the request's time, seconds"),
    ("request_timeout", Obeyed, "the same, where there is no `timeout`"),
    ("stream_timeout", Obeyed, "one attempt of a streamed call, seconds"),
    ("num_retries", Obeyed, "attempts in a group after the first"),
    ("max_retries", Obeyed, "the same, where there is no `num_retries`"),
    ("fallbacks", Obeyed, "instead of the file's"),
    ("context_window_fallbacks", Obeyed, "instead of the file's"),
    ("content_policy_fallbacks", Obeyed, "instead of the file's"),
    ("disable_fallbacks", Obeyed, "true: none"),
    ("max_fallbacks", Obeyed, "fewer than the file allows"),
    ("mock_testing_fallbacks", Obeyed, "true: the first group is passed over, as after a failure"),
    ("mock_testing_context_fallbacks", Obeyed, "true: as after a request that is too long"),
    ("mock_testing_content_policy_fallbacks", Obeyed, "true: as after a refused content"),

    ("api_key", Refused, CREDENTIALS),
    ("api_base", Refused, CREDENTIALS),
    ("base_url", Refused, CREDENTIALS),
    ("user_config", Refused, CREDENTIALS),
    ("model_list", Refused, CREDENTIALS),
    ("client_id", Refused, CREDENTIALS),
    ("client_secret", Refused, CREDENTIALS),
    ("tenant_id", Refused, CREDENTIALS),
    ("azure_ad_token", Refused, CREDENTIALS),
    ("vertex_credentials", Refused, CREDENTIALS),
    ("vertex_ai_credentials", Refused, CREDENTIALS),
    ("user_provider_credentials", Refused, CREDENTIALS),
    ("s3_endpoint_url", Refused, CREDENTIALS),
    ("sagemaker_base_url", Refused, CREDENTIALS),
    ("deployment_url", Refused, CREDENTIALS),
    ("guardrails", Refused, CONTENT),
    ("policies", Refused, CONTENT),
    ("prompt_id", Refused, "prompts are not kept here"),
    ("allowed_model_region", Refused, "regions of deployments are not known; use a group of its own"),

    ("api_version", Dropped, CONFIGURED),
    ("api_type", Dropped, CONFIGURED),
    ("custom_llm_provider", Dropped, CONFIGURED),
    ("organization", Dropped, CONFIGURED),
    ("base_model", Dropped, CONFIGURED),
    ("model_info", Dropped, CONFIGURED),
    ("region_name", Dropped, CONFIGURED),
    ("extra_headers", Dropped, CONFIGURED),
    ("headers", Dropped, CONFIGURED),
    ("default_headers", Dropped, CONFIGURED),
    ("drop_params", Dropped, CONFIGURED),
    ("additional_drop_params", Dropped, CONFIGURED),
    ("allowed_openai_params", Dropped, CONFIGURED),
    ("modify_params", Dropped, CONFIGURED),
    ("ssl_verify", Dropped, CONFIGURED),
    ("keepalive_seconds", Dropped, "use the header `x-vorrang-keepalive`"),
    ("retry_strategy", Dropped, CONFIGURED),
    ("retry_policy", Dropped, CONFIGURED),
    ("model_group_retry_policy", Dropped, CONFIGURED),
    ("fallback_depth", Dropped, CONFIGURED),
    ("attempted_targets", Dropped, CONFIGURED),
    ("include_fallback_errors", Dropped, "each failure is in the log"),
    ("specific_deployment", Dropped, "the queue chooses among the deployments of a group"),
    ("deployment_id", Dropped, "the queue chooses among the deployments of a group"),
    ("cooldown_time", Dropped, HEALTH),
    ("allowed_fails", Dropped, HEALTH),
    ("rpm", Dropped, HEALTH),
    ("tpm", Dropped, HEALTH),
    ("max_parallel_requests", Dropped, HEALTH),
    ("cache", Dropped, CACHE),
    ("caching", Dropped, CACHE),
    ("caching_groups", Dropped, CACHE),
    ("cache_key", Dropped, CACHE),
    ("preset_cache_key", Dropped, CACHE),
    ("no-cache", Dropped, CACHE),
    ("no-store", Dropped, CACHE),
    ("use-cache", Dropped, CACHE),
    ("ttl", Dropped, CACHE),
    ("s-maxage", Dropped, CACHE),
    ("no-log", Dropped, LOGS),
    ("verbose", Dropped, LOGS),
    ("logger_fn", Dropped, LOGS),
    ("callbacks", Dropped, LOGS),
    ("success_callback", Dropped, LOGS),
    ("failure_callback", Dropped, LOGS),
    ("service_callback", Dropped, LOGS),
    ("turn_off_message_logging", Dropped, LOGS),
    ("proxy_server_request", Dropped, LOGS),
    ("secret_fields", Dropped, LOGS),
    ("standard_logging_object", Dropped, LOGS),
    ("spend_logs_metadata", Dropped, "costs are not counted"),
    ("input_cost_per_token", Dropped, "costs are not counted"),
    ("output_cost_per_token", Dropped, "costs are not counted"),
    ("input_cost_per_second", Dropped, "costs are not counted"),
    ("output_cost_per_second", Dropped, "costs are not counted"),
    ("max_budget", Dropped, "costs are not counted"),
    ("budget_duration", Dropped, "costs are not counted"),
    ("tags", Dropped, "tags do not choose deployments"),
    ("hf_model_name", Dropped, CONFIGURED),
    ("disable_global_guardrails", Dropped, CONFIGURED),
    ("router_settings_override", Dropped, CONFIGURED),
    ("mock_response", Dropped, "the call is made: LiteLLM obeys it only for keys that say so"),
    ("mock_tool_calls", Dropped, "the call is made: LiteLLM obeys it only for keys that say so"),
    ("mock_timeout", Dropped, TESTING),
    ("mock_delay", Dropped, TESTING),
    ("mock_testing_rate_limit_error", Dropped, TESTING),
];

/// How fields begin that are not in the table.
pub(super) const BEGINNINGS: &[(&str, Handling, &str)] = &[
    ("litellm_", Dropped, LOGS),
    ("aws_", Refused, CREDENTIALS),
    ("vertex_", Refused, CREDENTIALS),
    ("azure_", Refused, CREDENTIALS),
    ("langfuse_", Refused, CREDENTIALS),
    ("langsmith_", Refused, CREDENTIALS),
];

type Row = (&'static str, Handling, &'static str);

/// The table by the length of names: few names of a length have to be compared, which is quicker than a hash.
static BY_LENGTH: LazyLock<Vec<Vec<Row>>> = LazyLock::new(|| {
    let longest = FIELDS.iter().map(|(name, ..)| name.len()).max();
    let mut rows = vec![Vec::new(); longest.unwrap_or_default() + 1];
    for row in FIELDS {
        rows[row.0.len()].push(*row);
    }
    rows
});

/// `None`: the field is none of the gateway's.
pub(super) fn handling(name: &str) -> Option<(Handling, &'static str)> {
    let mut same_length = BY_LENGTH.get(name.len()).into_iter().flatten();
    let found = same_length.find(|(known, ..)| *known == name);
    let beginning = || {
        let mut beginnings = BEGINNINGS.iter();
        beginnings.find(|(beginning, ..)| name.starts_with(beginning))
    };
    let (_, handling, why) = found.or_else(beginning)?;
    Some((*handling, why))
}

/// Whether the field passes upstream.
pub(crate) fn passes(name: &str) -> bool {
    handling(name).is_none()
}

/// Whether the value of a field matters to the gateway.
pub(crate) fn is_read(name: &str) -> bool {
    matches!(handling(name), Some((Obeyed | Refused, _)))
}
