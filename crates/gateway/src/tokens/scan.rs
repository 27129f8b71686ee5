//! Reads a JSON text as its bytes pass, in bounded memory: the reported usage, and how much text of a model there is.

use memchr::memchr2;

use crate::tokens::role::{Of, Role};

/// More than any `usage` object needs; a longer one is not read.
const LONGEST_USAGE_BYTES: usize = 16 * 1024;

/// What most of them have at most.
const USUAL_USAGE_BYTES: usize = 384;

/// Deeper values are not looked at.
const DEEPEST: usize = 64;

/// The bytes that mean something outside of strings.
const STRUCTURAL: [bool; 256] = {
    let mut structural = [false; 256];
    let mut bytes: &[u8] = b"\"{}[]:,";
    while let [byte, rest @ ..] = bytes {
        structural[*byte as usize] = true;
        bytes = rest;
    }
    structural
};

#[derive(Debug, Clone, Copy)]
struct Container {
    role: Role,
    object: bool,
}

/// Scans one JSON text after the other.
#[derive(Debug)]
pub(crate) struct Scanner {
    start: Role,
    /// The containers that are open, as far as they are looked at.
    open: Vec<Container>,
    /// How many more are open: in one that is skipped, or too deep.
    beyond: usize,
    /// What the next value is.
    expected: Role,
    string: Option<Text>,
    /// The next string is a key.
    key_next: bool,
    key: Vec<u8>,
    usage: Option<Capture>,
    written: Written,
}

/// A string that is being read.
#[derive(Debug, Clone, Copy)]
struct Text {
    key: bool,
    counts: bool,
    escape: Escape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    Begun,
    /// So many digits of `\u` have come, and what they say.
    Unicode(u8, u32),
}

/// A `usage` that is being read.
#[derive(Debug)]
struct Capture {
    /// How many containers are open around it.
    depth: usize,
    bytes: Vec<u8>,
}

/// Bytes of text, as UTF-8 without JSON's escapes.
#[derive(Debug, Clone, Copy, Default)]
struct Written {
    all: u64,
    reasoning: u64,
    reasoning_content: u64,
}

/// Longer keys are none that is looked for.
const LONGEST_KEY: usize = 24;

impl Scanner {
    /// For answers, and for the events of one.
    pub(crate) fn answer() -> Self {
        Self::new(Role::Answer)
    }

    fn new(start: Role) -> Self {
        Self {
            start,
            open: Vec::new(),
            beyond: 0,
            expected: start,
            string: None,
            key_next: false,
            key: Vec::new(),
            usage: None,
            written: Written::default(),
        }
    }

    /// Another text begins; the text that was counted stays.
    pub(crate) fn restart(&mut self) {
        self.open.clear();
        self.key.clear();
        self.beyond = 0;
        self.expected = self.start;
        self.string = None;
        self.key_next = false;
        self.usage = None;
    }

    /// Bytes of text that have come so far.
    pub(crate) fn text_bytes(&self) -> u64 {
        let Written {
            all,
            reasoning,
            reasoning_content,
        } = self.written;
        all.saturating_add(reasoning.max(reasoning_content))
    }

