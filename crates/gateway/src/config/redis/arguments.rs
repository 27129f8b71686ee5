//! Where an argument of a Redis client stands: in sections of the file, by precedence, and in the environment.

use secrecy::SecretString;
use serde_json::Value as Json;

use super::{Sections, variable};
use crate::config::{ConfigError, Kind, read::Section};

type Result<T> = std::result::Result<T, ConfigError>;

/// Not in our section, where a server is named by its URL.
const NOT_OURS: &[&str] = &["host", "port"];

/// What stands in `router_settings` only with the prefix `redis_`. `ssl`, `startup_nodes` and the like stand there without it, too.
const PREFIXED: &[&str] = &[
    "url",
    "host",
    "port",
    "password",
    "username",
    "db",
    "namespace",
];

/// Where something is asked for: a key of the file, or a variable. A variable has the line of `router_settings`.
pub(in crate::config) enum Origin<'s, 'a> {
    File(&'s Section<'a>, String),
    Variable(&'s Section<'a>, String),
}

impl Origin<'_, '_> {
    pub(in crate::config) fn error(&self, text: &str) -> ConfigError {
        match self {
            Self::File(section, key) => section.error(key, text),
            Self::Variable(router, name) => router.file.error(
                router.line,
                &format!("the environment variable {name}: {text}"),
            ),
        }
    }

    /// What messages call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(section, key) => section.path_of(key),
            Self::Variable(_, name) => name.clone(),
        }
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::File(..))
    }

    /// Whether it stands in `vorrang_settings`.
    pub(super) fn is_ours(&self, sections: &Sections<'_, '_>) -> bool {
        matches!(self, Self::File(section, _) if std::ptr::eq(*section, sections.ours))
    }

    fn value(&self) -> String {
        match self {
            Self::File(..) => String::new(),
            Self::Variable(router, name) => router.file.env.get(name).unwrap_or_default(),
        }
    }

    /// A text that is not empty.
    pub(super) fn text(&self) -> Result<String> {
        match self {
            Self::File(section, key) => section.required(key),
            Self::Variable(..) => Ok(self.value()),
        }
    }

    /// A secret; a variable that is unset or empty means none.
    pub(super) fn secret(&self) -> Result<Option<SecretString>> {
        match self {
            Self::File(section, key) => section.optional_secret(key),
            Self::Variable(..) => Ok(Some(SecretString::from(self.value()))),
        }
    }

    /// A number. LiteLLM drops a variable that is none: Kubernetes sets `REDIS_PORT` to a URL where a service is called `redis`.
    pub(super) fn whole(&self, least: u64) -> Result<Option<u64>> {
        match self {
            Self::File(section, key) => section.whole(key, least),
            Self::Variable(..) => Ok(self.value().trim().parse().ok()),
        }
    }

    /// A list, or a text with one in JSON, as LiteLLM takes them.
    pub(super) fn list(&self) -> Result<Vec<Json>> {
        let json = match self {
            Self::File(section, key) => {
                let node = section.node(key);
                node.map_or(Ok(Json::Null), |node| section.json(key, node))?
            }
            Self::Variable(..) => Json::String(self.value()),
        };
        let json = match json {
            Json::String(text) => serde_json::from_str(&text).unwrap_or(Json::Null),
            json => json,
        };
        match json {
            Json::Array(items) => Ok(items),
            _ => Err(self.error("expected a list of nodes")),
        }
    }

    /// Says of a key of the file that it does nothing. It need not be readable then.
    pub(super) fn unused(&self, kind: Kind, text: &str) {
        if let Self::File(section, key) = self {
            section.tell(kind, key, text);
            section.pass_over(key);
        }
    }
}

/// The arguments of one Redis client.
pub(in crate::config) struct Arguments<'s, 'a> {
    /// Sections, with what the names of arguments begin with there. The first counts first.
    pub(super) places: Vec<(&'s Section<'a>, &'static str)>,
    /// `REDIS_*` say what no section says.
    pub(super) environment: bool,
    pub(super) sections: &'s Sections<'s, 'a>,
}

impl<'s, 'a> Arguments<'s, 'a> {
    /// The keys of the file that name an argument.
    pub(in crate::config) fn in_file(&self, name: &str) -> Vec<(&'s Section<'a>, String)> {
        let mut found = Vec::new();
        for (section, prefix) in &self.places {
            let is = |other: &Section<'a>| std::ptr::eq(*section, other);
            let bare = prefix.is_empty() && is(self.sections.router);
            let absent = (bare && PREFIXED.contains(&name))
                || (is(self.sections.ours) && NOT_OURS.contains(&name));
            let key = format!("{prefix}{name}");
            if !absent && section.has(&key) {
                found.push((*section, key));
            }
        }
        found
    }

    /// The origin of an argument in the file that counts.
    pub(super) fn named(&self, name: &str) -> Option<Origin<'s, 'a>> {
        let first = self.in_file(name).into_iter().next();
        first.map(|(section, key)| Origin::File(section, key))
    }

    /// The variable of an argument, where it is set.
    pub(super) fn variable(&self, name: &str) -> Option<Origin<'s, 'a>> {
        let variable_of = match name {
            "startup_nodes" => "REDIS_CLUSTER_NODES".to_owned(),
            name => format!("REDIS_{}", name.to_ascii_uppercase()),
        };
        variable(self.sections.env(), &variable_of)?;
        Some(Origin::Variable(self.sections.router, variable_of))
    }

    /// The origin that counts: the file comes before the environment, as in LiteLLM.
    pub(super) fn find(&self, name: &str) -> Option<Origin<'s, 'a>> {
        self.named(name).or_else(|| self.filled_in(name))
    }

    /// The origin of a list that is not empty.
    pub(super) fn find_list(&self, name: &str) -> Result<Option<Origin<'s, 'a>>> {
        if let Some(Origin::File(section, key)) = self.named(name)
            && section.asks(&key)?
        {
            return Ok(Some(Origin::File(section, key)));
        }
        let is_empty = |origin: &Origin<'_, '_>| origin.list().is_ok_and(|list| list.is_empty());
        Ok(self.filled_in(name).filter(|origin| !is_empty(origin)))
    }

    fn filled_in(&self, name: &str) -> Option<Origin<'s, 'a>> {
        self.environment.then(|| self.variable(name)).flatten()
    }
}
