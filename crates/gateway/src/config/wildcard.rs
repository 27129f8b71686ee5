//! Wildcards: a `model_name` with `*` stands for every model whose name fits it.
//!
//! All of them share one queue and the limits of the entry's deployments. What the `*` stands for in a request goes to where
//! `litellm_params.model` has one. Where several fit, an exact name wins, then the longest pattern, as in LiteLLM.

use regex::Regex;

use super::{ConfigError, Kind, read::Section};
use crate::provider::table::{self, Format, Provider};

type Result<T> = std::result::Result<T, ConfigError>;

/// The names that a group with `*` in its name is called by.
#[derive(Debug, Clone)]
pub struct Wildcard {
    /// The `model_name` of the file.
    pub(crate) declared: String,
    pub(crate) patterns: Vec<Pattern>,
}

impl Wildcard {
    /// A deployment's model for this request: `template` with what the request's `*` stands for.
    pub(crate) fn filled(&self, template: &str, requested: &str) -> Option<String> {
        let mut patterns = self.patterns.iter();
        patterns.find_map(|pattern| pattern.filled(template, requested))
    }

    pub(crate) fn fits(&self, name: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.fits(name))
    }
}

/// Names with a part in common.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    regex: Regex,
    /// How long its text is: the longest that fits wins.
    pub(crate) length: usize,
}

impl Pattern {
    /// `*` stands for any text, also for none.
    fn new(text: &str) -> std::result::Result<Self, regex::Error> {
        let parts: Vec<String> = text.split('*').map(regex::escape).collect();
        Self::of(&parts.join("(.*)"), text)
    }

    /// Names that begin so, and are passed on whole.
    fn beginning(text: &str) -> std::result::Result<Self, regex::Error> {
        Self::of(&format!("({}.*)", regex::escape(text)), text)
    }

    fn of(regex: &str, text: &str) -> std::result::Result<Self, regex::Error> {
        Ok(Self {
            regex: Regex::new(&format!("(?s)^{regex}$"))?,
            length: text.len(),
        })
    }

    pub(crate) fn fits(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }

    /// The n-th `*` of `template` becomes what the pattern's n-th stands for.
    fn filled(&self, template: &str, requested: &str) -> Option<String> {
        let captures = self.regex.captures(requested)?;
        let mut parts = template.split('*');
        let mut filled = parts.next()?.to_owned();
        for (index, part) in parts.enumerate() {
            let found = captures.get(index + 1);
            filled.push_str(found.map_or("*", |found| found.as_str()));
            filled.push_str(part);
        }
        Some(filled)
    }
}

/// What an entry of `model_list` is read as.
pub(super) struct Reading {
    /// The name of its group.
    pub(super) group: String,
    /// `litellm_params.model`.
    pub(super) model: String,
    pub(super) wildcard: Option<Wildcard>,
    /// It is one of several that were made of `*`, and for this provider.
    pub(super) provider: Option<&'static str>,
}

/// The entry itself; or, where it is `*` for every provider's models, one for each provider that can be called.
pub(super) fn readings(entry: &Section<'_>) -> Result<Vec<Reading>> {
    let group = entry.required("model_name")?;
    if !entry.has("litellm_params") {
        let text = "is missing; expected a mapping with at least `model`";
        return Err(entry.error_of(Kind::MISSING, "litellm_params", text));
    }
    let params = entry.section("litellm_params")?;
    let model = params.required("model")?;
    let too_long = |_| entry.error("model_name", "is too long for a name with `*`");
    if !group.contains('*') {
        if model.contains('*') {
            params.warn(
                "model",
                "has a `*`, and model_name has none that it could stand for: it is sent as it is",
            );
        }
        return Ok(vec![Reading::of(group, model, None)]);
    }
    let of_one_server = [
        "api_base",
        "base_url",
        "custom_llm_provider",
        "mock_response",
    ];
    if group == "*" && model == "*" && !of_one_server.iter().any(|key| params.has(key)) {
        return of_all_providers(entry, &params).map_err(too_long);
    }
    if group.matches('*').count() < model.matches('*').count() {
        params.warn(
            "model",
            "has more `*` than model_name: the others are sent as they are",
        );
    }
    let patterns = vec![Pattern::new(&group).map_err(too_long)?];
    let declared = group.clone();
    let wildcard = Wildcard { declared, patterns };
    Ok(vec![Reading::of(group, model, Some(wildcard))])
}

