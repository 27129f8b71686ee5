//! When an answer has begun: with its first event, or as a whole.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use serde::de::IgnoredAny;

use crate::{
    codec::{
        coding::{self, Coding},
        sse::EventDecoder,
    },
    endpoint::AnswerKind,
    provider::{
        http::{HttpError, Response},
        inband::{InBand, error_in},
    },
};

/// A whole answer beyond this has begun without being read to its end, and passes chunk by chunk. So does a stream without an event until then.
const LONGEST_BYTES: usize = 1024 * 1024;

/// An answer that has begun.
pub(crate) enum Beginning {
    /// All of it, as it came and without its content coding.
    Whole { coded: Bytes, plain: Bytes },
    /// What has been read; the rest is still to come.
    Part(Vec<Bytes>),
}

/// Why an answer with a head that says success has not begun.
pub(crate) enum NoBeginning {
    /// The connection broke.
    Broken(HttpError),
    /// What came is an error.
    Error(InBand),
    /// What came is no answer; what it is instead, for the client.
    Useless(&'static str),
}

/// What an answer's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Server-sent events.
    Events,
    Json,
    Html,
    /// An endpoint's own that is neither: any bytes.
    Binary,
    /// An endpoint's own: any text.
    Text,
    Other,
}

impl Kind {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let text = headers
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        let kind = text.split(';').next().unwrap_or_default().trim();
        let is = |other: &str| kind.eq_ignore_ascii_case(other);
        let ends = |end: &str| {
            let start = kind.len().checked_sub(end.len());
            start.is_some_and(|start| kind.as_bytes()[start..].eq_ignore_ascii_case(end.as_bytes()))
        };
        if is("text/event-stream") {
            Self::Events
        } else if is("text/html") || is("application/xhtml+xml") {
            Self::Html
        } else if ends("/json") || ends("+json") {
            Self::Json
        } else {
            Self::Other
        }
    }
}

const HTML: &str = "The upstream answered with an HTML page";
const EMPTY: &str = "The upstream's answer was empty";
const NO_EVENT: &str = "The upstream's stream ended before its first event";
const NO_JSON: &str = "The upstream's answer was not valid JSON";
const NO_CODING: &str = "The upstream's answer was not coded as it says";

/// Reads until the answer has begun. `stream`: the client asked for one.
pub(crate) async fn read(
    response: &mut Response,
    coding: Option<Coding>,
    stream: bool,
    answers: AnswerKind,
) -> Result<Beginning, NoBeginning> {
    let kind = match (Kind::of(response.headers()), answers) {
        (Kind::Other, AnswerKind::Binary) => Kind::Binary,
        (Kind::Other, AnswerKind::Text) => Kind::Text,
        (kind, _) => kind,
    };
    let reader = BeginningReader {
        response,
        read: Vec::new(),
        size: 0,
        coding: coding.map(coding::Decoder::new),
        plain: Vec::new(),
    };
    match kind {
        Kind::Events => reader.first_event().await,
        Kind::Binary => reader.first_bytes().await,
        kind => reader.whole(kind, stream).await,
    }
}

/// What has been read of an answer.
struct BeginningReader<'a> {
    response: &'a mut Response,
    /// As it came.
    read: Vec<Bytes>,
    size: usize,
    coding: Option<coding::Decoder>,
    /// Without its coding, where it has one.
    plain: Vec<u8>,
}

