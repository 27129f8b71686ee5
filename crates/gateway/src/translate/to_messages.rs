//! A chat's request as one for Anthropic's messages.

use serde_json::{Map, Value, json};

use super::{content, invalid, reasoning, schema, shared};
use crate::{problem::Problem, provider::claude_models};

type Result<T> = std::result::Result<T, Problem>;

/// At least so many tokens are left for an answer after its thoughts where nothing names a maximum.
const AFTER_THOUGHTS: u64 = 4096;

/// Fields that ask for what is not there.
const REFUSED: &[&str] = &[
    "n",
    "logprobs",
    "top_logprobs",
    "audio",
    "modalities",
    "functions",
    "function_call",
    "web_search_options",
];

/// Fields without an equivalent, whose absence leaves the answer what was asked for.
const LEFT_OUT: &[&str] = &[
    "frequency_penalty",
    "logit_bias",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "seed",
    "service_tier",
    "store",
    "stream_options",
    "verbosity",
];

/// The body, without its model. `model` says how it may be told to think, and how long an answer may be where nothing else does;
/// `drop`: what asks for what is not there is left out.
pub(super) fn request(
    mut chat: Map<String, Value>,
    model: &str,
    drop: bool,
) -> Result<Map<String, Value>> {
    if drop && !claude_models::takes_sampling(model) {
        chat.remove("top_p");
        chat.remove("top_k");
        chat.retain(|name, value| name != "temperature" || value.as_f64() == Some(1.0));
    }
    let (mut body, effort) = plain(chat, drop)?;
    let budget = body.get("thinking").map(|one| &one["budget_tokens"]);
    let budget = budget.and_then(Value::as_u64).unwrap_or(0);
    body.entry("max_tokens").or_insert_with(|| {
        let needed = budget.saturating_add(AFTER_THOUGHTS);
        claude_models::max_tokens(model).max(needed).into()
    });
    let config = body.get_mut("output_config");
    if let Some(schema) = config.and_then(|config| config.pointer_mut("/format/schema")) {
        *schema = schema::accepted(schema);
    }
    if let Some(Value::String(effort)) = effort {
        reasoning::apply(&mut body, &effort, model);
    }
    Ok(body)
}

/// The body without what only Claude needs, and `reasoning_effort`.
pub(super) fn plain(
    mut chat: Map<String, Value>,
    drop: bool,
) -> Result<(Map<String, Value>, Option<Value>)> {
    if !drop {
        shared::refuse(&chat, REFUSED)?;
    }
    for name in REFUSED.iter().chain(LEFT_OUT) {
        chat.remove(*name);
    }
    let mut take = |name: &str| chat.remove(name);
    let messages = take("messages").unwrap_or_default();
    let most = [take("max_completion_tokens"), take("max_tokens")];
    let (stop, effort, format) = (
        take("stop"),
        take("reasoning_effort"),
        take("response_format"),
    );
    let (tools, choice) = (take("tools"), take("tool_choice"));
    let parallel = take("parallel_tool_calls");
    let (user, metadata) = (take("user"), take("metadata"));
    let temperature = take("temperature");

    let mut body = conversation(&messages)?;
    if let Some(most) = most.into_iter().flatten().next() {
        body.insert("max_tokens".into(), most);
    }
    if let Some(stop) = stop {
        let stop = match stop {
            Value::String(text) => json!([text]),
            list => list,
        };
        body.insert("stop_sequences".into(), stop);
    }
    if let Some(temperature) = temperature {
        // Anthropic's ends where OpenAI's is at its half.
        let warmest = temperature.as_f64().is_some_and(|degree| degree > 1.0);
        let temperature = if warmest { json!(1.0) } else { temperature };
        body.insert("temperature".into(), temperature);
    }
    let tools = tools.map_or(Ok(Vec::new()), |tools| self::tools(&tools))?;
    if !tools.is_empty() {
        body.insert("tools".into(), tools.into());
        if let Some(choice) = tool_choice(choice.as_ref(), parallel.as_ref())? {
            body.insert("tool_choice".into(), choice);
        }
    }
    let user = user.or_else(|| metadata?.get("user_id").cloned());
    if let Some(user) = user.as_ref().and_then(Value::as_str)
        && !is_personal(user)
    {
        body.insert("metadata".into(), json!({"user_id": user}));
    }
    if let Some(format) = format.filter(|format| format["type"] == "json_schema") {
        let schema = &format["json_schema"]["schema"];
        if !schema.is_object() {
            let message = "Missing required parameter: 'response_format.json_schema.schema'.";
            return Err(invalid("response_format", message));
        }
        let format = json!({"format": {"type": "json_schema", "schema": schema}});
        body.insert("output_config".into(), format);
    }
    // What OpenAI does not know is meant for the model.
    for (name, value) in chat {
        body.entry(name).or_insert(value);
    }
    Ok((body, effort))
}

