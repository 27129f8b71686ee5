//! Which Redis holds the state, and how it is reached. A file that asks for a shared or an encrypted Redis gets that or an error:
//! never state in memory, and never a password in the clear.
//!
//! The first of these that names a Redis counts, as in LiteLLM but for the first two:
//!
//! 1. `--redis-url`.
//! 2. `vorrang_settings`: `redis_url`, `redis_startup_nodes`, or `redis_sentinel_nodes` with `redis_service_name`. `redis_url: memory`
//!    ends the search.
//! 3. `router_settings`, where `cache_kwargs` comes before `redis_*`.
//! 4. `general_settings.coordination_redis`.
//! 5. `litellm_settings.cache_params` of a cache that is on and of the type `redis`; without a Redis in them the environment's.
//!
//! In 3 to 5 the environment's `REDIS_*` fill in what the file does not say, and a cluster comes before a URL, a URL before sentinels,
//! and these before a host. So `REDIS_CLUSTER_NODES` comes before a `redis_host`: it does in LiteLLM, too. The environment alone names
//! no Redis: it is an error if limits would have to be shared ([`cache`]).
//!
//! A `namespace` of 3 or 5 is the prefix of all that LiteLLM keeps in that Redis. It is the queue's as well, unless
//! `redis_namespace` says otherwise: what keeps two fleets in one Redis apart in LiteLLM does so here, and the rights of an ACL user
//! (`~NAMESPACE:*`) suffice.

mod address;
mod arguments;
mod cache;
mod nodes;
mod settings;
mod target;
mod tls;

use secrecy::{ExposeSecret, SecretString};
use vorrang_scheduler::backend::Topology;

pub(in crate::config) use self::address::shown;
pub use self::settings::{RedisSettings, RedisTls};
use self::{
    arguments::{Arguments, Origin},
    cache::{Cache, refuse_shared},
    target::{Client, First, NAMES, Target},
    tls::tls,
};
use crate::config::{ConfigError, Diagnostic, Env, Kind, read::Section};

type Result<T> = std::result::Result<T, ConfigError>;

/// Says that the state lives in this process, whatever Redis the rest of the file names.
const MEMORY: &str = "memory";

const USE_INSTEAD: &str = "name a Redis with vorrang_settings.redis_url (it must not evict), or say redis_url: memory for a single instance";

/// Credentials that are made anew for each connection.
const CREDENTIALS: &[&str] = &[
    "credential_provider",
    "gcp_service_account",
    "azure_redis_ad_token",
    "aws_iam_auth",
];

/// Arguments that name no Redis and say how one is reached.
const MANNERS: &[&str] = &[
    "port",
    "username",
    "password",
    "db",
    "service_name",
    "sentinel_username",
    "sentinel_password",
    "namespace",
];

/// The sections that may name a Redis.
pub(in crate::config) struct Sections<'s, 'a> {
    pub(in crate::config) ours: &'s Section<'a>,
    pub(in crate::config) router: &'s Section<'a>,
    pub(in crate::config) litellm: &'s Section<'a>,
    pub(in crate::config) general: &'s Section<'a>,
    /// `router_settings.cache_kwargs`: arguments of LiteLLM's Redis client.
    pub(in crate::config) kwargs: &'s Section<'a>,
}

/// A Redis and how to talk to it.
pub(in crate::config) struct Reached {
    pub(in crate::config) url: SecretString,
    /// What LiteLLM's keys begin with in it.
    pub(in crate::config) namespace: Option<String>,
    sentinel_username: Option<String>,
    sentinel_password: Option<SecretString>,
    wait_replicas: u32,
    tls: RedisTls,
}

impl<'s, 'a> Sections<'s, 'a> {
    fn env(&self) -> &'a dyn Env {
        self.ours.file.env
    }

    fn ours(&'s self) -> Arguments<'s, 'a> {
        Arguments {
            places: vec![(self.ours, "redis_")],
            environment: false,
            sections: self,
        }
    }

    /// Ours complete those of a section of LiteLLM's; the environment fills in what no section says.
    fn with(&'s self, places: &[(&'s Section<'a>, &'static str)]) -> Arguments<'s, 'a> {
        let mut arguments = self.ours();
        arguments.places.extend(places);
        arguments.environment = true;
        arguments
    }

    /// `ssl`, `startup_nodes` and the like also stand in `router_settings` without the prefix.
    fn router(&'s self) -> [(&'s Section<'a>, &'static str); 3] {
        [
            (self.kwargs, ""),
            (self.router, "redis_"),
            (self.router, ""),
        ]
    }
}

