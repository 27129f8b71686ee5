//! A chat's request as one of Converse. The model and whether it is a stream are said in the path.

use serde_json::{Map, Value, json};

use super::blocks;
use crate::{
    problem::Problem,
    translate::{invalid, to_messages},
};

type Result<T> = std::result::Result<T, Problem>;

/// Fields of Converse's own, which pass where a client or a deployment has them.
const OWN: &[&str] = &[
    "additionalModelRequestFields",
    "additionalModelResponseFieldPaths",
    "guardrailConfig",
    "performanceConfig",
    "promptVariables",
    "requestMetadata",
    "serviceTier",
];

/// Fields of messages with their names in `inferenceConfig`.
const INFERENCE: [(&str, &str); 4] = [
    ("max_tokens", "maxTokens"),
    ("temperature", "temperature"),
    ("top_p", "topP"),
    ("stop_sequences", "stopSequences"),
];

/// The body. `model` says where fields of its own stand; `drop`: what asks for what is not there is left out.
pub(in crate::translate) fn request(
    mut chat: Map<String, Value>,
    model: &str,
    drop: bool,
) -> Result<Map<String, Value>> {
    let tier = chat.remove("service_tier");
    let (mut messages, effort) = to_messages::plain(chat, drop)?;
    let mut body = Map::new();
    for name in OWN {
        if let Some(value) = messages.remove(*name) {
            body.insert((*name).into(), value);
        }
    }
    let mut take = |name: &str| messages.remove(name);
    let turns = turns(&take("messages").unwrap_or_default())?;
    let calls = turns.iter().any(blocks::is_about_tools);
    body.insert("messages".into(), turns.into());
    if let Some(system) = take("system") {
        body.insert("system".into(), blocks::all(&system)?.into());
    }
    let inference = INFERENCE
        .into_iter()
        .filter_map(|(name, own)| Some((own.to_owned(), take(name)?)));
    let inference: Map<String, Value> = inference.collect();
    if !inference.is_empty() {
        body.insert("inferenceConfig".into(), inference.into());
    }
    let (tools, choice) = (take("tools"), take("tool_choice"));
    if let Some(tools) = tool_config(tools, choice.as_ref(), calls, drop)? {
        body.insert("toolConfig".into(), tools);
    }
    let schema = take("output_config").map(|mut config| config["format"]["schema"].take());
    if let Some(schema) = schema.filter(Value::is_object) {
        let format = json!({
            "type": "json_schema", "structure": {"jsonSchema": {"schema": schema.to_string()}},
        });
        body.insert("outputConfig".into(), json!({"textFormat": format}));
    }
    if let Some(Value::String(tier)) = tier.filter(|tier| *tier != "auto") {
        body.entry("serviceTier")
            .or_insert_with(|| json!({"type": tier}));
    }
    for name in ["metadata", "stream"] {
        take(name);
    }
    let more = of_model(messages, effort, model);
    if !more.is_empty() {
        let fields = body
            .entry("additionalModelRequestFields")
            .or_insert_with(|| json!({}));
        if let Value::Object(fields) = fields {
            for (name, value) in more {
                fields.entry(name).or_insert(value);
            }
        }
    }
    Ok(body)
}

fn turns(messages: &Value) -> Result<Vec<Value>> {
    let turn =
        |turn: &Value| Ok(json!({"role": turn["role"], "content": blocks::all(&turn["content"])?}));
    messages
        .as_array()
        .into_iter()
        .flatten()
        .map(turn)
        .collect()
}

/// `toolConfig`. `calls`: the conversation has calls of tools, which cannot be without it.
fn tool_config(
    tools: Option<Value>,
    choice: Option<&Value>,
    calls: bool,
    drop: bool,
) -> Result<Option<Value>> {
    let Some(Value::Array(tools)) = tools else {
        return Ok(None);
    };
    let choice = match choice.map(|choice| choice["type"].as_str().unwrap_or_default()) {
        Some("none") if !calls => return Ok(None),
        Some("none") if drop => None,
        Some("none") => {
            let message = "'none' has no counterpart in the format of the model's server after calls of tools; drop_params leaves it out";
            return Err(invalid("tool_choice", message));
        }
        Some("any") => Some(json!({"any": {}})),
        Some("tool") => Some(json!({"tool": {"name": choice.map(|choice| &choice["name"])}})),
        Some(_) => Some(json!({"auto": {}})),
        None => None,
    };
    let mut all = Vec::new();
    for tool in &tools {
        let Some(name) = tool["name"]
            .as_str()
            .filter(|_| tool.get("input_schema").is_some())
        else {
            let message = "tools: only functions can be sent to Bedrock's Converse API";
            return Err(invalid("tools", message));
        };
        let mut spec = json!({"name": name, "inputSchema": {"json": tool["input_schema"]}});
        let description = tool["description"].as_str();
        if let Some(description) = description.filter(|text| !text.is_empty()) {
            spec["description"] = description.into();
        }
        all.push(json!({"toolSpec": spec}));
        all.extend(blocks::cache_point(tool));
    }
    let mut config = json!({"tools": all});
    if let Some(choice) = choice {
        config["toolChoice"] = choice;
    }
    Ok(Some(config))
}

/// What a chat does not know is meant for the model, and so is how much it thinks, in the words of its maker.
fn of_model(
    mut fields: Map<String, Value>,
    effort: Option<Value>,
    model: &str,
) -> Map<String, Value> {
    let effort = effort.filter(|effort| *effort != "none");
    match effort {
        Some(effort) if model.contains("amazon.nova-2") => {
            let config = json!({"type": "enabled", "maxReasoningEffort": effort});
            fields.insert("reasoningConfig".into(), config);
        }
        Some(effort) if model.contains("gpt-oss") || model.contains("deepseek.v") => {
            fields.insert("reasoning_effort".into(), effort);
        }
        // Others do not take it.
        _ => {}
    }
    if model.contains("amazon.nova")
        && let Some(top) = fields.remove("top_k")
    {
        fields.insert("inferenceConfig".into(), json!({"topK": top}));
    }
    fields
}
