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

                let mut fields: Vec<(Cow<'de, str>, &'de str)> = Vec::new();
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

/// How deep valid JSON is nested.
pub(crate) fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}
