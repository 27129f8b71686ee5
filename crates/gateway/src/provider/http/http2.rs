//! HTTP/2 connections of hyper: each serves all requests to its server, and has a task of its own.

use http::{Request, Response, Version};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http2::{SendRequest, handshake},
    },
};
use hyper_util::rt::TokioExecutor;

use super::connect::Io;
use crate::request::payload::PayloadBody;

/// A handle of a connection. The connection ends with its last handle and its last answer.
#[derive(Clone)]
pub(super) struct Http2(SendRequest<PayloadBody>);

impl Http2 {
    pub(super) async fn new(io: Io) -> hyper::Result<Self> {
        let (sender, connection) = handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to an upstream has failed");
            }
        });
        Ok(Self(sender))
    }

    pub(super) fn is_open(&self) -> bool {
        !self.0.is_closed()
    }

    /// Sends a request, which has a whole address, and waits for the head of its answer.
    pub(super) async fn send(
        mut self,
        mut request: Request<PayloadBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<PayloadBody>>> {
        *request.version_mut() = Version::HTTP_2;
        self.0.try_send_request(request).await
    }
}
