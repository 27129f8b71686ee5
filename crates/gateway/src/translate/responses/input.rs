//! A chat's messages as the items of an input.

use serde_json::{Value, json};

use super::answer;
use crate::{
    problem::Problem,
    translate::{invalid, shared},
};

type Result<T> = std::result::Result<T, Problem>;

const PARAM: &str = "messages";

pub(super) fn items(messages: &Value) -> Result<Vec<Value>> {
    let mut items = Vec::new();
    for message in messages.as_array().into_iter().flatten() {
        add(message, &mut items)?;
    }
    Ok(items)
}

fn add(message: &Value, items: &mut Vec<Value>) -> Result<()> {
    let content = &message["content"];
    match message["role"].as_str().unwrap_or_default() {
        role @ ("system" | "developer" | "user") => {
            items.push(json!({"type": "message", "role": role, "content": parts(content)?}));
        }
        "assistant" => {
            let thoughts = message["reasoning_items"].as_array();
            items.extend(thoughts.into_iter().flatten().filter_map(answer::kept));
            let mut text = shared::text_of(content, "");
            text.push_str(message["refusal"].as_str().unwrap_or_default());
            if !text.is_empty() {
                items.push(json!({"type": "message", "role": "assistant", "content": text}));
            }
            let calls = message["tool_calls"].as_array().into_iter().flatten();
            for call in calls {
                items.push(function_call(call)?);
            }
        }
        "tool" => {
            let Some(id) = message["tool_call_id"].as_str() else {
                let message = "Missing required parameter: 'messages[].tool_call_id'.";
                return Err(invalid(PARAM, message));
            };
            let output = parts(content)?;
            items.push(json!({"type": "function_call_output", "call_id": id, "output": output}));
        }
        role => {
            let message = format!(
                "messages: the role '{role}' has no counterpart in the format of the model's server"
            );
            return Err(invalid(PARAM, message));
        }
    }
    Ok(())
}

fn function_call(call: &Value) -> Result<Value> {
    let function = &call["function"];
    let (Some(id), Some(name)) = (call["id"].as_str(), function["name"].as_str()) else {
        let message = "Invalid value for 'messages': a tool call needs 'id' and 'function.name'";
        return Err(invalid(PARAM, message));
    };
    let arguments = function["arguments"].as_str().unwrap_or_default();
    Ok(json!({"type": "function_call", "call_id": id, "name": name, "arguments": arguments}))
}

/// A text stays one.
fn parts(content: &Value) -> Result<Value> {
    match content {
        Value::Null => Ok("".into()),
        Value::String(_) => Ok(content.clone()),
        Value::Array(parts) => parts.iter().map(part).collect(),
        _ => {
            let message =
                "Invalid value for 'messages': a content is neither a text nor a list of parts";
            Err(invalid(PARAM, message))
        }
    }
}

fn part(part: &Value) -> Result<Value> {
    match part["type"].as_str().unwrap_or_default() {
        "text" | "input_text" | "output_text" => {
            Ok(json!({"type": "input_text", "text": part["text"].as_str().unwrap_or_default()}))
        }
        "image_url" => image(part),
        "file" => Ok(file(&part["file"])),
        // The API's own, for which a chat has other names.
        "input_image" | "input_file" => Ok(part.clone()),
        kind => {
            let message = format!(
                "messages: a part of the type '{kind}' has no counterpart in the format of the model's server"
            );
            Err(invalid(PARAM, message))
        }
    }
}

fn image(part: &Value) -> Result<Value> {
    let image = &part["image_url"];
    let Some(url) = image["url"].as_str().or(image.as_str()) else {
        let message = "Missing required parameter: 'messages[].content[].image_url.url'.";
        return Err(invalid(PARAM, message));
    };
    let detail = image["detail"].as_str().unwrap_or("auto");
    Ok(json!({"type": "input_image", "image_url": url, "detail": detail}))
}

fn file(file: &Value) -> Value {
    let mut part = json!({"type": "input_file"});
    for name in ["file_id", "file_data", "filename"] {
        if let Some(value) = file.get(name) {
            part[name] = value.clone();
        }
    }
    part
}
