//! Request defaults in `litellm_params`, and which fields a deployment's upstream does not get.
//!
//! LiteLLM sends every parameter that it does not know itself with each request. Here as well: what is no setting is a field.

use serde_json::{Map, Value as Json};

use super::{known, ollama};
use crate::{
    config::{
        ConfigError, Dialect, Kind,
        read::{
            Recorded, Section,
            tree::{Node, Value},
        },
    },
    provider::{
        openai_models,
        table::{Format, Provider},
    },
    request::{
        cache_points,
        edits::{Edits, OfModel},
    },
};

type Result<T> = std::result::Result<T, ConfigError>;

/// What the file says about the fields of all deployments.
pub(in crate::config) struct FieldRules {
    /// `litellm_settings.drop_params`.
    pub(in crate::config) drop_params: bool,
    /// `litellm_settings.enable_preview_features`: chats carry their `metadata`.
    pub(in crate::config) metadata: bool,
}

/// Providers of OpenAI's format whose chats have Anthropic's `cache_control` besides.
const CACHING: &[&str] = &["dashscope", "databricks", "minimax", "openrouter", "zai"];

/// Reads all that is left of `litellm_params`. `model` is what decides which fields an OpenAI model takes.
pub(super) fn edits(
    params: &Section<'_>,
    rules: &FieldRules,
    provider: &Provider,
    dialect: Dialect,
    model: &str,
) -> Result<Edits> {
    let drop_params = drop_params(params).unwrap_or(rules.drop_params);
    let mut edits = Edits {
        drop_params,
        metadata: rules.metadata && matches!(provider.format, Format::OpenAi | Format::InV1),
        ..Edits::default()
    };
    let claude = matches!(
        dialect,
        Dialect::Anthropic | Dialect::Vertex | Dialect::Bedrock
    );
    edits.caches = claude || CACHING.contains(&provider.name);
    cache_points(params, &mut edits);
    let openai = matches!(provider.name, "openai" | "azure" | "azure_ai");
    edits.renames.extend(provider.renames);
    // What the provider refuses in LiteLLM, too, is left out by `drop_params` only.
    let takes = provider.takes;
    edits.takes = takes.map(|takes| [takes, provider.refuses].concat());
    let gemini = provider.format == Format::Vertex && model.starts_with("gemini");
    if gemini || provider.format == Format::Gemini {
        edits.of_model = Some(OfModel::Gemini);
    } else if openai && model.contains('*') {
        edits.of_model = Some(OfModel::OpenAi { drops: drop_params });
    } else if openai {
        edits.renames.extend(openai_models::renames(model));
    }
    if drop_params {
        let refused = provider.refuses.iter();
        edits.drops.extend(refused.map(|name| (*name).to_owned()));
        if openai {
            let refused = openai_models::refuses(model).iter();
            edits.drops.extend(refused.map(|name| (*name).to_owned()));
        }
    }
    for path in params
        .texts("additional_drop_params")
        .recorded(params.file)
        .unwrap_or_default()
    {
        if path.contains(['.', '[']) {
            let text =
                "only whole fields are left out of requests; a path into one does nothing here";
            params.warn("additional_drop_params", text);
        } else {
            edits.drops.push(path);
        }
    }
    // Those that LiteLLM would leave out, and the file knows better.
    let allowed = params.texts("allowed_openai_params").recorded(params.file);
    let allowed = allowed.unwrap_or_default();
    edits.drops.retain(|name| !allowed.contains(name));
    let extra = extra_body(params).recorded(params.file);
    defaults(params, provider, &mut edits);
    for (name, value) in extra {
        for (name, value) in translated(provider, &name, value, true) {
            if reaches(params, provider, ("extra_body", &name), &edits) {
                edits.defaults.retain(|(other, _)| *other != name);
                edits.defaults.push((name, value.to_string()));
            }
        }
    }
    Ok(edits)
}

fn cache_points(params: &Section<'_>, edits: &mut Edits) {
    let Some(node) = params.node(cache_points::FIELD) else {
        return;
    };
    let Some(list) = params
        .json(cache_points::FIELD, node)
        .recorded_if_any(params.file)
    else {
        return;
    };
    if !edits.caches {
        let text =
            "does nothing here, as in LiteLLM: requests to this provider have no cache_control";
        params.tell(Kind::NO_EFFECT, cache_points::FIELD, text);
        return;
    }
    edits.cache_points = cache_points::read(&list);
    if list.as_array().map(Vec::len) != Some(edits.cache_points.len()) {
        let text = "expected a list of mappings with `location: message` and a `role` or an `index`, or with \
                    `location: tool_config`; others mark nothing, as in LiteLLM";
        params.tell(Kind::NO_EFFECT, cache_points::FIELD, text);
    }
}

