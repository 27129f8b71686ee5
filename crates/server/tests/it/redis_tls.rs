//! A Redis that only speaks TLS, with certificates of a CA of its own.

use std::{collections::BTreeMap, fs};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use vorrang_gateway::Config;
use vorrang_server::Patience;

use crate::{
    binary::{Serving, file, until, vorrang},
    redis::{Redis, free_port, reason},
    support::{Gateway, MOCKS},
};

/// A CA, and files of certificates that it has signed.
struct Files {
    directory: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let files = Self {
            ca: CertifiedIssuer::self_signed(params, key).unwrap(),
            directory: TempDir::new().unwrap(),
        };
        fs::write(files.path("ca.crt"), files.ca.pem()).unwrap();
        files.sign("server");
        files
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// `NAME.crt` and `NAME.key`, for localhost.
    fn sign(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        // Named like its issuer it would count as signed by itself.
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        fs::write(self.path(&format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// A server on this port that only speaks TLS.
    async fn redis(&self, port: u16, clients: &str) -> Redis {
        let port_text = port.to_string();
        let (ca, certificate, key) = (
            self.path("ca.crt"),
            self.path("server.crt"),
            self.path("server.key"),
        );
        let options = [
            "--tls-port",
            &port_text,
            "--tls-auth-clients",
            clients,
            "--tls-ca-cert-file",
            &ca,
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
        ];
        let redis = Redis::start(0, &options);
        Redis::until_there(port).await;
        redis
    }
}

/// The first instance on an empty Redis is ready after a lease.
fn text(router: &str) -> String {
    format!("{MOCKS}router_settings: {{{router}}}\nvorrang_settings: {{lease_seconds: 0.6}}\n")
}

fn config(router: &str) -> Config {
    Config::parse(&text(router), "test.yaml", &BTreeMap::new())
        .unwrap()
        .config
}

#[tokio::test]
async fn redis_certificate_of_a_configured_ca_is_trusted() {
    let (files, port) = (Files::new(), free_port());
    let _redis = files.redis(port, "no").await;
    let ca = files.path("ca.crt");
    for router in [
        format!("redis_url: 'rediss://localhost:{port}', redis_ssl_ca_certs: '{ca}'"),
        format!("redis_host: localhost, redis_port: {port}, redis_ssl: true, ssl_ca_certs: '{ca}'"),
    ] {
        // Waits until it is ready.
        Gateway::serve(config(&router), Patience::default()).await;
    }
}

#[tokio::test]
async fn redis_with_an_unknown_certificate_is_refused_and_readiness_names_the_reason() {
    let (files, port) = (Files::new(), free_port());
    let _redis = files.redis(port, "no").await;
    let router = format!("redis_url: 'rediss://localhost:{port}'");
    let gateway = Gateway::begin(config(&router), Patience::default()).await;
    gateway
        .until("the reason", || async {
            reason(&gateway).await.contains("certificate")
        })
        .await;
}

#[tokio::test]
async fn client_certificate_is_sent_to_redis() {
    let (files, port) = (Files::new(), free_port());
    let _redis = files.redis(port, "yes").await;
    files.sign("client");
    let (ca, certificate, key) = (
        files.path("ca.crt"),
        files.path("client.crt"),
        files.path("client.key"),
    );
    let router = format!(
        "redis_url: 'rediss://localhost:{port}', ssl_ca_certs: '{ca}', ssl_certfile: '{certificate}', ssl_keyfile: '{key}'"
    );
    Gateway::serve(config(&router), Patience::default()).await;
    let router = format!("redis_url: 'rediss://localhost:{port}', ssl_ca_certs: '{ca}'");
    let gateway = Gateway::begin(config(&router), Patience::default()).await;
    assert_ne!(reason(&gateway).await, "ready");
}

#[tokio::test]
async fn certificates_in_ssl_cert_file_are_trusted() {
    let (files, port) = (Files::new(), free_port());
    let _redis = files.redis(port, "no").await;
    let config = file(&text(&format!("redis_url: 'rediss://localhost:{port}'")));
    let path = config.path().display().to_string();
    let mut command = vorrang(&["--host", "127.0.0.1", "--port", "0", "--config", &path]);
    command.env("SSL_CERT_FILE", files.path("ca.crt"));
    // The log of all polls is not read.
    command.stderr(std::process::Stdio::null());
    let serving = Serving::start(command);
    until("ready", || {
        serving.get("/health/readiness").starts_with("HTTP/1.1 200")
    });
}
