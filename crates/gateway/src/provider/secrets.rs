//! What must not be shown of a deployment: its key, and the user and password of its URL.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::{
    config::{Target, Upstream},
    problem::Problem,
    provider::aws::Keys,
};

/// Shorter secrets would be found in ordinary words.
const SHORTEST: usize = 4;

/// What names of headers with credentials hold. Other values would be found in ordinary words, too.
const SECRETIVE: &[&str] = &[
    "auth",
    "key",
    "token",
    "secret",
    "password",
    "cookie",
    "organization",
];

/// How values of other headers begin that are credentials all the same.
const BEGINNINGS: &[&str] = &["sk-", "Bearer ", "Basic "];

const MASK: &str = "***";

/// Takes a deployment's secrets out of what its upstream says: some servers repeat the key that they refuse.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets(Vec<SecretString>);

impl Secrets {
    /// Those of a deployment, in the forms in which they are sent.
    pub(crate) fn of(upstream: &Upstream) -> Self {
        let key = upstream
            .api_key
            .iter()
            .map(|key| key.expose_secret().to_owned());
        let headers = upstream.headers.iter().filter_map(|(name, value)| {
            let value = value.to_str().ok()?;
            let secretive = SECRETIVE.iter().any(|part| name.as_str().contains(part));
            let begins = |beginning: &&str| value.starts_with(*beginning);
            let scheme = ["Bearer ", "Basic "].into_iter();
            let mut credential = scheme.filter_map(|scheme| value.strip_prefix(scheme));
            let credential = credential.next().unwrap_or(value).to_owned();
            (secretive || BEGINNINGS.iter().any(begins)).then_some(credential)
        });
        let aws = upstream.aws.iter().flat_map(|aws| match &aws.keys {
            Keys::Own {
                secret,
                session_token,
                ..
            } => {
                let secrets = session_token.iter().chain([secret]);
                secrets
                    .map(|secret| secret.expose_secret().to_owned())
                    .collect()
            }
            // They change, and are sent as a signature only.
            Keys::Found(_) => Vec::new(),
        });
        let url = Url::parse(&upstream.api_base).ok();
        let password = url
            .iter()
            .flat_map(|url| [Some(url.username()), url.password()])
            .flatten()
            .map(str::to_owned);
        let basic = url.iter().filter_map(basic_credentials);
        Self::new(key.chain(headers).chain(aws).chain(password).chain(basic))
    }

