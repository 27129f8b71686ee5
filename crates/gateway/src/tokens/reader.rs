//! Finds the `usage` objects and the text in an answer's decoded bytes.

use memchr::memchr2;

use crate::tokens::scan::Scanner;

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
        Self::Json(Scanner::answer())
    }

    pub(crate) fn events() -> Self {
        Self::Events(EventReader {
            line: LineState::Empty,
            after_return: false,
            scanner: Scanner::answer(),
        })
    }

    /// Takes the next bytes, however they are cut; gives each `usage` that ends in them.
    pub(super) fn feed(&mut self, bytes: &[u8], usage: impl FnMut(&[u8])) {
        match self {
            Self::Known => {}
            Self::Json(scanner) => scanner.feed(bytes, usage),
            Self::Events(events) => events.feed(bytes, usage),
        }
    }
}

/// Splits an event stream into the data of its events.
#[derive(Debug)]
pub(crate) struct EventReader {
    line: LineState,
    /// A line feed after a carriage return ends no other line.
    after_return: bool,
    pub(super) scanner: Scanner,
}

/// Where in a line of an event stream we are.
#[derive(Debug, Clone, Copy)]
enum LineState {
    /// At its start, with nothing yet: if it ends here, the event ends.
    Empty,
    /// So many bytes of `data:` have come.
    Field(usize),
    Data,
    Other,
}

impl EventReader {
    const FIELD: &'static [u8] = b"data:";

    fn feed(&mut self, mut bytes: &[u8], mut usage: impl FnMut(&[u8])) {
        while let [byte, rest @ ..] = bytes {
            let ends = matches!(byte, b'\n' | b'\r');
            if ends {
                let second = std::mem::replace(&mut self.after_return, *byte == b'\r');
                if !(second && *byte == b'\n') {
                    if matches!(self.line, LineState::Empty) {
                        self.scanner.restart();
                    }
                    self.line = LineState::Empty;
                }
                bytes = rest;
                continue;
            }
            self.after_return = false;
            let length = memchr2(b'\n', b'\r', bytes);
            let line = &bytes[..length.unwrap_or(bytes.len())];
            let taken = match self.line {
                LineState::Data => {
                    self.scanner.feed(line, &mut usage);
                    line.len()
                }
                LineState::Other => line.len(),
                LineState::Empty if line.starts_with(Self::FIELD) => {
                    self.line = LineState::Data;
                    Self::FIELD.len()
                }
                LineState::Empty if *byte == Self::FIELD[0] => {
                    self.line = LineState::Field(1);
                    1
                }
                LineState::Field(seen) if Self::FIELD[seen] == *byte => {
                    let whole = seen + 1 == Self::FIELD.len();
                    self.line = if whole {
                        LineState::Data
                    } else {
                        LineState::Field(seen + 1)
                    };
                    1
                }
                _ => {
                    self.line = LineState::Other;
                    1
                }
            };
            bytes = &bytes[taken..];
        }
    }
}
