//! What any client may ask of its queue: where a request would be, and how its own is getting on.

use std::sync::Arc;

use axum::{
    Json,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use vorrang_gateway::PreviewOf;

use super::{Operation, body::Asked};
use crate::{app::App, failure::Failure, record::Record};

pub(super) async fn answer(
    operation: Operation,
    app: &Arc<App>,
    mut request: Request,
) -> Result<Response, Failure> {
    let Some(record) = request.extensions().get::<Record>().cloned() else {
        // The access layer is around every route.
        return Err(Failure::internal());
    };
    let key = app.authenticate(request.headers(), &record)?;
    let asked = Asked::of(&mut request).await?;
    asked.expects(operation.parameters())?;
    let fleet = app.router.fleet();
    if operation == Operation::OwnRequest {
        let key = key.map(|key| key.name);
        let life = fleet.own_request(asked.name("call_id"), key.as_deref());
        return Ok(Json(life.await?).into_response());
    }
    let model = asked.text("model");
    let of = PreviewOf {
        model: model
            .ok_or_else(|| Failure::invalid("Query parameter model is missing"))?
            .to_owned(),
        priority: asked.number("priority", "an integer of 32 bits")?,
        tokens: asked.number("tokens", "a whole number")?.unwrap_or(0),
        key,
    };
    Ok(Json(fleet.preview(of).await?).into_response())
}
