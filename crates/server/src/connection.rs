//! One client connection: HTTP/1 or HTTP/2, by its first bytes.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};
use tower::ServiceExt as _;

use crate::{held::Held, lifecycle::Lifecycle, places};

/// Often enough to notice within a minute that a client's machine is gone, which no FIN tells.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// What an HTTP/1 connection may keep in memory before a request's head is complete; HTTP/2 has the same bound by hyper's default.
const LONGEST_HEAD: usize = 16 * 1024;

/// How long a client that is told that its idle connection closes may take to agree, over HTTP/2.
const CLOSING: Duration = Duration::from_secs(2);

/// How connections are served. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connections {
    builder: Arc<auto::Builder<TokioExecutor>>,
    idle_timeout: Duration,
    routes: Router,
    lifecycle: Lifecycle,
}

impl Connections {
    /// `head_timeout`: for a request's head, and how long an idle connection is kept.
    pub(crate) fn new(routes: Router, head_timeout: Duration, lifecycle: Lifecycle) -> Self {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .max_buf_size(LONGEST_HEAD)
            .header_read_timeout(head_timeout);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            // Waiting requests are streams: a proxy in front puts many of them on one connection.
            .max_concurrent_streams(1000);
        Self {
            builder: Arc::new(builder),
            idle_timeout: head_timeout,
            routes,
            lifecycle,
        }
    }

    /// Serves until the client is done, is gone, sends no request for the idle time, has to make room, or the shutdown is over.
    pub(crate) async fn serve(self, stream: TcpStream, place: Arc<places::Connection>) {
        // Small answers and stream chunks go out at once.
        drop(stream.set_nodelay(true));
        let probes = socket2::TcpKeepalive::new()
            .with_time(KEEP_ALIVE)
            .with_interval(KEEP_ALIVE / 4);
        drop(socket2::SockRef::from(&stream).set_tcp_keepalive(&probes));

        let routes = self.routes;
        let service = service_fn({
            let place = place.clone();
            move |request: Request<Incoming>| {
                let exchange = place.begin();
                let answer = routes.clone().oneshot(request.map(Body::new));
                async move {
                    let answer = answer.await?;
                    Ok::<_, Infallible>(answer.map(|body| Held::new(body, exchange)))
                }
            }
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        // hyper's own timer begins when the version is known, which a silent client never lets happen, and ends with it for HTTP/2.
        let mut idle = std::pin::pin!(sleep_until(Instant::now() + self.idle_timeout));
        let close = place.close();
        let (mut stopping, mut closing) = (false, false);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                    return;
                }
                () = self.lifecycle.stopping.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = close.cancelled(), if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                    idle.as_mut().reset(Instant::now() + CLOSING);
                }
                () = idle.as_mut() => {
                    let since = place.idle_since();
                    if closing && since.is_some() {
                        return;
                    }
                    let until = since.unwrap_or_else(Instant::now) + self.idle_timeout;
                    if until <= Instant::now() {
                        closing = true;
                        connection.as_mut().graceful_shutdown();
                        idle.as_mut().reset(Instant::now() + CLOSING);
                    } else {
                        idle.as_mut().reset(until);
                    }
                }
                () = self.lifecycle.abort.cancelled() => return,
            }
        }
    }
}
