//! A JSON schema as Anthropic takes one for structured output. It refuses constraints that it cannot enforce.

use serde_json::{Map, Value};

/// What is refused. The model reads it in the description instead, as with Anthropic's SDKs.
const REFUSED: &[&str] = &[
    "contains",
    "dependentRequired",
    "dependentSchemas",
    "else",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "if",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "patternProperties",
    "prefixItems",
    "propertyNames",
    "then",
    "unevaluatedProperties",
    "uniqueItems",
];

/// The schema without what is refused.
pub(super) fn accepted(schema: &Value) -> Value {
    let Value::Object(schema) = schema else {
        return schema.clone();
    };
    let mut result = Map::new();
    let mut notes = Vec::new();
    let mut alternatives = Vec::new();
    for (name, value) in schema {
        match (name.as_str(), value) {
            (name, value) if REFUSED.contains(&name) && !is_enforced(name, value) => {
                if *value != false {
                    notes.push(format!("{name}: {value}"));
                }
            }
            ("properties" | "$defs" | "definitions", Value::Object(schemas)) => {
                let schemas = schemas.iter();
                let schemas = schemas.map(|(name, schema)| (name.clone(), accepted(schema)));
                result.insert(name.clone(), Value::Object(schemas.collect()));
            }
            ("anyOf" | "oneOf", Value::Array(schemas)) => {
                alternatives.extend(schemas.iter().map(accepted));
            }
            ("allOf", Value::Array(schemas)) => {
                result.insert(name.clone(), schemas.iter().map(accepted).collect());
            }
            ("items", schema) => drop(result.insert(name.clone(), accepted(schema))),
            _ => drop(result.insert(name.clone(), value.clone())),
        }
    }
    if !alternatives.is_empty() {
        result.insert("anyOf".into(), alternatives.into());
    }
    if is_object(&result) {
        result.insert("additionalProperties".into(), false.into());
    }
    if !notes.is_empty() {
        let own = result.get("description").and_then(Value::as_str);
        let notes = notes.join(", ");
        let description = match own {
            Some(own) => format!("{own} ({notes})"),
            None => notes,
        };
        result.insert("description".into(), description.into());
    }
    Value::Object(result)
}

/// An array may be told to be empty or not.
fn is_enforced(name: &str, value: &Value) -> bool {
    name == "minItems" && matches!(value.as_u64(), Some(0 | 1))
}

fn is_object(schema: &Map<String, Value>) -> bool {
    let named = |kind: &Value| kind == "object";
    match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(named),
        Some(kind) => named(kind),
        None => schema.contains_key("properties"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn constraints_that_anthropic_refuses_become_descriptions() {
        let schema = json!({
            "type": "object",
            "properties": {
                "age": {"type": "integer", "minimum": 1, "description": "In years"},
                "tags": {"type": "array", "minItems": 1, "uniqueItems": false, "items": {"type": "string", "maxLength": 9}},
                "pet": {"oneOf": [{"$ref": "#/$defs/cat"}, {"type": "null"}]},
                "not": {"type": "string"},
            },
            "required": ["age"],
            "$defs": {"cat": {"type": ["object", "null"], "additionalProperties": true}},
        });
        assert_eq!(
            accepted(&schema),
            json!({
                "type": "object",
                "properties": {
                    "age": {"type": "integer", "description": "In years (minimum: 1)"},
                    "tags": {"type": "array", "minItems": 1, "items": {"type": "string", "description": "maxLength: 9"}},
                    "pet": {"anyOf": [{"$ref": "#/$defs/cat"}, {"type": "null"}]},
                    "not": {"type": "string"},
                },
                "required": ["age"],
                "$defs": {"cat": {"type": ["object", "null"], "additionalProperties": false}},
                "additionalProperties": false,
            })
        );
    }
}
