//! What all servers of a run answer.

use serde::Serialize;

/// What a short answer says. With all around it a completion has about 300 bytes.
pub(crate) const SHORT: &str = "The best waiting ticket goes next.";

/// A chat completion.
#[derive(Debug, Serialize)]
pub(crate) struct Completion {
    id: &'static str,
    object: &'static str,
    created: u64,
    model: String,
    choices: [Choice; 1],
    usage: Usage,
}

#[derive(Debug, Serialize)]
struct Choice {
    index: u32,
    message: Said,
    finish_reason: &'static str,
}

#[derive(Debug, Serialize)]
struct Said {
    role: &'static str,
    content: String,
}

#[derive(Debug, Serialize)]
struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
}

pub(crate) fn completion(model: &str, content: &str) -> Completion {
    Completion {
        id: "chatcmpl-0123456789abcdef",
        object: "chat.completion",
        created: 1_795_000_000,
        model: model.into(),
        choices: [Choice {
            index: 0,
            message: Said {
                role: "assistant",
                content: content.into(),
            },
            finish_reason: "stop",
        }],
        usage: Usage {
            prompt_tokens: 20,
            completion_tokens: 10,
            total_tokens: 30,
        },
    }
}

/// Text of this many bytes.
pub(crate) fn text(bytes: usize) -> String {
    "right of way ".chars().cycle().take(bytes).collect()
}

/// The events of a streamed completion: each says one word, the last two are the usage and the end.
pub(crate) fn events(model: &str, content: &str) -> Vec<String> {
    const HEAD: &str =
        r#""id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1795000000"#;
    let words = content.split_inclusive(' ').map(|word| {
        format!(
            "data: {{{HEAD},\"model\":\"{model}\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{word}\"}},\"finish_reason\":null}}]}}\n\n"
        )
    });
    let last = format!(
        "data: {{{HEAD},\"model\":\"{model}\",\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":20,\"completion_tokens\":10,\"total_tokens\":30}}}}\n\n"
    );
    words.chain([last, "data: [DONE]\n\n".into()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_json_of_the_size_that_was_asked_for() {
        assert_eq!(text(100).len(), 100);
        for event in events("m", SHORT) {
            let data = event.strip_prefix("data: ").unwrap().trim_end();
            assert!(data == "[DONE]" || serde_json::from_str::<serde_json::Value>(data).is_ok());
        }
    }
}
