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
mod tests;
