//! The client against servers that tests control byte by byte.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Barrier, mpsc},
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::provider::client::install_crypto;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

fn client(most_idle: usize) -> HttpClient {
    install_crypto();
    HttpClient::new(most_idle, &Verify::System)
}

fn json() -> Payload {
    Payload::Json(Bytes::from_static(b"{\"a\":1}"))
}

/// Reads a request to the end of its body; `None`: the connection was closed.
async fn request(socket: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8(read.clone()).unwrap();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1);
            let length = length.map_or(0, |text| text.lines().next().unwrap().parse().unwrap());
            if body.len() >= length {
                return Some(text);
            }
        }
        if socket.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

/// A server, what it is sent, and how many connections it has had.
struct Peer {
    url: String,
    seen: mpsc::UnboundedReceiver<String>,
    closed: mpsc::UnboundedReceiver<()>,
    connections: Arc<AtomicUsize>,
}

impl Peer {
    /// Answers each request with these bytes. `last`: it closes the connection after so many.
    async fn start(answer: &'static [u8], last: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (sees, seen) = mpsc::unbounded_channel();
        let (closes, closed) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (sees, closes) = (sees.clone(), closes.clone());
                tokio::spawn(async move {
                    for _ in 0..last {
                        let Some(request) = request(&mut socket).await else {
                            break;
                        };
                        let _ = sees.send(request);
                        socket.write_all(answer).await.unwrap();
                    }
                    drop(socket);
                    let _ = closes.send(());
                });
            }
        });
        Self {
            url,
            seen,
            closed,
            connections,
        }
    }

    fn address(&self) -> Address {
        Address::parse(&self.url).unwrap()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn post(client: &HttpClient, address: &Address) -> Result<Response, HttpError> {
    let headers = HeaderMap::new();
    client.send(Method::POST, address, headers, &json()).await
}

/// All of an answer.
async fn read(mut response: Response) -> Result<Vec<u8>, HttpError> {
    let mut read = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        read.extend_from_slice(&chunk);
    }
    Ok(read)
}

#[tokio::test]
async fn request_has_the_headers_that_servers_expect() {
    let mut peer = Peer::start(OK, 9).await;
    let client = client(1);
    let with_user = peer.url.replace("http://", "http://me:secret@");
    let address = Address::parse(&format!("{with_user}/chat?k=1")).unwrap();
    read(post(&client, &address).await.unwrap()).await.unwrap();
    let host = peer.url["http://".len()..].trim_end_matches("/v1");
    let seen = peer.seen.recv().await.unwrap();
    assert!(seen.starts_with("POST /v1/chat?k=1 HTTP/1.1\r\n"), "{seen}");
    for line in [
        &format!("host: {host}"),
        "user-agent: vorrang/",
        "accept: */*",
        "authorization: Basic bWU6c2VjcmV0",
        "content-length: 7",
    ] {
        assert!(seen.contains(line), "{line}: {seen}");
    }

    let own = [
        (header::HOST, "other"),
        (header::AUTHORIZATION, "Bearer k"),
        (header::ACCEPT, "text/plain"),
        (header::USER_AGENT, "mine"),
    ];
    let own = own.map(|(name, value)| (name, HeaderValue::from_static(value)));
    let own = HeaderMap::from_iter(own);
    let answer = client.send(Method::GET, &address, own, &Payload::Empty);
    read(answer.await.unwrap()).await.unwrap();
    let seen = peer.seen.recv().await.unwrap();
    assert!(seen.starts_with("GET /v1/chat?k=1 HTTP/1.1\r\n"), "{seen}");
    for line in ["host: other", "Bearer k", "text/plain", "mine"] {
        assert!(seen.contains(line), "{line}: {seen}");
    }
    assert!(!seen.contains("Basic") && !seen.contains("content-length"));
}

#[tokio::test]
async fn connection_is_used_again_after_the_whole_answer() {
    for answer in [
        OK,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ] {
        let peer = Peer::start(answer, 9).await;
        let (client, address) = (client(1), peer.address());
        for _ in 0..3 {
            read(post(&client, &address).await.unwrap()).await.unwrap();
        }
        assert_eq!(peer.connections(), 1);
    }
}

#[tokio::test]
async fn answer_that_is_not_read_to_its_end_closes_its_connection() {
    let long = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}";
    let mut peer = Peer::start(long, 9).await;
    let (client, address) = (client(1), peer.address());
    let mut response = post(&client, &address).await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "{}");
    drop(response);
    peer.closed.recv().await.unwrap();
}