    /// Takes the next bytes, however they are cut, and gives each `usage` that ends in them.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut usage: impl FnMut(&[u8])) {
        while let [byte, ..] = bytes {
            if self.usage.is_none() {
                bytes = self.step(bytes);
                continue;
            }
            if self.ends_capture(*byte) {
                if let Some(capture) = self.usage.take() {
                    usage(&capture.bytes);
                }
                continue;
            }
            let rest = self.step(bytes);
            self.capture(&bytes[..bytes.len() - rest.len()]);
            bytes = rest;
        }
    }

    /// Takes some of the bytes, at least one: of a string, or up to a byte of the structure, or that byte. Gives the rest.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        match self.string {
            Some(text) => self.in_string(text, bytes),
            None => self.outside(bytes),
        }
    }

    /// Whether the capture ends before this byte.
    fn ends_capture(&self, byte: u8) -> bool {
        let depth = self.open.len() + self.beyond;
        let within = |capture: &Capture| capture.depth != depth;
        self.string.is_none()
            && matches!(byte, b',' | b'}')
            && !self.usage.as_ref().is_some_and(within)
    }

    fn capture(&mut self, bytes: &[u8]) {
        if let Some(capture) = &mut self.usage {
            capture.bytes.extend_from_slice(bytes);
            if capture.bytes.len() > LONGEST_USAGE_BYTES {
                self.usage = None;
            }
        }
    }

    fn count(&mut self, bytes: usize) {
        let written = &mut self.written;
        let counter = match self.expected {
            Role::Text(Of::All) | Role::Raw => &mut written.all,
            Role::Text(Of::Reasoning) => &mut written.reasoning,
            Role::Text(Of::ReasoningContent) => &mut written.reasoning_content,
            _ => return,
        };
        *counter = counter.saturating_add(bytes as u64);
    }

    /// Bytes of a string without escapes.
    fn take(&mut self, text: Text, bytes: &[u8]) {
        if text.key && self.key.len() <= LONGEST_KEY {
            self.key
                .extend_from_slice(&bytes[..bytes.len().min(LONGEST_KEY + 1)]);
        }
        if text.counts {
            self.count(bytes.len());
        }
    }

    /// Takes bytes of a string, and perhaps its end; gives the rest.
    fn in_string<'a>(&mut self, mut text: Text, mut bytes: &'a [u8]) -> &'a [u8] {
        if !text.key && text.escape == Escape::None {
            bytes = self.in_value(text, bytes);
            if self.string.is_none() {
                return bytes;
            }
        }
        loop {
            if text.escape == Escape::None {
                // Most bytes are plain ones.
                let plain = memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
                if plain > 0 {
                    self.take(text, &bytes[..plain]);
                    bytes = &bytes[plain..];
                }
            }
            let [byte, rest @ ..] = bytes else {
                self.string = Some(text);
                return bytes;
            };
            bytes = rest;
            if text.escape == Escape::None && *byte == b'"' {
                self.string = None;
                return bytes;
            }
            self.escaped(&mut text, *byte);
        }
    }

    /// Takes bytes of a string that is no key, up to its end or an escape that is cut or says a code: only their number counts.
    fn in_value<'a>(&mut self, text: Text, mut bytes: &'a [u8]) -> &'a [u8] {
        let mut length = 0;
        loop {
            let plain = memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
            length += plain;
            bytes = &bytes[plain..];
            match bytes {
                [b'\\', escaped, rest @ ..] if *escaped != b'u' => {
                    length += 1;
                    bytes = rest;
                    continue;
                }
                [b'"', rest @ ..] => {
                    self.string = None;
                    bytes = rest;
                }
                _ => {}
            }
            if text.counts {
                self.count(length);
            }
            return bytes;
        }
    }

    /// Takes a byte of an escape.
    fn escaped(&mut self, text: &mut Text, byte: u8) {
        match text.escape {
            Escape::None => text.escape = Escape::Begun,
            Escape::Begun if byte == b'u' => text.escape = Escape::Unicode(0, 0),
            Escape::Begun => {
                let byte = match byte {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    other => other,
                };
                self.take(*text, &[byte]);
                text.escape = Escape::None;
            }
            Escape::Unicode(digits, value) => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                let (digits, value) = (digits + 1, value * 16 + digit);
                text.escape = Escape::Unicode(digits, value);
                if digits == 4 {
                    text.escape = Escape::None;
                    match char::from_u32(value) {
                        Some(char) => {
                            let mut utf8 = [0; 4];
                            self.take(*text, char.encode_utf8(&mut utf8).as_bytes());
                        }
                        // Half of a pair, which is four bytes.
                        None => self.take(*text, b"??"),
                    }
                }
            }
        }
    }

    /// Takes bytes outside of strings; gives the rest.
    fn outside<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let structural = bytes.iter().position(|byte| STRUCTURAL[usize::from(*byte)]);
        match structural {
            Some(0) => {
                self.structure(bytes[0]);
                &bytes[1..]
            }
            end => {
                let (run, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
                if self.in_raw() {
                    let bytes = run.iter().filter(|byte| !byte.is_ascii_whitespace());
                    self.count(bytes.count());
                }
                rest
            }
        }
    }

    fn structure(&mut self, byte: u8) {
        let in_object = self.open.last().is_some_and(|container| container.object);
        match byte {
            b'"' => {
                let key = in_object && self.key_next && self.beyond == 0;
                if key {
                    self.key.clear();
                    // In raw JSON a key counts like a value.
                    self.expected = self.open.last().map_or(Role::Skipped, |open| open.role);
                }
                if self.in_raw() {
                    // Its quotes.
                    self.count(2);
                }
                self.string = Some(Text {
                    key,
                    counts: self.beyond == 0,
                    escape: Escape::None,
                });
                return;
            }
            b'{' | b'[' => self.opened(byte == b'{'),
            b'}' | b']' => {
                self.key_next = false;
                if self.beyond > 0 {
                    self.beyond -= 1;
                    return;
                }
                if let Some(closed) = self.open.pop() {
                    self.expected = closed.role;
                    self.count(usize::from(closed.role == Role::Raw));
                }
                self.expected = Role::Skipped;
                return;
            }
            b':' if self.beyond == 0 && in_object => {
                let role = self.open.last().map_or(Role::Skipped, |open| open.role);
                self.expected = role.of_key(&self.key);
                self.key_next = false;
                if self.expected == Role::Usage {
                    let bytes = Vec::with_capacity(USUAL_USAGE_BYTES);
                    let depth = self.open.len();
                    self.usage = Some(Capture { depth, bytes });
                }
            }
            b',' if self.beyond == 0 => {
                self.key_next = in_object;
                self.expected = match self.open.last() {
                    Some(open) if !open.object || open.role == Role::Raw => open.role.of_element(),
                    _ => Role::Skipped,
                };
            }
            _ => {}
        }
        if self.in_raw() {
            self.count(1);
        }
    }

    /// Within a container all of which counts.
    fn in_raw(&self) -> bool {
        self.beyond == 0 && self.open.last().is_some_and(|open| open.role == Role::Raw)
    }

    fn opened(&mut self, object: bool) {
        if self.beyond > 0 || self.open.len() == DEEPEST {
            self.beyond += 1;
            return;
        }
        let role = if object {
            self.expected.of_object()
        } else {
            self.expected
        };
        if role == Role::Skipped {
            // Nothing in it is looked for: its end is.
            self.expected = Role::Skipped;
            self.beyond += 1;
            return;
        }
        self.open.push(Container { role, object });
        self.key_next = object;
        self.expected = if object && role != Role::Raw {
            Role::Skipped
        } else {
            role.of_element()
        };
    }
}

