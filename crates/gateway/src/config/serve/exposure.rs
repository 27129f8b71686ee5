//! What callers without a key may reach, and from where: `vorrang_settings.allowed_hosts`, `public_metrics`, `metrics_allowed_from`,
//! `admin_allowed_from`.

use http::uri::Authority;
use secrecy::SecretString;

use super::networks::{Networks, networks};
use crate::config::{ConfigError, read::Section};

/// What is served to callers without a key, and from where operators come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// What `Host` may say; empty: anything.
    pub allowed_hosts: Vec<AllowedHost>,
    /// Whether metrics, and why an instance is not ready, are shown without the master key.
    pub public_metrics: bool,
    /// Where metrics are shown, with or without a key; `None`: everywhere.
    pub metrics_allowed_from: Option<Networks>,
    /// Where the admin API and its page are served, with or without a key; `None`: everywhere.
    pub admin_allowed_from: Option<Networks>,
}

impl Default for Exposure {
    fn default() -> Self {
        Self {
            allowed_hosts: Vec::new(),
            public_metrics: true,
            metrics_allowed_from: None,
            admin_allowed_from: None,
        }
    }
}

/// A host that requests may name: `HOST`, `HOST:PORT`, or `*.HOST` for all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHost {
    host: String,
    below: bool,
    port: Option<u16>,
}

// === impl AllowedHost ===

impl AllowedHost {
    /// `None` where the text is no host.
    pub fn parse(text: &str) -> Option<Self> {
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let authority: Authority = name.parse().ok()?;
        // An authority may have a user, which no Host has, and a port that is none.
        let port = match name.strip_prefix(authority.host())? {
            "" => None,
            rest => Some(rest.strip_prefix(':')?.parse().ok()?),
        };
        let host = authority.host().to_ascii_lowercase();
        (!host.is_empty() && !host.contains('*')).then_some(Self { host, below, port })
    }

    /// Whether a request may name this authority. Without a port in the list any will do.
    pub fn matches(&self, authority: &Authority) -> bool {
        let host = authority.host().to_ascii_lowercase();
        let named = if self.below {
            host.strip_suffix(&self.host)
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        } else {
            host == self.host
        };
        named && (self.port.is_none() || self.port == authority.port_u16())
    }
}

pub(in crate::config) fn exposure(
    ours: &Section<'_>,
    litellm: &Section<'_>,
    master_key: Option<&SecretString>,
) -> Result<Exposure, ConfigError> {
    const KEY: &str = "allowed_hosts";
    let expected = "expected a list of HOST, HOST:PORT or *.HOST";
    let hosts = ours.texts(KEY)?;
    if hosts.as_ref().is_some_and(Vec::is_empty) {
        return Err(ours.error(KEY, &format!("{expected}; leave it out to allow all")));
    }
    let hosts = hosts.iter().flatten().map(|host| AllowedHost::parse(host));
    let allowed_hosts = hosts
        .collect::<Option<_>>()
        .ok_or_else(|| ours.error(KEY, expected))?;
    let theirs = "require_auth_for_metrics_endpoint";
    let closed = litellm.boolean(theirs)?;
    let ours_says = ours.boolean("public_metrics")?;
    let public_metrics = ours_says.unwrap_or(closed != Some(true));
    if !public_metrics && master_key.is_none() {
        let text = "needs general_settings.master_key, which then opens them";
        return Err(match ours_says {
            Some(_) => ours.error("public_metrics", &format!("false {text}")),
            None => litellm.error(theirs, &format!("true {text}")),
        });
    }
    Ok(Exposure {
        allowed_hosts,
        public_metrics,
        metrics_allowed_from: networks(ours, "metrics_allowed_from")?,
        admin_allowed_from: networks(ours, "admin_allowed_from")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_hosts_match_name_and_optional_port() {
        for (allowed, host, matches) in [
            ("api.example", "api.example", true),
            ("api.example", "API.example:4000", true),
            ("API.example", "api.example", true),
            ("api.example", "evil.example", false),
            ("api.example", "api.example.evil", false),
            ("api.example:4000", "api.example:4000", true),
            ("api.example:4000", "api.example:4001", false),
            ("api.example:4000", "api.example", false),
            ("*.example", "api.example", true),
            ("*.example", "a.b.example:1", true),
            ("*.example", "example", false),
            ("*.example", "evilexample", false),
            ("*.example", ".example", false),
            ("127.0.0.1", "127.0.0.1:4000", true),
            ("[::1]", "[::1]:4000", true),
            ("[::1]:4000", "[::1]", false),
        ] {
            let allowed = AllowedHost::parse(allowed).unwrap();
            let host: Authority = host.parse().unwrap();
            assert_eq!(allowed.matches(&host), matches, "{allowed:?} {host}");
        }
    }

    #[test]
    fn invalid_host_values_are_not_allowed() {
        for text in [
            "", "*", "*.", "a.*", "http://a", "a/b", "a b", "user@a", "a:", "a:x", "a:70000",
        ] {
            assert_eq!(AllowedHost::parse(text), None, "{text}");
        }
    }
}
