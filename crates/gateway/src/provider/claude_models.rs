//! What Claude's models differ in. Their names say which they are, on Bedrock and Vertex AI as well.

/// Of a model that is not known by its name, as in LiteLLM.
const UNKNOWN_MAX_TOKENS: u64 = 4096;

/// The version in the name of one of Anthropic's models: `claude-3-7-sonnet-20250219`, `claude-opus-4-6`,
/// `anthropic.claude-sonnet-5-v1:0`. `None`: no such name.
pub(crate) fn version(model: &str) -> Option<(u64, u64)> {
    let (_, name) = model.split_once("claude-")?;
    if name.starts_with("mythos-preview") {
        // Its name has no number.
        return Some((5, 0));
    }
    let numbers = |text: &str| text.parse::<u64>().ok().filter(|number| *number < 100);
    let mut parts = name.split(['-', '.', '@', ':']);
    let major = parts.find_map(numbers)?;
    let minor = parts.next().and_then(numbers).unwrap_or(0);
    Some((major, minor))
}

/// The most tokens that an answer of the model may have: LiteLLM's `max_output_tokens`. Where providers differ, the least of them.
pub(crate) fn max_tokens(model: &str) -> u64 {
    // Bedrock's first 3.5.
    if model.contains("claude-3-5-sonnet-20240620") {
        return 4096;
    }
    let is = |family| model.contains(family);
    match version(model) {
        None => UNKNOWN_MAX_TOKENS,
        Some(version) if version < (3, 5) => 4096,
        Some(version) if version < (4, 0) => 8192,
        Some(version) if version < (4, 5) && is("opus") => 32_000,
        Some(version) if version < (4, 6) || (version == (4, 6) && is("sonnet")) => 64_000,
        Some(_) => 128_000,
    }
}

/// Whether the model takes `temperature`, `top_p` and `top_k`. Newer ones answer them with an error.
pub(crate) fn takes_sampling(model: &str) -> bool {
    version(model).is_none_or(|version| version < (4, 7))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_answer_follows_from_the_name() {
        for (model, expected) in [
            ("claude-3-opus-20240229", 4096),
            ("anthropic.claude-3-haiku-20240307-v1:0", 4096),
            ("claude-3-5-sonnet-20241022", 8192),
            ("claude-3-5-sonnet@20240620", 8192),
            ("us.anthropic.claude-3-5-sonnet-20240620-v1:0", 4096),
            ("claude-3-7-sonnet-20250219", 8192),
            ("claude-opus-4-20250514", 32_000),
            ("eu.anthropic.claude-opus-4-1-20250805-v1:0", 32_000),
            ("claude-sonnet-4@20250514", 64_000),
            ("claude-sonnet-4-5", 64_000),
            ("claude-opus-4-5-20251101", 64_000),
            ("claude-haiku-4-5@20251001", 64_000),
            ("claude-sonnet-4-6", 64_000),
            ("claude-opus-4-6", 128_000),
            ("claude-fable-5-1", 128_000),
            ("claude-mythos-preview", 128_000),
            ("anthropic.claude-instant-v1", 4096),
            ("minimax-m2", 4096),
        ] {
            assert_eq!(max_tokens(model), expected, "{model}");
        }
    }

    #[test]
    fn models_from_claude_4_7_on_take_no_sampling_parameters() {
        for model in ["claude-opus-4-6", "claude-sonnet-4-5", "other"] {
            assert!(takes_sampling(model), "{model}");
        }
        for model in [
            "claude-opus-4-7",
            "claude-sonnet-5",
            "claude-mythos-preview",
        ] {
            assert!(!takes_sampling(model), "{model}");
        }
    }
}
