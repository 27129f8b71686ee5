//! The spans of one request. No body, no key and no URL of an upstream is in them.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Method};
use opentelemetry::{
    Context, KeyValue,
    trace::{
        Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
    },
};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use vorrang_gateway::{Endpoint, FallbackReason, UpstreamCall, UpstreamEnd, WaitOutcome};
use vorrang_scheduler::Tokens;

use crate::metrics::gen_ai;

/// A request as it came.
pub(crate) struct Came<'a> {
    pub(crate) method: &'a Method,
    /// As the router writes it: nothing of a caller's is in it.
    pub(crate) route: &'static str,
    /// What is called, where that is a model.
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) call_id: &'a str,
    /// How long ago it came.
    pub(crate) since: Duration,
    /// From where, if that is known.
    pub(crate) client: Option<IpAddr>,
}

/// A request as it ended.
#[derive(Debug, Default)]
pub(crate) struct Ended<'a> {
    pub(crate) status: u16,
    /// Empty: it ended well.
    pub(crate) error_type: Cow<'static, str>,
    pub(crate) group: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
    pub(crate) priority: Option<i32>,
    pub(crate) waited: Option<Duration>,
    pub(crate) attempts: Option<u32>,
}

/// The trace of one request, which ends with its answer.
#[derive(Debug)]
pub(crate) struct RequestTrace {
    tracer: SdkTracer,
    /// What its other spans are below.
    below: Context,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    span: Span,
    /// How many were surely before it in the queue, and how long it surely waits.
    queued: Option<(u64, Duration)>,
    attempts: u32,
}

