//! The provider itself.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http_body_util::{BodyExt as _, Either, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response,
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, time::sleep};

use super::{Act, Fate, Plan, Seen, endpoints};

type Body = Either<Full<Bytes>, UnsyncBoxBody<Bytes, io::Error>>;

/// What a completion says, one piece per chunk.
pub const WORDS: [&str; 3] = ["right", " of", " way"];
/// A field of streamed requests: so many further pieces, numbered from 0, follow the words.
pub const PIECES: &str = "test_pieces";
/// A field of streamed requests: how long each chunk but the second takes, milliseconds.
pub const PIECE_MS: &str = "test_piece_ms";

struct State {
    calls: Mutex<Vec<Seen>>,
    plan: Mutex<(VecDeque<Act>, Act)>,
    released: watch::Sender<bool>,
}

/// One call from its head to its end: what is not answered by its drop was broken off.
struct Call {
    state: Arc<State>,
    index: usize,
    fate: Fate,
}

/// Serves calls and `/control` until the process ends.
///
/// # Errors
/// Connections cannot be accepted.
pub async fn serve(listener: TcpListener) -> Result<()> {
    let state = Arc::new(State {
        calls: Mutex::default(),
        plan: Mutex::default(),
        released: watch::channel(false).0,
    });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let state = state.clone();
        let service = service_fn(move |request| answer(state.clone(), request));
        tokio::spawn(async move {
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            // Its end is in the calls' fates.
            drop(server.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

/// An error closes the connection without an answer.
async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>> {
    if request.uri().path().starts_with("/control/") {
        return control(&state, request).await;
    }
    let (call, act) = Call::begin(state, &request);
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    let wanted: Value = serde_json::from_str(&body).unwrap_or_default();
    call.update(|seen| seen.body = body);
    sleep(Duration::from_millis(act.delay_ms)).await;
    let mut head = Response::builder().status(act.status);
    if let Some(after) = &act.retry_after {
        head = head.header("retry-after", after);
    }
    head = head.header("x-request-id", format!("upstream-{}", call.index));
    if act.status == 200 && wanted["stream"] == true {
        let chunks = StreamBody::new(stream(call, act, &wanted)).boxed_unsync();
        let head = head.header("content-type", "text/event-stream");
        return Ok(head.body(Either::Right(chunks))?);
    }
    if act.hold {
        call.released().await;
    }
    if act.reset {
        bail!("as planned");
    }
    let answer = if act.status == 200 {
        completion(&wanted, call.index)
    } else {
        let message = format!("the upstream says {}", act.status);
        json!({"error": {"message": message, "type": "upstream_error", "param": null, "code": act.status.to_string()}})
    };
    call.answered();
    let other = (act.status == 200).then(|| endpoints::answer(&path, &wanted));
    let json = || ("application/json", Bytes::from(answer.to_string()));
    let (kind, body) = other.flatten().unwrap_or_else(json);
    Ok(head
        .header("content-type", kind)
        .body(Either::Left(Full::from(body)))?)
}

/// Server-sent events, with the usage in the last one. Its drop before the end breaks the call off.
fn stream(
    call: Call,
    act: Act,
    wanted: &Value,
) -> impl Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static {
    let mut chunks = VecDeque::new();
    for word in WORDS {
        let choice =
            json!({"index": 0, "delta": {"content": word}, "text": word, "finish_reason": null});
        chunks.push_back(chunk(wanted, call.index, &[choice], Value::Null));
    }
    if act.padding > 0 {
        let padding = "x".repeat(64 * 1024);
        let choice = json!({"index": 0, "delta": {"content": padding}, "finish_reason": null});
        // All of them share one buffer: what is measured is the gateway's memory.
        let padding = chunk(wanted, call.index, &[choice], Value::Null);
        chunks.extend((0..act.padding).map(|_| padding.clone()));
    }
    // What the request asks for itself, whatever the plan is.
    let (pieces, pause) = (wanted[PIECES].as_u64(), wanted[PIECE_MS].as_u64());
    for number in 0..pieces.unwrap_or(0) {
        let choice =
            json!({"index": 0, "delta": {"content": number.to_string()}, "finish_reason": null});
        chunks.push_back(chunk(wanted, call.index, &[choice], Value::Null));
    }
    let pause = Duration::from_millis(pause.unwrap_or(0));
    let end = json!({"index": 0, "delta": {}, "text": "", "finish_reason": "stop"});
    chunks.push_back(chunk(wanted, call.index, &[end], usage()));
    chunks.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
    let all = chunks.len();
    stream::try_unfold((call, chunks), move |(call, mut chunks)| {
        let (hold, reset) = (act.hold, act.reset);
        async move {
            let Some(chunk) = chunks.pop_front() else {
                call.answered();
                return Ok(None);
            };
            let second = chunks.len() + 2 == all;
            if second && hold {
                call.released().await;
            }
            if !second {
                sleep(pause).await;
            }
            if second && reset {
                return Err(io::Error::other("as planned"));
            }
            Ok(Some((Frame::data(chunk), (call, chunks))))
        }
    })
}

async fn control(state: &State, request: Request<Incoming>) -> Result<Response<Body>> {
    let answer = match (request.method(), request.uri().path()) {
        (&Method::GET, "/control/calls") => serde_json::to_vec(&*locked(&state.calls))?,
        (&Method::GET, "/control/count") => serde_json::to_vec(&locked(&state.calls).len())?,
        (&Method::PUT, "/control/plan") => {
            let body = request.into_body().collect().await?.to_bytes();
            let plan: Plan = serde_json::from_slice(&body)?;
            *locked(&state.plan) = (plan.first.into(), plan.then);
            state.released.send_replace(false);
            Vec::new()
        }
        (&Method::POST, "/control/release") => {
            state.released.send_replace(true);
            Vec::new()
        }
        (method, path) => bail!("there is no {method} {path}"),
    };
    Ok(Response::new(Either::Left(Full::from(answer))))
}

fn is_chat(wanted: &Value) -> bool {
    wanted.get("messages").is_some()
}

fn usage() -> Value {
    json!({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8})
}

fn completion(wanted: &Value, index: usize) -> Value {
    let text = WORDS.concat();
    let (object, choice) = if is_chat(wanted) {
        let message = json!({"role": "assistant", "content": text});
        let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
        ("chat.completion", choice)
    } else {
        let choice = json!({"index": 0, "text": text, "logprobs": null, "finish_reason": "stop"});
        ("text_completion", choice)
    };
    json!({
        "id": format!("upstream-{index}"), "object": object, "created": 1_700_000_000, "model": wanted["model"],
        "choices": [choice], "usage": usage(), "x_unknown": "passes",
    })
}

fn chunk(wanted: &Value, index: usize, choices: &[Value], usage: Value) -> Bytes {
    let object = if is_chat(wanted) {
        "chat.completion.chunk"
    } else {
        "text_completion"
    };
    let chunk = json!({
        "id": format!("upstream-{index}"), "object": object, "created": 1_700_000_000, "model": wanted["model"],
        "choices": choices, "usage": usage,
    });
    Bytes::from(format!("data: {chunk}\n\n"))
}

// === impl State ===

impl State {
    fn now(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        u64::try_from(now.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
    }
}

// === impl Call ===

impl Call {
    fn begin(state: Arc<State>, request: &Request<Incoming>) -> (Self, Act) {
        let header = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            (name.to_string(), value.into_owned())
        };
        let path = request.uri().path_and_query();
        let mut calls = locked(&state.calls);
        let mut plan = locked(&state.plan);
        let (first, then) = &mut *plan;
        let act = first.pop_front().unwrap_or_else(|| then.clone());
        drop(plan);
        calls.push(Seen {
            at: state.now(),
            path: path.map(ToString::to_string).unwrap_or_default(),
            headers: request.headers().iter().map(header).collect(),
            body: String::new(),
            status: act.status,
            reset: act.reset,
            fate: Fate::Open,
            ended: None,
        });
        let index = calls.len() - 1;
        drop(calls);
        let fate = Fate::Broken;
        (Self { state, index, fate }, act)
    }

    fn answered(mut self) {
        self.fate = Fate::Answered;
    }

    fn update(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut locked(&self.state.calls)[self.index]);
    }

    async fn released(&self) {
        let mut released = self.state.released.subscribe();
        // The sender lives as long as the state.
        drop(released.wait_for(|released| *released).await);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let (fate, ended) = (self.fate, Some(self.state.now()));
        self.update(|seen| (seen.fate, seen.ended) = (fate, ended));
    }
}

/// What is behind it is never left half-changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
