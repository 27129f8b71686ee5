//! One access line, as JSON or as text.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use serde::Deserialize;
use vorrang_scheduler::Tokens;

use super::{Names, Traced};

/// nginx's status for a client that has left.
const CLIENT_LEFT: u16 = 499;

/// What is read of an access line. Other fields are not needed here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line<'a> {
    #[serde(borrow)]
    target: Option<Cow<'a, str>>,
    #[serde(borrow)]
    group: Option<Cow<'a, str>>,
    #[serde(borrow)]
    fallback_from: Option<Cow<'a, str>>,
    #[serde(borrow)]
    spilled_from: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    deployment: Option<Cow<'a, str>>,
    tenant: Option<u64>,
    priority: Option<i32>,
    asked_priority: Option<i32>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    used_input_tokens: Option<u64>,
    used_output_tokens: Option<u64>,
    timeout_ms: Option<u64>,
    arrived_us: Option<u64>,
    wait_ms: Option<u64>,
    attempts: Option<u32>,
    status: Option<u16>,
    upstream_ms: Option<u64>,
    duration_ms: Option<u64>,
}

/// What a line of a log is.
#[derive(Debug, PartialEq)]
pub(super) enum Read {
    /// A request that entered a queue, and when it ended, in microseconds since 1970.
    Request(Box<Traced>, u64),
    /// Another line, or a request that entered no queue.
    Other,
}

/// Reads a line.
///
/// # Errors
/// It is an access line that cannot be read, or lacks what a simulation needs.
pub(super) fn read(line: &str, names: &mut Names) -> Result<Read, String> {
    let line = line.trim_end();
    let is_json = line.starts_with('{');
    if is_json {
        // The target stands at the end, which a line that was cut lacks.
        if !line.contains("vorrang::access") && !line.contains("\"arrived_us\":") {
            return Ok(Read::Other);
        }
        let line: Line<'_> = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if line.target.as_deref() != Some("vorrang::access") {
            return Ok(Read::Other);
        }
        return of(&line, names);
    }
    if !line.contains("request_id") {
        return Ok(Read::Other);
    }
    let plain = without_colours(line);
    let Some((_, fields)) = plain.split_once(" INFO request ") else {
        return Ok(Read::Other);
    };
    let fields = fields_of(fields)?;
    of(&from_text(&fields)?, names)
}

fn of(line: &Line<'_>, names: &mut Names) -> Result<Read, String> {
    let (Some(group), Some(priority)) = (&line.group, line.priority) else {
        // It was refused before it entered a queue, or calls no model.
        return Ok(Read::Other);
    };
    let need = |value: Option<u64>, name: &str| {
        value.ok_or_else(|| format!("no {name}: was it written by an older version?"))
    };
    let Some(timeout) = line.timeout_ms else {
        // A request that was never in a queue has none, either.
        return match line.wait_ms {
            Some(_) => Err("no timeout_ms: was it written by an older version?".into()),
            None => Ok(Read::Other),
        };
    };
    let at = need(line.arrived_us, "arrived_us")?;
    let duration = Duration::from_millis(need(line.duration_ms, "duration_ms")?);
    let first = line.fallback_from.as_ref().or(line.spilled_from.as_ref());
    let tokens = |input: Option<u64>, output: Option<u64>| {
        let some = input.is_some() || output.is_some();
        some.then(|| Tokens::new(input.unwrap_or(0), output.unwrap_or(0)))
    };
    let used = tokens(line.used_input_tokens, line.used_output_tokens);
    let reserved = tokens(line.input_tokens, line.output_tokens).unwrap_or_default();
    let waited = Duration::from_millis(line.wait_ms.unwrap_or(0));
    let called = line.upstream_ms.is_some() || line.deployment.is_some();
    let took = line.upstream_ms.map(Duration::from_millis);
    let took = took.or(called.then(|| duration.saturating_sub(waited)));
    let mut patience = Duration::from_millis(timeout);
    if !called && line.status == Some(CLIENT_LEFT) {
        patience = patience.min(duration);
    }
    let traced = Traced {
        at,
        group: names.number(first.unwrap_or(group)),
        key: names.number(line.key.as_deref().unwrap_or("")),
        tenant: line.tenant.unwrap_or(0),
        priority,
        asked_priority: line.asked_priority,
        // Where no limit counted tokens nothing was reserved; under another configuration one may.
        reserved: if reserved == Tokens::ZERO {
            used.unwrap_or_default()
        } else {
            reserved
        },
        used,
        patience,
        calls: line.attempts.unwrap_or(1).max(1),
        took,
        waited: called.then_some(waited),
    };
    let end = at.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    Ok(Read::Request(Box::new(traced), end))
}

