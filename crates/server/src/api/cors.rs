//! Cross-origin resource sharing: which web pages may read answers of the API in a browser.

use std::{net::IpAddr, time::Duration};

use http::{HeaderValue, Method, Uri, request::Parts};
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};
use vorrang_gateway::config::CorsOrigins;

/// How long a browser may remember a preflight's answer.
const MAX_AGE: Duration = Duration::from_secs(600);

/// Answers preflights and lets scripts read answers with all their headers. Never with credentials: a browser then adds no cookie
/// and no client certificate, so that a page can do no more than its own key allows.
pub(crate) fn layer(origins: &CorsOrigins) -> CorsLayer {
    let origins = match origins {
        CorsOrigins::Any => AllowOrigin::any(),
        CorsOrigins::Local => AllowOrigin::predicate(|origin, _: &Parts| is_local(origin)),
        CorsOrigins::These(origins) => AllowOrigin::list(origins.iter().cloned()),
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::DELETE])
        // `*` would not cover `Authorization`.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(Any)
        .max_age(MAX_AGE)
}

/// An origin that this machine itself serves, on any port.
fn is_local(origin: &HeaderValue) -> bool {
    let Ok(uri) = Uri::try_from(origin.as_bytes()) else {
        return false;
    };
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    web && (host == "localhost" || address.is_ok_and(|address: IpAddr| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_origins_are_loopback_hosts_on_any_port() {
        for (origin, local) in [
            ("http://localhost:5173", true),
            ("https://localhost", true),
            ("http://127.0.0.1:3000", true),
            ("http://[::1]:3000", true),
            ("http://localhost.example.com", false),
            ("http://127.0.0.1.example.com", false),
            ("http://192.168.0.1", false),
            ("https://example.com", false),
            ("file://localhost", false),
            ("null", false),
            ("", false),
        ] {
            let value = HeaderValue::from_static(origin);
            assert_eq!(is_local(&value), local, "{origin}");
        }
    }
}
