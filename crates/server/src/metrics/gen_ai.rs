//! The metrics of OpenTelemetry's semantic conventions for generative AI, as Prometheus names them.
//!
//! The gateway is a client of its upstreams and a server of its callers. `gen_ai_client_*` are of one upstream call each,
//! `gen_ai_server_*` of a request with its wait and all its attempts: the difference is what the queue adds.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};
use tokio::time::Instant;
use vorrang_gateway::{Endpoint, UpstreamCall, UpstreamEnd};
use vorrang_scheduler::Tokens;

use super::{HistogramFamily, known::kept};

/// What [`GenAi`] calls the gateway itself: one request may go to several providers.
const OURSELVES: &str = "vorrang";

#[derive(Debug)]
pub(crate) struct GenAi {
    operations: HistogramFamily<EndedLabels>,
    first_chunks: HistogramFamily<CallLabels>,
    tokens: HistogramFamily<TokenLabels>,
    requests: HistogramFamily<EndedLabels>,
    first_tokens: HistogramFamily<CallLabels>,
    clients: Cache<ClientSeries>,
    servers: Cache<ServerSeries>,
}

/// Models are those of the file, also under a wildcard: a client cannot add series.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: &'static str,
    gen_ai_request_model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndedLabels {
    #[prometheus(flatten)]
    call: CallLabels,
    /// Empty, which Prometheus takes for no label: it ended well.
    error_type: Cow<'static, str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    #[prometheus(flatten)]
    call: CallLabels,
    gen_ai_token_type: &'static str,
}

/// The series of calls that go well, found without an allocation.
#[derive(Debug)]
struct Cache<Series>(RwLock<HashMap<String, Vec<Arc<Found<Series>>>>>);

#[derive(Debug)]
struct Found<Series> {
    labels: CallLabels,
    series: Series,
}

#[derive(Debug, Default)]
struct ClientSeries {
    duration: OnceLock<Histogram>,
    first_chunk: OnceLock<Histogram>,
    input: OnceLock<Histogram>,
    output: OnceLock<Histogram>,
}

#[derive(Debug, Default)]
struct ServerSeries {
    duration: OnceLock<Histogram>,
    first_token: OnceLock<Histogram>,
}

impl<Series> Default for Cache<Series> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<Series: Default> Cache<Series> {
    fn get(
        &self,
        operation: &'static str,
        provider: &'static str,
        model: &str,
    ) -> Arc<Found<Series>> {
        let is = |one: &&Arc<Found<Series>>| {
            one.labels.gen_ai_operation_name == operation
                && one.labels.gen_ai_provider_name == provider
        };
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.get(model).and_then(|of| of.iter().find(is)).cloned();
        drop(known);
        found.unwrap_or_else(|| {
            let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
            let of = known.entry(model.to_owned()).or_default();
            if let Some(found) = of.iter().find(is) {
                return found.clone();
            }
            let labels = CallLabels {
                gen_ai_operation_name: operation,
                gen_ai_provider_name: provider,
                gen_ai_request_model: model.to_owned(),
            };
            let series = Series::default();
            of.push(Arc::new(Found { labels, series }));
            of[of.len() - 1].clone()
        })
    }
}

/// Measures one upstream call.
#[derive(Debug)]
pub(crate) struct UpstreamMeter {
    found: Arc<Found<ClientSeries>>,
    /// Of the request, if its answer is a stream: when it came, and where its first token counts.
    request: Option<(Instant, Arc<Found<ServerSeries>>)>,
    started: Instant,
}

// === impl GenAi ===

impl Default for GenAi {
    fn default() -> Self {
        Self {
            operations: Family::new_with_constructor(durations),
            first_chunks: Family::new_with_constructor(firsts),
            tokens: Family::new_with_constructor(tokens),
            requests: Family::new_with_constructor(durations),
            first_tokens: Family::new_with_constructor(firsts),
            clients: Cache::default(),
            servers: Cache::default(),
        }
    }
}