impl BeginningReader<'_> {
    /// Reads the next chunk; false at the end.
    async fn next(&mut self) -> Result<bool, NoBeginning> {
        let coded = |_| NoBeginning::Useless(NO_CODING);
        match self.response.chunk().await {
            Ok(Some(chunk)) => {
                self.size += chunk.len();
                if let Some(coding) = &mut self.coding {
                    let plain = &mut self.plain;
                    let keep = |bytes: &[u8]| {
                        // A chunk may decode to very much: nothing beyond the bound is read.
                        let room = (LONGEST_BYTES + 1).saturating_sub(plain.len());
                        plain.extend_from_slice(&bytes[..room.min(bytes.len())]);
                        Ok(())
                    };
                    coding.feed(&chunk, keep).map_err(coded)?;
                }
                self.read.push(chunk);
                Ok(true)
            }
            Ok(None) => {
                if let Some(coding) = &mut self.coding {
                    coding.finish().map_err(coded)?;
                }
                Ok(false)
            }
            Err(error) => Err(NoBeginning::Broken(error)),
        }
    }

    fn too_long(&self) -> bool {
        self.size > LONGEST_BYTES || self.plain.len() > LONGEST_BYTES
    }

    async fn first_event(mut self) -> Result<Beginning, NoBeginning> {
        let mut decoder = EventDecoder::default();
        let (mut chunks, mut bytes) = (0, 0);
        loop {
            let mut first = None;
            let mut each = |bytes: &[u8]| {
                decoder.feed(bytes, |event| {
                    if first.is_none() && event.answers() {
                        first = Some(error_in(&event.data, event.name == b"error"));
                    }
                });
            };
            if self.coding.is_some() {
                each(&self.plain[bytes..]);
            } else {
                self.read[chunks..].iter().for_each(|chunk| each(chunk));
            }
            (chunks, bytes) = (self.read.len(), self.plain.len());
            match first {
                Some(Some(error)) => return Err(NoBeginning::Error(error)),
                Some(None) => return Ok(Beginning::Part(self.read)),
                None if self.too_long() => return Ok(Beginning::Part(self.read)),
                None => {}
            }
            if !self.next().await? {
                return Err(NoBeginning::Useless(NO_EVENT));
            }
        }
    }

    /// Sound is heard while it comes.
    async fn first_bytes(mut self) -> Result<Beginning, NoBeginning> {
        while self.next().await? {
            if self.size > 0 {
                return Ok(Beginning::Part(self.read));
            }
        }
        Err(NoBeginning::Useless(EMPTY))
    }

    async fn whole(mut self, kind: Kind, stream: bool) -> Result<Beginning, NoBeginning> {
        while self.next().await? {
            if stream && kind == Kind::Other {
                let start = match &self.coding {
                    Some(_) => &self.plain[..],
                    None => &self.read[0],
                };
                // Some servers forget to say that they stream.
                if looks_like_events(start) {
                    return self.first_event().await;
                }
                if !start.is_empty() && !start.starts_with(b"{") && !start.starts_with(b"<") {
                    return Ok(Beginning::Part(self.read));
                }
            }
            if self.too_long() {
                return if kind == Kind::Html {
                    Err(NoBeginning::Useless(HTML))
                } else {
                    Ok(Beginning::Part(self.read))
                };
            }
        }
        let coded = joined(self.read, self.size);
        let plain = match self.coding {
            Some(_) => Bytes::from(self.plain),
            None => coded.clone(),
        };
        let checked = (kind != Kind::Text).then(|| no_answer(&plain, kind));
        match checked.flatten() {
            Some(no_beginning) => Err(no_beginning),
            None => Ok(Beginning::Whole { coded, plain }),
        }
    }
}

fn joined(mut read: Vec<Bytes>, size: usize) -> Bytes {
    match (read.pop(), read.is_empty()) {
        (None, _) => Bytes::new(),
        (Some(only), true) => only,
        (Some(last), false) => {
            let mut whole = BytesMut::with_capacity(size);
            for chunk in read.into_iter().chain([last]) {
                whole.extend_from_slice(&chunk);
            }
            whole.freeze()
        }
    }
}

pub(crate) fn looks_like_events(bytes: &[u8]) -> bool {
    [&b"data:"[..], b"event:", b":", b"id:", b"retry:"]
        .iter()
        .any(|start| bytes.starts_with(start))
}

/// Why a whole body is no answer.
fn no_answer(body: &[u8], kind: Kind) -> Option<NoBeginning> {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let text = text.trim_ascii();
    if text.is_empty() {
        return Some(NoBeginning::Useless(EMPTY));
    }
    if let Some(error) = error_in(text, false) {
        return Some(NoBeginning::Error(error));
    }
    let starts = |tag: &[u8]| {
        text.get(..tag.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(tag))
    };
    let json = text.starts_with(b"{");
    if starts(b"<!doctype html") || starts(b"<html") || (kind == Kind::Html && !json) {
        return Some(NoBeginning::Useless(HTML));
    }
    let json = json || kind == Kind::Json;
    if json && serde_json::from_slice::<IgnoredAny>(text).is_err() {
        return Some(NoBeginning::Useless(NO_JSON));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_kind_follows_the_content_type() {
        let kind = |kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            Kind::of(&headers)
        };
        assert_eq!(kind("Text/Event-Stream; charset=x"), Kind::Events);
        assert_eq!(kind("application/json"), Kind::Json);
        assert_eq!(kind("application/problem+json"), Kind::Json);
        assert_eq!(kind("text/html;x"), Kind::Html);
        assert_eq!(kind("text/plain"), Kind::Other);
        assert_eq!(Kind::of(&HeaderMap::new()), Kind::Other);
    }

    #[test]
    fn empty_html_malformed_and_error_bodies_are_no_answer() {
        let why = |body: &str, kind| match no_answer(body.as_bytes(), kind) {
            None => "",
            Some(NoBeginning::Useless(why)) => why,
            Some(NoBeginning::Error(_)) => "error",
            Some(NoBeginning::Broken(_)) => "broken",
        };
        for (body, kind, expected) in [
            ("{}", Kind::Json, ""),
            ("plain words", Kind::Other, ""),
            ("", Kind::Json, EMPTY),
            ("\u{feff} \n", Kind::Other, EMPTY),
            ("\n<!DOCTYPE HTML><p>", Kind::Other, HTML),
            ("<html lang=de>", Kind::Json, HTML),
            ("<p>busy", Kind::Html, HTML),
            ("{}", Kind::Html, ""),
            ("{\"choices\":[", Kind::Other, NO_JSON),
            ("busy", Kind::Json, NO_JSON),
            (r#"{"error":{"code":429}}"#, Kind::Other, "error"),
        ] {
            assert_eq!(why(body, kind), expected, "{body}");
        }
    }
}
