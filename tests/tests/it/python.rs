//! The Python package, as it is installed from its wheel: its own tests, and what type checkers say of it.

use std::{
    env::{join_paths, split_paths, var_os},
    iter::once,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::sdk::{here, python_with_wheel};

/// Runs it beside the tests of the package. It ends with success.
async fn run(python: &Path, arguments: &[&str]) -> Result<()> {
    // Pyright looks there for the interpreter whose packages it is asked about.
    let bin = python.parent().context("no folder")?.to_owned();
    let path = var_os("PATH").unwrap_or_default();
    let output = Command::new(python)
        .args(arguments)
        .env("PATH", join_paths(once(bin).chain(split_paths(&path)))?)
        .current_dir(here("../crates/python/tests"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true)
        .output()
        .await?;
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(output.status.success(), "{text}");
    Ok(())
}

fn skipped() {
    eprintln!(
        "\n!!!! SKIPPED: the Python package: its wheel is not installed; scripts/test does that\n"
    );
}

#[tokio::test]
async fn python_package_passes_its_tests() -> Result<()> {
    let Some(python) = python_with_wheel() else {
        skipped();
        return Ok(());
    };
    run(&python, &["-m", "pytest", "-q", "-p", "no:cacheprovider"]).await
}

#[tokio::test]
async fn python_package_is_typed() -> Result<()> {
    let Some(python) = python_with_wheel() else {
        skipped();
        return Ok(());
    };
    let cache = tempfile::tempdir()?;
    let cache = cache.path().to_string_lossy();
    let mypy = ["-m", "mypy", "--strict", "--cache-dir", &cache];
    run(&python, &[&mypy[..], &["-p", "vorrang"]].concat()).await?;
    run(&python, &[&mypy[..], &["typed.py"]].concat()).await?;
    run(&python, &["-m", "pyright", "typed.py"]).await?;
    let every = ["--verifytypes", "vorrang", "--ignoreexternal"];
    run(&python, &[&["-m", "pyright"][..], &every].concat()).await
}
