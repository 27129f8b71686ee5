//! TLS at the listeners: `vorrang_settings.tls`, and LiteLLM's `--ssl_certfile_path` and `--ssl_keyfile_path`.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use sha2::{Digest as _, Sha256};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use crate::config::{ConfigError, Diagnostic, Kind, Loaded, read::Section};

const CERTIFICATE: &str = "certificate";
const KEY: &str = "key";
const CLIENT_CA: &str = "client_ca";

/// TLS at the listeners.
#[derive(Debug, Clone)]
pub struct ListenerTls {
    /// What these files hold.
    pub identity: TlsIdentity,
    /// The admin port speaks TLS, too.
    pub admin_port: bool,
}

/// The files of a listener's certificate, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and its CA.
    pub certificate: PathBuf,
    /// Its private key, without a password.
    pub key: PathBuf,
    /// CAs of clients: each has to have a certificate of theirs. `None`: none is asked for.
    pub client_ca: Option<PathBuf>,
}

/// A certificate that a listener can use, as it was in its files.
#[derive(Clone)]
pub struct TlsIdentity {
    /// Where it came from.
    pub files: TlsFiles,
    /// For the handshakes: TLS 1.2 and 1.3, with `h2` and `http/1.1`.
    pub server: Arc<ServerConfig>,
    /// When it expires.
    pub expires: SystemTime,
    /// Until then it is not valid.
    begins: SystemTime,
    digest: TlsDigest,
}

/// Tells contents of files from one another. Nothing of a key can be found out from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsDigest([u8; 32]);

/// The contents of files, read but not looked at.
pub struct TlsContents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Why files cannot be used: which, and what was expected. It shows nothing of their contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} ({path}): {message}")]
pub struct TlsError {
    setting: &'static str,
    path: String,
    message: String,
    unreadable: bool,
}

type Result<T> = std::result::Result<T, TlsError>;

// === impl TlsFiles ===

impl TlsFiles {
    /// Reads the files. It blocks.
    pub fn read(&self) -> Result<TlsContents> {
        let read = |setting: &'static str, path: &PathBuf| {
            let unreadable = |error: io::Error| TlsError {
                unreadable: true,
                ..self.error(setting, format!("the file cannot be read: {error}"))
            };
            std::fs::read(path).map_err(unreadable)
        };
        Ok(TlsContents {
            certificate: read(CERTIFICATE, &self.certificate)?,
            key: read(KEY, &self.key)?,
            client_ca: self
                .client_ca
                .as_ref()
                .map(|path| read(CLIENT_CA, path))
                .transpose()?,
        })
    }

    /// Makes a certificate of their contents.
    pub fn identity(&self, contents: &TlsContents) -> Result<TlsIdentity> {
        let chain = self.certificates(CERTIFICATE, &contents.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key);
        let key = key.map_err(|_| {
            self.error(
                KEY,
                "expected a private key in PEM format, without a password",
            )
        })?;
        let (begins, expires) = self.validity(&chain)?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| self.error(CERTIFICATE, error.to_string()))?;
        let builder = match &contents.client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for one in self.certificates(CLIENT_CA, pem)? {
                    let unfit = |_| self.error(CLIENT_CA, "expected certificates of CAs");
                    roots.add(one).map_err(unfit)?;
                }
                let provider = Arc::new(ring::default_provider());
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| self.error(CLIENT_CA, error.to_string()))?,
                )
            }
        };
        let mut server = builder.with_single_cert(chain, key).map_err(|error| {
            let text = match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("the key is not that of {CERTIFICATE}")
                }
                other => other.to_string(),
            };
            self.error(KEY, text)
        })?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Clients that come again need no signature. Its keys live as long as this configuration: no ticket outlives a reload.
        if let Ok(ticketer) = ring::Ticketer::new() {
            server.ticketer = ticketer;
        }
        Ok(TlsIdentity {
            files: self.clone(),
            server: Arc::new(server),
            expires,
            begins,
            digest: contents.digest(),
        })
    }

    /// Reads the files, and makes a certificate of them. It blocks.
    pub fn load(&self) -> Result<TlsIdentity> {
        self.identity(&self.read()?)
    }

    fn certificates(
        &self,
        setting: &'static str,
        pem: &[u8],
    ) -> Result<Vec<CertificateDer<'static>>> {
        let all: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match all {
            Ok(all) if !all.is_empty() => Ok(all),
            _ => Err(self.error(setting, "expected certificates in PEM format")),
        }
    }

    /// From when and until when the certificate itself is valid: clients may know other ways from it to a CA than the file's.
    fn validity(&self, chain: &[CertificateDer<'_>]) -> Result<(SystemTime, SystemTime)> {
        let parsed = chain
            .first()
            .and_then(|der| Some(X509Certificate::from_der(der).ok()?.1));
        let parsed =
            parsed.ok_or_else(|| self.error(CERTIFICATE, "expected X.509 certificates"))?;
        let validity = parsed.validity();
        Ok((
            time(validity.not_before.timestamp()),
            time(validity.not_after.timestamp()),
        ))
    }

    fn error(&self, setting: &'static str, message: impl Into<String>) -> TlsError {
        let path = match setting {
            CERTIFICATE => Some(&self.certificate),
            KEY => Some(&self.key),
            _ => self.client_ca.as_ref(),
        };
        TlsError {
            setting,
            path: path
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
            message: message.into(),
            unreadable: false,
        }
    }
}