/// Whether it looks like an address for mail or a number of a telephone, which Anthropic refuses as an id of a user.
fn is_personal(user: &str) -> bool {
    let mail = user
        .split_once('@')
        .is_some_and(|(name, host)| !name.is_empty() && host.contains('.'));
    let in_number = |c: char| c.is_ascii_digit() || c.is_whitespace() || "+()-".contains(c);
    let number = user.len() >= 7 && user.chars().all(in_number);
    mail || number
}

/// `system` and `messages`.
fn conversation(messages: &Value) -> Result<Map<String, Value>> {
    let mut turns = Turns::default();
    for message in messages.as_array().into_iter().flatten() {
        turns.add(message)?;
    }
    let Turns { system, mut turns } = turns;
    let mut body = Map::new();
    if turns.is_empty() && !system.is_empty() {
        // Anthropic answers messages only.
        turns.push(("user", system));
    } else if !system.is_empty() {
        body.insert("system".into(), system.into());
    }
    let turns = turns
        .into_iter()
        .map(|(role, content)| json!({"role": role, "content": content}));
    body.insert("messages".into(), turns.collect());
    Ok(body)
}

/// Messages of one role after the other are one turn: all results of parallel calls have to come in one.
#[derive(Default)]
struct Turns {
    system: Vec<Value>,
    turns: Vec<(&'static str, Vec<Value>)>,
}

impl Turns {
    fn add(&mut self, message: &Value) -> Result<()> {
        let content = &message["content"];
        match message["role"].as_str().unwrap_or_default() {
            "system" | "developer" => {
                let blocks = content::blocks(content)?;
                self.system.extend(cached(blocks, message));
            }
            "user" => self.push("user", cached(content::blocks(content)?, message)),
            "assistant" => {
                let mut blocks = thoughts(message);
                blocks.extend(content::blocks(content)?);
                if let Some(refusal) = message["refusal"].as_str().filter(|text| !text.is_empty()) {
                    blocks.push(json!({"type": "text", "text": refusal}));
                }
                let calls = message["tool_calls"].as_array().into_iter().flatten();
                for call in calls {
                    blocks.push(tool_use(call)?);
                }
                self.push("assistant", cached(blocks, message));
            }
            "tool" => {
                let Some(id) = message["tool_call_id"].as_str() else {
                    let message = "Missing required parameter: 'messages[].tool_call_id'.";
                    return Err(invalid("messages", message));
                };
                let mut blocks = content::blocks(content)?;
                // The result is cached as a whole.
                let last = blocks.last_mut().and_then(Value::as_object_mut);
                let control = last.and_then(|block| block.remove("cache_control"));
                let id = shared::tool_id(id);
                let mut result =
                    json!({"type": "tool_result", "tool_use_id": id, "content": blocks});
                if let Some(control) = control {
                    result["cache_control"] = control;
                }
                self.push("user", cached(vec![result], message));
            }
            role => {
                let message = format!(
                    "messages: the role '{role}' has no counterpart in the format of the model's server"
                );
                return Err(invalid("messages", message));
            }
        }
        Ok(())
    }

