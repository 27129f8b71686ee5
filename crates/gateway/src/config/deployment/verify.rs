//! `ssl_verify`: how certificates of upstreams are verified.

use crate::config::{ConfigError, Kind, Verify, read::Section};

const KEY: &str = "ssl_verify";

/// What a section says: false, true, or the path of a file with CAs.
pub(in crate::config) fn verify(section: &Section<'_>) -> Result<Option<Verify>, ConfigError> {
    let Some(verify) = section.boolean_or_text(KEY)? else {
        return Ok(None);
    };
    let path = match verify {
        Ok(true) => return Ok(Some(Verify::System)),
        Ok(false) => {
            let risk = "certificates of upstreams are not verified: whoever answers at their addresses gets the keys";
            section.tell(Kind::INSECURE, KEY, risk);
            return Ok(Some(Verify::Nothing));
        }
        Err(path) => path,
    };
    let read = std::fs::read_to_string(&path);
    let pem =
        read.map_err(|error| section.error(KEY, &format!("the file cannot be read: {error}")))?;
    match reqwest::Certificate::from_pem_bundle(pem.as_bytes()) {
        Ok(certificates) if !certificates.is_empty() => Ok(Some(Verify::Only(pem.into()))),
        _ => Err(section.error(
            KEY,
            "expected true, false, or the path of a file with certificates in PEM",
        )),
    }
}

/// LiteLLM's variable, which says the same.
pub(in crate::config) fn verify_of_environment(
    section: &Section<'_>,
) -> Result<Option<Verify>, ConfigError> {
    let value = section.file.env.get("SSL_VERIFY").unwrap_or_default();
    match value.trim().to_ascii_lowercase().as_str() {
        "false" | "0" | "no" | "off" => {
            let text = "the environment's SSL_VERIFY: certificates of upstreams are not verified";
            section.file.tell(Kind::INSECURE, section.line, None, text);
            Ok(Some(Verify::Nothing))
        }
        "" | "true" | "1" | "yes" | "on" => Ok(None),
        _ => Err(section.file.error(section.line, "the environment's SSL_VERIFY: expected true or false; a file of CAs is named by litellm_settings.ssl_verify")),
    }
}