    /// Longer than a few characters; others would be found in ordinary words.
    pub(crate) fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut all: Vec<String> = secrets.into_iter().collect();
        // A URL holds them percent-encoded, and so do servers that repeat the URL; as credentials they are decoded.
        let decoded: Vec<String> = all.iter().map(|secret| percent_decoded(secret)).collect();
        all.extend(decoded);
        all.retain(|secret| secret.len() >= SHORTEST);
        // The longest first: a secret may be a part of another.
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        all.dedup();
        Self(all.into_iter().map(SecretString::from).collect())
    }

    /// Those of a target.
    pub(crate) fn of_target(target: &Target) -> Self {
        match target {
            Target::Upstream(upstream) => Self::of(upstream),
            Target::Mock { .. } => Self::default(),
        }
    }

    /// Takes them out of the upstream's own words in a problem.
    pub(crate) fn mask_problem(&self, problem: &mut Problem) {
        if let Problem::Upstream { message, body, .. } = problem {
            if let Some(masked) = self.masked(message) {
                *message = masked;
            }
            *body = body.take().map(|body| self.without(body));
        }
    }

    /// A text without them; `None` where it holds none.
    fn masked(&self, text: &str) -> Option<String> {
        let found = self.0.iter().map(ExposeSecret::expose_secret);
        let found: Vec<&str> = found.filter(|secret| text.contains(secret)).collect();
        let mask = |text: String, secret: &&str| text.replace(*secret, MASK);
        (!found.is_empty()).then(|| found.iter().fold(text.to_owned(), mask))
    }

    /// A text without them.
    pub(crate) fn mask(&self, text: &str) -> String {
        self.masked(text).unwrap_or_else(|| text.to_owned())
    }

    /// The text without a part of one of them at its end, where a body was cut off.
    pub(crate) fn without_cut_off<'t>(&self, text: &'t str) -> &'t str {
        // A character cut in two is no part of a secret, and stands behind it.
        let text = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        let secrets = self.0.iter().map(ExposeSecret::expose_secret);
        let parts = secrets.flat_map(|secret| {
            let lengths = (SHORTEST..secret.len()).rev();
            lengths.filter_map(|length| secret.get(..length))
        });
        let found = parts.filter_map(|part| text.strip_suffix(part));
        // The longest part that stands there.
        found.min_by_key(|rest| rest.len()).unwrap_or(text)
    }

    /// A body without them, also where JSON or a URL in it writes them otherwise. A body that is not UTF-8 and holds a secret is dropped.
    fn without(&self, body: Bytes) -> Bytes {
        if self.0.is_empty() {
            return body;
        }
        let Ok(text) = std::str::from_utf8(&body) else {
            let lossy = String::from_utf8_lossy(&body);
            return match self.masked(&lossy) {
                Some(_) => Bytes::new(),
                None => body,
            };
        };
        // Escapes hide a secret from a search in the text: it is looked for in the strings as well.
        if text.contains('\\')
            && let Ok(mut value) = serde_json::from_str::<Value>(text)
            && self.mask_value(&mut value)
        {
            return Bytes::from(value.to_string());
        }
        match self.masked(text) {
            Some(masked) => masked.into(),
            None => body,
        }
    }

    /// Takes them out of headers.
    pub(crate) fn mask_headers(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            let text = String::from_utf8_lossy(value.as_bytes());
            if self.masked(&text).is_some() {
                *value = HeaderValue::from_static(MASK);
            }
        }
    }

    /// Takes them out of decoded texts, so that no escape hides them. Returns whether there was any.
    pub(crate) fn mask_value(&self, value: &mut Value) -> bool {
        match value {
            Value::String(text) => match self.masked(text) {
                Some(masked) => {
                    *text = masked;
                    true
                }
                None => false,
            },
            Value::Array(items) => {
                let mut found = false;
                for item in items {
                    found |= self.mask_value(item);
                }
                found
            }
            Value::Object(fields) => {
                let mut found = false;
                for value in fields.values_mut() {
                    found |= self.mask_value(value);
                }
                if fields.keys().any(|name| self.masked(name).is_some()) {
                    let named = std::mem::take(fields).into_iter();
                    *fields = named
                        .map(|(name, value)| (self.masked(&name).unwrap_or(name), value))
                        .collect();
                    found = true;
                }
                found
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
}

/// A URL's user and password as they are sent: `Authorization: Basic` and this.
fn basic_credentials(url: &Url) -> Option<String> {
    let password = percent_decoded(url.password()?);
    Some(STANDARD.encode(format!("{}:{password}", percent_decoded(url.username()))))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 16).ok()
        });
        match (byte, digits) {
            (b'%', Some(decoded)) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(body: &str) -> String {
        let key = SecretString::from("sk-se/cret\"1");
        let secrets = Secrets::of(&Upstream::new("https://bob%40x:pa%2Fss@host/v1", Some(key)));
        let masked = secrets.without(Bytes::from(body.to_owned()));
        String::from_utf8(masked.to_vec()).unwrap()
    }

    #[test]
    fn secrets_are_masked_in_plain_json_escaped_and_url_encoded_form() {
        for (body, masked) in [
            ("key sk-se/cret\"1.", "key ***."),
            (
                r#"{"error":{"message":"bad sk-se\/cret\"1!"}}"#,
                r#"{"error":{"message":"bad ***!"}}"#,
            ),
            (
                r#"{"error":"\u0073k-se\u002Fcret\u00221"}"#,
                r#"{"error":"***"}"#,
            ),
            (r#"{"a":[{"sk-se/cret\"1":0}]}"#, r#"{"a":[{"***":0}]}"#),
            ("at https://bob%40x:pa%2Fss@host", "at https://***:***@host"),
            ("user bob@x, password pa/ss", "user ***, password ***"),
            ("got Basic Ym9iQHg6cGEvc3M=", "got Basic ***"),
        ] {
            assert_eq!(without(body), masked, "{body}");
        }
        for body in ["", "nothing", r#"{ "error" : "\n", "n": 1.50 }"#] {
            assert_eq!(without(body), body, "what holds none passes as it is");
        }
    }

    #[test]
    fn answer_header_that_contains_a_secret_is_masked() {
        let key = SecretString::from("sk-secret");
        let secrets = Secrets::of(&Upstream::new("https://host", Some(key)));
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_static("for sk-secret"));
        headers.insert("openai-model", HeaderValue::from_static("gpt"));
        secrets.mask_headers(&mut headers);
        assert_eq!(headers["x-request-id"], "***");
        assert_eq!(headers["openai-model"], "gpt");
    }

    #[test]
    fn credential_from_configured_headers_is_masked_and_other_header_values_are_not() {
        let mut upstream = Upstream::new("https://host", None);
        for (name, value) in [
            ("authorization", "Bearer tok-1"),
            ("openai-organization", "org-2"),
            ("x-project", "sk-proj-3"),
            ("x-proxy", "Basic Zm9v"),
            ("x-title", "Words"),
        ] {
            upstream
                .headers
                .insert(name, HeaderValue::from_static(value));
        }
        let said = b"tok-1: no Words of org-2, sk-proj-3, Zm9v";
        let masked = Secrets::of(&upstream).without(Bytes::from_static(said));
        assert_eq!(masked, "***: no Words of ***, ***, ***");
    }

    #[test]
    fn non_utf8_body_that_contains_a_secret_is_dropped() {
        let key = SecretString::from("sk-secret");
        let secrets = Secrets::of(&Upstream::new("https://host", Some(key)));
        assert_eq!(secrets.without(Bytes::from_static(b"\xff sk-secret")), "");
        assert_eq!(secrets.without(Bytes::from_static(b"\xff")), &b"\xff"[..]);
    }
}
