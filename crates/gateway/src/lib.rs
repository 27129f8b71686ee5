//! The LLM side of Vorrang: LiteLLM's config, groups, upstream calls, retries, cooldown; [`Router`], the SDK.
//!
//! There is no server in here: `vorrang`, the binary, is one user of [`Router`] among others. A router takes LiteLLM's settings in code
//! or from a file, and OpenAI's requests as anything that serde serialises:
//!
//! ```
//! # use serde_json::{Value, json};
//! # use vorrang_gateway::Router;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let router = Router::builder()
//!     .model_list(&json!([
//!         {"model_name": "gpt", "litellm_params": {"model": "openai/gpt-4o", "mock_response": "Hello!", "rpm": 60}},
//!     ]))
//!     .build()?;
//! let request = json!({"model": "gpt", "messages": [{"role": "user", "content": "Hey!"}]});
//! // The lower, the sooner, in the whole fleet.
//! let response = router.chat_completion(&request).priority(0).send().await?;
//! assert_eq!(response.json::<Value>()?["choices"][0]["message"]["content"], "Hello!");
//! assert_eq!(response.info.attempts, 1);
//! # Ok(()) }
//! ```
//!
//! - [`Router::builder`] and [`Router::from_file`] open one; with a Redis its queue is that of the whole fleet.
//! - [`CallBuilder::send`] gives a [`Response`], [`CallBuilder::stream`] an [`EventStream`].
//! - An [`SdkError`] has the [`ErrorKind`] and the HTTP status that a client of the gateway would see.
//! - [`InProcess`] puts a function of yours in the place of an upstream.
//! - [`Router::permit`] gives a slot of a model's quota for a call that you make by yourself.
//! - [`Router::call`] is below all of these: the bytes of a request, and those of an answer.
//! - [`Router::reload`] puts other settings in force.

mod answer;
mod attempt;
mod call;
mod call_headers;
mod codec;
pub mod config;
mod endpoint;
mod error;
mod fallbacks;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
mod group;
mod journal;
#[cfg(test)]
#[path = "../../../fuzz/near.rs"]
mod near;
mod priority_class;
mod problem;
mod provider;
mod recorded;
mod request;
mod resource;
mod router;
mod schema;
mod sdk;
mod tokens;
mod translate;
mod upstream_call;
mod waiting;

pub use answer::{Answer, body::BoxError, buffered::BufferedBody};
pub use call::{
    Call, CallInfo, Events, FallbackReason, Joined, KeyPolicy, NoEvents, Setting, Stage,
    WaitOutcome,
};
pub use config::{
    Config, ConfigError, Env, GroupSettings, KeySettings, Loaded, ProcessEnv, RedisSettings,
    RedisTls,
};
pub use endpoint::Endpoint;
pub use error::CallError;
pub use fallbacks::{Fallback, FallbackLists, Fallbacks};
pub use priority_class::PriorityClass;
pub use problem::{ErrorKind, Problem};
pub use provider::{
    anthropic::error as anthropic_error,
    client::install_crypto,
    in_process::{InProcess, Upstreams},
};
pub use recorded::RecordedRequest;
pub use resource::{Resource, ResourceCall};
pub use router::{
    Bounds, Router,
    endpoints::EndpointView,
    fleet::{
        ChangedLimit, ClassOverview, DeploymentOverview, Fleet, FleetError, GroupOverview, History,
        InstanceOverview, LimitChange, LimitOverview, MovedTicket, Overview, Paused, Preview,
        PreviewOf, TicketPage, TicketQuery, TicketRow, WaitsOverview,
    },
    models::ModelView,
    permit::CallPermit,
    place::Place,
    views::{DeploymentLimits, GroupView},
};
pub use sdk::{
    BuildError, CallBuilder, EventStream, PermitBuilder, Response, RouterBuilder, SdkError,
};
pub use upstream_call::{UpstreamCall, UpstreamEnd, UpstreamEvents};
pub use waiting::room::{Room, Unbounded};
