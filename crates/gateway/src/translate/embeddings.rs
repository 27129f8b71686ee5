//! Embeddings of models that are invoked in their makers' formats: Amazon's Titan and Cohere's at Bedrock, Google's at Vertex AI.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use super::{Asked, invalid};
use crate::problem::Problem;

type Result<T> = std::result::Result<T, Problem>;

/// What LiteLLM sends where a request does not say what its texts are for.
const INPUT_TYPE: &str = "search_document";

/// A request for one of Titan's models, which embed one text in a call.
pub(super) fn to_titan(mut fields: Map<String, Value>, model: &str) -> Result<Map<String, Value>> {
    let mut texts = texts(fields.remove("input"))?;
    let (Some(text), true) = (texts.pop(), texts.is_empty()) else {
        let message = "Invalid value for 'input': Amazon's Titan models embed one text in a call, and a call of several would count as one against limits";
        return Err(invalid("input", message));
    };
    without_form(&mut fields);
    if model.contains("titan-embed-image")
        && let Some(length) = fields.remove("dimensions")
    {
        let config = json!({"outputEmbeddingLength": length});
        fields.insert("embeddingConfig".into(), config);
    }
    fields.insert("inputText".into(), text);
    Ok(fields)
}

/// A request for one of Cohere's models.
pub(super) fn to_cohere(mut fields: Map<String, Value>) -> Result<Map<String, Value>> {
    let texts = texts(fields.remove("input"))?;
    without_form(&mut fields);
    if let Some(length) = fields.remove("dimensions") {
        fields.insert("output_dimension".into(), length);
    }
    fields.insert("texts".into(), texts.into());
    fields
        .entry("input_type")
        .or_insert_with(|| INPUT_TYPE.into());
    Ok(fields)
}

/// What a request to Google's models may name for each text besides, and what it is called there.
const OF_AN_INSTANCE: [(&str, &str); 3] = [
    // As LiteLLM takes it.
    ("input_type", "task_type"),
    ("task_type", "task_type"),
    ("title", "title"),
];
const PARAMETERS: [(&str, &str); 2] = [
    ("dimensions", "outputDimensionality"),
    ("auto_truncate", "autoTruncate"),
];

/// A request for Vertex AI's `predict`. Other fields than those above are left out.
pub(super) fn to_predict(mut fields: Map<String, Value>) -> Result<Map<String, Value>> {
    let texts = texts(fields.remove("input"))?;
    let mut named = |names: &[(&str, &str)]| {
        let mut found = Map::new();
        for (from, to) in names {
            if let Some(value) = fields.remove(*from) {
                found.insert((*to).to_owned(), value);
            }
        }
        found
    };
    let (of_each, parameters) = (named(&OF_AN_INSTANCE), named(&PARAMETERS));
    let instance = |text| {
        let mut instance = of_each.clone();
        instance.insert("content".into(), text);
        Value::Object(instance)
    };
    let instances: Vec<Value> = texts.into_iter().map(instance).collect();
    let mut body = Map::from_iter([("instances".to_owned(), instances.into())]);
    if !parameters.is_empty() {
        body.insert("parameters".into(), parameters.into());
    }
    Ok(body)
}

/// The form of the answer is made here, and neither knows users.
fn without_form(fields: &mut Map<String, Value>) {
    for name in ["encoding_format", "user"] {
        fields.remove(name);
    }
}

fn texts(input: Option<Value>) -> Result<Vec<Value>> {
    let texts = match input.unwrap_or_default() {
        text @ Value::String(_) => vec![text],
        Value::Array(texts) => texts,
        _ => Vec::new(),
    };
    if texts.is_empty() || !texts.iter().all(Value::is_string) {
        let message = "Invalid value for 'input': expected a text or a list of texts";
        return Err(invalid("input", message));
    }
    Ok(texts)
}

/// Titan's answer as `OpenAI`'s; `None`: it is none.
pub(super) fn of_titan(answer: &Value, asked: &Asked) -> Option<Value> {
    let numbers = answer["embedding"].as_array()?;
    let tokens = answer["inputTextTokenCount"].as_u64();
    Some(list(std::slice::from_ref(numbers), tokens, asked))
}

