//! A Redis that speaks TLS alone and wants to see a certificate of each client: what is refused, and that readiness says why.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use vorrang_tests::{Gateway, Redis, Upstream, config, until};

use crate::redis::serves;

/// The files of two authorities (`ca`, `other-ca`), and of certificates of theirs, for `localhost`.
struct Files {
    directory: TempDir,
    authorities: BTreeMap<&'static str, CertifiedIssuer<'static, KeyPair>>,
}

impl Files {
    fn new() -> Result<Self> {
        let mut files = Self {
            directory: tempfile::tempdir()?,
            authorities: BTreeMap::new(),
        };
        for name in ["ca", "other-ca"] {
            let mut params = CertificateParams::new([])?;
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
            fs::write(files.path(&format!("{name}.crt")), authority.pem())?;
            files.authorities.insert(name, authority);
        }
        files.sign("server", "ca")?;
        files.sign("client", "ca")?;
        files.sign("wrong", "other-ca")?;
        Ok(files)
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// `NAME.crt` and `NAME.key`.
    fn sign(&self, name: &str, authority: &str) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(["localhost".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        let authority = self.authorities.get(authority).context("the authority")?;
        let certificate = params.signed_by(&key, authority)?;
        fs::write(self.path(&format!("{name}.crt")), certificate.pem())?;
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem())?;
        Ok(())
    }

    /// Without a port that speaks anything but TLS.
    async fn redis(&self) -> Result<Redis> {
        let mut redis = Redis::reserve()?;
        let port = redis.port().to_string();
        let (ca, crt, key) = (
            self.path("ca.crt"),
            self.path("server.crt"),
            self.path("server.key"),
        );
        let options = [
            ["--port", "0"],
            ["--tls-port", &port],
            ["--tls-auth-clients", "yes"],
            ["--tls-ca-cert-file", &ca],
            ["--tls-cert-file", &crt],
            ["--tls-key-file", &key],
        ];
        redis.set(&options.concat());
        redis.restart().await?;
        Ok(redis)
    }

    /// Lines of `vorrang_settings`.
    fn settings(&self, url: &str, authority: &str, client: Option<&str>) -> Vec<String> {
        let mut lines = vec![
            format!("redis_url: '{url}'"),
            format!(
                "redis_ssl_ca_certs: '{}'",
                self.path(&format!("{authority}.crt"))
            ),
        ];
        if let Some(client) = client {
            for (setting, end) in [("certfile", "crt"), ("keyfile", "key")] {
                let path = self.path(&format!("{client}.{end}"));
                lines.push(format!("redis_ssl_{setting}: '{path}'"));
            }
        }
        lines
    }
}

#[tokio::test]
async fn redis_that_wants_a_client_certificate_serves_the_right_one_alone() -> Result<()> {
    let files = Files::new()?;
    let redis = files.redis().await?;
    let port = redis.port();
    let (right, by_address) = (
        format!("rediss://localhost:{port}"),
        format!("rediss://127.0.0.1:{port}"),
    );
    let settings = files.settings(&right, "ca", Some("client"));
    serves(
        &[],
        &settings.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await?;

    let plain = format!("redis://localhost:{port}");
    let refused = [
        // The server's authority is not the one that is trusted.
        (
            files.settings(&right, "other-ca", Some("client")),
            "certificate",
        ),
        // The server's certificate is for another name.
        (
            files.settings(&by_address, "ca", Some("client")),
            "not valid for name",
        ),
        // A certificate that the server does not trust: it answers by an alert.
        (files.settings(&right, "ca", Some("wrong")), "alert"),
        (files.settings(&right, "ca", None), "alert"),
        // Without TLS.
        (vec![format!("redis_url: '{plain}'")], "Redis"),
    ];
    let upstream = Upstream::start().await?;
    for (settings, expected) in refused {
        let lines: Vec<&str> = settings.iter().map(String::as_str).collect();
        let gateway =
            Gateway::launch(&config(&upstream.url(), &["rpm: 1"], &[], &lines), &[]).await?;
        let readiness = || gateway.client().get("/health/readiness");
        let what = format!("{expected} for {settings:?}");
        let named = until(&what, readiness, |reply| {
            reply.status == 503 && reply.text.to_lowercase().contains(&expected.to_lowercase())
        });
        let reply = named.await?;
        ensure!(!gateway.log()?.contains("PRIVATE KEY"), "{reply:?}");
    }
    Ok(())
}
