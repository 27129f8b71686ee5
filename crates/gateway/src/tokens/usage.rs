//! What an answer used: as it reports it, else as much text as came. Read on the side, while its bytes pass.

use std::{
    cell::Cell,
    io,
    sync::{Arc, OnceLock},
};

use serde::Deserialize;
use vorrang_scheduler::Tokens;

use crate::{
    codec::coding::{Coding, Decoder},
    tokens::{
        BYTES_PER_TOKEN,
        amount::{Amount, MOST_TOKENS},
        reader::UsageReader,
    },
};

/// What an answer used, in tokens as they count against limits: each amount at most
/// [`MOST_TOKENS`](crate::tokens::amount::MOST_TOKENS).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Cached input by its weight.
    pub(crate) input: u64,
    /// All that is billed beside the input: completions, and thoughts that are only in the total.
    pub(crate) output: u64,
}

impl Usage {
    pub(crate) fn total(self) -> u64 {
        self.input + self.output
    }
}

impl From<Usage> for Tokens {
    fn from(usage: Usage) -> Self {
        Self::new(usage.input, usage.output)
    }
}

/// What a request is known to cost before its answer says so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Expected {
    /// Its text, estimated.
    pub(crate) input: u64,
    /// What a cached token of its input counts, 0 to 1.
    pub(crate) cached_weight: f64,
}

/// The JSON of a usage that an upstream reported, and that the translated answer does not show to its client.
pub(crate) type Hidden = Arc<OnceLock<String>>;

/// The amounts that `usage` objects have reported so far. Each is reported by many names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Reported {
    total: Option<u64>,
    input: Option<u64>,
    output: Option<u64>,
    cached: Option<u64>,
    /// Anthropic's: input that is in neither `input_tokens` nor the other of the two.
    cache_read: Option<u64>,
    cache_written: Option<u64>,
}

impl Reported {
    fn parse(bytes: &[u8]) -> Option<Self> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Wire {
            total_tokens: Amount,
            prompt_tokens: Amount,
            input_tokens: Amount,
            completion_tokens: Amount,
            output_tokens: Amount,
            prompt_tokens_details: Details,
            input_tokens_details: Details,
            /// DeepSeek.
            prompt_cache_hit_tokens: Amount,
            cache_read_input_tokens: Amount,
            cache_creation_input_tokens: Amount,
        }

        #[derive(Default, Deserialize)]
        #[serde(untagged)]
        enum Details {
            Known {
                cached_tokens: Amount,
            },
            #[default]
            Unknown,
            Other(serde::de::IgnoredAny),
        }

        impl Details {
            fn cached(self) -> Option<u64> {
                match self {
                    Self::Known { cached_tokens } => cached_tokens.0,
                    _ => None,
                }
            }
        }

