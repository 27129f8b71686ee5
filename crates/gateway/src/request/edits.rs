//! What a deployment changes in the fields of a request: its defaults, and fields that its upstream does not take.

use std::{borrow::Cow, fmt};

use crate::{
    Endpoint,
    provider::{gemini_models, openai_models},
    request::{
        Fields,
        cache_points::{self, CachePoint},
    },
};

/// A deployment's changes. Most deployments have none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Fields and their JSON, for requests without them.
    pub(crate) defaults: Vec<(String, String)>,
    /// Fields that are left out.
    pub(crate) drops: Vec<String>,
    /// Fields that the upstream knows by another name.
    pub(crate) renames: Vec<(&'static str, &'static str)>,
    /// The only fields that a chat may have, if the upstream answers others with an error.
    pub(crate) takes: Option<Vec<&'static str>>,
    /// `drop_params`: what cannot be written in the upstream's format is left out, too.
    pub(crate) drop_params: bool,
    /// The upstream's format has `cache_control`, and where it is put into prompts.
    pub(crate) caches: bool,
    pub(crate) cache_points: Vec<CachePoint>,
    /// Chats carry their `metadata`, which is not forwarded otherwise.
    pub(crate) metadata: bool,
    /// What the upstream wants besides follows from the name of the model, which may be a request's.
    pub(crate) of_model: Option<OfModel>,
}

/// Whose model it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfModel {
    /// OpenAI's, and whether fields that the model refuses are left out.
    OpenAi { drops: bool },
    /// Gemini, at Google's OpenAI-compatible endpoints.
    Gemini,
}

/// A field's name and its JSON.
pub(crate) type Field<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Two names of the same maximum: a default under one is none where the request uses the other.
const MAXIMA: [&str; 2] = ["max_tokens", "max_completion_tokens"];

/// Fields of a chat that Anthropic's messages have not, or by another name.
const OPENAIS_OWN: &[&str] = &[
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "modalities",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream_options",
    "top_logprobs",
    "user",
    "verbosity",
    "web_search_options",
];

/// Names only: values may be credentials.
impl fmt::Debug for Edits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let defaults: Vec<&str> = self
            .defaults
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        f.debug_struct("Edits")
            .field("defaults", &defaults)
            .field("drops", &self.drops)
            .field("renames", &self.renames)
            .finish()
    }
}

impl Edits {
    pub(crate) fn is_empty(&self) -> bool {
        self.defaults.is_empty()
            && self.drops.is_empty()
            && self.renames.is_empty()
            && self.takes.is_none()
            && self.of_model.is_none()
            && !self.caches
    }

    /// The JSON of a default.
    pub(crate) fn default_of(&self, name: &str) -> Option<&str> {
        let mut defaults = self.defaults.iter();
        let (_, json) = defaults.find(|(field, _)| field == name)?;
        Some(json)
    }

    /// The fields as the upstream gets them. `model`: what it calls the model.
    pub(crate) fn applied<'a>(
        &'a self,
        endpoint: Endpoint,
        model: &str,
        fields: &'a Fields<'_>,
    ) -> Vec<Field<'a>> {
        let own = fields.fields.iter();
        let mut result: Vec<Field<'a>> = own
            .map(|(name, value)| (Cow::Borrowed(name.as_ref()), Cow::Borrowed(*value)))
            .collect();
        for (name, value) in &self.defaults {
            if takes(endpoint, name) && !result.iter().any(|(own, _)| same(own, name)) {
                result.push((Cow::Borrowed(name), Cow::Borrowed(value)));
            }
        }
        let refused: &[&str] = match self.of_model {
            Some(OfModel::OpenAi { drops: true }) => openai_models::refuses(model),
            _ => &[],
        };
        let chat = endpoint == Endpoint::ChatCompletions;
        if self.of_model == Some(OfModel::Gemini) && chat {
            gemini_models::adapt(model, &mut result);
        }
        let known = |name: &str| {
            let takes = self.takes.as_ref().filter(|_| chat);
            takes.is_none_or(|takes| takes.contains(&name))
        };
        result.retain(|(name, _)| {
            !self.drops.iter().any(|drop| drop == name)
                && !refused.contains(&name.as_ref())
                && known(name)
        });
        self.cache(endpoint, &mut result);
        let of_model = match self.of_model {
            Some(OfModel::OpenAi { .. }) => openai_models::renames(model),
            _ => &[],
        };
        let renames = self.renames.iter().chain(of_model);
        // The other endpoints have names of their own.
        for (from, to) in renames.filter(|_| chat) {
            if result.iter().any(|(name, _)| name == to) {
                result.retain(|(name, _)| name != from);
            } else if let Some((name, _)) = result.iter_mut().find(|(name, _)| name == from) {
                *name = Cow::Borrowed(to);
            }
        }
        result
    }
}

