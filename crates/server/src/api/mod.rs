//! The HTTP API: its routes, and what is around all of them.

pub(crate) mod access;
mod admin;
mod allowed;
pub(crate) mod calls;
mod client;
pub(crate) mod cors;
pub(crate) mod front;
pub(crate) mod hosts;
pub(crate) mod listing;
mod openapi;
pub(crate) mod paths;
mod readiness;
mod resources;
mod served;
mod ui;

use std::sync::Arc;

use axum::{
    Extension, RequestExt as _,
    body::Body,
    extract::{Path, Request, State},
    middleware,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};
use vorrang_gateway::Endpoint;

use crate::{
    api::{
        calls::Route,
        front::Front,
        served::{What, served},
    },
    app::App,
    failure::Failure,
    metrics,
    stream::answer::AnswerBody,
};

/// All that is served, with everything around it.
pub(crate) fn service(app: Arc<App>) -> Front {
    let known_hosts = middleware::from_fn_with_state(app.clone(), hosts::hosts);
    // Web pages are only answered on the paths that a key protects, where one is set.
    // The fallback goes first: what is set after the layer is not inside of it, and preflights would end there.
    let api = api_routes(&app)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(cors::layer(&app.cors_origins));
    // Nor do pages of other origins need the admin API.
    let routes = api.merge(operating(&app)).merge(admins(&app));
    let routes = answering_all(routes).layer(known_hosts);
    Front::with_calls(routes, app)
}

/// What the admin port serves.
pub(crate) fn admin(app: Arc<App>) -> Front {
    let own_port = Extension(admin::OnAdminPort);
    let routes = operating(&app).merge(admins(&app).layer(own_port));
    Front::new(answering_all(routes), app)
}

/// What calls models or says which there are.
fn api_routes(app: &Arc<App>) -> axum::Router<Arc<App>> {
    router_of(app, |what| !what.is_operating() && !what.is_admins())
}

/// What says how the instance is; it answers whatever happens to calls.
fn operating(app: &Arc<App>) -> axum::Router<Arc<App>> {
    router_of(app, What::is_operating)
}

/// What operators see and do.
fn admins(app: &Arc<App>) -> axum::Router<Arc<App>> {
    router_of(app, What::is_admins)
}

fn router_of(app: &Arc<App>, selected: impl Fn(&What) -> bool) -> axum::Router<Arc<App>> {
    let all = served().into_iter().filter(|one| selected(&one.what));
    all.fold(axum::Router::new(), |routes, one| {
        let list = one.what.list();
        let handler = one.what.handler();
        let handler = match list {
            Some(list) => {
                let state = (app.clone(), list);
                handler.layer(middleware::from_fn_with_state(state, allowed::only))
            }
            None => handler,
        };
        routes.route(&one.path, handler)
    })
}

