//! The admin API in `/openapi.json`.

use http::Method;
use serde_json::{Map, Value, json};

use super::Operation;
use crate::api::openapi::{error, in_path, reference};

/// An operation in the document, without its security.
pub(crate) fn described(operation: Operation) -> Value {
    let (summary, schema) = of(operation);
    let mut parameters: Vec<Value> = ["group", "ticket", "instance", "call_id"]
        .into_iter()
        .filter(|name| operation.path().contains(&format!("{{{name}}}")))
        .map(in_path)
        .collect();
    parameters.extend(query(operation));
    let content_type = if operation == Operation::Events {
        "text/event-stream"
    } else {
        "application/json"
    };
    let content = if operation == Operation::Events {
        json!({content_type: {"schema": {"type": "string"}}})
    } else {
        json!({content_type: {"schema": reference(schema)}})
    };
    let mut described = json!({
        "summary": summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": summary, "content": content},
            "400": error("A parameter or the body is not what is expected."),
            "401": error("No key, or one that is not known."),
            "403": error("The key may not do this."),
            "421": error("This host is not served here."),
        },
    });
    let responses = &mut described["responses"];
    if !matches!(
        operation,
        Operation::Overview | Operation::Events | Operation::Preview
    ) {
        responses["404"] = error("Nothing of this name is there.");
    }
    if matches!(operation, Operation::MoveTicket | Operation::CancelTicket) {
        responses["409"] = error("The ticket does not wait any more.");
    }
    if matches!(operation, Operation::Limits | Operation::Pause) {
        responses["409"] = error("The group has as many changes as it can have.");
    }
    if operation.method() == Method::POST || operation == Operation::Tickets {
        responses["503"] = error("The backend or the instance does not answer: try again.");
    }
    if operation == Operation::Preview {
        responses["503"] = error("The backend does not answer: try again.");
    }
    if operation.method() == Method::POST {
        responses["408"] = error("The body took too long.");
        responses["413"] = error("The body is too large.");
        responses["415"] = error("The body is not JSON.");
        responses["429"] = error("No room for the body now.");
        described["requestBody"] = json!({
            "required": true,
            "content": {"application/json": {"schema": body(operation)}},
        });
    }
    described
}

/// What an operation is for, and the schema of its answer.
fn of(operation: Operation) -> (&'static str, &'static str) {
    match operation {
        Operation::Overview => ("The fleet at a glance", "Overview"),
        Operation::Events => (
            "The overview as server-sent events, each second: `event: overview`",
            "Overview",
        ),
        Operation::Group => ("One group of the overview", "Group"),
        Operation::Tickets => ("Waiting tickets of the fleet, the best first", "TicketPage"),
        Operation::Calls => ("Open calls of the fleet in a group", "Calls"),
        Operation::Requests => (
            "The latest requests of the fleet, the newest first",
            "Requests",
        ),
        Operation::RequestLife => ("The life of a request of the fleet", "Request"),
        Operation::MoveTicket => ("Gives a waiting ticket another priority", "MovedTicket"),
        Operation::CancelTicket => (
            "Ends the wait of a ticket: its client gets 409 with the reason",
            "Ticket",
        ),
        Operation::Pause => (
            "Pauses a group, or a key in it: nothing of it is granted",
            "Paused",
        ),
        Operation::Resume => ("Lets a paused group, or a key in it, go on", "Paused"),
        Operation::Limits => ("Changes a limit until further notice", "ChangedLimits"),
        Operation::Drain => (
            "Takes an instance out of the rotation: its readiness is 503",
            "Draining",
        ),
        Operation::ResumeInstance => ("Puts an instance back into the rotation", "Draining"),
        Operation::Preview => (
            "Where a request would be in the queue if it came now",
            "Preview",
        ),
        Operation::OwnRequest => ("How the key's own request is getting on", "Request"),
    }
}