impl Edits {
    /// Marks what is to be cached: where the request says, else where the deployment says.
    fn cache(&self, endpoint: Endpoint, fields: &mut Vec<Field<'_>>) {
        let own = fields
            .iter()
            .position(|(name, _)| name == cache_points::FIELD)
            .map(|index| fields.remove(index).1)
            .and_then(|json| serde_json::from_str(&json).ok())
            .map(|list| cache_points::read(&list));
        let points = own.as_ref().unwrap_or(&self.cache_points);
        let prompts = matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Messages);
        if self.caches && prompts && !points.is_empty() {
            cache_points::mark(points, endpoint, fields);
        }
    }
}

/// Whether a default makes sense for an endpoint. A file's defaults are mostly those of a chat.
pub(crate) fn takes(endpoint: Endpoint, name: &str) -> bool {
    let known: &[&str] = match endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions => return name != "metadata",
        Endpoint::Responses => &[
            "instructions",
            "max_output_tokens",
            "metadata",
            "parallel_tool_calls",
            "prompt_cache_key",
            "reasoning",
            "safety_identifier",
            "service_tier",
            "store",
            "temperature",
            "text",
            "top_p",
            "truncation",
            "user",
        ],
        Endpoint::Embeddings => &[
            "dimensions",
            "encoding_format",
            "input_type",
            "truncation",
            "user",
        ],
        Endpoint::ImageGenerations => &["n", "quality", "size", "style", "user"],
        Endpoint::ImageEdits => &["n", "quality", "size", "user"],
        Endpoint::Speech => &["instructions", "speed", "voice"],
        Endpoint::Transcriptions => &["language", "response_format", "temperature"],
        Endpoint::Translations => &["response_format", "temperature"],
        Endpoint::Messages => return !OPENAIS_OWN.contains(&name),
        Endpoint::Moderations | Endpoint::Rerank | Endpoint::CountTokens => &[],
    };
    known.contains(&name)
}

/// Whether two names mean the same field.
fn same(one: &str, other: &str) -> bool {
    one == other || (MAXIMA.contains(&one) && MAXIMA.contains(&other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(
        defaults: &[(&str, &str)],
        drops: &[&str],
        renames: &[(&'static str, &'static str)],
    ) -> Edits {
        let text = |text: &&str| (*text).to_owned();
        Edits {
            defaults: defaults
                .iter()
                .map(|(name, json)| (text(name), text(json)))
                .collect(),
            drops: drops.iter().map(text).collect(),
            renames: renames.to_vec(),
            ..Edits::default()
        }
    }

    fn applied(edits: &Edits, body: &str) -> String {
        let fields = serde_json::from_str(body).unwrap();
        let applied = edits.applied(Endpoint::ChatCompletions, "m", &fields);
        let fields: Vec<String> = applied
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        fields.join(" ")
    }

    #[test]
    fn request_fields_override_defaults() {
        let edits = edits(&[("temperature", "0.2"), ("stop", r#"["x"]"#)], &[], &[]);
        assert_eq!(
            applied(&edits, r#"{"a":1}"#),
            r#"a=1 temperature=0.2 stop=["x"]"#
        );
        assert_eq!(
            applied(&edits, r#"{"stop":null,"temperature":1.0}"#),
            "stop=null temperature=1.0"
        );
    }

    #[test]
    fn max_completion_tokens_of_the_request_replaces_default_max_tokens() {
        let edits = edits(&[("max_tokens", "100")], &[], &[]);
        assert_eq!(
            applied(&edits, r#"{"max_completion_tokens":7}"#),
            "max_completion_tokens=7"
        );
        assert_eq!(applied(&edits, "{}"), "max_tokens=100");
    }

    #[test]
    fn other_endpoints_get_only_defaults_that_they_have() {
        let renames = [("max_tokens", "max_completion_tokens")];
        let edits = edits(
            &[
                ("temperature", "0.2"),
                ("max_tokens", "9"),
                ("dimensions", "256"),
            ],
            &["user"],
            &renames,
        );
        let fields = serde_json::from_str(r#"{"input":"a","user":"u","max_tokens":1}"#).unwrap();
        let names = |endpoint| -> Vec<String> {
            let applied = edits.applied(endpoint, "m", &fields);
            applied.iter().map(|(name, _)| name.to_string()).collect()
        };
        assert_eq!(
            names(Endpoint::Embeddings),
            ["input", "max_tokens", "dimensions"]
        );
        assert_eq!(
            names(Endpoint::Responses),
            ["input", "max_tokens", "temperature"]
        );
        assert_eq!(names(Endpoint::Rerank), ["input", "max_tokens"]);
    }

    #[test]
    fn dropped_fields_are_removed_from_requests_and_defaults() {
        let edits = edits(&[("thinking", "{}")], &["thinking", "n"], &[]);
        assert_eq!(applied(&edits, r#"{"n":2,"x":1}"#), "x=1");
    }

    #[test]
    fn renamed_field_keeps_its_position_unless_the_new_name_is_present() {
        let edits = edits(&[], &[], &[("max_tokens", "max_completion_tokens")]);
        assert_eq!(
            applied(&edits, r#"{"a":1,"max_tokens":5,"b":2}"#),
            "a=1 max_completion_tokens=5 b=2"
        );
        assert_eq!(
            applied(&edits, r#"{"max_tokens":5,"max_completion_tokens":6}"#),
            "max_completion_tokens=6"
        );
    }
}
