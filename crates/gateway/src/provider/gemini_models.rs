//! What Gemini wants of a chat at Google's OpenAI-compatible endpoints.

use std::borrow::Cow;

use serde::Deserialize;

use crate::request::edits::Field;

/// Anthropic's form, which LiteLLM takes for Gemini as well.
#[derive(Deserialize)]
struct Thinking {
    budget_tokens: Option<u64>,
}

/// Replaces `thinking` by Google's form of its budget. It is left out where the request says otherwise how much is thought, and
/// for models since Gemini 3, which have levels instead of budgets.
///
/// Thoughts are not asked for: the endpoint would put them into the text of the answer.
pub(crate) fn translate_thinking(model: &str, fields: &mut Vec<Field<'_>>) {
    let Some(at) = fields.iter().position(|(name, _)| name == "thinking") else {
        return;
    };
    let (_, json) = fields.remove(at);
    let says = |(name, _): &Field<'_>| matches!(name.as_ref(), "reasoning_effort" | "extra_body");
    if !has_budgets(model) || fields.iter().any(says) {
        return;
    }
    let thinking: Option<Thinking> = serde_json::from_str(&json).ok();
    if let Some(budget) = thinking.and_then(|thinking| thinking.budget_tokens) {
        let json = format!(r#"{{"google":{{"thinking_config":{{"thinking_budget":{budget}}}}}}}"#);
        fields.push((Cow::Borrowed("extra_body"), Cow::Owned(json)));
    }
}

/// Whether it is a model before Gemini 3, by its name.
fn has_budgets(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let version = name.strip_prefix("gemini-").unwrap_or_default();
    version.starts_with(['1', '2'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(model: &str, fields: &[(&'static str, &'static str)]) -> String {
        let own = fields.iter();
        let own = own.map(|(name, json)| (Cow::Borrowed(*name), Cow::Borrowed(*json)));
        let mut fields: Vec<Field<'_>> = own.collect();
        translate_thinking(model, &mut fields);
        let fields = fields.iter().map(|(name, json)| format!("{name}={json}"));
        fields.collect::<Vec<_>>().join(" ")
    }

    const BUDGET: (&str, &str) = ("thinking", r#"{"type":"enabled","budget_tokens":1024}"#);

    #[test]
    fn budget_becomes_thinking_config_of_models_before_gemini_3() {
        let expected = r#"a=1 extra_body={"google":{"thinking_config":{"thinking_budget":1024}}}"#;
        for model in [
            "gemini-2.5-flash",
            "google/gemini-2.5-pro",
            "gemini-2.0-flash",
        ] {
            assert_eq!(
                translated(model, &[BUDGET, ("a", "1")]),
                expected,
                "{model}"
            );
        }
        for model in [
            "gemini-3-pro-preview",
            "gemini-flash-latest",
            "gemma-3-27b-it",
        ] {
            assert_eq!(translated(model, &[BUDGET, ("a", "1")]), "a=1", "{model}");
        }
    }

    #[test]
    fn thinking_without_a_budget_or_beside_an_effort_is_left_out() {
        let model = "gemini-2.5-flash";
        for json in [
            r#"{"type":"disabled"}"#,
            "null",
            "7",
            r#"{"budget_tokens":-1}"#,
        ] {
            assert_eq!(translated(model, &[("thinking", json)]), "", "{json}");
        }
        let effort = ("reasoning_effort", "\"low\"");
        assert_eq!(
            translated(model, &[BUDGET, effort]),
            "reasoning_effort=\"low\""
        );
        let own = ("extra_body", "{}");
        assert_eq!(translated(model, &[own, BUDGET]), "extra_body={}");
    }
}
