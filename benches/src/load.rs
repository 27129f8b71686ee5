//! A closed loop of clients: each has one connection, and sends its next request when it has the answer.
//!
//! The load shares the processors with what it measures, so it is cheap: a request is bytes made once, and of an answer only the end is
//! looked for.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use memchr::memmem;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};
use tokio_rustls::TlsConnector;

use crate::stats::percentile;

/// Answers have fewer headers.
const MAX_HEADERS: usize = 48;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Where requests go, and what they are.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// For `https`: whom it trusts.
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) request: Bytes,
}

impl Target {
    /// A chat with `model` at `path`, with plain HTTP.
    pub(crate) fn chat(address: SocketAddr, path: &str, model: &str, stream: bool) -> Self {
        let fields = if stream { r#","stream":true"# } else { "" };
        Self::post(address, path, "", model, fields)
    }

    /// The same with a key and a priority.
    pub(crate) fn keyed(address: SocketAddr, path: &str, model: &str, key: &str) -> Self {
        let header = format!("authorization: Bearer {key}\r\n");
        Self::post(address, path, &header, model, r#","priority":0"#)
    }

    fn post(address: SocketAddr, path: &str, headers: &str, model: &str, fields: &str) -> Self {
        let body = format!(
            r#"{{"model":"{model}","messages":[{{"role":"system","content":"You are a helpful assistant."}},{{"role":"user","content":"Who goes next, and why? Answer in one sentence."}}],"temperature":0.7,"max_tokens":64{fields}}}"#
        );
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\naccept: */*\r\nuser-agent: vorrang-bench\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        Self {
            address,
            tls: None,
            request: (head + &body).into(),
        }
    }
}

/// Connected clients.
pub(crate) struct Clients {
    connections: Vec<Connection>,
}

/// What a closed loop did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) elapsed: Duration,
    /// Of each request, in ascending order: nanoseconds from its first byte out to its answer's last byte in.
    pub(crate) latencies: Vec<u64>,
}

impl Done {
    pub(crate) fn requests(&self) -> f64 {
        self.latencies.len() as f64
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.requests() / self.elapsed.as_secs_f64()
    }

    /// Microseconds.
    pub(crate) fn latency(&self, part: f64) -> f64 {
        percentile(&self.latencies, part).unwrap_or_default() as f64 / 1000.0
    }
}

/// When a client stops.
#[derive(Debug, Clone, Copy)]
enum Until {
    Time(Instant),
    Count(usize),
}

impl Clients {
    /// Connects to the targets in turns, and sends one request on each connection: then all pools and caches behind it are warm.
    pub(crate) async fn connect(targets: &[Target], count: usize) -> Result<Self> {
        let mut connections = Vec::with_capacity(count);
        for target in targets.iter().cycle().take(count) {
            connections.push(Connection::open(target).await?);
        }
        let mut clients = Self { connections };
        clients.count(count).await?;
        Ok(clients)
    }

    /// Runs for so long.
    pub(crate) async fn time(&mut self, length: Duration) -> Result<Done> {
        self.run(|_| Until::Time(Instant::now() + length)).await
    }

    /// Sends so many requests, each connection its part.
    pub(crate) async fn count(&mut self, requests: usize) -> Result<Done> {
        let clients = self.connections.len();
        self.run(|index| Until::Count(requests / clients + usize::from(index < requests % clients)))
            .await
    }

    async fn run(&mut self, until: impl Fn(usize) -> Until) -> Result<Done> {
        let start = Instant::now();
        let mut running = JoinSet::new();
        for (index, mut connection) in self.connections.drain(..).enumerate() {
            let until = until(index);
            running.spawn(async move {
                let latencies = connection.run(until).await?;
                anyhow::Ok((connection, latencies))
            });
        }
        let mut done = Done::default();
        while let Some(ended) = running.join_next().await {
            let (connection, latencies) = ended??;
            self.connections.push(connection);
            done.latencies.extend(latencies);
        }
        done.elapsed = start.elapsed();
        done.latencies.sort_unstable();
        Ok(done)
    }
}

struct Connection {
    stream: Box<dyn Stream>,
    request: Bytes,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &target.tls {
            None => Box::new(stream),
            Some(config) => {
                let name = ServerName::try_from("localhost")?;
                let connector = TlsConnector::from(config.clone());
                Box::new(connector.connect(name, stream).await?)
            }
        };
        Ok(Self {
            stream,
            request: target.request.clone(),
            buffer: Vec::with_capacity(64 * 1024),
        })
    }

    async fn run(&mut self, until: Until) -> Result<Vec<u64>> {
        let mut latencies = Vec::with_capacity(4096);
        loop {
            match until {
                Until::Time(end) if Instant::now() >= end => break,
                Until::Count(count) if latencies.len() >= count => break,
                _ => {}
            }
            let start = Instant::now();
            self.exchange().await?;
            latencies.push(u64::try_from(start.elapsed().as_nanos())?);
        }
        Ok(latencies)
    }

    /// One request and its whole answer.
    async fn exchange(&mut self) -> Result<()> {
        self.stream.write_all(&self.request).await?;
        self.stream.flush().await?;
        self.buffer.clear();
        let mut wanted = None;
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(read > 0, "the connection was closed within an answer");
            if wanted.is_none() {
                wanted = end(&self.buffer)?;
            }
            match wanted {
                Some(End::At(length)) if self.buffer.len() >= length => return Ok(()),
                Some(End::LastChunk) if self.buffer.ends_with(b"0\r\n\r\n") => return Ok(()),
                _ => {}
            }
        }
    }
}

/// Where an answer ends.
#[derive(Debug, PartialEq)]
enum End {
    /// After so many bytes.
    At(usize),
    /// With the chunk of length 0. No content here ends in such bytes: JSON and events have no carriage returns.
    LastChunk,
}

/// None before the head is whole.
fn end(answer: &[u8]) -> Result<Option<End>> {
    let Some(head) = memmem::find(answer, b"\r\n\r\n") else {
        return Ok(None);
    };
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    ensure!(response.parse(answer)?.is_complete(), "a head in pieces");
    if response.code != Some(200) {
        bail!(
            "an answer that is no 200: {}",
            String::from_utf8_lossy(answer)
        );
    }
    let header = |name: &str| {
        let mut headers = response.headers.iter();
        headers.find(|header| header.name.eq_ignore_ascii_case(name))
    };
    if let Some(length) = header("content-length") {
        let length: usize = std::str::from_utf8(length.value)?.parse()?;
        return Ok(Some(End::At(head + 4 + length)));
    }
    header("transfer-encoding").context("an answer without a length")?;
    Ok(Some(End::LastChunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_an_answer_is_its_length_or_its_last_chunk() {
        assert_eq!(end(b"HTTP/1.1 200 OK\r\nContent-Le").unwrap(), None);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(end(answer).unwrap(), Some(End::At(answer.len())));
        let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
        assert_eq!(end(answer).unwrap(), Some(End::LastChunk));
    }

    #[test]
    fn answers_that_are_no_200_end_the_run() {
        let error =
            end(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\nno").unwrap_err();
        assert!(error.to_string().contains("429"), "{error}");
    }
}
