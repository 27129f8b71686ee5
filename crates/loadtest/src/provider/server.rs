//! The provider's HTTP side.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::{
    Fault, FaultRule, Faults, Kind, Outcome, Settings, Violation,
    answer::{Answer, Wanted, error},
    ledger::{Call, Ledger},
};

/// More than any call of a test.
const LARGEST_BODY: usize = 64 << 20;

/// Tokens come in chunks so far apart or more: some thousand streams on one machine are to load the gateway, not the simulator.
const CHUNK_PACE: f64 = 0.05;

/// How long a call above `concurrency` waits for the end of another one whose caller has left: the two travel on different connections, and the
/// caller cannot make the end arrive first.
const SETTLING: Duration = Duration::from_millis(100);

/// A reset discards what has not been sent: so long the first half of a broken answer has.
const BREAK_PAUSE: Duration = Duration::from_millis(20);

/// A provider that listens.
#[derive(Debug)]
pub struct Provider {
    listener: TcpListener,
    ledger: Arc<Ledger>,
}

/// The connection is to be reset.
#[derive(Debug, Error)]
#[error("reset, as the fault says")]
struct Reset;

type Body = StreamBody<BoxStream<'static, io::Result<Frame<Bytes>>>>;
type Answered = Result<Response<Body>, Reset>;

/// Asked by the connection at its end.
type ResetFlag = Arc<AtomicBool>;

impl Provider {
    /// Listens at an address; port 0 is a free one.
    ///
    /// # Errors
    /// The address cannot be had, or a fault rule makes no sense.
    pub async fn bind(host: &str, port: u16, settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind((host, port)).await?;
        let ledger = Ledger::new(settings).map_err(io::Error::other)?;
        Ok(Self {
            listener,
            ledger: Arc::new(ledger),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped.
    pub async fn serve(self) -> Infallible {
        tokio::select! {
            never = self.accept() => never,
            never = self.ledger.watch() => never,
        }
    }

    async fn accept(&self) -> Infallible {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(connection(self.ledger.clone(), stream));
                }
                // Out of descriptors: trying at once would only burn time until some are free.
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

/// Serves one connection; a reset is one on the wire (RST), not a polite end.
async fn connection(ledger: Arc<Ledger>, stream: TcpStream) {
    drop(stream.set_nodelay(true));
    let reset = ResetFlag::default();
    let service = {
        let reset = reset.clone();
        service_fn(move |request| {
            let answer: Pin<Box<dyn Future<Output = Answered> + Send>> =
                Box::pin(answer(ledger.clone(), request, reset.clone()));
            answer
        })
    };
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = connection;
    let ended = std::future::poll_fn(|context| connection.poll_without_shutdown(context)).await;
    if ended.is_err() && reset.load(Ordering::Relaxed) {
        let stream = connection.into_parts().io.into_inner();
        drop(socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)));
    }
}

async fn answer(ledger: Arc<Ledger>, request: Request<Incoming>, reset: ResetFlag) -> Answered {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, LARGEST_BODY).collect().await else {
        return Ok(refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            "The body is too large or broke off",
        ));
    };
    let body = body.to_bytes();
    match (&head.method, head.uri.path()) {
        (&Method::POST, "/v1/chat/completions") => call(ledger, true, &body, reset).await,
        (&Method::POST, "/v1/completions") => call(ledger, false, &body, reset).await,
        (&Method::GET, "/report") => Ok(json(&ledger.report())),
        (&Method::GET, "/health") => Ok(json(&"serving")),
        (&Method::POST, "/reset") => {
            ledger.reset();
            Ok(json(&"reset"))
        }
        (&Method::POST, "/faults") => Ok(match faults(&body) {
            Ok(faults) => {
                ledger.set_faults(faults);
                json(&"set")
            }
            Err(mistake) => refusal(StatusCode::BAD_REQUEST, "invalid_request_error", &mistake),
        }),
        (method, path) => {
            let message = format!("Nothing is served at {method} {path}");
            Ok(refusal(
                StatusCode::NOT_FOUND,
                "invalid_request_error",
                &message,
            ))
        }
    }
}

fn faults(body: &[u8]) -> Result<Faults, String> {
    let rules: Vec<FaultRule> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Faults::new(rules)
}

