//! The HTTP client for upstreams.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use reqwest::{Client, Response, Url, redirect};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use crate::{
    config::{KeyHeader, Upstream, Verify},
    provider::{
        anthropic,
        cause::{self, Cause},
        connect::{self, NoteConnections},
        hosts,
        in_process::{InProcess, Upstreams},
    },
    request::payload::Payload,
};

/// Azure's, and Anthropic's.
const API_KEY: HeaderName = HeaderName::from_static("api-key");
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes ring the process's TLS provider, unless there is one. Idempotent.
pub fn install_crypto() {
    // An error only says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The clients of all deployments, by how they verify certificates. There are few: a search does not hash their CAs.
#[derive(Debug)]
pub(crate) struct Clients(Vec<(Verify, Pair)>, Upstreams);

/// Two clients: each keeps connections by host.
#[derive(Debug)]
struct Pair {
    /// It keeps connections for the next call.
    pooled: Client,
    /// Each call has a new connection.
    fresh: Client,
}

impl Clients {
    /// So many idle connections of each host are kept.
    pub(crate) fn new(idle_per_host: usize, all: impl IntoIterator<Item = Verify>) -> Self {
        install_crypto();
        let pair = |verify: &Verify| Pair {
            pooled: client(idle_per_host.max(1), verify),
            fresh: client(0, verify),
        };
        let all: HashSet<Verify> = all.into_iter().collect();
        let pairs = all.into_iter().map(|verify| (pair(&verify), verify));
        Self(
            pairs.map(|(pair, verify)| (verify, pair)).collect(),
            Upstreams::default(),
        )
    }

    /// With upstreams in this process.
    pub(crate) fn and(self, upstreams: Upstreams) -> Self {
        Self(self.0, upstreams)
    }
}

fn client(idle_per_host: usize, verify: &Verify) -> Client {
    let builder = || {
        let builder = match verify {
            Verify::System => Client::builder(),
            Verify::Nothing => Client::builder().tls_danger_accept_invalid_certs(true),
            // The configuration has read them.
            Verify::Only(pem) => {
                let only = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
                Client::builder().tls_certs_only(only.unwrap_or_default())
            }
        };
        builder
            .user_agent(concat!("vorrang/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .connector_layer(NoteConnections)
            .dns_resolver(hosts::Resolver)
            .pool_max_idle_per_host(idle_per_host)
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
    /// Certainly no byte of the request was sent.
    pub(crate) unsent: bool,
    pub(crate) cause: Cause,
    /// For the log: the errors below, without the URL.
    pub(crate) detail: Option<String>,
}

impl NoAnswer {
    /// The model's name, or the address, makes no URL.
    pub(crate) const NO_URL: Self = Self {
        unsent: true,
        cause: Cause::Other,
        detail: None,
    };
}

/// An idle connection that the upstream closes while a request is on its way fails within a round trip. What takes longer was a call.
const IDLE_RACE: Duration = Duration::from_millis(250);

/// Sends a request with these headers and the upstream's own, and waits for the answer's head.
///
/// Where a connection that had been used before ends at once without an answer, the upstream had closed it as idle: the request is
/// sent once more, on a new one. This does not count as another attempt.
pub(crate) async fn send(
    clients: &Clients,
    method: Method,
    mut url: Url,
    upstream: &Upstream,
    key_header: KeyHeader,
    mut headers: HeaderMap,
    payload: &Payload,
) -> Result<Response, NoAnswer> {
    if let Some(content_type) = payload.content_type() {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    let no_token = |error| NoAnswer {
        unsent: true,
        cause: Cause::Token,
        detail: Some(error),
    };
    let token = match &upstream.tokens {
        Some(tokens) => {
            let token = Box::pin(tokens.token()).await.map_err(no_token)?;
            url = Box::pin(tokens.completed(url)).await.map_err(no_token)?;
            Some(token)
        }
        None => None,
    };
    if let Some(key) = token.as_ref().or(upstream.api_key.as_ref()) {
        let key = key.expose_secret();
        let (name, value) = match key_header {
            KeyHeader::Bearer => (
                header::AUTHORIZATION,
                HeaderValue::from_str(&format!("Bearer {key}")),
            ),
            KeyHeader::ApiKey => (API_KEY, HeaderValue::from_str(key)),
            KeyHeader::XApiKey => (X_API_KEY, HeaderValue::from_str(key)),
        };
        let mut value = value.map_err(|_| NoAnswer {
            unsent: true,
            cause: Cause::Key,
            detail: None,
        })?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    if let Some(host) = hosts::header(&url) {
        headers.insert(header::HOST, host);
    }
    // They come last: a file may name an authorization of its own.
    for (name, value) in &upstream.headers {
        anthropic::merge(&mut headers, name, value);
    }
    if let Some(keys) = &upstream.aws {
        let bytes = payload.bytes();
        let credentials = Box::pin(keys.credentials()).await.map_err(no_token)?;
        let signed = keys.sign(
            credentials,
            url.as_str(),
            &bytes,
            &mut headers,
            SystemTime::now(),
        );
        signed.ok_or(NoAnswer {
            unsent: true,
            cause: Cause::Key,
            detail: None,
        })?;
    }
    if let Some(own) = clients.1.at(&upstream.api_base) {
        // Rare, and its future is large.
        return Box::pin(answer_of(own, method, url, headers, payload)).await;
    }
    let request = |client: &Client| {
        let request = client.request(method.clone(), url.clone());
        let request = request.headers(headers.clone());
        match payload.body() {
            Some(body) => request.body(body).send(),
            None => request.send(),
        }
    };
    let mut all = clients.0.iter();
    let Some((_, clients)) = all.find(|(verify, _)| *verify == upstream.verify) else {
        // Every upstream of the configuration has its clients.
        return Err(NoAnswer {
            unsent: true,
            cause: Cause::Other,
            detail: None,
        });
    };
    let started = Instant::now();
    let (result, connected) = connect::noted(request(&clients.pooled)).await;
    let result = match result {
        Err(error)
            if !connected
                && started.elapsed() < IDLE_RACE
                && cause::closed_without_answer(&error) =>
        {
            tracing::debug!("an idle connection to the upstream was closed; a new one is made");
            request(&clients.fresh).await
        }
        result => result,
    };
    result.map_err(no_answer)
}

/// An upstream in this process gets the request.
async fn answer_of(
    upstream: &InProcess,
    method: Method,
    url: Url,
    headers: HeaderMap,
    payload: &Payload,
) -> Result<Response, NoAnswer> {
    let failed = |error: &dyn std::fmt::Display| NoAnswer {
        unsent: true,
        cause: Cause::Other,
        detail: Some(error.to_string()),
    };
    let request = http::Request::builder().method(method).uri(url.as_str());
    let request = request.body(payload.bytes());
    let mut request = request.map_err(|error| failed(&error))?;
    *request.headers_mut() = headers;
    let answer = upstream.answer(request).await;
    answer.map_err(|error| failed(&error))
}

/// What a failed call means.
pub(crate) fn no_answer(error: reqwest::Error) -> NoAnswer {
    let cause = Cause::of(&error);
    let unsent = error.is_connect() || error.is_builder();
    let error = error.without_url();
    let below = cause::chain(&error).skip(1);
    let words: Vec<String> = below.map(ToString::to_string).collect();
    NoAnswer {
        unsent,
        cause,
        detail: (!words.is_empty()).then(|| words.join(": ")),
    }
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
        install_crypto();
        let client = client(IDLE, &Verify::System);
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
