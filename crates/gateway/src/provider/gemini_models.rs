//! What Gemini wants of a chat at Google's OpenAI-compatible endpoints.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use crate::request::edits::Field;

/// LiteLLM refuses these as well. It serves or ignores all others that the OpenAI-compatible endpoint does not know.
pub(crate) const REFUSES: &[&str] = &[
    "logit_bias",
    "top_logprobs",
    "store",
    "prediction",
    "verbosity",
    "safety_identifier",
    "prompt_cache_key",
];

/// All fields that the endpoint knows.
#[rustfmt::skip]
pub(crate) const TAKES: &[&str] = &[
    "audio", "extra_body", "function_call", "functions", "max_completion_tokens", "max_tokens", "messages", "modalities", "model", "n",
    "parallel_tool_calls", "presence_penalty", "reasoning_effort", "response_format", "service_tier", "stop", "stream", "stream_options",
    "temperature", "tool_choice", "tools", "top_p", "user",
];

/// Anthropic's form, which LiteLLM takes for Gemini as well.
#[derive(Deserialize)]
struct Thinking {
    budget_tokens: Option<u64>,
}

/// What Google documents for a call of a tool that has lost its signature, or never had one.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// A chat's fields as the model wants them.
pub(crate) fn adapt(model: &str, fields: &mut Vec<Field<'_>>) {
    translate_thinking(model, fields);
    sign_tool_calls(model, fields);
}

/// Gemini 3 and later refuse a message with calls of tools of which the first has no signature. Most clients do not return
/// the signature that came with the call, which OpenAI's format does not know. As LiteLLM does.
fn sign_tool_calls(model: &str, fields: &mut [Field<'_>]) {
    if has_budgets(model) || !name(model).starts_with("gemini") {
        return;
    }
    let mut fields = fields.iter_mut();
    let Some((_, json)) = fields.find(|(name, _)| name == "messages") else {
        return;
    };
    let signed = with_signatures(json);
    if let Some(signed) = signed {
        *json = Cow::Owned(signed);
    }
}

/// Messages with what was missing; the others stay as they were written. `None`: nothing was missing.
fn with_signatures(messages: &str) -> Option<String> {
    if !messages.contains("\"tool_calls\"") {
        return None;
    }
    let messages: Vec<&RawValue> = serde_json::from_str(messages).ok()?;
    let signed: Vec<Option<String>> = messages.iter().map(|one| signed(one.get())).collect();
    if signed.iter().all(Option::is_none) {
        return None;
    }
    let all = messages.iter().zip(signed);
    let all = all.map(|(own, signed)| signed.unwrap_or_else(|| own.get().to_owned()));
    Some(format!("[{}]", all.collect::<Vec<_>>().join(",")))
}

/// A message whose first call of a tool had no signature.
fn signed(message: &str) -> Option<String> {
    if !message.contains("\"tool_calls\"") {
        return None;
    }
    let mut message: Map<String, Value> = serde_json::from_str(message).ok()?;
    let first = message.get_mut("tool_calls")?.get_mut(0)?.as_object_mut()?;
    if first.get("extra_content").is_some_and(|own| !own.is_null()) {
        return None;
    }
    let content = json!({"google": {"thought_signature": NO_SIGNATURE}});
    first.insert("extra_content".into(), content);
    Some(Value::Object(message).to_string())
}

/// Replaces `thinking` by Google's form of its budget. It is left out where the request says otherwise how much is thought, and
/// for models since Gemini 3, which have levels instead of budgets.
///
/// Thoughts are not asked for: the endpoint would put them into the text of the answer.
fn translate_thinking(model: &str, fields: &mut Vec<Field<'_>>) {
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
    let version = name(model).strip_prefix("gemini-").unwrap_or_default();
    version.starts_with(['1', '2'])
}

/// Without its publisher.
fn name(model: &str) -> &str {
    model.rsplit('/').next().unwrap_or(model)
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

    const SIGNATURE: &str =
        r#""extra_content":{"google":{"thought_signature":"skip_thought_signature_validator"}}"#;

    #[test]
    fn first_tool_call_of_a_message_gets_a_signature_where_it_has_none() {
        let user = r#"{"role":"user", "content":"\"tool_calls\" 1.50"}"#;
        let lost = r#"{"role":"assistant","tool_calls":[{"id":"a"},{"id":"b"}]}"#;
        let kept = r#"{"role":"assistant", "tool_calls":[{"id":"c","extra_content":{"google":{"thought_signature":"x"}}},{"id":"d"}]}"#;
        let signed = format!(
            r#"[{user},{{"role":"assistant","tool_calls":[{{"id":"a",{SIGNATURE}}},{{"id":"b"}}]}},{kept}]"#
        );
        let messages = format!("[{user},{lost},{kept}]");
        assert_eq!(with_signatures(&messages).as_deref(), Some(&*signed));
        // It has all that is needed now.
        assert_eq!(with_signatures(&signed), None);
        for other in [
            &*format!("[{user}]"),
            r#"[{"tool_calls":[]}]"#,
            r#"[{"tool_calls":null}]"#,
            r#"[{"tool_calls":["a"]}]"#,
            r#"{"tool_calls":[{}]}"#,
            r#"["tool_calls"]"#,
        ] {
            assert_eq!(with_signatures(other), None, "{other}");
        }
    }

    #[test]
    fn only_models_since_gemini_3_get_signatures() {
        let own = r#"[{"tool_calls":[{"id":"a"}]}]"#;
        for (model, expected) in [
            ("gemini-3-pro-preview", true),
            ("google/gemini-3.1-flash", true),
            ("gemini-flash-latest", true),
            ("gemini-2.5-pro", false),
            ("gemma-3-27b-it", false),
        ] {
            let mut fields = vec![(Cow::Borrowed("messages"), Cow::Borrowed(own))];
            adapt(model, &mut fields);
            assert_eq!(fields[0].1.contains(SIGNATURE), expected, "{model}");
        }
    }
}
