//! Embeddings of Vertex AI, which has no OpenAI-compatible endpoint for those of Google: its method `predict`.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use reqwest::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use crate::{codec::coding::Coding, problem::Problem, request::edits::Field, translate::response};

/// What an embedding request may name besides, and what it is called there.
const OF_AN_INSTANCE: &[(&str, &str)] = &[
    ("task_type", "task_type"),
    // As LiteLLM takes it.
    ("input_type", "task_type"),
    ("title", "title"),
];
const PARAMETERS: &[(&str, &str)] = &[
    ("dimensions", "outputDimensionality"),
    ("auto_truncate", "autoTruncate"),
];

/// The body for `predict` of a request for embeddings. Other fields than those above are left out.
pub(crate) fn request(fields: &[Field<'_>]) -> Result<Bytes, Problem> {
    let value = |name: &str| {
        let (_, json) = fields.iter().find(|(field, _)| field == name)?;
        let value: Value = serde_json::from_str(json).ok()?;
        (!value.is_null()).then_some(value)
    };
    let named = |names: &[(&str, &str)]| -> Map<String, Value> {
        let found = names.iter();
        let found = found.filter_map(|(from, to)| Some(((*to).to_owned(), value(from)?)));
        found.collect()
    };
    let texts = match value("input") {
        Some(text @ Value::String(_)) => vec![text],
        Some(Value::Array(texts)) if texts.iter().all(Value::is_string) => texts,
        _ => {
            let message = "Invalid type for 'input': this model takes a text or a list of texts";
            return Err(Problem::invalid("input", message));
        }
    };
    let of_each = named(OF_AN_INSTANCE);
    let instances = texts.into_iter().map(|text| {
        let mut instance = of_each.clone();
        instance.insert("content".into(), text);
        Value::Object(instance)
    });
    let mut body = json!({"instances": instances.collect::<Vec<_>>()});
    let parameters = named(PARAMETERS);
    if !parameters.is_empty() {
        body["parameters"] = Value::Object(parameters);
    }
    Ok(Bytes::from(body.to_string()))
}

/// Whether the vectors are asked for in base64, as OpenAI's SDKs do.
pub(crate) fn wants_base64(fields: &[Field<'_>]) -> bool {
    let mut fields = fields.iter();
    fields.any(|(name, json)| name == "encoding_format" && json == "\"base64\"")
}

/// The answer in OpenAI's format.
pub(crate) fn answered(
    response: Response,
    coding: Option<Coding>,
    model: String,
    base64: bool,
) -> Response {
    response::rewritten(response, coding, |chunks| {
        let answer = response::whole(chunks, move |answer| embeddings(answer, &model, base64));
        answer.into_stream().boxed()
    })
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    predictions: Vec<Prediction<'a>>,
}

#[derive(Deserialize)]
struct Prediction<'a> {
    #[serde(borrow)]
    embeddings: Embedding<'a>,
}

#[derive(Deserialize)]
struct Embedding<'a> {
    /// Numbers, as they were written.
    #[serde(borrow)]
    values: &'a RawValue,
    #[serde(default)]
    statistics: Statistics,
}

#[derive(Deserialize, Default)]
struct Statistics {
    #[serde(default)]
    token_count: f64,
}

fn embeddings(answer: &[u8], model: &str, base64: bool) -> Option<Bytes> {
    let answer: Answer<'_> = serde_json::from_slice(answer).ok()?;
    let counts = answer.predictions.iter();
    let tokens: f64 = counts
        .map(|one| one.embeddings.statistics.token_count)
        .sum();
    let vectors = answer.predictions.iter().enumerate().map(|(index, one)| {
        let values = one.embeddings.values.get();
        let vector = if base64 {
            let numbers: Vec<f32> = serde_json::from_str(values).ok()?;
            let bytes: Vec<u8> = numbers.into_iter().flat_map(f32::to_le_bytes).collect();
            format!("\"{}\"", BASE64_STANDARD.encode(bytes))
        } else {
            values.to_owned()
        };
        Some(format!(
            r#"{{"object":"embedding","index":{index},"embedding":{vector}}}"#
        ))
    });
    let vectors: Option<Vec<String>> = vectors.collect();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float beyond the range saturates"
    )]
    let tokens = tokens.round() as u64;
    Some(Bytes::from(format!(
        r#"{{"object":"list","data":[{}],"model":{},"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}"#,
        vectors?.join(","),
        Value::from(model),
    )))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn sent(json: &str) -> Result<Value, Problem> {
        let fields: Map<String, Value> = serde_json::from_str(json).unwrap();
        let fields = fields.into_iter();
        let fields: Vec<Field<'_>> = fields
            .map(|(name, value)| (Cow::Owned(name), Cow::Owned(value.to_string())))
            .collect();
        request(&fields).map(|body| serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn each_text_is_an_instance() {
        assert_eq!(
            sent(r#"{"model":"m","input":"a","encoding_format":"base64","user":"u"}"#).unwrap(),
            json!({"instances": [{"content": "a"}]})
        );
        assert_eq!(
            sent(r#"{"input":["a","b"],"input_type":"RETRIEVAL_QUERY","dimensions":8,"auto_truncate":false}"#).unwrap(),
            json!({
                "instances": [{"task_type": "RETRIEVAL_QUERY", "content": "a"}, {"task_type": "RETRIEVAL_QUERY", "content": "b"}],
                "parameters": {"outputDimensionality": 8, "autoTruncate": false},
            })
        );
        for input in ["[1,2]", r#"[["a"]]"#, "null", "{}"] {
            assert!(sent(&format!(r#"{{"input":{input}}}"#)).is_err(), "{input}");
        }
    }

    #[test]
    fn predictions_become_embeddings_with_their_usage() {
        let answer = br#"{"predictions":[{"embeddings":{"values":[0.10, -1e-3],"statistics":{"token_count":3,"truncated":false}}},
                         {"embeddings":{"values":[1,2],"statistics":{"token_count":4.0}}}],"metadata":{"billableCharacterCount":9}}"#;
        assert_eq!(
            embeddings(answer, "text-embedding-005", false).unwrap(),
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.10, -1e-3]},{"object":"embedding","index":1,"embedding":[1,2]}],"model":"text-embedding-005","usage":{"prompt_tokens":7,"total_tokens":7}}"#
        );
        let answer = embeddings(answer, "m", true).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let vector = answer["data"][1]["embedding"].as_str().unwrap();
        let expected: Vec<u8> = [1.0_f32, 2.0]
            .into_iter()
            .flat_map(f32::to_le_bytes)
            .collect();
        assert_eq!(BASE64_STANDARD.decode(vector).unwrap(), expected);
        assert!(embeddings(br#"{"predictions":[{"values":[]}]}"#, "m", false).is_none());
    }
}
