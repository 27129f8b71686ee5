//! A request's body: read as far as needed, changed as little as possible.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{Endpoint, error::Problem};

/// The top level of a JSON object, each value as its bytes. Of duplicate keys only the last is kept, as JSON readers do.
#[derive(Debug)]
pub(crate) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

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

                let mut fields: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                let mut places = std::collections::HashMap::new();
                while let Some(Key(key)) = map.next_key()? {
                    let value = map.next_value()?;
                    match places.get(&key) {
                        Some(&place) => fields[place] = (key, value),
                        None => {
                            places.insert(key.clone(), fields.len());
                            fields.push((key, value));
                        }
                    }
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

impl<'a> Fields<'a> {
    /// A value's bytes; `null` counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        let (_, value) = self.0.iter().find(|(name, _)| name == key)?;
        Some(value.get()).filter(|text| *text != "null")
    }
}

/// A request that has what every request needs.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) endpoint: Endpoint,
    pub(crate) fields: Fields<'a>,
    /// What the client calls the model.
    pub(crate) model: String,
    pub(crate) stream: bool,
}

impl<'a> Request<'a> {
    /// Reads a body. `path_model` wins over the body's.
    pub(crate) fn parse(
        endpoint: Endpoint,
        body: &'a [u8],
        path_model: Option<&str>,
    ) -> Result<Self, Problem> {
        let fields: Fields<'a> =
            serde_json::from_slice(body).map_err(|error| Problem::Invalid {
                message: if error.is_data() {
                    "Invalid request body: expected a JSON object".into()
                } else {
                    format!(
                        "Invalid JSON in the request body at line {} column {}",
                        error.line(),
                        error.column()
                    )
                },
                param: None,
            })?;
        let model = match (path_model, fields.get("model")) {
            (Some(model), _) => model.to_owned(),
            (None, None) => return Err(missing("model")),
            (None, Some(text)) => serde_json::from_str(text).map_err(|_| {
                Problem::invalid("model", "Invalid type for 'model': expected a string")
            })?,
        };
        let (input, kinds) = match endpoint {
            Endpoint::ChatCompletions => ("messages", &['['][..]),
            Endpoint::Completions => ("prompt", &['[', '"'][..]),
        };
        let text = fields.get(input).ok_or_else(|| missing(input))?;
        if !text.starts_with(kinds) {
            let expected = if kinds.len() == 1 {
                "an array"
            } else {
                "a string or an array"
            };
            return Err(Problem::invalid(
                input,
                format!("Invalid type for '{input}': expected {expected}"),
            ));
        }
        let stream = match fields.get("stream") {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                return Err(Problem::invalid(
                    "stream",
                    "Invalid type for 'stream': expected a boolean",
                ));
            }
        };
        Ok(Self {
            endpoint,
            fields,
            model,
            stream,
        })
    }

    /// The bytes of the prompt or the messages.
    pub(crate) fn input(&self) -> &'a str {
        let key = match self.endpoint {
            Endpoint::ChatCompletions => "messages",
            Endpoint::Completions => "prompt",
        };
        self.fields.get(key).unwrap_or_default()
    }

    /// The body for the upstream: its own name of the model, without `priority` and `timeout`, everything else as it was.
    pub(crate) fn rewritten(&self, model: &str) -> Bytes {
        let model = quoted(model);
        let size: usize = self
            .fields
            .0
            .iter()
            .map(|(key, value)| key.len() + value.get().len() + 4)
            .sum();
        let mut out = Vec::with_capacity(size + model.len() + 16);
        out.push(b'{');
        let mut field = |key: &str, value: &str| {
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(quoted(key).as_bytes());
            out.push(b':');
            out.extend_from_slice(value.as_bytes());
        };
        let mut named = false;
        for (key, value) in &self.fields.0 {
            match key.as_ref() {
                "priority" | "timeout" => {}
                "model" => {
                    named = true;
                    field(key, &model);
                }
                _ => field(key, value.get()),
            }
        }
        if !named {
            field("model", &model);
        }
        out.push(b'}');
        out.into()
    }
}

