//! `vorrang simulate` predicts what a real run then does: the same requests, real processes, a real Redis, a real provider.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::fleet::{gateway, run_on};

/// Half as much again as the provider gives for some windows, so that waits are far longer than what the machine adds to them.
const OVERLOADED: &str = "
name: overloaded
provider: {rpm: 60, window: 2s, latency: 'lognormal(0.05, 0.3)', tokens: 'lognormal(10, 0.5)', token_speed: 1000}
gateway: {vorrang_settings: {lease_seconds: 1}}
phases: [{name: more than there is, for: 12s, rate: 1.5x}, {name: less, for: 3s, rate: 0.3x}]
traffic:
  - {name: users, priority: 0, share: 50, stream: 0.5}
  - {name: jobs, priority: 9, share: 60, arrivals: constant, timeout: 9s}
  - {name: impatient, priority: 5, share: 10, leave: {share: 0.5, after: 1s}}
drain: 30s
expect: {failed: ['408'], slots_used: 0}
";

/// Calls that hold a slot each, and tenants that share them.
const CONCURRENT: &str = "
name: concurrent
provider: {concurrency: 14, window: 2s, latency: 'lognormal(0.5, 0.3)', tokens: 10, token_speed: 1000}
gateway: {vorrang_settings: {lease_seconds: 1, groups: {model: {fair_by: user}}}}
phases: [{name: more than there is, for: 10s, rate: 40/s}]
traffic:
  - {name: tenants, priority: 0, share: 90, tenants: {count: 3, zipf: 1}}
  - {name: urgent, priority: -5, share: 10}
drain: 60s
expect: {slots_used: 0}
";

/// A tenth of a shorter wait is what a busy machine adds to the way through the processes: 40 ms were seen.
const SHORT: f64 = 0.4;

/// What the simulation of a run's own trace says.
fn simulated(directory: &Path, instances: usize) -> Result<Value> {
    let mut command = Command::new(gateway()?);
    command.arg("simulate").arg("--json").arg("--config");
    command.arg(directory.join("processes/config.yaml"));
    for number in 1..=instances {
        let log = directory.join(format!("processes/vorrang-{number}.log"));
        command.arg("--trace").arg(log);
    }
    let done = command
        .arg("--html")
        .arg(directory.join("s.html"))
        .output()?;
    let errors = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{errors}");
    Ok(serde_json::from_slice(&done.stdout)?)
}

fn near(found: f64, real: f64) -> bool {
    (found - real).abs() <= real * 0.1
}

/// Runs a scenario, simulates its trace, and compares median and 99th percentile of each priority, and all of them. Returns how many were
/// compared.
fn predicts(scenario: &str, instances: usize) -> Result<u32> {
    let directory = tempfile::tempdir()?;
    let report = run_on(scenario, &gateway()?, directory.path(), instances)?;
    let found = simulated(directory.path(), instances)?;
    let sent = report["total"]["sent"].as_u64().context("no total")?;
    ensure!(
        found["read"]["bad"] == 0 && found["read"]["requests"] == sent,
        "{}",
        found["read"]
    );
    let group = &found["groups"][0];
    let priorities = group["priorities"].as_array().context("no priorities")?;
    let mut compared = 0;
    for line in priorities.iter().chain([&group["all"]]) {
        for percentile in ["p50", "p99"] {
            let of = |figures: &Value| figures[percentile].as_f64().context("no percentile");
            let (predicted, real) = (of(&line["new"]["wait"])?, of(&line["recorded"])?);
            eprintln!(
                "{} {percentile}: predicted {predicted:.3} s, real {real:.3} s",
                line["name"]
            );
            if real >= SHORT {
                ensure!(
                    near(predicted, real),
                    "{} {percentile}: predicted {predicted:.3} s, real {real:.3} s",
                    line["name"]
                );
                compared += 1;
            }
        }
    }
    // The log says what the load generator saw.
    let traffic = report["traffic"].as_array().context("no traffic")?;
    for one in traffic {
        let name = one["priority"].to_string();
        let line = priorities.iter().find(|line| line["name"] == name.as_str());
        let recorded = line.context("no such priority")?["recorded"]["p50"].as_f64();
        let curve = one["wait"].as_array().context("no curve")?;
        let median = curve.iter().find(|point| point[0] == 50.0);
        let median = median.context("no median")?[1].as_f64().unwrap_or(0.0);
        if median >= SHORT {
            ensure!(
                near(recorded.unwrap_or(0.0), median),
                "{name}: {recorded:?}, {median}"
            );
        }
    }
    let page = fs::read_to_string(directory.path().join("s.html"))?;
    ensure!(page.contains("\"priorities\""), "the page has its data");
    Ok(compared)
}

#[test]
fn simulation_predicts_waits_of_an_overloaded_instance() -> Result<()> {
    let compared = predicts(OVERLOADED, 1)?;
    ensure!(compared >= 4, "{compared} percentiles were long enough");
    Ok(())
}

#[test]
fn simulation_predicts_waits_of_a_fleet_on_redis() -> Result<()> {
    let compared = predicts(OVERLOADED, 3)?;
    ensure!(compared >= 4, "{compared} percentiles were long enough");
    Ok(())
}

#[test]
fn simulation_predicts_waits_for_open_calls_and_fair_shares() -> Result<()> {
    let compared = predicts(CONCURRENT, 2)?;
    ensure!(compared >= 3, "{compared} percentiles were long enough");
    Ok(())
}
