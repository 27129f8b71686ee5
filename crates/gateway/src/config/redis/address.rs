//! Addresses of Redis as URLs: which there are, and how their parts are put together.
//!
//! The backend parses them; what it would take beside that is not meant here is refused.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use vorrang_scheduler::backend::Topology;

/// For messages about a URL that cannot be used.
pub(super) const EXPECTED: &str = "expected redis://HOST:PORT or rediss://HOST:PORT, unix:///PATH, redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or redis+cluster://HOST:PORT,HOST:PORT (with TLS rediss+sentinel://, rediss+cluster://)";

/// All but unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What this URL names; `None`: no Redis that can be reached.
///
/// Options after `?` are redis-py's, and `#insecure` turns off certificates. Neither is supported, so both are refused.
pub(in crate::config) fn topology(url: &str) -> Option<Topology> {
    let topology = Topology::of(url).ok()?;
    if matches!(topology, Topology::Sentinel | Topology::Cluster) {
        return Some(topology);
    }
    let url = Url::parse(url).ok()?;
    let named = match url.scheme() {
        "redis+unix" | "unix" => !url.path().is_empty(),
        "redis" | "rediss" => {
            let host = url.host_str().is_some_and(|host| !host.is_empty());
            host && url.query_pairs().all(|(key, _)| key == "protocol")
        }
        _ => false,
    };
    (named && url.fragment().is_none()).then_some(topology)
}

/// `HOST`, `HOST:PORT`, `[ADDRESS]:PORT`.
pub(super) fn is_node(node: &str) -> bool {
    let alone = !node.contains(['@', '/', ',']);
    alone && topology(&format!("redis+cluster://{node}")).is_some()
}

/// An IPv6 address gets its brackets.
pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// Whether what it says crosses the network in the clear.
pub(super) fn is_clear(url: &str) -> bool {
    let scheme = url.split("://").next().unwrap_or_default();
    !scheme.to_ascii_lowercase().starts_with("rediss")
}

/// User and password of the servers.
#[derive(Default)]
pub(super) struct Credentials {
    pub(super) user: Option<String>,
    pub(super) password: Option<SecretString>,
}

impl Credentials {
    /// As they stand in a URL: empty, or `user:password@`.
    pub(super) fn encoded(&self) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
        let user = encoded(self.user.as_deref().unwrap_or_default());
        match &self.password {
            Some(password) => format!("{user}:{}@", encoded(password.expose_secret())),
            None if user.is_empty() => user,
            None => format!("{user}@"),
        }
    }

    /// A URL with these, where it has none.
    pub(super) fn put_into(&self, url: &str) -> Option<String> {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split('/').next().unwrap_or_default();
        (!authority.contains('@')).then(|| format!("{scheme}://{}{rest}", self.encoded()))
    }
}

/// The user of a URL that has a password only, as in LiteLLM.
pub(super) fn with_user(url: &str, user: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
    let no_user = rest.starts_with(':') && authority.contains('@');
    let user = utf8_percent_encode(user, ENCODED);
    no_user.then(|| format!("{scheme}://{user}{rest}"))
}

/// The URL of several nodes. `path`: `service` or `service/database` of sentinels.
pub(super) fn of_nodes(
    scheme: &str,
    credentials: &Credentials,
    nodes: &[String],
    path: Option<(&str, Option<u64>)>,
) -> String {
    let mut url = format!("{scheme}://{}{}", credentials.encoded(), nodes.join(","));
    if let Some((service, database)) = path {
        url.push('/');
        url.extend(utf8_percent_encode(service, ENCODED));
        if let Some(database) = database {
            url.push_str(&format!("/{database}"));
        }
    }
    url
}

/// A URL of several nodes without its secrets; `None`: it has one node, or none.
pub(in crate::config) fn shown(url: &str) -> Option<String> {
    let several = matches!(topology(url)?, Topology::Sentinel | Topology::Cluster);
    let (scheme, rest) = url.split_once("://").filter(|_| several)?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let nodes = authority.rsplit('@').next().unwrap_or_default();
    Some(format!("{scheme}://{nodes}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_name_topologies() {
        use Topology::{Cluster, Sentinel, Server, Socket};
        for (url, named) in [
            ("redis://h", Server),
            ("rediss://u:p@h:1/2?protocol=resp3", Server),
            ("unix:///run/redis.sock", Socket),
            ("redis+unix:///run/redis.sock", Socket),
            ("redis+sentinel://h/service", Sentinel),
            (
                "redis+sentinel://u:p%40@h1:26379,[::1]:2,h3/my%2Fservice/3",
                Sentinel,
            ),
            ("rediss+sentinel://h1,h2/service/", Sentinel),
            ("redis+cluster://h1:6379,h2", Cluster),
            ("rediss+cluster://:p@[fe80::1]/", Cluster),
        ] {
            assert_eq!(topology(url), Some(named), "{url}");
        }
    }

    #[test]
    fn urls_that_name_no_redis_are_refused() {
        for url in [
            "h:6379",
            "http://h",
            "redis://",
            "redis://h/?ssl_cert_reqs=none",
            "rediss://h/#insecure",
            "redis+sentinel://h",
            "redis+sentinel://h/",
            "redis+sentinel://h/service/x",
            "redis+sentinel://h/service/1/2",
            "redis+sentinel://h/service?x=1",
            "redis+sentinel:///service",
            "redis+sentinel://h1,/service",
            "redis+sentinel://h1:/service",
            "redis+sentinel://h1:0/service",
            "redis+sentinel://h1:70000/service",
            "redis+sentinel://::1/service",
            // A password with a `/` or an `@` that is not encoded.
            "redis+sentinel://u:1/x@h/service",
            "redis+sentinel://u:1/x@h",
            "redis+cluster://u:1/x@h",
            "redis+cluster://h/1",
            "redis+cluster://",
            "redis+cluster://h#insecure",
            "redis+cluster://h1;h2",
            "rediss+unix:///run/redis.sock",
        ] {
            assert_eq!(topology(url), None, "{url}");
        }
    }

    #[test]
    fn shown_url_has_no_secret() {
        let shown_of = |url| shown(url).unwrap();
        assert_eq!(
            shown_of("rediss+sentinel://u:secret@h1:1,h2/service/0"),
            "rediss+sentinel://h1:1,h2/service/0"
        );
        assert_eq!(shown_of("redis+cluster://secret@h1"), "redis+cluster://h1");
        assert_eq!(shown("redis://secret@h1"), None);
        assert_eq!(shown("redis+cluster://u:1/secret@h1"), None);
    }
}
