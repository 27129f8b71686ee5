//! What OpenAI's models want of a chat request beyond the endpoint's own rules. Azure has the same models.

/// A family of models, by the beginning of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// `o1`, `o3`, `o4`.
    Reasoning,
    /// `gpt-5` and its sizes.
    Gpt5,
    /// `gpt-5.1` and later: they take a temperature while they do not reason.
    Gpt5Point,
    /// `gpt-4`, `gpt-3.5`.
    Earlier,
    Unknown,
}

impl Family {
    fn of(model: &str) -> Self {
        let begins = |beginnings: &[&str]| beginnings.iter().any(|name| model.starts_with(name));
        // `gpt-5-chat-latest` does not reason.
        if model.starts_with("gpt-5") && model.contains("-chat") {
            Self::Unknown
        } else if begins(&["o1", "o3", "o4"]) {
            Self::Reasoning
        } else if begins(&["gpt-5."]) {
            Self::Gpt5Point
        } else if begins(&["gpt-5"]) {
            Self::Gpt5
        } else if begins(&["gpt-4", "gpt-3.5", "chatgpt-4"]) {
            Self::Earlier
        } else {
            Self::Unknown
        }
    }
}

/// Fields that the model answers with an error.
pub(crate) fn refuses(model: &str) -> &'static [&'static str] {
    match Family::of(model) {
        Family::Reasoning => &[
            "temperature",
            "top_p",
            "presence_penalty",
            "frequency_penalty",
            "logprobs",
            "top_logprobs",
            "parallel_tool_calls",
        ],
        Family::Gpt5 => &[
            "temperature",
            "top_p",
            "presence_penalty",
            "frequency_penalty",
            "logprobs",
            "top_logprobs",
            "logit_bias",
            "stop",
        ],
        Family::Gpt5Point => &[
            "presence_penalty",
            "frequency_penalty",
            "logit_bias",
            "stop",
        ],
        Family::Earlier => &["reasoning_effort", "verbosity"],
        Family::Unknown => &[],
    }
}

/// Fields that the model knows by another name only.
pub(crate) fn renames(model: &str) -> &'static [(&'static str, &'static str)] {
    match Family::of(model) {
        Family::Reasoning | Family::Gpt5 | Family::Gpt5Point => {
            &[("max_tokens", "max_completion_tokens")]
        }
        Family::Earlier | Family::Unknown => &[],
    }
}

/// Whether chats with the model are called by the Responses API only.
pub(crate) fn only_responses(model: &str) -> bool {
    let begins = |beginnings: &[&str]| beginnings.iter().any(|name| model.starts_with(name));
    let mut words = model.split('-');
    begins(&["codex-", "computer-use"])
        || (begins(&["gpt-5", "o1", "o3", "o4"])
            && (model.contains("deep-research")
                || words.any(|word| matches!(word, "codex" | "pro"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reasoning_models_rename_max_tokens() {
        for model in [
            "o1",
            "o3-mini",
            "o4-mini-2025-04-16",
            "gpt-5",
            "gpt-5-nano",
            "gpt-5.2",
        ] {
            assert_eq!(
                renames(model),
                [("max_tokens", "max_completion_tokens")],
                "{model}"
            );
        }
        for model in [
            "gpt-4o",
            "gpt-4.1",
            "gpt-3.5-turbo",
            "gpt-5-chat-latest",
            "gpt-oss-120b",
            "olmo",
        ] {
            assert_eq!(renames(model), [], "{model}");
        }
    }

    #[test]
    fn models_without_chat_completions_are_known_by_name() {
        for model in [
            "gpt-5-codex",
            "gpt-5.1-codex-max",
            "codex-mini-latest",
            "o1-pro",
            "gpt-5.4-pro-2026-03-05",
            "o4-mini-deep-research",
            "computer-use-preview",
        ] {
            assert!(only_responses(model), "{model}");
        }
        for model in [
            "gpt-5",
            "gpt-4o",
            "o3",
            "my-pro-model",
            "gemini-2.5-pro",
            "qwen-codex",
        ] {
            assert!(!only_responses(model), "{model}");
        }
    }

    #[test]
    fn models_that_always_reason_refuse_temperature_and_earlier_ones_reasoning_effort() {
        let refused = |model| refuses(model).contains(&"temperature");
        assert!(refused("o3") && refused("gpt-5-mini"));
        assert!(!refused("gpt-5.2") && !refused("gpt-4o") && !refused("mine"));
        assert!(refuses("gpt-4o").contains(&"reasoning_effort"));
        assert!(!refuses("gpt-5").contains(&"reasoning_effort"));
    }
}
