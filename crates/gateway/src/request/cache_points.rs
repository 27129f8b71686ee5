//! `cache_control_injection_points`: where a deployment, or a request, wants its prompt to be cached, as in LiteLLM.

use serde_json::{Value, json};

use crate::{Endpoint, request::edits::Field};

/// The field of a request, and the parameter of a deployment.
pub(crate) const FIELD: &str = "cache_control_injection_points";

const CONTROL: &str = "cache_control";

/// Anthropic refuses more marks in one request.
const MOST_MARKS: usize = 4;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CachePoint {
    place: Place,
    /// What is written there.
    control: Value,
}

/// What is marked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// A message by its position; below 0 from the end.
    Message(i64),
    /// All messages of a role.
    Role(String),
    /// The last tool.
    Tools,
}

/// The points of a list. An entry that names nothing is left out.
pub(crate) fn read(list: &Value) -> Vec<CachePoint> {
    let entries = list.as_array().into_iter().flatten();
    entries.filter_map(point).collect()
}

fn point(entry: &Value) -> Option<CachePoint> {
    let index = &entry["index"];
    let index = index.as_i64().or_else(|| index.as_str()?.parse().ok());
    let role = entry["role"].as_str().map(str::to_owned);
    let place = match entry["location"].as_str()? {
        "message" => index.map(Place::Message).or(role.map(Place::Role))?,
        "tool_config" => Place::Tools,
        _ => return None,
    };
    let control = entry.get("control").filter(|control| control.is_object());
    let control = control.cloned();
    Some(CachePoint {
        place,
        control: control.unwrap_or_else(|| json!({"type": "ephemeral"})),
    })
}

/// Marks the fields of a chat or of messages. What a client has marked stays as it is, and counts.
pub(crate) fn mark(points: &[CachePoint], endpoint: Endpoint, fields: &mut [Field<'_>]) {
    let read = |name: &str| {
        let (_, json) = fields.iter().find(|(field, _)| field == name)?;
        serde_json::from_str::<Value>(json).ok()
    };
    let (mut messages, mut tools, top) = (read("messages"), read("tools"), read(CONTROL));
    // A chat has its system messages among the others.
    let mut system = match endpoint {
        Endpoint::Messages => read("system"),
        _ => None,
    };
    let prompts = [&messages, &tools, &system].into_iter().flatten();
    let mut used = prompts.map(marks).sum::<usize>() + usize::from(top.is_some());
    for point in points {
        let targets = match &point.place {
            Place::Tools => last_of(tools.as_mut()),
            Place::Role(role) if role == "system" && system.is_some() => {
                system.iter_mut().collect()
            }
            Place::Role(role) => all_of(messages.as_mut(), role),
            Place::Message(index) => at(messages.as_mut(), *index),
        };
        for target in targets {
            if used < MOST_MARKS && marks(target) == 0 && set(target, &point.control) {
                used += 1;
            }
        }
    }
    for (name, value) in [("messages", messages), ("tools", tools), ("system", system)] {
        let field = fields.iter_mut().find(|(field, _)| field == name);
        if let (Some((_, json)), Some(value)) = (field, value) {
            *json = value.to_string().into();
        }
    }
}

fn items(list: Option<&mut Value>) -> impl DoubleEndedIterator<Item = &mut Value> {
    list.and_then(Value::as_array_mut).into_iter().flatten()
}

fn last_of(tools: Option<&mut Value>) -> Vec<&mut Value> {
    items(tools).next_back().into_iter().collect()
}

fn all_of<'a>(messages: Option<&'a mut Value>, role: &str) -> Vec<&'a mut Value> {
    items(messages)
        .filter(|message| message["role"] == role)
        .collect()
}

fn at(messages: Option<&mut Value>, index: i64) -> Vec<&mut Value> {
    let back = index < 0;
    let steps = index.unsigned_abs() - u64::from(back);
    let steps = usize::try_from(steps).unwrap_or(usize::MAX);
    let mut messages = items(messages);
    let found = match back {
        true => messages.nth_back(steps),
        false => messages.nth(steps),
    };
    found.into_iter().collect()
}

/// How many marks a message, a tool, a block or a list of them has.
fn marks(value: &Value) -> usize {
    match value {
        Value::Array(values) => values.iter().map(marks).sum(),
        Value::Object(fields) => {
            let own = fields
                .get(CONTROL)
                .is_some_and(|control| !control.is_null());
            let inner = ["content", "tool_calls", "function"].iter();
            let inner: usize = inner.filter_map(|name| fields.get(*name)).map(marks).sum();
            inner + usize::from(own)
        }
        _ => 0,
    }
}

