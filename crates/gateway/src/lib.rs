//! The LLM side of Vorrang: LiteLLM's config, groups, upstream calls, retries, cooldown; [`Router`], the SDK.
//!
//! There is no server in here: a [`Router`] takes a [`Call`] and gives an [`Answer`] or a [`CallError`].
//!
//! ```
//! # use std::sync::Arc;
//! # use http_body_util::BodyExt;
//! # use vorrang_gateway::{Call, Config, Endpoint, Router};
//! # use vorrang_scheduler::{NoObserver, Scheduler, backend::MemoryBackend};
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let scheduler = Scheduler::new(Arc::new(MemoryBackend::new()), "instance-1", Arc::new(NoObserver));
//! let router = Router::new(Arc::new(Config::demo()), scheduler);
//!
//! let body = r#"{"model": "demo", "messages": [{"role": "user", "content": "Hey!"}], "priority": 0}"#;
//! let answer = router.call(Call::new(Endpoint::ChatCompletions, body)).await.unwrap();
//! assert_eq!(answer.headers["x-vorrang-priority"], "0");
//! let bytes = answer.body.collect().await.unwrap().to_bytes();
//! assert!(bytes.starts_with(b"{"));
//! # }
//! ```

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
#[cfg(test)]
#[path = "../../../fuzz/near.rs"]
mod near;
mod problem;
mod provider;
mod request;
mod router;
mod tokens;
mod translate;
mod waiting;

pub use answer::{Answer, body::BoxError, buffered::BufferedBody};
pub use call::{
    Call, CallInfo, Events, FallbackReason, KeyPolicy, NoEvents, Setting, Stage, WaitOutcome,
};
pub use config::{
    Config, ConfigError, Env, GroupSettings, KeySettings, Loaded, ProcessEnv, RedisSettings,
    RedisTls,
};
pub use endpoint::Endpoint;
pub use error::CallError;
pub use fallbacks::{Fallback, FallbackLists, Fallbacks};
pub use problem::{ErrorKind, Problem};
pub use provider::{anthropic::error as anthropic_error, client::install_crypto};
pub use router::{
    Bounds, Router,
    endpoints::EndpointView,
    views::{DeploymentLimits, GroupView},
};
pub use waiting::room::{Room, Unbounded};
