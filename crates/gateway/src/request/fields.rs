//! The fields of a request's body.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Far more fields than any API has; each of them is compared with all others.
pub(crate) const MAX_FIELDS: usize = 256;

/// Deeper than any schema; beyond it upstreams with a recursive parser fail in their own ways.
pub(crate) const MAX_DEPTH: usize = 128;

/// The top level of a JSON object, each value as its text. Of duplicate keys only the last is kept, as JSON readers do.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a> {
    pub(crate) fields: Vec<(Cow<'a, str>, &'a str)>,
    /// There were more than are kept.
    pub(crate) too_many: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                #[derive(Deserialize)]
                struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

                let mut fields: Vec<(Cow<'de, str>, &'de str)> = Vec::with_capacity(8);
                while let Some(Key(key)) = map.next_key()? {
                    let value: &RawValue = map.next_value()?;
                    let known = fields.iter().position(|(known, _)| *known == key);
                    match known {
                        Some(index) => fields[index].1 = value.get(),
                        None if fields.len() < MAX_FIELDS => fields.push((key, value.get())),
                        None => {
                            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                            let too_many = true;
                            return Ok(Fields { fields, too_many });
                        }
                    }
                }
                let too_many = false;
                Ok(Fields { fields, too_many })
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

impl<'a> Fields<'a> {
    /// A value's bytes; `null` counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        let (_, value) = self.fields.iter().find(|(name, _)| name == key)?;
        Some(*value).filter(|text| *text != "null")
    }
}

/// A text as JSON.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Adds a text as JSON.
pub(crate) fn add_quoted(out: &mut Vec<u8>, text: &str) {
    let escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    if text.bytes().any(escaped) {
        out.extend_from_slice(quoted(text).as_bytes());
    } else {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

/// Whether valid JSON is nested deeper than so many levels.
pub(crate) fn is_deeper(json: &str, most: usize) -> bool {
    // Most bodies have fewer brackets than that, also where those in texts are counted, and counting is quick.
    opening_brackets(json) > most && depth(json) > most
}

fn opening_brackets(json: &str) -> usize {
    let opens = |byte: &u8| u8::from(matches!(byte, b'{' | b'['));
    // Sums of bytes, so that the compiler adds many at once.
    let pieces = json.as_bytes().chunks(usize::from(u8::MAX));
    let sums = pieces.map(|piece| piece.iter().map(opens).sum::<u8>());
    sums.map(usize::from).sum()
}

/// How deep valid JSON is nested.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut rest = json.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = match byte {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
                after
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                after
            }
            b'"' => after_text(after),
            _ => after,
        };
    }
    deepest
}

/// What follows a text's end.
fn after_text(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
        if rest[at] == b'"' {
            return &rest[at + 1..];
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    &[]
}
