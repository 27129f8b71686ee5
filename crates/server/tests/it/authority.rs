//! A CA, and files of certificates that it has signed.

use std::{fs, sync::Arc, time::SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tempfile::TempDir;

/// A CA, and files of certificates that it has signed. `ca.crt` is its own.
pub(crate) struct Authority {
    directory: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// With `server.crt` and `server.key`.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a CA");
        let key = KeyPair::generate().unwrap();
        let authority = Self {
            ca: CertifiedIssuer::self_signed(params, key).unwrap(),
            directory: TempDir::new().unwrap(),
        };
        fs::write(authority.path("ca.crt"), authority.ca.pem()).unwrap();
        authority.sign("server");
        authority
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// `NAME.crt` and `NAME.key`, for localhost, valid for a long time.
    pub(crate) fn sign(&self, name: &str) {
        self.sign_between(name, (1975, 4096));
    }

    /// The same, from the first day of a year to that of another.
    pub(crate) fn sign_between(&self, name: &str, (from, until): (i32, i32)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        fs::write(self.path(&format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// `vorrang_settings.tls` of a certificate, with `more` fields.
    pub(crate) fn setting(&self, name: &str, more: &str) -> String {
        let file = |end: &str| self.path(&format!("{name}.{end}"));
        let (certificate, key) = (file("crt"), file("key"));
        format!("tls: {{certificate: {certificate}, key: {key}{more}}}")
    }

    /// A client that trusts it, with a certificate of `of` where one is named.
    pub(crate) fn client(&self, own: Option<(&Authority, &str)>) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        match own {
            None => client.with_no_client_auth(),
            Some((authority, name)) => {
                let file = |end: &str| authority.path(&format!("{name}.{end}"));
                let certificate = CertificateDer::from_pem_file(file("crt")).unwrap();
                let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
                client
                    .with_client_auth_cert(vec![certificate], key)
                    .unwrap()
            }
        }
    }
}

/// The first moment of a year, in seconds since 1970.
pub(crate) fn beginning_of(year: i32) -> u64 {
    let time = humantime::parse_rfc3339(&format!("{year}-01-01T00:00:00Z")).unwrap();
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}
