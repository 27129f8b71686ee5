//! LiteLLM's `config.yaml` and our own section in it.
//!
//! Two stages: the raw tree (`read`, with lines) and the validated [`Config`] (`resolve`, `deployment`). A `Config` can always
//! run.

mod default_params;
mod demo;
mod deployment;
mod diagnostic;
mod fallbacks;
mod group;
mod litellm;
mod model_list;
mod names;
mod plan;
mod read;
mod redis;
mod resolve;
mod serve;
mod settings;
mod shadow;
mod traces;
mod upstream;
mod version;
mod wildcard;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use http::HeaderName;
use secrecy::SecretString;
use vorrang_scheduler::{GroupConfig, Strategy, Timing, WhenAway};

#[cfg(test)]
pub(crate) use self::deployment::limits::named;
use self::diagnostic::Kind;
pub(crate) use self::group::strategy::name as strategy_name;
use self::read::{include, syntax};
pub(crate) use self::settings::kept;
pub(crate) use self::wildcard::Pattern;
pub use self::{
    deployment::{account::Account, limits::NamedLimit},
    diagnostic::{ConfigError, Diagnostic, Grouped, Level},
    read::env::{Env, ProcessEnv},
    redis::{RedisSettings, RedisTls},
    serve::{
        addresses::{AddressSettings, ForwardedHeader},
        cors::CorsOrigins,
        exposure::{AllowedHost, Exposure},
        networks::Networks,
        tls::{ListenerTls, TlsContents, TlsDigest, TlsError, TlsFiles, TlsIdentity},
    },
    settings::{
        About, DeploymentSettings, FairBy, FairCost, FairShares, GroupSettings, Spill, Target,
    },
    shadow::Shadow,
    traces::{Sampling, TraceSettings},
    upstream::{AwsKeys, Dialect, KeyHeader, Serves, TokenSource, Upstream, Verify},
    wildcard::Wildcard,
};
use crate::{Endpoint, Fallbacks, KeyPolicy};

/// Well below the 60 s after which balancers close a silent connection.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// A validated configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Tells configurations from one another: of the text of the file and of those that it includes. Without the fleet's keys it cannot
    /// be found out from it what they hold.
    pub version: String,
    /// Every `model_name`, in order.
    pub groups: Vec<GroupSettings>,
    /// Accounts at providers, for files, batches and fine-tuning jobs.
    pub accounts: Vec<Account>,
    /// Models whose every deployment was left out.
    pub left_out: Vec<LeftOut>,
    /// `router_settings.model_group_alias`: other names of groups.
    pub aliases: Vec<Alias>,
    /// `general_settings.master_key`, else the environment's `LITELLM_MASTER_KEY`.
    pub master_key: Option<SecretString>,
    /// `general_settings.litellm_key_header_name`: a header whose key comes before that of all others.
    pub key_header: Option<HeaderName>,
    /// `vorrang_settings.keys`.
    pub keys: Vec<KeySettings>,
    /// Where a fleet's state lives; `None`: in memory, one instance.
    pub redis: Option<RedisSettings>,
    /// Prefix of the state in Redis (`vorrang_settings.redis_namespace`).
    pub namespace: String,
    /// How often a comment is written into an event stream that is silent; zero: never.
    pub keepalive: Duration,
    /// Whose web pages may call it from a browser.
    pub cors_origins: CorsOrigins,
    /// Largest request body, bytes.
    pub max_body_bytes: usize,
    /// Another configuration, whose decisions are made beside the real ones (`vorrang_settings.shadow`).
    pub shadow: Option<Shadow>,
    /// A port of its own for health and metrics (`vorrang_settings.admin_port`); 0: a free one.
    pub admin_port: Option<u16>,
    /// TLS at the listeners (`vorrang_settings.tls`); `None`: they speak plain HTTP.
    pub tls: Option<ListenerTls>,
    /// Where connections and requests come from, and how many connections one address may have.
    pub addresses: AddressSettings,
    /// What callers may reach without a key, and from where.
    pub exposure: Exposure,
    /// What all bodies of waiting requests may take together, bytes.
    pub max_waiting_body_bytes: usize,
    /// A client that takes nothing of its answer for this long is cut off.
    pub client_write_timeout: Duration,
    /// How long waiting calls are served after a SIGTERM.
    pub grace: Duration,
    /// How long after a SIGTERM the listener stays open, so that balancers learn from readiness that the instance ends.
    pub shutdown_delay: Duration,
    /// How a deployment is chosen among those with room.
    pub strategy: Strategy,
    /// Length of the windows that `rpm`, `tpm`, `itpm` and `otpm` count in: 60 s but in tests.
    pub window: Duration,
    /// Lease, guard, polling.
    pub timing: Timing,
    /// Wait and attempts up to the answer's first event, where the request names no time.
    pub timeout: Duration,
    /// `router_settings.stream_timeout`: one attempt of a streamed call.
    pub stream_timeout: Option<Duration>,
    /// `general_settings.completion_model` and the like: the model of calls of an endpoint, whatever they name.
    pub models: Vec<(Endpoint, String)>,
    /// Fields that every request has to have, `a` or `a.b`: `general_settings.enforce_user_param` and `enforced_params`.
    pub required_fields: Vec<String>,
    /// `router_settings.default_priority`.
    pub default_priority: Option<i32>,
    /// Attempts after the first.
    pub num_retries: u32,
    /// Which groups take over from which.
    pub fallbacks: Fallbacks,
    /// `router_settings.retry_after`: the least pause before another attempt on the same deployments.
    pub retry_after: Duration,
    /// A deployment cools when it fails more often than this within 60 s; for upstream errors only if they are at least half of the calls.
    pub allowed_fails: u32,
    /// How long it then cools, and after a 401, 404, 408, or a 429 that does not say.
    pub cooldown_time: Duration,
    /// No deployment ever cools.
    pub disable_cooldowns: bool,
    /// A request whose wait is surely longer than its time is refused at once instead of at its time.
    pub refuse_late: bool,
    /// Whether limited groups go on while Redis is away, each instance with its part of the limits.
    pub when_redis_is_away: WhenAway,
    /// Where traces are sent; `None`: nothing is traced. It comes from the environment.
    pub traces: Option<TraceSettings>,
}

