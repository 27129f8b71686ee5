//! A chat's request as one for the Responses API.

use serde_json::{Map, Value, json};

use super::input;
use crate::{
    problem::Problem,
    translate::{invalid, shared},
};

type Result<T> = std::result::Result<T, Problem>;

/// Fields that ask for what is not there.
const REFUSED: &[&str] = &[
    "n",
    "audio",
    "modalities",
    "functions",
    "function_call",
    "stop",
];

/// Fields without an equivalent, whose absence leaves the answer what was asked for.
const LEFT_OUT: &[&str] = &[
    "frequency_penalty",
    "logit_bias",
    "prediction",
    "presence_penalty",
    "seed",
];

/// The body, without its model. `drop`: what asks for what is not there is left out.
pub(in crate::translate) fn request(
    mut chat: Map<String, Value>,
    drop: bool,
) -> Result<Map<String, Value>> {
    if !drop {
        shared::refuse(&chat, REFUSED)?;
    }
    for name in REFUSED.iter().chain(LEFT_OUT) {
        chat.remove(*name);
    }
    let mut take = |name: &str| chat.remove(name);
    let messages = take("messages").unwrap_or_default();
    let most = [take("max_completion_tokens"), take("max_tokens")];
    let (tools, choice) = (take("tools"), take("tool_choice"));
    let (format, verbosity) = (take("response_format"), take("verbosity"));
    let (effort, logprobs) = (take("reasoning_effort"), take("logprobs"));
    let (search, streaming) = (take("web_search_options"), take("stream_options"));

    let mut body = Map::new();
    body.insert("input".into(), input::items(&messages)?.into());
    if let Some(most) = most.into_iter().flatten().next() {
        body.insert("max_output_tokens".into(), most);
    }
    let mut tools = tools.map_or(Ok(Vec::new()), |tools| self::tools(&tools))?;
    tools.extend(search.map(web_search));
    if !tools.is_empty() {
        body.insert("tools".into(), tools.into());
    }
    if let Some(choice) = choice {
        body.insert("tool_choice".into(), tool_choice(choice)?);
    }
    if let Some(text) = text(format, verbosity)? {
        body.insert("text".into(), text);
    }
    if let Some(effort) = effort {
        let reasoning = match effort {
            // With what OpenAI's field does not have, such as a summary.
            Value::Object(_) => effort,
            effort => json!({"effort": effort}),
        };
        body.insert("reasoning".into(), reasoning);
    }
    if logprobs == Some(Value::Bool(true)) {
        let include = body.entry("include").or_insert_with(|| json!([]));
        if let Value::Array(include) = include {
            include.push("message.output_text.logprobs".into());
        }
    }
    let obfuscation = streaming.and_then(|options| options.get("include_obfuscation").cloned());
    if let Some(obfuscation) = obfuscation {
        body.insert(
            "stream_options".into(),
            json!({"include_obfuscation": obfuscation}),
        );
    }
    // What both know by the same name, and what a chat does not know is meant for the model.
    for (name, value) in chat {
        body.entry(name).or_insert(value);
    }
    // Other than this API a chat does not keep its answers unless it is told to.
    body.entry("store").or_insert(false.into());
    Ok(body)
}

/// `text`: the form of the answer.
fn text(format: Option<Value>, verbosity: Option<Value>) -> Result<Option<Value>> {
    let mut text = Map::new();
    if let Some(format) = format {
        let translated = match format["type"].as_str() {
            Some("json_schema") => {
                let own = &format["json_schema"];
                if !own["schema"].is_object() {
                    let message =
                        "Missing required parameter: 'response_format.json_schema.schema'.";
                    return Err(invalid("response_format", message));
                }
                let name = own["name"].as_str().unwrap_or("answer");
                let mut schema = json!({
                    "type": "json_schema", "name": name, "schema": own["schema"],
                    "strict": own["strict"] == true,
                });
                if let Some(description) = own["description"].as_str() {
                    schema["description"] = description.into();
                }
                schema
            }
            _ => format,
        };
        text.insert("format".into(), translated);
    }
    if let Some(verbosity) = verbosity {
        text.insert("verbosity".into(), verbosity);
    }
    Ok((!text.is_empty()).then(|| text.into()))
}

fn tools(tools: &Value) -> Result<Vec<Value>> {
    let tools = tools.as_array().into_iter().flatten();
    tools.map(tool).collect()
}

fn tool(tool: &Value) -> Result<Value> {
    match tool["type"].as_str() {
        Some("function") | None => {}
        // The API's own tools: `web_search`, `mcp` and the like.
        Some(kind) if kind != "custom" => return Ok(tool.clone()),
        // A chat's stream has no form for what they are called with.
        Some(kind) => {
            let message = format!(
                "tools: a tool of the type '{kind}' has no counterpart in the format of the model's server"
            );
            return Err(invalid("tools", message));
        }
    }
    let function = &tool["function"];
    let Some(name) = function["name"].as_str() else {
        let message = "Missing required parameter: 'tools[].function.name'.";
        return Err(invalid("tools", message));
    };
    let parameters = match &function["parameters"] {
        Value::Object(_) => function["parameters"].clone(),
        _ => json!({"type": "object", "properties": {}}),
    };
    // A chat's tools are strict only where they say so, this API's unless they say no.
    let strict = function["strict"] == true;
    let mut translated =
        json!({"type": "function", "name": name, "parameters": parameters, "strict": strict});
    if let Some(description) = function["description"].as_str() {
        translated["description"] = description.into();
    }
    Ok(translated)
}

fn tool_choice(choice: Value) -> Result<Value> {
    let function = |choice: &Value| {
        let name = choice["function"]["name"].as_str();
        name.map(|name| json!({"type": "function", "name": name}))
    };
    let wrong = || invalid("tool_choice", "Invalid value for 'tool_choice'");
    match (&choice, choice["type"].as_str()) {
        (Value::String(_), _) => Ok(choice),
        (_, Some("function")) => function(&choice).ok_or_else(wrong),
        (_, Some("allowed_tools")) => {
            let allowed = &choice["allowed_tools"];
            let tools = allowed["tools"].as_array().into_iter().flatten();
            let tools: Option<Vec<Value>> = tools.map(function).collect();
            let tools = tools.ok_or_else(wrong)?;
            Ok(json!({"type": "allowed_tools", "mode": allowed["mode"], "tools": tools}))
        }
        _ => Err(wrong()),
    }
}

/// The API's own search, as a chat asks for it.
fn web_search(options: Value) -> Value {
    let mut tool = json!({"type": "web_search"});
    if let Some(size) = options.get("search_context_size") {
        tool["search_context_size"] = size.clone();
    }
    let place = &options["user_location"]["approximate"];
    if place.is_object() {
        tool["user_location"] = place.clone();
        tool["user_location"]["type"] = "approximate".into();
    }
    tool
}
