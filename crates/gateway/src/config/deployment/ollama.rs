//! Defaults of Ollama's own format, which LiteLLM calls, as fields of its OpenAI-compatible endpoint.

use serde_json::{Value as Json, json};

/// What a default comes to. `body`: it is a field of the request's body rather than an option, as in `extra_body`.
pub(super) fn fields(name: &str, value: Json, body: bool) -> Vec<(String, Json)> {
    match (name, value) {
        ("think", Json::Bool(thinks)) => {
            let effort = if thinks { "medium" } else { "none" };
            vec![("reasoning_effort".into(), effort.into())]
        }
        ("think", value) => vec![("reasoning_effort".into(), value)],
        ("format", schema @ Json::Object(_)) => {
            let schema = json!({"name": "answer", "schema": schema});
            let format = json!({"type": "json_schema", "json_schema": schema});
            vec![("response_format".into(), format)]
        }
        ("format", _) => vec![("response_format".into(), json!({"type": "json_object"}))],
        // Its amount is known then when room is reserved.
        ("num_predict", value) => vec![("max_tokens".into(), value)],
        ("options", Json::Object(options)) if body => options.into_iter().collect(),
        (name, value) => vec![(name.to_owned(), value)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(name: &str, value: Json) -> (String, Json) {
        fields(name, value, false).remove(0)
    }

    #[test]
    fn think_becomes_reasoning_effort() {
        for (value, expected) in [
            (json!(true), "medium"),
            (json!(false), "none"),
            (json!("high"), "high"),
        ] {
            let expected = ("reasoning_effort".to_owned(), json!(expected));
            assert_eq!(only("think", value), expected);
        }
    }

    #[test]
    fn format_becomes_response_format() {
        let (name, value) = only("format", json!("json"));
        assert_eq!(
            (name.as_str(), value),
            ("response_format", json!({"type": "json_object"}))
        );
        let schema = json!({"type": "object"});
        let (_, value) = only("format", schema.clone());
        assert_eq!(value["json_schema"]["schema"], schema);
    }

    #[test]
    fn options_of_the_body_are_lifted() {
        let options = json!({"num_ctx": 5, "seed": 1});
        let expected = vec![
            ("num_ctx".to_owned(), json!(5)),
            ("seed".to_owned(), json!(1)),
        ];
        assert_eq!(fields("options", options.clone(), true), expected);
        assert_eq!(
            only("options", options.clone()),
            ("options".to_owned(), options)
        );
    }
}
