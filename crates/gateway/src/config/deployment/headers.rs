//! Headers that a deployment adds to each call: `extra_headers`, `headers`, `organization`.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::config::{ConfigError, read::Section};

/// What the gateway sets itself for each call.
const OWN: &[HeaderName] = &[
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::HOST,
    header::TRANSFER_ENCODING,
];

pub(super) fn headers(params: &Section<'_>) -> Result<HeaderMap, ConfigError> {
    let mut headers = HeaderMap::new();
    for key in ["extra_headers", "headers"] {
        let section = params.section(key)?;
        for name in section.keys() {
            let value = section.text(name)?.unwrap_or_default();
            let header: HeaderName = name
                .parse()
                .map_err(|_| section.error(name, "expected the name of a header"))?;
            if OWN.contains(&header) {
                section.warn(name, "is left out: the gateway sets it for each call");
                continue;
            }
            headers.insert(header, sensitive(&section, name, &value)?);
        }
    }
    if let Some(organization) = params.name("organization")? {
        let value = sensitive(params, "organization", &organization)?;
        headers.insert(HeaderName::from_static("openai-organization"), value);
    }
    Ok(headers)
}

/// It may be a credential.
fn sensitive(section: &Section<'_>, key: &str, value: &str) -> Result<HeaderValue, ConfigError> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| section.error(key, "expected visible characters only"))?;
    value.set_sensitive(true);
    Ok(value)
}
