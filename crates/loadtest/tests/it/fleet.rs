//! The whole tool on real processes: instances, Redis and provider are started, one instance is killed and comes back.

use std::{
    env::var_os,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Five calls at once, 50 ms each: at most 100 requests a second are served, and half as many more come.
const SCENARIO: &str = "
name: small
provider: {concurrency: 5, latency: 50ms, tokens: 1, token_speed: 1000}
gateway: {vorrang_settings: {lease_seconds: 1}}
phases: [{name: all, for: 3s, rate: 150/s}]
traffic:
  - {name: users, priority: 0, share: 30, stream: 0.5}
  - {name: jobs, priority: 9, share: 70, arrivals: constant}
events: [{at: 1.5s, kill: 1}, {at: 2s, start: 1}]
expect: {failed: [killed], slots_used: 0}
";

/// A1, A6: no ticket is overtaken, and when an instance is killed only its own connections are lost.
#[test]
fn killed_instance_loses_only_its_own_requests() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("small.yaml");
    std::fs::write(&file, SCENARIO)?;
    let run = Command::new(env!("CARGO_BIN_EXE_vorrang-load"))
        .arg("run")
        .arg(&file)
        .args(["--instances", "3", "--binary"])
        .arg(gateway()?)
        .arg("--out")
        .arg(directory.path())
        .output()?;
    let (stdout, stderr) = (
        String::from_utf8(run.stdout)?,
        String::from_utf8(run.stderr)?,
    );
    ensure!(run.status.success(), "{stdout}\n{stderr}");
    let report: Value =
        serde_json::from_slice(&std::fs::read(directory.path().join("report.json"))?)?;
    for verdict in ["inversions", "over the limit", "lost", "doubled", "failed"] {
        let verdicts = report["verdicts"].as_array().context("no verdicts")?;
        let found = verdicts.iter().find(|one| one["name"] == verdict);
        let found = found.with_context(|| format!("no verdict {verdict}"))?;
        ensure!(found["passed"] == true, "{found}");
        ensure!(stdout.contains(verdict), "{stdout}");
    }
    let killed = report["failures"]["killed"].as_u64().unwrap_or(0);
    ensure!(killed > 0, "tickets waited on it: {report}");
    let (sent, answered) = (&report["total"]["sent"], &report["total"]["answered"]);
    ensure!(answered.as_u64() == sent.as_u64().map(|sent| sent - killed));
    Ok(())
}

/// The `vorrang` under test: `VORRANG_BIN`, or what cargo builds beside this test.
fn gateway() -> Result<PathBuf> {
    if let Some(path) = var_os("VORRANG_BIN") {
        return Ok(path.into());
    }
    let profile = Path::new(env!("CARGO_BIN_EXE_vorrang-load"))
        .parent()
        .context("the executable is in no directory")?;
    let target = profile.parent().context("the profile is in no directory")?;
    let name = profile.file_name().and_then(|name| name.to_str());
    let name = name.context("the profile has no name")?;
    let built = Command::new(var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        // The workspace: the features are then those of a test run of the whole, and nothing is built twice.
        .args(["build", "--quiet", "--workspace", "--bin", "vorrang"])
        .args(["--profile", if name == "debug" { "dev" } else { name }])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    let errors = String::from_utf8_lossy(&built.stderr);
    ensure!(built.status.success(), "cargo build: {errors}");
    Ok(profile.join("vorrang"))
}
