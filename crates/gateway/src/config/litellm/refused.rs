//! LiteLLM's settings that ask for something safer or stricter than is done here: an error, never a warning.

use crate::{
    Resource,
    config::{
        Kind,
        read::{
            Section,
            tree::{Node, Value},
        },
    },
};

const KEYS: &str =
    "who may call is said by general_settings.master_key and vorrang_settings.keys only";
const KEY_MODELS: &str = "what a key may call is said by its `models` in vorrang_settings.keys";
const NETWORK: &str =
    "who may connect is for a firewall or the balancer in front, or for --host 127.0.0.1";
const PROXIES: &str =
    "use vorrang_settings.trusted_proxies, the networks of proxies whose forwarded header counts";
pub(in crate::config) const CONTENT: &str =
    "requests and answers pass as they are; put what checks them before or behind the gateway";
const SECRETS: &str =
    "secrets come from the environment (os.environ/NAME): let its start put them there";
const SIZE: &str = "use vorrang_settings.max_body_bytes, which is for all bodies";
const COUNT: &str = "uploads and downloads are not counted; leave files_settings out, or limit them before the gateway";
const BODY: &str = "what `metadata` may hold is not checked; check it where requests are made";

/// Callbacks that turn requests away or take something out of them.
const CHECKING: &[&str] = &[
    "aim",
    "aporia",
    "azure_content_safety",
    "banned_keywords",
    "batch_rate_limiter",
    "bedrock_guardrails",
    "blocked_user_check",
    "detect_prompt_injection",
    "dynamic_rate_limiter",
    "dynamic_rate_limiter_v3",
    "google_text_moderation",
    "guardrails_ai",
    "hide_secrets",
    "lakera",
    "lakera_prompt_injection",
    "llamaguard_moderations",
    "llmguard_moderations",
    "max_budget_limiter",
    "max_iterations_limiter",
    "openai_moderations",
    "parallel_request_limiter",
    "presidio",
    "secret_detection",
];

/// What LiteLLM checks of files: it is only needed where files are served.
const UPLOADS: &[(&str, &str)] = &[
    ("max_file_size_mb", SIZE),
    ("max_batch_file_size_mb", SIZE),
    ("max_batch_file_records", CONTENT),
    ("max_batch_file_uploads_per_day", COUNT),
    ("max_file_downloads_per_minute", COUNT),
    ("allowed_file_extensions", CONTENT),
    ("blocked_file_extensions", CONTENT),
];

/// Refuses each of them that asks for something; `false`, null and empty lists ask for nothing.
pub(in crate::config) fn refuse(
    root: &Section<'_>,
    router: &Section<'_>,
    litellm: &Section<'_>,
    general: &Section<'_>,
) {
    general.refuse_asked(&[
        ("custom_auth", KEYS),
        ("custom_auth_run_common_checks", KEYS),
        ("enable_jwt_auth", KEYS),
        ("litellm_jwtauth", KEYS),
        ("enable_oauth2_auth", KEYS),
        ("enable_oauth2_proxy_auth", KEYS),
        ("oauth2_config_mappings", KEYS),
        ("enforce_rbac", KEYS),
        ("role_permissions", KEYS),
        ("allowed_ips", NETWORK),
        ("trusted_proxy_ranges", PROXIES),
        ("mcp_internal_ip_ranges", NETWORK),
        ("allowed_routes", KEY_MODELS),
        ("admin_only_routes", KEY_MODELS),
        ("custom_key_policy", KEYS),
        ("reject_clientside_metadata_tags", BODY),
        (
            "max_response_size_mb",
            "answers are passed on while they come; bound them with max_tokens",
        ),
        (
            "max_in_flight_requests_per_worker",
            "use a deployment's max_parallel_requests",
        ),
        (
            "max_queued_requests_per_worker",
            "use vorrang_settings.max_queue_depth",
        ),
        ("key_management_system", SECRETS),
        ("key_management_settings", SECRETS),
        ("use_google_kms", SECRETS),
        ("use_azure_key_vault", SECRETS),
        ("use_aws_secret_manager", SECRETS),
    ]);
    if Resource::settings().any(|settings| root.asks(settings).unwrap_or(true)) {
        general.refuse_asked(UPLOADS);
        let shared = "all callers share the files of an account; leave files_settings out";
        litellm.refuse_asked(&[("require_managed_files", shared)]);
    }
    litellm.refuse_asked(&[
        ("guardrails", CONTENT),
        ("pre_call_rules", CONTENT),
        ("post_call_rules", CONTENT),
        ("blocked_user_list", KEYS),
        ("banned_keywords_list", CONTENT),
        ("llm_guard_mode", CONTENT),
        ("output_parse_pii", CONTENT),
        ("enable_json_schema_validation", CONTENT),
        ("validate_end_user_id_in_db", KEYS),
        (
            "block_requests_for_models_without_pricing",
            "costs are not counted",
        ),
        (
            "priority_reservation",
            "use vorrang_settings.groups.NAME.reserve",
        ),
        (
            "ssl_security_level",
            "TLS 1.2 and 1.3 are spoken; leave it out",
        ),
    ]);
    router.refuse_asked(&[
        ("guardrail_list", CONTENT),
        (
            "enable_tag_filtering",
            "tags do not choose deployments; give deployments that not all may use a model_name of their own, and name it in the `models` of a key",
        ),
    ]);
    root.refuse_asked(&[
        ("guardrails", CONTENT),
        ("policies", CONTENT),
        ("policy_attachments", CONTENT),
    ]);
    for key in ["callbacks", "success_callback", "failure_callback"] {
        let asked = names(litellm.node(key));
        if let Some(name) = asked.iter().find(|name| CHECKING.contains(name)) {
            let text = format!("{name} is not supported: {CONTENT}");
            litellm
                .file
                .record(litellm.error_of(Kind::REFUSED, key, &text));
            litellm.pass_over(key);
        } else if asked.iter().any(|name| name.contains('.')) {
            let text = "a program of its own is not called here: what it checks or changes is for something before or behind the gateway";
            litellm.tell(Kind::NOT_DONE, key, text);
        }
    }
}

/// A name, or a list of them.
fn names(node: Option<&Node>) -> Vec<&str> {
    let items = match node.map(|node| &node.value) {
        Some(Value::List(items)) => items.as_slice(),
        _ => node.map(std::slice::from_ref).unwrap_or_default(),
    };
    let texts = items.iter().filter_map(|item| match &item.value {
        Value::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}
