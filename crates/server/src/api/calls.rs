//! The paths that call a model.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{
    Extension, RequestExt as _,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::future::{self, Either};
use http::{HeaderMap, HeaderName, HeaderValue, Version, header, request::Parts};
use tokio::time::sleep;
use vorrang_gateway::{Answer, Call, CallError, Endpoint, Problem, Setting};

use crate::{
    api::{access::CutAfter, hosts},
    app::App,
    connection::slots::CallSlot,
    failure::Failure,
    record::Record,
    request_body,
    stream::{
        answer::AnswerBody,
        early::{First, PendingCall},
        held::BodyWith,
        keepalive,
    },
};

const PRIORITY: HeaderName = HeaderName::from_static("x-vorrang-priority");
const KEEPALIVE: HeaderName = HeaderName::from_static("x-vorrang-keepalive");
pub(super) const TIMEOUT: HeaderName = HeaderName::from_static("x-litellm-timeout");
const NUM_RETRIES: HeaderName = HeaderName::from_static("x-litellm-num-retries");
const STREAM_TIMEOUT: HeaderName = HeaderName::from_static("x-litellm-stream-timeout");

/// `retry-after` of an instance that shuts down: by then another instance has taken over.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// For calls that are with an upstream when the grace time is over. What waits in the queue needs none of it: the scheduler refuses it.
pub(super) const LAST_MOMENT: Duration = Duration::from_millis(500);

/// One way to call a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) endpoint: Endpoint,
    /// As messages name it, without `/v1`.
    pub(crate) name: &'static str,
    pub(crate) priority_required: bool,
}

impl Route {
    /// The usual way.
    pub(crate) fn of(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            name: endpoint.path(),
            priority_required: false,
        }
    }
}

/// [`answer`] for routes. `path_model` is the model, where the path names it.
pub(crate) async fn call(
    State(app): State<Arc<App>>,
    mut request: Request,
    route: Route,
    path_model: Option<String>,
) -> Result<Response, Failure> {
    let Ok(Extension(record)) = request.extract_parts::<Extension<Record>>().await else {
        // Every request has one.
        return Err(Failure::internal());
    };
    let (head, mut body) = request.into_parts();
    let answer = answer(&app, &record, head, &mut body, route, path_model).await?;
    Ok(answer.map(Body::new))
}

/// Queues the request and answers it. Dropping this future, as hyper does when the client leaves, removes its queue entry (A7).
pub(super) async fn answer<B>(
    app: &Arc<App>,
    record: &Record,
    head: Parts,
    body: &mut B,
    route: Route,
    path_model: Option<String>,
) -> Result<http::Response<AnswerBody>, Failure>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    record.endpoint(route.endpoint);
    app.trace(record, &head, route.name, Some(route.endpoint));
    let live = app.live();
    let key = live.authenticate(&head.headers, record)?;
    if live.open {
        hosts::content_type(&head.headers, route.endpoint.is_form())?;
    }
    uncoded(&head.headers)?;
    let mut held = live
        .body_budget
        .hold(key.as_ref().map(|key| key.name.as_str()));
    let body = request_body::read(body, live.body_limits, &mut held).await?;
    let version = head.version;
    let Some(slot) = app.slots.call().await else {
        let refused = Failure::no_room().into_response();
        return Ok(closing(version, refused).map(Into::into));
    };
    record.slot(&slot);
    let mut call = Call {
        model: path_model,
        priority: text(&head.headers, &PRIORITY)?
            .map_or(Setting::Unset, |text| Setting::priority(&text)),
        timeout: text(&head.headers, &TIMEOUT)?
            .map_or(Setting::Unset, |text| Setting::seconds(&text)),
        num_retries: text(&head.headers, &NUM_RETRIES)?
            .map_or(Setting::Unset, |text| Setting::count(&text)),
        stream_timeout: text(&head.headers, &STREAM_TIMEOUT)?
            .map_or(Setting::Unset, |text| Setting::seconds(&text)),
        content_type: head.headers.get(header::CONTENT_TYPE).cloned(),
        codings: accept_encoding(&head.headers),
        labels: live.labels(&head.headers),
        priority_required: route.priority_required,
        key,
        operation: route.name.into(),
        events: Arc::new(record.clone()),
        ..Call::named(&*record.call_id, route.endpoint, body)
    };
    call.take_headers(&head.headers);
    if live.passes_headers {
        call.pass_headers(&head.headers);
        if let Some(key) = live.key_header() {
            call.passed_headers.remove(key);
        }
    }
    let asked = keepalive_asked(&head.headers)?.then_some(live.keepalive);
    let app = app.clone();
    let outcome = async move {
        // Until the answer begins.
        let _held = held;
        let cut = pin!(async {
            app.lifecycle.cut.cancelled().await;
            sleep(LAST_MOMENT).await;
        });
        // Pinned where it is made: `select!` would move it twice, and it has 9 kB.
        let call = pin!(app.router.call(call));
        match future::select(call, cut).await {
            Either::Left((outcome, _)) => Ok(outcome),
            Either::Right(_) => Err(Failure::shutting_down(RETRY_AFTER)),
        }
    };
    let pending = PendingCall {
        outcome: Box::pin(outcome),
        record: record.clone(),
        endpoint: route.endpoint,
        asked: asked.filter(|every| !every.is_zero()),
    };
    let outcome = match pending.first().await {
        First::Outcome(outcome) => (*outcome)?,
        First::Comments(mut response) => {
            keepalive::unbuffered(response.headers_mut());
            // A call that the shutdown refuses says so in an event.
            response.extensions_mut().insert(CutAfter(2 * LAST_MOMENT));
            // A call that is turned away later has to give its connection up, too.
            let response = closing(version, response);
            return Ok(response.map(|body| Body::new(BodyWith::new(body, slot)).into()));
        }
    };
    Ok(match outcome {
        Ok(answer) => {
            record.call(&answer.info);
            answered(answer, slot)
        }
        Err(error) => {
            record.call(error.info());
            let response = failed(&error).map(Into::into);
            match error.problem {
                Problem::TurnedAway { .. } => closing(version, response),
                _ => response,
            }
        }
    })
}

