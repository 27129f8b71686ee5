//! The HTTP client for OpenAI-compatible servers.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderValue, StatusCode, header};
use reqwest::{Client, Response, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::Instant;

use crate::Endpoint;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// More than any error object needs; a longer body is not passed on.
const LONGEST_ERROR: usize = 256 * 1024;

/// How long the rest of an error may take after its head: the status alone says enough.
const ERROR_PATIENCE: Duration = Duration::from_secs(5);

/// Makes ring the process's TLS provider, unless there is one. Idempotent.
pub fn install_crypto() {
    // An error only says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The one client of all deployments: it pools connections by host.
pub(crate) fn client() -> Client {
    install_crypto();
    let builder = || {
        Client::builder()
            .user_agent(concat!("vorrang/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            // A redirected POST would carry the key to wherever the answer points.
            .redirect(redirect::Policy::none())
    };
    builder().build().unwrap_or_else(|error| {
        // No root certificates in this system: plain HTTP and mocks work all the same, TLS fails call by call.
        tracing::error!(error = %error, "no TLS to upstreams: is a package of root certificates installed?");
        let plain = builder().tls_certs_only([]).build();
        plain.unwrap_or_default()
    })
}

/// Why there was no answer.
#[derive(Debug)]
pub(crate) struct NoAnswer {
    /// Certainly not a byte of the request went out.
    pub(crate) unsent: bool,
    /// For the client: no address, no key.
    pub(crate) message: &'static str,
}

/// Sends a request and waits for the answer's head.
pub(crate) async fn send(
    client: &Client,
    endpoint: Endpoint,
    api_base: &str,
    api_key: Option<&SecretString>,
    body: Bytes,
) -> Result<Response, NoAnswer> {
    let path = match endpoint {
        Endpoint::ChatCompletions => "chat/completions",
        Endpoint::Completions => "completions",
    };
    let mut request = client
        .post(format!("{api_base}/{path}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body);
    if let Some(key) = api_key {
        let value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()));
        let mut value = value.map_err(|_| NoAnswer {
            unsent: true,
            message: "The deployment's api_key cannot stand in a header",
        })?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    request.send().await.map_err(no_answer)
}

/// What a failed call means; its details go to the log, without the URL.
pub(crate) fn no_answer(error: reqwest::Error) -> NoAnswer {
    let (unsent, message) = if error.is_connect() || error.is_builder() {
        (true, "The upstream cannot be reached")
    } else {
        (false, "The upstream broke off before its answer")
    };
    let error = error.without_url();
    tracing::debug!(error = &error as &dyn std::error::Error, "{message}");
    NoAnswer { unsent, message }
}

/// An upstream's error: its JSON error object, or at least some words.
#[derive(Debug)]
pub(crate) struct ErrorBody {
    pub(crate) object: Option<Bytes>,
    pub(crate) message: String,
}

/// Reads the body of an answer that is no success, within bounds of size and time.
pub(crate) async fn read_error(
    response: Response,
    until: Instant,
    api_key: Option<&SecretString>,
) -> ErrorBody {
    let status = response.status();
    let mut bytes = BytesMut::new();
    let read = async {
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk.ok()?);
            if bytes.len() > LONGEST_ERROR {
                return None;
            }
        }
        Some(())
    };
    let whole = tokio::time::timeout_at(until.min(Instant::now() + ERROR_PATIENCE), read).await;
    let bytes = if matches!(whole, Ok(Some(()))) {
        bytes.freeze()
    } else {
        Bytes::new()
    };
    error_body(status, without_key(bytes, api_key))
}

/// Some servers repeat the key that they refuse.
fn without_key(bytes: Bytes, api_key: Option<&SecretString>) -> Bytes {
    match (
        api_key.map(ExposeSecret::expose_secret),
        std::str::from_utf8(&bytes),
    ) {
        (Some(key), Ok(text)) if key.len() >= 4 && text.contains(key) => {
            text.replace(key, "***").into()
        }
        _ => bytes,
    }
}

fn error_body(status: StatusCode, bytes: Bytes) -> ErrorBody {
    let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let said = ["error", "message", "detail"]
        .into_iter()
        .find_map(|key| value[key].as_str());
    let message = match said {
        Some(said) => said.to_owned(),
        None => format!("The upstream answered {}", status.as_u16()),
    };
    ErrorBody {
        object: value["error"].is_object().then_some(bytes),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_object_passes_and_anything_else_becomes_words() {
        let read = |text: &'static str| {
            error_body(StatusCode::BAD_GATEWAY, Bytes::from_static(text.as_bytes()))
        };
        let object = r#"{"error":{"message":"no","extra":1}}"#;
        assert_eq!(read(object).object.as_deref(), Some(object.as_bytes()));
        for (text, message) in [
            (r#"{"object":"error","message":"too long"}"#, "too long"),
            (r#"{"detail":"Not Found"}"#, "Not Found"),
            (r#"{"error":"busy"}"#, "busy"),
            ("<html>oops</html>", "The upstream answered 502"),
            ("[1]", "The upstream answered 502"),
            ("", "The upstream answered 502"),
        ] {
            let error = read(text);
            assert_eq!((error.object, error.message.as_str()), (None, message));
        }
    }

    #[test]
    fn an_error_that_repeats_the_key_loses_it() {
        let key = SecretString::from("sk-secret");
        let body =
            Bytes::from_static(b"{\"error\":{\"message\":\"Incorrect API key: sk-secret\"}}");
        assert_eq!(
            without_key(body, Some(&key)),
            "{\"error\":{\"message\":\"Incorrect API key: ***\"}}"
        );
    }
}
