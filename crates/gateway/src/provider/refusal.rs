//! Requests that an upstream refuses, and that another model may take: they are too long, or their content is.

use http::StatusCode;
use serde::Deserialize;

/// Why an upstream refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is longer than the model's context.
    ContextWindow,
    /// The provider's content policy.
    ContentPolicy,
}

/// `code` or `type` of an error object.
const CONTEXT_CODES: &[&str] = &[
    "context_length_exceeded",
    "exceed_context_size_error",
    "request_too_large",
];
const CONTENT_CODES: &[&str] = &[
    "content_filter",
    "content_policy_violation",
    "responsibleaipolicyviolation",
    "moderation_blocked",
    "data_inspection_failed",
];

/// Each is a list of words that all have to be there, in lower case. OpenAI, vLLM, Anthropic, Gemini, Mistral, Cohere, Bedrock, TGI,
/// llama.cpp, Cerebras and SGLang say it so.
const CONTEXT_WORDS: &[&[&str]] = &[
    &["maximum context length"],
    &["maximum context limit"],
    &["model's context length"],
    &["exceed context limit"],
    &["context window", "exceed"],
    &["available context size"],
    &["prompt is too long"],
    &["input is too long"],
    &["input too long", "limit is"],
    &["too many tokens"],
    &["too many input tokens"],
    &["input tokens exceed"],
    &["maximum number of tokens"],
    &["maximum input length is", "tokens"],
    &["`inputs` tokens + `max_new_tokens` must be"],
    &["current length is", "while limit is"],
    &["reduce the length of the messages"],
    &["length of prompt_tokens"],
    &["string too long", "maximum length"],
];
const CONTENT_WORDS: &[&[&str]] = &[
    &["content management policy"],
    &["content filtering policy"],
    &["content_policy_violation"],
    &["our safety system"],
    &["the safety system"],
    &["violating our usage policy"],
    &["flagged", "moderation"],
    &["the response was blocked"],
];

/// What an error says about its request. Statuses of a busy server, a wrong key or a missing model say nothing about it.
pub(crate) fn refusal(status: StatusCode, message: &str, object: Option<&[u8]>) -> Option<Refusal> {
    if !matches!(status.as_u16(), 400 | 403 | 413 | 422 | 500) {
        return None;
    }
    let codes = object.map(codes).unwrap_or_default();
    let any_code = |known: &[&str]| codes.iter().any(|code| known.contains(&code.as_str()));
    let message = message.to_lowercase();
    let any_words = |known: &[&[&str]]| {
        let mut known = known.iter();
        known.any(|all| all.iter().all(|words| message.contains(words)))
    };
    if any_code(CONTENT_CODES) || any_words(CONTENT_WORDS) {
        return Some(Refusal::ContentPolicy);
    }
    // A field of its own that is too long, as `user`.
    let field = any_code(&["string_above_max_length"]) || message.contains("invalid 'user'");
    let long = status == StatusCode::PAYLOAD_TOO_LARGE
        || any_code(CONTEXT_CODES)
        || (any_words(CONTEXT_WORDS) && !field);
    long.then_some(Refusal::ContextWindow)
}

/// `code` and `type` of an error, and of Azure's inner one.
fn codes(object: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Body {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        code: Option<serde_json::Value>,
        r#type: Option<serde_json::Value>,
        innererror: Option<Box<Error>>,
    }
    let Ok(body) = serde_json::from_slice::<Body>(object) else {
        return Vec::new();
    };
    let outer = [body.error.code, body.error.r#type];
    let inner = body.error.innererror.and_then(|inner| inner.code);
    let all = outer.into_iter().chain([inner]).flatten();
    all.filter_map(|code| Some(code.as_str()?.to_ascii_lowercase()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, message: &str, object: &str) -> Option<Refusal> {
        let object = (!object.is_empty()).then_some(object.as_bytes());
        refusal(StatusCode::from_u16(status).unwrap(), message, object)
    }

    #[test]
    fn requests_that_are_too_long_are_known_by_code_or_words() {
        for (status, message, object) in [
            (400, "no", r#"{"error":{"code":"context_length_exceeded"}}"#),
            (413, "Request Entity Too Large", ""),
            (
                400,
                "This model's maximum context length is 4097 tokens. However, you requested 5000",
                r#"{"error":{"code":400}}"#,
            ),
            (
                400,
                "prompt is too long: 200001 tokens > 200000 maximum",
                "",
            ),
            (
                400,
                "The input token count (2) exceeds the maximum number of tokens allowed (1).",
                "",
            ),
            (
                422,
                "`inputs` tokens + `max_new_tokens` must be <= 4096",
                "",
            ),
            (400, "Current length is 9000 while limit is 8192", ""),
            (500, "the request exceeds the available context size", ""),
        ] {
            assert_eq!(
                of(status, message, object),
                Some(Refusal::ContextWindow),
                "{message}"
            );
        }
    }

    #[test]
    fn refused_content_is_known_by_code_or_words() {
        for (status, message, object) in [
            (400, "no", r#"{"error":{"code":"content_filter"}}"#),
            (
                400,
                "no",
                r#"{"error":{"code":null,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            ),
            (
                400,
                "Your request was rejected as a result of our safety system.",
                "",
            ),
            (400, "Output blocked by content filtering policy", ""),
            (
                403,
                "Your chosen model requires moderation and your input was flagged",
                "",
            ),
        ] {
            assert_eq!(
                of(status, message, object),
                Some(Refusal::ContentPolicy),
                "{message}"
            );
        }
    }

    #[test]
    fn other_errors_are_no_refusals() {
        for (status, message, object) in [
            (
                400,
                "Invalid value for 'n'",
                r#"{"error":{"code":"invalid_value"}}"#,
            ),
            (
                400,
                "Invalid 'user': string too long. Expected a string with maximum length 64",
                r#"{"error":{"code":"string_above_max_length"}}"#,
            ),
            (429, "too many tokens this minute", ""),
            (401, "context_length_exceeded", ""),
            (500, "oops", "{}"),
            (400, "", "nonsense"),
        ] {
            assert_eq!(of(status, message, object), None, "{message}");
        }
    }
}
