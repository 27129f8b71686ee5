//! JSON lines. All are those of `tracing-subscriber`; the access line, which each request has, is written at a fraction of the cost.

use std::{
    cell::RefCell,
    fmt::{self, Write as _},
    time::SystemTime,
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Json, Writer},
    },
    registry::LookupSpan,
};

use crate::api::access::TARGET;

/// One JSON object for each event, with its fields at the top.
#[derive(Debug)]
pub(crate) struct JsonLines(Format<Json>);

impl Default for JsonLines {
    fn default() -> Self {
        let json = Format::default().json().flatten_event(true);
        Self(json.with_current_span(false).with_span_list(false))
    }
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if event.metadata().target() != TARGET {
            return self.0.format_event(ctx, writer, event);
        }
        thread_local!(static LINE: RefCell<String> = const { RefCell::new(String::new()) });
        LINE.with_borrow_mut(|line| {
            line.clear();
            access_line(line, event)?;
            writer.write_str(line)
        })
    }
}

fn access_line(line: &mut String, event: &Event<'_>) -> fmt::Result {
    let now = humantime::format_rfc3339_micros(SystemTime::now());
    write!(line, r#"{{"timestamp":"{now}","level":""#)?;
    line.push_str(event.metadata().level().as_str());
    line.push('"');
    event.record(&mut Fields(line));
    line.push_str(r#","target":"#);
    text(line, event.metadata().target());
    line.push_str("}\n");
    Ok(())
}

/// Adds fields as an object has them.
struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn name(&mut self, field: &Field) {
        self.0.push(',');
        text(self.0, field.name());
        self.0.push(':');
    }

    fn number(&mut self, field: &Field, number: impl itoa::Integer) {
        self.name(field);
        self.0.push_str(itoa::Buffer::new().format(number));
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        text(self.0, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.name(field);
        self.0.push_str(if value { "true" } else { "false" });
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.name(field);
        self.0.push_str(&serde_json::Value::from(value).to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.name(field);
        text(self.0, &format!("{value:?}"));
    }
}

/// Adds a text as JSON.
fn text(out: &mut String, text: &str) {
    let escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    // No early end: so the compiler looks at many bytes at once.
    if text.bytes().fold(false, |any, byte| any | escaped(byte)) {
        out.push_str(&serde_json::Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
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

    /// The lines of events, with the time cut off.
    fn written(own: bool, log: impl Fn()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let lines = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(move || writer.clone());
        if own {
            let lines = lines.event_format(JsonLines::default());
            tracing::subscriber::with_default(lines.finish(), log);
        } else {
            tracing::subscriber::with_default(lines.finish(), log);
        }
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| {
            let (begin, rest) = line.split_once("Z\",").unwrap();
            let digits = |c: char| if c.is_ascii_digit() { '0' } else { c };
            let begin: String = begin.chars().map(digits).collect();
            format!("{begin}Z\",{rest}\n")
        });
        lines.collect()
    }

    #[test]
    fn access_line_has_the_bytes_of_the_librarys_line() {
        let log = |text: &str, signed: i64, unsigned: u64, float: f64| {
            tracing::info!(
                target: TARGET,
                text,
                none = None::<u64>,
                some = Some(unsigned),
                signed,
                small = -7_i32,
                status = 200_u16,
                unsigned,
                float,
                wide = u128::from(unsigned) << 9,
                flag = unsigned > 7,
                other = unsigned <= 7,
                debug = ?Some(text),
                display = %text,
                "request {text}"
            );
            tracing::warn!(target: TARGET, text, "request");
            tracing::info!(text, unsigned, "another target");
        };
        let texts = [
            "",
            "plain",
            "a \"b\" \\ c",
            "\n\r\t\u{8}\u{c}\u{0}\u{1f}\u{7f}",
            "grün \u{202e} 日本 \u{1f600}",
            "/v1/chat/completions/and/so/on/until/it/is/longer/than/any/register",
        ];
        for text in texts {
            for (signed, unsigned, float) in [
                (0, 0, 0.0),
                (i64::MIN, u64::MAX, f64::NAN),
                (i64::MAX, 7, 1.5e300),
                (-1, 1000, -0.1),
            ] {
                let log = || log(text, signed, unsigned, float);
                let (own, librarys) = (written(true, log), written(false, log));
                assert_eq!(own.lines().count(), 3);
                assert_eq!(own, librarys);
            }
        }
    }
}