/// Cohere's answer as `OpenAI`'s; `None`: it is none.
pub(super) fn of_cohere(answer: &Value, asked: &Asked) -> Option<Value> {
    let embeddings = &answer["embeddings"];
    let lists = embeddings.as_array().or(embeddings["float"].as_array())?;
    let lists = lists.iter().map(|numbers| numbers.as_array().cloned());
    let lists: Vec<Vec<Value>> = lists.collect::<Option<_>>()?;
    Some(list(&lists, None, asked))
}

/// Vertex AI's predictions as `OpenAI`'s answer; `None`: it is none.
pub(super) fn of_predict(answer: &Value, asked: &Asked) -> Option<Value> {
    let predictions = answer["predictions"].as_array()?;
    let lists = predictions
        .iter()
        .map(|one| one["embeddings"]["values"].as_array().cloned());
    let lists: Vec<Vec<Value>> = lists.collect::<Option<_>>()?;
    // They are written as numbers with a fraction.
    let counts = predictions
        .iter()
        .map(|one| one["embeddings"]["statistics"]["token_count"].as_f64());
    let tokens: Option<f64> = counts.sum();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float beyond the range saturates"
    )]
    let tokens = tokens.map(|tokens| tokens.round() as u64);
    Some(list(&lists, tokens, asked))
}

/// `tokens`: of the input, as the answer says. Without it they are estimated from the text.
fn list(embeddings: &[Vec<Value>], tokens: Option<u64>, asked: &Asked) -> Value {
    let tokens = tokens.unwrap_or(asked.input_tokens);
    let data = embeddings.iter().enumerate().map(|(index, numbers)| {
        json!({"object": "embedding", "index": index, "embedding": form(numbers, asked.base64)})
    });
    json!({
        "object": "list", "data": data.collect::<Vec<_>>(), "model": asked.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    })
}

