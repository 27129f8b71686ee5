//! Calls through a proxy of the environment (`HTTP_PROXY`, `HTTPS_PROXY`), which reqwest makes.

use http::{HeaderMap, Method};
use reqwest::{Client, redirect};
use tokio::time::Instant;

use super::{
    answer::Response,
    connect::{CONNECT_TIMEOUT, KEEPALIVE},
    error::HttpError,
    noted::{self, NoteConnections},
};
use crate::{
    config::Verify,
    provider::{cause, hosts},
    request::payload::Payload,
};

/// Two clients: each keeps connections by host.
#[derive(Debug)]
pub(super) struct Proxied {
    /// It keeps connections for the next call.
    pooled: Client,
    /// Each call has a new connection.
    fresh: Client,
}

impl Proxied {
    pub(super) fn new(most_idle: usize, verify: &Verify) -> Result<Self, reqwest::Error> {
        Ok(Self {
            pooled: client(most_idle, verify)?,
            fresh: client(0, verify)?,
        })
    }

    pub(super) async fn send(
        &self,
        method: Method,
        url: reqwest::Url,
        headers: HeaderMap,
        payload: &Payload,
    ) -> Result<Response, HttpError> {
        let request = |client: &Client| {
            let request = client.request(method.clone(), url.clone());
            let request = request.headers(headers.clone());
            match payload.body() {
                Some(body) => request.body(reqwest::Body::wrap(body)).send(),
                None => request.send(),
            }
        };
        let failed = |error: reqwest::Error| HttpError::Proxied(error.without_url());
        let started = Instant::now();
        let (result, connected) = noted::noted(request(&self.pooled)).await;
        let result = match result.map_err(failed) {
            Err(error)
                if !connected
                    && started.elapsed() < super::IDLE_RACE
                    && cause::closed_without_answer(&error) =>
            {
                request(&self.fresh).await.map_err(failed)
            }
            result => result,
        };
        result.map(|answer| http::Response::from(answer).into())
    }
}

fn client(most_idle: usize, verify: &Verify) -> Result<Client, reqwest::Error> {
    let builder = match verify {
        Verify::System => Client::builder(),
        Verify::Nothing => Client::builder().tls_danger_accept_invalid_certs(true),
        // The configuration has read them.
        Verify::Only(pem) => {
            let only = reqwest::Certificate::from_pem_bundle(pem.as_bytes())?;
            Client::builder().tls_certs_only(only)
        }
    };
    builder
        .user_agent(super::USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .connector_layer(NoteConnections)
        .dns_resolver(hosts::Resolver)
        .pool_max_idle_per_host(most_idle)
        .tcp_nodelay(true)
        .tcp_keepalive(KEEPALIVE)
        // A redirected POST would carry the key to wherever the answer points.
        .redirect(redirect::Policy::none())
        .build()
}
