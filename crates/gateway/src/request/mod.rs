//! A request's body: read as far as needed, changed as little as possible.

pub(crate) mod cache_points;
pub(crate) mod edits;
pub(crate) mod fields;
pub(crate) mod form;
pub(crate) mod metadata;
pub(crate) mod payload;
pub(crate) mod resource;
pub(crate) mod steering;
pub(crate) mod tenant;
pub(crate) mod terms;

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use bytestring::ByteString;

pub(crate) use crate::request::fields::Fields;
use crate::{
    Call, Endpoint,
    endpoint::Need,
    fallbacks::Fallback,
    problem::Problem,
    request::edits::Edits,
    request::fields::{MAX_DEPTH, MAX_FIELDS, add_quoted, is_deeper, quoted},
    request::{form::Form, payload::Payload, steering::Steering},
};

/// A request that has what every request needs.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) endpoint: Endpoint,
    pub(crate) fields: Fields<'a>,
    /// What the client calls the model.
    pub(crate) model: Cow<'a, str>,
    pub(crate) stream: bool,
    /// The form that the fields are of.
    form: Option<&'a Form>,
}

impl<'a> Request<'a> {
    /// Reads a body. `path_model` wins over the body's.
    #[cfg(test)]
    pub(crate) fn parse(
        endpoint: Endpoint,
        body: &'a [u8],
        path_model: Option<&str>,
    ) -> Result<Self, Problem> {
        let text = std::str::from_utf8(body).map_err(|_| not_utf8())?;
        Self::parse_text(endpoint, text, path_model)
    }

    fn parse_text(
        endpoint: Endpoint,
        body: &'a str,
        path_model: Option<&str>,
    ) -> Result<Self, Problem> {
        let fields = Fields::of(body)?;
        check_depth(body)?;
        let model: String = match (path_model, fields.get("model")) {
            (Some(model), _) => model.to_owned(),
            (None, None) => return Err(missing("model")),
            (None, Some(text)) => serde_json::from_str(text).map_err(|_| {
                Problem::invalid("model", "Invalid type for 'model': expected a string")
            })?,
        };
        let stream = check(endpoint, &fields)?;
        Ok(Self {
            endpoint,
            fields,
            model: model.into(),
            stream,
            form: None,
        })
    }

    /// The bytes of the prompt, the messages, or whatever the endpoint's input is.
    pub(crate) fn input(&self) -> &'a str {
        let need = self.endpoint.needs().first();
        need.and_then(|need| self.fields.get(need.field))
            .unwrap_or_default()
    }

    /// The body for the upstream.
    pub(crate) fn payload(&self, model: &str, edits: &Edits) -> Payload {
        match self.form {
            None => Payload::Json(self.rewritten(model, edits)),
            Some(form) => Payload::Form {
                content_type: form.content_type().clone(),
                pieces: form.rewritten(self.endpoint, model, edits),
            },
        }
    }

    /// The JSON for the upstream: its own name of the model, without `priority` and `timeout`, with the deployment's changes, and
    /// everything else as it was. `metadata`: see there.
    pub(crate) fn rewritten(&self, model: &str, edits: &Edits) -> Bytes {
        let metadata = |json| metadata::sent(self.endpoint, json, edits.metadata);
        if edits.is_empty() {
            return written(&self.fields.fields, model, metadata);
        }
        let fields = edits.applied(self.endpoint, model, &self.fields);
        written(&fields, model, metadata)
    }
}

