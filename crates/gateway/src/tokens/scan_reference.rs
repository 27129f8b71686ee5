//! The scanner byte by byte, as a reference: [`super::scan`] has to read the same.

use crate::tokens::role::{Of, Role};

/// More than any `usage` object needs; a longer one is not read.
const LONGEST_USAGE_BYTES: usize = 16 * 1024;

/// Deeper values are not looked at.
const DEEPEST: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Container {
    role: Role,
    object: bool,
}

/// Scans one JSON text after the other.
#[derive(Debug)]
pub(super) struct Scanner {
    start: Role,
    /// The containers that are open, as far as they are looked at.
    open: Vec<Container>,
    /// How many more are open.
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
    pub(super) fn new(start: Role) -> Self {
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
    pub(super) fn restart(&mut self) {
        let written = self.written;
        *self = Self::new(self.start);
        self.written = written;
    }

    /// Bytes of text that have come so far.
    pub(super) fn text_bytes(&self) -> u64 {
        let Written {
            all,
            reasoning,
            reasoning_content,
        } = self.written;
        all.saturating_add(reasoning.max(reasoning_content))
    }

    /// Takes the next bytes, however they are cut, and gives each `usage` that ends in them.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut usage: impl FnMut(&[u8])) {
        while let [byte, rest @ ..] = bytes {
            if let Some(capture) = self.captured(*byte) {
                usage(&capture.bytes);
            }
            match self.string {
                // Most bytes are plain ones of a string.
                Some(text) if text.escape == Escape::None => {
                    let plain = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\'));
                    let plain = plain.unwrap_or(bytes.len());
                    if plain == 0 {
                        self.in_string(text, *byte);
                        bytes = rest;
                    } else {
                        self.take(text, &bytes[..plain]);
                        // The first of them has been captured above.
                        self.capture(&bytes[1..plain]);
                        bytes = &bytes[plain..];
                    }
                }
                Some(text) => {
                    self.in_string(text, *byte);
                    bytes = rest;
                }
                None => {
                    self.structure(*byte);
                    bytes = rest;
                }
            }
        }
    }

    /// The capture that ends before this byte; else the byte is added to it.
    fn captured(&mut self, byte: u8) -> Option<Capture> {
        let capture = self.usage.as_ref()?;
        let outside = self.string.is_none() && self.open.len() + self.beyond == capture.depth;
        if outside && matches!(byte, b',' | b'}') {
            return self.usage.take();
        }
        self.capture(&[byte]);
        None
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

    fn in_string(&mut self, mut text: Text, byte: u8) {
        match text.escape {
            Escape::None if byte == b'"' => {
                self.string = None;
                return;
            }
            Escape::None => text.escape = Escape::Begun,
            Escape::Begun if byte == b'u' => text.escape = Escape::Unicode(0, 0),
            Escape::Begun => {
                let byte = match byte {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    other => other,
                };
                self.take(text, &[byte]);
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
                            self.take(text, char.encode_utf8(&mut utf8).as_bytes());
                        }
                        // Half of a pair, which is four bytes.
                        None => self.take(text, b"??"),
                    }
                }
            }
        }
        self.string = Some(text);
    }

    fn structure(&mut self, byte: u8) {
        if byte.is_ascii_whitespace() {
            return;
        }
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
                    let bytes = Vec::new();
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
        self.open.push(Container { role, object });
        self.key_next = object;
        self.expected = if object && role != Role::Raw {
            Role::Skipped
        } else {
            role.of_element()
        };
    }
}
