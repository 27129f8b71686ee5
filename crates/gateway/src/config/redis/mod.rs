//! Which Redis holds the state, and how it is reached. A file that asks for a shared or an encrypted Redis gets that or an error:
//! never state in memory, and never a password in the clear.

mod tls;

use std::sync::Arc;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use vorrang_scheduler::backend::{
    BackendError, ClientCertificate, RedisBackend, RedisOptions, TlsOptions,
};

use self::tls::tls;
use crate::config::{ConfigError, Diagnostic, Env, Kind, RedisSettings, RedisTls, read::Section};

type Result<T> = std::result::Result<T, ConfigError>;

/// Says that the state lives in this process, whatever Redis the rest of the file names.
const MEMORY: &str = "memory";

const USE_INSTEAD: &str = "name one Redis server with vorrang_settings.redis_url (it must not evict), or say redis_url: memory for a single instance";

/// What LiteLLM passes on to its Redis client and what names another topology than one server.
const TOPOLOGY: &[&str] = &[
    "startup_nodes",
    "cluster_nodes",
    "sentinel_nodes",
    "sentinel_password",
    "service_name",
];

/// Credentials that are made anew for each connection.
const CREDENTIALS: &[&str] = &[
    "credential_provider",
    "gcp_service_account",
    "azure_redis_ad_token",
    "aws_iam_auth",
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

/// A server and how to talk to it.
pub(in crate::config) struct Reached {
    pub(in crate::config) url: SecretString,
    pub(in crate::config) tls: RedisTls,
}

impl<'s, 'a> Sections<'s, 'a> {
    pub(in crate::config) fn env(&self) -> &'a dyn Env {
        self.ours.file.env
    }

    /// Where an argument of LiteLLM's Redis client may stand, the first that counts first.
    pub(in crate::config) fn argument(&self, name: &str) -> Vec<(&'s Section<'a>, String)> {
        let ours = (self.ours, format!("redis_{name}"));
        let argument = (self.kwargs, name.to_owned());
        let router = (self.router, format!("redis_{name}"));
        // `ssl`, `startup_nodes` and the like also stand in router_settings without the prefix.
        let bare = (self.router, name.to_owned());
        let all = [ours, argument, router, bare];
        all.into_iter()
            .filter(|(section, key)| section.has(key))
            .collect()
    }
}

/// A variable that is set and not empty.
pub(in crate::config) fn variable(env: &dyn Env, name: &str) -> Option<String> {
    env.get(name).filter(|value| !value.trim().is_empty())
}

/// The command line's URL, else ours, else LiteLLM's URL, else its host, port and password. `None`: the state lives in memory.
/// `limited`: a deployment has a limit, which several instances would have to share.
pub(in crate::config) fn redis(
    sections: &Sections<'_, '_>,
    command_line: Option<&SecretString>,
    limited: bool,
) -> Result<Option<Reached>> {
    let (ours, router) = (sections.ours, sections.router);
    for key in ["redis_sentinel", "redis_cluster"] {
        if ours.node(key).is_some() {
            return Err(ours.error(key, "not supported yet; expected redis_url"));
        }
    }
    let our_url = ours.name("redis_url")?;
    let decided = command_line.is_some() || our_url.is_some();
    let parts = Parts::read(sections, !decided)?;
    if decided {
        let chosen = if command_line.is_some() {
            "--redis-url"
        } else {
            "vorrang_settings.redis_url"
        };
        not_used(sections, chosen);
    } else {
        refuse_other_kinds(sections)?;
    }
    if command_line.is_none() && our_url.as_deref() == Some(MEMORY) {
        return Ok(None);
    }
    let expected = "expected redis://HOST:PORT or rediss://HOST:PORT";
    let url = if let Some(url) = command_line {
        url_of(url.expose_secret()).ok_or_else(|| {
            let text = format!("--redis-url (VORRANG_REDIS_URL): {expected}");
            Diagnostic::new(Kind::INVALID, text)
        })?
    } else if let Some(url) = our_url {
        url_of(&url).ok_or_else(|| ours.error("redis_url", expected))?
    } else if let Some(url) = router.name("redis_url")? {
        if router.has("redis_host") {
            let text = "is not used; router_settings.redis_url is";
            router.tell(Kind::UNUSED, "redis_host", text);
        }
        url_of(&url).ok_or_else(|| router.error("redis_url", expected))?
    } else if let Some(url) = parts.url(sections)? {
        url
    } else {
        refuse_shared(sections, limited)?;
        for key in ["redis_port", "redis_password", "redis_username", "redis_db"] {
            if router.has(key) {
                router.tell(Kind::UNUSED, key, "does nothing without redis_host");
            }
        }
        // Checked all the same: what it asks for must not be dropped.
        tls(sections, None)?;
        return Ok(None);
    };
    let tls = tls(sections, Some(&url))?;
    let url = SecretString::from(url);
    Ok(Some(Reached { url, tls }))
}