// The bounds are the conventions'.

fn durations() -> Histogram {
    Histogram::new([
        0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
    ])
}

fn firsts() -> Histogram {
    Histogram::new([
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    ])
}

fn tokens() -> Histogram {
    Histogram::new([
        1.0,
        4.0,
        16.0,
        64.0,
        256.0,
        1024.0,
        4096.0,
        16_384.0,
        65_536.0,
        262_144.0,
        1_048_576.0,
        4_194_304.0,
        16_777_216.0,
        67_108_864.0,
    ])
}

impl GenAi {
    pub(super) fn register(&self, to: &mut Registry) {
        to.register_with_unit(
            "gen_ai_client_operation_duration",
            "One upstream call, from its dispatch until its answer was over",
            Unit::Seconds,
            self.operations.clone(),
        );
        to.register_with_unit(
            "gen_ai_client_operation_time_to_first_chunk",
            "Time until the first event of a streamed upstream call",
            Unit::Seconds,
            self.first_chunks.clone(),
        );
        to.register(
            "gen_ai_client_token_usage",
            "Tokens of one upstream call as its upstream reports them, cached input by its weight",
            self.tokens.clone(),
        );
        to.register_with_unit(
            "gen_ai_server_request_duration",
            "One request of a caller with its wait and all its attempts, until its answer was over",
            Unit::Seconds,
            self.requests.clone(),
        );
        to.register_with_unit(
            "gen_ai_server_time_to_first_token",
            "Time from a streamed request until the first event of its answer, with its wait",
            Unit::Seconds,
            self.first_tokens.clone(),
        );
    }

    /// An upstream call is about to be made, for a request that came at `came`.
    pub(crate) fn calls(&self, call: &UpstreamCall<'_>, came: Instant) -> UpstreamMeter {
        let operation = operation(call.endpoint);
        let provider = provider(call.deployment.about.provider);
        UpstreamMeter {
            found: self
                .clients
                .get(operation, provider, &call.deployment.model),
            request: call
                .streamed
                .then(|| (came, self.servers.get(operation, OURSELVES, call.group))),
            started: Instant::now(),
        }
    }

    /// Its answer has begun.
    pub(crate) fn began(&self, meter: &UpstreamMeter) {
        if let Some((came, request)) = &meter.request {
            let (found, first) = (&meter.found, meter.started.elapsed());
            let labels = || found.labels.clone();
            kept(&found.series.first_chunk, &self.first_chunks, labels)
                .observe(first.as_secs_f64());
            let labels = || request.labels.clone();
            kept(&request.series.first_token, &self.first_tokens, labels)
                .observe(came.elapsed().as_secs_f64());
        }
    }

    /// It is over.
    pub(crate) fn ended(&self, meter: &UpstreamMeter, end: UpstreamEnd, used: Option<Tokens>) {
        let (found, took) = (&meter.found, meter.started.elapsed());
        let ended = |error_type| EndedLabels {
            call: found.labels.clone(),
            error_type,
        };
        let duration = match error_type(end) {
            None => kept(&found.series.duration, &self.operations, || {
                ended(Cow::Borrowed(""))
            }),
            Some(error) => &self.operations.get_or_create(&ended(error)).clone(),
        };
        duration.observe(took.as_secs_f64());
        let Some(used) = used else { return };
        for (cell, gen_ai_token_type, amount) in [
            (&found.series.input, "input", used.input),
            (&found.series.output, "output", used.output),
        ] {
            let labels = || TokenLabels {
                call: found.labels.clone(),
                gen_ai_token_type,
            };
            #[expect(clippy::cast_precision_loss, reason = "bounded amounts")]
            kept(cell, &self.tokens, labels).observe(amount as f64);
        }
    }

