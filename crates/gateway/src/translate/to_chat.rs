//! A request for Anthropic's messages as one for a chat.

use serde_json::{Map, Value, json};

use super::{content, invalid, reasoning, shared};
use crate::problem::Problem;

type Result<T> = std::result::Result<T, Problem>;

/// Longer names of users are refused by OpenAI.
const LONGEST_USER: usize = 64;

/// Fields that ask for what is not there.
const REFUSED: &[&str] = &["container", "mcp_servers"];

/// Fields without an equivalent, whose absence leaves the answer what was asked for.
const LEFT_OUT: &[&str] = &[
    "cache_control",
    "context_management",
    "inference_geo",
    "service_tier",
    "speed",
    "top_k",
];

/// The body, without its model. `usage`: the upstream takes `stream_options`; `drop`: what asks for what is not there is
/// left out.
pub(super) fn request(
    mut messages: Map<String, Value>,
    usage: bool,
    drop: bool,
) -> Result<Map<String, Value>> {
    for name in REFUSED {
        let nothing = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        let asked = messages.remove(*name);
        if asked.is_some_and(|value| !drop && !nothing(&value)) {
            let message =
                format!("'{name}' has no counterpart in the format of the model's server");
            return Err(invalid(name, message));
        }
    }
    for name in LEFT_OUT {
        messages.remove(*name);
    }
    let mut take = |name: &str| messages.remove(name);
    let (system, turns) = (take("system"), take("messages").unwrap_or_default());
    let (tools, choice) = (take("tools"), take("tool_choice"));
    let (stop, metadata) = (take("stop_sequences"), take("metadata"));
    let (thinking, config) = (take("thinking"), take("output_config"));
    let older_format = take("output_format");

    let mut body = Map::new();
    body.insert(
        "messages".into(),
        conversation(system.as_ref(), &turns)?.into(),
    );
    let tools = tools.map_or(Ok(Vec::new()), |tools| self::tools(&tools, drop))?;
    if !tools.is_empty() {
        body.insert("tools".into(), tools.into());
        if let Some(choice) = choice {
            tool_choice(&choice, &mut body)?;
        }
    }
    if let Some(stop) = stop.filter(|stop| stop.as_array().is_some_and(|list| !list.is_empty())) {
        body.insert("stop".into(), stop);
    }
    if let Some(user) = metadata.as_ref().and_then(|data| data["user_id"].as_str()) {
        let user: String = user.chars().take(LONGEST_USER).collect();
        body.insert("user".into(), user.into());
    }
    if let Some(effort) = reasoning::effort(thinking.as_ref(), config.as_ref()) {
        body.insert("reasoning_effort".into(), effort.into());
    }
    let format = config.map(|config| config["format"].clone());
    let format = format.filter(Value::is_object).or(older_format);
    if let Some(format) = format.filter(|format| format["type"] == "json_schema") {
        let schema = json!({"name": "answer", "schema": format["schema"], "strict": true});
        let format = json!({"type": "json_schema", "json_schema": schema});
        body.insert("response_format".into(), format);
    }
    let streamed = messages.get("stream").is_some_and(|stream| *stream == true);
    // max_tokens, temperature, top_p, stream; and what Anthropic does not know is meant for the model.
    for (name, value) in messages {
        body.entry(name).or_insert(value);
    }
    if streamed && usage {
        body.insert("stream_options".into(), json!({"include_usage": true}));
    }
    Ok(body)
}

fn conversation(system: Option<&Value>, turns: &Value) -> Result<Vec<Value>> {
    let mut messages = Vec::new();
    let system = system.map(|system| shared::text_of(system, "\n\n"));
    if let Some(system) = system.filter(|text| !text.is_empty()) {
        messages.push(json!({"role": "system", "content": system}));
    }
    for turn in turns.as_array().into_iter().flatten() {
        match turn["role"].as_str().unwrap_or_default() {
            "user" => user(&turn["content"], &mut messages)?,
            "assistant" => messages.extend(assistant(&turn["content"])?),
            // In the middle of a conversation.
            "system" => {
                let text = shared::text_of(&turn["content"], "\n\n");
                messages.push(json!({"role": "system", "content": text}));
            }
            _ => {
                let message =
                    "Invalid value for 'messages': expected the role 'user' or 'assistant'";
                return Err(invalid("messages", message));
            }
        }
    }
    Ok(messages)
}

/// Results of tools come first, each in a message of its own: they have to follow their calls.
fn user(content: &Value, messages: &mut Vec<Value>) -> Result<()> {
    let Some(blocks) = content.as_array() else {
        let text = content.as_str().ok_or_else(no_content)?;
        messages.push(json!({"role": "user", "content": text}));
        return Ok(());
    };
    let mut parts = Vec::new();
    for block in blocks {
        if block["type"] == "tool_result" {
            let (message, images) = tool_result(block)?;
            messages.push(message);
            parts.extend(images);
        } else {
            parts.extend(content::part(block)?);
        }
    }
    if !parts.is_empty() {
        messages.push(json!({"role": "user", "content": one_text(parts)}));
    }
    Ok(())
}

