//! Whether the instance lives, and whether it can serve.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use serde_json::json;
use tokio::time::timeout;
use vorrang_scheduler::backend::BackendError;

use crate::app::App;

/// A probe's own time-out is often 1 s: a short reason in time is better than a full one too late.
const CHECK: Duration = Duration::from_millis(500);

pub(super) async fn alive() -> Json<&'static str> {
    Json("I'm alive!")
}

/// 200 when groups have open sessions and nothing there may be evicted, else 503 and why. *Why not every group, once all have been open:* a part of a
/// Redis Cluster that is lost concerns its groups on all instances; a balancer that took all of them out would stop the other groups, too.
pub(super) async fn readiness(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
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
    if app.lifecycle.leaving.is_cancelled() {
        return Some("shutting down".into());
    }
    if app.router.draining() {
        return Some("draining".into());
    }
    if app.router.ready() {
        app.was_ready.store(true, Ordering::Relaxed);
        return app.eviction.objection();
    }
    let groups = app.router.groups();
    if let Some(far) = groups.iter().find(|group| group.status.too_far) {
        let time = far.status.round_trip.unwrap_or_default().as_millis();
        return Some(format!(
            "Redis is too far away: a round trip takes {time} ms, more than a twelfth of lease_seconds"
        ));
    }
    if app.was_ready.load(Ordering::Relaxed) && groups.iter().any(|group| group.status.ready) {
        return app.eviction.objection();
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

/// Why there is no session. The memory backend always answers: only Redis can be missing.
async fn cause(app: &App, failure: Option<BackendError>) -> String {
    let shown = |error: BackendError| format!("Redis: {} ({error})", error.cause());
    match failure {
        Some(error) if error.is_refusal() => shown(error),
        failure => match (timeout(CHECK, app.backend.check()).await, failure) {
            (Ok(Err(error)), _) | (Ok(Ok(())), Some(error)) => shown(error),
            (Ok(Ok(())), None) => "the backend answers: it should be there in a moment".into(),
            (Err(_), _) => "Redis does not answer".into(),
        },
    }
}