impl<'a> Fields<'a> {
    /// Those of a body.
    fn of(body: &'a str) -> Result<Self, Problem> {
        let fields: Self = serde_json::from_str(body).map_err(|error| Problem::Invalid {
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
        if fields.too_many {
            return Err(invalid_body(format!("has more than {MAX_FIELDS} fields")));
        }
        Ok(fields)
    }
}

fn check_depth(body: &str) -> Result<(), Problem> {
    if is_deeper(body, MAX_DEPTH) {
        let message = format!("is nested deeper than {MAX_DEPTH} levels");
        return Err(invalid_body(message));
    }
    Ok(())
}

/// Fields that are needed have to be there, and of their types. Returns whether a stream is asked for.
fn check(endpoint: Endpoint, fields: &Fields<'_>) -> Result<bool, Problem> {
    for need in endpoint.needs() {
        check_need(fields, need)?;
    }
    match fields.get("stream") {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Problem::invalid(
            "stream",
            "Invalid type for 'stream': expected a boolean",
        )),
    }
}

fn check_need(fields: &Fields<'_>, need: &Need) -> Result<(), Problem> {
    let name = need.field;
    let Some(text) = fields.get(name) else {
        let instead = need.or.and_then(|other| fields.get(other));
        return instead.map(drop).ok_or_else(|| missing(name));
    };
    if need.kinds.is_empty() || text.starts_with(need.kinds) {
        return Ok(());
    }
    let kinds = need.kinds.iter().map(|kind| match kind {
        '[' => "an array",
        '{' => "an object",
        '"' => "a string",
        _ => "a number of at least 0",
    });
    let mut kinds: Vec<_> = kinds.collect();
    kinds.dedup();
    let expected = kinds.join(" or ");
    let message = format!("Invalid type for '{name}': expected {expected}");
    Err(Problem::invalid(name, message))
}

fn written<'a, V: AsRef<str>>(
    fields: &'a [(Cow<'_, str>, V)],
    model: &str,
    metadata: impl Fn(&'a str) -> Option<Cow<'a, str>>,
) -> Bytes {
    let model = quoted(model);
    let named = fields.iter().any(|(key, _)| key == "model");
    let sent = fields.iter().find(|(key, _)| key == "metadata");
    let sent = sent.and_then(|(_, value)| metadata(value.as_ref()));
    let fields = fields.iter().filter_map(|(key, value)| match key.as_ref() {
        "priority" | "timeout" | cache_points::FIELD => None,
        "metadata" => Some(("metadata", sent.as_deref()?)),
        "model" => Some(("model", model.as_str())),
        key => Some((key, value.as_ref())),
    });
    let own = (!named).then_some(("model", model.as_str()));
    object(fields.chain(own))
}

/// A JSON object of these fields, each value as its text.
fn object<'a>(fields: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Bytes {
    let sizes = fields
        .clone()
        .map(|(key, value)| key.len() + value.len() + 4);
    let mut out = Vec::with_capacity(sizes.sum::<usize>() + 16);
    out.push(b'{');
    for (key, value) in fields {
        if out.len() > 1 {
            out.push(b',');
        }
        add_quoted(&mut out, key);
        out.push(b':');
        out.extend_from_slice(value.as_bytes());
    }
    out.push(b'}');
    out.into()
}

/// A request that was read elsewhere. Its fields are slices of the body, which is kept once.
#[derive(Debug)]
pub(crate) struct Layout {
    endpoint: Endpoint,
    fields: Vec<(ByteString, ByteString)>,
    model: String,
    stream: bool,
    form: Option<Arc<Form>>,
    /// What it asks of the gateway.
    pub(crate) steering: Option<Box<Steering>>,
}

impl Layout {
    /// Reads a call's body. The model of its path wins over the body's.
    pub(crate) fn of(call: &Call) -> Result<Self, Problem> {
        let (body, path_model) = (call.body.clone(), call.model.as_deref());
        if call.endpoint.is_form() {
            let form = Form::read(body, call.content_type.as_ref())?;
            Self::of_form(call.endpoint, form, path_model)
        } else {
            Self::read(call.endpoint, body, path_model)
        }
    }

    fn of_form(endpoint: Endpoint, form: Form, path_model: Option<&str>) -> Result<Self, Problem> {
        let fields = form.fields()?;
        let views = fields.iter();
        let views = views.map(|(name, json)| (Cow::Borrowed(name.as_str()), json.as_str()));
        let views = Fields {
            fields: views.collect(),
            too_many: false,
        };
        let model = match path_model {
            Some(model) => model.to_owned(),
            None => form.model()?.ok_or_else(|| missing("model"))?,
        };
        let stream = check(endpoint, &views)?;
        let fields = fields.into_iter();
        let mut fields = fields
            .map(|(name, json)| (name.into(), json.into()))
            .collect();
        Ok(Self {
            endpoint,
            steering: Steering::take(&mut fields)?,
            fields,
            model,
            stream,
            form: Some(Arc::new(form)),
        })
    }

