//! What operators see.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use http::{HeaderValue, header};
use tokio::time::{Instant, sleep_until};
use vorrang_gateway::TicketQuery;

use super::{Operation, body::Asked};
use crate::{app::App, failure::Failure, stream::keepalive};

/// How often an overview is sent.
const EVERY: Duration = Duration::from_secs(1);

/// So many requests are shown where the query does not say, and at most.
const REQUESTS: usize = 50;
const MOST_REQUESTS: usize = 500;

pub(super) async fn answer(
    operation: Operation,
    app: &Arc<App>,
    mut request: Request,
) -> Result<Response, Failure> {
    let asked = Asked::of(&mut request).await?;
    asked.expects(operation.parameters())?;
    let fleet = app.router.fleet();
    let group = asked.name("group");
    Ok(match operation {
        Operation::Overview => Json(&*fleet.overview().await).into_response(),
        Operation::Events => events(app.clone()),
        Operation::Group => Json(fleet.group(group).await?).into_response(),
        Operation::Tickets => {
            let query = TicketQuery {
                from: asked.number("from", "a rank, 0 or more")?.unwrap_or(0),
                limit: asked.number("limit", "a number from 1 to 100")?,
                priority: asked.number("priority", "an integer of 32 bits")?,
                key: asked.text("key").map(str::to_owned),
                tenant: asked.text("tenant").map(str::to_owned),
                instance: asked.text("instance").map(str::to_owned),
            };
            if query.limit.is_some_and(|limit| !(1..=100).contains(&limit)) {
                let text = "Query parameter limit: expected a number from 1 to 100";
                return Err(Failure::invalid(text));
            }
            Json(fleet.tickets(group, &query).await?).into_response()
        }
        Operation::Calls => Json(fleet.calls(group).await?).into_response(),
        Operation::Requests => {
            let expected = "a number from 1 to 500";
            let most = asked.number("limit", expected)?.unwrap_or(REQUESTS);
            if !(1..=MOST_REQUESTS).contains(&most) {
                let text = format!("Query parameter limit: expected {expected}");
                return Err(Failure::invalid(text));
            }
            Json(fleet.requests(asked.text("group"), most).await?).into_response()
        }
        Operation::RequestLife => Json(fleet.request(asked.name("call_id")).await?).into_response(),
        _ => return Err(Failure::internal()),
    })
}

/// An overview each second, until the client leaves or the instance stops.
fn events(app: Arc<App>) -> Response {
    let parts = stream::unfold((app, Instant::now()), |(app, due)| async move {
        tokio::select! {
            () = sleep_until(due) => {}
            () = app.lifecycle.stopping.cancelled() => return None,
        }
        let overview = app.router.fleet().overview().await;
        let json = serde_json::to_string(&*overview).ok()?;
        let event = format!("event: overview\ndata: {json}\n\n");
        // Late, it does not hurry.
        let next = (due + EVERY).max(Instant::now());
        Some((Ok::<_, std::convert::Infallible>(event), (app, next)))
    });
    let mut response = Response::new(Body::from_stream(parts));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    keepalive::unbuffered(headers);
    response
}
