//! Traces, sent by OTLP: of each call a span with its waits and attempts below it. Off unless the environment names a collector.

mod exporting;
mod request;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use http::HeaderMap;
use opentelemetry::{
    Context,
    propagation::TextMapPropagator as _,
    trace::{SpanContext, TraceContextExt as _, TracerProvider as _},
};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider},
};
use tokio::{runtime::Handle, task::spawn_blocking};
use vorrang_gateway::config::{Sampling, TraceSettings};

use self::exporting::{Bounded, Client, Counted};
pub(crate) use self::{
    exporting::SpanCounts,
    request::{Came, Ended, RequestTrace, UpstreamSpan},
};

/// Sends spans to a collector.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// Needs a tokio runtime, on which exports are sent.
    ///
    /// # Errors
    /// There is no HTTP client, or the SDK refuses the settings.
    pub(crate) fn start(settings: &TraceSettings, counts: Arc<SpanCounts>) -> Result<Self> {
        let client = Client::new(Handle::current(), settings.timeout)?;
        let headers = settings.headers.iter().filter_map(|(name, value)| {
            let value = value.to_str().ok()?;
            Some((name.as_str().to_owned(), value.to_owned()))
        });
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&settings.endpoint)
            .with_headers(headers.collect())
            .with_timeout(settings.timeout)
            .build()
            .context("traces cannot be sent")?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(settings.queue)
            .with_scheduled_delay(settings.delay)
            .build();
        let exporter = Counted::new(exporter, counts.clone());
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(batches)
            .build();
        let resource = Resource::builder()
            .with_service_name(settings.service_name.clone())
            .with_attribute(opentelemetry::KeyValue::new(
                "service.version",
                env!("CARGO_PKG_VERSION"),
            ))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Bounded::new(processor, settings.queue, counts))
            .with_sampler(sampler(settings.sampling))
            .with_resource(resource)
            .build();
        Ok(Self {
            tracer: provider.tracer("vorrang"),
            provider,
        })
    }

    /// Begins the trace of a request, below the caller's span if it names one.
    pub(crate) fn request(&self, headers: &HeaderMap, came: Came<'_>) -> RequestTrace {
        let caller = TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &HeaderExtractor(headers));
        RequestTrace::new(self.tracer.clone(), &caller, came)
    }

    /// Sends what has not been sent. A collector that does not answer is not waited for beyond `at_most`.
    pub(crate) async fn close(&self, at_most: Duration) {
        let provider = self.provider.clone();
        let closed = spawn_blocking(move || provider.shutdown_with_timeout(at_most));
        if let Ok(Err(error)) = closed.await {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

fn sampler(sampling: Sampling) -> Sampler {
    let root = match sampling.per_million {
        0 => Sampler::AlwaysOff,
        1_000_000.. => Sampler::AlwaysOn,
        some => Sampler::TraceIdRatioBased(f64::from(some) / 1e6),
    };
    if sampling.by_parent {
        Sampler::ParentBased(Box::new(root))
    } else {
        root
    }
}

/// Adds W3C's `traceparent`, and `tracestate` where there is one.
fn inject(span: SpanContext, headers: &mut HeaderMap) {
    let context = Context::new().with_remote_span_context(span);
    TraceContextPropagator::new().inject_context(&context, &mut HeaderInjector(headers));
}
