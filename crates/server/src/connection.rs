//! One client connection: HTTP/1 or HTTP/2, by its first bytes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{net::TcpStream, time::sleep};
use tower::ServiceExt as _;

use crate::lifecycle::Lifecycle;

/// Often enough to notice within a minute that a client's machine is gone, which no FIN tells.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// How connections are served. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connections {
    builder: Arc<auto::Builder<TokioExecutor>>,
    head_timeout: Duration,
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
            head_timeout,
            routes,
            lifecycle,
        }
    }

    /// Serves until the client is done, is gone, or the shutdown is over.
    pub(crate) async fn serve(self, stream: TcpStream) {
        // Small answers and stream chunks go out at once.
        drop(stream.set_nodelay(true));
        let probes = socket2::TcpKeepalive::new()
            .with_time(KEEP_ALIVE)
            .with_interval(KEEP_ALIVE / 4);
        drop(socket2::SockRef::from(&stream).set_tcp_keepalive(&probes));

        let begun = AtomicBool::new(false);
        let begun = Arc::new(begun);
        let routes = self.routes;
        let service = service_fn({
            let begun = begun.clone();
            move |request: Request<Incoming>| {
                begun.store(true, Ordering::Relaxed);
                routes.clone().oneshot(request.map(Body::new))
            }
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        // hyper's own timer starts when the version is known, which a silent client never lets happen.
        let mut first_head = std::pin::pin!(sleep(self.head_timeout));
        let (mut watched, mut stopping) = (true, false);
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
                () = &mut first_head, if watched => {
                    if !begun.load(Ordering::Relaxed) {
                        return;
                    }
                    watched = false;
                }
                () = self.lifecycle.abort.cancelled() => return,
            }
        }
    }
}