impl Reading {
    fn of(group: String, model: String, wildcard: Option<Wildcard>) -> Self {
        Self {
            group,
            model,
            wildcard,
            provider: None,
        }
    }
}

/// `*` for `*`: LiteLLM calls the provider that each request names. Their quotas have nothing to do with one another, so each
/// has a queue of its own.
fn of_all_providers(
    entry: &Section<'_>,
    params: &Section<'_>,
) -> std::result::Result<Vec<Reading>, regex::Error> {
    let set = |name: &str| {
        let value = params.file.env.get(name);
        value.is_some_and(|value| !value.trim().is_empty())
    };
    let vertex = set("VERTEXAI_PROJECT");
    let reachable = |provider: &&Provider| {
        let variables = provider.key_variables.iter().chain(provider.base_variables);
        match provider.name {
            "ollama" | "ollama_chat" => true,
            "vertex_ai" => vertex,
            _ => provider.format != Format::Foreign && variables.into_iter().any(|name| set(name)),
        }
    };
    let own_key = params.has("api_key");
    if own_key {
        params.warn(
            "api_key",
            "is sent to OpenAI only: `*` names no provider that it could belong to",
        );
    }
    if params
        .keys()
        .any(|key| matches!(key, "rpm" | "tpm" | "max_parallel_requests"))
    {
        entry.warn(
            "model_name",
            "`*` becomes a group for each provider: each has these limits for itself",
        );
    }
    let mut readings = Vec::new();
    let of_key = |provider: &&Provider| own_key && provider.name == "openai";
    for provider in table::TABLE
        .iter()
        .filter(|provider| reachable(provider) || of_key(provider))
    {
        let name = provider.name;
        let text = format!("{name}/*");
        let mut patterns = vec![Pattern::new(&text)?];
        let bare = match name {
            // As a bare name at a deployment.
            "gemini" if !vertex => table::named("vertex_ai"),
            _ => Some(provider),
        };
        for beginning in bare.map_or(&[][..], table::bare_names) {
            patterns.push(Pattern::beginning(beginning)?);
        }
        let declared = "*".to_owned();
        readings.push(Reading {
            group: text.clone(),
            model: text,
            wildcard: Some(Wildcard { declared, patterns }),
            provider: Some(name),
        });
    }
    if readings.iter().all(|reading| {
        reading
            .provider
            .is_some_and(|name| name.starts_with("ollama"))
    }) {
        let text = "`*` stands for the providers that have a key in the environment (docs/providers.md has the variables): there is none";
        entry.tell(Kind::NO_KEY, "model_name", text);
    }
    Ok(readings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pattern: &str, template: &str, requested: &str) -> Option<String> {
        Pattern::new(pattern).unwrap().filled(template, requested)
    }

    #[test]
    fn star_of_the_request_fills_star_of_the_model() {
        for (pattern, template, requested, sent) in [
            ("openai/*", "*", "openai/gpt-4o", Some("gpt-4o")),
            ("*", "*", "meta-llama/x:free", Some("meta-llama/x:free")),
            ("team-*", "gpt-*", "team-4o", Some("gpt-4o")),
            ("a/*/b-*", "*.*", "a/x/y/b-z", Some("x/y.z")),
            ("fixed/*", "one", "fixed/any", Some("one")),
            ("one*", "*/*", "one2", Some("2/*")),
            ("gpt.*", "*", "gpt-4", None),
            ("gpt-*", "*", "my-gpt-4", None),
            ("(*", "*", "(a", Some("a")),
            ("é*", "*", "é\nü", Some("\nü")),
        ] {
            assert_eq!(
                filled(pattern, template, requested).as_deref(),
                sent,
                "{pattern} {requested}"
            );
        }
    }

    #[test]
    fn name_with_a_beginning_is_passed_on_whole() {
        let pattern = Pattern::beginning("gpt-").unwrap();
        assert_eq!(pattern.filled("*", "gpt-4o").as_deref(), Some("gpt-4o"));
        assert_eq!(pattern.filled("*", "gpt4"), None);
    }
}
