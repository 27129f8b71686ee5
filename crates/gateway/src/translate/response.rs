//! An upstream's answer while it is translated: its head, and its bytes as they come.

use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use http::header;
use serde_json::json;

use super::{Asked, BrokenOff, EventTranslator, Translation};
use crate::{
    answer::body::BoxError,
    attempt::begin::{Kind, looks_like_events},
    codec::{
        coding::{self, Coding},
        sse::EventDecoder,
    },
    provider::{http::Response, inband},
};

/// A longer event, or whole answer, is not translated.
pub(super) const LONGEST_EVENT_BYTES: usize = 8 * 1024 * 1024;
const LONGEST_ANSWER_BYTES: usize = 64 * 1024 * 1024;

pub(crate) type Chunks = BoxStream<'static, Result<Bytes, BoxError>>;

/// The answer in the client's format, without a content coding. What is no answer passes as it came.
pub(crate) fn translated(
    response: Response,
    coding: Option<Coding>,
    translation: Translation,
    asked: Asked,
) -> Response {
    let events = Kind::of(response.headers()) == Kind::Events;
    rewritten(response, coding, |chunks| {
        let first = State::First(chunks, events, translation, asked);
        stream::try_unfold(first, State::next).boxed()
    })
}

/// An answer with other bytes, of which the length is not known.
pub(crate) fn rewritten(
    mut response: Response,
    coding: Option<Coding>,
    with: impl FnOnce(Chunks) -> Chunks,
) -> Response {
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::CONTENT_ENCODING);
    response.rewritten(|bytes| {
        let mut chunks = bytes.map_err(BoxError::from).boxed();
        if let Some(coding) = coding {
            chunks = coding::decoded(chunks, coding).boxed();
        }
        with(chunks)
    })
}

enum State {
    First(Chunks, bool, Translation, Asked),
    Events(Chunks, Box<(EventDecoder, EventTranslator)>),
    End,
}

impl State {
    /// The next bytes that are not none.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, BoxError> {
        loop {
            self = match self {
                Self::First(mut chunks, mut events, translation, asked) => {
                    let first = loop {
                        match chunks.try_next().await? {
                            Some(chunk) if chunk.is_empty() => {}
                            first => break first,
                        }
                    };
                    let Some(first) = first else {
                        return Ok(None);
                    };
                    events |= looks_like_events(&first);
                    let chunks = stream::iter([Ok(first)]).chain(chunks).boxed();
                    if !events {
                        let answer =
                            whole(chunks, |answer| translation.answer(answer, &asked)).await?;
                        return Ok(Some((answer, Self::End)));
                    }
                    let decoder = EventDecoder::keeping(LONGEST_EVENT_BYTES);
                    Self::Events(chunks, Box::new((decoder, translation.events(asked))))
                }
                Self::Events(mut chunks, mut both) => {
                    let (decoder, translator) = &mut *both;
                    let mut out = Vec::new();
                    let Some(chunk) = chunks.try_next().await? else {
                        translator.end(&mut out).map_err(broken)?;
                        return Ok((!out.is_empty()).then(|| (out.into(), Self::End)));
                    };
                    let mut failed = None;
                    decoder.feed(&chunk, |event| {
                        if failed.is_none() {
                            failed = translator.feed(event, &mut out).err();
                        }
                    });
                    if let Some(failed) = failed {
                        return Err(broken(failed));
                    }
                    let next = Self::Events(chunks, both);
                    if !out.is_empty() {
                        return Ok(Some((out.into(), next)));
                    }
                    next
                }
                Self::End => return Ok(None),
            }
        }
    }
}

fn broken(BrokenOff(why): BrokenOff) -> BoxError {
    io::Error::other(why).into()
}

/// A whole answer in the client's format; an error, and what is not JSON, as it came. `translate`: `None` is no answer.
async fn whole(
    mut chunks: Chunks,
    translate: impl FnOnce(&[u8]) -> Option<Bytes>,
) -> Result<Bytes, BoxError> {
    let mut answer = BytesMut::new();
    while let Some(chunk) = chunks.try_next().await? {
        if answer.len().saturating_add(chunk.len()) > LONGEST_ANSWER_BYTES {
            return Err(io::Error::other("the answer is too long to be translated").into());
        }
        answer.extend_from_slice(&chunk);
    }
    let answer = answer.freeze();
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&answer).is_ok();
    if !is_json || inband::error_in(&answer, false).is_some() {
        return Ok(answer);
    }
    Ok(translate(&answer).unwrap_or_else(|| {
        let message = "The upstream's answer has not the format that it was asked in";
        let error = json!({"error": {"message": message, "type": "api_error", "code": 502}});
        Bytes::from(error.to_string())
    }))
}
