//! The HTTP client for OpenAI-compatible servers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, header};
use reqwest::{Client, Response, redirect};
use secrecy::{ExposeSecret, SecretString};

use crate::Endpoint;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes ring the process's TLS provider, unless there is one. Idempotent.
pub fn install_crypto() {
    // An error only says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The one client of all deployments: it pools connections by host, and keeps so many idle ones of each.
pub(crate) fn client(idle_per_host: usize) -> Client {
    install_crypto();
    let builder = || {
        Client::builder()
            .user_agent(concat!("vorrang/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(idle_per_host.max(1))
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
    accept_encoding: HeaderValue,
    body: Bytes,
) -> Result<Response, NoAnswer> {
    let path = match endpoint {
        Endpoint::ChatCompletions => "chat/completions",
        Endpoint::Completions => "completions",
    };
    let mut request = client
        .post(format!("{api_base}/{path}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT_ENCODING, accept_encoding)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        sync::{Barrier, mpsc},
        time::timeout,
    };

    use super::*;

    #[tokio::test]
    async fn idle_connections_beyond_the_bound_are_closed() {
        const CALLS: usize = 4;
        const IDLE: usize = 1;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (closed, mut closings) = mpsc::unbounded_channel();
        let together = Arc::new(Barrier::new(CALLS));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (closed, together) = (closed.clone(), together.clone());
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    let _ = stream.read(&mut request).await.unwrap();
                    together.wait().await;
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(answer).await.unwrap();
                    let _ = stream.read(&mut request).await;
                    let _ = closed.send(());
                });
            }
        });
        let client = client(IDLE);
        let calls = (0..CALLS).map(|_| client.get(&url).send());
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(answer.unwrap().status(), reqwest::StatusCode::OK);
        }
        for _ in IDLE..CALLS {
            timeout(Duration::from_secs(10), closings.recv())
                .await
                .expect("a connection beyond the bound is closed");
        }
    }
}
