//! `/openapi.json`: what this server serves, as OpenAPI 3.1. Made from the list that the router is made of.

use axum::Json;
#[cfg(test)]
use http::Method;
use serde_json::{Map, Value, json};
use vorrang_gateway::Endpoint;

use super::{
    admin,
    calls::Route,
    resources::Operation,
    served::{Served, What, served},
};
use crate::metrics;

/// Headers of a request that the gateway reads, their schemas, and what they are for.
const HEADERS: [(&str, &str, &str); 6] = [
    (
        "x-vorrang-priority",
        "integer",
        "The priority, where the body has none.",
    ),
    (
        "x-vorrang-keepalive",
        "boolean",
        "true: a stream begins while the call waits, with comments.",
    ),
    (
        "x-litellm-timeout",
        "number",
        "The request's time in seconds, where the body has none.",
    ),
    (
        "x-litellm-stream-timeout",
        "number",
        "The time of one attempt of a streamed call, in seconds.",
    ),
    (
        "x-litellm-num-retries",
        "integer",
        "Attempts in a group after the first.",
    ),
    (
        "x-litellm-call-id",
        "string",
        "The id of the call in the answer and the log, instead of a new one.",
    ),
];

/// Statuses that a call's errors have, with what they mean.
const CALL_ERRORS: [(&str, &str); 12] = [
    (
        "400",
        "The request is at fault, or no configured model has this name.",
    ),
    ("401", "No key, or one that is not known."),
    ("403", "The key does not allow the model."),
    ("404", "Nothing of this name is served."),
    ("408", "The time was over, or the body took too long."),
    ("413", "The body is too large."),
    ("415", "The body is not of the type that is served here."),
    ("421", "This host is not served here."),
    (
        "429",
        "A limit, a full queue, or no room: `retry-after` says when to come again.",
    ),
    ("502", "The upstream cannot be reached."),
    ("503", "Shutting down, or Redis is away."),
    ("default", "An error of the upstream, with its status."),
];

pub(super) async fn page() -> Json<Value> {
    Json(document())
}

