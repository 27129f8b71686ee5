//! The Redis of LiteLLM's response cache and of its coordination, which is the queue's where the router names none.
//!
//! LiteLLM gives its router `coordination_redis`, else the cache's Redis where the cache is on and its type is `redis`, else the
//! Redis of the environment if that answers. The last is not done here: whether limits are shared must not depend on that.

use super::{First, NAMES, Reached, Sections, USE_INSTEAD, of_section, variable};
use crate::config::{ConfigError, Kind, read::Section};

type Result<T> = std::result::Result<T, ConfigError>;

/// Variables that name a Redis.
const VARIABLES: &[&str] = &[
    "REDIS_URL",
    "REDIS_HOST",
    "REDIS_CLUSTER_NODES",
    "REDIS_SENTINEL_NODES",
];

/// LiteLLM's response cache.
pub(super) struct Cache<'a> {
    params: Section<'a>,
    /// `cache: true`
    is_on: bool,
    /// `cache: false`
    is_off: bool,
    /// Its type is `redis`. A semantic cache is something else: LiteLLM does not give its Redis to the router.
    is_redis: bool,
}

impl<'a> Cache<'a> {
    pub(super) fn read(litellm: &Section<'a>) -> Result<Self> {
        let is_on = litellm.asks("cache")?;
        let params = litellm.section_if_mapping("cache_params")?;
        let params = params.unwrap_or_else(|| litellm.empty("cache_params"));
        let kind = params.text("type")?;
        let names = |key: &str| {
            let name = key.strip_prefix("redis_").unwrap_or(key);
            params.has(key) && NAMES.contains(&name)
        };
        let is_redis = match kind {
            Some(kind) => kind == "redis",
            // LiteLLM has it in memory, where there are other parameters; a Redis that they name is meant all the same.
            None => params.keys().next().is_none() || params.keys().any(names),
        };
        Ok(Self {
            is_off: litellm.has("cache") && !is_on,
            is_on,
            is_redis,
            params,
        })
    }

    /// Its Redis; `None`: it has none that LiteLLM gives to its router.
    pub(super) fn redis(&self, sections: &Sections<'_, '_>) -> Result<Option<Reached>> {
        if !(self.is_on && self.is_redis) {
            return Ok(None);
        }
        // Without any parameter LiteLLM takes host and port from the environment before it looks for a URL there.
        let first = if self.has_params() {
            First::Url
        } else {
            First::Host
        };
        of_section(sections, &self.params, Some(first))
    }

    /// Its Redis cannot be reached. Without limits that is no error: instances share nothing but the order of their queues.
    pub(super) fn unusable(&self, sections: &Sections<'_, '_>, error: &ConfigError) {
        let reasons: Vec<String> = error
            .diagnostics()
            .iter()
            .map(|one| match &one.key {
                Some(key) => format!("{key}: {}", one.message),
                None => one.message.clone(),
            })
            .collect();
        let key = if self.has_params() {
            "cache_params"
        } else {
            "cache"
        };
        let text = format!(
            "the cache's Redis cannot be the queue's, whose state is in memory: {}",
            reasons.join("; ")
        );
        sections.litellm.warn(key, &text);
    }

    fn has_params(&self) -> bool {
        self.params.keys().next().is_some()
    }
}

/// Nothing names the queue's Redis, and something makes LiteLLM share one: several instances would each hold the whole limit.
pub(super) fn refuse_shared(
    sections: &Sections<'_, '_>,
    cache: &Cache<'_>,
    limited: bool,
) -> Result<()> {
    let litellm = sections.litellm;
    if !cache.is_off && cache.is_redis && cache.has_params() {
        let text = if cache.is_on {
            format!(
                "names no Redis, and the environment names none: expected host, url, redis_startup_nodes or sentinel_nodes; or {USE_INSTEAD}"
            )
        } else {
            format!(
                "is for a cache that cache: true does not turn on, and the queue has no Redis: {USE_INSTEAD}"
            )
        };
        if limited {
            return Err(litellm.error("cache_params", &text));
        }
        // Without limits instances share nothing but the order of their queues.
        litellm.warn("cache_params", &text);
    }
    let mut names = VARIABLES.iter();
    let Some(name) = names.find(|name| variable(sections.env(), name).is_some()) else {
        return Ok(());
    };
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
