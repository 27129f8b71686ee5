//! Reads `usage` on the side, while an answer's bytes pass: nothing is buffered but the value itself.

use serde::Deserialize;

use crate::coding::{Coding, Decoder};

/// More than any `usage` object needs; a longer one is not read.
const LONGEST_VALUE: usize = 16 * 1024;

/// What an answer says it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) total: u64,
    pub(crate) completion: Option<u64>,
}

impl Usage {
    fn parse(bytes: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Wire {
            total_tokens: Option<u64>,
            prompt_tokens: Option<u64>,
            completion_tokens: Option<u64>,
        }
        let wire: Wire = serde_json::from_slice(bytes).ok()?;
        let total = wire
            .total_tokens
            .or_else(|| Some(wire.prompt_tokens? + wire.completion_tokens.unwrap_or(0)))?;
        Some(Self {
            total,
            completion: wire.completion_tokens,
        })
    }
}

/// Watches the bytes of one answer through its content coding.
#[derive(Debug)]
pub(crate) struct Meter {
    reader: UsageReader,
    decoder: Option<Decoder>,
}

impl Meter {
    pub(crate) fn new(reader: UsageReader, coding: Option<Coding>) -> Self {
        Self {
            reader,
            decoder: coding.map(Decoder::new),
        }
    }

    /// Takes the next bytes as they pass; gives the usage when it has just been read.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<Usage> {
        let Some(decoder) = &mut self.decoder else {
            return self.reader.feed(bytes);
        };
        let mut usage = None;
        let decoded = decoder.feed(bytes, |piece| {
            usage = self.reader.feed(piece).or(usage);
            Ok(())
        });
        if let Err(error) = decoded {
            tracing::debug!(%error, "an answer's content coding is broken; its usage is not read");
            self.reader = UsageReader::Known;
        }
        usage
    }
}

/// Watches the decoded bytes of one answer.
#[derive(Debug)]
pub(crate) enum UsageReader {
    /// What was used is known already.
    Known,
    /// One JSON object.
    Json(Scanner),
    /// Server-sent events: each event's data is a JSON object; the last usage counts.
    Events(EventReader),
}

impl UsageReader {
    pub(crate) fn json() -> Self {
        Self::Json(Scanner::default())
    }

    pub(crate) fn events() -> Self {
        Self::Events(EventReader::default())
    }

    /// Takes the next bytes, however they are cut; gives the usage when it has just been read.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<Usage> {
        match self {
            Self::Known => None,
            Self::Json(scanner) => {
                let mut usage = None;
                for &byte in bytes {
                    usage = scanner.step(byte).or(usage);
                }
                usage
            }
            Self::Events(events) => events.feed(bytes),
        }
    }
}

/// Splits an event stream into the data of its events.
#[derive(Debug, Default)]
pub(crate) struct EventReader {
    line: Line,
    scanner: Scanner,
}

/// Where in a line of an event stream we are.
#[derive(Debug, Clone, Copy, Default)]
enum Line {
    /// At its start, with nothing yet: if it ends here, the event ends.
    #[default]
    Empty,
    /// So many bytes of `data:` have come.
    Field(usize),
    Data,
    Other,
}

impl EventReader {
    const FIELD: &'static [u8] = b"data:";

    fn feed(&mut self, bytes: &[u8]) -> Option<Usage> {
        let mut usage = None;
        for &byte in bytes {
            self.line = match (self.line, byte) {
                (Line::Empty, b'\n') => {
                    self.scanner = Scanner::default();
                    Line::Empty
                }
                (Line::Empty, b'\r') => Line::Empty,
                (_, b'\n') => Line::Empty,
                (Line::Empty, b'd') => Line::Field(1),
                (Line::Field(seen), _) if Self::FIELD.get(seen) == Some(&byte) => {
                    if seen + 1 == Self::FIELD.len() {
                        Line::Data
                    } else {
                        Line::Field(seen + 1)
                    }
                }
                (Line::Data, _) => {
                    usage = self.scanner.step(byte).or(usage);
                    Line::Data
                }
                _ => Line::Other,
            };
        }
        usage
    }
}

/// Finds the value of the key `usage` at the top level of a JSON object, byte by byte, in constant memory.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// The string being read at the top level, as far as it can still be `usage`.
    matched: Option<usize>,
    /// The last string at the top level was `usage`; if a colon follows, it was a key.
    key_read: bool,
    /// The value so far.
    value: Option<Vec<u8>>,
}

impl Scanner {
    const KEY: &'static [u8] = b"usage";

