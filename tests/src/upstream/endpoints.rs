//! What the provider answers at endpoints other than chat and text.

use bytes::Bytes;
use serde_json::{Value, json};

/// Sound that is no text.
const SOUND: &[u8] = b"ID3\x00\xff\xfb\x90";

/// The content type and the body; `None`: the path is chat's or text's.
pub(super) fn answer(path: &str, wanted: &Value) -> Option<(&'static str, Bytes)> {
    let body = match path.strip_prefix("/v1")? {
        "/embeddings" => {
            let inputs = wanted["input"].as_array().map_or(1, Vec::len);
            // 1.0 and -2.0, as OpenAI's SDK asks for them.
            let vector = match wanted["encoding_format"].as_str() {
                Some("base64") => json!("AACAPwAAAMA="),
                _ => json!([1.0, -2.0]),
            };
            let vectors = (0..inputs)
                .map(|index| json!({"object": "embedding", "index": index, "embedding": vector}));
            let vectors: Vec<Value> = vectors.collect();
            let usage = json!({"prompt_tokens": 4, "total_tokens": 4});
            json!({"object": "list", "data": vectors, "model": wanted["model"], "usage": usage})
        }
        "/moderations" => {
            let result = json!({"flagged": false, "categories": {}, "category_scores": {}});
            json!({"id": "modr-1", "model": wanted["model"], "results": [result]})
        }
        "/responses" => {
            let part = json!({"type": "output_text", "text": "right of way", "annotations": []});
            let message = json!({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]});
            let usage = json!({"input_tokens": 5, "output_tokens": 3, "total_tokens": 8});
            json!({"id": "resp_1", "object": "response", "created_at": 1_700_000_000, "model": wanted["model"],
                "status": "completed", "output": [message], "usage": usage})
        }
        "/images/generations" | "/images/edits" => {
            json!({"created": 1_700_000_000, "data": [{"url": "https://images.example/1"}]})
        }
        "/audio/transcriptions" | "/audio/translations" => json!({"text": "right of way"}),
        "/audio/speech" => return Some(("audio/mpeg", Bytes::from_static(SOUND))),
        _ => return None,
    };
    Some(("application/json", Bytes::from(body.to_string())))
}