impl RequestTrace {
    pub(super) fn new(tracer: SdkTracer, caller: &Context, came: Came<'_>) -> Self {
        let mut attributes = vec![
            KeyValue::new("http.request.method", came.method.as_str().to_owned()),
            KeyValue::new("http.route", came.route),
            KeyValue::new("vorrang.call_id", came.call_id.to_owned()),
        ];
        let client = came.client.map(|address| address.to_string());
        attributes.extend(client.map(|address| KeyValue::new("client.address", address)));
        let operation = came.endpoint.map(gen_ai::operation);
        attributes.extend(operation.map(|name| KeyValue::new("gen_ai.operation.name", name)));
        let span = SpanBuilder::from_name(format!("{} {}", came.method, came.route))
            .with_kind(SpanKind::Server)
            .with_start_time(SystemTime::now() - came.since)
            .with_attributes(attributes);
        let span = tracer.build_with_context(span, caller);
        Self {
            below: Context::new().with_remote_span_context(span.span_context().clone()),
            tracer,
            known: Mutex::new(Known {
                span,
                queued: None,
                attempts: 0,
            }),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It waits in a queue.
    pub(crate) fn queued(&self, ahead: u64, least_wait: Duration) {
        self.known().queued = Some((ahead, least_wait));
    }

    /// A wait has ended.
    pub(crate) fn waited(&self, group: &str, priority: i32, waited: Duration, end: WaitOutcome) {
        let queued = self.known().queued.take();
        let now = SystemTime::now();
        let mut attributes = vec![
            KeyValue::new("vorrang.group", group.to_owned()),
            KeyValue::new("vorrang.priority", i64::from(priority)),
            KeyValue::new("vorrang.wait.outcome", end.as_str()),
        ];
        if let Some((ahead, least)) = queued {
            attributes.push(KeyValue::new("vorrang.queue.ahead", whole(ahead)));
            let least = KeyValue::new("vorrang.queue.least_wait", least.as_secs_f64());
            attributes.push(least);
        }
        let span = SpanBuilder::from_name("wait in queue")
            .with_kind(SpanKind::Internal)
            .with_start_time(now - waited)
            .with_attributes(attributes);
        let mut span = self.tracer.build_with_context(span, &self.below);
        if !matches!(end, WaitOutcome::Granted | WaitOutcome::Spilled) {
            span.set_attribute(KeyValue::new("error.type", end.as_str()));
            span.set_status(Status::error(end.as_str()));
        }
        span.end_with_timestamp(now);
    }

    /// Another group takes it over.
    pub(crate) fn fell_back(&self, group: &str, to: &str, reason: FallbackReason) {
        let reason = KeyValue::new("vorrang.fallback.reason", reason.as_str());
        self.goes_on("fallback", group, to, vec![reason]);
    }

    /// It has left a queue for another.
    pub(crate) fn spilled(&self, group: &str, to: &str) {
        self.goes_on("spill", group, to, Vec::new());
    }

    fn goes_on(&self, what: &'static str, group: &str, to: &str, mut more: Vec<KeyValue>) {
        more.push(KeyValue::new("vorrang.from", group.to_owned()));
        more.push(KeyValue::new("vorrang.to", to.to_owned()));
        self.known().span.add_event(what, more);
    }

    /// An upstream call is about to be made.
    pub(crate) fn calls(&self, call: &UpstreamCall<'_>) -> UpstreamSpan {
        let attempt = {
            let mut known = self.known();
            known.attempts += 1;
            known.attempts
        };
        let operation = gen_ai::operation(call.endpoint);
        let provider = gen_ai::provider(call.deployment.about.provider);
        let mut attributes = vec![
            KeyValue::new("gen_ai.operation.name", operation),
            KeyValue::new("gen_ai.provider.name", provider),
            KeyValue::new("gen_ai.request.model", call.model.to_owned()),
            KeyValue::new("vorrang.group", call.group.to_owned()),
            KeyValue::new("vorrang.deployment", call.deployment.id.clone()),
            KeyValue::new("vorrang.attempt", i64::from(attempt)),
            KeyValue::new("vorrang.streamed", call.streamed),
        ];
        let host = call.deployment.target.host();
        if let Some((host, port)) = host.as_deref().and_then(|host| host.rsplit_once(':')) {
            attributes.push(KeyValue::new("server.address", host.to_owned()));
            let port = port.parse::<i64>().ok();
            attributes.extend(port.map(|port| KeyValue::new("server.port", port)));
        }
        let span = SpanBuilder::from_name(format!("{operation} {}", call.model))
            .with_kind(SpanKind::Client)
            .with_attributes(attributes);
        UpstreamSpan {
            span: self.tracer.build_with_context(span, &self.below),
            streamed: call.streamed,
        }
    }

    /// Its answer is over, or its caller has left.
    pub(crate) fn ended(&self, ended: Ended<'_>) {
        let span = &mut self.known().span;
        let texts = [
            ("vorrang.group", ended.group),
            ("gen_ai.request.model", ended.group),
            ("vorrang.key", ended.key),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                span.set_attribute(KeyValue::new(name, text.to_owned()));
            }
        }
        let numbers = [
            ("http.response.status_code", Some(i64::from(ended.status))),
            ("vorrang.priority", ended.priority.map(i64::from)),
            ("vorrang.attempts", ended.attempts.map(i64::from)),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                span.set_attribute(KeyValue::new(name, number));
            }
        }
        if let Some(waited) = ended.waited {
            span.set_attribute(KeyValue::new("vorrang.waited", waited.as_secs_f64()));
        }
        if !ended.error_type.is_empty() {
            // A caller's own mistake is no error of a server's span, by OpenTelemetry's conventions.
            if !(400..499).contains(&ended.status) {
                span.set_status(Status::error(ended.error_type.clone()));
            }
            span.set_attribute(KeyValue::new("error.type", ended.error_type));
        }
        span.end();
    }
}

/// The span of one upstream call.
#[derive(Debug)]
pub(crate) struct UpstreamSpan {
    span: Span,
    streamed: bool,
}

impl UpstreamSpan {
    /// The upstream's own spans are below it.
    pub(crate) fn add_headers(&self, headers: &mut HeaderMap) {
        let context: SpanContext = self.span.span_context().clone();
        super::inject(context, headers);
    }

    pub(crate) fn began(&mut self, status: u16) {
        self.status(status);
        if self.streamed {
            self.span.add_event("first token", Vec::new());
        }
    }

    pub(crate) fn ended(&mut self, end: UpstreamEnd, used: Option<Tokens>) {
        if let UpstreamEnd::Failed { status, .. } = end
            && status != 0
        {
            self.status(status);
        }
        if let Some(used) = used {
            for (name, amount) in [
                ("gen_ai.usage.input_tokens", used.input),
                ("gen_ai.usage.output_tokens", used.output),
            ] {
                self.span.set_attribute(KeyValue::new(name, whole(amount)));
            }
        }
        if let Some(error) = gen_ai::error_type(end) {
            if let UpstreamEnd::Failed { cause, .. } = end {
                self.span.set_status(Status::error(cause));
            } else {
                self.span.set_status(Status::error(error.clone()));
            }
            self.span.set_attribute(KeyValue::new("error.type", error));
        }
        self.span.end();
    }

    fn status(&mut self, status: u16) {
        let status = i64::from(status);
        self.span
            .set_attribute(KeyValue::new("http.response.status_code", status));
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
