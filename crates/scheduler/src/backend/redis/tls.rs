//! TLS to Redis: trusted certificates and the client's certificate.

use std::fmt;

use redis::{ClientTlsConfig, ConnectionAddr, ConnectionInfo, TlsCertificates};

use super::BackendError;

/// Certificates for `rediss://`. The server's certificate and its name are always verified.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// PEM: trusted instead of the system's certificates. `None`: the system's, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    pub ca_certificates: Option<String>,
    /// Sent to a server that requests a client certificate.
    pub client: Option<ClientCertificate>,
}

/// A client's certificate with its key.
#[derive(Clone)]
pub struct ClientCertificate {
    /// PEM, followed by intermediate certificates.
    pub certificate: String,
    /// PEM.
    pub key: String,
}

// === impl TlsOptions ===

impl TlsOptions {
    /// The connection settings with these certificates.
    pub(super) fn apply(&self, info: ConnectionInfo) -> Result<ConnectionInfo, BackendError> {
        let malformed = |message: &str| BackendError {
            kind: "config",
            message: message.into(),
        };
        match info.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => {
                return Err(malformed(
                    "Redis' certificate is always verified: expected a URL without #insecure",
                ));
            }
            ConnectionAddr::TcpTls { .. } => {}
            _ if self.ca_certificates.is_none() && self.client.is_none() => return Ok(info),
            _ => {
                return Err(malformed(
                    "certificates for Redis need TLS: expected rediss://",
                ));
            }
        }
        let certificates = TlsCertificates {
            client_tls: self.client.as_ref().map(|client| ClientTlsConfig {
                client_cert: client.certificate.clone().into(),
                client_key: client.key.clone().into(),
            }),
            root_cert: self.ca_certificates.clone().map(Into::into),
        };
        let client = redis::Client::build_with_tls(info, certificates);
        let client =
            client.map_err(|error| malformed(&format!("certificates for Redis: {error}")))?;
        Ok(client.get_connection_info().clone())
    }
}

impl fmt::Debug for TlsOptions {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ca_certificates,
            client,
        } = self;
        f.debug_struct("TlsOptions")
            .field("ca_certificates", &ca_certificates.is_some())
            .field("client", &client.is_some())
            .finish()
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}
