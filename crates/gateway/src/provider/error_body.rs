//! What an upstream says about a call that it refuses, in a form that a client of OpenAI's API can read.

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::StatusCode;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    http::Response,
    secrets::Secrets,
    words::{LONGEST_MESSAGE_CHARS, bounded, said, text_of},
};
use crate::codec::coding::{Coding, Decoder};

/// How much of an error's body is read, without its content coding.
const MOST_READ_BYTES: usize = 1024 * 1024;

/// A longer error object is not passed on as a whole: it may be kept while its request waits for a retry.
const LONGEST_OBJECT_BYTES: usize = 256 * 1024;

/// How deep a message may be wrapped.
const DEEPEST: u32 = 8;

/// How long the rest of an error may take after its head: what has come by then is used.
const PATIENCE: Duration = Duration::from_secs(5);

/// An upstream's error: its JSON error object, or at least some words.
#[derive(Debug)]
pub(crate) struct ErrorBody {
    /// `{"error": {...}}` with a text as its message.
    pub(crate) object: Option<Bytes>,
    pub(crate) message: String,
}

/// Reads the body of an answer that is no success, within bounds of size and time.
pub(crate) async fn read(response: Response, until: Instant, secrets: &Secrets) -> ErrorBody {
    let status = response.status();
    let mut reader = ErrorReader::default();
    match Coding::of(response.headers()) {
        Ok(coding) => reader.decoder = coding.map(Decoder::new),
        // The status alone has to say it.
        Err(_) => return ErrorBody::new(status, &[], true, secrets),
    }
    let read = async {
        let mut chunks = response.into_bytes();
        while let Some(chunk) = chunks.next().await {
            let taken = chunk.map_err(io::Error::other);
            if taken.and_then(|chunk| reader.feed(&chunk)).is_err() {
                return false;
            }
        }
        true
    };
    let until = until.min(Instant::now() + PATIENCE);
    let whole = tokio::time::timeout_at(until, read).await;
    ErrorBody::new(status, &reader.bytes, whole.unwrap_or(false), secrets)
}

#[derive(Default)]
struct ErrorReader {
    bytes: Vec<u8>,
    decoder: Option<Decoder>,
}

