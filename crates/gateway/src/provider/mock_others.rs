//! What `mock_response` answers beyond chat and text: as LiteLLM's mocks, the text as an image's URL, zeros as vectors.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    problem::Problem,
    provider::mock::{MockAnswer, now},
    request::Request,
    tokens::{self, usage::Usage},
};

/// OpenAI's own bounds: a mock must not be a way to fill the memory.
const MOST_INPUTS: u64 = 2048;
const MOST_DIMENSIONS: u64 = 3072;

/// Enough to be seen as a vector.
const DIMENSIONS: u64 = 8;

/// A unit vector for each input.
pub(super) fn embeddings(request: &Request<'_>, model: &str) -> Result<MockAnswer, Problem> {
    let dimensions = request.fields.get("dimensions");
    let dimensions = dimensions.map_or(Some(DIMENSIONS), |text| text.parse().ok());
    let dimensions = dimensions.filter(|wanted| (1..=MOST_DIMENSIONS).contains(wanted));
    let dimensions = dimensions.ok_or_else(|| {
        let message = format!(
            "Invalid value for 'dimensions': expected an integer between 1 and {MOST_DIMENSIONS}"
        );
        Problem::invalid("dimensions", message)
    })?;
    let inputs = tokens::prompts(request.input());
    if inputs > MOST_INPUTS {
        let message = format!("Invalid 'input': expected at most {MOST_INPUTS} inputs");
        return Err(Problem::invalid("input", message));
    }
    let vector = (0..dimensions).map(|index| if index == 0 { 1.0_f32 } else { 0.0 });
    // The form that OpenAI's SDKs ask for.
    let vector = if request.fields.get("encoding_format") == Some("\"base64\"") {
        let bytes: Vec<u8> = vector.flat_map(f32::to_le_bytes).collect();
        Value::from(BASE64_STANDARD.encode(bytes))
    } else {
        vector.collect()
    };
    let data: Vec<Value> = (0..inputs)
        .map(|index| json!({"object": "embedding", "index": index, "embedding": vector}))
        .collect();
    let usage = Usage {
        input: tokens::input_tokens(request),
        output: 0,
    };
    let body = json!({
        "object": "list", "data": data, "model": model,
        "usage": {"prompt_tokens": usage.input, "total_tokens": usage.total()},
    });
    Ok(MockAnswer::json(&body, usage))
}

/// An image at the text, which is its URL.
pub(super) fn image(text: &str) -> MockAnswer {
    let usage = Usage {
        input: 0,
        output: 0,
    };
    MockAnswer::json(&json!({"created": now(), "data": [{"url": text}]}), usage)
}

