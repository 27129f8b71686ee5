//! What a web page could make a browser send here: requests whose content type or host no program of the operator's would send.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, header, uri::Authority};

use crate::{
    app::{App, Live},
    failure::Failure,
};

/// [`is_refused`] for routes.
pub(crate) async fn hosts(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if is_refused(&app.live(), &request) {
        return Failure::misdirected().into_response();
    }
    next.run(request).await
}

/// Whether a request is to a host that is not allowed, where `vorrang_settings.allowed_hosts` names some: a page whose own name was made
/// to point here calls this server by that name.
pub(crate) fn is_refused<B>(live: &Live, request: &http::Request<B>) -> bool {
    let allowed = &live.exposure.allowed_hosts;
    if allowed.is_empty() || PROBED.contains(&request.uri().path()) {
        return false;
    }
    let host = authority(request);
    !host.is_some_and(|host| allowed.iter().any(|one| one.matches(&host)))
}

/// Probes name the instance's address, which a list of names cannot know.
const PROBED: [&str; 3] = [
    "/health/liveliness",
    "/health/liveness",
    "/health/readiness",
];

/// The request's host, with its port: of the URI where that has one (always in HTTP/2), else of the `Host` header.
pub(crate) fn authority<B>(request: &http::Request<B>) -> Option<Authority> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.clone());
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Authority::try_from(host.as_bytes()).ok(),
        _ => None,
    }
}

/// Refuses a body that does not say it is JSON, where every caller is served: a page on another site may have a browser post text without
/// asking this server first, but not JSON. A form passes only from what is no browser, or with a key, however wrong: a page cannot send
/// that header without asking first either.
pub(crate) fn content_type(headers: &HeaderMap, form: bool) -> Result<(), Failure> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter().peekable();
    // A browser may leave the type out, but it says that it is one.
    let browser = headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-mode");
    let absent = types.peek().is_none();
    if form {
        let key = headers.get(header::AUTHORIZATION);
        // Browsers repeat other schemes (Basic) by themselves.
        let bearer = key.is_some_and(|key| key.as_bytes().starts_with(b"Bearer "));
        if !browser || bearer {
            return Ok(());
        }
        return Err(Failure::form_of_a_page());
    }
    if (absent && !browser) || (!absent && types.all(|kind| is_json(kind.as_bytes()))) {
        return Ok(());
    }
    Err(Failure::unsupported_media_type())
}

/// `application/json`, or `application/...+json`.
fn is_json(value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return true;
    }
    let essence = essence.to_ascii_lowercase();
    essence
        .strip_prefix("application/")
        .is_some_and(|kind| kind == "json" || kind.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn passes(pairs: &[(&'static str, &'static str)]) -> bool {
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect();
        content_type(&headers, false).is_ok()
    }

    #[test]
    fn forms_pass_from_programs_and_from_pages_with_a_key() {
        let sent = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            content_type(&headers, true).is_ok()
        };
        let form = ("content-type", "multipart/form-data; boundary=x");
        let page = ("origin", "https://page.example");
        assert!(sent(&[form]));
        assert!(!sent(&[form, page]));
        assert!(!sent(&[form, ("sec-fetch-mode", "no-cors")]));
        assert!(!sent(&[form, page, ("authorization", "Basic eDp5")]));
        assert!(sent(&[form, page, ("authorization", "Bearer sk-any")]));
    }

    #[test]
    fn json_content_types_are_accepted_and_form_types_of_browsers_are_not() {
        for kind in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/problem+json",
        ] {
            assert!(passes(&[("content-type", kind)]), "{kind}");
        }
        for kind in [
            "",
            "text/plain",
            "text/plain; application/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonp",
            "text/json",
        ] {
            assert!(!passes(&[("content-type", kind)]), "{kind}");
        }
    }

    #[test]
    fn missing_content_type_is_accepted_except_from_browsers() {
        assert!(passes(&[]));
        assert!(!passes(&[("origin", "https://page.example")]));
        assert!(!passes(&[("sec-fetch-mode", "no-cors")]));
        let json = ("content-type", "application/json");
        assert!(passes(&[json, ("origin", "https://page.example")]));
    }
}
