//! A router on the memory backend, and upstreams that tests control.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use compression_codecs::{
    EncodeV2 as _, GzipEncoder,
    core::{
        Level,
        util::{PartialBuffer, WriteBuffer},
    },
};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use vorrang_gateway::{
    Answer, BoxError, BufferedBody, Call, CallError, Config, Endpoint, Events, FallbackReason,
    Router, WaitOutcome,
};
use vorrang_scheduler::{GroupStatus, NoObserver, Scheduler, backend::MemoryBackend};

/// A configuration that must be right.
pub(crate) fn config(text: &str) -> Arc<Config> {
    Arc::new(
        Config::parse(text, "config.yaml", &HashMap::<String, String>::new())
            .unwrap()
            .config,
    )
}

/// A router on a memory backend of its own.
pub(crate) fn router(text: &str) -> (Router, Scheduler) {
    let scheduler = Scheduler::new(
        Arc::new(MemoryBackend::new()),
        "instance",
        Arc::new(NoObserver),
    );
    (Router::new(config(text), scheduler.clone()), scheduler)
}

/// A router of a configuration, on a memory backend of its own.
pub(crate) fn router_with(config: Config) -> Router {
    let backend = Arc::new(MemoryBackend::new());
    let scheduler = Scheduler::new(backend, "instance", Arc::new(NoObserver));
    Router::new(Arc::new(config), scheduler)
}

/// One deployment `m` at a base, with more parameters and settings.
pub(crate) fn one(base: &str, params: &str, settings: &str) -> String {
    format!(
        "model_list:\n- {{model_name: m, litellm_params: {{model: openai/up, api_base: '{base}', api_key: sk-secret, {params}}}, model_info: {{id: d0}}}}\n{settings}\n"
    )
}

/// One mock deployment `m`.
pub(crate) fn mock(params: &str, settings: &str) -> String {
    format!(
        "model_list:\n- {{model_name: m, litellm_params: {{model: up, mock_response: hello world, {params}}}, model_info: {{id: d0}}}}\n{settings}\n"
    )
}