    /// Reads a JSON body. `path_model` wins over the body's.
    pub(crate) fn read(
        endpoint: Endpoint,
        body: Bytes,
        path_model: Option<&str>,
    ) -> Result<Self, Problem> {
        let text = ByteString::try_from(body).map_err(|_| not_utf8())?;
        let request = Request::parse_text(endpoint, &text, path_model)?;
        let field = |(key, value): &(Cow<'_, str>, &str)| {
            let key = match key {
                Cow::Borrowed(key) => text.slice_ref(key),
                Cow::Owned(key) => ByteString::from(key.as_str()),
            };
            (key, text.slice_ref(value))
        };
        let mut fields = request.fields.fields.iter().map(field).collect();
        Ok(Self {
            endpoint,
            steering: Steering::take(&mut fields)?,
            fields,
            stream: request.stream,
            model: request.model.into_owned(),
            form: None,
        })
    }

    /// What the client calls the model.
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// The same request for a model of another name.
    pub(crate) fn renamed(&self, model: &str) -> Self {
        Self {
            endpoint: self.endpoint,
            fields: self.fields.clone(),
            model: model.to_owned(),
            stream: self.stream,
            form: self.form.clone(),
            steering: None,
        }
    }

    /// The same request for the group that takes it over, with what that changes in it.
    pub(crate) fn for_fallback(&self, to: &Fallback) -> Result<Self, Problem> {
        let mut layout = self.renamed(&to.model);
        for (name, json) in &to.fields {
            let json = ByteString::from(json.as_str());
            match layout.fields.iter_mut().find(|(known, _)| known == name) {
                Some((_, value)) => *value = json,
                None => layout.fields.push((name.as_str().into(), json)),
            }
        }
        layout.stream = check(self.endpoint, &layout.request().fields)?;
        Ok(layout)
    }

    pub(crate) fn request(&self) -> Request<'_> {
        let fields = self.fields.iter();
        Request {
            endpoint: self.endpoint,
            fields: Fields {
                fields: fields
                    .map(|(key, value)| (Cow::Borrowed(&**key), &**value))
                    .collect(),
                too_many: false,
            },
            model: Cow::Borrowed(&self.model),
            stream: self.stream,
            form: self.form.as_deref(),
        }
    }
}

fn not_utf8() -> Problem {
    invalid_body("is not UTF-8".into())
}

fn invalid_body(what: String) -> Problem {
    Problem::Invalid {
        message: format!("Invalid request body: it {what}"),
        param: None,
    }
}

