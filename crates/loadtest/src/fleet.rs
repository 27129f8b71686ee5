//! Processes of a run's own: a Redis, the provider, and instances. All end with their handles.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{
    client,
    scenario::{Action, Scenario},
};

/// For a process to be up: a busy machine included.
const PATIENCE: Duration = Duration::from_secs(60);

/// For instances to end by themselves after a run.
const LAST: Duration = Duration::from_secs(10);

/// How often a state is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// A process whose output goes to a file.
#[derive(Debug)]
struct Process {
    name: String,
    child: Child,
    output: PathBuf,
}

/// Several instances on one Redis, and the provider behind them.
#[derive(Debug)]
pub struct Fleet {
    directory: PathBuf,
    binary: PathBuf,
    _redis: Process,
    _provider: Process,
    provider: String,
    instances: Vec<Instance>,
}

#[derive(Debug)]
struct Instance {
    port: u16,
    process: Option<Process>,
}

impl Fleet {
    /// Starts all of it for a scenario; configurations and outputs go to `directory`. `binary` is the gateway's.
    ///
    /// # Errors
    /// Something does not start, or is not ready within a minute.
    pub async fn start(
        scenario: &Scenario,
        instances: usize,
        binary: &Path,
        directory: &Path,
    ) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let redis_port = free_port()?;
        let redis = start_redis(redis_port, directory).await?;
        let (provider_process, provider) = start_provider(scenario, directory).await?;
        let config = config(scenario, &provider, redis_port);
        fs::write(config_file(directory), serde_json::to_vec_pretty(&config)?)?;
        let mut fleet = Self {
            directory: directory.to_owned(),
            binary: binary.to_owned(),
            _redis: redis,
            _provider: provider_process,
            provider,
            instances: Vec::new(),
        };
        for _ in 0..instances {
            let (port, process) = (free_port()?, None);
            fleet.instances.push(Instance { port, process });
        }
        for index in 0..instances {
            fleet.launch(index)?;
        }
        for index in 0..instances {
            fleet.ready(index).await?;
        }
        Ok(fleet)
    }

    /// Ends the instances as a roll-out does, so that their logs are complete. One that has not ended after `LAST` is killed.
    pub async fn end(mut self) {
        let mut running: Vec<Process> = self
            .instances
            .iter_mut()
            .filter_map(|instance| instance.process.take())
            .collect();
        for process in &running {
            // It may have ended, or stand still.
            drop(process.signal(Signal::TERM));
            drop(process.signal(Signal::CONT));
        }
        let ended = async {
            for process in &mut running {
                drop(process.child.wait().await);
            }
        };
        drop(timeout(LAST, ended).await);
    }

    /// How many instances there are, running or not.
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// Where the provider is.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// Where the instances are.
    pub fn targets(&self) -> Vec<String> {
        let url = |instance: &Instance| format!("http://127.0.0.1:{}", instance.port);
        self.instances.iter().map(url).collect()
    }

    fn launch(&mut self, index: usize) -> io::Result<()> {
        let port = self.instances[index].port;
        let mut command = Command::new(&self.binary);
        command
            .arg("--config")
            .arg(config_file(&self.directory))
            .args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        let name = format!("vorrang-{}", index + 1);
        let process = Process::start(&name, command, &self.directory)?;
        self.instances[index].process = Some(process);
        Ok(())
    }

    /// Waits until an instance says that it is ready.
    async fn ready(&mut self, index: usize) -> io::Result<()> {
        let http = client::http().map_err(io::Error::other)?;
        let url = format!("{}/health/readiness", self.targets()[index]);
        let process = self.instances[index].process.as_mut();
        let process = process.ok_or_else(|| io::Error::other("the instance does not run"))?;
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = http.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            process.alive(end)?;
            sleep(LOOK).await;
        }
    }

    /// Does to an instance what an event says. Another action is none of its business.
    ///
    /// # Errors
    /// The instance is not there, or not in the state for it.
    pub async fn act(&mut self, action: &Action) -> io::Result<()> {
        let Some(number) = action.instance() else {
            return Ok(());
        };
        let wrong = |what: &str| io::Error::other(format!("instance {number} {what}"));
        let index = number.wrapping_sub(1);
        let Some(instance) = self.instances.get_mut(index) else {
            return Err(wrong("is not one of the run's"));
        };
        if let Action::Start(_) = action {
            if let Some(mut ending) = instance.process.take() {
                // A terminated one may still be serving its last.
                ending.child.wait().await?;
            }
            self.launch(index)?;
            return self.ready(index).await;
        }
        let process = instance.process.as_mut();
        let process = process.ok_or_else(|| wrong("does not run"))?;
        match action {
            Action::Kill(_) => {
                process.child.kill().await?;
                instance.process = None;
            }
            Action::Terminate(_) => process.signal(Signal::TERM)?,
            Action::Pause(_) => process.signal(Signal::STOP)?,
            Action::Resume(_) => process.signal(Signal::CONT)?,
            Action::Start(_) | Action::Faults(_) | Action::Leave(_) => {}
        }
        Ok(())
    }
}

