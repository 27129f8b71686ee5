//! The SDK: a [`Router`] from code or a file, and calls that take and give any type that serde knows.

mod builder;
mod call;
mod permit;
mod response;

pub use self::{
    builder::{BuildError, RouterBuilder},
    call::CallBuilder,
    permit::PermitBuilder,
    response::{EventStream, Response, SdkError},
};

use std::{path::Path, time::Duration};

use bytes::Bytes;
use serde::Serialize;
use tokio::time::sleep;

use crate::{Endpoint, ProcessEnv, Router};

/// How often it is looked whether a router is ready.
const LOOK: Duration = Duration::from_millis(5);

/// For calls that are cut off to return their slots.
const LAST_MOMENT: Duration = Duration::from_secs(1);

impl Router {
    /// A router whose settings are given in code: what LiteLLM's `Router(...)` takes.
    pub fn builder() -> RouterBuilder {
        RouterBuilder::default()
    }

    /// A router of a `config.yaml`, on the Redis that it names, else in memory. `os.environ/NAME` is looked up in this process.
    ///
    /// # Errors
    /// The file is wrong ([`BuildError::Config`] has every error of it), or the Redis that it names cannot be used.
    pub async fn from_file(path: impl AsRef<Path>) -> Result<Self, BuildError> {
        let loaded = crate::Config::load(path.as_ref(), &ProcessEnv)?;
        loaded.log();
        builder::open(loaded.config, Vec::new())
    }

    /// `/v1/chat/completions`. `request`: anything that serialises to its body.
    pub fn chat_completion(&self, request: &impl Serialize) -> CallBuilder<'_> {
        self.request(Endpoint::ChatCompletions, request)
    }

    /// `/v1/completions`.
    pub fn text_completion(&self, request: &impl Serialize) -> CallBuilder<'_> {
        self.request(Endpoint::Completions, request)
    }

    /// `/v1/embeddings`.
    pub fn embedding(&self, request: &impl Serialize) -> CallBuilder<'_> {
        self.request(Endpoint::Embeddings, request)
    }

    /// A call of any endpoint with a JSON body. Forms go through [`Router::call`].
    pub fn request(&self, endpoint: Endpoint, request: &impl Serialize) -> CallBuilder<'_> {
        CallBuilder::new(self, endpoint, request)
    }

    /// The same with a body that is JSON already. What is not JSON is refused as a server would refuse it.
    pub fn request_json(&self, endpoint: Endpoint, json: impl Into<Bytes>) -> CallBuilder<'_> {
        CallBuilder::of_json(self, endpoint, json.into())
    }

    /// Done when calls of every group can be granted ([`Router::ready`]): the time of a call that is made now is not spent on opening
    /// its queue. In a Redis that does not know the group yet that takes a lease (3 s), in others milliseconds.
    pub async fn until_ready(&self) {
        while !self.ready() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A slot of a model's quota for a call that you make by yourself, with any client: its place in the fleet's queue is that of any other
    /// call.
    ///
    /// ```
    /// # use serde_json::json;
    /// # use vorrang_gateway::Router;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let router = Router::builder()
    /// #     .model_list(&json!([{"model_name": "gpt", "litellm_params": {
    /// #         "model": "openai/gpt-4o", "api_base": "http://127.0.0.1:9", "tpm": 10_000}}]))
    /// #     .build()?;
    /// let mut permit = router.permit("gpt").priority(5).tokens(800).acquire().await?;
    /// println!("calling {} at {:?}", permit.model, permit.api_base);
    /// // ... your call ...
    /// permit.succeeded();
    /// permit.used(650);
    /// # Ok(()) }
    /// ```
    pub fn permit(&self, model: &str) -> PermitBuilder<'_> {
        PermitBuilder::new(self, model)
    }

    /// Refuses calls that wait, lets the others end within `grace`, cuts off those that do not, and closes the sessions in the shared state.
    /// Without it they end with their lease. A [`CallPermit`](crate::CallPermit) that is held longer than a second after the grace counts
    /// no more.
    pub async fn close(&self, grace: Duration) {
        let scheduler = self.scheduler();
        let cut = async {
            sleep(grace).await;
            self.cut();
            std::future::pending().await
        };
        tokio::select! {
            // Their slots are not free before they have ended.
            () = scheduler.close(grace.saturating_add(LAST_MOMENT)) => {}
            () = cut => {}
        }
    }
}