/// A variable that is set and not empty.
fn variable(env: &dyn Env, name: &str) -> Option<String> {
    env.get(name).filter(|value| !value.trim().is_empty())
}

/// The Redis of the queue. `None`: the state lives in memory.
/// `limited`: a deployment has a limit, which several instances would have to share.
pub(in crate::config) fn redis(
    sections: &Sections<'_, '_>,
    command_line: Option<&SecretString>,
    limited: bool,
) -> Result<Option<Reached>> {
    let replicas = sections.ours.small("redis_wait_replicas", 0)?.unwrap_or(0);
    for name in NAMES.iter().chain(MANNERS) {
        sections.kwargs.pass_over(name);
    }
    let mut found = found(sections, command_line, limited)?;
    match &mut found {
        Some(reached) => reached.wait_replicas = replicas,
        None if replicas > 0 => {
            let text = "expected a Redis: state in memory has no replicas";
            return Err(sections.ours.error("redis_wait_replicas", text));
        }
        None => {}
    }
    Ok(found)
}

/// The first Redis that is named.
fn found(
    sections: &Sections<'_, '_>,
    command_line: Option<&SecretString>,
    limited: bool,
) -> Result<Option<Reached>> {
    let all = sections.with(&sections.router());
    let ours = sections.ours();
    if let Some(url) = command_line {
        let target = of_command_line(url)?;
        not_used(sections, "--redis-url");
        for name in ["username", "password", "db"] {
            if let Some(origin) = ours.named(name) {
                origin.unused(Kind::NO_EFFECT, "is not used; --redis-url is");
            }
        }
        return Reached::by(target, &ours, &all).map(Some);
    }
    if sections.ours.name("redis_url")?.as_deref() == Some(MEMORY) {
        not_used(sections, "vorrang_settings.redis_url");
        return Ok(None);
    }
    if let Some(target) = target(&ours, &all, None)? {
        not_used(sections, &target.name);
        return Reached::by(target, &ours, &all).map(Some);
    }
    // The environment has a variable of this name.
    if let Some(origin) = all.named("cluster_nodes") {
        return Err(origin.error("is no setting of LiteLLM's: expected redis_startup_nodes"));
    }
    refuse_credentials(&all)?;
    if let Some(target) = target(&all, &all, None)? {
        return Reached::by(target, &all, &all).map(Some);
    }
    let coordination = sections.general.section("coordination_redis")?;
    if coordination.keys().next().is_some() {
        let found = of_section(sections, &coordination, None)?;
        let text = "expected one of host, url, startup_nodes and sentinel_nodes";
        let missing = || sections.general.error("coordination_redis", text);
        return found.ok_or_else(missing).map(Some);
    }
    let cache = Cache::read(sections.litellm)?;
    match cache.redis(sections) {
        Ok(None) => refuse_shared(sections, &cache, limited)?,
        Err(error) if !limited => cache.unusable(sections, &error),
        found => return found,
    }
    without(sections, &all)?;
    Ok(None)
}

/// The Redis that these arguments name.
fn target(
    arguments: &Arguments<'_, '_>,
    all: &Arguments<'_, '_>,
    inferred: Option<First>,
) -> Result<Option<Target>> {
    let mut names = NAMES.iter().chain(&["service_name"]);
    if inferred.is_none() && !names.any(|name| arguments.named(name).is_some()) {
        return Ok(None);
    }
    let client = Client {
        arguments,
        all,
        inferred,
    };
    client.target()
}

/// The Redis that a section of LiteLLM's names.
fn of_section(
    sections: &Sections<'_, '_>,
    section: &Section<'_>,
    inferred: Option<First>,
) -> Result<Option<Reached>> {
    let places = [(section, ""), (section, "redis_")];
    let arguments = sections.with(&places);
    let all = sections.with(&[&places[..], &sections.router()].concat());
    refuse_credentials(&arguments)?;
    let target = target(&arguments, &all, inferred)?;
    let reached = target.map(|target| Reached::by(target, &arguments, &all));
    reached.transpose()
}