fn query(operation: Operation) -> Vec<Value> {
    let one = |name: &str, schema: Value, description: &str, required: bool| json!({"name": name, "in": "query", "schema": schema, "description": description, "required": required});
    let priority = json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX});
    let whole = json!({"type": "integer", "minimum": 0});
    let text = json!({"type": "string"});
    let up_to = |most: u64| json!({"type": "integer", "minimum": 1, "maximum": most});
    match operation {
        Operation::Tickets => vec![
            one(
                "from",
                whole,
                "The rank to begin with; 0 is the head.",
                false,
            ),
            one(
                "limit",
                up_to(100),
                "At most so many; 100 by default.",
                false,
            ),
            one("priority", priority, "Only of this priority.", false),
            one("key", text.clone(), "Only of the key of this name.", false),
            one("tenant", text.clone(), "Only of this tenant.", false),
            one("instance", text, "Only of this instance.", false),
        ],
        Operation::Requests => vec![
            one("group", text, "Only of this group.", false),
            one(
                "limit",
                up_to(500),
                "At most so many; 50 by default.",
                false,
            ),
        ],
        Operation::Preview => vec![
            one("model", text, "The model's name or alias.", true),
            one("priority", priority, "As the body would name it.", false),
            one("tokens", whole, "What it would ask for.", false),
        ],
        _ => Vec::new(),
    }
}