/// The result's text, and its images, which only a user's message can have.
fn tool_result(block: &Value) -> Result<(Value, Vec<Value>)> {
    let Some(id) = block["tool_use_id"].as_str() else {
        let message = "Missing required parameter: 'messages[].content[].tool_use_id'.";
        return Err(invalid("messages", message));
    };
    let (mut texts, mut images) = (Vec::new(), Vec::new());
    match &block["content"] {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(blocks) => {
            for block in blocks {
                match content::part(block)? {
                    Some(part) if part["type"] == "text" => {
                        texts.push(part["text"].as_str().unwrap_or_default().to_owned());
                    }
                    Some(image) => images.push(image),
                    None => {}
                }
            }
        }
        _ => {}
    }
    if texts.is_empty() && !images.is_empty() {
        texts.push("The result is in the user's next message.".into());
    }
    let text = texts.join("\n");
    Ok((
        json!({"role": "tool", "tool_call_id": id, "content": text}),
        images,
    ))
}

fn assistant(content: &Value) -> Result<Option<Value>> {
    let Some(blocks) = content.as_array() else {
        let text = content.as_str().ok_or_else(no_content)?;
        return Ok(Some(json!({"role": "assistant", "content": text})));
    };
    let (mut texts, mut calls) = (Vec::new(), Vec::new());
    for block in blocks {
        match block["type"].as_str().unwrap_or_default() {
            "tool_use" => calls.push(tool_call(block)?),
            // What Anthropic's own tools did; their results are in the texts after them.
            kind if kind == "server_tool_use" || kind.ends_with("_tool_result") => {}
            _ => texts.extend(content::part(block)?),
        }
    }
    if texts.is_empty() && calls.is_empty() {
        return Ok(None);
    }
    let text = shared::text_of(&texts.into(), "");
    let mut message = json!({"role": "assistant", "content": Value::Null});
    if !text.is_empty() {
        message["content"] = text.into();
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    Ok(Some(message))
}

fn tool_call(block: &Value) -> Result<Value> {
    let (Some(id), Some(name)) = (block["id"].as_str(), block["name"].as_str()) else {
        let message = "Invalid value for 'messages': a tool_use needs 'id' and 'name'";
        return Err(invalid("messages", message));
    };
    let arguments = match &block["input"] {
        Value::Null => "{}".to_owned(),
        input => input.to_string(),
    };
    Ok(json!({
        "id": id, "type": "function", "function": {"name": name, "arguments": arguments},
    }))
}

/// Servers that do not know parts know a text.
fn one_text(mut parts: Vec<Value>) -> Value {
    match &mut parts[..] {
        [only] if only["type"] == "text" => only["text"].take(),
        _ => parts.into(),
    }
}

fn tools(tools: &Value, drop: bool) -> Result<Vec<Value>> {
    let own = |tool: &&Value| tool["type"].as_str().is_some_and(|kind| kind != "custom");
    let tools = tools.as_array().into_iter().flatten();
    tools
        .filter(|tool| !(drop && own(tool)))
        .map(tool)
        .collect()
}

fn tool(tool: &Value) -> Result<Value> {
    let kind = tool["type"].as_str();
    if kind.is_some_and(|kind| kind != "custom") {
        let message = format!(
            "tools: Anthropic's own tool '{}' has no counterpart in the format of the model's server",
            kind.unwrap_or_default()
        );
        return Err(invalid("tools", message));
    }
    let Some(name) = tool["name"].as_str() else {
        return Err(invalid(
            "tools",
            "Missing required parameter: 'tools[].name'.",
        ));
    };
    let mut function = json!({"name": name, "parameters": tool["input_schema"]});
    if let Some(description) = tool["description"].as_str() {
        function["description"] = description.into();
    }
    Ok(json!({"type": "function", "function": function}))
}

fn tool_choice(choice: &Value, body: &mut Map<String, Value>) -> Result<()> {
    let translated = match choice["type"].as_str().unwrap_or_default() {
        "auto" => json!("auto"),
        "any" => json!("required"),
        "none" => json!("none"),
        "tool" => json!({"type": "function", "function": {"name": choice["name"]}}),
        _ => return Err(invalid("tool_choice", "Invalid value for 'tool_choice'")),
    };
    body.insert("tool_choice".into(), translated);
    if choice["disable_parallel_tool_use"] == true {
        body.insert("parallel_tool_calls".into(), false.into());
    }
    Ok(())
}

fn no_content() -> Problem {
    invalid(
        "messages",
        "Invalid value for 'messages': a content is neither a text nor a list of blocks",
    )
}