#[tokio::test]
async fn connection_that_the_server_closes_while_idle_is_not_used() {
    let mut peer = Peer::start(OK, 1).await;
    let (client, address) = (client(1), peer.address());
    for calls in 1..4 {
        read(post(&client, &address).await.unwrap()).await.unwrap();
        peer.closed.recv().await.unwrap();
        assert_eq!(peer.connections(), calls);
    }
}

#[tokio::test]
async fn answer_before_the_request_was_taken_ends_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let (closes, mut closed) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let closes = closes.clone();
            tokio::spawn(async move {
                let _ = socket.read(&mut [0; 10]).await;
                socket
                    .write_all(b"HTTP/1.1 413 No\r\ncontent-length: 0\r\n\r\n")
                    .await
                    .unwrap();
                let mut all = vec![0; 1 << 16];
                while socket.read(&mut all).await.unwrap_or(0) > 0 {}
                let _ = closes.send(());
            });
        }
    });
    let client = client(1);
    let long = Payload::Json(vec![b'x'; 64 << 20].into());
    let answer = client.send(Method::POST, &address, HeaderMap::new(), &long);
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(read(answer).await.unwrap(), b"");
    closed.recv().await.unwrap();
}

#[tokio::test]
async fn idle_connections_beyond_the_bound_are_closed() {
    const CALLS: usize = 4;
    const IDLE: usize = 1;
    let mut peer = Peer::start(OK, 9).await;
    let (client, address) = (client(IDLE), peer.address());
    let together = Barrier::new(CALLS);
    let calls = (0..CALLS).map(|_| async {
        let response = post(&client, &address).await.unwrap();
        together.wait().await;
        read(response).await.unwrap();
    });
    join_all(calls).await;
    for _ in IDLE..CALLS {
        peer.closed.recv().await.unwrap();
    }
    read(post(&client, &address).await.unwrap()).await.unwrap();
    assert_eq!(peer.connections(), CALLS);
}

#[tokio::test]
async fn connection_is_closed_after_a_long_idle_time() {
    let mut peer = Peer::start(OK, 9).await;
    let (client, address) = (client(1), peer.address());
    read(post(&client, &address).await.unwrap()).await.unwrap();
    tokio::time::pause();
    let started = Instant::now();
    peer.closed.recv().await.unwrap();
    let idle = started.elapsed();
    assert!(
        (Duration::from_secs(85)..Duration::from_secs(100)).contains(&idle),
        "closed after {idle:?}"
    );
    drop(client);
}

#[tokio::test]
async fn redirect_is_not_followed() {
    let answer =
        b"HTTP/1.1 307 Elsewhere\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let peer = Peer::start(answer, 9).await;
    let response = post(&client(1), &peer.address()).await.unwrap();
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
}

/// A server that speaks HTTP/2 over TLS, with the certificate to believe.
async fn http2() -> (
    Address,
    Verify,
    mpsc::UnboundedReceiver<http::request::Parts>,
    Arc<AtomicUsize>,
) {
    install_crypto();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}/v1",
        listener.local_addr().unwrap().port()
    );
    let (sees, seen) = mpsc::unbounded_channel();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(socket).await else {
                continue;
            };
            counted.fetch_add(1, Ordering::Relaxed);
            let sees = sees.clone();
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let _ = sees.send(request.into_parts().0);
                let answer = http::Response::new("{}".to_owned());
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    let address = Address::parse(&url).unwrap();
    (address, Verify::Only(cert.pem().into()), seen, connections)
}

#[tokio::test]
async fn server_that_has_http2_serves_all_calls_on_one_connection() {
    let (address, verify, mut seen, connections) = http2().await;
    let client = HttpClient::new(1, &verify);
    read(post(&client, &address).await.unwrap()).await.unwrap();
    let calls = (0..8).map(|_| async {
        let response = post(&client, &address).await.unwrap();
        assert_eq!(read(response).await.unwrap(), b"{}");
    });
    join_all(calls).await;
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    for _ in 0..9 {
        let head = seen.recv().await.unwrap();
        assert_eq!((head.method, head.version), (Method::POST, Version::HTTP_2));
        assert_eq!(head.uri.path(), "/v1");
        assert_eq!(head.headers[header::CONTENT_LENGTH], "7");
        assert!(!head.headers.contains_key(header::HOST));
    }
}

#[tokio::test]
async fn certificates_are_believed_only_as_the_client_is_told() {
    let (address, verify, _seen, _) = http2().await;
    for (verify, believed) in [
        (verify, true),
        (Verify::Nothing, true),
        (Verify::System, false),
    ] {
        let answer = post(&HttpClient::new(1, &verify), &address).await;
        assert_eq!(answer.is_ok(), believed);
        if let Err(error) = answer {
            assert!(error.is_connect() && error.is_unsent());
            assert_eq!(cause::Cause::of(&error), cause::Cause::Tls);
        }
    }
}
