//! The whole tool on real processes: instances, Redis and provider are started, one instance is killed and comes back.

use std::{
    env::var_os,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
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

/// Twice what the provider gives; some clients leave, and a Python program is killed.
const MIXED: &str = "
name: mixed
provider: {rpm: 120, concurrency: 8, window: 3s, latency: 50ms, tokens: 1, token_speed: 1000}
gateway: {vorrang_settings: {lease_seconds: 1}}
phases: [{name: all, for: 6s, rate: 80/s}]
traffic:
  - {name: users, priority: 0, share: 30, stream: 0.5}
  - {name: jobs, priority: 9, share: 60, arrivals: constant}
  - {name: impatient, priority: 5, share: 10, leave: {share: 0.5, after: 'exponential(1)'}}
events: [{at: 3s, kill: 2}, {at: 4s, start: 2}]
expect: {failed: [killed], slots_used: 0}
";

/// Runs a scenario with three instances of a program, and returns the report. All verdicts passed.
fn run(scenario: &str, program: &Path, directory: &Path) -> Result<Value> {
    run_on(scenario, program, directory, 3)
}

/// The same with so many instances.
pub(crate) fn run_on(
    scenario: &str,
    program: &Path,
    directory: &Path,
    instances: usize,
) -> Result<Value> {
    let file = directory.join("scenario.yaml");
    fs::write(&file, scenario)?;
    let run = Command::new(env!("CARGO_BIN_EXE_vorrang-load"))
        .arg("run")
        .arg(&file)
        .args(["--instances", &instances.to_string(), "--binary"])
        .arg(program)
        .arg("--out")
        .arg(directory)
        .output()?;
    let (stdout, stderr) = (
        String::from_utf8(run.stdout)?,
        String::from_utf8(run.stderr)?,
    );
    ensure!(run.status.success(), "{stdout}\n{stderr}");
    let report: Value = serde_json::from_slice(&fs::read(directory.join("report.json"))?)?;
    for verdict in ["inversions", "over the limit", "lost", "doubled", "failed"] {
        let verdicts = report["verdicts"].as_array().context("no verdicts")?;
        let found = verdicts.iter().find(|one| one["name"] == verdict);
        let found = found.with_context(|| format!("no verdict {verdict}"))?;
        ensure!(found["passed"] == true, "{found}");
        ensure!(stdout.contains(verdict), "{stdout}");
    }
    Ok(report)
}

/// A1, A6: no ticket is overtaken, and when an instance is killed only its own connections are lost.
#[test]
fn killed_instance_loses_only_its_own_requests() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let report = run(SCENARIO, &gateway()?, directory.path())?;
    let killed = report["failures"]["killed"].as_u64().unwrap_or(0);
    ensure!(killed > 0, "tickets waited on it: {report}");
    let (sent, answered) = (&report["total"]["sent"], &report["total"]["answered"]);
    ensure!(answered.as_u64() == sent.as_u64().map(|sent| sent - killed));
    Ok(())
}

/// A1, A3, A6, A7: Python programs with a router of their own and a gateway share one queue and its limits.
#[test]
fn python_programs_and_a_gateway_are_one_fleet() -> Result<()> {
    let python = var_os("VORRANG_PYTHON_WHEEL").filter(|path| !path.is_empty());
    let Some(python) = python else {
        eprintln!(
            "\n!!!! SKIPPED: a fleet of gateway and Python programs: the package's wheel is not installed; scripts/test does that\n"
        );
        return Ok(());
    };
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("member");
    // The first instance, known by the file of its output, is a gateway, all others are Python programs.
    let text = format!(
        "#!/bin/sh
case $(readlink /proc/$$/fd/1) in
*/vorrang-1.log) exec '{}' \"$@\" ;;
*) exec '{}' '{}' \"$@\" ;;
esac
",
        gateway()?.display(),
        Path::new(&python).display(),
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../python/tests/fleet_member.py")
            .display(),
    );
    fs::write(&program, text)?;
    fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    let report = run(MIXED, &program, directory.path())?;
    let answered = report["total"]["answered"].as_u64().unwrap_or(0);
    ensure!(answered > 200, "{report}");
    // Only a gateway says that it listens.
    for (number, is_gateway) in [(1, true), (2, false), (3, false)] {
        let log = directory
            .path()
            .join(format!("processes/vorrang-{number}.log"));
        let log = fs::read_to_string(log)?;
        ensure!(log.contains("listening") == is_gateway, "{number}: {log}");
    }
    Ok(())
}

/// The `vorrang` under test: `VORRANG_BIN`, or what cargo builds beside this test.
pub(crate) fn gateway() -> Result<PathBuf> {
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
