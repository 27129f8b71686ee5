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
    /// Notes how numbers are written.
    pub(in crate::config) fn keep_numbers(&mut self, text: &str) {
        match &mut self.value {
            Value::Integer(_) | Value::Float(_) => {
                let written = self.bytes.clone().and_then(|bytes| text.get(bytes));
                self.raw = written.map(|written| written.trim().to_owned());
            }
            Value::List(items) => items.iter_mut().for_each(|item| item.keep_numbers(text)),
            Value::Map(entries) => entries
                .iter_mut()
                .for_each(|entry| entry.node.keep_numbers(text)),
            Value::Null | Value::Bool(_) | Value::Text(_) => {}
        }
    }
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

    /// The keys that stand more than once in their mapping, with the line that counts.
    pub(in crate::config) fn repeated<'n>(&'n self) -> Vec<(u64, &'n str)> {
        match &self.value {
            Value::List(items) => items.iter().flat_map(Self::repeated).collect(),
            Value::Map(entries) => {
                let of_entry = |entry: &'n Entry| {
                    let own = entry.repeated.then_some((entry.line, entry.key.as_str()));
                    own.into_iter()
                        .chain(entry.node.repeated())
                        .collect::<Vec<_>>()
                };
                entries.iter().flat_map(of_entry).collect()
            }
            _ => Vec::new(),
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