        // A list would be taken for the fields in their order.
        bytes.trim_ascii_start().strip_prefix(b"{")?;
        let wire: Wire = serde_json::from_slice(bytes).ok()?;
        let cached = wire.prompt_tokens_details.cached();
        let cached = cached.or(wire.input_tokens_details.cached());
        // Servers that translate Anthropic's usage have these beside OpenAI's names, which include them.
        let apart = wire.prompt_tokens.0.is_none() && wire.total_tokens.0.is_none();
        Some(Self {
            total: wire.total_tokens.0,
            input: wire.prompt_tokens.0.or(wire.input_tokens.0),
            output: wire.completion_tokens.0.or(wire.output_tokens.0),
            cached: cached.or(wire.prompt_cache_hit_tokens.0),
            cache_read: wire.cache_read_input_tokens.0.filter(|_| apart),
            cache_written: wire.cache_creation_input_tokens.0.filter(|_| apart),
        })
    }

    /// Later reports count; what they leave out is as it was.
    fn merge(&mut self, later: Self) {
        self.total = later.total.or(self.total);
        self.input = later.input.or(self.input);
        self.output = later.output.or(self.output);
        self.cached = later.cached.or(self.cached);
        self.cache_read = later.cache_read.or(self.cache_read);
        self.cache_written = later.cache_written.or(self.cache_written);
    }

    /// `None`: nothing was reported. Zeros are what servers write that do not know yet.
    fn usage(&self, expected: Expected) -> Option<Usage> {
        let some = |amount: &u64| *amount > 0;
        let total = self.total.filter(some);
        let read = self.cache_read.unwrap_or(0);
        let apart = read.saturating_add(self.cache_written.unwrap_or(0));
        let input = self.input.map(|input| input.saturating_add(apart));
        let input = input.map(|input| input.min(MOST_TOKENS));
        let parts = input.filter(some).or(self.output.filter(some));
        total.or(parts)?;
        let input = input.unwrap_or(expected.input);
        let (input, output) = match total {
            Some(total) => (input.min(total), total.saturating_sub(input)),
            None => (input, self.output.unwrap_or(0)),
        };
        let cached = self.cached.unwrap_or(0).max(read).min(input);
        Some(Usage {
            input: input - weighed_off(cached, expected.cached_weight),
            output,
        })
    }
}

/// How much less cached tokens count than others.
fn weighed_off(cached: u64, weight: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a bounded amount"
    )]
    let off = (cached as f64 * (1.0 - weight.clamp(0.0, 1.0))).floor() as u64;
    off.min(cached)
}

/// How much of an answer is decoded to read its usage. Few coded bytes can stand for gigabytes, all of which would be
/// looked at before the next chunk passes.
const MOST_DECODED_BYTES: usize = 32 * 1024 * 1024;

/// Watches the bytes of one answer through its content coding.
#[derive(Debug)]
pub(crate) struct Meter {
    reader: UsageReader,
    decoder: Option<Decoder>,
    /// How many bytes may still be decoded.
    left_bytes: usize,
    expected: Expected,
    reported: Reported,
    /// `None`: there is none, or it has been read.
    hidden: Option<Hidden>,
}

impl Meter {
    pub(crate) fn new(reader: UsageReader, coding: Option<Coding>, expected: Expected) -> Self {
        Self {
            reader,
            decoder: coding.map(Decoder::new),
            left_bytes: MOST_DECODED_BYTES,
            expected,
            reported: Reported::default(),
            hidden: None,
        }
    }

    /// Reads this usage, too, once it is there.
    pub(crate) fn with(self, hidden: Option<Hidden>) -> Self {
        Self { hidden, ..self }
    }

    /// Of an answer whose usage is known already.
    pub(crate) fn known() -> Self {
        let expected = Expected {
            input: 0,
            cached_weight: 1.0,
        };
        Self::new(UsageReader::Known, None, expected)
    }

