//! Headers of clients that upstreams get where the file asks for it: those that LiteLLM passes on, and no credential.

use http::{HeaderMap, HeaderName};

/// What names of credentials hold.
const SECRETIVE: [&str; 8] = [
    "auth",
    "cookie",
    "credential",
    "key",
    "password",
    "secret",
    "signature",
    "token",
];

/// The gateway's and LiteLLM's own, and what makes OpenAI's SDK behind another gateway fail.
const OWN: [&str; 3] = ["x-stainless", "x-litellm-", "x-vorrang-"];

/// What of a client's headers an upstream gets.
pub(crate) fn of_client(headers: &HeaderMap) -> HeaderMap {
    let passed = headers.iter().filter(|(name, _)| is_passed(name));
    passed
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn is_passed(name: &HeaderName) -> bool {
    let name = name.as_str();
    let asked = name.starts_with("x-") || name.starts_with("anthropic-beta");
    let own = OWN.iter().any(|own| name.starts_with(own));
    let secretive = SECRETIVE.iter().any(|part| name.contains(part));
    asked && !own && !secretive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_x_headers_are_passed() {
        for (name, passed) in [
            ("x-trace", true),
            ("x-request-id", true),
            ("anthropic-beta", true),
            ("x-api-key", false),
            ("x-goog-api-key", false),
            ("x-auth-user", false),
            ("x-amz-security-token", false),
            ("x-litellm-api-key", false),
            ("x-litellm-timeout", false),
            ("x-vorrang-priority", false),
            ("x-stainless-lang", false),
            ("authorization", false),
            ("cookie", false),
            ("content-type", false),
            ("user-agent", false),
        ] {
            assert_eq!(is_passed(&HeaderName::from_static(name)), passed, "{name}");
        }
    }
}
