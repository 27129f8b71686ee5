//! Paths as clients make them from a base URL: `//v1/...`, `/v1//models`, `/v1/models/`.

use http::{Request, Uri, uri::PathAndQuery};

/// What follows these is a name and is kept as it is, slashes included.
const NAMES_FOLLOW: [&str; 4] = ["/engines", "/openai/deployments", "/models", "/v1/models"];

/// The same request under the path that its client means: without empty segments and without a slash at the end.
pub(crate) fn normalized<B>(mut request: Request<B>) -> Request<B> {
    if let Some(uri) = normalized_uri(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

/// `None` where nothing has to change.
fn normalized_uri(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !(path.contains("//") || path.len() > 1 && path.ends_with('/')) {
        return None;
    }
    let mut clean = clean(path);
    if let Some(query) = uri.query() {
        clean.push('?');
        clean.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(clean).ok()?);
    Uri::from_parts(parts).ok()
}

fn clean(path: &str) -> String {
    let mut clean = String::with_capacity(path.len());
    let mut rest = path.trim_end_matches('/');
    while !rest.is_empty() {
        if NAMES_FOLLOW.contains(&clean.as_str()) {
            clean.push_str(rest);
            break;
        }
        rest = rest.trim_start_matches('/');
        let (segment, tail) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        clean.push('/');
        clean.push_str(segment);
        rest = tail;
    }
    if clean.is_empty() {
        clean.push('/');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_normalization_keeps_model_names() {
        for (path, expected) in [
            ("//v1/chat/completions", "/v1/chat/completions"),
            ("/v1//chat/completions/", "/v1/chat/completions"),
            ("///v1///models//?a=/b/", "/v1/models?a=/b/"),
            ("/health/", "/health"),
            ("//", "/"),
            ("//engines/a//b/completions/", "/engines/a//b/completions"),
            ("/v1//models/a//b%2F", "/v1/models/a//b%2F"),
            (
                "/openai/deployments//completions",
                "/openai/deployments//completions",
            ),
            ("http://host//v1/models", "http://host/v1/models"),
        ] {
            let request = Request::get(path).body(()).unwrap();
            assert_eq!(normalized(request).uri(), expected, "{path}");
        }
    }

    #[test]
    fn normal_paths_stay_unchanged() {
        for path in ["/", "/v1/models", "/engines/a/completions", "*", "host:443"] {
            let request = Request::get(path).body(()).unwrap();
            assert_eq!(normalized(request).uri(), path);
        }
    }
}
