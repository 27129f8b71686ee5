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

pub(in crate::config) use self::address::shown;
pub use self::settings::{RedisSettings, RedisTls};
use self::{
    address::Topology,
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
    let cache = Cache::read(sections.litellm)?;
    let general = sections.general;
    let coordination = general.section_if_mapping("coordination_redis")?;
    let coordination = coordination.unwrap_or_else(|| general.empty("coordination_redis"));
    let wait_replicas = sections.ours.small("redis_wait_replicas", 0)?;
    for name in NAMES.iter().chain(MANNERS) {
        sections.kwargs.pass_over(name);
    }
    let all = sections.with(&sections.router());
    let Some((target, arguments, all)) =
        chosen(sections, command_line, &coordination, &cache, all)?
    else {
        if wait_replicas.is_some_and(|replicas| replicas > 0) {
            let text = "expected a Redis: state in memory has no replicas";
            return Err(sections.ours.error("redis_wait_replicas", text));
        }
        if sections.ours.name("redis_url")?.is_none() {
            refuse_shared(sections, &cache, limited)?;
        }
        return Ok(None);
    };
    let tls = tls(&all, Some(&target.url))?;
    let (sentinel_username, sentinel_password) = sentinel_credentials(&arguments, &target)?;
    Ok(Some(Reached {
        namespace: namespace(&arguments)?,
        url: SecretString::from(target.url),
        sentinel_username,
        sentinel_password,
        wait_replicas: wait_replicas.unwrap_or(0),
        tls,
    }))
}

type Chosen<'s, 'a> = (Target, Arguments<'s, 'a>, Arguments<'s, 'a>);

/// The first Redis that is named, the arguments of its client, and what may say something of TLS: `all`, and what else names it.
fn chosen<'s, 'a>(
    sections: &'s Sections<'s, 'a>,
    command_line: Option<&SecretString>,
    coordination: &'s Section<'a>,
    cache: &'s Cache<'a>,
    all: Arguments<'s, 'a>,
) -> Result<Option<Chosen<'s, 'a>>> {
    let ours = sections.ours();
    let client = |arguments| Client {
        arguments,
        all: &all,
        inferred: None,
    };
    if let Some(url) = command_line {
        let target = of_command_line(url)?;
        not_used(sections, "--redis-url");
        for name in ["username", "password", "db"] {
            if let Some(origin) = ours.named(name) {
                origin.unused(Kind::NO_EFFECT, "is not used; --redis-url is");
            }
        }
        return Ok(Some((target, ours, all)));
    }
    if sections.ours.name("redis_url")?.as_deref() == Some(MEMORY) {
        not_used(sections, "vorrang_settings.redis_url");
        return Ok(None);
    }
    if names(&ours)
        && let Some(target) = client(&ours).target()?
    {
        not_used(sections, &target.name);
        return Ok(Some((target, ours, all)));
    }
    let router = sections.with(&sections.router());
    // The environment has a variable of this name.
    if let Some(origin) = router.named("cluster_nodes") {
        return Err(origin.error("is no setting of LiteLLM's: expected redis_startup_nodes"));
    }
    if names(&router) {
        refuse_credentials(&router)?;
        if let Some(target) = client(&router).target()? {
            return Ok(Some((target, router, all)));
        }
    }
    let others = [
        (coordination, coordination.keys().next().is_some(), None),
        (
            &cache.params,
            cache.is_on && cache.is_redis,
            // Without any parameter LiteLLM takes host and port from the environment before it looks for a URL there.
            Some(if cache.has_params() {
                First::Url
            } else {
                First::Host
            }),
        ),
    ];
    for (section, counts, inferred) in others {
        if !counts {
            continue;
        }
        let places = [(section, ""), (section, "redis_")];
        let arguments = sections.with(&places);
        refuse_credentials(&arguments)?;
        let all = sections.with(&[&places[..], &sections.router()].concat());
        let client = Client {
            arguments: &arguments,
            all: &all,
            inferred,
        };
        if let Some(target) = client.target()? {
            return Ok(Some((target, arguments, all)));
        }
        if std::ptr::eq(section, coordination) {
            let text = "expected one of host, url, startup_nodes and sentinel_nodes";
            return Err(sections.general.error("coordination_redis", text));
        }
    }
    refuse_credentials(&router)?;
    for name in MANNERS {
        for (section, key) in router.in_file(name) {
            // The namespace is that of the state in memory, too.
            if *name == "namespace" {
                continue;
            }
            let kind = if std::ptr::eq(section, sections.ours) {
                Kind::NO_EFFECT
            } else {
                Kind::UNUSED
            };
            Origin::File(section, key).unused(
                kind,
                "does nothing without a Redis: name one with redis_host or redis_url",
            );
        }
    }
    // Checked all the same: what it asks for must not be dropped.
    tls(&all, None)?;
    Ok(None)
}

/// Whether it names a Redis, or a part of one.
fn names(arguments: &Arguments<'_, '_>) -> bool {
    let mut names = NAMES.iter().chain(&["service_name"]);
    names.any(|name| arguments.named(name).is_some())
}

fn of_command_line(url: &SecretString) -> Result<Target> {
    let url = url.expose_secret();
    if Topology::of(url).is_none() {
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
    if Topology::of(&target.url) != Some(Topology::Sentinel) {
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
