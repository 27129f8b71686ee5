//! A cheap upstream, plain and with TLS: its answers are bytes made once.
//!
//! The first part of the path says how many bytes an answer has: `/20000/chat/completions`. A request with `"stream":true` gets events.
//! Of calls to `/timed/...` the times are kept until somebody asks for them (`/times`).

use std::{
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

use crate::answers;

/// Bytes of an answer beside what the model says.
const AROUND: usize = 270;
/// About so many bytes an event has, with its word.
const EVENT: usize = 190;
/// Bytes of three words.
const WORDS: usize = 13;

/// Sizes of answers, by the first part of the path.
pub(crate) const SIZES: [usize; 2] = [200, 20_000];

/// The `api_base` of calls whose times are kept.
pub(crate) const TIMED: &str = "/timed";
/// Where those times are.
pub(crate) const TIMES: &str = "/times";

/// Of one call: when it came and when its answer went, microseconds of the upstream's clock.
pub(crate) type Times = (u64, u64);

/// Where TLS's files are in the run's directory.
pub(crate) struct Certificates {
    pub(crate) ca: PathBuf,
    chain: PathBuf,
    key: PathBuf,
}

impl Certificates {
    pub(crate) fn at(directory: &Path) -> Self {
        Self {
            ca: directory.join("ca.pem"),
            chain: directory.join("chain.pem"),
            key: directory.join("key.pem"),
        }
    }

    /// Makes an authority, and a certificate for `localhost` that it signed.
    pub(crate) fn make(directory: &Path) -> Result<Self> {
        let certificates = Self::at(directory);
        let mut authority = rcgen::CertificateParams::new(Vec::new())?;
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_key = rcgen::KeyPair::generate()?;
        let ca = authority.self_signed(&authority_key)?;
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate()?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = rcgen::CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        fs::write(&certificates.ca, ca.pem())?;
        fs::write(&certificates.chain, certificate.pem())?;
        fs::write(&certificates.key, key.serialize_pem())?;
        Ok(certificates)
    }

    /// For clients that trust the authority alone.
    pub(crate) fn client(&self) -> Result<Arc<rustls::ClientConfig>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.ca).context("ca.pem")?)?;
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        Ok(Arc::new(config.with_no_client_auth()))
    }

    fn acceptor(&self) -> Result<TlsAcceptor> {
        let chain = vec![CertificateDer::from_pem_file(&self.chain).context("chain.pem")?];
        let key = PrivateKeyDer::from_pem_file(&self.key).context("key.pem")?;
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        Ok(Arc::new(config.with_single_cert(chain, key)?).into())
    }
}

/// Answers of one size.
struct Answers {
    path: String,
    whole: Bytes,
    events: Vec<Bytes>,
}

impl Answers {
    fn new(size: usize) -> Result<Self> {
        let content = answers::text(size.saturating_sub(AROUND));
        let content = if content.is_empty() { "ok" } else { &content };
        let streamed = answers::text((size / EVENT).max(1) * WORDS / 3);
        let events = answers::events("bench", &streamed);
        Ok(Self {
            path: format!("/{size}/"),
            whole: serde_json::to_vec(&answers::completion("bench", content))?.into(),
            events: events.into_iter().map(Bytes::from).collect(),
        })
    }
}

/// Prints `listening on http://...` and `tls on 127.0.0.1:...`, and serves until it is ended.
pub(crate) async fn serve(directory: &Path) -> Result<()> {
    let answers: Result<Vec<Answers>> = SIZES.map(Answers::new).into_iter().collect();
    let answers: &'static [Answers] = answers?.leak();
    let acceptor = Certificates::at(directory).acceptor()?;
    let plain = TcpListener::bind("127.0.0.1:0").await?;
    let tls = TcpListener::bind("127.0.0.1:0").await?;
    println!("tls on {}", tls.local_addr()?);
    println!("listening on http://{}", plain.local_addr()?);
    let secured = async move {
        loop {
            let (stream, _) = tls.accept().await?;
            stream.set_nodelay(true)?;
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that breaks off a handshake is its own affair.
                if let Ok(stream) = acceptor.accept(stream).await {
                    connection(stream, answers).await;
                }
            });
        }
    };
    let open = async move {
        loop {
            let (stream, _) = plain.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(connection(stream, answers));
        }
    };
    tokio::select! {
        ended = secured => ended,
        ended = open => ended,
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answers: &'static [Answers],
) {
    let service = service_fn(move |request| answer(request, answers));
    // Clients close connections when they like.
    drop(
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}

type Body = Either<
    Full<Bytes>,
    StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>,
>;

static TIMES_KEPT: Mutex<Vec<Times>> = Mutex::new(Vec::new());

fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn kept() -> MutexGuard<'static, Vec<Times>> {
    TIMES_KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(request: Request<Incoming>, answers: &'static [Answers]) -> Result<Response<Body>> {
    let path = request.uri().path();
    if path == TIMES {
        let times = serde_json::to_vec(&std::mem::take(&mut *kept()))?;
        return Ok(Response::new(Either::Left(Full::new(times.into()))));
    }
    let began = path.starts_with(TIMED).then(now);
    let path = path.strip_prefix(TIMED).unwrap_or(path);
    let of = answers
        .iter()
        .find(|answers| path.starts_with(&answers.path));
    let of = of.context("no such size")?;
    let body = request.into_body().collect().await?.to_bytes();
    let response = Response::builder();
    if memmem::find(&body, b"\"stream\":true").is_none() {
        let response = response.header("content-type", "application/json");
        if let Some(began) = began {
            kept().push((began, now()));
        }
        return Ok(response.body(Either::Left(Full::new(of.whole.clone())))?);
    }
    let frames = of
        .events
        .iter()
        .cloned()
        .map(|event| Ok(Frame::data(event)));
    let events = StreamBody::new(stream::iter(frames.collect::<Vec<_>>()));
    let response = response.header("content-type", "text/event-stream");
    Ok(response.body(Either::Right(events))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_about_the_size_of_their_path() {
        let large = Answers::new(20_000).unwrap();
        let streamed: usize = large.events.iter().map(Bytes::len).sum();
        for bytes in [large.whole.len(), streamed] {
            assert!((18_000..22_000).contains(&bytes), "{bytes}");
        }
    }
}