fn missing(param: &'static str) -> Problem {
    Problem::invalid(param, format!("Missing required parameter: '{param}'."))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: &str) -> Result<Request<'_>, Problem> {
        Request::parse(Endpoint::ChatCompletions, body.as_bytes(), None)
    }

    #[test]
    fn unknown_fields_pass_byte_by_byte_and_in_order() {
        let body = r#" { "z" : 1.00 , "model":"mine", "messages":[ {"a" : 1e400, "b":"\u00e9\ud800" } ],"priority":-3,"x":{"y":18446744073709551617},"timeout":2 } "#;
        let request = chat(body).unwrap();
        let expected = r#"{"z":1.00,"model":"theirs","messages":[ {"a" : 1e400, "b":"\u00e9\ud800" } ],"x":{"y":18446744073709551617}}"#;
        assert_eq!(request.rewritten("theirs"), expected);
    }

    #[test]
    fn of_duplicate_fields_the_last_wins() {
        let request =
            chat(r#"{"model":"a","t":1,"messages":[],"model":"b","t":2,"\u0074":3}"#).unwrap();
        assert_eq!(request.model, "b");
        assert_eq!(
            request.rewritten("m"),
            r#"{"model":"m","t":3,"messages":[]}"#
        );
    }

    #[test]
    fn the_model_of_the_path_wins_and_reaches_the_upstream() {
        let body = br#"{"messages":[]}"#;
        let request = Request::parse(Endpoint::ChatCompletions, body, Some("p")).unwrap();
        assert_eq!(request.model, "p");
        assert_eq!(
            request.rewritten("a\"b"),
            r#"{"messages":[],"model":"a\"b"}"#
        );
    }

    #[test]
    fn a_bad_body_is_the_clients_mistake_and_says_which_field() {
        let cases = [
            ("", None, "Invalid JSON"),
            ("{", None, "Invalid JSON"),
            ("{} x", None, "Invalid JSON"),
            ("[]", None, "expected a JSON object"),
            ("null", None, "expected a JSON object"),
            ("\"model\"", None, "expected a JSON object"),
            ("{}", Some("model"), "Missing required parameter: 'model'."),
            (
                r#"{"model":null}"#,
                Some("model"),
                "Missing required parameter: 'model'.",
            ),
            (r#"{"model":["m"]}"#, Some("model"), "expected a string"),
            (
                r#"{"model":"m"}"#,
                Some("messages"),
                "Missing required parameter: 'messages'.",
            ),
            (
                r#"{"model":"m","messages":"hi"}"#,
                Some("messages"),
                "expected an array",
            ),
            (
                r#"{"model":"m","messages":[],"stream":"yes"}"#,
                Some("stream"),
                "expected a boolean",
            ),
        ];
        for (body, param, message) in cases {
            let problem = chat(body).unwrap_err();
            assert_eq!(
                (problem.status().as_u16(), problem.param()),
                (400, param),
                "{body}"
            );
            assert!(problem.to_string().contains(message), "{body}: {problem}");
        }
        let not_utf8 =
            Request::parse(Endpoint::Completions, b"{\"model\":\"\xff\"}", None).unwrap_err();
        assert_eq!(not_utf8.status().as_u16(), 400);
    }

    #[test]
    fn deep_nesting_neither_fails_nor_overflows() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let body = format!(r#"{{"model":"m","messages":[],"x":{deep}}}"#);
        assert_eq!(chat(&body).unwrap().rewritten("m"), body.as_bytes());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_request_or_a_clear_refusal(body: Vec<u8>) {
            if let Err(problem) = Request::parse(Endpoint::Completions, &body, None) {
                proptest::prop_assert_eq!(problem.status().as_u16(), 400);
            }
        }

        #[test]
        fn what_is_rewritten_means_the_same(fields in proptest::collection::vec((".*", ".*"), 0..8)) {
            let pairs: Vec<String> = fields.iter().map(|(key, value)| format!("{}:{}", quoted(key), quoted(value))).collect();
            let body = format!(r#"{{"model":"m","messages":[]{}{}}}"#, if pairs.is_empty() { "" } else { "," }, pairs.join(","));
            let mut expected: serde_json::Value = serde_json::from_str(&body).unwrap();
            if let Ok(request) = chat(&body) {
                let object = expected.as_object_mut().unwrap();
                object.remove("priority");
                object.remove("timeout");
                object.insert("model".into(), "up".into());
                let rewritten: serde_json::Value = serde_json::from_slice(&request.rewritten("up")).unwrap();
                proptest::prop_assert_eq!(rewritten, expected);
            }
        }
    }
}
