//! The client of the admin API: what `vorrang queue` and `vorrang top` speak with an instance by.

use std::time::Duration;

use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use thiserror::Error;

/// How long an instance may take to answer. It asks others of the fleet, which have less time than that.
const PATIENCE: Duration = Duration::from_secs(10);

/// All that may not be in one segment of a path as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Which instance to ask, and by which key.
#[derive(Debug, Args)]
pub struct RemoteOptions {
    /// Any instance of the fleet; its admin port answers as well
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:4000"
    )]
    pub url: String,
    /// The master key, or a key with `admin: true`
    #[arg(long, global = true, value_name = "KEY", env = "VORRANG_KEY", hide_env_values = true, value_parser = secret)]
    pub key: Option<SecretString>,
}

fn secret(value: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(value.into())
}

/// An instance of the fleet, seen from outside.
#[derive(Debug)]
pub struct Remote {
    url: String,
    key: Option<SecretString>,
    http: reqwest::Client,
}

/// Why an instance gave no answer that could be used.
#[derive(Debug, Error)]
pub enum RemoteError {
    /// Nothing answers there, or not in time.
    #[error("{url} does not answer: {why}")]
    Unreachable {
        /// The instance's URL.
        url: String,
        /// What the connection says.
        why: String,
    },
    /// It refused, in its own words.
    #[error("{message} (HTTP {status})")]
    Refused {
        /// The answer's status.
        status: u16,
        /// The message of the error object.
        message: String,
    },
    /// What answers there is no Vorrang.
    #[error("{url} answered something other than JSON; is it a vorrang with an admin API?")]
    NotJson {
        /// The instance's URL.
        url: String,
    },
}

// === impl Remote ===

impl Remote {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(options: &RemoteOptions) -> anyhow::Result<Self> {
        // An error means another one is installed; it serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = options.url.trim_end_matches('/').to_owned();
        let key = options.key.clone();
        let http = reqwest::Client::builder().timeout(PATIENCE).build()?;
        Ok(Self { url, key, http })
    }

    /// Where it asks.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `GET path`; the path begins with a slash and may have a query.
    ///
    /// # Errors
    /// No usable answer came.
    pub async fn get(&self, path: &str) -> Result<Value, RemoteError> {
        self.send(self.http.get(self.at(path))).await
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// No usable answer came, or it refuses.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, RemoteError> {
        let request = self.http.post(self.at(path));
        let request = request.header(http::header::CONTENT_TYPE, "application/json");
        self.send(request.body(body.to_string())).await
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, RemoteError> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key.expose_secret()),
            None => request,
        };
        let lost = |error: reqwest::Error| RemoteError::Unreachable {
            url: self.url.clone(),
            why: innermost(&error),
        };
        let answer = request.send().await.map_err(lost)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(lost)?;
        let body: Option<Value> = serde_json::from_slice(&body).ok();
        if status.is_success() {
            let url = self.url.clone();
            return body.ok_or(RemoteError::NotJson { url });
        }
        let message = body
            .as_ref()
            .and_then(|body| body["error"]["message"].as_str());
        let message = message.unwrap_or("the answer has no message");
        Err(RemoteError::Refused {
            status: status.as_u16(),
            message: message.into(),
        })
    }
}

/// The cause that says most: reqwest's own words name only the URL.
fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", PATIENCE.as_secs());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// One segment of a path: a group's name may have slashes, and anything else.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_encodes_all_that_a_path_would_read() {
        assert_eq!(segment("a/b?c#d e%ü"), "a%2Fb%3Fc%23d%20e%25%C3%BC");
        assert_eq!(segment("gpt-4o_mini.v1~x"), "gpt-4o_mini.v1~x");
    }
}
