//! Hosts that no URL may have: a name whose last label is a number, such as a container's `qwen3.6`. LiteLLM calls them.
//!
//! A URL holds a substitute for such a host, which the resolver of the HTTP client knows; the upstream gets the name in `host`.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use http::HeaderValue;
use hyper_util::client::legacy::connect::dns;
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use tower_service::Service;

/// No name of the network ends like this (RFC 6761).
const END: &str = ".host.invalid";

/// A label of a host has at most 63 characters.
const LABEL: usize = 60;

/// A URL with a substitute for its host; `None`: it is none for another reason. Without TLS only: no certificate has such a name.
pub(crate) fn substituted(text: &str) -> Option<Url> {
    let uri: http::Uri = text.trim().parse().ok()?;
    let host = uri.host().filter(|host| ends_with_a_number(host))?;
    let (scheme, rest) = text.trim().split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(end) => rest.split_at(end),
        None => (rest, ""),
    };
    // After a user and a password.
    let (before, after) = authority.split_at(authority.rfind(host)?);
    let port = &after[host.len()..];
    Url::parse(&format!("http://{before}{}{port}{path}", substitute(host))).ok()
}

/// Whether its last label is a number.
pub(crate) fn ends_with_a_number(host: &str) -> bool {
    let label = host.trim_end_matches('.').rsplit('.').next();
    label.is_some_and(|label| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit()))
}

fn substitute(host: &str) -> String {
    let hex: String = host.bytes().map(|byte| format!("{byte:02x}")).collect();
    let labels: Vec<String> = hex
        .as_bytes()
        .chunks(LABEL)
        .map(|chunk| format!("x{}", String::from_utf8_lossy(chunk)))
        .collect();
    labels.join(".") + END
}

/// The host that a substitute stands for.
pub(crate) fn substituted_for(host: &str) -> Option<String> {
    let labels = host.strip_suffix(END)?.split('.');
    let hex: Option<String> = labels.map(|label| label.strip_prefix('x')).collect();
    let hex = hex?;
    let bytes = hex.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    String::from_utf8(bytes.collect::<Option<Vec<u8>>>()?).ok()
}

/// The host of a URL as it is called.
pub(crate) fn host_of(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(substituted_for(host).unwrap_or_else(|| host.to_owned()))
}

/// What stands in `host` instead of a substitute.
pub(crate) fn header(url: &Url) -> Option<HeaderValue> {
    let host = substituted_for(url.host_str()?)?;
    let text = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host,
    };
    HeaderValue::from_str(&text).ok()
}

/// The system's resolver, which gets the names that substitutes stand for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = resolved(name.as_str()).await?;
            Ok(Box::new(found) as Addrs)
        })
    }
}

impl Service<dns::Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: dns::Name) -> Self::Future {
        Box::pin(async move { resolved(name.as_str()).await })
    }
}

async fn resolved(name: &str) -> io::Result<vec::IntoIter<SocketAddr>> {
    let host = substituted_for(name).unwrap_or_else(|| name.to_owned());
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
    Ok(found.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substitute_stands_for_its_host() {
        let long = format!("{}.4", "a".repeat(200));
        for host in ["qwen3.6", "nomic-embed-v1.5", "a.0", &long] {
            let url = substituted(&format!("http://u:p@{host}:8000/v1?x=1")).unwrap();
            assert_eq!(host_of(&url).as_deref(), Some(host));
            assert_eq!(
                (url.port(), url.path(), url.query()),
                (Some(8000), "/v1", Some("x=1"))
            );
            assert_eq!((url.username(), url.password()), ("u", Some("p")));
            assert_eq!(header(&url).unwrap(), format!("{host}:8000"));
        }
        let url = substituted("http://qwen3.6").unwrap();
        assert_eq!(header(&url).unwrap(), "qwen3.6");
    }

    #[test]
    fn other_hosts_have_no_substitute() {
        for text in [
            "http://host/v1",
            "https://qwen3.6/v1",
            "qwen3.6",
            "http://",
            "ftp://a.1/",
        ] {
            assert_eq!(substituted(text), None, "{text}");
        }
        for host in [
            "example.com",
            ".host.invalid",
            "y00.host.invalid",
            "xzz.host.invalid",
        ] {
            assert_eq!(
                substituted_for(host).filter(|host| !host.is_empty()),
                None,
                "{host}"
            );
        }
        let url = Url::parse("http://example.com:81/v1").unwrap();
        assert_eq!(host_of(&url).as_deref(), Some("example.com"));
        assert_eq!(header(&url), None);
    }

    #[tokio::test]
    async fn resolver_looks_up_the_name_that_a_substitute_stands_for() {
        for host in [substitute("localhost"), "localhost".to_owned()] {
            let addresses = Resolver.resolve(host.parse().unwrap()).await.unwrap();
            let addresses: Vec<SocketAddr> = addresses.collect();
            assert!(!addresses.is_empty() && addresses.iter().all(|one| one.ip().is_loopback()));
        }
        let none = Resolver
            .resolve(substitute("none.1").parse().unwrap())
            .await;
        assert!(none.is_err());
    }
}