/// Numbers, or the base64 of their 32 bits each, the lowest byte first: `OpenAI`'s SDKs ask for that.
fn form(numbers: &[Value], base64: bool) -> Value {
    if !base64 {
        return numbers.into();
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the format has 32 bits for each"
    )]
    let bytes = numbers
        .iter()
        .flat_map(|number| (number.as_f64().unwrap_or(0.0) as f32).to_le_bytes());
    BASE64_STANDARD.encode(bytes.collect::<Vec<u8>>()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(value: Value) -> Map<String, Value> {
        let Value::Object(fields) = value else {
            panic!("an object")
        };
        fields
    }

    #[test]
    fn titan_gets_one_text_and_cohere_a_list() {
        let one = |input: Value| json!({"input": input, "dimensions": 256, "encoding_format": "base64", "user": "u"});
        for input in [json!("hi"), json!(["hi"])] {
            let titan = to_titan(fields(one(input.clone())), "amazon.titan-embed-text-v2:0");
            assert_eq!(
                Value::Object(titan.unwrap()),
                json!({"inputText": "hi", "dimensions": 256})
            );
            let image = to_titan(fields(one(input.clone())), "amazon.titan-embed-image-v1");
            assert_eq!(
                Value::Object(image.unwrap()),
                json!({"inputText": "hi", "embeddingConfig": {"outputEmbeddingLength": 256}})
            );
            assert_eq!(
                Value::Object(to_cohere(fields(one(input))).unwrap()),
                json!({"texts": ["hi"], "output_dimension": 256, "input_type": "search_document"})
            );
        }
        let query = json!({"input": ["a", "b"], "input_type": "search_query", "truncate": "END"});
        assert_eq!(
            Value::Object(to_cohere(fields(query)).unwrap()),
            json!({"texts": ["a", "b"], "input_type": "search_query", "truncate": "END"})
        );
        for input in [
            json!(["a", "b"]),
            json!([]),
            json!([1, 2]),
            json!([[1]]),
            Value::Null,
        ] {
            let problem = to_titan(fields(json!({"input": input})), "m").unwrap_err();
            assert_eq!(
                (problem.status().as_u16(), problem.param()),
                (400, Some("input")),
                "{input}"
            );
        }
        assert!(to_cohere(fields(json!({"input": [1, 2]}))).is_err());
    }

    #[test]
    fn each_text_is_an_instance_of_a_prediction() {
        let sent = |json: Value| to_predict(fields(json)).map(Value::Object);
        assert_eq!(
            sent(json!({"input": "a", "encoding_format": "base64", "user": "u"})).unwrap(),
            json!({"instances": [{"content": "a"}]})
        );
        let request = json!({
            "input": ["a", "b"], "input_type": "RETRIEVAL_QUERY", "dimensions": 8, "auto_truncate": false
        });
        assert_eq!(
            sent(request).unwrap(),
            json!({
                "instances": [
                    {"task_type": "RETRIEVAL_QUERY", "content": "a"},
                    {"task_type": "RETRIEVAL_QUERY", "content": "b"},
                ],
                "parameters": {"outputDimensionality": 8, "autoTruncate": false},
            })
        );
        for input in [json!([1, 2]), json!([["a"]]), json!(null), json!({})] {
            assert!(sent(json!({"input": input})).is_err(), "{input}");
        }
    }

    #[test]
    fn predictions_become_embeddings_with_their_usage() {
        let answer = json!({
            "predictions": [
                {"embeddings": {"values": [0.1, -1e-3], "statistics": {"token_count": 3, "truncated": false}}},
                {"embeddings": {"values": [1, 2], "statistics": {"token_count": 4.0}}},
            ],
            "metadata": {"billableCharacterCount": 9},
        });
        let asked = Asked {
            input_tokens: 9,
            model: "up".into(),
            ..Asked::default()
        };
        let translated = of_predict(&answer, &asked).unwrap();
        assert_eq!(
            (
                &translated["data"][0]["embedding"],
                &translated["data"][1]["embedding"]
            ),
            (&json!([0.1, -1e-3]), &json!([1, 2]))
        );
        assert_eq!(
            translated["usage"],
            json!({"prompt_tokens": 7, "total_tokens": 7})
        );
        let uncounted = json!({"predictions": [{"embeddings": {"values": [1]}}]});
        let translated = of_predict(&uncounted, &asked).unwrap();
        assert_eq!(translated["usage"]["total_tokens"], 9);
        for none in [json!({}), json!({"predictions": [{"values": []}]})] {
            assert_eq!(of_predict(&none, &asked), None);
        }
    }

    #[test]
    fn answers_become_lists_of_numbers_or_base64() {
        let asked = Asked {
            input_tokens: 9,
            model: "up".into(),
            ..Asked::default()
        };
        let titan = json!({"embedding": [0.5, -1.0], "inputTextTokenCount": 3});
        assert_eq!(
            of_titan(&titan, &asked).unwrap(),
            json!({
                "object": "list", "model": "up", "usage": {"prompt_tokens": 3, "total_tokens": 3},
                "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}],
            })
        );
        let coded = Asked {
            base64: true,
            ..asked.clone()
        };
        let answer = of_titan(&titan, &coded).unwrap();
        let bytes = answer["data"][0]["embedding"].as_str().unwrap();
        assert_eq!(
            BASE64_STANDARD.decode(bytes).unwrap(),
            [0, 0, 0, 0x3F, 0, 0, 0x80, 0xBF]
        );
        for embeddings in [json!([[1.0], [2.0]]), json!({"float": [[1.0], [2.0]]})] {
            let answer = of_cohere(&json!({"embeddings": embeddings}), &asked).unwrap();
            assert_eq!(
                answer["data"][1],
                json!({"object": "embedding", "index": 1, "embedding": [2.0]})
            );
            assert_eq!(
                answer["usage"],
                json!({"prompt_tokens": 9, "total_tokens": 9})
            );
        }
        for none in [
            json!({}),
            json!({"embeddings": [1]}),
            json!({"message": "no"}),
        ] {
            assert_eq!(of_titan(&none, &asked), None);
            assert_eq!(of_cohere(&none, &asked), None);
        }
    }
}