/// LiteLLM takes what is no boolean as if it were not there.
fn drop_params(params: &Section<'_>) -> Option<bool> {
    let is_list = |node: &Node| matches!(node.value, Value::List(_) | Value::Map(_));
    if params.node("drop_params").is_some_and(is_list) {
        let text = "is no boolean, and counts as absent, as in LiteLLM; names of fields stand in additional_drop_params";
        params.tell(Kind::NO_EFFECT, "drop_params", text);
        return None;
    }
    params.boolean("drop_params").recorded(params.file)
}

fn defaults(params: &Section<'_>, provider: &Provider, edits: &mut Edits) {
    for name in params.unread() {
        match known::role(name) {
            _ if provider.ignores.contains(&name) => {}
            known::Role::Field => {}
            known::Role::Setting(reason) => {
                params.not_served(&[(name, reason)]);
                continue;
            }
            known::Role::Missed(reason) => {
                // Of this one LiteLLM's own is true.
                let asks = match name {
                    "supports_system_message" => {
                        params.boolean(name).recorded(params.file) == Some(false)
                    }
                    name => params.asks(name).unwrap_or(true),
                };
                if asks {
                    let text = format!("this LiteLLM setting does nothing here: {reason}");
                    params.tell(Kind::NOT_DONE, name, &text);
                }
                params.pass_over(name);
                continue;
            }
            known::Role::Credential => {
                let text =
                    "is not sent upstream, as it may be a credential, and means nothing here";
                params.tell(Kind::NOT_DONE, name, text);
                params.pass_over(name);
                continue;
            }
            known::Role::Unknown if edits.takes.is_some() => {}
            known::Role::Unknown => {
                let text =
                    "is no setting that is known here: it is sent with each request, as in LiteLLM";
                params.tell(Kind::UNKNOWN_FIELD, name, text);
            }
        }
        let Some(node) = params.node(name) else {
            continue;
        };
        if name == "stream" {
            // Whether an answer is streamed is the client's to say.
            if !matches!(node.value, Value::Bool(false)) {
                let text = "does nothing here: each request says whether it wants a stream";
                params.warn(name, text);
            }
            continue;
        }
        let Some(json) = params.json(name, node).recorded_if_any(params.file) else {
            continue;
        };
        for (field, value) in translated(provider, name, json, false) {
            if reaches(params, provider, (name, &field), edits) {
                edits.defaults.push((field, value.to_string()));
            }
        }
    }
}

/// A default as fields of the endpoint that is called. `body`: it is one of `extra_body`.
fn translated(provider: &Provider, name: &str, value: Json, body: bool) -> Vec<(String, Json)> {
    match provider.format {
        Format::UnderV1 => ollama::fields(name, value, body),
        _ => vec![(name.to_owned(), value)],
    }
}

/// Whether a default is sent. Says so where it does not reach the upstream as the file's author may expect.
fn reaches(
    params: &Section<'_>,
    provider: &Provider,
    (key, name): (&str, &str),
    edits: &Edits,
) -> bool {
    if name == "thinking" && edits.of_model == Some(OfModel::Gemini) {
        let text = "only the budget of models before Gemini 3 is sent, and no thoughts are in the answers: \
                    Google's OpenAI-compatible endpoint is called";
        params.warn(key, text);
        return true;
    }
    let taken = edits
        .takes
        .as_ref()
        .is_none_or(|takes| takes.contains(&name));
    if taken && !provider.ignores.contains(&name) {
        return true;
    }
    let instead = match provider.format {
        Format::UnderV1 => "; set it in the model (PARAMETER in its Modelfile) or for the server",
        _ => "",
    };
    let subject = match key {
        "extra_body" => format!("{name} "),
        _ => String::new(),
    };
    let text = format!(
        "{subject}does nothing here: the OpenAI-compatible endpoint of {} is called, which does not take it{instead}",
        provider.name
    );
    params.warn(key, &text);
    false
}

/// Fields of their own, which come before the others.
fn extra_body(params: &Section<'_>) -> Result<Map<String, Json>> {
    let Some(node) = params.node("extra_body") else {
        return Ok(Map::new());
    };
    match params.json("extra_body", node)? {
        Json::Object(fields) => Ok(fields),
        _ => Err(params.error(
            "extra_body",
            &format!("expected a mapping, found {}", node.value.kind()),
        )),
    }
}
