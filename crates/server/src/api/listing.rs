//! What is there: `/models`, `/models/{id}`, `/model/info`, `/model_group/info` and `/health`. Answered from what this instance knows, without a call upstream.

use std::{collections::BTreeSet, sync::Arc};

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
use vorrang_gateway::{EndpointView, KeyPolicy, ModelView, config::DeploymentSettings};

use crate::{app::App, failure::Failure, record::Record};

/// The models the caller's key may call, in OpenAI's shape.
pub(crate) async fn models(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Record>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let key = app.authenticate(&headers, &record)?;
    let models = app.router.models(key.as_ref());
    let models = models.iter().map(|name| model_object(&app, name));
    let models: Vec<_> = models.collect();
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
        Ok(Json(model_object(&app, &id)).into_response())
    } else {
        Err(Failure::no_such_model(&id))
    }
}

fn model_object(app: &App, name: &str) -> Value {
    let view = app.router.model(name);
    let owner = view.as_ref().and_then(ModelView::provider);
    // The time is the one LiteLLM gives: the models themselves have none.
    let mut object = json!({
        "id": name,
        "object": "model",
        "created": 1_677_610_602,
        "owned_by": owner.unwrap_or("openai"),
    });
    if let Some(mode) = view.as_ref().and_then(ModelView::mode) {
        object["mode"] = json!(mode);
    }
    object
}

#[derive(Debug, serde::Deserialize)]
pub(crate) struct InfoQuery {
    /// An id: only this deployment.
    litellm_model_id: Option<String>,
}

/// The deployments of the models that the caller's key may call, in LiteLLM's shape, without addresses and secrets.
pub(crate) async fn model_info(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Record>,
    headers: HeaderMap,
    query: Result<Query<InfoQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let key = app.authenticate(&headers, &record)?;
    let Query(query) = query.map_err(|error| Failure::invalid(error.body_text()))?;
    let asked = |id: &str| {
        query
            .litellm_model_id
            .as_deref()
            .is_none_or(|asked| asked == id)
    };
    let views = views(&app, key.as_ref());
    let deployments = views.iter().flat_map(|view| {
        let deployments = view.settings.deployments.iter();
        deployments
            .filter(|deployment| asked(&deployment.id))
            .map(|deployment| deployment_object(&view.name, deployment))
    });
    let data: Vec<Value> = deployments.collect();
    match query.litellm_model_id {
        Some(id) if data.is_empty() => Err(Failure::no_such_model(&id)),
        _ => Ok(Json(json!({"data": data})).into_response()),
    }
}

/// The models that the caller's key may call, each once.
pub(crate) async fn model_group_info(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Record>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let key = app.authenticate(&headers, &record)?;
    let group_object = |view: ModelView| {
        let deployments = view.settings.deployments.iter();
        let providers: BTreeSet<_> = deployments.filter_map(|one| one.about.provider).collect();
        json!({
            "model_group": view.name,
            "providers": providers,
            "mode": view.mode(),
            "rpm": view.limit("rpm"),
            "tpm": view.limit("tpm"),
        })
    };
    let data: Vec<Value> = views(&app, key.as_ref())
        .into_iter()
        .map(group_object)
        .collect();
    Ok(Json(json!({"data": data})).into_response())
}

fn views(app: &App, key: Option<&KeyPolicy>) -> Vec<ModelView> {
    let names = app.router.models(key);
    let views = names.iter().map(|name| app.router.model(name));
    views.flatten().collect()
}

fn deployment_object(name: &str, deployment: &DeploymentSettings) -> Value {
    let mut params = json!({"model": deployment.about.model});
    for limit in &deployment.limits {
        params[&*limit.name] = json!(limit.limit);
    }
    if let Some(weight) = deployment.weight {
        params["weight"] = json!(weight);
    }
    if let Some(order) = deployment.order {
        params["order"] = json!(order);
    }
    json!({
        "model_name": name,
        "litellm_params": params,
        "model_info": {
            "id": deployment.id,
            "db_model": false,
            "mode": deployment.about.mode,
            "litellm_provider": deployment.about.provider,
        },
    })
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
