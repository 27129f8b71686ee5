//! What is served: the routes, and what they share.

pub(crate) mod access;
pub(crate) mod calls;
pub(crate) mod cors;
pub(crate) mod failure;
pub(crate) mod hosts;
pub(crate) mod listing;
pub(crate) mod paths;
pub(crate) mod request_body;

use std::{collections::HashSet, sync::Arc, time::Duration};

use axum::{
    Json, RequestExt as _,
    extract::{Path, Request, State},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, HeaderName, StatusCode, header};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::time::timeout;
use tower::util::MapRequest;
use tower_http::catch_panic::CatchPanicLayer;
use vorrang_gateway::{
    Bounds, Config, Endpoint, KeyPolicy, Router,
    config::{CorsOrigins, Exposure},
};
use vorrang_scheduler::{
    Scheduler,
    backend::{Backend, BackendError},
};

use crate::{
    api::{access::Record, calls::Route, failure::Failure, request_body::BodyLimits},
    connection::{
        places::{Budget, Places},
        unread,
    },
    eviction::Eviction,
    keys::{auth::Keys, body_budget::BodyBudget},
    lifecycle::Lifecycle,
    metrics::{self, Metrics},
    server::Patience,
};

/// What every request needs.
pub(crate) struct App {
    pub(crate) scheduler: Scheduler,
    pub(crate) router: Router,
    pub(crate) backend: Arc<dyn Backend>,
    eviction: Eviction,
    keys: Keys,
    /// No key is configured: every caller is served.
    pub(crate) open: bool,
    pub(crate) exposure: Exposure,
    /// Headers that say whose share of a group a call takes from.
    fair_headers: HashSet<HeaderName>,
    cors_origins: CorsOrigins,
    /// How often a client that asked for it gets a comment while its call waits; zero: never.
    pub(crate) keepalive: Duration,
    pub(crate) body_limits: BodyLimits,
    pub(crate) body_budget: BodyBudget,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) places: Arc<Places>,
    pub(crate) metrics: Arc<Metrics>,
    registry: Registry,
}

// === impl App ===

impl App {
    /// Says hello to every group. Needs a tokio runtime.
    pub(crate) fn start(
        config: Config,
        backend: Arc<dyn Backend>,
        eviction: Eviction,
        patience: Patience,
        budget: Budget,
    ) -> Self {
        let metrics = Arc::new(Metrics::default());
        // Of this start of the process: a restarted instance is another one.
        let instance = uuid::Uuid::new_v4().to_string();
        let scheduler = Scheduler::new(backend.clone(), instance, metrics.clone());
        let config = Arc::new(config);
        let places = Places::new(budget);
        let bounds = Bounds {
            idle_connections: budget.idle_upstream,
            room: places.clone(),
        };
        let router = Router::bounded(config.clone(), scheduler.clone(), bounds);
        Self {
            keys: Keys::new(&config),
            open: config.is_open(),
            exposure: config.exposure.clone(),
            fair_headers: config.fair_headers(),
            cors_origins: config.cors_origins.clone(),
            keepalive: config.keepalive,
            registry: metrics.registry(router.clone(), places.clone()),
            body_budget: BodyBudget::new(&config),
            body_limits: BodyLimits {
                size: config.max_body_bytes,
                pause: patience.body_pause,
                total: patience.body,
            },
            lifecycle: Lifecycle::default(),
            places,
            scheduler,
            router,
            backend,
            eviction,
            metrics,
        }
    }

    /// What the caller's key says about its calls; its name goes into the request's line.
    pub(crate) fn authenticate(
        &self,
        headers: &HeaderMap,
        record: &Record,
    ) -> Result<Option<KeyPolicy>, Failure> {
        let key = self.keys.authenticate(headers)?;
        if let Some(key) = &key {
            record.key(&key.name);
        }
        Ok(key)
    }

    /// Whether a caller may see how the instance is, and not only whether it serves.
    fn shows_details(&self, headers: &HeaderMap) -> bool {
        self.exposure.public_metrics || self.keys.is_master(headers)
    }

    /// Those that name a tenant in any group, and no others: what a caller sends beside is not the router's business.
    pub(crate) fn fair_headers(&self, headers: &HeaderMap) -> HeaderMap {
        let sent = |name: &HeaderName| Some((name.clone(), headers.get(name)?.clone()));
        self.fair_headers.iter().filter_map(sent).collect()
    }
}

