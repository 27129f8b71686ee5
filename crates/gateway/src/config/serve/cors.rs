//! Whose web pages may read answers: `vorrang_settings.cors_origins`, else LiteLLM's environment variable.

use http::HeaderValue;

use crate::config::{ConfigError, Diagnostic, Kind, read::Section};

/// LiteLLM's own setting: origins, separated by commas.
const VARIABLE: &str = "LITELLM_CORS_ORIGINS";

/// The web pages whose scripts may call the API from a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigins {
    /// All of them. A page needs a key like any other client: no cookie and nothing else that a browser adds by itself counts.
    Any,
    /// Those that the user's own machine serves (`http://localhost:5173`). Without keys any other page could use the gateway of each of its visitors.
    Local,
    /// These.
    These(Vec<HeaderValue>),
}

/// The setting, or what is safe: any origin where callers need a key, else local ones.
pub(in crate::config) fn cors_origins(
    ours: &Section<'_>,
    keys: bool,
) -> Result<CorsOrigins, ConfigError> {
    if let Some(texts) = ours.texts("cors_origins")? {
        let error = |text: &str| ours.error("cors_origins", text);
        return origins(texts.iter().map(String::as_str)).map_err(error);
    }
    let variable = ours.file.env.get(VARIABLE).unwrap_or_default();
    let listed: Vec<_> = variable
        .split(',')
        .map(str::trim)
        .filter(|origin| !origin.is_empty())
        .collect();
    if !listed.is_empty() {
        let error = |text: &str| {
            let text = format!("environment variable {VARIABLE}: {text}");
            ConfigError::from(Diagnostic::new(Kind::INVALID, text))
        };
        return origins(listed.into_iter()).map_err(error);
    }
    Ok(if keys {
        CorsOrigins::Any
    } else {
        CorsOrigins::Local
    })
}

fn origins<'a>(
    mut texts: impl Iterator<Item = &'a str> + Clone,
) -> Result<CorsOrigins, &'static str> {
    const EXPECTED: &str = "expected origins as browsers send them (`https://app.example.com`, without a path), or `*` for all";
    if texts.clone().any(|text| text == "*") {
        return Ok(CorsOrigins::Any);
    }
    let listed = texts.try_fold(Vec::new(), |mut listed, text| {
        listed.push(origin(text)?);
        Some(listed)
    });
    listed.map(CorsOrigins::These).ok_or(EXPECTED)
}

/// `scheme://host` or `scheme://host:port`. Anything else would never equal what a browser sends.
fn origin(text: &str) -> Option<HeaderValue> {
    let (scheme, host) = text.split_once("://")?;
    let fits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    let plain = fits(scheme) && fits(host) && !host.contains(['/', '?', '#', ',', '@']);
    // Browsers send schemes and hosts in lower case.
    plain.then(|| HeaderValue::from_str(&text.to_ascii_lowercase()).ok())?
}
