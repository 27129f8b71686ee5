//! What is there: `/models`, `/models/{id}` and `/health`. Answered from what this instance knows, without a call upstream.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    response::{IntoResponse as _, Response},
};
use http::HeaderMap;
use serde_json::{Value, json};
use vorrang_gateway::EndpointView;

use crate::{app::App, failure::Failure, record::Record};

/// The models the caller's key may call, in OpenAI's shape.
pub(crate) async fn models(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Record>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let key = app.authenticate(&headers, &record)?;
    let models = app.router.models(key.as_ref());
    let models: Vec<_> = models.iter().map(|name| model_object(name)).collect();
    Ok(Json(json!({"object": "list", "data": models})).into_response())
}

/// One model. A model that the key may not call looks like one that does not exist.
pub(crate) async fn model(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Record>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    let key = app.authenticate(&headers, &record)?;
    let Path(id) = id.map_err(|_| Failure::invalid("The model in the path is not UTF-8"))?;
    if app.router.has_model(key.as_ref(), &id) {
        Ok(Json(model_object(&id)).into_response())
    } else {
        Err(Failure::no_such_model(&id))
    }
}

fn model_object(name: &str) -> Value {
    // The time is the one LiteLLM gives: the models themselves have none.
    json!({"id": name, "object": "model", "created": 1_677_610_602, "owned_by": "openai"})
}

#[derive(Debug, serde::Deserialize)]
pub(crate) struct HealthQuery {
    /// A `model_name` or an alias: only its deployments.
    model: Option<String>,
}

/// The deployments the caller's key may call, in LiteLLM's shape. LiteLLM calls each of them for it; here the fleet's own calls say enough.
pub(crate) async fn health(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Record>,
    headers: HeaderMap,
    query: Result<Query<HealthQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let key = app.authenticate(&headers, &record)?;
    let Query(query) = query.map_err(|error| Failure::invalid(error.body_text()))?;
    let endpoints = app.router.endpoints(key.as_ref(), query.model.as_deref());
    let (unhealthy, healthy): (Vec<_>, Vec<_>) = endpoints
        .iter()
        .partition(|endpoint| endpoint.unhealthy.is_some());
    let shown = |endpoints: Vec<&EndpointView>| -> Vec<Value> {
        endpoints.into_iter().map(endpoint_object).collect()
    };
    let page = json!({
        "healthy_count": healthy.len(),
        "healthy_endpoints": shown(healthy),
        "unhealthy_count": unhealthy.len(),
        "unhealthy_endpoints": shown(unhealthy),
    });
    Ok(Json(page).into_response())
}

fn endpoint_object(endpoint: &EndpointView) -> Value {
    let mut object = json!({
        "model": endpoint.model,
        "model_name": endpoint.group,
        "model_id": endpoint.id,
    });
    if let Some(error) = &endpoint.unhealthy {
        object["error"] = json!(error);
    }
    object
}
