//! The Python package, as it is installed from its wheel: its own tests, and what type checkers say of it.

use std::path::Path;

use anyhow::{Result, ensure};
use tokio::process::Command;

use crate::sdk::{here, python_with_wheel};

/// Runs it beside the tests of the package. It ends with success.
async fn run(python: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new(python)
        .args(arguments)
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
    let interpreter = python.to_string_lossy();
    let pyright = ["-m", "pyright", "--pythonpath", &interpreter];
    run(&python, &[&pyright[..], &["typed.py"]].concat()).await?;
    let every = ["--verifytypes", "vorrang", "--ignoreexternal"];
    run(&python, &[&pyright[..], &every].concat()).await
}
