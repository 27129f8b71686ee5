//! [`Upstream`]: an OpenAI-compatible provider in a process of its own; tests control it and read its calls.

mod endpoints;
mod serve;

use std::{env::current_exe, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

pub use self::serve::{PIECE_MS, PIECES, WORDS, serve};
use crate::{client, process::Process, wait::until};

/// What a call is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Act {
    /// The answer's status. A 200 is a completion, streamed if the request says so; others are OpenAI's errors.
    pub status: u16,
    /// A header of the answer.
    pub retry_after: Option<String>,
    /// How long the answer takes, milliseconds.
    pub delay_ms: u64,
    /// The answer waits for [`Upstream::release`]; a streamed one after its first chunk.
    pub hold: bool,
    /// The connection is closed instead of an answer; in a streamed one after its first chunk.
    pub reset: bool,
    /// A streamed answer has so many further chunks of 64 KiB before its end.
    pub padding: u32,
}

impl Default for Act {
    fn default() -> Self {
        Self {
            status: 200,
            retry_after: None,
            delay_ms: 0,
            hold: false,
            reset: false,
            padding: 0,
        }
    }
}

impl Act {
    /// Answers after this time.
    pub fn after(delay_ms: u64) -> Self {
        Self {
            delay_ms,
            ..Self::default()
        }
    }

    /// Answers with an error.
    pub fn fail(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// Answers when released.
    pub fn hold() -> Self {
        Self {
            hold: true,
            ..Self::default()
        }
    }

    /// Breaks off. On a connection that was used before it may be no attempt: it looks like the close of an idle connection.
    pub fn reset() -> Self {
        Self {
            reset: true,
            ..Self::default()
        }
    }

    /// Breaks off later than the close of an idle connection could still be on its way (250 ms): an attempt for certain.
    pub fn late_reset() -> Self {
        Self {
            delay_ms: 500,
            ..Self::reset()
        }
    }
}

/// What [`Upstream::plan`] sends: the first calls, in order of arrival, and all after them.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Plan {
    first: Vec<Act>,
    then: Act,
}

/// How a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// Not answered yet.
    Open,
    /// Answered to its end.
    Answered,
    /// The caller went away, or the answer was broken off.
    Broken,
}

/// One call, as it came.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seen {
    /// When its head was read: microseconds since 1970.
    pub at: u64,
    /// The path with its query.
    pub path: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The bytes of the body as text; what is no UTF-8 is replaced.
    pub body: String,
    /// What it is answered.
    pub status: u16,
    /// Its answer is broken off as planned.
    pub reset: bool,
    /// How it stands.
    pub fate: Fate,
    /// When it was answered or broken off, by the clock of `at`.
    pub ended: Option<u64>,
}

impl Seen {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(known, _)| known == name);
        header.map(|(_, value)| value.as_str())
    }

    /// The body's `user`: tests identify calls by it.
    pub fn user(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["user"].as_str().unwrap_or_default().into()
    }
}

/// The running provider. Ends with its handle.
#[derive(Debug)]
pub struct Upstream {
    _process: Process,
    _directory: TempDir,
    url: String,
    http: reqwest::Client,
}

impl Upstream {
    /// Starts it; every call is answered 200 at once.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let command = Command::new(executable()?);
        let mut process = Process::start("upstream", command, directory.path())?;
        let url = process
            .printed(|text| {
                Some(
                    text.strip_prefix("serving ")?
                        .split_once('\n')?
                        .0
                        .to_owned(),
                )
            })
            .await?;
        Ok(Self {
            _process: process,
            _directory: directory,
            url,
            http: client::http()?,
        })
    }

    /// For `api_base`.
    pub fn url(&self) -> String {
        format!("{}/v1", self.url)
    }

    /// The next calls are answered as `first` says, in order of arrival; those after them by `then`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn plan(&self, first: &[Act], then: Act) -> Result<()> {
        let first = first.to_vec();
        let request = self.http.put(format!("{}/control/plan", self.url));
        let answer = request.json(&Plan { first, then }).send().await?;
        answer.error_for_status()?;
        Ok(())
    }

    /// Every held call goes on, those to come included, until the next [`Upstream::plan`].
    ///
    /// # Errors
    /// It does not answer.
    pub async fn release(&self) -> Result<()> {
        let request = self.http.post(format!("{}/control/release", self.url));
        request.send().await?.error_for_status()?;
        Ok(())
    }

    /// All calls so far, in order of arrival.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn calls(&self) -> Result<Vec<Seen>> {
        let request = self.http.get(format!("{}/control/calls", self.url));
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// How many calls have come so far: cheaper than all of them.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn count(&self) -> Result<usize> {
        let request = self.http.get(format!("{}/control/count", self.url));
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// Waits until `count` calls have come, each as a whole; there must not be more.
    ///
    /// # Errors
    /// They do not come, or more do.
    pub async fn seen(&self, count: usize) -> Result<Vec<Seen>> {
        let what = format!("{count} calls upstream");
        // A call counts from its head on. Its body, which says whose it is, may come a moment later.
        let whole = |call: &Seen| !call.body.is_empty() || call.fate != Fate::Open;
        let come = |calls: &Vec<Seen>| calls.len() >= count && calls.iter().all(whole);
        let calls = until(&what, || self.calls(), come).await?;
        ensure!(calls.len() == count, "{} calls, not {count}", calls.len());
        Ok(calls)
    }
}

/// Cargo builds it with the tests, one directory above them.
fn executable() -> Result<PathBuf> {
    let mut path = current_exe()?;
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let path = path.join("vorrang-test-upstream");
    let built = path.is_file();
    built
        .then_some(path)
        .context("vorrang-test-upstream is not built")
}
