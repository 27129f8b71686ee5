//! Blocks of a content: Anthropic's, and Converse's for the same.

use serde_json::{Value, json};

use crate::{problem::Problem, translate::invalid};

type Result<T> = std::result::Result<T, Problem>;

const PARAM: &str = "messages";

/// Formats of documents by their media types.
const DOCUMENTS: [(&str, &str); 10] = [
    ("application/pdf", "pdf"),
    ("text/csv", "csv"),
    ("application/msword", "doc"),
    (
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "docx",
    ),
    ("application/vnd.ms-excel", "xls"),
    (
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "xlsx",
    ),
    ("text/html", "html"),
    ("text/plain", "txt"),
    ("text/markdown", "md"),
    ("application/markdown", "md"),
];

const IMAGES: [(&str, &str); 5] = [
    ("image/png", "png"),
    ("image/jpeg", "jpeg"),
    ("image/jpg", "jpeg"),
    ("image/gif", "gif"),
    ("image/webp", "webp"),
];

/// Converse's blocks for Anthropic's.
pub(super) fn all(blocks: &Value) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for block in blocks.as_array().into_iter().flatten() {
        all.push(translated(block)?);
        all.extend(cache_point(block));
    }
    Ok(all)
}

/// Where a prompt ends that is to be cached.
pub(super) fn cache_point(block: &Value) -> Option<Value> {
    block["cache_control"]
        .is_object()
        .then(|| json!({"cachePoint": {"type": "default"}}))
}

/// Whether a turn calls tools or has their results.
pub(super) fn is_about_tools(turn: &Value) -> bool {
    let mut blocks = turn["content"].as_array().into_iter().flatten();
    blocks.any(|block| block.get("toolUse").or(block.get("toolResult")).is_some())
}

fn translated(block: &Value) -> Result<Value> {
    Ok(match block["type"].as_str().unwrap_or_default() {
        "text" => json!({"text": block["text"]}),
        "image" => json!({"image": file(block, &IMAGES)?}),
        "document" => {
            let mut document = file(block, &DOCUMENTS)?;
            let title = block["title"].as_str().unwrap_or("document");
            document["name"] = name(title).into();
            json!({"document": document})
        }
        "tool_use" => json!({
            "toolUse": {"toolUseId": block["id"], "name": block["name"], "input": block["input"]},
        }),
        "tool_result" => json!({
            "toolResult": {"toolUseId": block["tool_use_id"], "content": all(&block["content"])?},
        }),
        "thinking" => json!({
            "reasoningContent": {"reasoningText": {
                "text": block["thinking"], "signature": block["signature"],
            }},
        }),
        "redacted_thinking" => json!({"reasoningContent": {"redactedContent": block["data"]}}),
        kind => {
            let message = format!(
                "messages: a part of the type '{kind}' has no counterpart in the format of the model's server"
            );
            return Err(invalid(PARAM, message));
        }
    })
}

/// An image or a document with its bytes.
fn file(block: &Value, formats: &[(&str, &'static str)]) -> Result<Value> {
    let source = &block["source"];
    let kind = source["media_type"].as_str();
    let format = formats.iter().find(|(name, _)| Some(*name) == kind);
    match (format, source["data"].as_str()) {
        (Some((_, format)), Some(data)) => Ok(json!({"format": format, "source": {"bytes": data}})),
        _ => {
            let message = "messages: images and files can only be sent to the model's server as base64 data URLs of a type that it knows";
            Err(invalid(PARAM, message))
        }
    }
}

/// A document's name as Converse takes it: letters, digits, hyphens, brackets and single spaces, at most 200.
fn name(title: &str) -> String {
    let stem = title.rsplit_once('.').map_or(title, |(stem, _)| stem);
    let taken = |c: char| {
        if c.is_ascii_alphanumeric() || "-()[]".contains(c) {
            c
        } else {
            ' '
        }
    };
    let text: String = stem.chars().map(taken).take(200).collect();
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() {
        return "document".into();
    }
    words.join(" ")
}
