//! New connections: name, TCP, TLS, and the protocol that both sides agree on.

use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{Connection as _, HttpConnector},
    rt::TokioIo,
};
use tokio::{net::TcpStream, time::timeout};
use tower_service::Service as _;

use super::{error::HttpError, http1::Http1, http2::Http2, tls};
use crate::{config::Verify, provider::hosts};

/// With TLS or without.
pub(super) type Io = MaybeHttpsStream<TokioIo<TcpStream>>;

pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(30);

/// A dead peer is known after three more probes, or when sent bytes are not acknowledged for so long.
const PROBE_EVERY: Duration = Duration::from_secs(15);
const PROBES: u32 = 3;
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector(HttpsConnector<HttpConnector<hosts::Resolver>>);

/// A new connection.
pub(super) enum Connected {
    One(Http1),
    Shared(Http2),
}

impl Connector {
    pub(super) fn new(verify: &Verify) -> Self {
        let mut http = HttpConnector::new_with_resolver(hosts::Resolver);
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        http.set_keepalive(Some(KEEPALIVE));
        http.set_keepalive_interval(Some(PROBE_EVERY));
        http.set_keepalive_retries(Some(PROBES));
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        http.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        Self((http, tls::config(verify)).into())
    }

    pub(super) async fn connect(&self, to: Uri) -> Result<Connected, HttpError> {
        let mut connector = self.0.clone();
        let connecting = async {
            let io = connector.call(to).await.map_err(HttpError::Connect)?;
            let failed = |error: hyper::Error| HttpError::Connect(error.into());
            if io.connected().is_negotiated_h2() {
                Http2::new(io).await.map(Connected::Shared).map_err(failed)
            } else {
                Http1::new(io).await.map(Connected::One).map_err(failed)
            }
        };
        let connected = timeout(CONNECT_TIMEOUT, connecting).await;
        connected.unwrap_or(Err(HttpError::ConnectTimeout))
    }
}