/// Marks the end of a text, of a list of blocks, of a message, or a tool. False: there is nothing to mark.
fn set(target: &mut Value, control: &Value) -> bool {
    match target {
        Value::String(text) if !text.is_empty() => {
            *target = json!([{"type": "text", "text": text, CONTROL: control}]);
            true
        }
        Value::Array(blocks) => blocks
            .last_mut()
            .is_some_and(|last| set_block(last, control)),
        Value::Object(message) if message.contains_key("role") => message
            .get_mut("content")
            .is_some_and(|content| set(content, control)),
        tool => set_block(tool, control),
    }
}

fn set_block(block: &mut Value, control: &Value) -> bool {
    // Anthropic refuses marks on these.
    let refused =
        block["text"] == "" || block["type"] == "thinking" || block["type"] == "redacted_thinking";
    match block.as_object_mut() {
        Some(block) if !refused => {
            block.insert(CONTROL.into(), control.clone());
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn marked(endpoint: Endpoint, points: &Value, body: &Value) -> Value {
        let texts = body.as_object().unwrap().iter();
        let mut fields: Vec<Field<'_>> = texts
            .map(|(name, value)| (Cow::Borrowed(name.as_str()), value.to_string().into()))
            .collect();
        mark(&read(points), endpoint, &mut fields);
        let values = fields
            .iter()
            .map(|(name, json)| (name.to_string(), serde_json::from_str(json).unwrap()));
        Value::Object(values.collect())
    }

    fn text(text: &str) -> Value {
        json!([{"type": "text", "text": text}])
    }

    fn ending(text: &str) -> Value {
        json!([{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}])
    }

    #[test]
    fn points_mark_messages_by_role_and_by_index() {
        let chat = json!({"messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": text("b")},
            {"role": "user", "content": "c"},
        ]});
        for (points, expected) in [
            (
                json!([{"location": "message", "role": "system"}]),
                [true, false, false, false],
            ),
            (
                json!([{"location": "message", "role": "user"}]),
                [false, true, false, true],
            ),
            (
                json!([{"location": "message", "index": -1}]),
                [false, false, false, true],
            ),
            (
                json!([{"location": "message", "index": "2"}]),
                [false, false, true, false],
            ),
            (json!([{"location": "message", "index": 9}]), [false; 4]),
            (json!([{"location": "message", "index": -5}]), [false; 4]),
            (
                json!([{"location": "elsewhere"}, {"location": "message"}, 7]),
                [false; 4],
            ),
            (json!("message"), [false; 4]),
        ] {
            let body = marked(Endpoint::ChatCompletions, &points, &chat);
            let found: Vec<bool> = (0..4)
                .map(|index| body["messages"][index]["content"][0].get(CONTROL).is_some())
                .collect();
            assert_eq!(found, expected, "{points}");
        }
    }

    #[test]
    fn system_of_messages_and_tools_are_marked_with_the_control_of_the_point() {
        let points = json!([
            {"location": "message", "role": "system"},
            {"location": "message", "index": 0},
            {"location": "tool_config", "control": {"type": "ephemeral", "ttl": "1h"}},
        ]);
        let body = json!({
            "system": "s",
            "messages": [{"role": "user", "content": text("a")}],
            "tools": [{"name": "f"}, {"name": "g"}],
        });
        assert_eq!(
            marked(Endpoint::Messages, &points, &body),
            json!({
                "system": ending("s"),
                "messages": [{"role": "user", "content": ending("a")}],
                "tools": [{"name": "f"}, {"name": "g", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
            })
        );
    }

    #[test]
    fn marks_of_the_client_stay_and_count() {
        let user = |content: Value| json!({"role": "user", "content": content});
        let points = json!([{"location": "message", "role": "user"}]);
        let own = json!([{"type": "text", "text": "b", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]);
        let messages = [
            json!("a"),
            own.clone(),
            json!(""),
            json!("c"),
            json!("d"),
            json!("e"),
        ];
        let expected = [
            ending("a"),
            own,
            json!(""),
            ending("c"),
            ending("d"),
            json!("e"),
        ];
        assert_eq!(
            marked(
                Endpoint::ChatCompletions,
                &points,
                &json!({"messages": messages.map(user)})
            ),
            json!({"messages": expected.map(user)})
        );
    }
}