/// Paths and methods that nothing is served at are answered as well.
fn answering_all(routes: axum::Router<Arc<App>>) -> axum::Router<Arc<App>> {
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

/// An error of the server itself has Anthropic's shape on the paths of its API.
fn in_shape_of_path(
    mut response: http::Response<AnswerBody>,
    path: &str,
    call_id: &str,
) -> http::Response<AnswerBody> {
    let failed = response.extensions().get::<Failure>().is_some();
    if !failed || !is_anthropics(path) {
        return response;
    }
    let Some(failure) = response.extensions_mut().remove::<Failure>() else {
        return response;
    };
    let body = failure.anthropic_body(call_id).to_string();
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.map(|_| Body::from(body).into())
}

/// Whether a path is one of Anthropic's API, or below one, or ends with one after a model's name.
fn is_anthropics(path: &str) -> bool {
    let rest = path.strip_prefix("/v1").unwrap_or(path);
    let rest = rest.strip_prefix(Endpoint::Messages.path());
    let below = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let mut anthropics = Endpoint::all().filter(|endpoint| endpoint.is_anthropic());
    let models = served::MODELS_FOLLOW.iter();
    let mut models = models.filter_map(|prefix| path.strip_prefix(prefix));
    below || models.any(|rest| anthropics.any(|endpoint| rest.ends_with(endpoint.path())))
}

async fn not_found(request: Request) -> Failure {
    Failure::not_found(request.uri().path())
}

async fn method_not_allowed(request: Request) -> Failure {
    Failure::method_not_allowed(request.method(), request.uri().path())
}

/// `{model}/chat/completions`, `{model}/embeddings` and so on. The rest of the path is taken as a whole: a model may have slashes in its name, encoded or not.
async fn model_in_path(
    State(app): State<Arc<App>>,
    mut request: Request,
) -> Result<Response, Failure> {
    let Ok(Path(rest)) = request.extract_parts::<Path<String>>().await else {
        return Err(Failure::invalid("The model in the path is not UTF-8"));
    };
    // The longest name: it may end with a shorter.
    let called = Endpoint::all()
        .filter_map(|endpoint| Some((Route::of(endpoint), rest.strip_suffix(endpoint.path())?)))
        .min_by_key(|(_, model)| model.len());
    match called {
        Some((route, model)) if !model.is_empty() => {
            calls::call(State(app), request, route, Some(model.into())).await
        }
        _ => Err(Failure::not_found(request.uri().path())),
    }
}

async fn scrape(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Failure> {
    if !app.shows_details(&headers) {
        return Err(Failure::unauthorized("Metrics need the master key."));
    }
    let page = metrics::render(&app.registry).map_err(|_| Failure::internal())?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page).into_response())
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use http::StatusCode;
    use serde_json::{Value, json};
    use vorrang_gateway::Config;
    use vorrang_scheduler::backend::MemoryBackend;

    use super::*;
    use crate::{
        connection::{Link, Peer, slots::Budget},
        eviction::Eviction,
        patience::Patience,
    };

    fn app(config: Config) -> Arc<App> {
        let backend = Arc::new(MemoryBackend::new());
        Arc::new(App::start(
            config,
            backend,
            Eviction::never(),
            Patience::default(),
            Budget::of(1024),
        ))
    }

    async fn get(routes: Front, path: &str) -> (StatusCode, Value) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let (head, body) = routes.oneshot(request).await.unwrap().into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (head.status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn handler_panic_gets_500_in_the_documented_format() {
        async fn panicking() {
            panic!("secret");
        }
        let routes = axum::Router::new().route("/panic", axum::routing::get(panicking));
        let (status, body) = get(Front::new(routes, app(Config::demo())), "/panic").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body["error"]["type"], "internal_server_error");
        assert_eq!(body["error"]["code"], "500");
        assert!(!body.to_string().contains("secret"), "{body}");
    }

    #[tokio::test]
    async fn errors_of_the_server_have_anthropics_shape_on_its_paths() {
        let mut config = Config::demo();
        config.master_key = Some("sk-master".into());
        let routes = service(app(config));
        for (path, status, kind) in [
            (
                "/v1/messages",
                StatusCode::METHOD_NOT_ALLOWED,
                "invalid_request_error",
            ),
            (
                "/messages/batches",
                StatusCode::NOT_FOUND,
                "not_found_error",
            ),
            (
                "/engines/a/b/messages",
                StatusCode::METHOD_NOT_ALLOWED,
                "invalid_request_error",
            ),
            (
                "/openai/deployments/a/messages/count_tokens",
                StatusCode::METHOD_NOT_ALLOWED,
                "invalid_request_error",
            ),
        ] {
            let (got, body) = get(routes.clone(), path).await;
            assert_eq!(got, status, "{path}");
            assert_eq!(body["type"], "error", "{body}");
            assert_eq!(body["error"]["type"], kind, "{body}");
        }
        let request = Request::post("/v1/messages")
            .body(Body::from("{}"))
            .unwrap();
        let response = routes.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let id = response.headers()["x-litellm-call-id"].clone();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["type"], "authentication_error");
        assert_eq!(body["request_id"], id.to_str().unwrap());
        let (_, body) = get(routes, "/v1/messagesx").await;
        assert_eq!(body["error"]["code"], "404", "{body}");
    }

    #[tokio::test]
    async fn status_204_has_neither_body_nor_content_length() {
        async fn none() -> Response {
            let length = [(header::CONTENT_LENGTH, "5")];
            (StatusCode::NO_CONTENT, length, "hello").into_response()
        }
        let routes = axum::Router::new().route("/none", axum::routing::get(none));
        let request = Request::get("/none").body(Body::empty()).unwrap();
        let response = Front::new(routes, app(Config::demo()))
            .oneshot(request)
            .await
            .unwrap();
        assert!(!response.headers().contains_key(header::CONTENT_LENGTH));
        // Otherwise hyper would set one in HTTP/2.
        assert!(http_body::Body::is_end_stream(response.body()));
    }

    #[tokio::test]
    async fn stopping_instance_is_alive_but_not_ready_with_its_reason() {
        let app = app(Config::demo());
        app.lifecycle.leaving.cancel();
        let (status, body) = get(service(app.clone()), "/health/readiness").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["reason"], "shutting down");
        let (status, _) = get(service(app), "/health/liveliness").await;
        assert_eq!(status, StatusCode::OK, "it still lives");
    }

    #[tokio::test]
    async fn private_readiness_reasons_need_the_master_key() {
        let mut config = Config::demo();
        config.master_key = Some("sk-master".into());
        config.exposure.public_metrics = false;
        let app = app(config);
        app.lifecycle.leaving.cancel();
        let (status, body) = get(service(app.clone()), "/health/readiness").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, json!({"status": "unhealthy"}));
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", http::HeaderValue::from_static("sk-master"));
        let response = readiness::readiness(State(app), headers).await;
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["reason"], "shutting down");
    }

    /// A proxy elsewhere may say that a connection comes from its own machine.
    #[tokio::test]
    async fn loopback_of_another_machine_is_not_this_one() {
        let routes = service(app(Config::demo()));
        for (socket, address, status) in [
            ("127.0.0.1", "127.0.0.1", StatusCode::OK),
            ("10.0.0.5", "127.0.0.1", StatusCode::FORBIDDEN),
            ("127.0.0.1", "10.0.0.5", StatusCode::FORBIDDEN),
        ] {
            let peer = Peer {
                socket: socket.parse().unwrap(),
                address: address.parse().unwrap(),
            };
            let link = Link {
                peer: Some(peer),
                ..Link::default()
            };
            let request = Request::get("/admin/overview").header("host", "localhost");
            let request = request.body(Body::empty()).unwrap();
            let answer = routes.clone().answer(request, link).await;
            assert_eq!(answer.status(), status, "{socket} {address}");
        }
    }

    #[tokio::test]
    async fn openapi_document_has_every_route_and_no_other() {
        let routes = service(app(Config::demo()));
        let operations = openapi::operations();
        for (method, path) in &operations {
            let model = path.contains("{model}") || path.contains("/models/");
            let id = if model { "a/b" } else { "a" };
            let served = path
                .replace("{model}", "a/b")
                .replace("{provider}", "openai")
                .replace("{group}", "a")
                .replace("{ticket}", "1")
                .replace("{instance}", "a")
                .replace("{call_id}", "a");
            let served = served.replace("{id}", id);
            let others = [http::Method::POST, http::Method::GET, http::Method::PUT];
            let mut others = others.into_iter();
            let other = others.find(|other| !operations.contains(&(other.clone(), path.clone())));
            let (path, other) = (served, other.unwrap());
            let status = async |method: &http::Method| {
                let request = Request::builder().method(method).uri(&path);
                let request = request.body(Body::empty()).unwrap();
                let response = routes.clone().oneshot(request).await.unwrap();
                let served = response.extensions().get::<Failure>().cloned();
                (response.status(), served)
            };
            let (_, failure) = status(method).await;
            let missing = [
                Failure::not_found(&path),
                Failure::method_not_allowed(method, &path),
            ];
            assert!(
                !failure.is_some_and(|failure| missing.contains(&failure)),
                "{method} {path}"
            );
            let (other, _) = status(&other).await;
            assert_eq!(other, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
        for one in served() {
            let path = match one.what {
                What::ModelInPath => one.path.replace("{*rest}", "{model}/embeddings"),
                _ => one.path.replace("{*", "{"),
            };
            assert!(
                operations.iter().any(|(_, known)| *known == path),
                "{path} is not in the document"
            );
        }
    }
}