    fn push(&mut self, role: &'static str, blocks: Vec<Value>) {
        if blocks.is_empty() {
            return;
        }
        match self.turns.last_mut() {
            Some((last, turn)) if *last == role => turn.extend(blocks),
            _ => self.turns.push((role, blocks)),
        }
    }
}

/// Blocks of a message. Its own `cache_control` stands at the last of them that takes one: the cache ends after it.
fn cached(mut blocks: Vec<Value>, message: &Value) -> Vec<Value> {
    if let Some(control) = message.get("cache_control").filter(|one| one.is_object()) {
        let takes = |block: &&mut Value| {
            !matches!(
                block["type"].as_str(),
                Some("thinking" | "redacted_thinking")
            )
        };
        if let Some(last) = blocks.iter_mut().rfind(takes) {
            last["cache_control"] = control.clone();
        }
    }
    blocks
}

/// The thoughts of an earlier answer, which a client got from here or from LiteLLM. Without their signature they are none.
fn thoughts(message: &Value) -> Vec<Value> {
    let blocks = message["thinking_blocks"].as_array().into_iter().flatten();
    let whole = |block: &&Value| block["signature"].is_string() || block["data"].is_string();
    blocks.filter(whole).cloned().collect()
}

fn tool_use(call: &Value) -> Result<Value> {
    let function = &call["function"];
    let (Some(id), Some(name)) = (call["id"].as_str(), function["name"].as_str()) else {
        let message = "Invalid value for 'messages': a tool call needs 'id' and 'function.name'";
        return Err(invalid("messages", message));
    };
    let input = shared::arguments(function["arguments"].as_str().unwrap_or_default());
    Ok(json!({"type": "tool_use", "id": shared::tool_id(id), "name": name, "input": input}))
}

fn tools(tools: &Value) -> Result<Vec<Value>> {
    let tools = tools.as_array().into_iter().flatten();
    tools.map(tool).collect()
}

fn tool(tool: &Value) -> Result<Value> {
    let function = &tool["function"];
    match tool["type"].as_str() {
        Some("function") | None => {}
        // Anthropic's own tools have their names beside their types.
        Some(kind) if kind != "custom" && tool["name"].is_string() => return Ok(tool.clone()),
        Some(kind) => {
            let message = format!(
                "tools: a tool of the type '{kind}' has no counterpart in the format of the model's server"
            );
            return Err(invalid("tools", message));
        }
    }
    let Some(name) = function["name"].as_str() else {
        let message = "Missing required parameter: 'tools[].function.name'.";
        return Err(invalid("tools", message));
    };
    let schema = match &function["parameters"] {
        Value::Object(schema) if !schema.is_empty() => function["parameters"].clone(),
        _ => json!({"type": "object", "properties": {}}),
    };
    let mut translated = json!({"name": name, "input_schema": schema});
    if let Some(description) = function["description"].as_str() {
        translated["description"] = description.into();
    }
    if let Some(control) = tool.get("cache_control").or(function.get("cache_control")) {
        translated["cache_control"] = control.clone();
    }
    Ok(translated)
}

fn tool_choice(choice: Option<&Value>, parallel: Option<&Value>) -> Result<Option<Value>> {
    let alone = parallel.is_some_and(|parallel| *parallel == false);
    let mut translated = match choice {
        None if alone => json!({"type": "auto"}),
        None => return Ok(None),
        Some(Value::String(choice)) => match choice.as_str() {
            "auto" => json!({"type": "auto"}),
            "required" => json!({"type": "any"}),
            "none" => return Ok(Some(json!({"type": "none"}))),
            _ => return Err(invalid("tool_choice", "Invalid value for 'tool_choice'")),
        },
        Some(choice) => match choice["function"]["name"].as_str() {
            Some(name) => json!({"type": "tool", "name": name}),
            None => return Err(invalid("tool_choice", "Invalid value for 'tool_choice'")),
        },
    };
    if alone {
        translated["disable_parallel_tool_use"] = true.into();
    }
    Ok(Some(translated))
}
