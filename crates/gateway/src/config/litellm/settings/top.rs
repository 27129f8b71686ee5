//! What stands at the top of the file.

use super::{CALLBACKS, COSTS, MODELS_ONLY, Meaning, Row, UI};

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    Row {
        meaning: Meaning::Served,
        names: &[
            "model_list", "router_settings", "litellm_settings", "general_settings", "environment_variables",
            "include", "files_settings", "finetune_settings", "vorrang_settings",
        ],
    },
    Row { meaning: Meaning::Refused, names: &["guardrails", "policies", "policy_attachments"] },
    Row {
        meaning: Meaning::NotServed("give each deployment its api_key"),
        names: &[
            "credential_list", "default_vertex_config",
        ],
    },
    Row {
        meaning: Meaning::NotServed(MODELS_ONLY),
        names: &[
            "assistant_settings", "pass_through_endpoints", "mcp_servers",
            "mcp_tools", "agents", "agent_list", "search_tools", "sandbox_tools", "vector_store_registry", "prompts",
        ],
    },
    Row { meaning: Meaning::Idle(CALLBACKS), names: &["callback_settings"] },
    Row { meaning: Meaning::Idle(UI), names: &["plugins", "worker_registry"] },
    Row { meaning: Meaning::Idle(COSTS), names: &["cost_tracking"] },
    Row { meaning: Meaning::NotServed("a group is chosen by its name only"), names: &["classifier_plugin"] },
];
