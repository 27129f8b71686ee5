//! AWS's event streams as server-sent events. A frame of Bedrock's has one of Anthropic's events, as base64 in JSON, or one
//! of Converse's, of which a header of the frame says the type.

use std::io;

use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{answer::body::BoxError, provider::http::Response, translate::response};

/// What AWS says that its streams are.
const KIND: &str = "application/vnd.amazon.eventstream";

/// Types of Converse's events.
const CONVERSE: &[&str] = &[
    "messageStart",
    "contentBlockStart",
    "contentBlockDelta",
    "contentBlockStop",
    "messageStop",
    "metadata",
];

/// More than any frame of theirs has.
const LONGEST_FRAME_BYTES: usize = 24 * 1024 * 1024;

/// An answer with server-sent events where it has AWS's.
pub(crate) fn as_sse(answer: Response) -> Response {
    let kind = answer.headers().get(header::CONTENT_TYPE);
    if kind.is_none_or(|kind| !kind.as_bytes().starts_with(KIND.as_bytes())) {
        return answer;
    }
    let mut answer = response::rewritten(answer, None, |chunks| {
        let state = (chunks, Frames::default());
        stream::try_unfold(state, |(mut chunks, mut frames)| async move {
            loop {
                let Some(chunk) = chunks.try_next().await? else {
                    return frames.end().map(|()| None);
                };
                let events = frames.feed(&chunk)?;
                if !events.is_empty() {
                    return Ok(Some((events, (chunks, frames))));
                }
            }
        })
        .boxed()
    });
    let events = HeaderValue::from_static("text/event-stream");
    answer.headers_mut().insert(header::CONTENT_TYPE, events);
    answer
}

#[derive(Default)]
struct Frames {
    decoder: MessageFrameDecoder,
    buffer: BytesMut,
    /// Bytes of a frame have come that is not whole.
    within: bool,
}

impl Frames {
    fn feed(&mut self, chunk: &[u8]) -> Result<Bytes, BoxError> {
        self.buffer.extend_from_slice(chunk);
        self.within |= !chunk.is_empty();
        if self.buffer.len() > LONGEST_FRAME_BYTES {
            return Err(broken("a frame of the upstream's stream is too long"));
        }
        let mut events = String::new();
        loop {
            let decoded = self.decoder.decode_frame(&mut self.buffer);
            match decoded.map_err(|_| broken("a frame of the upstream's stream is not valid"))? {
                DecodedFrame::Incomplete => return Ok(events.into()),
                DecodedFrame::Complete(message) => {
                    self.within = self.buffer.has_remaining();
                    let (mut exception, mut kind) = (None, None);
                    for header in message.headers() {
                        let value = header.value().as_string().map(|text| text.as_str());
                        let value = value.ok().map(str::to_owned);
                        match header.name().as_str() {
                            ":exception-type" | ":error-code" => exception = value,
                            ":event-type" => kind = value,
                            _ => {}
                        }
                    }
                    let event = match (exception, kind) {
                        (Some(kind), _) => Some(failed(&kind, message.payload())),
                        (None, Some(kind)) if CONVERSE.contains(&kind.as_str()) => {
                            Some(typed(kind, message.payload())?)
                        }
                        (None, _) => event(message.payload())?,
                    };
                    if let Some(event) = event {
                        let name = event["type"].as_str().unwrap_or("message").to_owned();
                        events.push_str(&format!("event: {name}\ndata: {event}\n\n"));
                    }
                }
            }
        }
    }

    fn end(&self) -> Result<(), BoxError> {
        if self.within {
            return Err(broken("the upstream's stream ended within a frame"));
        }
        Ok(())
    }
}

/// One of Converse's events, with its type as Anthropic's have it.
fn typed(kind: String, payload: &[u8]) -> Result<Value, BoxError> {
    let unreadable = || broken("a frame of the upstream's stream has no event");
    let mut event: Value = serde_json::from_slice(payload).map_err(|_| unreadable())?;
    let fields = event.as_object_mut().ok_or_else(unreadable)?;
    fields.insert("type".into(), kind.into());
    Ok(event)
}

/// The event in a frame; `None`: it has none, as AWS may add frames.
fn event(payload: &[u8]) -> Result<Option<Value>, BoxError> {
    #[derive(Deserialize)]
    struct Chunk {
        bytes: Option<String>,
    }
    let unreadable = || broken("a frame of the upstream's stream has no event");
    let chunk: Chunk = serde_json::from_slice(payload).map_err(|_| unreadable())?;
    let Some(bytes) = chunk.bytes else {
        return Ok(None);
    };
    let json = BASE64_STANDARD.decode(bytes).map_err(|_| unreadable())?;
    let event: Value = serde_json::from_slice(&json).map_err(|_| unreadable())?;
    Ok(Some(event))
}

/// AWS's exceptions as Anthropic's errors.
fn failed(exception: &str, payload: &[u8]) -> Value {
    let kind = match exception {
        "throttlingException" => "rate_limit_error",
        "validationException" => "invalid_request_error",
        "serviceUnavailableException" => "overloaded_error",
        "modelTimeoutException" => "timeout_error",
        _ => "api_error",
    };
    let said: Value = serde_json::from_slice(payload).unwrap_or_default();
    let message = said["message"].as_str().unwrap_or(exception);
    json!({"type": "error", "error": {"type": kind, "message": message}})
}

fn broken(why: &'static str) -> BoxError {
    io::Error::other(why).into()
}
