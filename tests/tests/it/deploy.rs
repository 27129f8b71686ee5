//! What is deployed: the Helm chart, the systemd unit and the Debian package say what the gateway does.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use vorrang_tests::{
    Act, Chat, Client, Gateway, Upstream, config,
    gateway::{executable, run},
    until,
};

use crate::sdk::{here, passes, python};

fn read(path: &str) -> Result<String> {
    fs::read_to_string(here("..").join(path)).with_context(|| path.to_owned())
}

/// The rendered chart of `tests/helm/fleet.values.yaml`, as it is kept.
fn rendered() -> Result<String> {
    read("tests/helm/fleet.golden.yaml")
}

/// What follows `before` in a line, up to `after`.
fn all_between(text: &str, before: &str, after: char) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.split_once(before));
    lines
        .filter_map(|(_, rest)| Some(rest.split_once(after)?.0.to_owned()))
        .collect()
}

#[tokio::test]
async fn chart_renders_as_kept_and_fits_the_api_of_kubernetes() -> Result<()> {
    let helm = python().map(|python| python.with_file_name("helm"));
    let (Some(python), Some(helm)) = (python(), helm.filter(|helm| helm.is_file())) else {
        eprintln!(
            "\n!!!! SKIPPED: the Helm chart: there is no helm in .venv; scripts/test puts it there\n"
        );
        return Ok(());
    };
    passes(&python, "python/chart.py", &[helm], "ok: ").await
}

/// What the chart probes and scrapes is on the admin port, also while the instance shuts down: its listener is closed at once, it is not
/// ready, and it lives.
#[tokio::test]
async fn charts_probes_and_metric_are_served_until_the_instance_ends() -> Result<()> {
    let upstream = Upstream::start().await?;
    upstream.plan(&[Act::hold()], Act::default()).await?;
    let config = config(&upstream.url(), &[], &[], &["admin_port: 0"]);
    let mut gateway = Gateway::start(&config).await?;
    let printed = gateway.stdout()?;
    let mut lines = printed.lines();
    let admin = lines.find_map(|line| line.strip_prefix("health and metrics on "));
    let admin = Client::new(admin.context("no admin port")?)?;

    let chart = rendered()?;
    let paths = all_between(&chart, "httpGet: {path: ", ',');
    ensure!(paths.len() == 2, "{paths:?}");
    for path in &paths {
        admin.get(path).await?.ok()?;
    }
    let metric = all_between(&chart, "metric: {name: ", '}');
    let adapter = read("deploy/helm/prometheus-adapter.yaml")?;
    ensure!(
        metric == all_between(&adapter, "name: {as: ", '}'),
        "{metric:?}"
    );
    let metric = metric.first().context("no metric")?;
    let page = admin.get("/metrics").await?.ok()?.text;
    ensure!(page.contains(&format!("\n{metric}{{group=\"")), "{page}");

    let held = gateway.client().send(Chat::new("held"));
    upstream.seen(1).await?;
    gateway.terminate()?;
    let refused = || async {
        Ok(Client::new(gateway.url())?
            .get("/health/readiness")
            .await
            .is_err())
    };
    until("refused connections", refused, |refused| *refused).await?;
    let status = async |path: &str| anyhow::Ok(admin.get(path).await?.status);
    ensure!(status("/health/readiness").await? == 503);
    ensure!(status("/health/liveliness").await? == 200);
    ensure!(status("/metrics").await? == 200);
    upstream.release().await?;
    held.await??.ok()?;
    ensure!(gateway.ended().await?.success());
    Ok(())
}

/// The configurations that the chart's test and the Debian package bring: nothing in them is lost, or differs.
#[test]
fn deployed_configurations_pass_a_strict_check() -> Result<()> {
    let chart = rendered()?;
    let (_, inside) = chart
        .split_once("\n  config.yaml: |\n")
        .context("no configuration")?;
    let lines = inside.lines().map_while(|line| line.strip_prefix("    "));
    let of_chart = lines.collect::<Vec<_>>().join("\n");
    let env = [
        ("MASTER_KEY", "sk-1"),
        ("OPENAI_API_KEY", "sk-2"),
        ("VORRANG_REDIS_URL", "redis://redis:6379"),
    ];
    let of_debian = read("deploy/debian/config.yaml")?;
    // What it offers as comments, too.
    let is_setting = |line: &str| {
        line.starts_with("  - ")
            || line.contains("{model:")
            || line.starts_with(char::is_alphabetic)
    };
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(rest) if is_setting(rest) => rest.to_owned(),
        _ => line.to_owned(),
    };
    let all: Vec<String> = of_debian.lines().map(uncommented).collect();
    let all = all.join("\n");
    ensure!(
        all.contains("\nrouter_settings:") && all.contains("\n  - model_name: gpt"),
        "{all}"
    );
    for config in [of_chart, of_debian, all] {
        let output = run(
            &config,
            &["check", "--strict", "--config", "config.yaml"],
            &env,
        )?;
        let text = String::from_utf8([output.stdout, output.stderr].concat())?;
        ensure!(output.status.success(), "{text}\n{config}");
    }
    Ok(())
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

#[test]
fn chart_is_for_the_version_of_the_workspace() -> Result<()> {
    let of_chart = all_between(
        &read("deploy/helm/vorrang/Chart.yaml")?,
        "appVersion: \"",
        '"',
    );
    let of_workspace = env!("CARGO_PKG_VERSION");
    ensure!(
        of_chart == BTreeSet::from([of_workspace.to_owned()]),
        "{of_chart:?}"
    );
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
