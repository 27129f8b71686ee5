//! The raw stage: YAML as it stands, every key and value with its line.
//!
//! A tree and not serde structs, because an unknown key of LiteLLM is a warning with its line, an unknown key of ours an
//! error, and an error in a value names the whole path and never the value.

use std::{fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

/// A value and the line it starts on.
#[derive(Debug, Clone)]
pub(in crate::config) struct Node {
    pub(in crate::config) line: u64,
    pub(in crate::config) value: Value,
    /// Where the value stands in the file, in bytes.
    bytes: Option<Range<usize>>,
    /// A number as it stands in the file: where a text is expected, `0123` is not 83.
    pub(in crate::config) raw: Option<String>,
}

impl Node {
    /// Notes how numbers are written, and reads those that only PyYAML takes for numbers.
    pub(in crate::config) fn keep_numbers(&mut self, text: &str) {
        let bytes = self.bytes.clone();
        let written = || bytes.and_then(|bytes| text.get(bytes)).map(str::trim);
        match &mut self.value {
            Value::Integer(_) | Value::Float(_) => {
                self.raw = written().map(str::to_owned);
                if let Some(number) = self.raw.as_deref().and_then(octal) {
                    self.value = Value::Integer(number);
                }
            }
            // In quotes it is a text.
            Value::Text(value) if written() == Some(value) => {
                if let Some(number) = sexagesimal(value) {
                    self.raw = Some(std::mem::take(value));
                    self.value = Value::Integer(number);
                }
            }
            Value::List(items) => items.iter_mut().for_each(|item| item.keep_numbers(text)),
            Value::Map(entries) => entries
                .iter_mut()
                .for_each(|entry| entry.node.keep_numbers(text)),
            Value::Null | Value::Bool(_) | Value::Text(_) => {}
        }
    }
}

/// A leading zero makes a number octal in YAML 1.1: `010` is 8.
pub(in crate::config) fn octal(raw: &str) -> Option<i128> {
    let (negative, digits) = match raw.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, raw.strip_prefix('+').unwrap_or(raw)),
    };
    let digits = digits.strip_prefix('0').filter(|rest| !rest.is_empty())?;
    let octal = |byte| matches!(byte, b'0'..=b'7' | b'_');
    let plain = digits.bytes().all(octal).then(|| digits.replace('_', ""))?;
    let number = i128::from_str_radix(&plain, 8).ok()?;
    Some(if negative { -number } else { number })
}

/// Digits to the base 60, as YAML 1.1 has them: `1:30` is 90.
fn sexagesimal(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut parts = digits.split(':');
    let first = parts.next()?.replace('_', "");
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(&first) || first.starts_with('0') || !digits.contains(':') {
        return None;
    }
    let mut number: i128 = first.parse().ok()?;
    for part in parts {
        let part = Some(part).filter(|part| plain(part) && part.len() <= 2)?;
        let part = part.parse().ok().filter(|part: &i128| *part < 60)?;
        number = number.checked_mul(60)?.checked_add(part)?;
    }
    Some(if negative { -number } else { number })
}

/// A line of the n-th included file is so much larger for each n.
const LINES: u64 = 1 << 32;

/// Which of several files a line is of, and its number there.
pub(in crate::config) fn place(line: u64) -> (usize, u64) {
    (
        usize::try_from(line / LINES).unwrap_or(usize::MAX),
        line % LINES,
    )
}

/// The same the other way round.
pub(in crate::config) fn line(file: usize, number: u64) -> u64 {
    LINES * file as u64 + number
}

impl Node {
    /// Says that all of it stands in the n-th included file.
    pub(in crate::config) fn shift(&mut self, file: usize) {
        self.line += LINES * file as u64;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift(file)),
            Value::Map(entries) => {
                for entry in entries {
                    entry.line += LINES * file as u64;
                    entry.node.shift(file);
                }
            }
            _ => {}
        }
    }

    /// The keys that stand more than once in their mapping, by their paths, with the line that counts.
    pub(in crate::config) fn repeated(&self) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        self.collect_repeated("", &mut found);
        found
    }

    fn collect_repeated(&self, path: &str, found: &mut Vec<(u64, String)>) {
        match &self.value {
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    item.collect_repeated(&format!("{path}[{index}]"), found);
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    let separator = if path.is_empty() { "" } else { "." };
                    let path = format!("{path}{separator}{}", entry.key);
                    entry.node.collect_repeated(&path, found);
                    if entry.repeated {
                        found.push((entry.line, path));
                    }
                }
            }
            _ => {}
        }
    }
}

/// What YAML 1.1 knows.
#[derive(Debug, Clone)]
pub(in crate::config) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Debug, Clone)]
pub(in crate::config) struct Entry {
    pub(in crate::config) line: u64,
    pub(in crate::config) key: String,
    pub(in crate::config) node: Node,
    /// The key had stood before in the same mapping: as in PyYAML its last value counts.
    pub(in crate::config) repeated: bool,
}

impl Value {
    /// What it is, for messages.
    pub(in crate::config) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        // An alias stands where it is used, its value where it was defined.
        let span = spanned.defined.span();
        let bytes = span.byte_offset().zip(span.byte_len());
        let range = |(start, length): (u64, u64)| {
            let start = usize::try_from(start).ok()?;
            let length = usize::try_from(length).ok()?;
            Some(start..start.checked_add(length)?)
        };
        Ok(Self {
            line: spanned.referenced.line(),
            bytes: bytes.and_then(range),
            raw: None,
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(i128::try_from(value).map_or(Value::Float(f64::INFINITY), Value::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(Value::Text(String::from_utf8_lossy(value).into_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<Entry> = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let node: Node = map.next_value()?;
            let line = key.referenced.line();
            match entries.iter_mut().find(|entry| entry.key == key.value) {
                Some(entry) => {
                    (entry.line, entry.node, entry.repeated) = (line, node, true);
                }
                None => entries.push(Entry {
                    line,
                    key: key.value,
                    node,
                    repeated: false,
                }),
            }
        }
        Ok(Value::Map(entries))
    }
}