/// A response with one message, as a whole or as the events that make one up.
pub(super) fn response(request: &Request<'_>, model: &str, text: &str) -> MockAnswer {
    let usage = Usage {
        input: tokens::input_tokens(request),
        output: (text.len() as u64).div_ceil(tokens::BYTES_PER_TOKEN),
    };
    let (id, item) = (uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let item = format!("msg_{item}");
    let part = json!({"type": "output_text", "text": text, "annotations": []});
    let message = json!({
        "type": "message", "id": item, "status": "completed", "role": "assistant", "content": [part],
    });
    let object = |status: &str, output: Value, usage: Value| {
        json!({
            "id": format!("resp_{id}"), "object": "response", "created_at": now(), "status": status, "model": model,
            "error": null, "incomplete_details": null, "instructions": null, "metadata": {}, "output": output,
            "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
            "usage": usage,
        })
    };
    let used = json!({
        "input_tokens": usage.input, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": usage.output, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total(),
    });
    let whole = object("completed", json!([message]), used);
    if !request.stream {
        return MockAnswer::json(&whole, usage);
    }
    let begun = object("in_progress", json!([]), Value::Null);
    let place = |mut event: Value| {
        event["item_id"] = json!(item);
        event["output_index"] = json!(0);
        event["content_index"] = json!(0);
        event
    };
    let empty = json!({"type": "output_text", "text": "", "annotations": []});
    let open = json!({"type": "message", "id": item, "status": "in_progress", "role": "assistant", "content": []});
    let mut events = vec![
        json!({"type": "response.created", "response": begun}),
        json!({"type": "response.in_progress", "response": begun}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": open}),
        place(json!({"type": "response.content_part.added", "part": empty})),
    ];
    let delta =
        |piece| json!({"type": "response.output_text.delta", "delta": piece, "logprobs": []});
    events.extend(text.split_inclusive(' ').map(|piece| place(delta(piece))));
    events.extend([
        place(json!({"type": "response.output_text.done", "text": text, "logprobs": []})),
        place(json!({"type": "response.content_part.done", "part": part})),
        json!({"type": "response.output_item.done", "output_index": 0, "item": message}),
        json!({"type": "response.completed", "response": whole}),
    ]);
    let chunks = events.into_iter().enumerate().map(|(number, mut event)| {
        event["sequence_number"] = json!(number);
        let name = event["type"].as_str().unwrap_or_default();
        Bytes::from(format!("event: {name}\ndata: {event}\n\n"))
    });
    MockAnswer {
        content_type: "text/event-stream; charset=utf-8",
        chunks: chunks.collect(),
        usage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Endpoint, provider::mock::answer};

    fn mock(endpoint: Endpoint, fields: &str) -> Result<MockAnswer, Problem> {
        let body = format!(r#"{{"model":"m",{fields}}}"#);
        let request = Request::parse(endpoint, body.as_bytes(), None).unwrap();
        answer(&request, "up", "Hello big world!")
    }

    fn json_of(answer: &MockAnswer) -> Value {
        serde_json::from_slice(&answer.chunks.concat()).unwrap()
    }

    #[test]
    fn mock_embeddings_have_the_requested_dimensions_and_encoding() {
        for (input, count, tokens) in [
            (r#""12345678""#, 1, 2),
            ("[1,2,3]", 1, 3),
            (r#"["1234","5678"]"#, 2, 2),
        ] {
            let fields = format!(r#""input":{input},"dimensions":3"#);
            let body = json_of(&mock(Endpoint::Embeddings, &fields).unwrap());
            assert_eq!(body["data"].as_array().unwrap().len(), count, "{input}");
            assert_eq!(body["data"][0]["embedding"], json!([1.0, 0.0, 0.0]));
            assert_eq!(body["usage"]["total_tokens"], tokens, "{input}");
        }
        let fields = r#""input":"x","dimensions":1,"encoding_format":"base64""#;
        let body = json_of(&mock(Endpoint::Embeddings, fields).unwrap());
        assert_eq!(body["data"][0]["embedding"], "AACAPw==");
    }

    #[test]
    fn mock_refuses_more_inputs_and_dimensions_than_openai_allows() {
        for dimensions in ["0", "3073", "\"3\"", "1.5"] {
            let fields = format!(r#""input":"x","dimensions":{dimensions}"#);
            let problem = mock(Endpoint::Embeddings, &fields).unwrap_err();
            assert_eq!(problem.param(), Some("dimensions"));
        }
        let many = vec!["\"x\""; 2049].join(",");
        let problem = mock(Endpoint::Embeddings, &format!(r#""input":[{many}]"#)).unwrap_err();
        assert_eq!(
            (problem.status().as_u16(), problem.param()),
            (400, Some("input"))
        );
    }

    #[test]
    fn mock_response_stream_ends_with_the_whole_response() {
        let fields = r#""input":"12345678","stream":true"#;
        let answer = mock(Endpoint::Responses, fields).unwrap();
        let text = String::from_utf8(answer.chunks.concat()).unwrap();
        let events: Vec<Value> = text
            .split_terminator("\n\n")
            .map(|event| serde_json::from_str(event.split_once("\ndata: ").unwrap().1).unwrap())
            .collect();
        let pieces: String = events
            .iter()
            .filter_map(|event| event["delta"].as_str())
            .collect();
        assert_eq!(pieces, "Hello big world!");
        let last = &events.last().unwrap()["response"];
        assert_eq!(last["output"][0]["content"][0]["text"], "Hello big world!");
        assert_eq!(last["usage"]["total_tokens"], 6);
        let whole = json_of(&mock(Endpoint::Responses, r#""input":"12345678""#).unwrap());
        assert_eq!(whole["output"][0]["content"], last["output"][0]["content"]);
    }
}
