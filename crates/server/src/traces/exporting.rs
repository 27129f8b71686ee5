//! How spans leave the process: never in the way of a call, and counted when they are lost.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use opentelemetry::Context;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanExporter, SpanProcessor},
};
use tokio::runtime::Handle;

/// Of a collector's answer no more is read.
const LONGEST_ANSWER_BYTES: usize = 64 * 1024;

/// What became of ended spans.
#[derive(Debug, Default)]
pub(crate) struct SpanCounts {
    waiting: AtomicUsize,
    pub(crate) exported: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) dropped: AtomicU64,
    /// Whether there are any: without traces there is nothing to show.
    pub(crate) on: AtomicBool,
}

/// Sends requests on the gateway's runtime: the exporter's thread has none.
pub(super) struct Client {
    http: reqwest::Client,
    runtime: Handle,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    pub(super) fn new(runtime: Handle, timeout: Duration) -> anyhow::Result<Self> {
        vorrang_gateway::install_crypto();
        let http = reqwest::Client::builder()
            .timeout(timeout)
            // Its headers may be secrets: they go to the collector that was named.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("there is no HTTP client for traces")?;
        Ok(Self { http, runtime })
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let sent = self.runtime.spawn(async move {
            let request = reqwest::Request::try_from(request)?;
            // The URL may hold a secret.
            let mut answer = http
                .execute(request)
                .await
                .map_err(reqwest::Error::without_url)?;
            let mut body = BytesMut::new();
            while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
                let room = LONGEST_ANSWER_BYTES.saturating_sub(body.len());
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() >= room {
                    break;
                }
            }
            let mut response = Response::new(body.freeze());
            *response.status_mut() = answer.status();
            *response.headers_mut() = answer.headers().clone();
            Ok::<_, reqwest::Error>(response)
        });
        Ok(sent.await??)
    }
}

/// Counts what is exported, and says when a collector fails and when it is back.
#[derive(Debug)]
pub(super) struct Counted<E> {
    inner: E,
    counts: Arc<SpanCounts>,
    failing: AtomicBool,
}

impl<E> Counted<E> {
    pub(super) fn new(inner: E, counts: Arc<SpanCounts>) -> Self {
        Self {
            inner,
            counts,
            failing: AtomicBool::new(false),
        }
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.inner.export(batch).await;
        self.counts.waiting.fetch_sub(spans, Relaxed);
        let counted = match &result {
            Ok(()) => &self.counts.exported,
            Err(_) => &self.counts.failed,
        };
        counted.fetch_add(spans as u64, Relaxed);
        let failed_before = self.failing.swap(result.is_err(), Relaxed);
        match &result {
            Err(error) if !failed_before => {
                tracing::warn!(%error, "traces cannot be sent; calls go on without them");
            }
            Ok(()) if failed_before => tracing::info!("traces are sent again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Drops and counts spans that a full queue has no room for. The SDK would drop them, too, but tell nobody how many.
#[derive(Debug)]
pub(super) struct Bounded<P> {
    inner: P,
    most: usize,
    counts: Arc<SpanCounts>,
}

impl<P> Bounded<P> {
    pub(super) fn new(inner: P, most: usize, counts: Arc<SpanCounts>) -> Self {
        counts.on.store(true, Relaxed);
        Self {
            inner,
            most,
            counts,
        }
    }
}

impl<P: SpanProcessor> SpanProcessor for Bounded<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.counts.waiting.fetch_add(1, Relaxed) >= self.most {
            self.counts.waiting.fetch_sub(1, Relaxed);
            self.counts.dropped.fetch_add(1, Relaxed);
            return;
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