/// LiteLLM's host, port, user, password and database.
struct Parts {
    host: Option<String>,
    port: Option<u64>,
    password: Option<SecretString>,
    user: Option<String>,
    database: Option<u64>,
}

impl Parts {
    /// `strict`: the arguments of LiteLLM's client count; otherwise another URL was given and they are only looked at.
    fn read(sections: &Sections<'_, '_>, strict: bool) -> Result<Self> {
        let (router, kwargs) = (sections.router, sections.kwargs);
        let first = |own: &str, argument: &str| {
            if kwargs.has(argument) {
                (kwargs, argument.to_owned())
            } else {
                (router, own.to_owned())
            }
        };
        let (host, host_key) = first("redis_host", "host");
        let (port, port_key) = first("redis_port", "port");
        let (password, password_key) = first("redis_password", "password");
        let (user, user_key) = first("redis_username", "username");
        let (database, database_key) = first("redis_db", "db");
        let parts = Self {
            host: host.name(&host_key)?,
            port: port.whole(&port_key, 1)?,
            password: password.optional_secret(&password_key)?,
            user: user.name(&user_key)?,
            database: database.whole(&database_key, 0)?,
        };
        let named = parts.host.is_some() || router.has("redis_url");
        if strict && !named && kwargs.has("url") {
            return Err(kwargs.error("url", "is not read; expected router_settings.redis_url"));
        }
        Ok(parts)
    }

    fn url(self, sections: &Sections<'_, '_>) -> Result<Option<String>> {
        let Some(host) = self.host else {
            return Ok(None);
        };
        let router = sections.router;
        let port = match self.port.map_or(Ok(6379), u16::try_from) {
            Ok(port) => port,
            Err(_) => return Err(router.error("redis_port", "expected a port between 1 and 65535")),
        };
        let bracketed = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]")
        } else {
            host
        };
        let scheme = if tls::asked(sections)?.is_some() {
            "rediss"
        } else {
            "redis"
        };
        let url = Url::parse(&format!(
            "{scheme}://{bracketed}:{port}/{}",
            self.database.unwrap_or(0)
        ))
        .ok();
        // Setters, so that any character may stand in a password.
        let url = url
            .filter(|url| url.username().is_empty() && url.host_str().is_some())
            .and_then(|mut url| {
                url.set_username(self.user.as_deref().unwrap_or_default())
                    .ok()?;
                url.set_password(self.password.as_ref().map(ExposeSecret::expose_secret))
                    .ok()?;
                Some(url)
            });
        url.map(|url| Some(String::from(url)))
            .ok_or_else(|| router.error("redis_host", "expected a host name or an address"))
    }
}

/// Options after `?` are redis-py's, and `#insecure` turns off certificates. Neither is supported, so both are refused.
fn url_of(text: &str) -> Option<String> {
    if text.contains("+sentinel://") || text.contains("+cluster://") {
        let valid = RedisOptions::new(text).validate();
        return valid.is_ok().then(|| text.to_owned());
    }
    let url = Url::parse(text).ok()?;
    let socket = matches!(url.scheme(), "redis+unix" | "unix") && !url.path().is_empty();
    let net = matches!(url.scheme(), "redis" | "rediss")
        && url.host_str().is_some_and(|host| !host.is_empty())
        && url.query_pairs().all(|(key, _)| key == "protocol");
    ((socket || net) && url.fragment().is_none()).then(|| text.to_owned())
}

