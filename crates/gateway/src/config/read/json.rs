//! Values of the file as JSON, for fields of requests.

use serde_json::{Map, Number, Value as Json};

use super::{
    Section,
    tree::{Node, Value},
};
use crate::config::ConfigError;

type Result<T> = std::result::Result<T, ConfigError>;

impl Section<'_> {
    /// A value of the file as JSON; `os.environ/NAME` is resolved at any depth.
    pub(in crate::config) fn json(&self, key: &str, node: &Node) -> Result<Json> {
        Ok(match &node.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Integer(_) | Value::Float(_) => {
                let number = number(&node.value);
                Json::Number(
                    number
                        .ok_or_else(|| self.error(key, "expected a number that JSON can hold"))?,
                )
            }
            Value::Text(text) => Json::String(self.resolve(key, text)?),
            Value::List(items) => {
                let items = items.iter().map(|item| self.json(key, item));
                Json::Array(items.collect::<Result<_>>()?)
            }
            Value::Map(entries) => {
                let mut object = Map::new();
                for entry in entries {
                    object.insert(entry.key.clone(), self.json(key, &entry.node)?);
                }
                Json::Object(object)
            }
        })
    }
}

/// `1e4` is a whole number: `max_tokens: 10000.0` would be refused by many servers.
fn number(value: &Value) -> Option<Number> {
    match value {
        Value::Integer(number) => i64::try_from(*number).ok().map(Number::from),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "checked: whole and below 2^53"
        )]
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
            Some(Number::from(*number as i64))
        }
        Value::Float(number) => Number::from_f64(*number),
        _ => None,
    }
}
