//! The parts of a message: texts, images and documents, in both formats.

use serde_json::{Value, json};

use super::invalid;
use crate::problem::Problem;

type Result<T> = std::result::Result<T, Problem>;

const PARAM: &str = "messages";

/// A chat's content as Anthropic's blocks. Empty texts, which Anthropic refuses, are left out.
pub(super) fn blocks(content: &Value) -> Result<Vec<Value>> {
    match content {
        Value::Null => Ok(Vec::new()),
        Value::String(text) if text.is_empty() => Ok(Vec::new()),
        Value::String(text) => Ok(vec![json!({"type": "text", "text": text})]),
        Value::Array(parts) => {
            let mut blocks = Vec::new();
            for part in parts {
                blocks.extend(block(part)?);
            }
            Ok(blocks)
        }
        _ => Err(invalid(
            PARAM,
            "Invalid value for 'messages': a content is neither a text nor a list of parts",
        )),
    }
}

fn block(part: &Value) -> Result<Option<Value>> {
    let kind = part["type"].as_str().unwrap_or_default();
    let mut block = match kind {
        "text" | "input_text" | "output_text" | "refusal" => {
            let text = part["text"].as_str().or(part["refusal"].as_str());
            match text {
                None | Some("") => return Ok(None),
                Some(text) => json!({"type": "text", "text": text}),
            }
        }
        "image_url" => image_block(part)?,
        "file" => file_block(&part["file"])?,
        // Anthropic's own, for which a chat has no name.
        "image" | "document" | "search_result" | "thinking" | "redacted_thinking" => {
            return Ok(Some(part.clone()));
        }
        kind => {
            let message = format!(
                "messages: a part of the type '{kind}' has no counterpart in the format of the model's server"
            );
            return Err(invalid(PARAM, message));
        }
    };
    if let Some(control) = part.get("cache_control") {
        block["cache_control"] = control.clone();
    }
    Ok(Some(block))
}

fn image_block(part: &Value) -> Result<Value> {
    let url = part["image_url"]["url"]
        .as_str()
        .or(part["image_url"].as_str());
    let source = url.and_then(source).ok_or_else(|| {
        let message =
            "Invalid value for 'messages': image_url.url is neither an https nor a base64 data URL";
        invalid(PARAM, message)
    })?;
    Ok(json!({"type": "image", "source": source}))
}

/// A PDF as it is, and text as text.
fn file_block(file: &Value) -> Result<Value> {
    let data = file["file_data"].as_str().and_then(source);
    let Some(source) = data else {
        let message = "messages: a file can only be sent to the model's server as file_data, a base64 data URL";
        return Err(invalid(PARAM, message));
    };
    let mut block = json!({"type": "document", "source": source});
    if let Some(name) = file["filename"].as_str() {
        block["title"] = name.into();
    }
    Ok(block)
}

/// Where an image or a document comes from, as Anthropic names it.
fn source(url: &str) -> Option<Value> {
    if let Some(data) = url.strip_prefix("data:") {
        let (kind, data) = data.split_once(',')?;
        let kind = kind.strip_suffix(";base64")?;
        let kind = kind.split(';').next().unwrap_or_default();
        return Some(json!({"type": "base64", "media_type": kind, "data": data}));
    }
    let web = url.starts_with("https://") || url.starts_with("http://");
    web.then(|| json!({"type": "url", "url": url}))
}

/// One of Anthropic's blocks as a part of a chat; `None`: it says nothing to another model.
pub(super) fn part(block: &Value) -> Result<Option<Value>> {
    let kind = block["type"].as_str().unwrap_or_default();
    Ok(match kind {
        "text" => {
            let text = block["text"].as_str().unwrap_or_default();
            (!text.is_empty()).then(|| json!({"type": "text", "text": text}))
        }
        "image" => {
            let url = url(&block["source"]).ok_or_else(|| unknown("image"))?;
            Some(json!({"type": "image_url", "image_url": {"url": url}}))
        }
        "document" => Some(document(block)?),
        // Signed thoughts are for the model that had them.
        "thinking" | "redacted_thinking" => None,
        "search_result" => {
            let text = super::shared::text_of(&block["content"], "\n");
            Some(json!({"type": "text", "text": text}))
        }
        kind => return Err(unknown(kind)),
    })
}

fn document(block: &Value) -> Result<Value> {
    let source = &block["source"];
    let text = match source["type"].as_str() {
        Some("text") => source["data"].as_str().map(str::to_owned),
        Some("content") => Some(super::shared::text_of(&source["content"], "\n")),
        _ => None,
    };
    if let Some(text) = text {
        return Ok(json!({"type": "text", "text": text}));
    }
    let data = url(source).filter(|_| source["type"] == "base64");
    let data = data.ok_or_else(|| unknown("document"))?;
    let name = block["title"].as_str().unwrap_or("document.pdf");
    Ok(json!({"type": "file", "file": {"filename": name, "file_data": data}}))
}

fn url(source: &Value) -> Option<String> {
    match source["type"].as_str()? {
        "url" => source["url"].as_str().map(str::to_owned),
        "base64" => {
            let (kind, data) = (source["media_type"].as_str()?, source["data"].as_str()?);
            Some(format!("data:{kind};base64,{data}"))
        }
        _ => None,
    }
}

fn unknown(kind: &str) -> Problem {
    let message = format!(
        "messages: a block of the type '{kind}' as it is here has no counterpart in the format of the model's server"
    );
    invalid(PARAM, message)
}