/// A terminal's line without what colours it.
fn without_colours(line: &str) -> Cow<'_, str> {
    if !line.contains('\u{1b}') {
        return line.into();
    }
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain.into()
}

/// `name="text" number=7 ...`
fn fields_of(mut text: &str) -> Result<HashMap<&str, String>, String> {
    let mut fields = HashMap::new();
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return Ok(fields);
        }
        let (name, rest) = text
            .split_once('=')
            .ok_or_else(|| format!("no field: {text:.40}"))?;
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted).ok_or("a text without an end")?,
            None => {
                let (value, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                (value.to_owned(), rest)
            }
        };
        fields.insert(name, value);
        text = rest;
    }
}

/// A text as Rust's `Debug` writes it, and what follows it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'r' => value.push('\r'),
                '0' => value.push('\0'),
                'u' => {
                    let digits: String = chars
                        .by_ref()
                        .map(|(_, c)| c)
                        .skip_while(|c| *c == '{')
                        .take_while(|c| *c != '}')
                        .collect();
                    value.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                }
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

fn from_text<'a>(fields: &'a HashMap<&str, String>) -> Result<Line<'a>, String> {
    fn number<T: std::str::FromStr>(
        fields: &HashMap<&str, String>,
        name: &str,
    ) -> Result<Option<T>, String> {
        let number = |text: &String| text.parse().map_err(|_| format!("{name}: {text:.40}"));
        fields.get(name).map(number).transpose()
    }
    let text = |name: &str| fields.get(name).map(|text| Cow::Borrowed(text.as_str()));
    Ok(Line {
        target: None,
        group: text("group"),
        fallback_from: text("fallback_from"),
        spilled_from: text("spilled_from"),
        key: text("key"),
        deployment: text("deployment"),
        tenant: number(fields, "tenant")?,
        priority: number(fields, "priority")?,
        asked_priority: number(fields, "asked_priority")?,
        input_tokens: number(fields, "input_tokens")?,
        output_tokens: number(fields, "output_tokens")?,
        used_input_tokens: number(fields, "used_input_tokens")?,
        used_output_tokens: number(fields, "used_output_tokens")?,
        timeout_ms: number(fields, "timeout_ms")?,
        arrived_us: number(fields, "arrived_us")?,
        wait_ms: number(fields, "wait_ms")?,
        attempts: number(fields, "attempts")?,
        status: number(fields, "status")?,
        upstream_ms: number(fields, "upstream_ms")?,
        duration_ms: number(fields, "duration_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Sink {
        type Writer = Self;
        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// The same event as the access layer writes it.
    fn log() {
        tracing::info!(
            target: "vorrang::access",
            request_id = "a \"b\"",
            key = Some("k=\u{202e}ü"),
            group = Some("chat x"),
            priority = Some(-3),
            asked_priority = None::<i32>,
            input_tokens = Some(0_u64),
            output_tokens = Some(0_u64),
            used_input_tokens = Some(5_u64),
            used_output_tokens = Some(6_u64),
            timeout_ms = Some(9_000_u64),
            arrived_us = Some(1_000_000_u64),
            wait_ms = Some(250_u64),
            deployment = Some("d"),
            attempts = Some(2_u32),
            status = 200_u16,
            upstream_ms = Some(40_u64),
            duration_ms = 300_u64,
            "request"
        );
    }

    fn lines() -> [String; 3] {
        let written = |log: &dyn Fn(Sink) -> Box<dyn tracing::Subscriber + Send + Sync>| {
            let sink = Sink::default();
            tracing::subscriber::with_default(log(sink.clone()), self::log);
            let bytes = sink.0.lock().unwrap().clone();
            String::from_utf8(bytes).unwrap()
        };
        let text = |ansi: bool| {
            move |sink| -> Box<dyn tracing::Subscriber + Send + Sync> {
                let lines = tracing_subscriber::fmt().with_writer(sink).with_ansi(ansi);
                Box::new(lines.compact().with_target(false).finish())
            }
        };
        let json = |sink| -> Box<dyn tracing::Subscriber + Send + Sync> {
            let lines = tracing_subscriber::fmt().with_writer(sink).json();
            Box::new(lines.flatten_event(true).finish())
        };
        [written(&json), written(&text(false)), written(&text(true))]
    }

    #[test]
    fn access_line_reads_the_same_as_json_text_and_coloured_text() {
        for line in lines() {
            let mut names = Names::new();
            let read = read(&line, &mut names).unwrap();
            let Read::Request(traced, end) = read else {
                panic!("{line}");
            };
            assert_eq!(names.name(traced.group), "chat x", "{line}");
            assert_eq!(names.name(traced.key), "k=\u{202e}ü", "{line}");
            let expected = Traced {
                at: 1_000_000,
                group: traced.group,
                key: traced.key,
                tenant: 0,
                priority: -3,
                asked_priority: None,
                reserved: Tokens::new(5, 6),
                used: Some(Tokens::new(5, 6)),
                patience: Duration::from_secs(9),
                calls: 2,
                took: Some(Duration::from_millis(40)),
                waited: Some(Duration::from_millis(250)),
            };
            assert_eq!((*traced, end), (expected, 1_300_000));
        }
    }

    #[test]
    fn line_that_is_cut_or_lacks_fields_is_an_error_and_other_lines_are_not() {
        let mut names = Names::new();
        let mut of = |line: &str| read(line, &mut names);
        for other in [
            "",
            "panic!",
            r#"{"message":"listening","target":"vorrang_server::server"}"#,
            r#"{"message":"request","target":"vorrang::access","path":"/health","status":200}"#,
            r#"{"message":"request","target":"vorrang::access","path":"/v1/models","group":"a","priority":1}"#,
        ] {
            assert_eq!(of(other), Ok(Read::Other), "{other}");
        }
        let [json, text, _] = lines();
        for line in [&json, &text] {
            for cut in 0..line.len() {
                if line.is_char_boundary(cut) {
                    // It does not matter what is found, but nothing panics.
                    drop(of(&line[..cut]));
                }
            }
        }
        let cut = json.find("duration_ms").unwrap();
        assert!(of(&json[..cut]).is_err());
        let old = json.replace("arrived_us", "arrived");
        assert!(of(&old).unwrap_err().contains("no arrived_us"));
        assert!(of(&json.replace("-3", "\"high\"")).is_err());
    }

    #[test]
    fn request_whose_client_left_the_queue_has_that_much_patience() {
        let [json, ..] = lines();
        let json = json
            .replace("\"upstream_ms\":40,", "")
            .replace("\"deployment\":\"d\",", "");
        let json = json.replace("\"status\":200", "\"status\":499");
        let Ok(Read::Request(traced, _)) = read(&json, &mut Names::new()) else {
            panic!("{json}");
        };
        assert_eq!(traced.patience, Duration::from_millis(300));
        assert_eq!((traced.took, traced.waited), (None, None));
    }
}
