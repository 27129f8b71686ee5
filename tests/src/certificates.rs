//! [`Certificates`]: an authority, and a server of this machine that it trusts.

use std::{fs, path::PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

/// Files that end with their handle.
#[derive(Debug)]
pub struct Certificates {
    directory: TempDir,
}

impl Certificates {
    /// Makes an authority, and a certificate for 127.0.0.1.
    ///
    /// # Errors
    /// They cannot be made or written.
    pub fn new() -> Result<Self> {
        let mut authority = CertificateParams::new([])?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let mut server = CertificateParams::new(["127.0.0.1".to_owned()])?;
        // Named like its issuer it would count as signed by itself.
        server.distinguished_name.push(DnType::CommonName, "server");
        let certificate = server.signed_by(&key, &authority)?;
        let directory = tempfile::tempdir()?;
        let made = Self { directory };
        fs::write(made.authority(), authority.pem())?;
        fs::write(made.path("server.crt"), certificate.pem())?;
        fs::write(made.path("server.key"), key.serialize_pem())?;
        Ok(made)
    }

    /// The file with the authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.path("ca.crt")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Settings of a redis-server that speaks TLS at this port, to others too.
    pub(crate) fn settings(&self, port: u16) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.path(name).display().to_string();
        vec![
            ("tls-port", port.to_string()),
            ("tls-replication", "yes".to_owned()),
            ("tls-auth-clients", "no".to_owned()),
            ("tls-ca-cert-file", path("ca.crt")),
            ("tls-cert-file", path("server.crt")),
            ("tls-key-file", path("server.key")),
        ]
    }
}
