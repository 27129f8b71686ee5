//! The listeners' certificate: it is read again when its files change, and no connection ends for that.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::TlsAcceptor;
use vorrang_gateway::config::{ListenerTls, TlsContents, TlsDigest, TlsError, TlsIdentity};

use crate::metrics::{Metrics, ReloadOutcome};

/// How often the files are read. What was written counts when it has been the same twice: the certificate and its key are two files.
const LOOK: Duration = Duration::from_secs(1);

/// The certificate in use. Connections keep that of their handshake.
#[derive(Debug)]
pub(crate) struct Certificates {
    in_use: ArcSwap<TlsIdentity>,
    /// The admin port speaks TLS, too.
    admin_port: bool,
    metrics: Arc<Metrics>,
}

/// What a look at the files has found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Contents(TlsDigest),
    Unreadable(TlsError),
}

// === impl Certificates ===

impl Certificates {
    pub(crate) fn new(tls: &ListenerTls, metrics: Arc<Metrics>) -> Self {
        Self {
            in_use: ArcSwap::from_pointee(tls.identity.clone()),
            admin_port: tls.admin_port,
            metrics,
        }
    }

    /// For the next handshake.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.in_use.load().server.clone().into()
    }

    /// Whether the admin port speaks TLS, too.
    pub(crate) fn at_admin_port(&self) -> bool {
        self.admin_port
    }

    /// When the certificate in use expires.
    pub(crate) fn expires(&self) -> SystemTime {
        self.in_use.load().expires
    }

    /// Uses what another configuration says, from the next handshake on.
    pub(crate) fn replace(&self, identity: TlsIdentity) {
        let before = self.in_use.load().digest();
        if identity.digest() != before {
            self.metrics.certificate_read(ReloadOutcome::Applied);
            let expires = expiry(&identity);
            tracing::info!(expires, "another certificate is in use");
        }
        self.in_use.store(Arc::new(identity));
    }

    /// Looks at the files for ever.
    pub(crate) async fn watch(&self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = None;
        // What has been refused is not refused again each second.
        let mut refused = None;
        loop {
            look.tick().await;
            let in_use = self.in_use.load_full();
            let files = in_use.files.clone();
            // A file system may take its time.
            let Ok(read) = spawn_blocking(move || files.read()).await else {
                return;
            };
            let found = match &read {
                Ok(contents) => Found::Contents(contents.digest()),
                Err(error) => Found::Unreadable(error.clone()),
            };
            let settled = before.as_ref() == Some(&found);
            before = Some(found.clone());
            if found == Found::Contents(in_use.digest()) {
                refused = None;
            } else if settled && refused.as_ref() != Some(&found) {
                refused = self.look_at(&in_use, read).is_err().then_some(found);
            }
        }
    }

    fn look_at(
        &self,
        in_use: &TlsIdentity,
        read: Result<TlsContents, TlsError>,
    ) -> Result<(), String> {
        let identity = read.and_then(|contents| in_use.files.identity(&contents));
        let identity = identity.map_err(|error| error.to_string());
        let usable = identity.and_then(|new| match (new.objection(), in_use.objection()) {
            (Some(objection), None) => Err(objection.to_owned()),
            _ => Ok(new),
        });
        match usable {
            Ok(identity) => {
                self.replace(identity);
                Ok(())
            }
            Err(error) => {
                self.metrics.certificate_read(ReloadOutcome::Refused);
                let expires = expiry(in_use);
                tracing::error!(error, expires, "the certificate from before stays in use");
                Err(error)
            }
        }
    }
}

fn expiry(identity: &TlsIdentity) -> String {
    humantime::format_rfc3339_seconds(identity.expires).to_string()
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;
    use tokio::time::sleep;
    use vorrang_gateway::config::TlsFiles;

    use super::*;

    /// A look that falls between the two sees files that do not belong together.
    #[tokio::test(start_paused = true)]
    async fn certificate_and_key_may_be_written_one_after_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let write_certificate = || {
            let new = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            std::fs::write(path("crt"), new.cert.pem()).unwrap();
            new.signing_key.serialize_pem()
        };
        let write_key = |key: String| std::fs::write(path("key"), key).unwrap();
        write_key(write_certificate());
        let files = TlsFiles {
            certificate: path("crt"),
            key: path("key"),
            client_ca: None,
        };
        let tls = ListenerTls {
            identity: files.load().unwrap(),
            admin_port: true,
        };
        let metrics = Arc::<Metrics>::default();
        let certificates = Arc::new(Certificates::new(&tls, metrics.clone()));
        let watched = tokio::spawn({
            let certificates = certificates.clone();
            async move { certificates.watch().await }
        });
        let counts = || {
            let count = |outcome| metrics.certificates_read(outcome);
            (count(ReloadOutcome::Applied), count(ReloadOutcome::Refused))
        };
        sleep(LOOK / 2).await;
        let key = write_certificate();
        sleep(LOOK).await;
        write_key(key);
        sleep(LOOK * 3).await;
        assert_eq!(counts(), (1, 0));
        // One that stays alone is said once.
        drop(write_certificate());
        sleep(LOOK * 5).await;
        assert_eq!(counts(), (1, 1));
        assert!(!watched.is_finished());
        watched.abort();
    }
}
