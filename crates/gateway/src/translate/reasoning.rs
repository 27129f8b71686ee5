//! How much a model thinks: OpenAI's `reasoning_effort`, Anthropic's `thinking` and `output_config.effort`.

use serde_json::{Map, Value, json};

use crate::provider::claude_models;

/// Thoughts of models that are told a budget, by effort: LiteLLM's.
const BUDGETS: [(&str, u64); 4] = [
    ("minimal", 1024),
    ("low", 1024),
    ("medium", 2048),
    ("high", 4096),
];

/// Adds what an effort comes to. A model that does not think, or a turn that has to go on without its thoughts, gets nothing.
pub(super) fn apply(body: &mut Map<String, Value>, effort: &str, model: &str) {
    if effort == "none" || body.contains_key("thinking") {
        return;
    }
    let forced = matches!(body.get("tool_choice").map(|choice| &choice["type"]), Some(Value::String(kind)) if kind == "any" || kind == "tool");
    if forced || calls_without_thoughts(body) {
        // Anthropic refuses thinking here.
        return;
    }
    match claude_models::version(model) {
        Some(version) if version < (3, 7) => {}
        Some(version) if version >= (4, 6) => {
            let effort = match effort {
                "minimal" => "low",
                "xhigh" => "max",
                effort => effort,
            };
            body.insert("thinking".into(), json!({"type": "adaptive"}));
            let config = body.entry("output_config").or_insert_with(|| json!({}));
            if let Value::Object(config) = config {
                config.insert("effort".into(), effort.into());
            }
            without_sampling(body);
        }
        _ => {
            let budget = BUDGETS.iter().find(|(name, _)| *name == effort);
            let budget = budget.map_or(4096, |(_, budget)| *budget);
            body.insert(
                "thinking".into(),
                json!({"type": "enabled", "budget_tokens": budget}),
            );
            // The answer comes after the thoughts, out of the same maximum.
            let most = body.get("max_tokens").and_then(Value::as_u64).unwrap_or(0);
            if most <= budget {
                body.insert("max_tokens".into(), most.saturating_add(budget).into());
            }
            without_sampling(body);
        }
    }
}

/// A model that thinks takes no other temperature than 1.
fn without_sampling(body: &mut Map<String, Value>) {
    body.remove("temperature");
    body.remove("top_k");
}

/// Whether the last turn of the assistant called tools and came without its thoughts, which only Anthropic's format keeps.
fn calls_without_thoughts(body: &Map<String, Value>) -> bool {
    let messages = body.get("messages").and_then(Value::as_array);
    let last = messages.and_then(|all| all.iter().rfind(|one| one["role"] == "assistant"));
    let blocks = last.and_then(|message| message["content"].as_array());
    blocks.is_some_and(|blocks| {
        let has = |kinds: &[&str]| {
            blocks
                .iter()
                .any(|block| kinds.iter().any(|kind| block["type"] == *kind))
        };
        has(&["tool_use"]) && !has(&["thinking", "redacted_thinking"])
    })
}

/// The effort that Anthropic's fields come to in a chat.
pub(super) fn effort(thinking: Option<&Value>, config: Option<&Value>) -> Option<String> {
    let named = config.and_then(|config| config["effort"].as_str());
    let thinking = thinking?;
    match thinking["type"].as_str()? {
        "adaptive" => Some(match named {
            Some("max") => "high".into(),
            Some(effort) => effort.to_owned(),
            None => "medium".into(),
        }),
        "enabled" => {
            let budget = thinking["budget_tokens"].as_u64().unwrap_or(0);
            let effort = match budget {
                0..2048 => "low",
                2048..8192 => "medium",
                _ => "high",
            };
            Some(effort.into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(body: Value, effort: &str, model: &str) -> Value {
        let Value::Object(mut body) = body else {
            panic!("an object")
        };
        apply(&mut body, effort, model);
        body.into()
    }

    #[test]
    fn effort_is_a_budget_or_adaptive_by_the_models_version() {
        for model in ["claude-sonnet-4-5", "claude-3-7-sonnet-20250219", "qwen3"] {
            assert_eq!(
                applied(json!({"max_tokens": 100, "temperature": 0.5}), "low", model),
                json!({"max_tokens": 1124, "thinking": {"type": "enabled", "budget_tokens": 1024}}),
                "{model}"
            );
        }
        for model in [
            "claude-opus-4-6",
            "claude-sonnet-5",
            "us.anthropic.claude-opus-4-8-v1:0",
        ] {
            assert_eq!(
                applied(json!({"max_tokens": 100}), "high", model),
                json!({"max_tokens": 100, "thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
                "{model}"
            );
        }
        let unchanged = json!({"max_tokens": 100});
        assert_eq!(
            applied(unchanged.clone(), "high", "claude-3-5-haiku-20241022"),
            unchanged
        );
        assert_eq!(
            applied(unchanged.clone(), "none", "claude-opus-4-6"),
            unchanged
        );
    }

    #[test]
    fn no_thinking_is_asked_for_where_anthropic_refuses_it() {
        let forced = json!({"max_tokens": 9, "tool_choice": {"type": "any"}});
        assert_eq!(applied(forced.clone(), "low", "claude-sonnet-4-5"), forced);
        let calls = json!({"max_tokens": 9, "messages": [
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "1"}]},
        ]});
        assert_eq!(applied(calls.clone(), "low", "claude-sonnet-4-5"), calls);
    }

    #[test]
    fn thinking_comes_to_an_effort() {
        let of = |thinking: Value, config: Value| effort(Some(&thinking), Some(&config));
        let budget = |tokens| {
            of(
                json!({"type": "enabled", "budget_tokens": tokens}),
                Value::Null,
            )
        };
        assert_eq!(budget(1024).as_deref(), Some("low"));
        assert_eq!(budget(2048).as_deref(), Some("medium"));
        assert_eq!(budget(31_999).as_deref(), Some("high"));
        let adaptive = json!({"type": "adaptive"});
        assert_eq!(
            of(adaptive.clone(), json!({"effort": "max"})).as_deref(),
            Some("high")
        );
        assert_eq!(of(adaptive, Value::Null).as_deref(), Some("medium"));
        assert_eq!(
            of(json!({"type": "disabled"}), json!({"effort": "low"})),
            None
        );
    }
}
