//! Another configuration for a running instance: on SIGHUP, and with `--watch` when its files change.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    signal::unix::Signal,
    time::{MissedTickBehavior, interval},
};
use vorrang_gateway::{
    Config, ConfigError, Loaded, ProcessEnv,
    config::{Diagnostic, Grouped, Level},
};

use crate::{app::App, cli::Settings, metrics::ReloadOutcome};

/// How often files are looked at. A change counts when it has been the same twice: editors write in several steps.
const LOOK: Duration = Duration::from_secs(1);

/// Gives a running server other configurations.
#[derive(Clone)]
pub struct Reloader(pub(crate) Arc<App>);

/// Where other configurations come from, and when they are read.
#[derive(Debug)]
pub struct Options {
    /// The command line's.
    pub settings: Settings,
    /// A configuration without keys is refused.
    pub require_keys: bool,
    /// It is read when one of its files changes, too.
    pub watch: bool,
    /// Those of the configuration in force.
    pub files: Files,
}

/// Files, and what tells that they have changed since they were read.
#[derive(Debug)]
pub struct Files {
    paths: Vec<PathBuf>,
    stamps: Vec<Stamp>,
}

/// When a file was changed, its length, and which file it is. One that is not there has none.
type Stamp = Option<(SystemTime, u64, u64)>;

impl Files {
    /// These have just been read.
    pub fn read_now(paths: Vec<PathBuf>) -> Self {
        let stamps = stamps(&paths);
        Self { paths, stamps }
    }
}

/// Why a configuration is not put in force.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The file is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The start was asked to refuse it.
    #[error("--require-keys: there is no key in it")]
    NoKeys,
}

impl Reloader {
    /// Reads the files again, and puts them in force if they are right. Returns them, or why they change nothing.
    pub fn reload(&self, settings: &Settings, require_keys: bool) -> Result<Loaded, Refused> {
        let result = settings
            .load(&ProcessEnv)
            .map_err(Refused::from)
            .and_then(|loaded| self.put_in_force(loaded, require_keys));
        let outcome = match &result {
            Ok(_) => ReloadOutcome::Applied,
            Err(refused) => {
                say_refused(refused);
                ReloadOutcome::Refused
            }
        };
        self.0.metrics.reloaded(outcome);
        result
    }

    fn put_in_force(&self, loaded: Loaded, require_keys: bool) -> Result<Loaded, Refused> {
        let (old, new) = (self.0.router.config(), Arc::new(loaded.config.clone()));
        if require_keys && new.is_open() {
            return Err(Refused::NoKeys);
        }
        loaded.log();
        let waiting = needs_a_restart(&old, &new);
        if !waiting.is_empty() {
            tracing::warn!(
                settings = waiting.join(", "),
                "these settings change with a restart only"
            );
        }
        let (version, groups) = (new.version.clone(), new.groups.len());
        self.0.reload(new);
        let message = if version == old.version {
            "the files were read again, and say the same"
        } else {
            "another configuration is in force"
        };
        tracing::info!(version, groups, message);
        Ok(loaded)
    }

    /// Reloads at each signal, and, with `watch`, when one of its files changes. Does not end.
    pub async fn run(self, mut options: Options, mut hangup: Signal) {
        let Options {
            settings,
            require_keys,
            watch,
            files,
        } = &mut options;
        let mut before = files.stamps.clone();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(()) = hangup.recv() => {}
                _ = look.tick(), if *watch => {
                    let now = stamps(&files.paths);
                    let settled = now == before;
                    before = now;
                    if !settled || before == files.stamps {
                        continue;
                    }
                }
                // The runtime is ending.
                else => return,
            }
            // What changes while they are read is a change of what was read.
            files.stamps = stamps(&files.paths);
            if let Ok(loaded) = self.reload(settings, *require_keys) {
                let paths = loaded.files;
                if paths != files.paths {
                    *files = Files::read_now(paths);
                }
            }
            before.clone_from(&files.stamps);
        }
    }
}

fn say_refused(refused: &Refused) {
    let diagnostics: &[Diagnostic] = match refused {
        Refused::Config(error) => error.diagnostics(),
        Refused::NoKeys => &[],
    };
    for diagnostic in Grouped::of(diagnostics) {
        if diagnostic.level == Level::Error {
            tracing::error!("{diagnostic}");
        }
    }
    if let Refused::NoKeys = refused {
        tracing::error!("{refused}");
    }
    tracing::error!("the configuration is not changed: the one from before stays in force");
}

/// Settings that differ, and that the process is started with.
fn needs_a_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let other_redis = match (&old.redis, &new.redis) {
        (Some(old), Some(new)) => !old.is_same_server(new),
        (old, new) => old.is_some() != new.is_some(),
    };
    // Its files are read again at any time.
    let tls = |config: &Config| config.tls.as_ref().map(|tls| tls.admin_port);
    let all = [
        ("the queue's Redis", other_redis),
        ("redis_namespace", old.namespace != new.namespace),
        ("admin_port", old.admin_port != new.admin_port),
        ("tls", tls(old) != tls(new)),
        ("cors_origins", old.cors_origins != new.cors_origins),
        (
            "client_write_timeout_seconds",
            old.client_write_timeout != new.client_write_timeout,
        ),
        ("traces", old.traces != new.traces),
        ("grace_seconds", old.grace != new.grace),
        (
            "shutdown_delay_seconds",
            old.shutdown_delay != new.shutdown_delay,
        ),
    ];
    let differing = all.into_iter().filter(|(_, differs)| *differs);
    differing.map(|(name, _)| name).collect()
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let stamp = |file: &PathBuf| {
        // Through links: a mounted ConfigMap changes where they lead.
        let file = std::fs::metadata(file).ok()?;
        Some((file.modified().ok()?, file.len(), file.ino()))
    };
    files.iter().map(stamp).collect()
}