/// A `model_name` whose every deployment was left out, as none of them can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The `model_name`.
    pub model: String,
    /// Why: calls to it are refused with these words.
    pub reason: String,
}

/// Another name of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// What clients may call it.
    pub name: String,
    /// The group's `model_name`.
    pub group: String,
    /// Not listed under `/v1/models`.
    pub hidden: bool,
}

/// One of `vorrang_settings.keys`.
#[derive(Debug, Clone)]
pub struct KeySettings {
    /// What the client sends; never printed.
    pub key: SecretString,
    /// What it says about its calls.
    pub policy: KeyPolicy,
}

/// A configuration, and what its author should know.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What differs from LiteLLM, and what does nothing here, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// The file, and those that it includes.
    pub files: Vec<PathBuf>,
}

impl Loaded {
    /// With nothing to say about it.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            diagnostics: Vec::new(),
            files: Vec::new(),
        }
    }

    /// What `vorrang check --json` prints, of a file with errors, too. Never a secret.
    pub fn report(loaded: &Result<Self, ConfigError>) -> String {
        diagnostic::shown::escaped(&format!("{:#}", plan::json::report(loaded)))
    }

    /// Writes the diagnostics to the log, one line for each kind.
    pub fn log(&self) {
        for group in Grouped::of(&self.diagnostics) {
            match group.level {
                Level::Note => tracing::info!("{group}"),
                _ => tracing::warn!("{group}"),
            }
        }
    }

    /// The diagnostics as texts, one line each.
    pub fn warnings(&self) -> Vec<String> {
        self.diagnostics.iter().map(Diagnostic::to_string).collect()
    }
}

impl Config {
    /// Reads a file.
    pub fn load(path: &Path, env: &dyn Env) -> Result<Loaded, ConfigError> {
        Self::load_with_redis(path, env, None)
    }

    /// Reads a file. `redis_url` comes before every Redis that the file names.
    pub fn load_with_redis(
        path: &Path,
        env: &dyn Env,
        redis_url: Option<&SecretString>,
    ) -> Result<Loaded, ConfigError> {
        let mut loaded = Self::load_alone(path, env, redis_url)?;
        if let Some(shadow) = &mut loaded.config.shadow {
            loaded.files.extend(shadow.load(path, env)?);
        }
        Ok(loaded)
    }

    /// Reads a file without that of its shadow.
    fn load_alone(
        path: &Path,
        env: &dyn Env,
        redis_url: Option<&SecretString>,
    ) -> Result<Loaded, ConfigError> {
        let files = include::read(path, env)?;
        let mut loaded = resolve::resolve(&files.root, &files.names, env, redis_url)?;
        loaded.config.version = version::of(&loaded.config, &files.texts);
        loaded.files = files.names.iter().map(PathBuf::from).collect();
        Ok(loaded)
    }

    /// Reads a text; `file` names it in messages.
    pub fn parse(text: &str, file: &str, env: &dyn Env) -> Result<Loaded, ConfigError> {
        let names = [file.to_owned()];
        let mut loaded = resolve::resolve(&syntax::parse(text, file, env)?, &names, env, None)?;
        loaded.config.version = version::of(&loaded.config, &[text.to_owned()]);
        Ok(loaded)
    }

