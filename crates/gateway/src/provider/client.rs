//! Sends requests to upstreams, with their keys and headers.

use std::{borrow::Cow, collections::HashSet, time::SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use reqwest::Url;
use secrecy::ExposeSecret;

use crate::{
    config::{KeyHeader, Upstream, Verify},
    provider::{
        anthropic,
        cause::{self, Cause},
        http::{Address, HttpClient, HttpError, Response},
        in_process::{InProcess, Upstreams},
    },
    request::payload::Payload,
};

/// Azure's, and Anthropic's.
const API_KEY: HeaderName = HeaderName::from_static("api-key");
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Makes ring the process's TLS provider, unless there is one. Idempotent.
pub fn install_crypto() {
    // An error only says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The clients of all deployments, by how they verify certificates. There are few: a search does not hash their CAs.
#[derive(Debug)]
pub(crate) struct Clients(Vec<(Verify, HttpClient)>, Upstreams);

impl Clients {
    /// So many idle connections of each host are kept.
    pub(crate) fn new(idle_per_host: usize, all: impl IntoIterator<Item = Verify>) -> Self {
        install_crypto();
        let client = |verify: &Verify| HttpClient::new(idle_per_host.max(1), verify);
        let all: HashSet<Verify> = all.into_iter().collect();
        let clients = all.into_iter().map(|verify| (client(&verify), verify));
        Self(
            clients.map(|(client, verify)| (verify, client)).collect(),
            Upstreams::default(),
        )
    }

    /// With upstreams in this process.
    pub(crate) fn and(self, upstreams: Upstreams) -> Self {
        Self(self.0, upstreams)
    }
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
    pub(crate) const NO_URL: Self = Self::of(Cause::Other);

    /// A key that cannot be used.
    const KEY: Self = Self::of(Cause::Key);

    const fn of(cause: Cause) -> Self {
        Self {
            unsent: true,
            cause,
            detail: None,
        }
    }
}

/// A key as a header has it.
#[derive(Debug, Clone)]
pub(crate) enum Key {
    /// There is none, or it is not known before the call.
    None,
    Header(HeaderName, HeaderValue),
    /// It cannot stand in a header.
    Unsendable,
}

impl Key {
    pub(crate) fn of(upstream: &Upstream, header: KeyHeader) -> Self {
        match &upstream.api_key {
            Some(key) if upstream.tokens.is_none() => Self::sent(header, key.expose_secret()),
            _ => Self::None,
        }
    }

    fn sent(header: KeyHeader, key: &str) -> Self {
        let (name, value) = match header {
            KeyHeader::Bearer => (
                header::AUTHORIZATION,
                HeaderValue::from_str(&format!("Bearer {key}")),
            ),
            KeyHeader::ApiKey => (API_KEY, HeaderValue::from_str(key)),
            KeyHeader::XApiKey => (X_API_KEY, HeaderValue::from_str(key)),
        };
        let Ok(mut value) = value else {
            return Self::Unsendable;
        };
        value.set_sensitive(true);
        Self::Header(name, value)
    }
}

/// Where a request goes, and how.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) upstream: &'a Upstream,
    pub(crate) address: &'a Address,
    pub(crate) key: &'a Key,
    pub(crate) key_header: KeyHeader,
}

/// Sends a request with these headers and the upstream's own, and waits for the answer's head.
pub(crate) async fn send(
    clients: &Clients,
    method: Method,
    to: Target<'_>,
    mut headers: HeaderMap,
    payload: &Payload,
) -> Result<Response, NoAnswer> {
    let (upstream, mut address) = (to.upstream, Cow::Borrowed(to.address));
    if let Some(content_type) = payload.content_type() {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    let no_token = |error| NoAnswer {
        unsent: true,
        cause: Cause::Token,
        detail: Some(error),
    };
    let mut key = Cow::Borrowed(to.key);
    if let Some(tokens) = &upstream.tokens {
        let token = Box::pin(tokens.token()).await.map_err(no_token)?;
        key = Cow::Owned(Key::sent(to.key_header, token.expose_secret()));
        let completed = Box::pin(tokens.completed(address.url().clone()));
        let completed = completed.await.map_err(no_token)?;
        if completed != *address.url() {
            address = Cow::Owned(Address::of(completed));
        }
    }
    match &*key {
        Key::None => {}
        Key::Header(name, value) => drop(headers.insert(name.clone(), value.clone())),
        Key::Unsendable => return Err(NoAnswer::KEY),
    }
    if let Some(host) = address.own_host() {
        headers.insert(header::HOST, host.clone());
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
            address.url().as_str(),
            &bytes,
            &mut headers,
            SystemTime::now(),
        );
        signed.ok_or(NoAnswer::KEY)?;
    }
    if let Some(own) = clients.1.at(&upstream.api_base) {
        // Rare, and its future is large.
        return Box::pin(answer_of(own, method, address.url(), headers, payload)).await;
    }
    let mut all = clients.0.iter();
    let Some((_, client)) = all.find(|(verify, _)| *verify == upstream.verify) else {
        // Every upstream of the configuration has its clients.
        return Err(NoAnswer::NO_URL);
    };
    let sent = client.send(method, &address, headers, payload).await;
    sent.map_err(no_answer)
}

/// An upstream in this process gets the request.
async fn answer_of(
    upstream: &InProcess,
    method: Method,
    url: &Url,
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
pub(crate) fn no_answer(error: HttpError) -> NoAnswer {
    let below = cause::chain(&error).skip(1);
    let words: Vec<String> = below.map(ToString::to_string).collect();
    NoAnswer {
        unsent: error.is_unsent(),
        cause: Cause::of(&error),
        detail: (!words.is_empty()).then(|| words.join(": ")),
    }
}
