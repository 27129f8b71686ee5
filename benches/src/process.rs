//! A server process of the run's own, and what it uses.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

/// For a process to be up or to end: under valgrind, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(5);

/// Ends with its handle.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
    /// What it printed to stdout and stderr.
    outputs: [PathBuf; 2],
}

impl Process {
    /// Starts `command`; what it prints goes to files in `directory`.
    pub(crate) fn start(name: &str, mut command: Command, directory: &Path) -> Result<Self> {
        let outputs = ["stdout", "stderr"].map(|end| directory.join(format!("{name}.{end}")));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&outputs[0])?)
            .stderr(File::create(&outputs[1])?)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self {
            child,
            name: name.into(),
            outputs,
        })
    }

    /// Waits until `find` finds something in what it printed to stdout.
    pub(crate) async fn printed<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = find(&fs::read_to_string(&self.outputs[0])?) {
                return Ok(found);
            }
            self.runs()?;
            ensure!(
                start.elapsed() < PATIENCE,
                "{} is not up after {PATIENCE:?}:\n{}",
                self.name,
                self.tail()
            );
            sleep(LOOK).await;
        }
    }

    /// Fails if it has ended.
    pub(crate) fn runs(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}:\n{}", self.name, self.tail());
        }
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn terminate(&mut self) -> Result<ExitStatus> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "{} does not end:\n{}",
                self.name,
                self.tail()
            );
            sleep(LOOK).await;
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The processor time that it has used so far, of all its threads.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            // A thread may end meanwhile.
            if let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) {
                sum += nanoseconds(&text).context("schedstat")?;
            }
        }
        Ok(Duration::from_nanos(sum))
    }

    /// The memory that it occupies now (resident), in bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        resident(&text).context("VmRSS")
    }

    fn tail(&self) -> String {
        let text = self
            .outputs
            .each_ref()
            .map(|path| fs::read_to_string(path).unwrap_or_default());
        let lines: Vec<&str> = text.iter().flat_map(|text| text.lines()).collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The first figure of a thread's `schedstat`: the time it ran.
fn nanoseconds(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_proc_are_read() {
        assert_eq!(nanoseconds("387573 15349259 2\n"), Some(387_573));
        assert_eq!(nanoseconds(""), None);
        assert_eq!(
            resident("Name:\tx\nVmRSS:\t    2048 kB\nVmData:\t1 kB\n"),
            Some(2_097_152)
        );
        assert_eq!(resident("Name:\tx\n"), None);
    }
}