fn body(operation: Operation) -> Value {
    let (properties, required) = match operation {
        Operation::MoveTicket => (
            json!({"priority": {"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX}}),
            json!(["priority"]),
        ),
        Operation::CancelTicket => (
            json!({"reason": {"type": ["string", "null"], "maxLength": 500}}),
            json!([]),
        ),
        Operation::Pause | Operation::Resume => {
            (json!({"key": {"type": ["string", "null"]}}), json!([]))
        }
        Operation::Limits => (
            json!({
                "deployment": {"type": "string"},
                "limit": {"type": "string"},
                "value": {"type": ["integer", "null"], "minimum": 1, "maximum": 1u64 << 52},
            }),
            json!(["deployment", "limit", "value"]),
        ),
        _ => (json!({}), json!([])),
    };
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// An object of which all these fields are there.
fn object(fields: Value) -> Value {
    let names: Vec<_> = fields.as_object().into_iter().flat_map(Map::keys).collect();
    json!({"type": "object", "required": names, "properties": fields})
}

fn nullable(kind: &str) -> Value {
    json!({"type": [kind, "null"]})
}

fn list(items: &Value) -> Value {
    json!({"type": "array", "items": items})
}

/// The schemas of answers.
pub(crate) fn schemas() -> Map<String, Value> {
    let text = json!({"type": "string"});
    let whole = json!({"type": "integer", "minimum": 0});
    let integer = json!({"type": "integer"});
    let boolean = json!({"type": "boolean"});
    let maybe_whole = nullable("integer");
    let maybe_text = nullable("string");
    let instance = object(json!({
        "id": text, "version": maybe_text, "uptime_s": maybe_whole, "ready": {"type": ["boolean", "null"]},
        "draining": boolean, "waiting": whole, "open": whole, "answered": boolean,
    }));
    let class = object(json!({
        "class": text, "waiting": whole, "granted_per_minute": whole,
        "waits": object(json!({"count": whole, "p50_ms": maybe_whole, "p99_ms": maybe_whole})),
    }));
    let history = object(json!({
        "step_s": whole, "from_unix_s": whole,
        "classes": {"type": "object", "additionalProperties": list(&whole)},
        "depth": list(&whole),
    }));
    let limit = object(json!({
        "limit": text, "kind": text, "window_s": nullable("number"), "used": maybe_whole,
        "configured": whole, "in_force": whole,
    }));
    let deployment = object(json!({
        "id": text, "model": text, "order": maybe_whole, "weight": nullable("number"), "open": whole,
        "cooling_ms": maybe_whole, "cooling_status": maybe_whole, "pace_ms": whole,
        "limits": list(&reference("Limit")),
    }));
    let group = object(json!({
        "name": text, "paused": boolean, "paused_keys": list(&text), "order": text, "strategy": text,
        "pace_worse_than": maybe_whole, "reserve": {"type": ["object", "null"]},
        "max_queue_depth": maybe_whole, "depth": whole, "held": whole, "open": whole, "next_free_ms": maybe_whole,
        "reasons": list(&text), "backend_answers": boolean, "recovering": boolean, "configurations": whole,
        "classes": list(&class), "history": history, "deployments": list(&deployment),
    }));
    let ticket = object(json!({
        "ticket": text, "position": maybe_whole, "priority": integer, "age_ms": whole, "tokens": whole,
        "input_tokens": whole, "output_tokens": whole, "tenant": maybe_text, "key": maybe_text,
        "instance": text, "call_id": maybe_text, "model": maybe_text, "least_wait_ms": maybe_whole,
        "orphaned": boolean, "held": boolean,
    }));
    let call = object(json!({
        "call_id": text, "key": maybe_text, "priority": integer, "instance": text,
        "deployment": maybe_text, "waited_ms": whole, "running_ms": whole, "attempt": whole,
        "first_token_ms": maybe_whole, "streamed": boolean,
    }));
    let mut request = object(json!({
        "call_id": text, "group": text, "key": maybe_text, "model": text, "priority": integer,
        "tokens": whole, "streamed": boolean, "instance": text, "came_unix_ms": whole,
        "waited_ms": whole, "age_ms": whole,
        "state": {"enum": ["waiting", "calling", "answering", "ended"]},
        "outcome": maybe_text, "status": maybe_whole, "deployment": maybe_text, "attempts": whole,
        "ticket": maybe_text, "position": maybe_whole, "least_wait_ms": maybe_whole,
        "held": boolean,
    }));
    // Lists have no events.
    request["properties"]["events"] = list(&json!({
        "type": "object",
        "required": ["at_ms", "what"],
        "properties": {"at_ms": whole, "what": text},
    }));
    let all = [
        (
            "Overview",
            object(json!({
                "at": whole, "answered_by": text, "version": text,
                "instances": list(&instance), "groups": list(&reference("Group")),
            })),
        ),
        ("Group", group),
        ("Limit", limit),
        (
            "TicketPage",
            object(
                json!({"total": whole, "held": whole, "from": whole, "next": maybe_whole, "tickets": list(&ticket)}),
            ),
        ),
        ("Calls", object(json!({"calls": list(&call)}))),
        (
            "Requests",
            object(json!({"requests": list(&reference("Request"))})),
        ),
        ("Request", request),
        ("Ticket", object(json!({"ticket": text}))),
        (
            "MovedTicket",
            object(
                json!({"ticket": text, "priority": integer, "from": maybe_whole, "position": maybe_whole}),
            ),
        ),
        (
            "Paused",
            object(json!({"paused": boolean, "paused_keys": list(&text)})),
        ),
        (
            "ChangedLimits",
            object(json!({"deployment": text, "limits": list(&reference("Limit"))})),
        ),
        ("Draining", object(json!({"draining": boolean}))),
        (
            "Preview",
            object(json!({
                "model": text, "group": text, "priority": integer, "position": whole, "least_wait_ms": maybe_whole,
                "paused": boolean,
            })),
        ),
    ];
    all.map(|(name, schema)| (name.to_owned(), schema))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_has_all_parameters_that_queries_may_have() {
        for operation in [&Operation::ADMIN[..], &Operation::CLIENTS].concat() {
            let described = query(operation);
            let names: Vec<_> = described.iter().map(|one| one["name"].as_str()).collect();
            let known: Vec<_> = operation.parameters().iter().copied().map(Some).collect();
            assert_eq!(names, known, "{operation:?}");
        }
    }
}