    /// The model of all calls of this endpoint, where the file names one.
    pub(crate) fn model_of(&self, endpoint: Endpoint) -> Option<&str> {
        let mut models = self.models.iter();
        let found = models.find(|(of, _)| *of == endpoint);
        found.map(|(_, model)| model.as_str())
    }

    /// What runs without a configuration: a mock group `demo` without limits, and `demo-limited` with 6 requests a minute.
    pub fn demo() -> Self {
        demo::demo()
    }

    /// What `vorrang check` prints: groups, deployments, limits, Redis, times. Never a secret.
    pub fn plan(&self) -> String {
        plan::plan(self)
    }

    /// A group as the scheduler knows it.
    pub fn group_config(&self, group: &GroupSettings) -> GroupConfig {
        GroupConfig {
            deployments: settings::scheduled(&group.deployments),
            strategy: self.strategy,
            max_queue_depth: group.max_queue_depth,
            allowed_fails: if self.disable_cooldowns {
                u32::MAX
            } else {
                self.allowed_fails
            },
            cooldown: self.cooldown_time,
            timing: self.timing,
            pace_worse_than: group.pace_worse_than,
            reserve: group.reserve,
            aging: group.aging,
            fair: group.fair.is_some(),
            when_away: self.when_redis_is_away,
        }
    }

    /// The group of this name or alias.
    pub fn group_called(&self, name: &str) -> Option<&GroupSettings> {
        let exact = |name: &str| self.groups.iter().find(|group| group.name == name);
        exact(name).or_else(|| {
            let mut aliases = self.aliases.iter();
            let alias = aliases.find(|alias| alias.name == name);
            let name = alias.map_or(name, |alias| &alias.group);
            exact(name).or_else(|| self.groups.iter().find(|group| group.fits(name)))
        })
    }

    /// Whether no key is configured, so that every caller is served.
    pub fn is_open(&self) -> bool {
        self.master_key.is_none() && self.keys.is_empty()
    }

    /// Whether any deployment or account has a key of its own, which every caller spends.
    pub fn spends_keys(&self) -> bool {
        let mut deployments = self.groups.iter().flat_map(|group| &group.deployments);
        deployments.any(|deployment| deployment.target.has_key())
            || self.accounts.iter().any(|one| one.upstream.has_key())
    }

    /// The upstreams' hosts, each once, with their ports.
    pub fn hosts(&self) -> HashSet<String> {
        let deployments = self.groups.iter().flat_map(|group| &group.deployments);
        let accounts = self.accounts.iter();
        deployments
            .filter_map(|deployment| deployment.target.host())
            .chain(accounts.filter_map(|account| account.upstream.host()))
            .collect()
    }

    /// How upstreams' certificates are verified.
    pub(crate) fn verifies(&self) -> impl Iterator<Item = Verify> {
        let deployments = self.groups.iter().flat_map(|group| &group.deployments);
        let accounts = self.accounts.iter();
        let upstreams = deployments.filter_map(|deployment| match &deployment.target {
            Target::Upstream(upstream) => Some(upstream),
            Target::Mock { .. } => None,
        });
        upstreams
            .chain(accounts.map(|account| &account.upstream))
            .map(|upstream| upstream.verify.clone())
    }

    /// Whether any group passes headers of clients on.
    pub fn passes_headers(&self) -> bool {
        self.groups.iter().any(|group| group.passes_headers)
    }

    /// Headers that name a tenant in any group.
    pub fn fair_headers(&self) -> HashSet<HeaderName> {
        let shares = self.groups.iter().filter_map(|group| group.fair.as_ref());
        let header = |shares: &FairShares| match &shares.by {
            FairBy::Header(name) => Some(name.clone()),
            FairBy::Key | FairBy::User => None,
        };
        shares.filter_map(header).collect()
    }

    /// Keys that may call a group by any of its names, each with its index in the file.
    fn callers<'a>(
        &'a self,
        group: &'a GroupSettings,
    ) -> impl Iterator<Item = (usize, &'a KeyPolicy)> {
        let may_call = |key: &KeyPolicy| {
            let mut aliases = self
                .aliases
                .iter()
                .filter(|alias| alias.group == group.name);
            let mut models = key.models.iter().flatten();
            key.allows(&group.name, &group.name)
                || aliases.any(|alias| key.allows(&alias.name, &group.name))
                || models.any(|model| group.fits(model))
        };
        let keys = self.keys.iter().map(|key| &key.policy).enumerate();
        keys.filter(move |(_, key)| may_call(key))
    }
}