impl ErrorReader {
    /// An error ends the reading; what came before it stays.
    fn feed(&mut self, chunk: &[u8]) -> io::Result<()> {
        let bytes = &mut self.bytes;
        let mut keep = |piece: &[u8]| {
            let room = MOST_READ_BYTES - bytes.len();
            bytes.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.len() > room {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(())
        };
        match &mut self.decoder {
            Some(decoder) => decoder.feed(chunk, keep),
            None => keep(chunk),
        }
    }
}

impl ErrorBody {
    /// From a body without its coding. `whole`: its end was seen. Some servers repeat the key that they refuse: it is replaced wherever it is.
    pub(crate) fn new(status: StatusCode, bytes: &[u8], whole: bool, secrets: &Secrets) -> Self {
        let status = status.as_u16();
        let mut value: Value = match serde_json::from_slice(bytes) {
            Ok(value) if whole => value,
            _ => {
                let text = String::from_utf8_lossy(bytes);
                let text = if whole {
                    text
                } else {
                    secrets.without_cut_off(&text).to_owned().into()
                };
                return Self {
                    object: None,
                    message: with_status(status, &secrets.mask(&text_of(&text))),
                };
            }
        };
        let changed = secrets.mask_value(&mut value);
        // Google's servers wrap the object in a list.
        let unwrapped = match value {
            Value::Array(mut list) if list.len() == 1 => list.remove(0),
            value => value,
        };
        let message = match said(&unwrapped, DEEPEST) {
            Some(said) => secrets.mask(&bounded(&said)),
            None if unwrapped.is_null() => with_status(status, ""),
            None => with_status(status, &secrets.mask(&bounded(&unwrapped.to_string()))),
        };
        let object = unwrapped["error"].is_object().then(|| {
            let as_it_is = unwrapped["error"]
                .get("message")
                .is_none_or(Value::is_string);
            let short = bytes.len() <= LONGEST_OBJECT_BYTES;
            if as_it_is && short && !changed && bytes.trim_ascii_start().starts_with(b"{") {
                return Bytes::copy_from_slice(bytes);
            }
            let mut object = unwrapped;
            if !as_it_is || !short {
                object["error"]["message"] = message.clone().into();
            }
            if !short {
                object = bounded_object(&object["error"]);
            }
            Bytes::from(object.to_string())
        });
        Self { object, message }
    }
}

/// Of an object that is too long: the short fields that clients look at.
fn bounded_object(error: &Value) -> Value {
    let fields = ["message", "type", "param", "code", "status"];
    let kept = fields.iter().filter_map(|name| {
        let value = error.get(*name)?;
        let short = !value.is_array() && !value.is_object();
        let short = short
            && value
                .as_str()
                .is_none_or(|text| text.len() <= 4 * LONGEST_MESSAGE_CHARS);
        short.then(|| ((*name).to_owned(), value.clone()))
    });
    serde_json::json!({ "error": kept.collect::<serde_json::Map<_, _>>() })
}

fn with_status(status: u16, words: &str) -> String {
    match words {
        "" => format!("The upstream answered {status}"),
        words => format!("The upstream answered {status}: {words}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ErrorBody {
        ErrorBody::new(
            StatusCode::BAD_REQUEST,
            text.as_bytes(),
            true,
            &Secrets::default(),
        )
    }

    #[test]
    fn error_object_with_a_text_message_or_none_passes_byte_for_byte() {
        let object = " {\"error\":{\"message\":\"no\",\"extra\":1.00} , \"z\":[ ]}";
        assert_eq!(read(object).object.as_deref(), Some(object.as_bytes()));
        let silent = r#"{"error":{"code":7}}"#;
        assert_eq!(read(silent).object.as_deref(), Some(silent.as_bytes()));
    }

    #[test]
    fn error_object_is_unwrapped_and_its_message_becomes_text() {
        for (text, object) in [
            (
                r#"[{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT"}}]"#,
                r#"{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT"}}"#,
            ),
            (
                r#"{"error":{"message":{"detail":[{"msg":"too long"}]},"code":"x"}}"#,
                r#"{"error":{"message":"too long","code":"x"}}"#,
            ),
            (
                r#"{"error":{"message":["a","b"]}}"#,
                r#"{"error":{"message":"a; b"}}"#,
            ),
        ] {
            let error = read(text);
            assert_eq!(error.object.as_deref(), Some(object.as_bytes()), "{text}");
        }
    }

    #[test]
    fn message_is_extracted_from_known_error_formats() {
        for (text, message) in [
            (r#"{"object":"error","message":"too long"}"#, "too long"),
            (r#"{"message":{"message":"too long"}}"#, "too long"),
            (r#"{"detail":"Not Found"}"#, "Not Found"),
            (r#"{"detail":{"error":{"message":"inner"}}}"#, "inner"),
            (
                r#"{"detail":[{"loc":["body","messages",0],"msg":"field required"},{"loc":["body","n"],"msg":"too big"}]}"#,
                "body.messages.0: field required; body.n: too big",
            ),
            (r#"{"error":"busy"}"#, "busy"),
            (r#"{"error":"","message":"the second"}"#, "the second"),
            (r#"{"errors":["one","two"]}"#, "one; two"),
            (
                r#"{"message":"{\"error\":{\"message\":\"wrapped\"}}"}"#,
                "wrapped",
            ),
            (
                r#"{"type":"about:blank","title":"Bad","detail":"why"}"#,
                "why",
            ),
            (r#""just a text""#, "just a text"),
        ] {
            let error = read(text);
            assert_eq!(
                (error.object, error.message.as_str()),
                (None, message),
                "{text}"
            );
        }
    }

    #[test]
    fn unknown_error_body_is_quoted_on_one_printable_line() {
        for (text, message) in [
            ("", "The upstream answered 400"),
            ("null", "The upstream answered 400"),
            (
                " max_tokens\r\n\tis \u{1b}[31mtoo\u{202e} large\0",
                "The upstream answered 400: max_tokens is [31mtoo large",
            ),
            (
                r#"{"code":17}"#,
                r#"The upstream answered 400: {"code":17}"#,
            ),
            ("[1]", "The upstream answered 400: 1"),
            (
                "<!DOCTYPE html><html><head><title>413 Request\nEntity Too Large</title></head><body>x</body></html>",
                "The upstream answered 400: 413 Request Entity Too Large",
            ),
            (
                "<html><style>b{}</style><script>if (a<b) {}</script><body><h1>Bad &amp; ugly</h1> gateway</body>",
                "The upstream answered 400: Bad & ugly gateway",
            ),
            ("<html", "The upstream answered 400"),
            (
                r#"{"error":{"message":"cut"#,
                r#"The upstream answered 400: {"error":{"message":"cut"#,
            ),
        ] {
            assert_eq!(read(text).message, message, "{text}");
        }
    }

    #[test]
    fn long_error_messages_are_truncated() {
        let echo = "x".repeat(300 * 1024);
        let object = read(&format!(
            r#"{{"error":{{"message":"too long: {echo}","type":"invalid_request_error","code":"c","echo":"{echo}"}}}}"#
        ));
        let value: Value = serde_json::from_slice(&object.object.unwrap()).unwrap();
        let message = value["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("too long: xxx") && message.len() < 2100);
        assert_eq!(value["error"]["code"], "c");
        assert_eq!(value["error"].as_object().unwrap().len(), 3);

        for text in [
            format!("too long: {echo}"),
            format!(r#"{{"detail":"too long: {echo}"}}"#),
        ] {
            let error = read(&text);
            assert!(error.object.is_none());
            assert!(error.message.contains("too long: xxx") && error.message.len() < 2100);
        }
    }

    #[test]
    fn api_key_in_an_error_body_is_masked_in_every_notation() {
        let key = Secrets::new(["sk-sec/ret".to_owned()]);
        for text in [
            r#"{"error":{"message":"Incorrect API key: sk-sec/ret","a":["sk-sec/ret"]}}"#,
            r#"{"error":{"message":"Incorrect API key: \u0073k-sec\/ret"}}"#,
            r#"{"error":{"message":"key","sk-sec/ret":{"deep":"sk-sec\u002fret"}}}"#,
            r#"{"detail":"{\"message\":\"sk-sec\\/ret\"}"}"#,
            r#"{"code":"sk-sec/ret"}"#,
            "Incorrect API key: sk-sec/ret",
            "<html><title>sk-sec/ret</title>",
        ] {
            let error = ErrorBody::new(StatusCode::UNAUTHORIZED, text.as_bytes(), true, &key);
            let object = String::from_utf8(error.object.unwrap_or_default().to_vec()).unwrap();
            for shown in [&object, &error.message] {
                assert!(!shown.contains("sec"), "{text}: {shown}");
            }
            assert!(
                format!("{object}{}", error.message).contains("***"),
                "{text}"
            );
        }
        let cut = ErrorBody::new(StatusCode::UNAUTHORIZED, b"bad key sk-sec/re", false, &key);
        assert_eq!(cut.message, "The upstream answered 401: bad key");
    }

    proptest::proptest! {
        #[test]
        fn message_of_any_error_body_is_printable_and_not_empty(bytes: Vec<u8>, whole: bool) {
            let error = ErrorBody::new(StatusCode::BAD_REQUEST, &bytes, whole, &Secrets::default());
            proptest::prop_assert!(!error.message.is_empty());
            proptest::prop_assert!(!error.message.contains(char::is_control));
        }
    }
}
