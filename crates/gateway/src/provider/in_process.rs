//! Upstreams in this process: a function in the place of a server.

use std::{collections::HashMap, fmt, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;

use crate::{BoxError, provider::http::Response};

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<reqwest::Body>, BoxError>> + Send>>;

/// An upstream in this process. It gets each request as a server would get it, and answers in the same way: with a status, headers, and a
/// body at once or piece by piece. An error is an upstream that cannot be reached.
#[derive(Clone)]
pub struct InProcess(Arc<dyn Fn(http::Request<Bytes>) -> Answer + Send + Sync>);

impl InProcess {
    /// A function. `B`: `String`, `Bytes`, `Vec<u8>`, or [`reqwest::Body`] for streams.
    pub fn new<F, A, B>(answer: F) -> Self
    where
        F: Fn(http::Request<Bytes>) -> A + Send + Sync + 'static,
        A: Future<Output = Result<http::Response<B>, BoxError>> + Send + 'static,
        B: Into<reqwest::Body>,
    {
        Self(Arc::new(move |request| {
            let answer = answer(request);
            Box::pin(async move { answer.await.map(|response| response.map(Into::into)) })
        }))
    }

    pub(crate) async fn answer(&self, request: http::Request<Bytes>) -> Result<Response, BoxError> {
        (self.0)(request).await.map(Response::from)
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}

/// Upstreams in this process by the base URL that they stand for.
#[derive(Debug, Clone, Default)]
pub struct Upstreams(Arc<HashMap<String, InProcess>>);

impl Upstreams {
    pub(crate) fn of(upstreams: Vec<(String, InProcess)>) -> Self {
        Self(Arc::new(upstreams.into_iter().collect()))
    }

    pub(crate) fn at(&self, api_base: &str) -> Option<&InProcess> {
        self.0.get(api_base)
    }
}
