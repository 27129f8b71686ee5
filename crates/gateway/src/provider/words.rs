//! The words of an upstream's error, as one printable line.

use serde_json::Value;

/// The longest message made from a body. A request that is repeated in its error does not hide the reason.
pub(super) const LONGEST_MESSAGE_CHARS: usize = 2000;

/// The words in the shapes that servers use: OpenAI, vLLM, FastAPI, Google, Cohere, AWS, TGI, problem details (RFC 9457).
pub(super) fn said(value: &Value, depth: u32) -> Option<String> {
    const NAMES: [&str; 12] = [
        "error",
        "message",
        "Message",
        "detail",
        "details",
        "msg",
        "errors",
        "error_message",
        "error_description",
        "title",
        "reason",
        "description",
    ];
    let depth = depth.checked_sub(1)?;
    match value {
        Value::String(text) => {
            // Some wrap their upstream's JSON in a text.
            let inner = text.trim_start().starts_with(['{', '[']);
            let inner: Option<Value> = inner.then(|| serde_json::from_str(text).ok()).flatten();
            let inner = inner.and_then(|inner| said(&inner, depth));
            inner.or_else(|| Some(text_of(text)).filter(|text| !text.is_empty()))
        }
        Value::Array(list) => {
            let mut all: Vec<_> = list
                .iter()
                .take(16)
                .filter_map(|one| said(one, depth))
                .collect();
            all.dedup();
            (!all.is_empty()).then(|| all.join("; "))
        }
        Value::Object(object) => {
            let words = NAMES
                .iter()
                .find_map(|name| said(object.get(*name)?, depth))?;
            // FastAPI's validation names the field beside the words.
            Some(match object.get("loc").and_then(Value::as_array) {
                Some(path) => format!("{}: {words}", dotted(path)),
                None => words,
            })
        }
        _ => None,
    }
}

fn dotted(path: &[Value]) -> String {
    let part = |part: &Value| {
        part.as_str()
            .map_or_else(|| part.to_string(), str::to_owned)
    };
    path.iter().map(part).collect::<Vec<_>>().join(".")
}

/// A text as one printable line of bounded length; of an HTML page, its title or else its words.
pub(super) fn text_of(text: &str) -> String {
    let start = text.trim_start().get(..64).unwrap_or(text.trim_start());
    let start = start.to_ascii_lowercase();
    if start.starts_with("<!doctype html") || start.starts_with("<html") {
        return bounded(&html_words(text));
    }
    bounded(text)
}

pub(super) fn bounded(text: &str) -> String {
    let mut out = String::new();
    let mut chars = 0;
    for word in text.split(|c: char| c.is_whitespace() || is_invisible(c)) {
        if word.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
            chars += 1;
        }
        for c in word.chars() {
            if chars >= LONGEST_MESSAGE_CHARS {
                out.push_str("...");
                return out;
            }
            out.push(c);
            chars += 1;
        }
    }
    out
}

/// Control characters, and those that change the direction of a text.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn html_words(page: &str) -> String {
    // Same length and same positions as `page`: only ASCII changes.
    let lower = page.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|at| {
        let from = at + lower[at..].find('>')? + 1;
        let to = from + lower[from..].find("</title")?;
        Some(page[from..to].trim()).filter(|title| !title.is_empty())
    });
    if let Some(title) = title {
        return unescaped(title);
    }
    let mut words = String::new();
    let mut rest = 0;
    while let Some(open) = lower[rest..].find('<').map(|at| rest + at) {
        words.push_str(&page[rest..open]);
        words.push(' ');
        let hidden = ["script", "style", "head"]
            .iter()
            .find(|tag| lower[open + 1..].starts_with(**tag));
        let end = match hidden {
            Some(tag) => lower[open..]
                .find(&format!("</{tag}"))
                .map_or(page.len(), |at| open + at),
            None => open,
        };
        rest = lower[end..].find('>').map_or(page.len(), |at| end + at + 1);
    }
    words.push_str(&page[rest..]);
    unescaped(&words)
}

fn unescaped(text: &str) -> String {
    let entities = [
        ("&nbsp;", " "),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ];
    entities
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}