/// A probe's own time-out is often 1 s: better a reason in time than a full one too late.
const CHECK: Duration = Duration::from_millis(500);

const CHAT: Route = Route {
    endpoint: Endpoint::ChatCompletions,
    name: "/chat/completions",
    priority_required: false,
};

const TEXT: Route = Route {
    endpoint: Endpoint::Completions,
    name: "/completions",
    priority_required: false,
};

const QUEUE: Route = Route {
    endpoint: Endpoint::ChatCompletions,
    name: "/queue/chat/completions",
    priority_required: true,
};

/// All routes, with everything around them.
pub(crate) fn service(app: Arc<App>) -> axum::Router {
    let known_hosts = middleware::from_fn_with_state(app.clone(), hosts::hosts);
    // Web pages are only answered on the paths that a key protects, where one is set.
    // The fallback goes first: what is set after the layer is not inside of it, and preflights would end there.
    let api = api_routes()
        .method_not_allowed_fallback(method_not_allowed)
        .layer(cors::layer(&app.cors_origins));
    let routes = answering_all(api.merge(operating())).layer(known_hosts);
    normalizing(wrap(routes, app))
}

/// The routes of the admin port.
pub(crate) fn admin(app: Arc<App>) -> axum::Router {
    normalizing(wrap(answering_all(operating()), app))
}

/// Around the whole router: a layer inside of it would come after the choice of the route.
fn normalizing(routes: axum::Router) -> axum::Router {
    axum::Router::new().fallback_service(MapRequest::new(routes, paths::normalized))
}

/// What needs a key, where there are keys.
fn api_routes() -> axum::Router<Arc<App>> {
    let mut routes = axum::Router::new();
    // SDKs are given a base URL with or without `/v1`.
    for prefix in ["", "/v1"] {
        for route in [CHAT, TEXT, QUEUE] {
            let handler = move |state, request| calls::call(state, request, route, None);
            routes = routes.route(&format!("{prefix}{}", route.name), post(handler));
        }
        routes = routes
            .route(&format!("{prefix}/models"), get(listing::models))
            .route(&format!("{prefix}/models/{{*id}}"), get(listing::model));
    }
    for prefix in ["/engines", "/openai/deployments"] {
        routes = routes.route(&format!("{prefix}/{{*rest}}"), post(model_in_path));
    }
    routes.route("/health", get(listing::health))
}

/// What says how the instance is; it answers whatever happens to calls.
fn operating() -> axum::Router<Arc<App>> {
    axum::Router::new()
        .route("/health/liveliness", get(alive))
        .route("/health/liveness", get(alive))
        .route("/health/readiness", get(readiness))
        .route("/metrics", get(scrape))
}

/// Paths and methods that nothing is served at are answered as well.
fn answering_all(routes: axum::Router<Arc<App>>) -> axum::Router<Arc<App>> {
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

/// What every answer has, whichever route it comes from: a documented shape, an id, a line in the log.
fn wrap(routes: axum::Router<Arc<App>>, app: Arc<App>) -> axum::Router {
    routes
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(unread::layer))
        .layer(middleware::from_fn_with_state(app.clone(), access::layer))
        .with_state(app)
}

async fn not_found(request: Request) -> Failure {
    Failure::not_found(request.uri().path())
}

async fn method_not_allowed(request: Request) -> Failure {
    Failure::method_not_allowed(request.method(), request.uri().path())
}

/// The panic itself is on stderr by now (the panic hook), it is none of the client's business.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Failure::internal().into_response()
}

/// `{model}/chat/completions` or `{model}/completions`. The rest of the path is taken as a whole: a model may have slashes in its name, encoded or not.
async fn model_in_path(
    State(app): State<Arc<App>>,
    mut request: Request,
) -> Result<Response, Failure> {
    let Ok(Path(rest)) = request.extract_parts::<Path<String>>().await else {
        return Err(Failure::invalid("The model in the path is not UTF-8"));
    };
    // The longer one first: it ends like the other.
    let called = [CHAT, TEXT]
        .into_iter()
        .find_map(|route| Some((route, rest.strip_suffix(route.name)?)));
    match called {
        Some((route, model)) if !model.is_empty() => {
            calls::call(State(app), request, route, Some(model.into())).await
        }
        _ => Err(Failure::not_found(request.uri().path())),
    }
}

async fn alive() -> Json<&'static str> {
    Json("I'm alive!")
}

