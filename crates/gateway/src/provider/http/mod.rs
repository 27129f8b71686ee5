//! The HTTP client of upstream calls. The protocols are hyper's and the connections are pooled here: a call drives its own connection,
//! which costs a third of what a general client does.
//!
//! No redirect is followed: a redirected POST would carry the key to wherever the answer points.

mod address;
mod answer;
mod connect;
mod error;
mod http1;
mod http2;
mod noted;
mod pool;
mod proxied;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method, Request, header};
use hyper::client::conn::TrySendError;
use hyper_util::client::proxy::matcher::Matcher;
use tokio::time::Instant;

pub(crate) use address::Address;
pub(crate) use answer::{AnswerBytes, Response};
pub(crate) use error::HttpError;

use self::{
    address::Wire,
    connect::{Connected, Connector},
    http1::Http1,
    http2::Http2,
    pool::{Pool, Server},
    proxied::Proxied,
};
use crate::{
    config::Verify,
    provider::cause,
    request::payload::{Payload, PayloadBody},
};

const USER_AGENT: &str = concat!("vorrang/", env!("CARGO_PKG_VERSION"));
const ANYTHING: HeaderValue = HeaderValue::from_static("*/*");

/// An idle connection that the upstream closes while a request is on its way fails within a round trip. What takes longer was a call.
const IDLE_RACE: Duration = Duration::from_millis(250);

/// How often a request is sent again that an HTTP/2 server refused unread.
const MOST_REFUSED: u32 = 2;

/// Calls servers whose certificates are verified in one way.
pub(crate) struct HttpClient {
    connector: Connector,
    pool: Pool,
    /// Those of the environment.
    proxies: Matcher,
    /// `None`: it cannot be made.
    proxied: OnceLock<Option<Proxied>>,
    verify: Verify,
    most_idle: usize,
}

/// A connection for one request.
enum Connection {
    /// It has served another request before.
    Used(Http1),
    New(Http1),
    UsedShared(Http2),
    NewShared(Http2),
}

impl Connection {
    fn is_used(&self) -> bool {
        matches!(self, Self::Used(_) | Self::UsedShared(_))
    }
}

impl HttpClient {
    /// So many idle connections of each server are kept.
    pub(crate) fn new(most_idle: usize, verify: &Verify) -> Self {
        Self {
            connector: Connector::new(verify),
            pool: Pool::new(most_idle),
            proxies: Matcher::from_system(),
            proxied: OnceLock::new(),
            verify: verify.clone(),
            most_idle,
        }
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// Where a connection that had been used before ends at once without an answer, the upstream had closed it as idle: the request is
    /// sent once more, on a new one. A request that was not written at all is always sent again.
    pub(crate) async fn send(
        &self,
        method: Method,
        address: &Address,
        mut headers: HeaderMap,
        payload: &Payload,
    ) -> Result<Response, HttpError> {
        let wire = address.wire().ok_or(HttpError::Unsendable)?;
        let server = self.pool.server(&wire.origin, || {
            wire.uri()
                .is_some_and(|uri| self.proxies.intercept(&uri).is_some())
        });
        if server.proxied {
            let url = address.url().clone();
            return Box::pin(self.proxied(method, url, headers, payload)).await;
        }
        complete(&mut headers, wire);
        let started = Instant::now();
        let (mut refused, mut fresh) = (0, false);
        loop {
            let known = if fresh { None } else { kept(&server) };
            let connection = match known {
                Some(connection) => connection,
                None => Box::pin(self.connect(&server, wire)).await?,
            };
            let used = connection.is_used();
            // One that other requests use too is not closed as idle.
            let idle = matches!(connection, Connection::Used(_));
            let mut request = Request::new(payload.body().unwrap_or_default());
            *request.method_mut() = method.clone();
            *request.uri_mut() = wire.target.clone();
            *request.headers_mut() = headers.clone();
            let mut failed = match sent(connection, request, &server, wire).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            let unwritten = failed.take_message().is_some();
            let error = HttpError::Connection(failed.into_error());
            let closed = || {
                idle && !fresh
                    && started.elapsed() < IDLE_RACE
                    && cause::closed_without_answer(&error)
            };
            if error.is_refused_stream() && refused < MOST_REFUSED {
                refused += 1;
            } else if used && (unwritten || closed()) {
                // Not written: the next connection may be another idle one.
                fresh = !unwritten;
                tracing::debug!(
                    "an idle connection to the upstream was closed; another one is used"
                );
            } else {
                return Err(error);
            }
        }
    }

    async fn connect(&self, server: &Arc<Server>, wire: &Wire) -> Result<Connection, HttpError> {
        let uri = wire.uri().ok_or(HttpError::Unsendable)?;
        Ok(match self.connector.connect(uri).await? {
            Connected::One(connection) => Connection::New(connection),
            Connected::Shared(connection) => match server.share(connection) {
                Ok(connection) => Connection::NewShared(connection),
                Err(other) => Connection::UsedShared(other),
            },
        })
    }

    async fn proxied(
        &self,
        method: Method,
        url: reqwest::Url,
        headers: HeaderMap,
        payload: &Payload,
    ) -> Result<Response, HttpError> {
        let made = self.proxied.get_or_init(|| {
            let made = Proxied::new(self.most_idle, &self.verify);
            made.inspect_err(|error| {
                tracing::error!(%error, "no calls through a proxy: is a package of root certificates installed?");
            })
            .ok()
        });
        let proxied = made.as_ref().ok_or(HttpError::Unsendable)?;
        proxied.send(method, url, headers, payload).await
    }
}

/// A connection that is there already.
fn kept(server: &Server) -> Option<Connection> {
    match server.take() {
        Some(connection) => Some(Connection::Used(connection)),
        None => server.shared().map(Connection::UsedShared),
    }
}

async fn sent(
    connection: Connection,
    mut request: Request<PayloadBody>,
    server: &Arc<Server>,
    wire: &Wire,
) -> Result<Response, TrySendError<Request<PayloadBody>>> {
    match connection {
        Connection::Used(connection) | Connection::New(connection) => {
            let answer = connection.send(request, server).await?;
            Ok(Response::new(answer, AnswerBytes::Http1))
        }
        Connection::UsedShared(connection) | Connection::NewShared(connection) => {
            if let Some(uri) = wire.uri() {
                *request.uri_mut() = uri;
            }
            // The address says it.
            if request.headers().get(header::HOST) == Some(&wire.host) {
                request.headers_mut().remove(header::HOST);
            }
            let answer = Box::pin(connection.send(request)).await?;
            Ok(Response::new(answer, AnswerBytes::Http2))
        }
    }
}

/// What each request carries, unless it says something else.
fn complete(headers: &mut HeaderMap, wire: &Wire) {
    headers
        .entry(header::HOST)
        .or_insert_with(|| wire.host.clone());
    let agent = || HeaderValue::from_static(USER_AGENT);
    headers.entry(header::USER_AGENT).or_insert_with(agent);
    headers.entry(header::ACCEPT).or_insert(ANYTHING);
    if let Some(authorization) = &wire.authorization {
        let entry = headers.entry(header::AUTHORIZATION);
        entry.or_insert_with(|| authorization.clone());
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}