/// An answer that ends its connection, so that another one can be accepted. Over HTTP/2 the connection belongs to other streams, too.
pub(super) fn closing<B>(version: Version, mut response: http::Response<B>) -> http::Response<B> {
    if version < Version::HTTP_2 {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// Refuses a body that has a content coding: it would have to be read.
pub(super) fn uncoded(headers: &HeaderMap) -> Result<(), Failure> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(coding) if coding != "identity" => Err(Failure::coded_body()),
        _ => Ok(()),
    }
}

/// Whether the client wants an event stream to begin while its call waits.
fn keepalive_asked(headers: &HeaderMap) -> Result<bool, Failure> {
    match text(headers, &KEEPALIVE)?.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Failure::invalid(format!(
            "Header {KEEPALIVE}: expected true or false"
        ))),
    }
}

/// A header that has to be text: leaving out one that cannot be read would ignore what its sender wants.
pub(super) fn text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Failure> {
    headers
        .get(name)
        .map(|value| {
            let text = value.to_str().map(str::to_owned);
            text.map_err(|_| Failure::invalid(format!("Header {name} is not ASCII text")))
        })
        .transpose()
}

/// Several headers are one list (RFC 9110, 5.3). What cannot be read names no coding.
pub(super) fn accept_encoding(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(header::ACCEPT_ENCODING).into_iter();
    let mut values = values.filter_map(|value| value.to_str().ok());
    let mut list = values.next()?.to_owned();
    for value in values {
        list.push_str(", ");
        list.push_str(value);
    }
    Some(list)
}

pub(super) fn answered(answer: Answer, slot: Arc<CallSlot>) -> http::Response<AnswerBody> {
    let mut headers = answer.headers;
    let mut body = AnswerBody::Call(BodyWith::new(answer.body, slot));
    if keepalive::is_event_stream(&headers) {
        keepalive::unbuffered(&mut headers);
        // No comment can be written into a coded stream.
        let every = answer.info.keepalive;
        if !headers.contains_key(header::CONTENT_ENCODING) && !every.is_zero() {
            body = keepalive::kept_alive(Body::new(body), every).into();
        }
    }
    let mut response = http::Response::new(body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = headers;
    response
}

pub(super) fn failed(error: &CallError) -> Response {
    (error.status(), error.headers(), error.body()).into_response()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn repeated_accept_encoding_headers_are_joined() {
        let mut headers = HeaderMap::new();
        assert_eq!(accept_encoding(&headers), None);
        for value in ["gzip", "br;q=0.5"] {
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
        }
        assert_eq!(accept_encoding(&headers).as_deref(), Some("gzip, br;q=0.5"));
    }
}