/// 200 when every group has an open session and nothing there may be evicted, else 503 and why.
async fn readiness(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    match unready(&app).await {
        None => Json(json!({"status": "healthy"})).into_response(),
        Some(reason) => {
            let body = if app.shows_details(&headers) {
                json!({"status": "unhealthy", "reason": reason})
            } else {
                json!({"status": "unhealthy"})
            };
            let body = Json(body);
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

async fn unready(app: &App) -> Option<String> {
    if app.lifecycle.stopping.is_cancelled() {
        return Some("shutting down".into());
    }
    if app.router.ready() {
        return app.eviction.objection();
    }
    let groups = app.router.groups();
    if let Some(far) = groups.iter().find(|group| group.status.too_far) {
        let time = far.status.round_trip.unwrap_or_default().as_millis();
        return Some(format!(
            "Redis is too far away: a round trip takes {time} ms, more than a twelfth of lease_seconds"
        ));
    }
    let closed = || groups.iter().filter(|group| !group.status.ready);
    let names: Vec<_> = closed().map(|group| group.name.as_str()).collect();
    let failure = closed().find_map(|group| group.status.failure.clone());
    let cause = cause(app, failure).await;
    Some(format!(
        "no open session in group {}: {cause}",
        names.join(", ")
    ))
}

/// Why there is no session. Memory answers always: what can be missing is Redis.
async fn cause(app: &App, failure: Option<BackendError>) -> String {
    let told = |error: BackendError| format!("Redis: {} ({error})", error.cause());
    match failure {
        Some(error) if error.is_refusal() => told(error),
        failure => match (timeout(CHECK, app.backend.check()).await, failure) {
            (Ok(Err(error)), _) | (Ok(Ok(())), Some(error)) => told(error),
            (Ok(Ok(())), None) => "the backend answers: it should be there in a moment".into(),
            (Err(_), _) => "Redis does not answer".into(),
        },
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
    use axum::body::{Body, to_bytes};
    use serde_json::Value;
    use tower::ServiceExt as _;
    use vorrang_scheduler::backend::MemoryBackend;

    use super::*;

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

    async fn get(routes: axum::Router, path: &str) -> (StatusCode, Value) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let (head, body) = routes.oneshot(request).await.unwrap().into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (head.status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_panic_is_a_500_of_the_documented_shape() {
        async fn panicking() {
            panic!("secret");
        }
        let routes = axum::Router::new().route("/panic", axum::routing::get(panicking));
        let (status, body) = get(wrap(routes, app(Config::demo())), "/panic").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body["error"]["type"], "internal_server_error");
        assert_eq!(body["error"]["code"], "500");
        assert!(!body.to_string().contains("secret"), "{body}");
    }

    #[tokio::test]
    async fn an_answer_without_content_has_no_length() {
        async fn none() -> Response {
            let length = [(header::CONTENT_LENGTH, "5")];
            (StatusCode::NO_CONTENT, length, "hello").into_response()
        }
        let routes = axum::Router::new().route("/none", axum::routing::get(none));
        let request = Request::get("/none").body(Body::empty()).unwrap();
        let response = wrap(routes, app(Config::demo()))
            .oneshot(request)
            .await
            .unwrap();
        assert!(!response.headers().contains_key(header::CONTENT_LENGTH));
        // Otherwise hyper would set one in HTTP/2.
        assert!(http_body::Body::is_end_stream(response.body()));
    }

    #[tokio::test]
    async fn a_stopping_instance_is_not_ready_and_says_why() {
        let app = app(Config::demo());
        app.lifecycle.stopping.cancel();
        let (status, body) = get(service(app.clone()), "/health/readiness").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["reason"], "shutting down");
        let (status, _) = get(service(app), "/health/liveliness").await;
        assert_eq!(status, StatusCode::OK, "it still lives");
    }

    #[tokio::test]
    async fn reasons_that_are_not_public_are_told_to_the_master_key_only() {
        let mut config = Config::demo();
        config.master_key = Some("sk-master".into());
        config.exposure.public_metrics = false;
        let app = app(config);
        app.lifecycle.stopping.cancel();
        let (status, body) = get(service(app.clone()), "/health/readiness").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, json!({"status": "unhealthy"}));
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", http::HeaderValue::from_static("sk-master"));
        let response = readiness(State(app), headers).await;
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["reason"], "shutting down");
    }
}
