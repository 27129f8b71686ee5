//! A `multipart/form-data` body (RFC 7578): taken apart without a copy, and changed as little as possible.
//!
//! Fields decide which model a call may use, so nothing passes that upstreams' parsers might take apart in another way.

mod header;

use std::ops::Range;

use bytes::Bytes;
use http::HeaderValue;
use memchr::memmem;
use serde::de::IgnoredAny;

use self::header::{disposition, parameters};
use crate::{
    Endpoint,
    problem::Problem,
    request::{
        edits::{self, Edits},
        fields::{MAX_FIELDS, quoted},
        steering,
    },
};

/// Longer headers are none of a form's part.
const LONGEST_HEAD_BYTES: usize = 8 * 1024;

/// Longer texts are none that steer the gateway.
const LONGEST_TEXT_BYTES: usize = 1024;

/// A form in its body.
#[derive(Debug)]
pub(crate) struct Form {
    body: Bytes,
    content_type: HeaderValue,
    boundary: String,
    parts: Vec<Part>,
    /// The line that ends the form, and what follows it.
    end: Range<usize>,
}

/// A field of a form.
#[derive(Debug)]
struct Part {
    name: String,
    /// It is a file.
    file: bool,
    /// From its delimiter to the next.
    all: Range<usize>,
    content: Range<usize>,
}

impl Form {
    /// Takes a body apart.
    pub(crate) fn read(body: Bytes, content_type: Option<&HeaderValue>) -> Result<Self, Problem> {
        let (content_type, boundary) = boundary(content_type)?;
        let (parts, end) = parts(&body, &boundary)?;
        Ok(Self {
            body,
            content_type,
            boundary,
            parts,
            end,
        })
    }

    /// The content type of the form before and after changes.
    pub(crate) fn content_type(&self) -> &HeaderValue {
        &self.content_type
    }

    /// What the client calls the model.
    pub(crate) fn model(&self) -> Result<Option<String>, Problem> {
        self.text_named("model")
    }

    /// The text of a field. Of several the last counts, as in JSON.
    pub(crate) fn text_named(&self, name: &str) -> Result<Option<String>, Problem> {
        let mut named = self.parts.iter().rev().filter(|part| part.name == name);
        named.next().map(|part| self.text(part)).transpose()
    }

    /// Its fields with their JSON: texts that steer the gateway; of the others, that they are there.
    pub(crate) fn fields(&self) -> Result<Vec<(String, String)>, Problem> {
        let mut fields: Vec<(String, String)> = Vec::new();
        for part in &self.parts {
            let json = match part.name.as_str() {
                "priority" | "timeout" => self.text(part)?.trim().to_owned(),
                name if steering::is_read(name) => as_json(self.text(part)?.trim()),
                "stream" => match self.text(part)?.trim() {
                    "true" | "True" | "1" => "true".into(),
                    "false" | "False" | "0" | "" => "false".into(),
                    other => quoted(other),
                },
                "user" => quoted(&self.text(part)?),
                _ => "\"\"".into(),
            };
            match fields.iter_mut().find(|(name, _)| *name == part.name) {
                Some((_, known)) => *known = json,
                None => fields.push((part.name.clone(), json)),
            }
        }
        Ok(fields)
    }

    fn text(&self, part: &Part) -> Result<String, Problem> {
        let bytes = &self.body[part.content.clone()];
        let text = std::str::from_utf8(bytes).ok();
        let text = text.filter(|text| !part.file && text.len() <= LONGEST_TEXT_BYTES);
        text.map(str::to_owned).ok_or_else(|| {
            let name = &part.name;
            malformed(&format!("expected a short text as the field '{name}'"))
        })
    }

    /// The form without what steers the gateway, in pieces, and everything else as it was.
    pub(crate) fn passed(&self) -> Vec<Bytes> {
        let mut pieces = Pieces::of(&self.body);
        for part in &self.parts {
            if steering::passes(&part.name) {
                pieces.keep(part.all.clone());
            }
        }
        pieces.keep(self.end.clone());
        pieces.done()
    }

    /// The form for the upstream, in pieces: its own name of the model, without what steers the gateway, with the deployment's
    /// changes, and everything else as it was.
    pub(crate) fn rewritten(&self, endpoint: Endpoint, model: &str, edits: &Edits) -> Vec<Bytes> {
        let mut pieces = Pieces::of(&self.body);
        let mut named = false;
        for part in &self.parts {
            let name = part.name.as_str();
            let kept = steering::passes(name) && name != "metadata";
            if !kept || edits.drops.iter().any(|drop| drop == name) {
                continue;
            }
            if name == "model" {
                named = true;
                pieces.keep(part.all.start..part.content.start);
                pieces.add(model.to_owned());
                pieces.keep(part.content.end..part.all.end);
            } else {
                pieces.keep(part.all.clone());
            }
        }
        let mut add = |name: &str, value: &str| {
            let boundary = &self.boundary;
            pieces.add(format!(
                "--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            ));
        };
        if !named {
            add("model", model);
        }
        for (name, json) in &edits.defaults {
            let own = |part: &Part| part.name == *name;
            let wanted = edits::takes(endpoint, name) && !edits.drops.contains(name);
            if wanted && !self.parts.iter().any(own) {
                let text = serde_json::from_str::<String>(json);
                add(name, text.as_deref().unwrap_or(json));
            }
        }
        pieces.keep(self.end.clone());
        pieces.done()
    }
}

/// JSON where it is some; else a text.
fn as_json(text: &str) -> String {
    let json = serde_json::from_str::<IgnoredAny>(text).is_ok();
    if json { text.to_owned() } else { quoted(text) }
}

/// Parts of a body and new texts, in order. Neighbours are one piece.
struct Pieces<'a> {
    body: &'a Bytes,
    pieces: Vec<Bytes>,
    kept: Range<usize>,
}

impl<'a> Pieces<'a> {
    fn of(body: &'a Bytes) -> Self {
        Self {
            body,
            pieces: Vec::new(),
            kept: 0..0,
        }
    }