async fn start_redis(port: u16, directory: &Path) -> io::Result<Process> {
    let mut command = Command::new("redis-server");
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .args(["--maxmemory-policy", "noeviction", "--dir"])
        .arg(directory);
    let mut redis = Process::start("redis-server", command, directory)?;
    let up = |text: &str| text.contains("Ready to accept connections").then_some(());
    redis.printed(up).await?;
    Ok(redis)
}

/// The provider is this program's own, in a process apart.
async fn start_provider(scenario: &Scenario, directory: &Path) -> io::Result<(Process, String)> {
    let file = directory.join("provider.json");
    fs::write(&file, serde_json::to_vec_pretty(&scenario.provider)?)?;
    let mut command = Command::new(env::current_exe()?);
    command
        .args(["provider", "--port", "0", "--config"])
        .arg(file);
    let mut process = Process::start("provider", command, directory)?;
    let url = |text: &str| {
        let (_, after) = text.split_once("listening on ")?;
        Some(after.split_once('\n')?.0.to_owned())
    };
    let url = process.printed(url).await?;
    Ok((process, url))
}

fn config_file(directory: &Path) -> PathBuf {
    // JSON is YAML.
    directory.join("config.yaml")
}

/// The gateway's configuration: the provider's limits are the deployment's, whatever the scenario adds.
fn config(scenario: &Scenario, provider: &str, redis_port: u16) -> Value {
    let (simulated, extras) = (&scenario.provider, &scenario.gateway);
    let mut deployment = json!({
        "model": "openai/simulated",
        "api_base": format!("{provider}/v1"),
        "api_key": "none",
    });
    for (name, limit) in [
        ("rpm", simulated.rpm),
        ("tpm", simulated.tpm),
        ("max_parallel_requests", simulated.concurrency),
    ] {
        if let Some(limit) = limit {
            deployment[name] = limit.into();
        }
    }
    let ours = json!({
        "window_seconds": simulated.window,
        "redis_url": format!("redis://127.0.0.1:{redis_port}"),
    });
    json!({
        "model_list": [{
            "model_name": scenario.model,
            "litellm_params": merged(deployment, &extras.litellm_params),
        }],
        "router_settings": extras.router_settings,
        "vorrang_settings": merged(ours, &extras.vorrang_settings),
    })
}

fn merged(mut base: Value, more: &Map<String, Value>) -> Value {
    for (name, value) in more {
        base[name] = value.clone();
    }
    base
}

/// A port that was free a moment ago.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

// === impl Process ===

impl Process {
    /// Starts a command; a restart's output follows the former's.
    fn start(name: &str, mut command: Command, directory: &Path) -> io::Result<Self> {
        let output = directory.join(format!("{name}.log"));
        let file: File = OpenOptions::new().create(true).append(true).open(&output)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("cannot start {name}: {error}"))
            })?;
        Ok(Self {
            name: name.to_owned(),
            child,
            output,
        })
    }

    /// Waits until `find` finds something in what it has printed.
    async fn printed<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> io::Result<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = find(&fs::read_to_string(&self.output)?) {
                return Ok(found);
            }
            self.alive(end)?;
            sleep(LOOK).await;
        }
    }

    /// Fails where it has ended, or `end` is over.
    fn alive(&mut self, end: Instant) -> io::Result<()> {
        let trouble = match self.child.try_wait()? {
            Some(status) => format!("ended with {status}"),
            None if Instant::now() > end => "is not up after a minute".to_owned(),
            None => return Ok(()),
        };
        let output = fs::read_to_string(&self.output).unwrap_or_default();
        let lines: Vec<&str> = output.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n");
        Err(io::Error::other(format!(
            "{} {trouble}:\n{tail}",
            self.name
        )))
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let id = id.and_then(Pid::from_raw);
        let id = id.ok_or_else(|| io::Error::other(format!("{} has ended", self.name)))?;
        Ok(kill_process(id, signal)?)
    }
}
