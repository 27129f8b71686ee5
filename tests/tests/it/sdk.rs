//! The Python SDKs of OpenAI and Anthropic, unchanged, against the documentation's gateway and against one that
//! forwards.

use std::{
    env::var_os,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};
use vorrang_tests::{Gateway, Redis, Seen, Upstream, config};

use crate::reference;

#[tokio::test]
async fn openai_python_sdk_works_unchanged() -> Result<()> {
    let Some(python) = python() else {
        skipped();
        return Ok(());
    };
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let documented = reference::start(&redis).await?;
    let url = format!("redis_url: {}", redis.url());
    let forwarding = config(
        &upstream.url(),
        &["rpm: 100000"],
        &[],
        &[&url, "redis_namespace: other"],
    );
    let forwarding = Gateway::start(&forwarding).await?;
    let urls = [documented.url(), forwarding.url()];
    passes(&python, "python/sdk.py", &urls, "all calls answered").await?;
    // Every way of calling reached the upstream, and none with a priority.
    let calls = upstream.calls().await?;
    ensure!(calls.len() == 16, "{} calls", calls.len());
    ensure!(
        calls.iter().all(|call| !call.body.contains("priority")),
        "{calls:?}"
    );
    Ok(())
}

#[tokio::test]
async fn openais_python_sdk_calls_every_endpoint() -> Result<()> {
    let Some(python) = python() else {
        skipped();
        return Ok(());
    };
    let upstream = Upstream::start().await?;
    let forwarding = config(&upstream.url(), &["rpm: 100000"], &[], &[]);
    let forwarding = Gateway::start(&forwarding).await?;
    let urls = [forwarding.url()];
    passes(
        &python,
        "python/endpoints.py",
        &urls,
        "all endpoints answered",
    )
    .await?;
    let calls = upstream.calls().await?;
    let model = upstream_model(&calls)?;
    for call in &calls {
        // Neither a JSON field nor a form's goes upstream.
        ensure!(!call.body.contains("priority"), "{call:?}");
        ensure!(call.body.contains(&model), "{call:?}");
        let length = call.header("content-length");
        ensure!(length.is_some(), "{call:?}");
    }
    Ok(())
}

#[tokio::test]
async fn openais_python_sdk_keeps_files_and_batches_at_two_accounts() -> Result<()> {
    let Some(python) = python() else {
        skipped();
        return Ok(());
    };
    let (_upstream, port) = upstream_of(&python, "python/files_upstream.py").await?;
    let root = format!("http://127.0.0.1:{port}");
    let config = format!(
        "
model_list:
  - {{model_name: m, litellm_params: {{model: openai/m, mock_response: hi}}}}
files_settings:
  - {{custom_llm_provider: openai, api_base: '{root}/v1', api_key: openai-key}}
  - {{custom_llm_provider: azure, api_base: '{root}', api_key: azure-key, api_version: 2025-04-01-preview}}
general_settings: {{master_key: sk-client}}
"
    );
    let gateway = Gateway::start(&config).await?;
    passes(
        &python,
        "python/files.py",
        &[gateway.url()],
        "all files kept",
    )
    .await
}

#[tokio::test]
async fn anthropics_and_openais_python_sdks_work_on_upstreams_of_all_formats() -> Result<()> {
    let Some(python) = python() else {
        skipped();
        return Ok(());
    };
    let Formats {
        process: _upstreams,
        claude,
        gpt,
        codex,
    } = formats(&python).await?;
    let config = format!(
        "
model_list:
  - model_name: claude
    litellm_params: {{model: anthropic/claude-up, api_base: '{claude}', api_key: upstream-key}}
  - model_name: gpt
    litellm_params: {{model: openai/gpt-up, api_base: '{gpt}', api_key: upstream-key}}
  - model_name: codex
    litellm_params: {{model: openai/gpt-5-codex, api_base: '{codex}', api_key: upstream-key}}
general_settings: {{master_key: sk-client-of-the-gateway}}
router_settings: {{num_retries: 0, disable_cooldowns: true}}
"
    );
    let gateway = Gateway::start(&config).await?;
    passes(
        &python,
        "python/formats.py",
        &[gateway.url()],
        "all formats answered",
    )
    .await
}

fn skipped() {
    eprintln!("\n!!!! SKIPPED: the Python SDKs: no .venv with them; scripts/test makes one\n");
}

/// Runs a script with the URLs of gateways. It ends with success, and says that it came to its end.
pub(crate) async fn passes(
    python: &Path,
    script: &str,
    urls: &[impl AsRef<OsStr>],
    end: &str,
) -> Result<()> {
    let output = Command::new(python)
        .arg(here(script))
        .args(urls)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true)
        .output()
        .await?;
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(output.status.success(), "{text}");
    ensure!(text.contains(end), "{text}");
    Ok(())
}

/// What the upstream calls the model, as a JSON body names it.
fn upstream_model(calls: &[Seen]) -> Result<String> {
    let call = calls.first().context("a call")?;
    let body: serde_json::Value = serde_json::from_str(&call.body)?;
    Ok(body["model"].as_str().context("a model")?.to_owned())
}

/// Upstreams of all formats, and the `api_base` of each. They end with the process.
pub(crate) struct Formats {
    pub(crate) process: Child,
    pub(crate) claude: String,
    pub(crate) gpt: String,
    /// It has only the Responses API.
    pub(crate) codex: String,
}

/// Starts them.
pub(crate) async fn formats(python: &Path) -> Result<Formats> {
    let (process, ports) = upstream_of(python, "python/upstreams.py").await?;
    let ports: Vec<&str> = ports.split(' ').collect();
    let [claude, gpt, codex] = ports[..] else {
        bail!("the ports of the upstreams: {ports:?}");
    };
    let address = "http://127.0.0.1";
    Ok(Formats {
        process,
        claude: format!("{address}:{claude}"),
        gpt: format!("{address}:{gpt}/v1"),
        codex: format!("{address}:{codex}/v1"),
    })
}

/// A script that prints its ports in its first line. It ends with the handle.
async fn upstream_of(python: &Path, script: &str) -> Result<(Child, String)> {
    let mut upstream = Command::new(python)
        .arg(here(script))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = upstream.stdout.take().context("its output")?;
    let ports = BufReader::new(stdout).lines().next_line().await?;
    Ok((upstream, ports.context("the upstream does not start")?))
}

/// `VORRANG_PYTHON` (empty: there is none), else the one scripts/test made.
pub(crate) fn python() -> Option<PathBuf> {
    installed("VORRANG_PYTHON", "../.venv/bin/python")
}

/// The one with the heavy clients: `VORRANG_PYTHON_CLIENTS`, else the one scripts/test made.
pub(crate) fn python_with_clients() -> Option<PathBuf> {
    installed("VORRANG_PYTHON_CLIENTS", "../.venv/clients/bin/python")
}

/// The one with the wheel of the Python package: `VORRANG_PYTHON_WHEEL`, else the one scripts/test made.
pub(crate) fn python_with_wheel() -> Option<PathBuf> {
    installed("VORRANG_PYTHON_WHEEL", "../.venv/wheel/bin/python")
}

fn installed(variable: &str, made: &str) -> Option<PathBuf> {
    let path = match var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => here(made),
    };
    path.is_file().then_some(path)
}

pub(crate) fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
