//! Answers of the SDK's calls, and what goes wrong with them.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::HeaderMap;
use http_body::Body as _;
use serde::de::DeserializeOwned;

use crate::{
    Answer, BoxError, BufferedBody, CallError, CallInfo, ErrorKind, codec::sse::EventDecoder,
    provider::inband::error_in,
};

/// A longer event is an error.
const LONGEST_EVENT: usize = 64 * 1024 * 1024;

/// Why a call has no answer, or no whole one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SdkError {
    /// The request does not serialise.
    #[error("the request does not serialise to JSON: {0}")]
    Request(#[source] serde_json::Error),
    /// There is no answer: [`CallError::kind`] says what kind of error it is, [`CallError::status`] the HTTP status.
    #[error("{0}")]
    Call(Box<CallError>),
    /// The answer broke off after it had begun.
    #[error("the answer broke off: {0}")]
    Broken(BoxError),
    /// A stream reported an error after it had begun: its JSON.
    #[error("the stream ended with an error: {0}")]
    Event(String),
    /// The answer is not of the type that was asked for.
    #[error("the answer is of another type: {0}")]
    Answer(#[source] serde_json::Error),
}

impl SdkError {
    /// What kind of error it is, where the call has no answer.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Call(error) => Some(error.kind()),
            _ => None,
        }
    }
}

/// A whole answer.
#[derive(Debug)]
#[non_exhaustive]
pub struct Response {
    /// What the upstream sent: mostly JSON.
    pub bytes: Bytes,
    /// The upstream's headers that pass, `x-litellm-*` and `x-vorrang-*`.
    pub headers: HeaderMap,
    /// What is known of the call: its wait, its deployment, its attempts.
    pub info: CallInfo,
}

impl Response {
    pub(super) async fn read(answer: Answer) -> Result<Self, SdkError> {
        let Answer {
            headers,
            body,
            info,
            ..
        } = answer;
        let mut bytes = Vec::new();
        let mut chunks = Chunks(body);
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk.map_err(SdkError::Broken)?);
        }
        Ok(Self {
            bytes: bytes.into(),
            headers,
            info,
        })
    }

    /// The answer as a type of yours.
    ///
    /// # Errors
    /// [`SdkError::Answer`]: it is none.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, SdkError> {
        serde_json::from_slice(&self.bytes).map_err(SdkError::Answer)
    }
}

/// An event stream: the JSON of each event, without the mark of the end (`[DONE]`). Dropping it ends the call.
#[derive(Debug)]
pub struct EventStream {
    /// The upstream's headers that pass, `x-litellm-*` and `x-vorrang-*`.
    pub headers: HeaderMap,
    /// What is known of the call.
    pub info: CallInfo,
    chunks: Chunks,
    decoder: EventDecoder,
    events: VecDeque<Result<Bytes, SdkError>>,
    ended: bool,
}

impl EventStream {
    pub(super) fn new(answer: Answer) -> Self {
        Self {
            headers: answer.headers,
            info: answer.info,
            chunks: Chunks(answer.body),
            decoder: EventDecoder::keeping(LONGEST_EVENT),
            events: VecDeque::new(),
            ended: false,
        }
    }

    /// The next event as a type of yours; `None` at the end.
    pub async fn event<T: DeserializeOwned>(&mut self) -> Option<Result<T, SdkError>> {
        let event = self.next().await?;
        Some(event.and_then(|json| serde_json::from_slice(&json).map_err(SdkError::Answer)))
    }
}

impl Stream for EventStream {
    type Item = Result<Bytes, SdkError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(event) = this.events.pop_front() {
                if event.is_err() {
                    this.ended = true;
                    this.events.clear();
                }
                return Poll::Ready(Some(event));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            match ready!(this.chunks.poll_next_unpin(context)) {
                None => this.ended = true,
                Some(Err(error)) => this.events.push_back(Err(SdkError::Broken(error))),
                Some(Ok(chunk)) => {
                    let events = &mut this.events;
                    this.decoder.feed(&chunk, |event| {
                        if !event.answers() {
                            return;
                        }
                        let error = error_in(&event.data, event.name == b"error");
                        events.push_back(match error {
                            Some(error) => {
                                let text = String::from_utf8_lossy(&error.body).into_owned();
                                Err(SdkError::Event(text))
                            }
                            None => Ok(Bytes::copy_from_slice(&event.data)),
                        });
                    });
                }
            }
        }
    }
}

/// The data of a body.
#[derive(Debug)]
struct Chunks(BufferedBody);

impl Stream for Chunks {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.0).poll_frame(context)) {
                None => None,
                Some(Err(error)) => Some(Err(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(Ok(data)),
                    Err(_) => continue,
                },
            });
        }
    }
}
