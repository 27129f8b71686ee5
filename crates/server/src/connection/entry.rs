//! What a connection goes through before its first request: whose it is, whether its address may have one more, TLS.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncWriteExt as _, copy, sink},
    net::TcpStream,
    time::timeout,
};

use super::{
    Peer,
    addresses::Counted,
    proxy_header,
    rarely::Rarely,
    transport::{Raw, Transport},
};
use crate::{app::App, certificates::Certificates, failure::Failure, metrics::RefusedConnection};

/// How connections of one listener begin.
pub(crate) struct Entry {
    app: Arc<App>,
    /// `None`: plain HTTP.
    tls: Option<Arc<Certificates>>,
    /// The PROXY protocol and the limit of connections are for the main port.
    main: bool,
    /// For the header of the PROXY protocol and the handshake together.
    time: Duration,
    log: Mutex<[Rarely; RefusedConnection::ALL.len()]>,
}

/// What is known of a connection that was accepted.
#[derive(Debug)]
pub(super) enum Accepted {
    /// It is the peer's own.
    Direct(Option<Counted>),
    /// A proxy will say whose it is.
    Proxied,
}

/// A connection that may send requests.
pub(super) struct Entered {
    pub(super) transport: Transport,
    pub(super) peer: Peer,
    /// Until it ends.
    pub(super) counted: Option<Counted>,
}

/// Why a connection ends before its first request.
enum Ended {
    Refused(RefusedConnection, Option<io::Error>),
    /// The peer closed it, having sent nothing: balancers see so that somebody listens.
    Left,
}

// === impl Entry ===

impl Entry {
    /// Of the port for all.
    pub(crate) fn main(app: &Arc<App>, time: Duration) -> Self {
        Self::new(app, app.certificates.clone(), true, time)
    }

    /// Of the admin port.
    pub(crate) fn admin(app: &Arc<App>, time: Duration) -> Self {
        let tls = app.certificates.clone();
        let tls = tls.filter(|certificates| certificates.at_admin_port());
        Self::new(app, tls, false, time)
    }

    fn new(app: &Arc<App>, tls: Option<Arc<Certificates>>, main: bool, time: Duration) -> Self {
        Self {
            app: app.clone(),
            tls,
            main,
            time,
            log: Mutex::default(),
        }
    }

    /// Whether a connection is to be served; before it has a slot.
    pub(super) fn admits(&self, from: SocketAddr) -> Option<Accepted> {
        let address = from.ip().to_canonical();
        if !self.main {
            return Some(Accepted::Direct(None));
        }
        let settings = self.app.live_now();
        if settings.addresses.proxy_protocol.contains(address) {
            return Some(Accepted::Proxied);
        }
        let counted = self.count(address);
        if counted.is_none() {
            self.refused(RefusedConnection::AddressLimit, address, None);
        }
        counted.map(Accepted::Direct)
    }

    /// `None`: its address has as many connections as it may. `Some(None)`: they are not counted.
    fn count(&self, address: IpAddr) -> Option<Option<Counted>> {
        let settings = self.app.live_now();
        let settings = &settings.addresses;
        let Some(most) = settings.max_connections else {
            return Some(None);
        };
        // A proxy's connections are those of its clients.
        if settings.trusted_proxies.contains(address) {
            return Some(None);
        }
        self.app.addresses.count(address, most).map(Some)
    }

    /// Lets a connection in; `None` if it has ended instead.
    pub(super) async fn enter(
        &self,
        stream: TcpStream,
        from: SocketAddr,
        accepted: Accepted,
        write_timeout: Duration,
    ) -> Option<Entered> {
        let socket = from.ip().to_canonical();
        match (accepted, &self.tls) {
            (Accepted::Direct(counted), None) => Some(Entered {
                transport: Transport::Plain(Raw::new(stream, write_timeout)),
                peer: Peer {
                    socket,
                    address: socket,
                },
                counted,
            }),
            (accepted, _) => {
                // Boxed: a handshake is large, and most connections of a plain port have none.
                let steps = Box::pin(self.steps(stream, socket, accepted, write_timeout));
                let late = Ended::Refused(RefusedConnection::TimedOut, None);
                match timeout(self.time, steps).await.unwrap_or(Err(late)) {
                    Ok(entered) => Some(entered),
                    Err(Ended::Left) => None,
                    Err(Ended::Refused(why, error)) => {
                        self.refused(why, socket, error);
                        None
                    }
                }
            }
        }
    }

    async fn steps(
        &self,
        mut stream: TcpStream,
        socket: IpAddr,
        accepted: Accepted,
        write_timeout: Duration,
    ) -> Result<Entered, Ended> {
        let (address, counted) = match accepted {
            Accepted::Direct(counted) => (socket, counted),
            Accepted::Proxied => {
                first_byte(&stream).await?;
                let header = proxy_header::read(&mut stream).await;
                let address = header
                    .map_err(|error| Ended::Refused(RefusedConnection::ProxyHeader, Some(error)))?
                    .unwrap_or(socket);
                let counted = self.count(address);
                (
                    address,
                    counted.ok_or(Ended::Refused(RefusedConnection::AddressLimit, None))?,
                )
            }
        };
        let transport = match &self.tls {
            None => Transport::Plain(Raw::new(stream, write_timeout)),
            Some(certificates) => {
                // A handshake begins with a byte that is no letter, and every method of HTTP with one.
                if first_byte(&stream).await?.is_ascii_uppercase() {
                    let answered = answer_plainly(stream).await.err();
                    return Err(Ended::Refused(RefusedConnection::PlainHttp, answered));
                }
                let handshake = certificates
                    .acceptor()
                    .accept(Raw::new(stream, write_timeout));
                let tls = handshake.await.map_err(|error| {
                    Ended::Refused(RefusedConnection::TlsHandshake, Some(error))
                })?;
                Transport::Tls(Box::new(tls))
            }
        };
        let peer = Peer { socket, address };
        Ok(Entered {
            transport,
            peer,
            counted,
        })
    }

    fn refused(&self, why: RefusedConnection, address: IpAddr, error: Option<io::Error>) {
        self.app.metrics.connection_refused(why);
        let due = {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log[why as usize].due()
        };
        if let Some(connections) = due {
            let error = error.map(tracing::field::display);
            tracing::info!(reason = why.as_str(), %address, connections, error, "connections refused");
        }
    }
}

/// The first byte that is to come, which stays there.
async fn first_byte(stream: &TcpStream) -> Result<u8, Ended> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1..) => Ok(first[0]),
        Ok(0) | Err(_) => Err(Ended::Left),
    }
}

/// Answers a request of plain HTTP, and lets the client read that before a reset could overtake it.
async fn answer_plainly(mut stream: TcpStream) -> io::Result<()> {
    let failure = Failure::invalid("This port speaks TLS: the URL has to begin with https://");
    let body = failure.body().to_string();
    let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close";
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    copy(&mut stream, &mut sink()).await?;
    Ok(())
}
