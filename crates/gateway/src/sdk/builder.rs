//! Settings in code: the same as in a file, and read by the same rules.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::{Map, Value, json};
use vorrang_scheduler::{
    NoObserver, Scheduler,
    backend::{Backend, BackendError, MemoryBackend},
};

use crate::{
    Bounds, Config, ConfigError, Router,
    config::Env,
    provider::in_process::{InProcess, Upstreams},
};

/// Collects what a [`Router`] is to have. What is wrong is said by [`RouterBuilder::build`].
///
/// ```
/// # use std::time::Duration;
/// # use serde_json::json;
/// # use vorrang_gateway::Router;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let router = Router::builder()
///     .model_list(&json!([{
///         "model_name": "gpt-3.5-turbo",
///         "litellm_params": {"model": "gpt-3.5-turbo", "mock_response": "Hello world", "rpm": 1},
///     }]))
///     .timeout(Duration::from_secs(2))
///     .routing_strategy("usage-based-routing-v2")
///     .polling_interval(Duration::from_millis(30))
///     .build()?;
/// let request = json!({"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "Hey!"}]});
/// let response = router.chat_completion(&request).priority(0).send().await?;
/// assert_eq!(response.json::<serde_json::Value>()?["choices"][0]["message"]["content"], "Hello world");
/// # Ok(()) }
/// ```
#[derive(Debug, Default)]
#[must_use = "nothing is opened before `build`"]
pub struct RouterBuilder {
    document: Map<String, Value>,
    /// The first setting that cannot be put where it belongs.
    fault: Option<BuildError>,
    variables: Option<HashMap<String, String>>,
    upstreams: Vec<(String, InProcess)>,
}

/// Why there is no router.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A setting is wrong, or missing.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A setting does not serialise.
    #[error("a setting does not serialise to JSON: {0}")]
    Setting(serde_json::Error),
    /// A section is set as a whole, and one of its settings by name: one of them would be lost.
    #[error("{0} is set as a whole, and cannot have settings by name")]
    Section(String),
    /// The Redis that is named cannot be used: its URL or its certificates are wrong. One that does not answer is waited for.
    #[error("cannot use this Redis: {0}")]
    Redis(BackendError),
}

/// What the settings in code are called in messages: an error names a line of the settings as JSON.
const NAME: &str = "settings in code";

impl RouterBuilder {
    /// `model_list`, as in LiteLLM: a list of `{model_name, litellm_params, model_info}`.
    pub fn model_list(self, list: &impl Serialize) -> Self {
        self.put(None, "model_list", list)
    }

    /// The time of a request, in the queue and upstream, where it names none.
    pub fn timeout(self, time: Duration) -> Self {
        self.router_setting("timeout", &time.as_secs_f64())
    }

    /// How often a waiting instance asks whether it is its turn, where nothing tells it.
    pub fn polling_interval(self, time: Duration) -> Self {
        self.router_setting("polling_interval", &time.as_secs_f64())
    }

    /// How a deployment is chosen among those with room: `simple-shuffle`, `usage-based-routing-v2`, `least-busy`,
    /// `latency-based-routing`, `cost-based-routing`.
    pub fn routing_strategy(self, name: &str) -> Self {
        self.router_setting("routing_strategy", name)
    }

    /// Attempts after the first.
    pub fn num_retries(self, retries: u32) -> Self {
        self.router_setting("num_retries", &retries)
    }

    /// The priority of calls that name none.
    pub fn default_priority(self, priority: i32) -> Self {
        self.router_setting("default_priority", &priority)
    }

    /// The Redis that the fleet shares, as a URL: of one server, of sentinels (`redis+sentinel://`) or of a cluster
    /// (`redis+cluster://`).
    pub fn redis_url(self, url: &str) -> Self {
        self.router_setting("redis_url", url)
    }

    /// The Redis that the fleet shares.
    pub fn redis_host(self, host: &str) -> Self {
        self.router_setting("redis_host", host)
    }

    /// Its port.
    pub fn redis_port(self, port: u16) -> Self {
        self.router_setting("redis_port", &port)
    }

    /// Its password.
    pub fn redis_password(self, password: &str) -> Self {
        self.router_setting("redis_password", password)
    }

    /// Further arguments of its client, as in LiteLLM: `startup_nodes` of a cluster, `sentinel_nodes` with `service_name`, `ssl`.
    pub fn cache_kwargs(self, arguments: &impl Serialize) -> Self {
        self.router_setting("cache_kwargs", arguments)
    }

    /// Another of `router_settings`: any argument of LiteLLM's Router.
    pub fn router_setting(self, name: &str, value: &(impl Serialize + ?Sized)) -> Self {
        self.put(Some("router_settings"), name, value)
    }

    /// A setting of another section, such as `vorrang_settings` or `litellm_settings`.
    pub fn setting(self, section: &str, name: &str, value: &(impl Serialize + ?Sized)) -> Self {
        self.put(Some(section), name, value)
    }

    /// Where `os.environ/NAME` and the providers' keys are looked up, instead of the environment of this process.
    pub fn variables(mut self, variables: HashMap<String, String>) -> Self {
        self.variables = Some(variables);
        self
    }

    /// An upstream in this process: what would be sent to `api_base` is given to it.
    pub fn upstream(mut self, api_base: &str, upstream: InProcess) -> Self {
        let base = api_base.trim_end_matches('/').to_owned();
        self.upstreams.push((base, upstream));
        self
    }

    /// Opens the router. Needs a tokio runtime.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(self) -> Result<Router, BuildError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        // One setting a line, so that messages can name it.
        let text = format!("{:#}", json!(self.document));
        let env: &dyn Env = match &self.variables {
            Some(variables) => variables,
            None => &crate::ProcessEnv,
        };
        let loaded = Config::parse(&text, NAME, env)?;
        loaded.log();
        open(loaded.config, self.upstreams)
    }

    fn put(mut self, section: Option<&str>, name: &str, value: &(impl Serialize + ?Sized)) -> Self {
        let value = match serde_json::to_value(value) {
            Ok(value) => value,
            Err(error) => {
                self.fault.get_or_insert(BuildError::Setting(error));
                return self;
            }
        };
        let map = match section {
            None => {
                if self.document.get(name).is_some_and(Value::is_object) {
                    self.fault.get_or_insert(BuildError::Section(name.into()));
                }
                &mut self.document
            }
            Some(section) => {
                let entry = self.document.entry(section);
                let Value::Object(map) = entry.or_insert_with(|| json!({})) else {
                    let fault = BuildError::Section(section.into());
                    self.fault.get_or_insert(fault);
                    return self;
                };
                map
            }
        };
        map.insert(name.to_owned(), value);
        self
    }
}

/// Opens a configuration on the backend that it names.
pub(super) fn open(
    config: Config,
    upstreams: Vec<(String, InProcess)>,
) -> Result<Router, BuildError> {
    let backend: Arc<dyn Backend> = match &config.redis {
        Some(redis) => redis.connect().map_err(BuildError::Redis)?,
        None => Arc::new(MemoryBackend::new()),
    };
    let instance = uuid::Uuid::new_v4().to_string();
    let scheduler = Scheduler::new(backend, instance, Arc::new(NoObserver));
    let bounds = Bounds {
        upstreams: Upstreams::of(upstreams),
        ..Bounds::default()
    };
    Ok(Router::bounded(Arc::new(config), scheduler, bounds))
}
