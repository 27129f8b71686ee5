//! `/ui`: the page that shows the queue. Its files are part of the binary; what they show comes from the admin API.

use std::sync::LazyLock;

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha256};

/// A file of the page: its path, its media type, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asset {
    pub(super) path: &'static str,
    pub(super) media_type: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! assets {
    ($($path:literal, $media_type:expr, $file:literal;)+) => {
        [$(Asset {
            path: $path,
            media_type: $media_type,
            text: include_str!(concat!("../ui/", $file)),
        }),+]
    };
}

/// All files.
pub(super) const ASSETS: [Asset; 11] = assets! {
    "/ui", HTML, "index.html";
    "/ui/style.css", CSS, "style.css";
    "/ui/app.js", JAVASCRIPT, "app.js";
    "/ui/chart.js", JAVASCRIPT, "chart.js";
    "/ui/dialogs.js", JAVASCRIPT, "dialogs.js";
    "/ui/dom.js", JAVASCRIPT, "dom.js";
    "/ui/feed.js", JAVASCRIPT, "feed.js";
    "/ui/fleet.js", JAVASCRIPT, "fleet.js";
    "/ui/group.js", JAVASCRIPT, "group.js";
    "/ui/requests.js", JAVASCRIPT, "requests.js";
    "/ui/words.js", JAVASCRIPT, "words.js";
};

/// Nothing but the page's own files, and calls of its own server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // Asked for again each time, and mostly answered 304: another version of the binary has other files.
    (header::CACHE_CONTROL, "no-cache"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// One tag for all files: they belong together.
static TAG: LazyLock<HeaderValue> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for asset in ASSETS {
        hash.update(asset.text);
    }
    let hash: String = hash.finalize()[..12]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    HeaderValue::try_from(format!("\"{hash}\"")).unwrap_or(HeaderValue::from_static("\"ui\""))
});

/// Answers with a file, or that the client has it already.
pub(super) async fn file(asset: Asset, headers: HeaderMap) -> Response {
    let tag = TAG.clone();
    let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|given| {
        let mut tags = given.as_bytes().split(|byte| *byte == b',');
        tags.any(|one| strong(one.trim_ascii()) == tag.as_bytes())
    });
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, asset.media_type)], asset.text).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, tag);
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Without the mark of a weak tag, which a proxy that compresses makes of a strong one.
fn strong(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asset(path: &str) -> Asset {
        *ASSETS.iter().find(|asset| asset.path == path).unwrap()
    }

    #[test]
    fn page_names_its_own_files_only() {
        for asset in ASSETS {
            let namespace = asset.text.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(
                asset.text.matches("http:").count(),
                namespace,
                "{}",
                asset.path
            );
            for outside in [
                "https:",
                "@import",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "eval(",
                "document.write",
            ] {
                assert!(
                    !asset.text.contains(outside),
                    "{} has {outside}",
                    asset.path
                );
            }
            // What a strict policy would refuse.
            for inline in ["style=\"", "onclick=\"", "<style", "<script>"] {
                assert!(!asset.text.contains(inline), "{} has {inline}", asset.path);
            }
        }
    }

    #[test]
    fn every_file_that_the_page_names_is_served() {
        let mut named = 0;
        for asset in ASSETS {
            let imported = asset.text.match_indices("from \"./");
            let imported =
                imported.map(|(at, found)| format!("/ui/{}", word(asset.text, at + found.len())));
            let linked = asset.text.match_indices("\"/ui/");
            let linked = linked.map(|(at, _)| word(asset.text, at + 1).to_owned());
            for path in imported.chain(linked) {
                named += 1;
                assert!(ASSETS.iter().any(|asset| asset.path == path), "{path}");
            }
        }
        assert!(named > 10, "{named}");
    }

    fn word(text: &str, from: usize) -> &str {
        text[from..].split('"').next().unwrap_or_default()
    }

    #[tokio::test]
    async fn file_that_the_client_has_is_answered_304_with_the_same_headers() {
        let first = file(asset("/ui"), HeaderMap::new()).await;
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()[header::CONTENT_TYPE], HTML);
        let policy = first.headers()[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';"),
            "{policy}"
        );
        let tag = first.headers()[header::ETAG].to_str().unwrap();
        for (known, status) in [
            (tag.to_owned(), StatusCode::NOT_MODIFIED),
            (format!("\"other\", W/{tag}"), StatusCode::NOT_MODIFIED),
            ("\"other\"".to_owned(), StatusCode::OK),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, known.parse().unwrap());
            let again = file(asset("/ui/app.js"), headers).await;
            assert_eq!(again.status(), status, "{known}");
            assert_eq!(again.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
            assert_eq!(again.headers()[header::ETAG], tag);
        }
    }
}