    /// Takes the next bytes as they pass; gives the usage when it has just been read.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<Usage> {
        let (reader, reported) = (&mut self.reader, Cell::new(None));
        let mut read = |piece: &[u8]| {
            reader.feed(piece, |usage| {
                if let Some(later) = Reported::parse(usage) {
                    let mut merged: Reported = reported.get().unwrap_or(self.reported);
                    merged.merge(later);
                    reported.set(Some(merged));
                }
            });
            Ok(())
        };
        let decoded = match &mut self.decoder {
            Some(decoder) => decoder.feed(bytes, |piece| {
                let left = self.left_bytes.checked_sub(piece.len());
                self.left_bytes = left.ok_or(io::ErrorKind::FileTooLarge)?;
                read(piece)
            }),
            None => read(bytes),
        };
        if let Err(error) = decoded {
            tracing::debug!(%error, "an answer cannot be decoded; its usage is not read");
            self.reader = UsageReader::Known;
        }
        let hidden = self.hidden.as_ref().and_then(|hidden| hidden.get());
        if let Some(later) = hidden.and_then(|usage| Reported::parse(usage.as_bytes())) {
            let mut merged = reported.get().unwrap_or(self.reported);
            merged.merge(later);
            reported.set(Some(merged));
            self.hidden = None;
        }
        self.reported = reported.get()?;
        self.reported.usage(self.expected)
    }

    /// What an answer without a report used, by its text. `whole`: its end was seen. A part of a stream counts, too: its
    /// upstream stops with it. `None`: it was reported, or nothing is known.
    pub(crate) fn estimate(&self, whole: bool) -> Option<Usage> {
        let (scanner, counts) = match &self.reader {
            UsageReader::Known => return None,
            UsageReader::Json(scanner) => (scanner, whole),
            UsageReader::Events(events) => (&events.scanner, true),
        };
        let text = scanner.text_bytes();
        if !counts || text == 0 {
            return None;
        }
        let output = text.div_ceil(BYTES_PER_TOKEN).min(MOST_TOKENS);
        match self.reported.usage(self.expected) {
            None => Some(Usage {
                input: self.expected.input,
                output,
            }),
            // Anthropic's streams report their input first, and the output at the end only.
            Some(begun) if !whole && self.reported.total.is_none() && begun.output < output => {
                Some(Usage { output, ..begun })
            }
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expected = Expected {
        input: 30,
        cached_weight: 1.0,
    };

    fn metered(
        reader: UsageReader,
        expected: Expected,
        text: &str,
        cut: usize,
    ) -> (Meter, Option<Usage>) {
        let mut meter = Meter::new(reader, None, expected);
        let chunks = text.as_bytes().chunks(cut);
        let usage = chunks.fold(None, |usage, chunk| meter.feed(chunk).or(usage));
        (meter, usage)
    }

    fn read(reader: UsageReader, text: &str, cut: usize) -> Option<Usage> {
        metered(reader, EXPECTED, text, cut).1
    }

    fn usage(input: u64, output: u64) -> Option<Usage> {
        Some(Usage { input, output })
    }

    #[test]
    fn usage_is_found_at_any_position_and_chunk_boundary() {
        let reported = r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"details":{"a":[1,{"b":"}"}]}}"#;
        let texts = [
            format!(r#"{{"usage":{reported},"choices":[]}}"#),
            format!(r#"{{"choices":[{{"usage":{reported}}}]}}"#),
            format!(r#"{{"x_groq":{{"id":"x","usage":{reported}}}}}"#),
            format!(
                r#"{{"choices":[{{"usage":{{"total_tokens":99}},"text":"\"usage\":{{ \\"}}] , "usage" : {reported} }}"#
            ),
            format!(
                r#"{{"a":"usage","b":["usage",{{}}],"usage":null,"c":"\u0075sage","usage":{reported}}}"#
            ),
        ];
        for text in texts {
            assert!(
                serde_json::from_str::<serde_json::Value>(&text).is_ok(),
                "{text}"
            );
            for cut in [1, 2, 3, 7, 1000] {
                let read = read(UsageReader::json(), &text, cut);
                assert_eq!(read, usage(3, 4), "{text} by {cut}");
            }
        }
    }

    #[test]
    fn anthropics_usage_adds_cached_input_and_is_read_over_the_events_of_a_stream() {
        let whole = r#"{"type":"message","content":[{"type":"text","text":"hi"}],"usage":{"input_tokens":3,"cache_creation_input_tokens":20,"cache_read_input_tokens":100,"output_tokens":4}}"#;
        assert_eq!(read(UsageReader::json(), whole, 7), usage(123, 4));
        let discounted = Expected {
            cached_weight: 0.1,
            ..EXPECTED
        };
        let (_, weighed) = metered(UsageReader::json(), discounted, whole, 7);
        assert_eq!(weighed, usage(33, 4));
        let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"usage\":{\"input_tokens\":3,\"cache_read_input_tokens\":100,\"output_tokens\":1}}}\n\n";
        let text = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"12345678\"}}\n\n";
        let end = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":15}}\n\n";
        for cut in [1, 13, 1000] {
            let stream = format!("{start}{text}{end}");
            assert_eq!(read(UsageReader::events(), &stream, cut), usage(103, 15));
        }
        // Broken off before its end: what came is more than the first event said.
        let cut_off = format!("{start}{text}{text}{text}");
        let (meter, begun) = metered(UsageReader::events(), EXPECTED, &cut_off, 1000);
        assert_eq!(begun, usage(103, 1));
        assert_eq!(meter.estimate(false), usage(103, 6));
        // Others that report both have the cached input in the whole.
        let both = r#"{"usage":{"prompt_tokens":103,"completion_tokens":4,"cache_read_input_tokens":100}}"#;
        assert_eq!(read(UsageReader::json(), both, 7), usage(103, 4));
    }

    #[test]
    fn usage_fields_are_read_by_all_names_and_bounded() {
        const MOST: u64 = MOST_TOKENS;
        for (reported, expected) in [
            (r#"{"input_tokens":3,"output_tokens":4}"#, usage(3, 4)),
            (
                r#"{"prompt_tokens":3.0,"completion_tokens":"4"}"#,
                usage(3, 4),
            ),
            (
                r#"{"prompt_tokens":3,"completion_tokens":null,"total_tokens":9}"#,
                usage(3, 6),
            ),
            // Thoughts that are not counted in the completion.
            (
                r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":20}"#,
                usage(3, 17),
            ),
            // What was not reported is as it was expected.
            (r#"{"completion_tokens":4}"#, usage(30, 4)),
            (r#"{"total_tokens":9}"#, usage(9, 0)),
            (r#"{"total_tokens":39}"#, usage(30, 9)),
            (
                r#"{"total_tokens":-9,"prompt_tokens":3,"completion_tokens":4}"#,
                usage(3, 4),
            ),
            (
                r#"{"total_tokens":9223372036854775807}"#,
                usage(30, MOST - 30),
            ),
            (
                r#"{"prompt_tokens":18446744073709551615,"completion_tokens":1e300}"#,
                usage(MOST, MOST),
            ),
            (
                r#"{"prompt_tokens":1e300,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1e300}}"#,
                usage(5, 0),
            ),
            (
                r#"{"total_tokens":0,"prompt_tokens":0,"completion_tokens":0}"#,
                None,
            ),
            (r#"{"total_tokens":-1}"#, None),
            (
                r#"{"total_tokens":{"a":1},"prompt_tokens_details":7}"#,
                None,
            ),
            ("{}", None),
            ("[1]", None),
            (r#""x""#, None),
        ] {
            let text = format!(r#"{{"usage":{reported}}}"#);
            assert_eq!(read(UsageReader::json(), &text, 7), expected, "{text}");
        }
    }

    #[test]
    fn cached_input_tokens_count_by_cached_token_weight() {
        let total = |weight: f64, reported: &str| {
            let expected = Expected {
                cached_weight: weight,
                ..EXPECTED
            };
            let text = format!(r#"{{"usage":{reported}}}"#);
            metered(UsageReader::json(), expected, &text, 9)
                .1
                .map(Usage::total)
        };
        for reported in [
            r#"{"prompt_tokens":100,"completion_tokens":10,"prompt_tokens_details":{"cached_tokens":81,"x":1}}"#,
            r#"{"input_tokens":100,"output_tokens":10,"input_tokens_details":{"cached_tokens":81}}"#,
            r#"{"prompt_tokens":100,"completion_tokens":10,"total_tokens":110,"prompt_cache_hit_tokens":81,"prompt_tokens_details":null}"#,
        ] {
            assert_eq!(total(1.0, reported), Some(110), "{reported}");
            assert_eq!(total(0.1, reported), Some(38), "{reported}");
            assert_eq!(total(0.0, reported), Some(29), "{reported}");
        }
        let more_than_all = r#"{"prompt_tokens":10,"prompt_tokens_details":{"cached_tokens":900}}"#;
        assert_eq!(total(0.0, more_than_all), Some(0));
    }

    #[test]
    fn last_usage_of_each_kind_in_a_stream_counts() {
        let text = concat!(
            ": comment\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"data: {\\n\"}}],\"usage\":null}\n\n",
            "event: x\nid: d\ndata:{\"usage\":{\"prompt_tokens\":5}}\n\n",
            "data: {\"choices\":[],\ndata: \"usage\":{\"completion_tokens\":6}}\n\n",
            "data: [DONE]\n\n",
        );
        for end in ["\n", "\r\n", "\r"] {
            let text = text.replace('\n', end);
            for cut in [1, 2, 5, 1000] {
                let read = read(UsageReader::events(), &text, cut);
                assert_eq!(read, usage(5, 6), "{end:?} by {cut}");
            }
        }
    }

    #[test]
    fn answer_without_usage_is_charged_by_its_text() {
        let stream = concat!(
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"reasoning_content\":\"12345678\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"arguments\":\"1234\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"12345\"}}],\"usage\":{\"total_tokens\":0}}\n\n",
        );
        for cut in [1, 5, 1000] {
            let (meter, reported) = metered(UsageReader::events(), EXPECTED, stream, cut);
            assert_eq!(reported, None);
            assert_eq!(meter.estimate(true), usage(30, 5));
            assert_eq!(meter.estimate(false), usage(30, 5));
        }
        let body = r#"{"choices":[{"message":{"content":"12345678"}}]}"#;
        let (meter, _) = metered(UsageReader::json(), EXPECTED, body, 9);
        assert_eq!(meter.estimate(true), usage(30, 2));
        // The rest of it was written all the same.
        assert_eq!(meter.estimate(false), None);
        for body in [
            "{}",
            r#"{"choices":[{"text":"x"}],"usage":{"total_tokens":1}}"#,
        ] {
            let (meter, _) = metered(UsageReader::json(), EXPECTED, body, 9);
            assert_eq!(meter.estimate(true), None);
        }
    }

    #[test]
    fn usage_is_read_from_coded_answers_until_a_decoding_error() {
        let body = br#"{"usage":{"total_tokens":7}}"#;
        let coded = crate::codec::coding::tests::gzip(body);
        let mut meter = Meter::new(UsageReader::json(), Some(Coding::Gzip), EXPECTED);
        let usage = coded
            .chunks(3)
            .fold(None, |usage, chunk| meter.feed(chunk).or(usage));
        assert_eq!(usage.map(Usage::total), Some(7));

        let mut meter = Meter::new(UsageReader::json(), Some(Coding::Gzip), EXPECTED);
        assert_eq!(meter.feed(body), None);
        assert_eq!((meter.feed(&coded), meter.estimate(true)), (None, None));

        let mut meter = Meter::new(UsageReader::json(), Some(Coding::Gzip), EXPECTED);
        meter.left_bytes = body.len() - 1;
        assert_eq!(meter.feed(&coded), None);
    }

    proptest::proptest! {
        #[test]
        fn usage_scanner_agrees_with_a_json_parser(keys in proptest::collection::vec("(usage|[a-z\"\\\\]{0,6})", 0..5), total in 1..1_000_000u64) {
            let value = serde_json::json!({"total_tokens": total, "note": keys});
            let mut object = serde_json::Map::new();
            for key in &keys {
                object.insert(key.clone(), serde_json::json!({"usage": value, "x": [key, {"usage": 1}]}));
            }
            object.insert("usage".into(), value);
            let text = serde_json::Value::from(object).to_string();
            proptest::prop_assert_eq!(read(UsageReader::json(), &text, 3).map(Usage::total), Some(total));
        }
    }
}