    fn keep(&mut self, range: Range<usize>) {
        if self.kept.end == range.start {
            self.kept.end = range.end;
        } else {
            self.flush();
            self.kept = range;
        }
    }

    fn add(&mut self, text: String) {
        self.flush();
        self.pieces.push(text.into());
    }

    fn flush(&mut self) {
        if !self.kept.is_empty() {
            self.pieces.push(self.body.slice(self.kept.clone()));
        }
        self.kept = self.kept.end..self.kept.end;
    }

    fn done(mut self) -> Vec<Bytes> {
        self.flush();
        self.pieces
    }
}

/// The content type and its boundary.
fn boundary(content_type: Option<&HeaderValue>) -> Result<(HeaderValue, String), Problem> {
    let expected = || malformed("expected the content type multipart/form-data with a boundary");
    let value = content_type.ok_or_else(expected)?;
    let text = value.to_str().map_err(|_| expected())?;
    let (essence, parameters) = parameters(text).ok_or_else(expected)?;
    let mut boundaries = parameters
        .into_iter()
        .filter(|(name, _)| name == "boundary")
        .map(|(_, boundary)| boundary);
    // RFC 2046, 5.1.1.
    let harmless = |c: char| c.is_ascii_alphanumeric() || "'()+_,-./:=? ".contains(c);
    match (boundaries.next(), boundaries.next()) {
        (Some(boundary), None)
            if essence.eq_ignore_ascii_case("multipart/form-data")
                && (1..=70).contains(&boundary.len())
                && boundary.chars().all(harmless)
                && !boundary.ends_with(' ') =>
        {
            Ok((value.clone(), boundary))
        }
        _ => Err(expected()),
    }
}

/// The fields, and where the form ends.
fn parts(body: &[u8], boundary: &str) -> Result<(Vec<Part>, Range<usize>), Problem> {
    let delimiter = format!("--{boundary}");
    let mut parts: Vec<Part> = Vec::new();
    // The part that has begun: where, and where the line of its delimiter ends.
    let mut begun: Option<(usize, usize)> = None;
    for start in memmem::find_iter(body, &delimiter) {
        let before = &body[..start];
        if !(before.is_empty() || before.ends_with(b"\r\n")) {
            // In the middle of a line it is content. Some parsers end lines at less.
            if before.ends_with(b"\n") || before.ends_with(b"\r") {
                return Err(malformed("a line ends without CR LF"));
            }
            continue;
        }
        if let Some((from, line_end)) = begun {
            if parts.len() == MAX_FIELDS {
                return Err(malformed(&format!("it has more than {MAX_FIELDS} fields")));
            }
            // The line break before a delimiter belongs to the delimiter.
            let content_end = start - 2;
            parts.push(part(body, from..start, line_end, content_end)?);
        }
        let rest = &body[start + delimiter.len()..];
        if let Some(after) = rest.strip_prefix(b"--") {
            // What follows the end belongs to no field.
            let line = after.strip_prefix(b"\r\n").map_or(0, |_| 2);
            if line == 0 && !after.is_empty() {
                return Err(malformed("its end is not alone in its line"));
            }
            return Ok((parts, start..start + delimiter.len() + 2 + line));
        }
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t'));
        let line_end = start + delimiter.len() + padding.count();
        if !body[line_end..].starts_with(b"\r\n") {
            return Err(malformed("a delimiter is not alone in its line"));
        }
        begun = Some((start, line_end));
    }
    Err(malformed("its end is missing"))
}

/// One field. Its headers follow the line break at `line_end`.
fn part(
    body: &[u8],
    all: Range<usize>,
    line_end: usize,
    content_end: usize,
) -> Result<Part, Problem> {
    let without_head = || malformed("a field has no headers, or too long ones");
    // The line break after the delimiter may be the one before an empty line: no headers.
    let head = body.get(line_end..content_end).ok_or_else(without_head)?;
    let head = &head[..head.len().min(LONGEST_HEAD_BYTES)];
    let length = memmem::find(head, b"\r\n\r\n").ok_or_else(without_head)?;
    let head = head[..length].strip_prefix(b"\r\n").unwrap_or_default();
    let head = std::str::from_utf8(head).map_err(|_| malformed("a header is not UTF-8"))?;
    let (name, file) = disposition(head)
        .ok_or_else(|| malformed("expected the headers of a form's field, with one name"))?;
    Ok(Part {
        name,
        file,
        all,
        content: line_end + length + 4..content_end,
    })
}

fn malformed(what: &str) -> Problem {
    Problem::Invalid {
        message: format!("Invalid form in the request body: {what}"),
        param: None,
    }
}

#[cfg(test)]
mod tests;
