//! One call of the SDK, before it is made.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::{EventStream, Response, SdkError};
use crate::{Call, Endpoint, Events, KeyPolicy, Router, Setting};

/// A call that is to be made with [`CallBuilder::send`] or [`CallBuilder::stream`].
#[derive(Debug)]
#[must_use = "nothing is called before `send` or `stream`"]
pub struct CallBuilder<'a> {
    router: &'a Router,
    body: Body,
    call: Call,
}

#[derive(Debug)]
enum Body {
    Value(Result<Value, serde_json::Error>),
    /// JSON as it is sent.
    Bytes(Bytes),
}

impl<'a> CallBuilder<'a> {
    pub(super) fn new(router: &'a Router, endpoint: Endpoint, request: &impl Serialize) -> Self {
        Self {
            router,
            body: Body::Value(serde_json::to_value(request)),
            call: Call::new(endpoint, ""),
        }
    }

    pub(super) fn of_json(router: &'a Router, endpoint: Endpoint, json: Bytes) -> Self {
        Self {
            router,
            body: Body::Bytes(json),
            call: Call::new(endpoint, ""),
        }
    }

    /// Its place in the queue: the lower, the sooner. A `priority` in the request wins.
    pub fn priority(mut self, priority: i32) -> Self {
        self.call.priority = Setting::Set(priority);
        self
    }

    /// Its time, in the queue and upstream. A `timeout` in the request wins.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.call.timeout = Setting::Set(time);
        self
    }

    /// For whom it is made: priorities, models and shares of a key.
    pub fn key(mut self, key: KeyPolicy) -> Self {
        self.call.key = Some(key);
        self
    }

    /// Its id in answers and logs, instead of a random one.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.call.call_id = id.into();
        self
    }

    /// Receives what happens to it: among others [`Events::queued`], its position and its least wait.
    pub fn events(mut self, events: Arc<dyn Events>) -> Self {
        self.call.events = events;
        self
    }

    /// Waits for its turn, makes the call, and reads the whole answer. Dropping the future leaves the queue and cancels the call.
    ///
    /// # Errors
    /// See [`SdkError`].
    pub async fn send(self) -> Result<Response, SdkError> {
        Response::read(self.call(false).await?).await
    }

    /// The same for an event stream: with `stream: true`, whatever the request says.
    ///
    /// # Errors
    /// See [`SdkError`]. What goes wrong after the first event is an item of the stream.
    pub async fn stream(self) -> Result<EventStream, SdkError> {
        self.call(true).await.map(EventStream::new)
    }

    async fn call(self, stream: bool) -> Result<crate::Answer, SdkError> {
        let mut body = match self.body {
            Body::Bytes(json) if !stream => Body::Bytes(json),
            Body::Bytes(json) => Body::Value(serde_json::from_slice(&json)),
            value => value,
        };
        if let (Body::Value(Ok(Value::Object(fields))), true) = (&mut body, stream) {
            fields.insert("stream".to_owned(), Value::Bool(true));
        }
        let body = match body {
            Body::Bytes(json) => json,
            Body::Value(value) => value.map_err(SdkError::Request)?.to_string().into(),
        };
        let call = Call { body, ..self.call };
        let made = self.router.call(call).await;
        made.map_err(|error| SdkError::Call(Box::new(error)))
    }
}
