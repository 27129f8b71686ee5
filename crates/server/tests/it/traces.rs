//! Traces by OTLP: a collector reads what the gateway sends it, in the protocol's own types.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, Response, StatusCode},
};
use http_body_util::BodyExt as _;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind},
};
use prost::Message as _;
use tokio::{net::TcpListener, task::JoinHandle};
use vorrang_gateway::Config;
use vorrang_server::Patience;

use crate::support::{Answer, Gateway, MOCKS, chat};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const ERROR: i32 = 2;

/// A server on a free port, which ends with this.
struct Http {
    base: String,
    server: JoinHandle<()>,
}

impl Drop for Http {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// `answer` gets each request's head, body and number.
async fn http<F>(
    answer: impl Fn(HeaderMap, Vec<u8>, usize) -> F + Clone + Send + Sync + 'static,
) -> Http
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let count = Arc::new(Mutex::new(0));
    let routes = Router::new().fallback(move |request: Request| {
        let (answer, count) = (answer.clone(), count.clone());
        async move {
            let (mut head, body) = request.into_parts();
            let path = head.uri.path().parse().unwrap();
            head.headers.insert("x-path", path);
            let body = body.collect().await.unwrap().to_bytes().to_vec();
            let number = {
                let mut count = count.lock().unwrap();
                *count += 1;
                *count
            };
            answer(head.headers, body, number).await
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    Http { base, server }
}

/// What a collector was sent.
#[derive(Debug, Clone, Default)]
struct Sent {
    spans: Arc<Mutex<Vec<Span>>>,
    resources: Arc<Mutex<Vec<BTreeMap<String, String>>>>,
    bodies: Arc<Mutex<Vec<u8>>>,
    tokens: Arc<Mutex<Vec<String>>>,
}

impl Sent {
    async fn collector(&self) -> Http {
        let sent = self.clone();
        http(move |headers, body, _| {
            let sent = sent.clone();
            async move {
                assert_eq!(headers["content-type"], "application/x-protobuf");
                assert_eq!(headers["x-path"], "/v1/traces");
                let token = headers.get("x-token").map(|token| token.to_str().unwrap());
                sent.tokens.lock().unwrap().extend(token.map(str::to_owned));
                let request = ExportTraceServiceRequest::decode(&*body).unwrap();
                sent.bodies.lock().unwrap().extend(body);
                for of_resource in request.resource_spans {
                    let attributes = texts(&of_resource.resource.unwrap().attributes);
                    sent.resources.lock().unwrap().push(attributes);
                    for of_scope in of_resource.scope_spans {
                        sent.spans.lock().unwrap().extend(of_scope.spans);
                    }
                }
                Response::new(Body::empty())
            }
        })
        .await
    }

    fn spans(&self) -> Vec<Span> {
        let mut spans = self.spans.lock().unwrap().clone();
        spans.sort_by_key(|span| (span.start_time_unix_nano, span.end_time_unix_nano));
        spans
    }

    fn only(&self, kind: SpanKind) -> Vec<Span> {
        let spans = self.spans();
        let kind = kind as i32;
        spans.into_iter().filter(|span| span.kind == kind).collect()
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |one: &KeyValue| match one.value.clone().unwrap().value.unwrap() {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(value) => value.to_string(),
        Value::DoubleValue(_) => "a number".into(),
        other => panic!("{other:?}"),
    };
    attributes
        .iter()
        .map(|one| (one.key.clone(), text(one)))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn has(span: &Span, expected: &[(&str, &str)]) {
    let attributes = texts(&span.attributes);
    for (name, value) in expected {
        let found = attributes.get(*name).map(String::as_str);
        assert_eq!(
            found,
            Some(*value),
            "{name} of {}: {attributes:?}",
            span.name
        );
    }
}

async fn gateway(config: &str, env: &[(&str, &str)]) -> Gateway {
    let env: BTreeMap<String, String> = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let loaded = Config::parse(config, "test.yaml", &env).unwrap();
    assert_eq!(loaded.warnings(), Vec::<String>::new());
    Gateway::serve(loaded.config, Patience::default()).await
}

/// An upstream that fails once and then streams; it notes the headers of its calls.
async fn upstream(seen: &Arc<Mutex<Vec<HeaderMap>>>) -> Http {
    let seen = seen.clone();
    http(move |headers, _, number| {
        let seen = seen.clone();
        async move {
            seen.lock().unwrap().push(headers);
            if number == 1 {
                return Response::builder()
                    .status(StatusCode::INTERNAL_SERVER_ERROR)
                    .header("content-type", "application/json")
                    .header("retry-after-ms", "1")
                    .body(Body::from(r#"{"error": {"message": "sk-echoed"}}"#))
                    .unwrap();
            }
            let events = [
                r#"{"choices": [{"delta": {"content": "private answer"}}]}"#,
                r#"{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}"#,
                "[DONE]",
            ]
            .map(|event| format!("data: {event}\n\n"))
            .concat();
            Response::builder()
                .header("content-type", "text/event-stream")
                .body(Body::from(events))
                .unwrap()
        }
    })
    .await
}

#[tokio::test]
async fn call_is_a_tree_of_its_waits_and_attempts_below_the_callers_span() {
    let sent = Sent::default();
    let collector = sent.collector().await;
    let seen = Arc::default();
    let upstream = upstream(&seen).await;
    let config = format!(
        "
model_list:
  - model_name: m
    litellm_params: {{model: openai/up, api_base: '{}/v1', api_key: sk-secret, rpm: 100}}
    model_info: {{id: d0}}
general_settings: {{master_key: sk-master}}
vorrang_settings: {{keys: [{{name: batch, key: sk-batch, default_priority: 5}}]}}
litellm_settings: {{callbacks: [otel]}}
",
        upstream.base
    );
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.base),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=to%20ken"),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ("OTEL_SERVICE_NAME", "front"),
    ];
    let gateway = gateway(&config, &env).await;
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let headers = [
        ("authorization", "Bearer sk-batch"),
        ("traceparent", &*parent),
        ("tracestate", "vendor=1"),
        ("x-litellm-call-id", "call-1"),
    ];
    let body = chat("m", r#", "stream": true, "user": "private-user""#);
    let answer = gateway.post("/v1/chat/completions", &headers, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    gateway
        .until("five spans", || async { sent.spans().len() == 5 })
        .await;

    let spans = sent.spans();
    for span in &spans {
        assert_eq!(hex(&span.trace_id), TRACE, "{span:?}");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }
    let root = &sent.only(SpanKind::Server)[0];
    assert_eq!(hex(&root.parent_span_id), CALLER);
    assert_eq!(root.trace_state, "vendor=1");
    assert_eq!(root.name, "POST /chat/completions");
    let expected = [
        ("http.response.status_code", "200"),
        ("gen_ai.operation.name", "chat"),
        ("vorrang.call_id", "call-1"),
        ("client.address", "127.0.0.1"),
        ("vorrang.group", "m"),
        ("vorrang.key", "batch"),
        ("vorrang.priority", "5"),
        ("vorrang.attempts", "2"),
    ];
    has(root, &expected);
    assert_eq!(root.status.clone().unwrap_or_default().code, 0);
    let (waits, attempts) = (sent.only(SpanKind::Internal), sent.only(SpanKind::Client));
    assert_eq!((waits.len(), attempts.len()), (2, 2));
    for child in waits.iter().chain(&attempts) {
        assert_eq!(child.parent_span_id, root.span_id, "{}", child.name);
        assert!(child.start_time_unix_nano >= root.start_time_unix_nano);
        assert!(child.end_time_unix_nano <= root.end_time_unix_nano);
    }
    for wait in &waits {
        has(
            wait,
            &[("vorrang.wait.outcome", "granted"), ("vorrang.group", "m")],
        );
    }
    let [failed, answered] = &attempts[..] else {
        unreachable!()
    };
    assert_eq!(failed.name, "chat up");
    let both = [
        ("gen_ai.provider.name", "openai"),
        ("vorrang.deployment", "d0"),
    ];
    has(failed, &both);
    has(failed, &[("vorrang.attempt", "1"), ("error.type", "500")]);
    assert_eq!(failed.status.as_ref().unwrap().code, ERROR);
    assert!(failed.events.is_empty());
    has(answered, &both);
    has(
        answered,
        &[
            ("vorrang.attempt", "2"),
            ("http.response.status_code", "200"),
            ("gen_ai.usage.input_tokens", "7"),
            ("gen_ai.usage.output_tokens", "3"),
            ("server.address", "127.0.0.1"),
        ],
    );
    assert_eq!(answered.events[0].name, "first token");
    // Each upstream call is below its own span.
    let seen = seen.lock().unwrap().clone();
    for (headers, span) in seen.iter().zip(&attempts) {
        let expected = format!("00-{TRACE}-{}-01", hex(&span.span_id));
        assert_eq!(headers["traceparent"], expected);
        assert_eq!(headers["tracestate"], "vendor=1");
    }
    assert_eq!(sent.resources.lock().unwrap()[0]["service.name"], "front");
    assert_eq!(sent.tokens.lock().unwrap()[0], "to ken");
    let bodies = sent.bodies.lock().unwrap().clone();
    let bodies = String::from_utf8_lossy(&bodies);
    for secret in ["sk-", "private", "to ken"] {
        assert!(!bodies.contains(secret), "{secret} in a span");
    }
    // They are counted when the collector's answer is there.
    gateway
        .until("five exported spans", || async {
            let page = gateway.get("/metrics").await.text();
            page.contains(r#"vorrang_spans_total{outcome="exported"} 5"#)
        })
        .await;
    let page = gateway.get("/metrics").await.text();
    assert!(
        page.contains(r#"vorrang_spans_total{outcome="dropped"} 0"#),
        "{page}"
    );
}

#[tokio::test]
async fn waits_that_end_badly_and_fallbacks_are_in_the_trace() {
    let sent = Sent::default();
    let collector = sent.collector().await;
    let config = format!(
        "{MOCKS}
  - model_name: broken
    litellm_params: {{model: openai/broken, mock_response: litellm.InternalServerError}}
router_settings: {{num_retries: 0, fallbacks: [{{broken: [free]}}]}}
"
    );
    let whole = format!("{}/v1/traces", collector.base);
    let env = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*whole),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
    ];
    let gateway = gateway(&config, &env).await;
    assert_eq!(Answer::read(gateway.chat("broken").await).await.status, 200);
    gateway
        .until("five spans", || async { sent.spans().len() == 5 })
        .await;
    let root = &sent.only(SpanKind::Server)[0];
    assert!(root.parent_span_id.is_empty(), "a trace of its own");
    let event = &root.events[0];
    assert_eq!(event.name, "fallback");
    let attributes = texts(&event.attributes);
    assert_eq!(attributes["vorrang.from"], "broken");
    assert_eq!(attributes["vorrang.to"], "free");
    assert_eq!(attributes["vorrang.fallback.reason"], "failure");

    sent.spans.lock().unwrap().clear();
    assert_eq!(Answer::read(gateway.chat("tight").await).await.status, 200);
    let late = chat("tight", r#", "timeout": 0.05"#);
    gateway
        .post("/chat/completions", &[], &late)
        .await
        .error(408);
    gateway
        .until("five more spans", || async { sent.spans().len() == 5 })
        .await;
    let wait = &sent.only(SpanKind::Internal)[1];
    has(
        wait,
        &[
            ("vorrang.wait.outcome", "timed_out"),
            ("vorrang.queue.ahead", "0"),
            ("vorrang.queue.least_wait", "a number"),
        ],
    );
    assert_eq!(wait.status.as_ref().unwrap().code, ERROR);
    let root = &sent.only(SpanKind::Server)[1];
    has(
        root,
        &[("http.response.status_code", "408"), ("error.type", "408")],
    );
    assert_eq!(
        root.status.clone().unwrap_or_default().code,
        0,
        "the caller's own time"
    );
}

#[tokio::test]
async fn without_a_collector_nothing_is_traced_and_no_traceparent_is_passed_on() {
    let seen = Arc::default();
    let upstream = upstream(&seen).await;
    let config = format!(
        "model_list: [{{model_name: m, litellm_params: {{model: openai/up, api_base: '{}/v1', api_key: k}}}}]",
        upstream.base
    );
    let on = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
    for env in [
        &[][..],
        &[on, ("OTEL_SDK_DISABLED", "true")],
        &[on, ("OTEL_TRACES_EXPORTER", "none")],
    ] {
        let gateway = gateway(&config, env).await;
        let parent = format!("00-{TRACE}-{CALLER}-01");
        let headers = [("traceparent", &*parent), ("tracestate", "vendor=1")];
        let body = chat("m", r#", "stream": true"#);
        let answer = gateway.post("/v1/chat/completions", &headers, &body).await;
        assert_eq!(answer.status, 200);
        let page = gateway.get("/metrics").await.text();
        assert!(!page.contains("vorrang_spans"), "{page}");
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 4);
    for headers in &*seen {
        assert!(!headers.contains_key("traceparent"), "{headers:?}");
        assert!(!headers.contains_key("tracestate"), "{headers:?}");
    }
}

#[tokio::test]
async fn sampler_decides_and_upstreams_learn_its_decision() {
    let sent = Sent::default();
    let collector = sent.collector().await;
    let seen = Arc::default();
    let upstream = upstream(&seen).await;
    let config = format!(
        "model_list: [{{model_name: m, litellm_params: {{model: openai/up, api_base: '{}/v1', api_key: k}}}}]",
        upstream.base
    );
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.base),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
    ];
    let mut gateway = gateway(&config, &env).await;
    let body = chat("m", r#", "stream": true"#);
    let parent = format!("00-{TRACE}-{CALLER}-01");
    for headers in [&[][..], &[("traceparent", &*parent)]] {
        let answer = gateway.post("/v1/chat/completions", headers, &body).await;
        assert_eq!(answer.status, 200);
    }
    gateway.stop();
    gateway.ended().await;
    // The first call failed once.
    let traced: Vec<String> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|headers| headers["traceparent"].to_str().unwrap().to_owned())
        .collect();
    assert_eq!(traced.len(), 3);
    assert!(
        traced[..2].iter().all(|parent| parent.ends_with("-00")),
        "{traced:?}"
    );
    assert!(traced[2].starts_with(&format!("00-{TRACE}-")) && traced[2].ends_with("-01"));
    let spans = sent.spans();
    assert_eq!(spans.len(), 3, "the traced caller's alone: {spans:?}");
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
}

#[tokio::test]
async fn shutdown_sends_the_last_spans() {
    let sent = Sent::default();
    let collector = sent.collector().await;
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.base),
        // An hour.
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
    ];
    let mut gateway = gateway(MOCKS, &env).await;
    assert_eq!(Answer::read(gateway.chat("free").await).await.status, 200);
    assert_eq!(sent.spans().len(), 0);
    gateway.stop();
    gateway.ended().await;
    assert_eq!(sent.spans().len(), 3);
}

#[tokio::test]
async fn collector_that_refuses_or_hangs_costs_spans_and_no_call() {
    let refusing = http(|_, _, _| async {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::BAD_REQUEST;
        answer
    })
    .await;
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*refusing.base),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
    ];
    let of_refusing = gateway(MOCKS, &env).await;
    assert_eq!(
        Answer::read(of_refusing.chat("free").await).await.status,
        200
    );
    of_refusing
        .until("failed spans", || async {
            let page = of_refusing.get("/metrics").await.text();
            page.contains(r#"vorrang_spans_total{outcome="failed"} 3"#)
        })
        .await;

    let hanging = http(|_, _, _| std::future::pending()).await;
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*hanging.base),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "3"),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
    ];
    let mut of_hanging = gateway(MOCKS, &env).await;
    for _ in 0..4 {
        assert_eq!(
            Answer::read(of_hanging.chat("free").await).await.status,
            200
        );
    }
    // Three are on their way to the collector, and as long as they are there is no room for others.
    let page = of_hanging.get("/metrics").await.text();
    assert!(
        page.contains(r#"vorrang_spans_total{outcome="dropped"} 9"#),
        "{page}"
    );
    of_hanging.stop();
    let took = of_hanging.ended().await;
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test]
async fn request_without_a_model_is_one_span_without_what_its_caller_chose() {
    let sent = Sent::default();
    let collector = sent.collector().await;
    let upstream = http(|_, _, _| async { Response::new(Body::from("{}")) }).await;
    let config = format!(
        "{MOCKS}
files_settings: [{{custom_llm_provider: openai, api_base: '{}/v1', api_key: sk-openai}}]
",
        upstream.base
    );
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.base),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
    ];
    let gateway = gateway(&config, &env).await;
    // Neither probes nor scrapes nor paths that do not exist are traced.
    assert_eq!(gateway.get("/metrics").await.status, 200);
    assert_eq!(gateway.get("/v1/nothing").await.status, 404);
    let path = "/v1/files/file-private?after=private";
    assert_eq!(gateway.get(path).await.status, 200);
    gateway
        .until("a span", || async { !sent.spans().is_empty() })
        .await;
    let spans = sent.spans();
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!(spans[0].name, "GET /files");
    has(&spans[0], &[("http.response.status_code", "200")]);
    let bodies = sent.bodies.lock().unwrap().clone();
    assert!(!String::from_utf8_lossy(&bodies).contains("private"));
}
