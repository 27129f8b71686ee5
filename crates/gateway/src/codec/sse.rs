//! Server-sent events, decoded while their bytes pass (WHATWG HTML, 9.2).

use memchr::{memchr2, memmem::Finder, memrchr};

/// By default a longer line or event is read to its end, but what is beyond this is not kept: memory stays bounded.
const LONGEST_BYTES: usize = 64 * 1024;

/// One event that has data.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// The field `event`, empty where there is none.
    pub(crate) name: Vec<u8>,
    /// The fields `data`, joined by line feeds.
    pub(crate) data: Vec<u8>,
}

impl Event {
    /// Whether it carries something of an answer: not a sign of life, and not the mark of the end.
    pub(crate) fn answers(&self) -> bool {
        let data = self.data.trim_ascii();
        !data.is_empty() && data != b"[DONE]" && self.name != b"ping"
    }
}

/// Splits an event stream into events, however its bytes are cut.
#[derive(Debug)]
pub(crate) struct EventDecoder {
    /// How much of a line, and of an event, is kept.
    longest: usize,
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed after it belongs to the same line end.
    after_return: bool,
    event: Event,
    has_data: bool,
    /// A byte order mark may stand at the start of the first line.
    started: bool,
}

impl Default for EventDecoder {
    fn default() -> Self {
        Self::keeping(LONGEST_BYTES)
    }
}

impl EventDecoder {
    /// Keeps so much of a line, and of an event.
    pub(crate) fn keeping(longest: usize) -> Self {
        Self {
            longest,
            line: Vec::new(),
            after_return: false,
            event: Event::default(),
            has_data: false,
            started: false,
        }
    }

    /// Takes the next bytes and gives each event that ends in them to `each`.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&Event)) {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_return) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = memchr2(b'\n', b'\r', bytes) else {
                keep(&mut self.line, bytes, self.longest);
                return;
            };
            keep(&mut self.line, &bytes[..end], self.longest);
            self.after_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.line_ended(&mut each);
        }
    }

    /// The same, but events without this text need not be given: mostly there are none, and then nothing is copied.
    pub(crate) fn feed_with(&mut self, text: &Finder<'_>, bytes: &[u8], each: impl FnMut(&Event)) {
        let whole = if self.is_between() {
            whole_events(bytes)
        } else {
            0
        };
        let (events, rest) = bytes.split_at(whole);
        if whole == 0 || text.find(events).is_some() {
            return self.feed(bytes, each);
        }
        self.started = true;
        self.feed(rest, each);
    }

    /// Nothing of an event has come.
    fn is_between(&self) -> bool {
        self.line.is_empty() && !self.has_data && self.event.name.is_empty()
    }

    fn line_ended(&mut self, each: &mut impl FnMut(&Event)) {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.started, true) && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                each(&self.event);
            }
            self.event.name.clear();
            self.event.data.clear();
        } else {
            self.field(&line);
        }
        line.clear();
        self.line = line;
    }

    fn field(&mut self, line: &[u8]) {
        let colon = memchr::memchr(b':', line);
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    keep(&mut self.event.data, b"\n", self.longest);
                }
                keep(&mut self.event.data, value, self.longest);
            }
            b"event" => value.clone_into(&mut self.event.name),
            // Comments have an empty name; `id` and `retry` are for clients that reconnect.
            _ => {}
        }
    }
}

/// How many bytes there are up to the last empty line, from the start of a line on. Lines that end with a carriage return alone are not
/// seen: hardly a server writes them.
fn whole_events(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some(end) = memrchr(b'\n', rest) {
        let before = &bytes[..end];
        if before.ends_with(b"\n") || before.ends_with(b"\n\r") {
            return end + 1;
        }
        rest = before;
    }
    0
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8], longest: usize) {
    let room = longest.saturating_sub(kept.len());
    kept.extend_from_slice(&bytes[..room.min(bytes.len())]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8], cut: usize) -> Vec<(String, String)> {
        let (mut decoder, mut events) = (EventDecoder::default(), Vec::new());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        for chunk in bytes.chunks(cut) {
            decoder.feed(chunk, |event| {
                events.push((text(&event.name), text(&event.data)))
            });
        }
        events
    }

    #[test]
    fn event_decoder_ignores_chunk_boundaries_and_line_ending_style() {
        let text = "\u{feff}: comment\n\nid: 1\nretry: 5\n\ndata: a\ndata:b\n\nevent: ping\ndata\n\nevent: lost\n\ndata: last\n\ndata: cut";
        let expected = [("", "a\nb"), ("ping", ""), ("", "last")]
            .map(|(name, data)| (name.to_owned(), data.to_owned()));
        for end in ["\n", "\r\n", "\r"] {
            let text = text.replace('\n', end);
            for cut in [1, 2, 3, 7, 1000] {
                assert_eq!(
                    decoded(text.as_bytes(), cut),
                    expected,
                    "{end:?} cut by {cut}"
                );
            }
        }
    }

    #[test]
    fn ping_empty_and_done_events_do_not_count_as_an_answer() {
        let answers = |text: &str| {
            let mut answers = Vec::new();
            EventDecoder::default().feed(text.as_bytes(), |event| answers.push(event.answers()));
            answers
        };
        let text =
            "data:\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\ndata: [DONE]\n\ndata: {}\n\n";
        assert_eq!(answers(text), [false, false, false, true]);
    }

    proptest::proptest! {
        #[test]
        fn events_with_a_text_are_given_as_if_all_were(
            lines in proptest::collection::vec("(data: ?|event: ?|:|id: |\u{feff}data:)?(an error|a|error|\\{\\})?(\r\n|\n|\r|\n\n|\r\n\r\n)?", 0..30),
            cuts in proptest::collection::vec(1..40usize, 1..30),
        ) {
            let text = lines.concat();
            let finder = Finder::new("error");
            let has = |event: &Event| {
                [&event.name, &event.data].iter().any(|bytes| finder.find(bytes).is_some())
            };
            let (mut all, mut some) = (EventDecoder::default(), EventDecoder::default());
            let (mut expected, mut given) = (Vec::new(), Vec::new());
            let mut rest = text.as_bytes();
            let kept = |event: &Event, to: &mut Vec<(Vec<u8>, Vec<u8>)>| {
                if has(event) {
                    to.push((event.name.clone(), event.data.clone()));
                }
            };
            for cut in cuts.iter().cycle() {
                let (piece, more) = rest.split_at(rest.len().min(*cut));
                all.feed(piece, |event| kept(event, &mut expected));
                some.feed_with(&finder, piece, |event| kept(event, &mut given));
                rest = more;
                if rest.is_empty() {
                    break;
                }
            }
            proptest::prop_assert_eq!(given, expected);
        }
    }

    #[test]
    fn endless_event_line_takes_bounded_memory() {
        let mut decoder = EventDecoder::default();
        let mut lengths = Vec::new();
        decoder.feed(b"data: ", |_| ());
        for _ in 0..100 {
            decoder.feed(&[b'x'; 10_000], |_| ());
        }
        assert_eq!(decoder.line.len(), LONGEST_BYTES);
        decoder.feed(b"\n\n", |event| lengths.push(event.data.len()));
        assert_eq!(lengths, [LONGEST_BYTES - "data: ".len()]);
    }
}