fn document() -> Value {
    let mut paths = Map::new();
    for Served { path, what } in served() {
        match what {
            What::ModelInPath => {
                let prefix = path.trim_end_matches("/{*rest}");
                for endpoint in Endpoint::all() {
                    let path = format!("{prefix}/{{model}}{}", endpoint.path());
                    paths.insert(path, json!({"post": called(Route::of(endpoint), true)}));
                }
            }
            What::Call(route) => {
                paths.insert(path, json!({"post": called(route, false)}));
            }
            What::Resource(operations) => {
                let of = |one: &Operation| (one.method.as_str().to_lowercase(), kept(one, &path));
                let operations: Map<_, _> = operations.iter().map(of).collect();
                paths.insert(path, operations.into());
            }
            What::Admin(operation) => {
                let method = operation.method().as_str().to_lowercase();
                let mut described = admin::described(operation);
                described["security"] = security();
                let methods = Map::from_iter([(method, described)]);
                paths.insert(path, methods.into());
            }
            _ => {
                let path = path.replace("{*", "{");
                paths.insert(path, json!({"get": shown(&what)}));
            }
        }
    }
    let mut schemas = admin::schemas();
    schemas.insert("Error".into(), error_schema());
    schemas.insert("AnthropicError".into(), anthropic_error_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Vorrang",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A gateway for LLM APIs with one queue for each group of models.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "litellm_key": {"type": "apiKey", "in": "header", "name": "x-litellm-api-key"},
                "api_key": {"type": "apiKey", "in": "header", "name": "api-key"},
                "x_api_key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    })
}

/// The operation of a path that calls a model.
fn called(route: Route, model_in_path: bool) -> Value {
    let endpoint = route.endpoint;
    let mut schema = endpoint.body_schema(model_in_path);
    if route.priority_required {
        schema["properties"]["priority"]["type"] = json!("integer");
        if let Some(required) = schema["required"].as_array_mut() {
            required.push(json!("priority"));
        }
    }
    let content_type = if endpoint.is_form() {
        "multipart/form-data"
    } else {
        "application/json"
    };
    let mut parameters: Vec<_> = HEADERS
        .iter()
        .map(|(name, kind, what)| {
            json!({"name": name, "in": "header", "schema": {"type": kind}, "description": what})
        })
        .collect();
    if model_in_path {
        parameters.push(in_path("model"));
    }
    let error = if endpoint.is_anthropic() {
        "AnthropicError"
    } else {
        "Error"
    };
    json!({
        "summary": format!("Queues and calls {}", route.name),
        "security": security(),
        "parameters": parameters,
        "requestBody": {"required": true, "content": {content_type: {"schema": schema}}},
        "responses": answers_of_upstreams(error),
    })
}

/// What passes from an upstream, and the server's own errors in this shape.
fn answers_of_upstreams(error: &str) -> Map<String, Value> {
    let mut responses = Map::new();
    // What an upstream answers passes as it is: JSON, events, a text, or sound.
    responses.insert(
        "200".into(),
        json!({"description": "The upstream's answer.", "content": {"application/json": {}, "text/event-stream": {}, "*/*": {}}}),
    );
    for (status, what) in CALL_ERRORS {
        // An upstream's error passes as it is, too, of whatever shape.
        let schema = match status {
            "default" | "429" | "502" | "503" => json!({"type": "object"}),
            _ => reference(error),
        };
        responses.insert(
            status.into(),
            json!({"description": what, "content": {"application/json": {"schema": schema}}}),
        );
    }
    responses
}

/// The operation of a path of files, batches or fine-tuning jobs.
fn kept(operation: &Operation, path: &str) -> Value {
    let resource = operation.resource;
    let named = ["provider", "id"].into_iter();
    let named = named.filter(|name| path.contains(&format!("{{{name}}}")));
    let mut parameters: Vec<_> = named.map(in_path).collect();
    parameters.push(json!({
        "name": "custom_llm_provider",
        "in": "query",
        "schema": {"type": "string"},
        "description": "The account's provider; openai by default.",
    }));
    let action = operation.action.unwrap_or_default();
    let mut described = json!({
        "summary": format!("{} {}{action} at a provider's account", operation.method, resource.path()),
        "security": security(),
        "parameters": parameters,
        "responses": answers_of_upstreams("Error"),
    });
    if operation.is_new() {
        let content_type = if resource.is_form() {
            "multipart/form-data"
        } else {
            "application/json"
        };
        let schema = resource.body_schema();
        described["requestBody"] =
            json!({"required": true, "content": {content_type: {"schema": schema}}});
    }
    described
}

/// The operation of a path that shows something.
fn shown(what: &What) -> Value {
    let (summary, content_type) = match what {
        What::Models => ("The models that the key may call", "application/json"),
        What::Model => ("One model", "application/json"),
        What::ModelInfo => (
            "The deployments of the models that the key may call",
            "application/json",
        ),
        What::ModelGroupInfo => (
            "The models that the key may call, with limits",
            "application/json",
        ),
        What::Health => ("The deployments that the key may call", "application/json"),
        What::Alive => ("Whether the process lives", "application/json"),
        What::Readiness => ("Whether the instance can serve", "application/json"),
        What::Metrics => ("Metrics for Prometheus", metrics::CONTENT_TYPE),
        What::Ui(asset) => ("A file of the page that shows the queue", asset.media_type),
        What::OpenApi | What::Call(_) | What::ModelInPath | What::Resource(_) | What::Admin(_) => {
            ("This document", "application/json")
        }
    };
    let mut operation = json!({
        "summary": summary,
        "responses": {
            "200": {"description": summary, "content": {content_type: {}}},
            "421": error("This host is not served here."),
        },
    });
    let errors: &[(&str, &str)] = match what {
        What::Models | What::ModelGroupInfo => &[("401", "No key, or one that is not known.")],
        What::Model => &[
            ("400", "The name is not UTF-8."),
            ("401", "No key, or one that is not known."),
            ("404", "No such model, or none that the key may call."),
        ],
        What::ModelInfo => &[
            ("400", "The query cannot be read."),
            ("401", "No key, or one that is not known."),
            ("404", "No such deployment, or none that the key may call."),
        ],
        What::Health => &[
            ("400", "The query cannot be read."),
            ("401", "No key, or one that is not known."),
        ],
        What::Metrics => &[(
            "401",
            "Metrics are not public, and this is not the master key.",
        )],
        What::Readiness => &[("503", "The instance cannot serve now.")],
        _ => &[],
    };
    for (status, text) in errors {
        operation["responses"][*status] = match what {
            What::Readiness => json!({"description": text, "content": {"application/json": {}}}),
            _ => error(text),
        };
    }
    let open = matches!(
        what,
        What::Alive | What::Readiness | What::OpenApi | What::Ui(_)
    );
    if !open {
        operation["security"] = security();
    }
    match what {
        What::Model => operation["parameters"] = json!([in_path("id")]),
        What::ModelInfo => {
            operation["parameters"] = json!([
                {"name": "litellm_model_id", "in": "query", "schema": {"type": "string"}}
            ]);
        }
        What::Health => {
            operation["parameters"] =
                json!([{"name": "model", "in": "query", "schema": {"type": "string"}}]);
        }
        _ => {}
    }
    operation
}

pub(super) fn in_path(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}})
}

pub(super) fn error(description: &str) -> Value {
    json!({"description": description, "content": {"application/json": {"schema": reference("Error")}}})
}

pub(super) fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

/// Any of these, or none where the configuration has no keys.
fn security() -> Value {
    json!([{"bearer": []}, {"litellm_key": []}, {"api_key": []}, {"x_api_key": []}, {}])
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }},
    })
}

fn anthropic_error_schema() -> Value {
    json!({
        "type": "object",
        "required": ["type", "error"],
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "required": ["type", "message"],
                "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
            },
            "request_id": {"type": "string"},
        },
    })
}

/// Every operation of the document, by its method and path.
#[cfg(test)]
pub(super) fn operations() -> Vec<(Method, String)> {
    let document = document();
    let paths = document["paths"].as_object();
    let of_path = |(path, item): (&String, &Value)| {
        let methods: Vec<_> = item.as_object().into_iter().flat_map(Map::keys).collect();
        let method = |method: &&String| method.to_uppercase().parse::<Method>().ok();
        let methods: Vec<_> = methods.iter().filter_map(method).collect();
        methods
            .into_iter()
            .map(|method| (method, path.clone()))
            .collect::<Vec<_>>()
    };
    paths.into_iter().flatten().flat_map(of_path).collect()
}
