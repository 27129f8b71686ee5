//! What is deployed: the systemd unit and the Debian package fit the gateway.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use vorrang_tests::gateway::executable;

use crate::sdk::here;

fn read(path: &str) -> Result<String> {
    fs::read_to_string(here("..").join(path)).with_context(|| path.to_owned())
}

/// What follows `before` in a line, up to `after`.
fn all_between(text: &str, before: &str, after: char) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.split_once(before));
    lines
        .filter_map(|(_, rest)| Some(rest.split_once(after)?.0.to_owned()))
        .collect()
}

#[test]
fn systemd_accepts_the_unit_and_finds_little_exposed() -> Result<()> {
    let analyze = |arguments: &[&str], unit: &Path| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).arg(unit).output()
    };
    let unit = read("deploy/systemd/vorrang.service")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("vorrang.service");
    // It has to name a program of this machine.
    let program = executable()?.to_string_lossy();
    fs::write(&file, unit.replace("/usr/bin/vorrang", &program))?;
    let Ok(output) = analyze(&["verify", "--man=no"], &file) else {
        eprintln!("\n!!!! SKIPPED: the systemd unit: there is no systemd-analyze\n");
        return Ok(());
    };
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    // It also names faults of this machine's other units.
    ensure!(!text.contains("vorrang"), "{text}");
    // Tenths: below 2 of 10.
    let output = analyze(&["security", "--offline=true", "--threshold=20"], &file)?;
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(output.status.success(), "{text}");
    Ok(())
}

/// `cargo deb` finds out late, after a release build.
#[test]
fn debian_package_names_existing_files() -> Result<()> {
    let manifest = read("crates/server/Cargo.toml")?;
    let server = here("../crates/server");
    let sources = all_between(&manifest, "    [\"", '"');
    ensure!(sources.len() > 8, "{sources:?}");
    let missing = |source: &String| -> Option<PathBuf> {
        let path = server.join(source.strip_suffix("*.md").unwrap_or(source));
        let built = source.starts_with("target/");
        (!built && !path.exists()).then_some(path)
    };
    let missing: Vec<PathBuf> = sources.iter().filter_map(missing).collect();
    ensure!(missing.is_empty(), "{missing:?}");
    Ok(())
}