/// One call from its arrival to its answer's first byte.
async fn call(ledger: Arc<Ledger>, chat: bool, body: &[u8], reset: ResetFlag) -> Answered {
    let wanted = match Wanted::parse(chat, body) {
        Ok(wanted) => wanted,
        Err(mistake) => {
            ledger.invalid();
            return Ok(refusal(
                StatusCode::BAD_REQUEST,
                "invalid_request_error",
                &mistake,
            ));
        }
    };
    let (mut call, mut within) = ledger.arrive(&wanted);
    if within.is_ok() && !ledger.settled(SETTLING).await {
        within = Err(Violation {
            kind: Kind::Concurrency,
            retry_after: Duration::from_secs(1),
        });
    }
    if let Err(violation) = within {
        call.refused(violation.kind);
        return Ok(too_many(violation));
    }
    call.admitted();
    let fault = call.fault().cloned();
    let kind = fault.as_ref().map(|rule| rule.fault);
    match (&fault, kind) {
        (Some(rule), Some(Fault::Error)) => {
            call.end(Outcome::Failed, Some(0));
            return Ok(failure(rule));
        }
        (_, Some(Fault::Reset)) => {
            call.end(Outcome::Failed, Some(0));
            reset.store(true, Ordering::Relaxed);
            return Err(Reset);
        }
        (Some(rule), Some(Fault::Stall)) => sleep(rule.time.0).await,
        _ => {}
    }
    let terms = ledger.terms(&wanted);
    let factor = fault.map_or(1.0, |rule| {
        if rule.fault == Fault::Slow {
            rule.factor
        } else {
            1.0
        }
    });
    let speed = terms.token_speed / factor;
    let answer = Answer::new(call.number(), chat, &wanted, terms.tokens);
    sleep(terms.latency).await;
    let breaks = kind == Some(Fault::Break);
    if wanted.streams() {
        let stream = streamed(call, answer, speed, breaks, reset);
        return Ok(response(
            StatusCode::OK,
            "text/event-stream",
            stream.boxed(),
        ));
    }
    sleep(pause(answer.tokens(), speed)).await;
    let bytes = answer.whole();
    let length = bytes.len();
    let stream = whole(call, answer, bytes, breaks, reset);
    let mut response = response(StatusCode::OK, "application/json", stream.boxed());
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length.into());
    Ok(response)
}

/// How long so many tokens take.
fn pause(tokens: u64, speed: f64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
    let seconds = tokens as f64 / speed.max(0.001);
    Duration::from_secs_f64(seconds.min(86_400.0))
}

/// An answer in one piece; or half of it. The call is over before its last byte can be read.
fn whole(
    call: Call,
    answer: Answer,
    bytes: Bytes,
    breaks: bool,
    reset: ResetFlag,
) -> impl stream::Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static {
    stream::try_unfold(Some((call, bytes, false)), move |state| {
        let (tokens, reset) = (answer.total_tokens(), reset.clone());
        async move {
            let Some((mut call, bytes, begun)) = state else {
                return Ok(None);
            };
            if begun {
                return Err(broken_off(&mut call, &reset).await);
            }
            if breaks {
                let half = bytes.slice(..bytes.len() / 2);
                return Ok(Some((Frame::data(half), Some((call, bytes, true)))));
            }
            call.end(Outcome::Answered, Some(tokens));
            Ok(Some((Frame::data(bytes), None)))
        }
    })
}

/// Ends a call in the middle of its answer, when what was said before is on its way.
async fn broken_off(call: &mut Call, reset: &ResetFlag) -> io::Error {
    sleep(BREAK_PAUSE).await;
    call.end(Outcome::Failed, None);
    reset.store(true, Ordering::Relaxed);
    io::Error::other(Reset)
}

/// An answer as server-sent events, at its speed; or half of it.
fn streamed(
    call: Call,
    answer: Answer,
    speed: f64,
    breaks: bool,
    reset: ResetFlag,
) -> impl stream::Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small number of tokens; saturates"
    )]
    let step = ((speed * CHUNK_PACE).ceil() as u64).max(1);
    let state = (call, answer, 0, false);
    stream::try_unfold(state, move |(mut call, answer, sent, over)| {
        let reset = reset.clone();
        async move {
            if over {
                return Ok(None);
            }
            let to = (sent + step).min(answer.tokens());
            if breaks && to > answer.tokens() / 2 {
                return Err(broken_off(&mut call, &reset).await);
            }
            if sent == answer.tokens() {
                call.end(Outcome::Answered, Some(answer.total_tokens()));
                let last = answer.last_chunk();
                return Ok(Some((Frame::data(last), (call, answer, sent, true))));
            }
            sleep(pause(to - sent, speed)).await;
            let chunk = answer.chunk(sent, to);
            Ok(Some((Frame::data(chunk), (call, answer, to, false))))
        }
    })
}

fn response(
    status: StatusCode,
    kind: &'static str,
    stream: BoxStream<'static, io::Result<Frame<Bytes>>>,
) -> Response<Body> {
    let mut response = Response::new(StreamBody::new(stream));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn json(value: &impl Serialize) -> Response<Body> {
    // Maps with string keys, numbers and strings: always JSON.
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    in_one(StatusCode::OK, bytes.into())
}

fn in_one(status: StatusCode, bytes: Bytes) -> Response<Body> {
    let length = bytes.len();
    let frame = stream::iter([Ok(Frame::data(bytes))]);
    let mut response = response(status, "application/json", frame.boxed());
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length.into());
    response
}

fn refusal(status: StatusCode, kind: &str, message: &str) -> Response<Body> {
    in_one(status, error(status.as_u16(), kind, message))
}

fn with_retry_after(mut response: Response<Body>, seconds: Option<u64>) -> Response<Body> {
    if let Some(seconds) = seconds {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn too_many(violation: Violation) -> Response<Body> {
    let message = format!("Rate limit reached: {:?}", violation.kind);
    let refusal = refusal(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", &message);
    // Whole seconds are all that HTTP has.
    let seconds = violation.retry_after.as_secs_f64().ceil().max(1.0);
    with_retry_after(refusal, Some(Duration::from_secs_f64(seconds).as_secs()))
}

fn failure(rule: &FaultRule) -> Response<Body> {
    let status = StatusCode::from_u16(rule.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let refusal = refusal(status, "upstream_error", "As the fault says");
    with_retry_after(refusal, rule.retry_after)
}
