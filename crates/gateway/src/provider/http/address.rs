//! Where calls go: a URL that is taken apart once.

use std::{fmt, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{
    HeaderValue, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use percent_encoding::percent_decode_str;
use reqwest::Url;

use crate::provider::hosts;

/// A URL, and what of it a call over HTTP needs. What it is made of may be secret.
#[derive(Clone)]
pub(crate) struct Address {
    url: Url,
    /// `None`: no call can be made there.
    wire: Option<Wire>,
    /// What stands in `host` instead of the URL's.
    own_host: Option<HeaderValue>,
}

/// What is sent, and to whom.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    pub(super) origin: Arc<Origin>,
    /// The path and the query.
    pub(super) target: Uri,
    pub(super) host: HeaderValue,
    /// The user and the password of the URL.
    pub(super) authorization: Option<HeaderValue>,
}

/// Who has the connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    https: bool,
    /// Without a user, and without the port that belongs to the scheme.
    authority: Authority,
}

impl Address {
    pub(crate) fn of(url: Url) -> Self {
        Self {
            wire: Wire::of(&url),
            own_host: hosts::header(&url),
            url,
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Url::parse(text).ok().map(Self::of)
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn own_host(&self) -> Option<&HeaderValue> {
        self.own_host.as_ref()
    }

    pub(super) fn wire(&self) -> Option<&Wire> {
        self.wire.as_ref()
    }
}

/// A URL may hold a password or a key.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address")
    }
}

impl Wire {
    fn of(url: &Url) -> Option<Self> {
        let https = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str()?),
            None => url.host_str()?.to_owned(),
        };
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let path = PathAndQuery::try_from(path).ok()?;
        Some(Self {
            host: HeaderValue::from_str(&authority).ok()?,
            target: path.into(),
            authorization: authorization(url),
            origin: Arc::new(Origin {
                https,
                authority: Authority::try_from(authority).ok()?,
            }),
        })
    }

    /// The whole address, as HTTP/2 and proxies need it.
    pub(super) fn uri(&self) -> Option<Uri> {
        let mut parts = self.target.clone().into_parts();
        parts.scheme = Some(self.origin.scheme());
        parts.authority = Some(self.origin.authority.clone());
        Uri::from_parts(parts).ok()
    }
}

impl Origin {
    fn scheme(&self) -> Scheme {
        if self.https {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        }
    }
}

/// A user and a password in a URL are sent as basic authorization.
fn authorization(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let decoded = |text| percent_decode_str(text).decode_utf8().ok();
    let user = decoded(url.username())?;
    let password = decoded(url.password().unwrap_or_default())?;
    let coded = BASE64_STANDARD.encode(format!("{user}:{password}"));
    let mut value = HeaderValue::from_str(&format!("Basic {coded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_has_the_parts_that_a_request_needs() {
        for (url, host, target, whole) in [
            ("http://a.b", "a.b", "/", "http://a.b/"),
            (
                "https://a.b:443/v1/x?k=1#f",
                "a.b",
                "/v1/x?k=1",
                "https://a.b/v1/x?k=1",
            ),
            (
                "http://u:p@[::1]:8080/a b",
                "[::1]:8080",
                "/a%20b",
                "http://[::1]:8080/a%20b",
            ),
        ] {
            let address = Address::parse(url).unwrap();
            let wire = address.wire().unwrap();
            assert_eq!(wire.host, host);
            assert_eq!(wire.target, target);
            assert_eq!(wire.uri().unwrap(), whole);
        }
        assert!(Address::parse("ftp://a.b/").unwrap().wire().is_none());
        assert!(Address::parse("no url").is_none());
    }

    #[test]
    fn user_and_password_become_basic_authorization() {
        for (url, user_and_password) in [
            ("http://h/", None),
            ("http://me@h/", Some("me:")),
            ("http://me:p%40ss@h/", Some("me:p@ss")),
            ("http://:p@h/", Some(":p")),
        ] {
            let address = Address::parse(url).unwrap();
            let value = address.wire().unwrap().authorization.clone();
            let expected =
                user_and_password.map(|text| format!("Basic {}", BASE64_STANDARD.encode(text)));
            assert_eq!(
                value.map(|value| value.to_str().unwrap().to_owned()),
                expected,
                "{url}"
            );
        }
    }
}