/// Nothing names a Redis: says what does nothing without one.
fn without(sections: &Sections<'_, '_>, all: &Arguments<'_, '_>) -> Result<()> {
    // The namespace is that of the state in memory, too.
    for name in MANNERS.iter().filter(|name| **name != "namespace") {
        for (section, key) in all.in_file(name) {
            let origin = Origin::File(section, key);
            let kind = if origin.is_ours(sections) {
                Kind::NO_EFFECT
            } else {
                Kind::UNUSED
            };
            let text = "does nothing without a Redis: name one with redis_host or redis_url";
            origin.unused(kind, text);
        }
    }
    // Checked all the same: what it asks for must not be dropped.
    tls(all, None).map(|_| ())
}

impl Reached {
    fn by(target: Target, arguments: &Arguments<'_, '_>, all: &Arguments<'_, '_>) -> Result<Self> {
        let (sentinel_username, sentinel_password) = sentinel_credentials(arguments, &target)?;
        Ok(Self {
            tls: tls(all, Some(&target.url))?,
            namespace: namespace(arguments)?,
            url: SecretString::from(target.url),
            sentinel_username,
            sentinel_password,
            wait_replicas: 0,
        })
    }
}

fn of_command_line(url: &SecretString) -> Result<Target> {
    let url = url.expose_secret();
    if address::topology(url).is_none() {
        let text = format!("--redis-url (VORRANG_REDIS_URL): {}", address::EXPECTED);
        return Err(Diagnostic::new(Kind::INVALID, text).into());
    }
    Ok(Target {
        url: url.to_owned(),
        name: "--redis-url".into(),
        user: None,
    })
}

/// User and password of the sentinels. Those of the environment count for every URL, which has no place for them.
fn sentinel_credentials(
    arguments: &Arguments<'_, '_>,
    target: &Target,
) -> Result<(Option<String>, Option<SecretString>)> {
    let sections = arguments.sections;
    let names = ["sentinel_username", "sentinel_password"];
    if address::topology(&target.url) != Some(Topology::Sentinel) {
        for origin in names.into_iter().filter_map(|name| arguments.named(name)) {
            let kind = if origin.is_ours(sections) {
                Kind::NO_EFFECT
            } else {
                Kind::UNUSED
            };
            let text = format!("does nothing: {} names no sentinels", target.name);
            origin.unused(kind, &text);
        }
        return Ok((None, None));
    }
    let [user, password] =
        names.map(|name| arguments.named(name).or_else(|| arguments.variable(name)));
    let as_in_litellm = |password: &Origin<'_, '_>| !password.is_ours(sections);
    let with_servers_user = password.as_ref().is_some_and(as_in_litellm);
    let password = match password {
        Some(password) => password.secret()?,
        None => None,
    };
    let user = match user {
        Some(user) => Some(user.text()?),
        None => target
            .user
            .clone()
            .filter(|_| with_servers_user && password.is_some()),
    };
    Ok((user, password))
}

/// What LiteLLM's keys begin with.
fn namespace(arguments: &Arguments<'_, '_>) -> Result<Option<String>> {
    let Some(origin) = arguments.named("namespace") else {
        return Ok(None);
    };
    let namespace = origin.text()?;
    if namespace.contains(['{', '}']) {
        return Err(origin.error("expected a text without `{` and `}`: it is the queue's namespace, too, unless vorrang_settings.redis_namespace names another"));
    }
    Ok(Some(namespace))
}

/// The file names another Redis beside the one in use.
fn not_used(sections: &Sections<'_, '_>, chosen: &str) {
    let router = sections.with(&sections.router());
    let text = format!("is not used; {chosen} is");
    for name in NAMES {
        for (section, key) in router.in_file(name) {
            if !std::ptr::eq(section, sections.ours) {
                Origin::File(section, key).unused(Kind::UNUSED, &text);
            }
        }
    }
}

fn refuse_credentials(arguments: &Arguments<'_, '_>) -> Result<()> {
    for name in CREDENTIALS {
        for (section, key) in arguments.in_file(name) {
            if section.asks(&key)? {
                let text = "only redis_username and redis_password are sent to Redis: use these";
                return Err(section.error(&key, text));
            }
        }
    }
    Ok(())
}