fn missing(param: &'static str) -> Problem {
    Problem::invalid(param, format!("Missing required parameter: '{param}'."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: &str) -> Result<Request<'_>, Problem> {
        Request::parse(Endpoint::ChatCompletions, body.as_bytes(), None)
    }

    #[test]
    fn unknown_fields_are_forwarded_byte_for_byte_in_order() {
        let body = r#" { "z" : 1.00 , "model":"mine", "messages":[ {"a" : 1e400, "b":"\u00e9\ud800" } ],"priority":-3,"x":{"y":18446744073709551617},"timeout":2 } "#;
        let request = chat(body).unwrap();
        let expected = r#"{"z":1.00,"model":"theirs","messages":[ {"a" : 1e400, "b":"\u00e9\ud800" } ],"x":{"y":18446744073709551617}}"#;
        assert_eq!(request.rewritten("theirs", &Edits::default()), expected);
    }

    #[test]
    fn last_duplicate_field_wins() {
        let request =
            chat(r#"{"model":"a","t":1,"messages":[],"model":"b","t":2,"\u0074":3}"#).unwrap();
        assert_eq!(request.model, "b");
        assert_eq!(
            request.rewritten("m", &Edits::default()),
            r#"{"model":"m","t":3,"messages":[]}"#
        );
    }

    #[test]
    fn path_model_routes_a_request_without_model_field() {
        let body = br#"{"messages":[]}"#;
        let request = Request::parse(Endpoint::ChatCompletions, body, Some("p")).unwrap();
        assert_eq!(request.model, "p");
        assert_eq!(
            request.rewritten("a\"b", &Edits::default()),
            r#"{"messages":[],"model":"a\"b"}"#
        );
    }

    #[test]
    fn invalid_body_gets_400_that_names_the_field() {
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
    fn nesting_depth_is_bounded_and_ignores_brackets_in_strings() {
        let nested = |levels: usize| {
            let (open, close) = ("[".repeat(levels), "]".repeat(levels));
            format!(r#"{{"model":"m","messages":[],"x":{open}"[[\\\"[["{close}}}"#)
        };
        let body = nested(MAX_DEPTH - 1);
        assert_eq!(
            chat(&body).unwrap().rewritten("m", &Edits::default()),
            body.as_bytes()
        );
        for levels in [MAX_DEPTH, 100_000] {
            let problem = chat(&nested(levels)).unwrap_err();
            assert_eq!(problem.status().as_u16(), 400);
            assert!(problem.to_string().contains("128 levels"), "{problem}");
        }
    }

    #[test]
    fn number_of_distinct_fields_is_bounded() {
        let body = |more: usize| {
            let fields: String = (0..more).map(|index| format!(r#","f{index}":1"#)).collect();
            format!(
                r#"{{"model":"m","messages":[],"x":1{},"x":2{fields}}}"#,
                r#","x":3"#.repeat(1000)
            )
        };
        assert!(chat(&body(MAX_FIELDS - 3)).is_ok());
        for more in [MAX_FIELDS - 2, 50_000] {
            let problem = chat(&body(more)).unwrap_err();
            assert_eq!(problem.status().as_u16(), 400);
            assert!(problem.to_string().contains("256 fields"), "{problem}");
        }
    }

    #[test]
    fn layout_yields_the_same_request_without_copying_the_body() {
        let text = r#"{"model":"m","messages":["long"],"\u0078":1,"y":""}"#;
        let body = Bytes::from(text.to_owned());
        let layout = Layout::read(Endpoint::ChatCompletions, body.clone(), None).unwrap();
        let request = layout.request();
        assert_eq!(
            request.rewritten("m", &Edits::default()),
            chat(text).unwrap().rewritten("m", &Edits::default())
        );
        assert_eq!(request.model, "m");
        let within = body.as_ptr_range().contains(&request.input().as_ptr());
        assert!(within, "a copy");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused_with_a_clear_error(body: Vec<u8>) {
            for endpoint in [Endpoint::Completions, Endpoint::Messages, Endpoint::CountTokens] {
                if let Err(problem) = Request::parse(endpoint, &body, None) {
                    proptest::prop_assert_eq!(problem.status().as_u16(), 400);
                }
            }
        }

        #[test]
        fn rewritten_request_differs_only_in_model_priority_and_timeout(fields in proptest::collection::vec((".*", ".*"), 0..8)) {
            let pairs: Vec<String> = fields.iter().map(|(key, value)| format!("{}:{}", quoted(key), quoted(value))).collect();
            let body = format!(r#"{{"model":"m","messages":[]{}{}}}"#, if pairs.is_empty() { "" } else { "," }, pairs.join(","));
            let mut expected: serde_json::Value = serde_json::from_str(&body).unwrap();
            if let Ok(request) = chat(&body) {
                let object = expected.as_object_mut().unwrap();
                object.remove("priority");
                object.remove("timeout");
                object.insert("model".into(), "up".into());
                let rewritten: serde_json::Value = serde_json::from_slice(&request.rewritten("up", &Edits::default())).unwrap();
                proptest::prop_assert_eq!(rewritten, expected);
            }
        }
    }
}
