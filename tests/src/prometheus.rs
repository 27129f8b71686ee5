//! [`Prometheus`]: a Prometheus of the test's own, Debian's package.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{client::http, process::Process, redis::free_port, wait::until};

/// A running Prometheus. Ends with its handle.
#[derive(Debug)]
pub struct Prometheus {
    _process: Process,
    _directory: TempDir,
    url: String,
    http: reqwest::Client,
}

/// Whether it is installed, with `promtool`.
pub fn is_installed() -> bool {
    ["prometheus", "promtool"].into_iter().all(|program| {
        let version = Command::new(program).arg("--version").output();
        version.is_ok_and(|output| output.status.success())
    })
}

impl Prometheus {
    /// Starts one on a free port that scrapes these addresses (`127.0.0.1:4000`) four times a second, as the job `vorrang`, and
    /// evaluates these rules every second.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(targets: &[&str], rules: &Path) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut config = String::from(
            "global: {scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 1s}\n",
        );
        writeln!(config, "rule_files: [{rules:?}]")?;
        writeln!(
            config,
            "scrape_configs: [{{job_name: vorrang, static_configs: [{{targets: {targets:?}}}]}}]"
        )?;
        let file = directory.path().join("prometheus.yml");
        fs::write(&file, config)?;
        let port = free_port()?;
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=warn");
        let prometheus = Self {
            _process: Process::start("prometheus", command, directory.path())?,
            _directory: directory,
            url: format!("http://127.0.0.1:{port}"),
            http: http()?,
        };
        let ready = || async {
            let answer = prometheus.http.get(format!("{}/-/ready", prometheus.url));
            let answer = answer.send().await;
            Ok(answer.is_ok_and(|answer| answer.status().is_success()))
        };
        until("Prometheus", ready, |ready| *ready).await?;
        Ok(prometheus)
    }

    /// The values of an expression now.
    ///
    /// # Errors
    /// It is no expression, or there is no answer.
    pub async fn query(&self, expression: &str) -> Result<Vec<f64>> {
        let answer = self.get("query", &[("query", expression)]).await?;
        let series = answer["result"].as_array().context("no list")?;
        let value = |one: &Value| one["value"][1].as_str().and_then(|text| text.parse().ok());
        Ok(series.iter().filter_map(value).collect())
    }

    /// All rules, as it knows them.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn rules(&self) -> Result<Vec<Value>> {
        let answer = self.get("rules", &[]).await?;
        let groups = answer["groups"].as_array().context("no groups")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array());
        Ok(rules.flatten().cloned().collect())
    }

    async fn get(&self, what: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let url = format!("{}/api/v1/{what}", self.url);
        let url = reqwest::Url::parse_with_params(&url, parameters)?;
        let answer: Value = self.http.get(url).send().await?.json().await?;
        ensure!(answer["status"] == "success", "{parameters:?}: {answer}");
        Ok(answer["data"].clone())
    }
}
