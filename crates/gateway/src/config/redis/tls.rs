//! Redis over TLS: whether it is asked for, and with which certificates.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use secrecy::SecretString;
use vorrang_scheduler::backend::Topology;

use super::{
    RedisTls,
    address::{is_clear, topology},
    arguments::{Arguments, Origin},
    variable,
};
use crate::config::ConfigError;

type Result<T> = std::result::Result<T, ConfigError>;

/// Asks for something stricter than what is done, or for certificates in another form.
const REFUSED: &[(&str, &str)] = &[
    (
        "ssl_ca_path",
        "expected the certificates in one file, as redis_ssl_ca_certs",
    ),
    (
        "ssl_ca_data",
        "expected the certificates in a file, as redis_ssl_ca_certs",
    ),
    (
        "gcp_ssl_ca_certs",
        "expected the certificates as redis_ssl_ca_certs",
    ),
    ("ssl_password", "expected a key file without a password"),
    (
        "ssl_min_version",
        "TLS 1.2 and 1.3 are spoken; leave it out",
    ),
    (
        "ssl_ciphers",
        "only the cipher suites of TLS 1.3 and the AEAD ones of TLS 1.2 are spoken; leave it out",
    ),
    ("ssl_validate_ocsp", "OCSP is not asked; leave it out"),
    (
        "ssl_validate_ocsp_stapled",
        "OCSP is not asked; leave it out",
    ),
    ("ssl_ocsp_context", "OCSP is not asked; leave it out"),
    ("ssl_ocsp_expected_cert", "OCSP is not asked; leave it out"),
    (
        "ssl_include_verify_flags",
        "certificates are verified as Web PKI has it; leave it out",
    ),
];

/// The origin that asks for TLS, if one does. The file comes before the environment, as in LiteLLM.
pub(in crate::config) fn asked<'s, 'a>(
    arguments: &Arguments<'s, 'a>,
) -> Result<Option<Origin<'s, 'a>>> {
    if let Some((section, key)) = arguments.in_file("ssl").into_iter().next() {
        let asked = section.boolean(&key)?.unwrap_or(false);
        return Ok(asked.then_some(Origin::File(section, key)));
    }
    let name = "REDIS_SSL";
    let origin = Origin::Variable(arguments.sections.router, name.into());
    match variable(arguments.sections.env(), name)
        .map(|value| value.trim().to_ascii_lowercase())
        .as_deref()
    {
        None | Some("false" | "0" | "no" | "off") => Ok(None),
        Some("true" | "1" | "yes" | "on") => Ok(Some(origin)),
        Some(_) => Err(origin.error("expected true or false")),
    }
}

/// The certificates for a server. Where TLS or a certificate is asked for, a URL without TLS is an error.
pub(in crate::config) fn tls(arguments: &Arguments<'_, '_>, url: Option<&str>) -> Result<RedisTls> {
    for (name, instead) in REFUSED {
        if let Some(origin) = origins(arguments, name)?.into_iter().next() {
            return Err(origin.error(&format!("is not supported: {instead}")));
        }
    }
    for (section, key) in arguments.in_file("ssl_cert_reqs") {
        let text = section.text(&key)?.unwrap_or_default();
        if !matches!(
            text.to_ascii_lowercase().as_str(),
            "required" | "cert_required"
        ) {
            section.warn(&key, "does nothing: certificates are always verified");
        }
    }
    for (section, key) in arguments.in_file("ssl_check_hostname") {
        if section.boolean(&key)? == Some(false) {
            section.warn(
                &key,
                "does nothing: names in certificates are always verified",
            );
        }
    }
    let asked = asked(arguments)?;
    let ca = file(arguments, "ssl_ca_certs")?;
    let certificate = file(arguments, "ssl_certfile")?;
    let key = file(arguments, "ssl_keyfile")?;
    let text = match url {
        Some(url) if topology(url) == Some(Topology::Socket) => {
            Some("asks for TLS, and a unix socket has none: leave one of them out")
        }
        Some(url) if is_clear(url) => Some(
            "asks for TLS, and the Redis URL has none; expected rediss://, rediss+sentinel:// or rediss+cluster://",
        ),
        _ => None,
    };
    if let Some(text) = text {
        let files = [&ca, &certificate, &key];
        let named = files.into_iter().flatten().map(|(origin, _)| origin).next();
        if let Some(origin) = asked.as_ref().or(named) {
            return Err(origin.error(text));
        }
    }
    let ca_certificates = match ca {
        None => None,
        Some((origin, pem)) => {
            certificates(&origin, &pem)?;
            Some(pem)
        }
    };
    // As in Python, the key may stand in the certificate's file.
    let client = match (certificate, key) {
        (None, None) => None,
        (None, Some((origin, _))) => {
            return Err(origin.error("expected ssl_certfile beside it"));
        }
        (Some((origin, pem)), key) => {
            certificates(&origin, &pem)?;
            let (origin, key) = key.unwrap_or_else(|| (origin, pem.clone()));
            if PrivateKeyDer::from_pem_slice(key.as_bytes()).is_err() {
                return Err(origin.error("expected a private key in PEM format"));
            }
            Some((pem, SecretString::from(key)))
        }
    };
    Ok(RedisTls {
        ca_certificates,
        client,
    })
}

/// All origins where an argument is set, by precedence.
fn origins<'s, 'a>(arguments: &Arguments<'s, 'a>, name: &str) -> Result<Vec<Origin<'s, 'a>>> {
    let mut origins = Vec::new();
    for (section, key) in arguments.in_file(name) {
        if section.asks(&key)? {
            origins.push(Origin::File(section, key));
        }
    }
    let upper = format!("REDIS_{}", name.to_ascii_uppercase());
    if let Some(value) = variable(arguments.sections.env(), &upper)
        && !matches!(value.to_ascii_lowercase().as_str(), "false" | "0" | "no")
    {
        origins.push(Origin::Variable(arguments.sections.router, upper));
    }
    Ok(origins)
}

/// A file that is named, and what is in it.
fn file<'s, 'a>(
    arguments: &Arguments<'s, 'a>,
    name: &str,
) -> Result<Option<(Origin<'s, 'a>, String)>> {
    let Some(origin) = origins(arguments, name)?.into_iter().next() else {
        return Ok(None);
    };
    let path = match &origin {
        Origin::File(section, key) => section.required(key)?,
        Origin::Variable(_, variable) => arguments.sections.env().get(variable).unwrap_or_default(),
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((origin, text))),
        Err(error) => Err(origin.error(&format!("the file cannot be read: {error}"))),
    }
}

fn certificates(origin: &Origin<'_, '_>, pem: &str) -> Result<()> {
    let mut all = CertificateDer::pem_slice_iter(pem.as_bytes()).peekable();
    if all.peek().is_none() || all.any(|one| one.is_err()) {
        return Err(origin.error("expected certificates in PEM format"));
    }
    Ok(())
}