    /// A caller's request of `group` is over. `error_type` is empty where it ended well.
    pub(crate) fn answered(
        &self,
        endpoint: Endpoint,
        group: &str,
        error_type: Cow<'static, str>,
        took: Duration,
    ) {
        let found = self.servers.get(operation(endpoint), OURSELVES, group);
        let ended = |error_type| EndedLabels {
            call: found.labels.clone(),
            error_type,
        };
        let duration = if error_type.is_empty() {
            kept(&found.series.duration, &self.requests, || ended(error_type))
        } else {
            &self.requests.get_or_create(&ended(error_type)).clone()
        };
        duration.observe(took.as_secs_f64());
    }
}

/// `gen_ai.operation.name`: the conventions' where they have one.
pub(crate) fn operation(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Responses | Endpoint::Messages => "chat",
        Endpoint::Completions => "text_completion",
        Endpoint::Embeddings => "embeddings",
        Endpoint::Moderations => "moderation",
        Endpoint::Rerank => "rerank",
        Endpoint::ImageGenerations => "image_generation",
        Endpoint::ImageEdits => "image_edit",
        Endpoint::Speech => "speech",
        Endpoint::Transcriptions => "transcription",
        Endpoint::Translations => "translation",
        Endpoint::CountTokens => "count_tokens",
        other => other.path(),
    }
}

/// `gen_ai.provider.name`: the conventions' where they have one, else LiteLLM's.
pub(crate) fn provider(litellms: Option<&'static str>) -> &'static str {
    match litellms {
        None => "mock",
        Some("azure" | "azure_text") => "azure.ai.openai",
        Some("azure_ai") => "azure.ai.inference",
        Some("bedrock" | "bedrock_converse") => "aws.bedrock",
        Some("cohere_chat") => "cohere",
        Some("codestral" | "mistral") => "mistral_ai",
        Some("gemini") => "gcp.gemini",
        Some("text-completion-openai") => "openai",
        Some("vertex_ai" | "vertex_ai_beta") => "gcp.vertex_ai",
        Some("xai") => "x_ai",
        Some(other) => other,
    }
}

/// `error.type`: a status, or a short stable text. `None`: it is no error.
pub(crate) fn error_type(end: UpstreamEnd) -> Option<Cow<'static, str>> {
    Some(match end {
        UpstreamEnd::Complete => return None,
        UpstreamEnd::Failed { status: 0, cause } => match cause {
            "time-out" | "connect time-out" => Cow::Borrowed("timeout"),
            other => Cow::Borrowed(other),
        },
        UpstreamEnd::Failed { status, .. } => Cow::Owned(status.to_string()),
        UpstreamEnd::Broken => Cow::Borrowed("answer broke off"),
        UpstreamEnd::Abandoned => Cow::Borrowed("caller left"),
        _ => Cow::Borrowed("_OTHER"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_types_are_statuses_or_stable_words() {
        let failed = |status, cause| UpstreamEnd::Failed { status, cause };
        for (end, expected) in [
            (UpstreamEnd::Complete, None),
            (failed(429, "error status"), Some("429")),
            (failed(0, "time-out"), Some("timeout")),
            (failed(0, "connection refused"), Some("connection refused")),
            (UpstreamEnd::Broken, Some("answer broke off")),
            (UpstreamEnd::Abandoned, Some("caller left")),
        ] {
            assert_eq!(error_type(end).as_deref(), expected, "{end:?}");
        }
    }

    #[test]
    fn series_are_found_again_by_all_their_labels() {
        let cache = Cache::<ClientSeries>::default();
        let first = cache.get("chat", "openai", "m");
        assert!(Arc::ptr_eq(&first, &cache.get("chat", "openai", "m")));
        for (operation, provider, model) in [
            ("embeddings", "openai", "m"),
            ("chat", "groq", "m"),
            ("chat", "openai", "n"),
        ] {
            assert!(!Arc::ptr_eq(&first, &cache.get(operation, provider, model)));
        }
    }
}
