//! [`Gateway`]: one running `vorrang`.

use std::{
    env::{current_exe, var_os},
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    sync::OnceLock,
    time::UNIX_EPOCH,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{client::Client, process::Process, wait::until};

/// The name of an instance's configuration in its directory.
const CONFIG: &str = "config.yaml";

/// A `vorrang` process. Ends with its handle.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    directory: TempDir,
    url: String,
    client: Client,
}

/// What an instance is started with.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Its `config.yaml`.
    pub config: String,
    /// Its environment, beside the path.
    pub env: Vec<(&'static str, String)>,
    /// Another `vorrang` than the one under test.
    pub executable: Option<PathBuf>,
    /// How many descriptors it may have open (`ulimit -n`).
    pub files: Option<u32>,
}

/// A configuration of one group, `model`, with one deployment at `api_base`.
///
/// `limits` are lines of its `litellm_params` (`rpm: 10`), `ours` of `vorrang_settings`, `router` of `router_settings`.
pub fn config(api_base: &str, limits: &[&str], router: &[&str], ours: &[&str]) -> String {
    let lines = |indent: &str, lines: &[&str]| -> String {
        let lines = lines.iter().map(|line| format!("\n{indent}{line}"));
        lines.collect()
    };
    let limits = lines("      ", limits);
    let section = |name: &str, content: &[&str]| match content {
        [] => String::new(),
        content => format!("{name}:{}\n", lines("  ", content)),
    };
    format!(
        "model_list:
  - model_name: model
    litellm_params:
      model: openai/upstream-model
      api_base: {api_base}
      api_key: upstream-key{limits}
    model_info:
      id: first
{}{}",
        section("router_settings", router),
        section("vorrang_settings", ours),
    )
}

// === impl Start ===

impl From<String> for Start {
    /// With this configuration.
    fn from(config: String) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }
}

// === impl Gateway ===

impl Gateway {
    /// Starts one with this configuration on a free port, and waits until it is ready.
    ///
    /// # Errors
    /// It does not start, or does not get ready.
    pub async fn start(config: &str) -> Result<Self> {
        let gateway = Self::launch(config, &[]).await?;
        gateway.ready().await?;
        Ok(gateway)
    }

    /// Starts one and waits until it listens. `env`: its environment, beside the path.
    ///
    /// # Errors
    /// It does not start.
    pub async fn launch(config: &str, env: &[(&str, &str)]) -> Result<Self> {
        Self::configured(config, command(env)?).await
    }

    /// The same, with all that can be said of a start.
    ///
    /// # Errors
    /// It does not start.
    pub async fn launch_as(start: &Start) -> Result<Self> {
        let executable = match &start.executable {
            Some(path) => path,
            None => executable()?,
        };
        let command = match start.files {
            None => Command::new(executable),
            Some(files) => {
                let mut command = Command::new("sh");
                let limited = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
                command.args(["-c", &limited]).arg(executable);
                command
            }
        };
        let env = start
            .env
            .iter()
            .map(|(name, value)| (*name, value.as_str()));
        Self::configured(&start.config, with_environment(command, env)).await
    }