/// Bytes of text in a request's `messages`: what was written, tool calls and reasoning, but no images or audio.
pub(crate) fn of_messages(json: &str) -> u64 {
    scanned(json, Role::Text(Of::All))
}

/// Bytes of JSON that a model is given as text, without insignificant white space.
pub(crate) fn of_raw(json: &str) -> u64 {
    scanned(json, Role::Raw)
}

fn scanned(json: &str, role: Role) -> u64 {
    let mut scanner = Scanner::new(role);
    scanner.feed(json.as_bytes(), |_| {});
    scanner.text_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{request::fields::quoted, tokens::scan_reference::Scanner as Reference};

    fn written(json: &str, cut: usize) -> (u64, Vec<String>) {
        let mut scanner = Scanner::answer();
        let mut usages = Vec::new();
        for chunk in json.as_bytes().chunks(cut) {
            scanner.feed(chunk, |usage| {
                usages.push(String::from_utf8(usage.to_vec()).unwrap());
            });
        }
        (scanner.text_bytes(), usages)
    }

    #[test]
    fn scanner_counts_text_by_its_key_at_any_chunk_boundary() {
        for (json, bytes) in [
            (
                r#"{"choices":[{"message":{"role":"assistant","content":"12345"}}]}"#,
                5,
            ),
            (
                r#"{"choices":[{"text":"123"},{"text":"45","finish_reason":"stop"}]}"#,
                5,
            ),
            (
                r#"{"choices":[{"delta":{"content":[{"type":"text","text":"123"}],"refusal":"45"}}]}"#,
                5,
            ),
            (
                r#"{"choices":[{"delta":{"reasoning":"123","reasoning_content":"123","content":"4"}}]}"#,
                4,
            ),
            (
                r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"12","arguments":"{\"a\":1}"}}]}}]}"#,
                9,
            ),
            (
                r#"{"choices":[{"message":{"function_call":{"arguments":{"a": [1, "x"]}}}}]}"#,
                13,
            ),
            (
                r#"{"choices":[{"message":{"content":null,"audio":{"data":"AAAAAAAA","transcript":"123"}}}]}"#,
                3,
            ),
            (
                r#"{"choices":[{"message":{"content":"\u00e9\"\n\ud83d\ude00"},"logprobs":{"content":[{"token":"x"}]}}]}"#,
                8,
            ),
            (
                r#"{"content":"no","id":"no","choices":{"delta":{"content":"no"}},"error":{"message":"no"}}"#,
                0,
            ),
        ] {
            assert!(
                serde_json::from_str::<serde_json::Value>(json).is_ok(),
                "{json}"
            );
            for cut in [1, 2, 3, 7, 1000] {
                assert_eq!(written(json, cut), (bytes, vec![]), "{json} by {cut}");
            }
        }
    }

    #[test]
    fn usage_is_found_at_top_level_in_choices_and_in_wrappers() {
        let json = r#"{"a":{"usage":1},"usage" : {"x":"},","y":[{}]} ,"usage":null,"choices":[{"usage":{"z":1},"delta":{"usage":2}}],"x_groq":{"id":"usage","usage":{}},"\u0075sage":7,"usage":"s"}"#;
        for cut in [1, 3, 1000] {
            let (_, usages) = written(json, cut);
            let expected = [
                r#" {"x":"},","y":[{}]} "#,
                "null",
                r#"{"z":1}"#,
                "{}",
                "7",
                r#""s""#,
            ];
            assert_eq!(usages, expected, "by {cut}");
        }
    }

    #[test]
    fn request_counts_text_and_tool_calls_but_no_image_data() {
        let image = "A".repeat(4000);
        let messages = format!(
            r#"[{{"role":"user","name":"me","content":[{{"type":"text","text":"12345678"}},{{"type":"image_url","image_url":{{"url":"{image}"}}}},{{"type":"input_audio","input_audio":{{"data":"{image}"}}}}]}},{{"role":"assistant","content":null,"reasoning_content":"1234","tool_calls":[{{"id":"x","function":{{"name":"f","arguments":"{{}}"}}}}]}},"12"]"#
        );
        assert_eq!(of_messages(&messages), 2 + 8 + 4 + 1 + 2 + 2);
        assert_eq!(
            of_raw(r#"[ { "a" : "b c\"" , "d" : [ 1.5 , true, null ] } ]"#),
            34
        );
        assert_eq!(of_raw(r#"{"a":{}}"#), 8);
    }

    #[test]
    fn scanner_memory_is_bounded_for_deep_and_long_input() {
        let deep = format!(
            "{}\"usage\":1{}",
            "[{\"a\":".repeat(100_000),
            "}]".repeat(100_000)
        );
        let mut scanner = Scanner::answer();
        scanner.feed(deep.as_bytes(), |_| {});
        assert!(scanner.open.capacity() <= 2 * DEEPEST);

        let mut scanner = Scanner::answer();
        scanner.feed(b"{\"usage\":[\"", |_| {});
        for _ in 0..100 {
            scanner.feed(&[b'1'; 1000], |_| panic!("no usage"));
        }
        assert!(scanner.usage.is_none());
        let mut scanner = Scanner::answer();
        scanner.feed(b"{\"", |_| {});
        scanner.feed(&[b'k'; 100_000], |_| {});
        assert!(scanner.key.capacity() < 100);
    }

    /// Texts of a model and what looks like them, with strings of all kinds.
    fn json() -> impl Strategy<Value = String> {
        let string = prop_oneof![
            4 => prop::sample::select(KEYS).prop_map(str::to_owned),
            2 => "[a-z \\\\\"\n\u{e9}\u{1f600},:{}]{0,12}",
        ];
        let text = string.clone().prop_map(|text| quoted(&text));
        let leaf = prop_oneof![
            4 => text,
            1 => Just(r#""\ud83d\ude00 \u00e9\/\n""#.to_owned()),
            2 => any::<i32>().prop_map(|number| number.to_string()),
            1 => prop::sample::select(vec!["null", "true", " 1.5e3 "]).prop_map(str::to_owned),
        ];
        leaf.prop_recursive(6, 80, 6, move |inner| {
            let space = prop::sample::select(vec!["", " ", "\n\t"]);
            let field = (string.clone(), space, inner.clone());
            let field = field
                .prop_map(|(key, space, value)| format!("{}{space}:{space}{value}", quoted(&key)));
            prop_oneof![
                3 => prop::collection::vec(field, 0..6).prop_map(|all| format!("{{{}}}", all.join(","))),
                2 => prop::collection::vec(inner, 0..4).prop_map(|all| format!("[{}]", all.join(", "))),
            ]
        })
    }

    const KEYS: &[&str] = &[
        "choices",
        "message",
        "delta",
        "content",
        "text",
        "usage",
        "arguments",
        "input",
        "reasoning",
        "reasoning_content",
        "tool_calls",
        "function",
        "output",
        "response",
        "x_groq",
        "name",
        "other",
    ];

    /// Where a text is cut.
    fn cut(bytes: &[u8], mut cuts: Vec<usize>) -> Vec<&[u8]> {
        cuts.iter_mut().for_each(|cut| *cut %= bytes.len() + 1);
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.windows(2)
            .map(|ends| &bytes[ends[0]..ends[1]])
            .collect()
    }

    /// What both scanners read in pieces of some texts after each other.
    fn compared(role: Role, texts: &[Vec<&[u8]>]) -> Result<(), TestCaseError> {
        let (mut scanner, mut reference) = (Scanner::new(role), Reference::new(role));
        for pieces in texts {
            for piece in pieces {
                let (mut usages, mut expected) = (Vec::new(), Vec::new());
                scanner.feed(piece, |usage| usages.push(usage.to_vec()));
                reference.feed(piece, |usage| expected.push(usage.to_vec()));
                prop_assert_eq!(usages, expected);
                prop_assert_eq!(scanner.text_bytes(), reference.text_bytes());
            }
            scanner.restart();
            reference.restart();
        }
        Ok(())
    }

    proptest::proptest! {
        #[test]
        fn scanner_reads_what_the_reference_reads(
            texts in prop::collection::vec((json(), prop::collection::vec(any::<usize>(), 0..9)), 1..4),
            answer: bool,
        ) {
            let answer = |text: &String| if answer {
                format!(r#"{{"choices":[{{"message":{text},"usage":{text}}}],"content":{text},"usage":{text}}}"#)
            } else {
                text.clone()
            };
            let texts: Vec<(String, Vec<usize>)> =
                texts.iter().map(|(text, cuts)| (answer(text), cuts.clone())).collect();
            let pieces: Vec<Vec<&[u8]>> =
                texts.iter().map(|(text, cuts)| cut(text.as_bytes(), cuts.clone())).collect();
            for role in [Role::Answer, Role::Text(Of::All), Role::Raw] {
                compared(role, &pieces)?;
            }
        }

        #[test]
        fn scanner_accepts_any_bytes(bytes: Vec<u8>) {
            Scanner::answer().feed(&bytes, |_| {});
        }

        #[test]
        fn scanner_accepts_brackets_in_any_order(text in "[\\[\\]{}:,\"\\\\u1 a]{0,200}") {
            Scanner::answer().feed(text.as_bytes(), |_| {});
            of_raw(&text);
        }

        #[test]
        fn raw_json_is_counted_without_whitespace_and_escapes(text in "[a-z\u{e9}\u{4e2d}\" ]{0,20}", number: u32, flag: bool) {
            let value = serde_json::json!({&text: [number, flag, null, {"a": {}, "b": []}], "c": "d"});
            let compact = value.to_string();
            let escapes = compact.matches('\\').count() as u64;
            let spread = serde_json::to_string_pretty(&value).unwrap();
            proptest::prop_assert_eq!(of_raw(&spread), compact.len() as u64 - escapes);
        }
    }
}
