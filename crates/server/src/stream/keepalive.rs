//! Comments in event streams that are silent: balancers close a connection on which nothing comes for a minute or so.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// Clients skip lines that begin with a colon. The empty line is for those that read up to one.
pub(crate) const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");

pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes().split(|byte| *byte == b';').next();
        kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
    })
}

/// An event stream with a comment after each silence of so long; zero: as it is.
pub(crate) fn kept_alive(stream: Body, every: Duration) -> Body {
    if every.is_zero() {
        stream
    } else {
        Body::new(KeepAlive::new(stream, every))
    }
}

/// Proxies neither buffer nor store an event stream.
pub(crate) fn unbuffered(headers: &mut HeaderMap) {
    let uncached = |value: &HeaderValue| {
        let value = value.to_str().unwrap_or_default();
        value.contains("no-cache") || value.contains("no-store")
    };
    if !headers.get_all(header::CACHE_CONTROL).iter().any(uncached) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
}

/// An event stream into which a comment is written whenever nothing has come for a time. All other bytes pass as they are.
struct KeepAlive {
    stream: Body,
    every: Duration,
    silent_until: Pin<Box<Sleep>>,
    position: Position,
}

// === impl KeepAlive ===

impl KeepAlive {
    fn new(stream: Body, every: Duration) -> Self {
        Self {
            stream,
            every,
            silent_until: Box::pin(sleep_until(Instant::now() + every)),
            position: Position::default(),
        }
    }
}

impl http_body::Body for KeepAlive {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let frame = match Pin::new(&mut this.stream).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(bytes) = frame.data_ref() {
                    this.position.pass(bytes);
                }
                frame
            }
            Poll::Ready(end) => return Poll::Ready(end),
            // Within an event a comment would cut it in two: its rest has to come first.
            Poll::Pending if !this.position.between_events() => return Poll::Pending,
            Poll::Pending => {
                std::task::ready!(this.silent_until.as_mut().poll(context));
                Frame::data(COMMENT)
            }
        };
        this.silent_until
            .as_mut()
            .reset(Instant::now() + this.every);
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Comments come on top, however many.
        let mut hint = SizeHint::new();
        hint.set_lower(self.stream.size_hint().lower());
        hint
    }
}

/// Where in an event stream its last byte was. Lines end with `\n`, `\r` or `\r\n`; an empty one ends an event.
#[derive(Debug, Default)]
struct Position {
    /// In a line, after at least one byte of it.
    in_line: bool,
    /// A line that is no comment has begun since the last empty line.
    in_event: bool,
    /// The last byte was `\r`: a `\n` would belong to it.
    after_return: bool,
}

impl Position {
    fn pass(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' if self.after_return => {}
                b'\n' | b'\r' => {
                    self.in_event &= self.in_line;
                    self.in_line = false;
                }
                _ => {
                    self.in_event |= !self.in_line && byte != b':';
                    self.in_line = true;
                }
            }
            self.after_return = byte == b'\r';
        }
    }

    fn between_events(&self) -> bool {
        !self.in_line && !self.in_event
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::stream;
    use http_body_util::BodyExt as _;
    use tokio::{sync::mpsc, time::sleep};

    use super::*;

    const EVERY: Duration = Duration::from_secs(15);

    type Upstream = mpsc::UnboundedSender<Result<&'static str, std::io::Error>>;

    fn silent() -> (Upstream, Body) {
        let (upstream, chunks) = mpsc::unbounded_channel();
        let chunks = stream::unfold(chunks, |mut chunks| async {
            Some((chunks.recv().await?, chunks))
        });
        (upstream, kept_alive(Body::from_stream(chunks), EVERY))
    }

    async fn next(body: &mut Body) -> Option<Bytes> {
        let frame = body.frame().await?;
        Some(frame.unwrap().into_data().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn silent_stream_gets_a_comment_after_each_keepalive_interval() {
        let (upstream, mut body) = silent();
        let begun = Instant::now();
        for comments in 1..=2 {
            assert_eq!(next(&mut body).await.unwrap(), COMMENT);
            assert_eq!(begun.elapsed().as_secs(), 15 * comments);
        }
        sleep(EVERY - Duration::from_secs(1)).await;
        upstream.send(Ok("data: 1\n\n")).unwrap();
        assert_eq!(next(&mut body).await.unwrap(), "data: 1\n\n");
        // What comes from the upstream ends a silence.
        let since = Instant::now();
        assert_eq!(next(&mut body).await.unwrap(), COMMENT);
        assert_eq!(since.elapsed(), EVERY);
        drop(upstream);
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn keepalive_comment_is_never_inside_an_event() {
        let (upstream, mut body) = silent();
        for part in ["data: {\"a\":", " 1}", "\r", "\n", ": note\n", "data: 2\n"] {
            upstream.send(Ok(part)).unwrap();
            assert_eq!(next(&mut body).await.unwrap(), part);
            let silence = tokio::time::timeout(10 * EVERY, body.frame()).await;
            assert!(silence.is_err(), "a comment after {part:?}");
        }
        upstream.send(Ok("\n")).unwrap();
        assert_eq!(next(&mut body).await.unwrap(), "\n");
        assert_eq!(next(&mut body).await.unwrap(), COMMENT);
    }

    #[tokio::test(start_paused = true)]
    async fn stream_error_passes_the_keepalive_layer() {
        let (upstream, mut body) = silent();
        upstream.send(Err(std::io::Error::other("broken"))).unwrap();
        assert!(body.frame().await.unwrap().is_err());
    }

    #[test]
    fn event_boundary_is_found_for_all_line_endings_and_cuts() {
        for (stream, between) in [
            ("", true),
            ("data: 1\n\n", true),
            ("data: 1\r\n\r\n", true),
            ("data: 1\r\r", true),
            ("data: 1\n\nid: 2", false),
            ("data: 1\n", false),
            ("data: 1\r\n", false),
            ("data: 1\r\n\r", true),
            (": note\n", true),
            (": note", false),
            ("data: 1\n: note\n", false),
            ("data: 1\n: note\n\n", true),
            ("\n\n", true),
        ] {
            for cut in 0..=stream.len() {
                let mut position = Position::default();
                position.pass(&stream.as_bytes()[..cut]);
                position.pass(&stream.as_bytes()[cut..]);
                assert_eq!(
                    position.between_events(),
                    between,
                    "{stream:?} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn event_streams_are_detected_and_marked_unbuffered() {
        let headers = |kind: &'static str, control: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(control));
            headers
        };
        for (kind, expected) in [
            ("text/event-stream", true),
            ("Text/Event-Stream ; charset=utf-8", true),
            ("text/event-streams", false),
            ("application/json", false),
        ] {
            assert_eq!(is_event_stream(&headers(kind, "")), expected, "{kind}");
        }
        for (sent, expected) in [
            ("max-age=60", "no-cache"),
            ("no-cache, no-transform", "no-cache, no-transform"),
        ] {
            let mut headers = headers("text/event-stream", sent);
            unbuffered(&mut headers);
            assert_eq!(headers[header::CACHE_CONTROL], expected);
            assert_eq!(headers["x-accel-buffering"], "no");
        }
    }
}
