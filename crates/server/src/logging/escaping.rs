//! Log lines without characters that change how a terminal or a viewer shows what is around them.

use std::{borrow::Cow, fmt::Write as _, io};

/// Writes lines with such characters escaped: as JSON does it, which is readable elsewhere, too.
#[derive(Debug)]
pub(crate) struct Escaping<W>(pub(crate) W);

impl<W: io::Write> io::Write for Escaping<W> {
    /// A formatter writes each line as a whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(line) {
            Ok(text) => self.0.write_all(escaped(text).as_bytes())?,
            Err(_) => self
                .0
                .write_all(line.escape_ascii().to_string().as_bytes())?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// C1 controls and DEL, which terminals obey; marks, embeddings and isolates that turn text around; line separators, and what is not seen.
fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{7f}'..='\u{9f}'
        | '\u{61c}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}')
}

fn escaped(text: &str) -> Cow<'_, str> {
    if text.is_ascii() && !text.contains('\u{7f}') || !text.contains(is_deceptive) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_deceptive(c) {
            // All of them fit into four digits. Writing to a string cannot fail.
            _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn control_and_bidi_characters_in_json_log_lines_are_escaped_losslessly() {
        let sink = Sink::default();
        let writer = sink.clone();
        let lines = tracing_subscriber::fmt()
            .json()
            .with_writer(move || Escaping(writer.clone()))
            .finish();
        let path = "/v1/\u{202e}txt.\u{9b}31m\u{85}\u{2066}\u{7f}\u{200b}\u{feff} grün 日本";
        tracing::subscriber::with_default(lines, || tracing::info!(path, "request"));
        let bytes = sink.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains(is_deceptive), "{text:?}");
        assert!(text.contains("grün 日本"), "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["fields"]["path"], path);
    }

    #[test]
    fn non_utf8_bytes_are_escaped() {
        let sink = Sink::default();
        Escaping(sink.clone()).write_all(b"a\xffb").unwrap();
        assert_eq!(*sink.0.lock().unwrap(), b"a\\xffb");
    }
}
