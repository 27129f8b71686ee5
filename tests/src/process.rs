//! A process that ends with its handle.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::wait::PATIENCE;

#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
    /// What it printed: `stdout`, `stderr`.
    outputs: [PathBuf; 2],
}

impl Process {
    /// Starts `command` with its outputs going to files in `directory`.
    pub(crate) fn start(name: &str, mut command: Command, directory: &Path) -> Result<Self> {
        let outputs = ["stdout", "stderr"].map(|end| directory.join(format!("{name}.{end}")));
        let [stdout, stderr] = &outputs;
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(stdout)?)
            .stderr(File::create(stderr)?)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self {
            child,
            name: name.into(),
            outputs,
        })
    }

    pub(crate) fn stdout(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.outputs[0])?)
    }

    pub(crate) fn stderr(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.outputs[1])?)
    }

    /// Waits until `find` finds something in what it printed to stdout.
    pub(crate) async fn printed<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = find(&self.stdout()?) {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.name, self.tail());
            }
            if start.elapsed() > PATIENCE {
                bail!(
                    "{} is not up after {PATIENCE:?}:\n{}",
                    self.name,
                    self.tail()
                );
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let id = Pid::from_child(&self.child);
        kill_process(id, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(&mut self) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > PATIENCE {
                bail!(
                    "{} has not ended after {PATIENCE:?}:\n{}",
                    self.name,
                    self.tail()
                );
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it as `kill -9` does; returns when it has ended.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The last lines it printed, without those that looking for a state left in its log.
    fn tail(&self) -> String {
        let text = [self.stdout(), self.stderr()].map(Result::unwrap_or_default);
        let polled = |line: &&str| line.contains("/health/readiness") || line.contains("/metrics");
        let lines = text.iter().flat_map(|text| text.lines());
        let lines: Vec<&str> = lines.filter(|line| !polled(line)).collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Shown by the test runner if the test fails.
        eprintln!("--- the last of {}:\n{}", self.name, self.tail());
        // It may have ended already: then there is nothing to kill.
        drop(self.kill());
    }
}
