//! A slot of a model's quota, before it is waited for.

use std::{sync::Arc, time::Duration};

use vorrang_scheduler::Tokens;

use super::SdkError;
use crate::{Call, CallPermit, Endpoint, Events, KeyPolicy, Router, Setting};

/// A slot that is to be waited for with [`PermitBuilder::acquire`].
#[derive(Debug)]
#[must_use = "nothing is waited for before `acquire`"]
pub struct PermitBuilder<'a> {
    router: &'a Router,
    model: String,
    tokens: Tokens,
    call: Call,
}

impl<'a> PermitBuilder<'a> {
    pub(super) fn new(router: &'a Router, model: &str) -> Self {
        Self {
            router,
            model: model.to_owned(),
            tokens: Tokens::ZERO,
            call: Call {
                operation: "permit".to_owned(),
                ..Call::new(Endpoint::ChatCompletions, "")
            },
        }
    }

    /// Its place in the queue: the lower, the sooner.
    pub fn priority(mut self, priority: i32) -> Self {
        self.call.priority = Setting::Set(priority);
        self
    }

    /// Tokens that the call will use at most, by kind or as a total: they count against limits until [`CallPermit::used`] corrects them. 0
    /// where none are named.
    pub fn tokens(mut self, tokens: impl Into<Tokens>) -> Self {
        self.tokens = tokens.into();
        self
    }

    /// The longest wait.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.call.timeout = Setting::Set(time);
        self
    }

    /// For whom the call is made: priorities, models and shares of a key.
    pub fn key(mut self, key: KeyPolicy) -> Self {
        self.call.key = Some(key);
        self
    }

    /// Receives what happens while it waits.
    pub fn events(mut self, events: Arc<dyn Events>) -> Self {
        self.call.events = events;
        self
    }

    /// Waits for its turn. Dropping the future leaves the queue (A7).
    ///
    /// # Errors
    /// [`SdkError::Call`]: the model is unknown, the time is up, or the tokens are above every limit.
    pub async fn acquire(self) -> Result<CallPermit, SdkError> {
        let acquired = self.router.acquire(self.call, &self.model, self.tokens);
        let acquired = acquired.await;
        acquired.map_err(|error| SdkError::Call(Box::new(error)))
    }
}