fn time(seconds: i64) -> SystemTime {
    let since = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(since)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(since)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

// === impl TlsContents ===

impl TlsContents {
    /// What tells them from others.
    pub fn digest(&self) -> TlsDigest {
        let mut hash = Sha256::new();
        for part in [
            Some(&self.certificate),
            Some(&self.key),
            self.client_ca.as_ref(),
        ] {
            let part = part.map(Vec::as_slice).unwrap_or_default();
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        TlsDigest(hash.finalize().into())
    }
}

/// The key is secret.
impl fmt::Debug for TlsContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsContents").finish_non_exhaustive()
    }
}

// === impl TlsIdentity ===

impl TlsIdentity {
    /// Of the contents that it was made of.
    pub fn digest(&self) -> TlsDigest {
        self.digest
    }

    /// What clients will object to by now.
    pub fn objection(&self) -> Option<&'static str> {
        let now = SystemTime::now();
        if self.expires < now {
            return Some("the certificate has expired: clients refuse it");
        }
        (now < self.begins).then_some("the certificate is not valid yet: clients refuse it")
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("files", &self.files)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// `vorrang_settings.tls`.
pub(in crate::config) fn tls(
    ours: &Section<'_>,
) -> std::result::Result<Option<ListenerTls>, ConfigError> {
    if !ours.has("tls") {
        ours.pass_over("tls");
        return Ok(None);
    }
    let section = ours.section("tls")?;
    section.refuse_unknown("certificate, key, client_ca, admin_port");
    let admin_port = section.boolean("admin_port")?.unwrap_or(true);
    let files = TlsFiles {
        certificate: section.required(CERTIFICATE)?.into(),
        key: section.required(KEY)?.into(),
        client_ca: section.name(CLIENT_CA)?.map(PathBuf::from),
    };
    let identity = files.load().map_err(|error| {
        let kind = error.kind();
        section.error_of(kind, error.setting, &error.message)
    })?;
    if let Some(objection) = identity.objection() {
        section.tell(Kind::EXPIRED, CERTIFICATE, objection);
    }
    Ok(Some(ListenerTls {
        identity,
        admin_port,
    }))
}

impl TlsError {
    fn kind(&self) -> Kind {
        if self.unreadable {
            Kind::UNREADABLE
        } else {
            Kind::INVALID
        }
    }
}

impl Loaded {
    /// With the command line's certificate and key, where they are given: they come before the file's.
    ///
    /// # Errors
    /// They cannot be used, or one of them is missing.
    pub fn with_certificate(
        mut self,
        certificate: Option<&Path>,
        key: Option<&Path>,
    ) -> std::result::Result<Self, ConfigError> {
        let about = |kind, setting: &str, message: &str| Diagnostic {
            key: Some(option(setting).to_owned()),
            ..Diagnostic::new(kind, message)
        };
        let (certificate, key) = match (certificate, key) {
            (None, None) => return Ok(self),
            (Some(certificate), Some(key)) => (certificate.into(), key.into()),
            // It asks for TLS, and plain HTTP would be served.
            (one, _) => {
                let missing = if one.is_none() { CERTIFICATE } else { KEY };
                let text = "is missing: a certificate and its key belong together";
                return Err(about(Kind::MISSING, missing, text).into());
            }
        };
        let before = self.config.tls.take();
        let files = TlsFiles {
            certificate,
            key,
            client_ca: before
                .as_ref()
                .and_then(|tls| tls.identity.files.client_ca.clone()),
        };
        let identity = files
            .load()
            .map_err(|error| about(error.kind(), error.setting, &error.message))?;
        if let Some(objection) = identity.objection() {
            self.diagnostics
                .push(about(Kind::EXPIRED, CERTIFICATE, objection));
        }
        self.config.tls = Some(ListenerTls {
            identity,
            admin_port: before.is_none_or(|tls| tls.admin_port),
        });
        Ok(self)
    }
}

fn option(setting: &str) -> &str {
    match setting {
        CERTIFICATE => "--ssl_certfile_path",
        KEY => "--ssl_keyfile_path",
        _ => "vorrang_settings.tls.client_ca",
    }
}
