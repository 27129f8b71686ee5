//! Files, batches and fine-tuning jobs: calls of a provider's account, without a model and without the queue.

use std::sync::Arc;

use axum::{
    Extension, RequestExt as _,
    body::Body,
    extract::{RawPathParams, Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderName, Method, header};
use tokio::time::sleep;
use vorrang_gateway::{Resource, ResourceCall, Setting};

use super::calls::{
    LAST_MOMENT, RETRY_AFTER, TIMEOUT, accept_encoding, answered, closing, failed, text, uncoded,
};
use crate::{api::hosts, app::App, failure::Failure, record::Record, request_body};

/// LiteLLM's header, which names the provider.
const PROVIDER: HeaderName = HeaderName::from_static("custom-llm-provider");

/// What can be done at a path.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) resource: Resource,
    pub(super) method: Method,
    /// What follows the id; `None`: the path names none.
    pub(super) action: Option<&'static str>,
}

impl Operation {
    /// Whether it makes a new object.
    pub(super) fn is_new(&self) -> bool {
        self.method == Method::POST && self.action.is_none()
    }
}

/// The paths of a resource, as the router writes them, with what can be done at each.
pub(super) fn operations(resource: Resource) -> Vec<(String, Vec<Operation>)> {
    let operation = |method: Method, action| Operation {
        resource,
        method,
        action,
    };
    let all = vec![operation(Method::GET, None), operation(Method::POST, None)];
    let mut paths = vec![(resource.path().to_owned(), all)];
    for (method, action) in resource.actions() {
        let path = format!("{}/{{id}}{action}", resource.path());
        let one = operation(method.clone(), Some(*action));
        match paths.iter_mut().find(|(known, _)| *known == path) {
            Some((_, operations)) => operations.push(one),
            None => paths.push((path, vec![one])),
        }
    }
    paths
}

/// Makes the call and passes its answer. Dropping this future, as hyper does when the client leaves, cancels the
/// upstream call.
pub(super) async fn call(
    State(app): State<Arc<App>>,
    mut request: Request,
    operation: Operation,
) -> Result<Response, Failure> {
    let Ok(Extension(record)) = request.extract_parts::<Extension<Record>>().await else {
        // The access layer is around every route.
        return Err(Failure::internal());
    };
    let Ok(parameters) = request.extract_parts::<RawPathParams>().await else {
        return Err(Failure::invalid("The path is not UTF-8"));
    };
    let parameter = |wanted: &str| {
        let mut found = parameters.iter().filter(|(name, _)| *name == wanted);
        found.next().map(|(_, value)| value.to_owned())
    };
    let (of_path, id) = (parameter("provider"), parameter("id"));
    let (head, mut body) = request.into_parts();
    app.trace(&record, &head, operation.resource.path(), None);
    let live = app.live();
    let key = live.authenticate(&head.headers, &record)?;
    if live.open && operation.method == Method::POST {
        let form = operation.is_new() && operation.resource.is_form();
        hosts::content_type(&head.headers, form)?;
    }
    uncoded(&head.headers)?;
    let mut held = live
        .body_budget
        .hold(key.as_ref().map(|key| key.name.as_str()));
    let body = request_body::read(&mut body, live.body_limits, &mut held).await?;
    let Some(slot) = app.slots.call().await else {
        return Ok(closing(head.version, Failure::no_room().into_response()));
    };
    let mut call = ResourceCall::new(operation.resource, operation.method);
    call.id = id;
    call.action = operation.action.unwrap_or_default();
    call.provider = of_path.or(text(&head.headers, &PROVIDER)?);
    call.query = head.uri.query().map(str::to_owned);
    call.body = body;
    call.content_type = head.headers.get(header::CONTENT_TYPE).cloned();
    call.timeout =
        text(&head.headers, &TIMEOUT)?.map_or(Setting::Unset, |text| Setting::seconds(&text));
    call.codings = accept_encoding(&head.headers);
    call.key = key;
    call.call_id = record.call_id.to_string();
    call.events = Arc::new(record);
    let cut = async {
        app.lifecycle.cut.cancelled().await;
        sleep(LAST_MOMENT).await;
    };
    let outcome = tokio::select! {
        outcome = app.router.call_resource(call) => outcome,
        () = cut => return Err(Failure::shutting_down(RETRY_AFTER)),
    };
    // The answer has begun: the body counts no longer.
    drop(held);
    Ok(match outcome {
        Ok(answer) => answered(answer, slot).map(Body::new),
        Err(error) => failed(&error),
    })
}