    fn step(&mut self, byte: u8) -> Option<Usage> {
        if let Some(value) = &mut self.value {
            let ends = !self.in_string && self.depth == 1 && matches!(byte, b',' | b'}');
            if ends {
                let usage = Usage::parse(value);
                self.value = None;
                self.structure(byte);
                return usage;
            }
            value.push(byte);
            if value.len() > LONGEST_VALUE {
                self.value = None;
            }
        }
        if self.in_string {
            self.string(byte)
        } else {
            self.structure(byte)
        }
        None
    }

    fn string(&mut self, byte: u8) {
        if self.escaped {
            self.escaped = false;
            self.matched = None;
        } else if byte == b'\\' {
            self.escaped = true;
            self.matched = None;
        } else if byte == b'"' {
            self.in_string = false;
            self.key_read = self.matched == Some(Self::KEY.len());
        } else {
            self.matched = self
                .matched
                .filter(|&at| Self::KEY.get(at) == Some(&byte))
                .map(|at| at + 1);
        }
    }

    fn structure(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b'"' => {
                self.in_string = true;
                self.matched = (self.depth == 1 && self.value.is_none()).then_some(0);
            }
            b':' if self.key_read && self.depth == 1 => self.value = Some(Vec::new()),
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            self.key_read = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut reader: UsageReader, text: &str, cut: usize) -> Option<Usage> {
        text.as_bytes()
            .chunks(cut)
            .fold(None, |usage, chunk| reader.feed(chunk).or(usage))
    }

    #[test]
    fn usage_is_found_wherever_it_stands_and_however_the_bytes_are_cut() {
        let usage = r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"details":{"a":[1,{"b":"}"}]}}"#;
        let texts = [
            format!(r#"{{"usage":{usage},"choices":[]}}"#),
            format!(
                r#"{{"choices":[{{"usage":{{"total_tokens":99}},"text":"\"usage\":{{ \\"}}] , "usage" : {usage} }}"#
            ),
            format!(
                r#"{{"a":"usage","b":["usage",{{}}],"usage":null,"c":"\u0075sage","usage":{usage}}}"#
            ),
        ];
        for text in texts {
            assert!(
                serde_json::from_str::<serde_json::Value>(&text).is_ok(),
                "{text}"
            );
            for cut in [1, 2, 3, 7, 1000] {
                assert_eq!(
                    read(UsageReader::json(), &text, cut),
                    Some(Usage {
                        total: 7,
                        completion: Some(4)
                    }),
                    "{text} by {cut}"
                );
            }
        }
    }

    #[test]
    fn the_last_usage_of_a_stream_counts() {
        let text = concat!(
            ": comment\r\n\r\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"data: {\\n\"}}],\"usage\":null}\r\n\r\n",
            "event: x\nid: d\ndata:{\"usage\":{\"total_tokens\":1}}\n\n",
            "data: {\"choices\":[],\ndata: \"usage\":{\"prompt_tokens\":5,\"completion_tokens\":6,\"total_tokens\":11}}\n\n",
            "data: [DONE]\n\n",
        );
        for cut in [1, 2, 5, 1000] {
            assert_eq!(
                read(UsageReader::events(), text, cut),
                Some(Usage {
                    total: 11,
                    completion: Some(6)
                }),
                "by {cut}"
            );
        }
    }

    #[test]
    fn no_usage_is_none_and_an_endless_one_takes_no_memory() {
        for text in [
            "{}",
            "[1]",
            r#"{"usage":"x"}"#,
            r#"{"usage":{"total_tokens":-1}}"#,
            r#"{"x":{"usage":{"total_tokens":1}}}"#,
            "}}}\"",
            "",
        ] {
            assert_eq!(read(UsageReader::json(), text, 1), None, "{text}");
        }
        let mut reader = UsageReader::json();
        reader.feed(b"{\"usage\":[");
        for _ in 0..1000 {
            assert_eq!(reader.feed(&[b'1'; 1000]), None);
        }
        let UsageReader::Json(scanner) = &reader else {
            panic!()
        };
        assert!(scanner.value.is_none());
    }

    proptest::proptest! {
        #[test]
        fn it_agrees_with_a_json_parser(keys in proptest::collection::vec("(usage|[a-z\"\\\\]{0,6})", 0..5), total in 0..1_000_000u64) {
            let value = serde_json::json!({"total_tokens": total, "note": keys});
            let mut object = serde_json::Map::new();
            for key in &keys {
                object.insert(key.clone(), serde_json::json!({"usage": value, "x": [key, {"usage": 1}]}));
            }
            object.insert("usage".into(), value);
            let text = serde_json::Value::from(object).to_string();
            proptest::prop_assert_eq!(read(UsageReader::json(), &text, 3).map(|usage| usage.total), Some(total));
        }
    }
}
