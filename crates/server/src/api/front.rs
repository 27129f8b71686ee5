//! All that is served, and what is around each request: its path as it is meant, its line in the log, the rest of its body.
//!
//! Most requests call a model by a plain path. They need nothing of the routes and of the layers around them, which cost as much as a whole
//! request otherwise, and are answered without them.

use std::{
    collections::HashMap, convert::Infallible, future::ready, panic::AssertUnwindSafe, sync::Arc,
};

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, Method, Request, header};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::{
    access::{self, LoggedBody},
    calls::{self, Route},
    cors, hosts, paths,
    served::{What, served},
};
use crate::{
    app::App,
    connection::{
        Link,
        unread::{self, Tracked},
    },
    failure::Failure,
    stream::answer::AnswerBody,
};

/// Answers every request. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Front(Arc<Inner>);

struct Inner {
    app: Arc<App>,
    routes: axum::Router,
    /// `None`: all requests go by the routes.
    calls: Option<Calls>,
}

/// Calls of models by their paths.
struct Calls {
    by_path: HashMap<String, Route>,
    /// What [`cors::layer`] adds to an answer whose request names no origin.
    cors: HeaderMap,
}

// === impl Calls ===

impl Calls {
    fn new(app: &App) -> Self {
        let call = |what| match what {
            What::Call(route) => Some(route),
            _ => None,
        };
        let calls = served().into_iter();
        Self {
            by_path: calls
                .filter_map(|one| Some((one.path, call(one.what)?)))
                .collect(),
            cors: cors_headers(app),
        }
    }

    /// The call that a request makes, unless a web page may have sent it.
    fn find<B>(&self, request: &Request<B>) -> Option<Route> {
        let plain =
            *request.method() == Method::POST && !request.headers().contains_key(header::ORIGIN);
        let route = plain.then(|| self.by_path.get(request.uri().path()))?;
        route.copied()
    }

    fn add_cors<B>(&self, response: &mut http::Response<B>) {
        let headers = response.headers_mut();
        for (name, value) in &self.cors {
            // As the layer does it.
            if *name == header::VARY {
                headers.append(name, value.clone());
            } else {
                headers.insert(name, value.clone());
            }
        }
    }
}

fn cors_headers(app: &App) -> HeaderMap {
    let empty = |_: Request<Body>| ready(Ok::<_, Infallible>(Response::new(Body::empty())));
    let empty = service_fn(empty);
    let layered = cors::layer(&app.cors_origins).layer(empty);
    let answer = layered.oneshot(Request::new(Body::empty()));
    // Without an origin there is nothing to wait for.
    let answer = answer.now_or_never().and_then(Result::ok);
    answer
        .map(|answer| answer.into_parts().0.headers)
        .unwrap_or_default()
}

// === impl Front ===

impl Front {
    /// `routes`: what is served, without what this adds.
    pub(super) fn new(routes: axum::Router<Arc<App>>, app: Arc<App>) -> Self {
        Self(Arc::new(Inner {
            routes: routes.with_state(app.clone()),
            app,
            calls: None,
        }))
    }

    /// The same, and calls of models without the routes.
    pub(super) fn with_calls(routes: axum::Router<Arc<App>>, app: Arc<App>) -> Self {
        Self(Arc::new(Inner {
            routes: routes.with_state(app.clone()),
            calls: Some(Calls::new(&app)),
            app,
        }))
    }

    /// Answers a request. Dropping the future leaves the queue and cancels the upstream call (A7).
    pub(crate) async fn answer<B>(
        self,
        request: Request<B>,
        link: Link,
    ) -> http::Response<LoggedBody>
    where
        B: http_body::Body<Data = Bytes, Error: Into<axum::BoxError>> + Send + Unpin + 'static,
    {
        let Inner { app, routes, calls } = &*self.0;
        let request = paths::normalized(request);
        let (record, line) = access::begin(app, &request, link.peer);
        let matters = unread::matters(&request);
        let awaits_100 = request.headers().contains_key(header::EXPECT);
        let call = calls
            .as_ref()
            .and_then(|calls| Some((calls, calls.find(&request)?)));
        let response = match call {
            Some((calls, route)) => {
                let (head, body) = request.into_parts();
                let mut body = Tracked::new(body);
                let answered = async {
                    let head = Request::from_parts(head, ());
                    if hosts::is_refused(&app.live(), &head) {
                        return Failure::misdirected().into_response().map(Into::into);
                    }
                    let (head, ()) = head.into_parts();
                    let answer = calls::answer(app, &record, head, &mut body, route, None).await;
                    let mut response =
                        answer.unwrap_or_else(|failure| failure.into_response().map(Into::into));
                    calls.add_cors(&mut response);
                    response
                };
                let mut response = unless_it_panics(answered).await;
                if let Some(rest) = body.rest().filter(|_| matters) {
                    unread::settle(rest, awaits_100, &link.discard, &mut response).await;
                }
                response
            }
            None => {
                let (head, body) = request.into_parts();
                let (body, returned) = unread::lend(body);
                let mut request = Request::from_parts(head, Body::new(body));
                request.extensions_mut().insert(record);
                if let Some(peer) = link.peer {
                    request.extensions_mut().insert(peer);
                }
                let routed = routes.clone().oneshot(request);
                let answered = async {
                    let response: Result<Response, Infallible> = routed.await;
                    let Ok(response) = response;
                    response.map(AnswerBody::from)
                };
                let mut response = unless_it_panics(answered).await;
                if let Some(rest) = returned.rest().filter(|_| matters) {
                    unread::settle(rest, awaits_100, &link.discard, &mut response).await;
                }
                response
            }
        };
        access::end(app, line, response)
    }

    #[cfg(test)]
    pub(crate) async fn oneshot(self, request: Request<Body>) -> Result<Response, Infallible> {
        Ok(self.answer(request, Link::default()).await.map(Body::new))
    }
}

/// The panic itself is on stderr by now (the panic hook), it is none of the client's business.
async fn unless_it_panics(
    answered: impl Future<Output = http::Response<AnswerBody>>,
) -> http::Response<AnswerBody> {
    let answered = AssertUnwindSafe(answered).catch_unwind().await;
    answered.unwrap_or_else(|_| Failure::internal().into_response().map(Into::into))
}
