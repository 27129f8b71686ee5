//! Request defaults in `litellm_params`, and which fields a deployment's upstream does not get.
//!
//! LiteLLM sends every parameter that it does not know itself with each request. Here as well: what is no setting is a field.

use serde_json::{Map, Value as Json};

use super::known;
use crate::{
    config::{
        ConfigError, Kind,
        read::{
            Recorded, Section,
            tree::{Node, Value},
        },
    },
    provider::{openai_models, table::Provider},
    request::edits::{Edits, OfModel},
};

type Result<T> = std::result::Result<T, ConfigError>;

/// What the file says about the fields of all deployments.
pub(in crate::config) struct FieldRules {
    /// `litellm_settings.drop_params`.
    pub(in crate::config) drop_params: bool,
}

/// Reads all that is left of `litellm_params`. `model` is what decides which fields an OpenAI model takes.
pub(super) fn edits(
    params: &Section<'_>,
    rules: &FieldRules,
    provider: &Provider,
    model: &str,
) -> Result<Edits> {
    let drop_params = drop_params(params).unwrap_or(rules.drop_params);
    let mut edits = Edits {
        drop_params,
        ..Edits::default()
    };
    let openai = matches!(provider.name, "openai" | "azure");
    edits.renames.extend(provider.renames);
    if openai && model.contains('*') {
        edits.of_model = Some(OfModel { drops: drop_params });
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
    let extra = extra_body(params).recorded(params.file);
    defaults(params, provider, &mut edits);
    for (name, value) in extra {
        edits.defaults.retain(|(other, _)| *other != name);
        edits.defaults.push((name, value.to_string()));
    }
    Ok(edits)
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
            known::Role::Field => {}
            known::Role::Setting(reason) => {
                params.not_served(&[(name, reason)]);
                continue;
            }
            known::Role::Credential => {
                let text =
                    "is not sent upstream, as it may be a credential, and means nothing here";
                params.tell(Kind::NOT_DONE, name, text);
                params.pass_over(name);
                continue;
            }
            known::Role::Unknown => {
                let text =
                    "is no setting that is known here: it is sent with each request, as in LiteLLM";
                params.tell(Kind::UNKNOWN_FIELD, name, text);
            }
        }
        let Some(node) = params.node(name) else {
            continue;
        };
        match name {
            // Whether an answer is streamed is the client's to say.
            "stream" => {
                if !matches!(node.value, Value::Bool(false)) {
                    params.warn(
                        name,
                        "does nothing here: each request says whether it wants a stream",
                    );
                }
            }
            "num_ctx" | "keep_alive" if provider.name.starts_with("ollama") => {
                params.warn(name, "does nothing here: Ollama's OpenAI endpoint does not take it; set it in the model (PARAMETER in its Modelfile) or for the server");
            }
            _ => {
                let json = params.json(name, node).recorded_if_any(params.file);
                let field = json.map(|json| (name.to_owned(), json.to_string()));
                edits.defaults.extend(field);
            }
        }
    }
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
