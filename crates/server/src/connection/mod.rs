//! One client connection: HTTP/1 or HTTP/2, by its first bytes, over TCP or TLS.

pub(crate) mod addresses;
mod budget;
mod client_io;
pub(crate) mod entry;
pub(crate) mod listener;
mod proxy_header;
mod rarely;
pub(crate) mod slots;
pub(crate) mod stall;
mod transport;
pub(crate) mod unread;

use std::{
    convert::Infallible,
    future::{Future as _, poll_fn},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use http::{Request, Version};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};

use crate::{
    api::front::Front,
    connection::{
        client_io::ClientIo,
        entry::{Accepted, Entry},
        stall::StreamExecutor,
        unread::Discard,
    },
    lifecycle::Lifecycle,
    stream::held::BodyWith,
};

/// Often enough to notice within a minute that a client's machine is down: it sends no FIN.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// What an HTTP/1 connection may keep in memory before a request's head is complete; HTTP/2 has the same bound by hyper's default.
const LONGEST_HEAD: usize = 16 * 1024;

/// The frame that says that an HTTP/2 connection ends: without an error, and after the highest stream there can be. hyper's own is followed
/// by a ping, which some clients take for an error.
const GOAWAY: &[u8] = &[
    0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0,
];

/// How long a client may take to agree after the notice that its idle connection closes, over HTTP/2.
const CLOSING: Duration = Duration::from_secs(2);

/// Extension of a request: where its connection comes from. IPv4 addresses are no IPv6 addresses here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// Who is at the other end of the socket.
    pub(crate) socket: IpAddr,
    /// The same, or whom a proxy names by the PROXY protocol.
    pub(crate) address: IpAddr,
}

/// What a request has of its connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    pub(crate) peer: Option<Peer>,
    pub(crate) discard: Discard,
}

/// What a connection is told while it is served.
enum Signal {
    /// No further request is taken.
    Stopping,
    /// Its slot is needed.
    Close,
    /// It may have been idle for too long.
    Idle,
    Abort,
}

/// How connections are served. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connections {
    builder: Arc<auto::Builder<StreamExecutor>>,
    idle_timeout: Duration,
    write_timeout: Duration,
    front: Front,
    entry: Arc<Entry>,
    lifecycle: Lifecycle,
}

impl Connections {
    /// `head_timeout`: for a request's head, and how long an idle connection is kept. `write_timeout`: a client that takes nothing of
    /// its answer for so long is cut off.
    pub(crate) fn new(
        front: Front,
        entry: Entry,
        head_timeout: Duration,
        write_timeout: Duration,
        lifecycle: Lifecycle,
    ) -> Self {
        let mut builder = auto::Builder::new(StreamExecutor::new(write_timeout));
        builder
            .http1()
            .max_buf_size(LONGEST_HEAD)
            // A connection without a request is idle, and ends after as long: hyper would set a timer for each request.
            .header_read_timeout(None);
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
            write_timeout,
            front,
            entry: Arc::new(entry),
            lifecycle,
        }
    }

    /// Whether a connection is to be served.
    fn admits(&self, from: SocketAddr) -> Option<Accepted> {
        self.entry.admits(from)
    }

    /// Serves until the client ends it, the client is lost, no request came for the idle time, the slot is needed, or the shutdown is over.
    async fn serve(
        self,
        stream: TcpStream,
        from: SocketAddr,
        accepted: Accepted,
        slot: Arc<slots::ConnectionSlot>,
    ) {
        // Small answers and stream chunks go out at once.
        drop(stream.set_nodelay(true));
        let probes = socket2::TcpKeepalive::new()
            .with_time(KEEP_ALIVE)
            .with_interval(KEEP_ALIVE / 4);
        drop(socket2::SockRef::from(&stream).set_tcp_keepalive(&probes));

        let close = slot.close();
        let entered = tokio::select! {
            entered = self.entry.enter(stream, from, accepted, self.write_timeout) => entered,
            // It has had no request: it is not missed.
            () = close.cancelled() => None,
            () = self.lifecycle.stopping.cancelled() => None,
        };
        let Some(entered) = entered else { return };
        let _counted = entered.counted;
        let front = self.front;
        let discard = Discard::default();
        let link = Link {
            peer: Some(entered.peer),
            discard: discard.clone(),
        };
        let http_2 = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let (slot, http_2) = (slot.clone(), http_2.clone());
            move |request: Request<Incoming>| {
                http_2.store(request.version() == Version::HTTP_2, Ordering::Relaxed);
                let exchange = slot.begin();
                let answer = front.clone().answer(request, link.clone());
                async move {
                    let answer = answer.await.map(stall::watched);
                    Ok::<_, Infallible>(answer.map(|body| BodyWith::new(body, exchange)))
                }
            }
        });
        let io = ClientIo::new(entered.transport);
        let socket = io.socket();
        let connection = self.builder.serve_connection(TokioIo::new(io), service);
        let mut connection = std::pin::pin!(connection);
        // Each is only polled when it is due: a connection is polled often, and these hardly ever have anything to say.
        let mut signals = FuturesUnordered::<BoxFuture<'_, Signal>>::new();
        let Lifecycle {
            stopping, abort, ..
        } = &self.lifecycle;
        signals.push(Box::pin(stopping.cancelled().map(|()| Signal::Stopping)));
        signals.push(Box::pin(abort.cancelled().map(|()| Signal::Abort)));
        signals.push(Box::pin(close.cancelled().map(|()| Signal::Close)));
        // A connection that has had requests meanwhile gets the rest of its time then.
        let idle = |until| Box::pin(sleep_until(until).map(|()| Signal::Idle));
        signals.push(idle(Instant::now() + self.idle_timeout));
        let mut closing = false;
        let sends_on = loop {
            let ended = poll_fn(|cx| {
                socket.reset();
                if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                    return Poll::Ready(Some(ended));
                }
                socket.poll_closed(cx).map(|()| None)
            });
            let signal = tokio::select! {
                biased;
                ended = ended => {
                    match ended {
                        Some(Ok(())) => break discard.is_set(),
                        Some(Err(error)) => {
                            tracing::debug!(%error, "connection ended");
                            let refused = error.downcast_ref::<hyper::Error>();
                            break discard.is_set() || refused.is_some_and(hyper::Error::is_parse);
                        }
                        None => {
                            tracing::debug!("the client has left");
                            return;
                        }
                    }
                }
                Some(signal) = signals.next() => signal,
            };
            match signal {
                Signal::Stopping => connection.as_mut().graceful_shutdown(),
                Signal::Close => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                    signals.push(idle(Instant::now() + CLOSING));
                }
                Signal::Idle => {
                    let since = slot.idle_since();
                    let until = since.unwrap_or_else(Instant::now) + self.idle_timeout;
                    if until <= Instant::now() || (closing && since.is_some()) {
                        let http_2 = http_2.load(Ordering::Relaxed);
                        socket.end_with(if http_2 { GOAWAY } else { &[] });
                        return;
                    }
                    signals.push(idle(until));
                }
                Signal::Abort => return,
            }
        };
        if sends_on {
            tokio::select! {
                () = socket.discard() => {}
                () = self.lifecycle.abort.cancelled() => {}
            }
        }
    }
}
