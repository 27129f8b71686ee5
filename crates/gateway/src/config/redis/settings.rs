//! How to reach Redis, in full.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use vorrang_scheduler::backend::{
    BackendError, ClientCertificate, RedisBackend, RedisOptions, TlsOptions,
};

use super::{Reached, Sections, redis};
use crate::config::{
    ConfigError, Env,
    read::{File, Section, syntax},
};

/// How to reach Redis.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RedisSettings {
    /// One server (`redis://`, `unix://`), the service of sentinels (`redis+sentinel://`) or a cluster (`redis+cluster://`), with TLS
    /// or without, with the password of the servers.
    pub url: SecretString,
    /// Prefix of every key.
    pub namespace: String,
    /// The user of the sentinels themselves.
    pub sentinel_username: Option<String>,
    /// The password of the sentinels themselves.
    pub sentinel_password: Option<SecretString>,
    /// Each step waits until so many replicas have it; 0: for none.
    pub wait_replicas: u32,
    /// For TLS.
    pub tls: RedisTls,
}

/// Certificates for Redis over TLS.
#[derive(Clone, Default)]
pub struct RedisTls {
    /// PEM; trusted instead of the system's. `None`: the system's, or those of `SSL_CERT_FILE`.
    pub ca_certificates: Option<String>,
    /// PEM: the client's certificate, and its key.
    pub(super) client: Option<(String, SecretString)>,
}

impl RedisSettings {
    /// A URL and nothing else.
    pub fn new(url: impl Into<SecretString>, namespace: &str) -> Self {
        Self {
            url: url.into(),
            namespace: namespace.into(),
            sentinel_username: None,
            sentinel_password: None,
            wait_replicas: 0,
            tls: RedisTls::default(),
        }
    }

    /// A URL without a file: what it does not say comes from the environment's `REDIS_SENTINEL_USERNAME`, `REDIS_SENTINEL_PASSWORD`,
    /// `REDIS_SSL` and `REDIS_SSL_*`.
    ///
    /// # Errors
    /// The URL or a certificate cannot be used.
    pub fn from_url(
        url: &SecretString,
        namespace: &str,
        env: &dyn Env,
    ) -> Result<Self, ConfigError> {
        let root = syntax::parse("{}", "", env)?;
        let file = File::new(&[], env);
        let root = Section::new(&file, String::new(), &root)?;
        let sections = Sections {
            ours: &root.empty("vorrang_settings"),
            router: &root.empty("router_settings"),
            litellm: &root.empty("litellm_settings"),
            general: &root.empty("general_settings"),
            kwargs: &root.empty("cache_kwargs"),
        };
        let reached = redis(&sections, Some(url), false)?;
        let new = Self::new(url.clone(), namespace);
        Ok(reached.map_or(new, |reached| reached.named(namespace)))
    }

    /// Prepares the backend; a connection is made when it is used first. Needs a tokio runtime.
    ///
    /// # Errors
    /// The URL or a certificate cannot be used.
    pub fn connect(&self) -> Result<Arc<RedisBackend>, BackendError> {
        let certificate = |(certificate, key): (&str, &str)| ClientCertificate {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        let password = self.sentinel_password.as_ref();
        RedisBackend::connect(&RedisOptions {
            namespace: self.namespace.clone(),
            sentinel_username: self.sentinel_username.clone(),
            sentinel_password: password.map(|password| password.expose_secret().to_owned()),
            wait_replicas: self.wait_replicas,
            tls: TlsOptions {
                ca_certificates: self.tls.ca_certificates.clone(),
                client: self.tls.client().map(certificate),
            },
            ..RedisOptions::new(self.url.expose_secret())
        })
    }

    /// Whether a running process would have to connect anew.
    pub fn is_same_server(&self, other: &Self) -> bool {
        let of = |one: &Self| {
            let password = one.sentinel_password.as_ref();
            (
                one.url.expose_secret().to_owned(),
                one.sentinel_username.clone(),
                password.map(|password| password.expose_secret().to_owned()),
                one.wait_replicas,
                one.tls.ca_certificates.clone(),
                one.tls
                    .client()
                    .map(|(certificate, key)| (certificate.to_owned(), key.to_owned())),
            )
        };
        of(self) == of(other)
    }
}

impl Reached {
    pub(in crate::config) fn named(self, namespace: &str) -> RedisSettings {
        RedisSettings {
            url: self.url,
            namespace: namespace.into(),
            sentinel_username: self.sentinel_username,
            sentinel_password: self.sentinel_password,
            wait_replicas: self.wait_replicas,
            tls: self.tls,
        }
    }
}

impl std::fmt::Debug for RedisTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            ca_certificates,
            client,
        } = self;
        f.debug_struct("RedisTls")
            .field("ca_certificates", &ca_certificates.is_some())
            .field("client", &client.is_some())
            .finish()
    }
}

impl RedisTls {
    /// The client's certificate and its key, both PEM.
    pub fn client(&self) -> Option<(&str, &str)> {
        let (certificate, key) = self.client.as_ref()?;
        Some((certificate, key.expose_secret()))
    }
}