/// The file names another Redis beside the one in use.
fn not_used(sections: &Sections<'_, '_>, chosen: &str) {
    for name in ["url", "host", "startup_nodes", "sentinel_nodes"] {
        for (section, key) in sections.argument(name) {
            if !std::ptr::eq(section, sections.ours) {
                section.tell(Kind::UNUSED, &key, &format!("is not used; {chosen} is"));
                section.node(&key);
            }
        }
    }
}

/// What names a Redis that cannot be reached here.
fn refuse_other_kinds(sections: &Sections<'_, '_>) -> Result<()> {
    for name in TOPOLOGY {
        if let Some((section, key)) = sections.argument(name).into_iter().next() {
            let text = format!("Redis Cluster and Sentinel are not supported yet: {USE_INSTEAD}");
            return Err(section.error(&key, &text));
        }
    }
    for name in CREDENTIALS {
        for (section, key) in sections.argument(name) {
            if section.asks(&key)? {
                let text = "only redis_username and redis_password are sent to Redis: use these";
                return Err(section.error(&key, text));
            }
        }
    }
    for name in ["REDIS_CLUSTER_NODES", "REDIS_SENTINEL_NODES"] {
        if variable(sections.env(), name).is_some() {
            let text = format!(
                "the environment variable {name} asks for a Redis Cluster or Sentinel, which are not supported yet: {USE_INSTEAD}"
            );
            return Err(sections.router.file.error(sections.router.line, &text));
        }
    }
    Ok(())
}

/// Nothing names the queue's Redis, and something else makes LiteLLM share one: several instances would each hold the whole limit.
fn refuse_shared(sections: &Sections<'_, '_>, limited: bool) -> Result<()> {
    let env = sections.env();
    let in_env = ["REDIS_URL", "REDIS_HOST"]
        .into_iter()
        .find(|name| variable(env, name).is_some());
    let (litellm, general) = (sections.litellm, sections.general);
    let cached = litellm.asks("cache")?;
    let cache_off = litellm.has("cache") && !cached;
    let params = litellm.section_if_mapping("cache_params")?;
    let kind = match &params {
        Some(params) => params.text("type")?,
        None => None,
    };
    let is_redis = kind.as_deref().is_none_or(|kind| kind == "redis");
    let text = format!("asks for a shared Redis, and the queue has none: {USE_INSTEAD}");
    if let Some(params) = &params
        && !cache_off
        && is_redis
        && params.keys().next().is_some()
    {
        if limited {
            return Err(litellm.error("cache_params", &text));
        }
        // Without limits instances share nothing but the order of their queues.
        litellm.warn("cache_params", &text);
    }
    if general.has("coordination_redis") {
        return Err(general.error("coordination_redis", &text));
    }
    let Some(name) = in_env else { return Ok(()) };
    if cached && is_redis {
        let text = format!(
            "the cache's Redis comes from the environment variable {name}, and the queue has none: {USE_INSTEAD}"
        );
        if limited {
            return Err(litellm.error("cache", &text));
        }
        litellm.warn("cache", &text);
        return Ok(());
    }
    let text = format!(
        "the environment variable {name} names a Redis that LiteLLM would share, and the file names none: {USE_INSTEAD}"
    );
    let (file, line) = (sections.router.file, sections.router.line);
    if limited {
        return Err(file.error(line, &text));
    }
    // It may be some other program's, and nothing would be shared.
    file.tell(Kind::DIFFERS, line, None, &text);
    Ok(())
}

impl RedisSettings {
    /// Prepares the backend; a connection is made when it is used first. Needs a tokio runtime.
    ///
    /// # Errors
    /// The URL or a certificate cannot be used.
    pub fn connect(&self) -> std::result::Result<Arc<RedisBackend>, BackendError> {
        let certificate = |(certificate, key): (&str, &str)| ClientCertificate {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        RedisBackend::connect(&RedisOptions {
            namespace: self.namespace.clone(),
            tls: TlsOptions {
                ca_certificates: self.tls.ca_certificates.clone(),
                client: self.tls.client().map(certificate),
            },
            ..RedisOptions::new(self.url.expose_secret())
        })
    }
}