/// A chat call for `m` with more fields.
pub(crate) fn chat(rest: &str) -> Call {
    Call::new(
        Endpoint::ChatCompletions,
        format!(r#"{{"model":"m","messages":[]{rest}}}"#),
    )
}

pub(crate) fn status(router: &Router) -> GroupStatus {
    router.groups().remove(0).status
}

/// Waits until the first group's status is as it should be. A test that never gets there hangs until its runner ends it.
pub(crate) async fn until(router: &Router, holds: impl Fn(&GroupStatus) -> bool) {
    while !holds(&status(router)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Calls in a task of its own, and waits until its ticket stands in the queue.
pub(crate) async fn queued(router: &Router, call: Call) -> JoinHandle<Result<Answer, CallError>> {
    let before = status(router).waiting;
    let task = tokio::spawn({
        let router = router.clone();
        async move { router.call(call).await }
    });
    until(router, |status| {
        status.waiting > before && status.depth as usize >= status.waiting
    })
    .await;
    task
}

pub(crate) async fn text(body: BufferedBody) -> Result<String, BoxError> {
    Ok(String::from_utf8(
        body.collect().await?.to_bytes().to_vec(),
    )?)
}

/// A request as the upstream saw it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What the upstream does with the next request.
pub(crate) enum Reply {
    /// Answers at once.
    With(StatusCode, Vec<(&'static str, String)>, Bytes),
    /// Answers with what comes through the channel; its closing ends the body.
    Stream(&'static str, mpsc::Receiver<Result<Bytes, std::io::Error>>),
    /// Answers with any stream.
    Body(Body),
    /// Answers with any stream of a content type.
    Typed(&'static str, Body),
    /// Never answers.
    Hang,
}

pub(crate) fn ok(body: &str) -> Reply {
    Reply::With(
        StatusCode::OK,
        vec![("content-type", "application/json".into())],
        Bytes::from(body.to_owned()),
    )
}

/// An error that asks to be repeated at once, so that tests need not wait for the back-off.
pub(crate) fn error(status: u16, body: &str) -> Reply {
    hinting(status, &[("retry-after-ms", "1")], body)
}

/// An error with headers.
pub(crate) fn hinting(status: u16, hints: &[(&'static str, &str)], body: &str) -> Reply {
    let mut headers = vec![("content-type", "application/json".to_owned())];
    headers.extend(
        hints
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned())),
    );
    Reply::With(
        StatusCode::from_u16(status).unwrap(),
        headers,
        Bytes::from(body.to_owned()),
    )
}

pub(crate) fn limited(retry_after: &str) -> Reply {
    let headers = vec![("retry-after", retry_after.to_owned())];
    Reply::With(
        StatusCode::TOO_MANY_REQUESTS,
        headers,
        Bytes::from_static(b"{\"error\":{\"message\":\"slow down\"}}"),
    )
}

/// An OpenAI-compatible server that performs the given acts, one for each request; then it answers `{}`.
pub(crate) struct Upstream {
    pub(crate) base: String,
    script: Arc<Script>,
    seen: mpsc::UnboundedReceiver<Seen>,
    gone: mpsc::UnboundedReceiver<()>,
    server: JoinHandle<()>,
}

struct Script {
    replies: Mutex<VecDeque<Reply>>,
    seen: mpsc::UnboundedSender<Seen>,
    gone: mpsc::UnboundedSender<()>,
}

impl Upstream {
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let (seen_sender, seen) = mpsc::unbounded_channel();
        let (gone_sender, gone) = mpsc::unbounded_channel();
        let replies = Mutex::new(replies.into_iter().collect());
        let script = Arc::new(Script {
            replies,
            seen: seen_sender,
            gone: gone_sender,
        });
        let app = axum::Router::new()
            .fallback(serve)
            .with_state(script.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            base,
            script,
            seen,
            gone,
            server,
        }
    }

    /// The next request that reached it.
    pub(crate) async fn next(&mut self) -> Seen {
        self.seen.recv().await.unwrap()
    }

    /// How many requests have reached it that no test has read.
    pub(crate) fn pending(&self) -> usize {
        self.seen.len()
    }

    /// Waits until the client of a hanging request has left.
    pub(crate) async fn gone(&mut self) {
        self.gone.recv().await.unwrap();
    }

    pub(crate) fn then(&self, reply: Reply) {
        self.script.replies.lock().unwrap().push_back(reply);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Signals when it is dropped.
struct Guard(mpsc::UnboundedSender<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

async fn serve(State(script): State<Arc<Script>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let reply = script.replies.lock().unwrap().pop_front();
    script
        .seen
        .send(Seen {
            method: head.method,
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            headers: head.headers,
            body,
        })
        .unwrap();
    match reply {
        None => Response::new(Body::from("{}")),
        Some(Reply::With(status, headers, body)) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body)).unwrap()
        }
        Some(Reply::Stream(kind, chunks)) => {
            let guard = Guard(script.gone.clone());
            let stream =
                futures_util::stream::unfold((chunks, guard), |(mut chunks, guard)| async move {
                    chunks.recv().await.map(|chunk| (chunk, (chunks, guard)))
                });
            Response::builder()
                .header("content-type", kind)
                .body(Body::from_stream(stream))
                .unwrap()
        }
        Some(Reply::Body(body)) => Response::new(body),
        Some(Reply::Typed(kind, body)) => Response::builder()
            .header("content-type", kind)
            .body(body)
            .unwrap(),
        Some(Reply::Hang) => {
            let _guard = Guard(script.gone.clone());
            std::future::pending().await
        }
    }
}

/// An address without a listener.
pub(crate) async fn unused_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}/v1", listener.local_addr().unwrap())
}

/// A server that reads a request and then closes the connection without a word, or in the middle of an answer; `bytes` is what it sends.
pub(crate) async fn rude(bytes: &'static [u8]) -> (String, Arc<Mutex<usize>>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let count = Arc::new(Mutex::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = vec![0; 65536];
            if socket.read(&mut request).await.unwrap_or(0) > 0 {
                *counted.lock().unwrap() += 1;
                let _ = socket.write_all(bytes).await;
            }
        }
    });
    (format!("http://{address}/v1"), count)
}

/// Records its events.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) upstream: Mutex<Vec<(String, u16)>>,
    pub(crate) waits: Mutex<Vec<(i32, WaitOutcome)>>,
    pub(crate) fallbacks: Mutex<Vec<(String, String, FallbackReason)>>,
    pub(crate) spills: Mutex<Vec<(String, String)>>,
}

impl Events for Log {
    fn upstream(&self, _group: &str, deployment: &str, status: u16, _latency: Duration) {
        self.upstream
            .lock()
            .unwrap()
            .push((deployment.to_owned(), status));
    }

    fn fell_back(&self, group: &str, to: &str, reason: FallbackReason) {
        let fallback = (group.to_owned(), to.to_owned(), reason);
        self.fallbacks.lock().unwrap().push(fallback);
    }

    fn spilled(&self, group: &str, to: &str) {
        let spill = (group.to_owned(), to.to_owned());
        self.spills.lock().unwrap().push(spill);
    }

    fn waited(&self, _group: &str, priority: i32, _waited: Duration, outcome: WaitOutcome) {
        self.waits.lock().unwrap().push((priority, outcome));
    }
}

/// A text in gzip.
pub(crate) fn gzip(text: &[u8]) -> Bytes {
    let mut encoder = GzipEncoder::new(Level::Default.into());
    let mut out = vec![0; text.len() + 1024];
    let mut output = WriteBuffer::new_initialized(&mut out);
    encoder
        .encode(&mut PartialBuffer::new(text), &mut output)
        .unwrap();
    assert!(encoder.finish(&mut output).unwrap());
    let length = output.written_len();
    out.truncate(length);
    out.into()
}