    async fn configured(config: &str, mut command: Command) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join(CONFIG);
        fs::write(&file, config)?;
        command.arg("--config").arg(file);
        Self::run(directory, command).await
    }

    /// Gives it another configuration while it runs (SIGHUP), and waits until that is in force.
    ///
    /// # Errors
    /// It refuses the configuration, or does not run.
    pub async fn reconfigure(&self, config: &str) -> Result<()> {
        let applied = || self.metric("vorrang_config_reloads_total", "outcome=\"applied\"");
        let before = applied().await?;
        fs::write(self.directory.path().join(CONFIG), config)?;
        self.process.signal(Signal::HUP)?;
        until("another configuration", applied, |now| *now > before).await?;
        Ok(())
    }

    /// Starts one without a configuration: the demo.
    ///
    /// # Errors
    /// It does not start.
    pub async fn demo(env: &[(&str, &str)]) -> Result<Self> {
        Self::run(tempfile::tempdir()?, command(env)?).await
    }

    /// Starts the demo with these arguments.
    ///
    /// # Errors
    /// It does not start.
    pub async fn demo_with(args: &[&str]) -> Result<Self> {
        let mut command = command(&[])?;
        command.args(args);
        Self::run(tempfile::tempdir()?, command).await
    }

    async fn run(directory: TempDir, mut command: Command) -> Result<Self> {
        command.args(["--host", "127.0.0.1", "--port", "0"]);
        let mut process = Process::start("vorrang", command, directory.path())?;
        let listening = |text: &str| {
            let (_, after) = text.split_once("listening on ")?;
            Some(after.split_once('\n')?.0.trim().to_owned())
        };
        let url = process.printed(listening).await?;
        let client = Client::new(&url)?;
        Ok(Self {
            process,
            directory,
            url,
            client,
        })
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// It never does.
    pub async fn ready(&self) -> Result<()> {
        let look = || self.client.get("/health/readiness");
        until("readiness", look, |reply| reply.status == 200).await?;
        Ok(())
    }

    /// Where it serves: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A client of it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The sum over all labels of a metric whose labels contain `labels`; 0 if it is not there.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let page = self.client.get("/metrics").await?;
        ensure!(page.status == 200, "/metrics answered {page:?}");
        let mut sum = 0.0;
        for line in page.text.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let series_name = series.split('{').next().unwrap_or_default();
            if series_name == name && series.contains(labels) {
                sum += value.parse::<f64>().with_context(|| line.to_owned())?;
            }
        }
        Ok(sum)
    }

    /// Waits until this many tickets wait on this instance.
    ///
    /// # Errors
    /// They never do.
    pub async fn waiting(&self, count: u32) -> Result<()> {
        let look = || self.metric("vorrang_waiting", "");
        #[expect(clippy::float_cmp, reason = "both are small whole numbers")]
        let holds = |waiting: &f64| *waiting == f64::from(count);
        until(&format!("{count} waiting"), look, holds).await?;
        Ok(())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// How much memory it has, in bytes (`VmRSS`).
    ///
    /// # Errors
    /// It does not run.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let size = line.and_then(|line| line.split_whitespace().next());
        Ok(size.context("no VmRSS")?.parse::<u64>()? * 1024)
    }

    /// How many descriptors it has open.
    ///
    /// # Errors
    /// It does not run.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.process.id()))?.count())
    }

    /// What it printed to stdout.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn stdout(&self) -> Result<String> {
        self.process.stdout()
    }

    /// Its log.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn log(&self) -> Result<String> {
        self.process.stderr()
    }

    /// When it dispatched each call to its upstream, by its log: microseconds since 1970.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn dispatches(&self) -> Result<Vec<u64>> {
        self.dispatches_of(|_| true)
    }

    /// The same, of groups with such a name.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn dispatches_of(&self, is_asked: impl Fn(&str) -> bool) -> Result<Vec<u64>> {
        let mut times = Vec::new();
        for line in self.log()?.lines() {
            let Ok(line) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            let group = line["group"].as_str().unwrap_or_default();
            if line["message"] == "dispatched" && is_asked(group) {
                let at = line["timestamp"].as_str().unwrap_or_default();
                let at = humantime::parse_rfc3339(at)?.duration_since(UNIX_EPOCH)?;
                times.push(u64::try_from(at.as_micros())?);
            }
        }
        Ok(times)
    }

    /// Ends it as `kill -9` does.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Asks it to end (SIGTERM).
    ///
    /// # Errors
    /// It does not run.
    pub fn terminate(&self) -> Result<()> {
        self.process.signal(Signal::TERM)
    }

    /// Stops it where it is (SIGSTOP), until [`Gateway::thaw`].
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// Undoes [`Gateway::freeze`].
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It has not.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        self.process.ended().await
    }
}

/// Runs `vorrang` with these arguments until it ends. `config` becomes the file `config.yaml` in its directory.
///
/// # Errors
/// It cannot be run.
pub fn run(config: &str, args: &[&str], env: &[(&str, &str)]) -> Result<Output> {
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join(CONFIG), config)?;
    let mut command = command(env)?;
    command.args(args).current_dir(directory.path());
    Ok(command.output()?)
}

/// `vorrang` with this environment and nothing else: what is set where the tests run changes nothing.
fn command(env: &[(&str, &str)]) -> Result<Command> {
    let command = Command::new(executable()?);
    Ok(with_environment(command, env.iter().copied()))
}

fn with_environment<'a>(
    mut command: Command,
    env: impl Iterator<Item = (&'a str, &'a str)>,
) -> Command {
    // With the moments of dispatch: Gateway::dispatches.
    let log = ("RUST_LOG", "info,vorrang_gateway::attempt=debug");
    command.env_clear().env(log.0, log.1);
    command.envs(env);
    for name in ["PATH", "HOME", "TMPDIR"] {
        if let Some(value) = var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// The `vorrang` under test: `VORRANG_BIN`, or what cargo builds of this source with the tests' profile.
///
/// # Errors
/// It cannot be built.
pub fn executable() -> Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let path = BUILT.get_or_init(|| match var_os("VORRANG_BIN") {
        Some(path) => Ok(path.into()),
        None => build().map_err(|error| format!("{error:#}")),
    });
    path.as_deref().map_err(|error| anyhow!("{error}"))
}

fn build() -> Result<PathBuf> {
    // TARGET/PROFILE/deps/it-0123456789abcdef
    let test = current_exe()?;
    let profile = test.parent().and_then(Path::parent);
    let profile = profile.context("the test's executable is in no target directory")?;
    let target = profile
        .parent()
        .context("the profile is in no target directory")?;
    let name = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => bail!("the profile has no name"),
    };
    let built = Command::new(var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        // The workspace: the features are then those of a test run of the whole, and nothing is built twice.
        .args(["build", "--quiet", "--workspace", "--bin", "vorrang"])
        .args(["--profile", name, "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    let errors = String::from_utf8_lossy(&built.stderr);
    ensure!(built.status.success(), "cargo build: {errors}");
    Ok(profile.join("vorrang"))
}
