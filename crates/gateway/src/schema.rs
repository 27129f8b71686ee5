//! What a request's body has to be, as a JSON Schema: made from the table of endpoints that requests are checked with.

use serde_json::{Map, Value, json};

use crate::{Endpoint, endpoint::Need};

impl Endpoint {
    /// The JSON Schema of its body: what is checked here, and the fields that the gateway itself reads. All else passes as it is.
    /// `model_in_path`: the path names the model, and the body need not.
    pub fn body_schema(self, model_in_path: bool) -> Value {
        let mut properties = Map::new();
        properties.insert("model".into(), json!({"type": "string"}));
        let mut required = Vec::new();
        let mut any_of = Vec::new();
        if !model_in_path {
            required.push("model");
        }
        for need in self.needs() {
            properties.insert(need.field.into(), of_need(need));
            match need.or {
                None => required.push(need.field),
                Some(other) => {
                    let instead = if self.is_form() {
                        of_need(need)
                    } else {
                        json!({})
                    };
                    properties.insert(other.into(), instead);
                    any_of.push(json!({"required": [need.field]}));
                    any_of.push(json!({"required": [other]}));
                }
            }
        }
        for (name, schema) in own_fields() {
            // These come in headers with a form.
            if self.is_form() && matches!(name, "stream_timeout" | "num_retries") {
                continue;
            }
            properties.insert(name.into(), schema);
        }
        let mut schema = json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": true,
        });
        if !any_of.is_empty() {
            schema["anyOf"] = any_of.into();
        }
        schema
    }
}

/// What the gateway reads itself and does not send on.
fn own_fields() -> [(&'static str, Value); 5] {
    let seconds =
        |what| json!({"type": ["number", "null"], "exclusiveMinimum": 0, "description": what});
    [
        (
            "priority",
            json!({
                "type": ["integer", "null"],
                "minimum": i32::MIN,
                "maximum": i32::MAX,
                "description": "The order in the queue: a smaller number goes first.",
            }),
        ),
        (
            "timeout",
            seconds("The request's whole time, waiting included."),
        ),
        (
            "stream_timeout",
            seconds("The time of one attempt of a streamed call."),
        ),
        (
            "num_retries",
            json!({
                "type": ["integer", "null"],
                "minimum": 0,
                "description": "Attempts in a group after the first.",
            }),
        ),
        ("stream", json!({"type": ["boolean", "null"]})),
    ]
}

fn of_need(need: &Need) -> Value {
    // In a form: a text or a file.
    if need.kinds.is_empty() {
        return json!({"type": "string"});
    }
    let mut kinds: Vec<_> = need.kinds.iter().map(|kind| kind_name(*kind)).collect();
    kinds.dedup();
    match kinds.as_slice() {
        ["number"] => json!({"type": "number", "minimum": 0}),
        [kind] => json!({"type": kind}),
        _ => json!({"type": kinds}),
    }
}

/// The type whose JSON begins so.
fn kind_name(begin: char) -> &'static str {
    match begin {
        '[' => "array",
        '{' => "object",
        '"' => "string",
        _ => "number",
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Call, request::Layout};

    /// A value of the schema's first type.
    fn fitting(schema: &Value) -> Value {
        let first = schema["type"]
            .as_array()
            .map_or(&schema["type"], |kinds| &kinds[0]);
        match first.as_str() {
            Some("array") => json!([]),
            Some("number") => json!(1),
            Some("object") => json!({}),
            _ => json!("text"),
        }
    }

    fn reads(endpoint: Endpoint, body: &Value) -> bool {
        let body = Bytes::from(body.to_string());
        Layout::of(&Call::new(endpoint, body)).is_ok()
    }

    #[test]
    fn body_of_the_schema_is_read_and_one_without_a_required_field_is_not() {
        for endpoint in Endpoint::all().filter(|endpoint| !endpoint.is_form()) {
            let schema = endpoint.body_schema(false);
            let mut body = json!({});
            let mut needed: Vec<_> = schema["required"].as_array().unwrap().iter().collect();
            let first = &schema["anyOf"][0]["required"][0];
            needed.extend(Some(first).filter(|first| first.is_string()));
            for field in &needed {
                let field = field.as_str().unwrap();
                body[field] = fitting(&schema["properties"][field]);
            }
            assert!(reads(endpoint, &body), "{endpoint:?}: {body}");
            for field in needed {
                let field = field.as_str().unwrap();
                let mut wrong = body.clone();
                wrong[field] = json!(true);
                assert!(!reads(endpoint, &wrong), "{endpoint:?}: {wrong}");
                wrong.as_object_mut().unwrap().remove(field);
                assert!(!reads(endpoint, &wrong), "{endpoint:?}: {wrong}");
            }
        }
    }
}
