//! From where operators' paths are reached: `vorrang_settings.metrics_allowed_from` and `admin_allowed_from`, beside the keys.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::{app::App, failure::Failure, record::Record};

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Metrics,
    Admin,
}

/// A middleware: a request from an address that is not in the list is a 403, whatever its key.
pub(super) async fn only(
    State((app, list)): State<(Arc<App>, List)>,
    request: Request,
    next: Next,
) -> Response {
    match refusal(&app, list, &request) {
        Some(failure) => failure.into_response(),
        None => next.run(request).await,
    }
}

fn refusal(app: &App, list: List, request: &Request) -> Option<Failure> {
    let live = app.live_now();
    let (setting, allowed) = match list {
        List::Metrics => ("metrics_allowed_from", &live.exposure.metrics_allowed_from),
        List::Admin => ("admin_allowed_from", &live.exposure.admin_allowed_from),
    };
    let allowed = allowed.as_ref()?;
    let record = request.extensions().get::<Record>();
    let client = record.and_then(|record| record.client);
    if client.is_some_and(|client| allowed.contains(client)) {
        return None;
    }
    let who = client.map_or_else(
        || "A request whose proxy names no address".to_owned(),
        |client| format!("The address {client}"),
    );
    Some(Failure::forbidden(format!(
        "{who} may not: it is not in vorrang_settings.{setting}."
    )))
}
