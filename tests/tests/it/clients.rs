//! Clients that programs use, unchanged, against the real `vorrang` and upstreams over HTTP: the SDKs' Azure classes and their
//! classes of errors, `LiteLLM`'s SDK, a `LiteLLM` proxy before the gateway, `LangChain` and `LlamaIndex`.

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};
use vorrang_tests::{Act, Gateway, Seen, Upstream};

use crate::sdk::{Formats, formats, here, python, python_with_clients};

/// `LiteLLM`'s proxy needs half a minute to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(150);

/// A gateway with upstreams of both formats.
///
/// Models: `claude`, `gpt` (strict about their formats, with tools and failures), `model` (every endpoint of `OpenAI`'s), `slow`
/// (answers never).
struct Served {
    gateway: Gateway,
    endpoints: Upstream,
    _slow: Upstream,
    _formats: Child,
}

/// Runs `python/clients/SCRIPT` with `URL`. It ends with the line `says`.
async fn run(python: &Path, script: &str, url: &str, says: &str) -> Result<()> {
    let output = command(python)
        .arg(here("python/clients").join(script))
        .arg(url)
        .output()
        .await?;
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(output.status.success(), "{text}");
    ensure!(text.contains(says), "{text}");
    Ok(())
}

/// Ends with its handle.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // LiteLLM and LangChain would call their makers otherwise.
        .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        .env("LITELLM_TELEMETRY", "False")
        .env("LANGSMITH_TRACING", "false")
        .kill_on_drop(true);
    command
}

fn skipped(what: &str) {
    eprintln!("\n!!!! SKIPPED: {what}: it is not installed; scripts/test does that\n");
}

#[tokio::test]
async fn azure_clients_of_openais_sdk_work_unchanged() -> Result<()> {
    let Some(python) = python() else {
        skipped("OpenAI's Python SDK");
        return Ok(());
    };
    let served = Served::start(&python).await?;
    let url = served.gateway.url();
    run(&python, "azure.py", url, "Azure's clients are served").await?;
    // The version of Azure's API is the deployment's business.
    let calls = served.endpoints.calls().await?;
    ensure!(!calls.is_empty());
    for call in &calls {
        ensure!(!call.path.contains("api-version"), "{call:?}");
    }
    no_priority(&calls)
}

#[tokio::test]
async fn failures_are_raised_as_the_sdks_classes() -> Result<()> {
    let Some(python) = python() else {
        skipped("OpenAI's and Anthropic's Python SDKs");
        return Ok(());
    };
    let served = Served::start(&python).await?;
    run(
        &python,
        "classes.py",
        served.gateway.url(),
        "all classes raised",
    )
    .await
}

#[tokio::test]
async fn litellms_sdk_works_as_a_client() -> Result<()> {
    let Some(python) = python_with_clients() else {
        skipped("LiteLLM");
        return Ok(());
    };
    let served = Served::start(&python).await?;
    let url = served.gateway.url();
    run(&python, "litellm_sdk.py", url, "LiteLLM's SDK is served").await?;
    let calls = served.endpoints.calls().await?;
    ensure!(calls.len() == 8, "{} calls", calls.len());
    no_priority(&calls)
}

#[tokio::test]
async fn litellm_proxy_has_the_gateway_as_its_upstream() -> Result<()> {
    let Some(python) = python_with_clients() else {
        skipped("LiteLLM's proxy");
        return Ok(());
    };
    let served = Served::start(&python).await?;
    let proxy = Proxy::start(&python, served.gateway.url()).await?;
    let done = run(
        &python,
        "litellm_proxy.py",
        &proxy.url,
        "the proxy is served",
    )
    .await;
    let printed = || format!("the proxy printed {:?}", proxy.log());
    done.with_context(printed)?;
    // The priority has come as far as the gateway, and not beyond.
    let log = served.gateway.log()?;
    let dispatched = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["priority"] == 7)
        .count();
    ensure!(dispatched >= 4, "{dispatched} of 4 with a priority: {log}");
    let calls = served.endpoints.calls().await?;
    ensure!(calls.len() == 4, "{} calls", calls.len());
    no_priority(&calls)
}

#[tokio::test]
async fn langchain_and_llama_index_work_unchanged() -> Result<()> {
    let Some(python) = python_with_clients() else {
        skipped("LangChain and LlamaIndex");
        return Ok(());
    };
    let served = Served::start(&python).await?;
    let url = served.gateway.url();
    run(&python, "frameworks.py", url, "the frameworks are served").await
}

fn no_priority(calls: &[Seen]) -> Result<()> {
    let with = calls.iter().find(|call| call.body.contains("priority"));
    ensure!(with.is_none(), "{with:?}");
    Ok(())
}

/// A `LiteLLM` proxy. Ends with its handle.
struct Proxy {
    url: String,
    child: Child,
    log: PathBuf,
    _directory: TempDir,
}

// === impl Served ===

impl Served {
    async fn start(python: &Path) -> Result<Self> {
        let (endpoints, slow) = (Upstream::start().await?, Upstream::start().await?);
        slow.plan(&[], Act::after(3_600_000)).await?;
        let Formats {
            process,
            claude,
            gpt,
            ..
        } = formats(python).await?;
        let deployment = |name: &str, model: &str, base: &str| {
            format!(
                "
  - model_name: {name}
    litellm_params: {{model: {model}, api_base: '{base}', api_key: upstream-key}}"
            )
        };
        let deployments = [
            deployment("claude", "anthropic/claude-up", &claude),
            deployment("gpt", "openai/gpt-up", &gpt),
            deployment("model", "openai/up", &endpoints.url()),
            deployment("slow", "openai/up", &slow.url()),
        ]
        .concat();
        let config = format!(
            "
model_list:{deployments}
general_settings: {{master_key: sk-client-of-the-gateway}}
vorrang_settings: {{keys: [{{name: narrow, key: sk-narrow, models: [gpt]}}]}}
router_settings: {{num_retries: 0, disable_cooldowns: true}}
"
        );
        Ok(Self {
            gateway: Gateway::start(&config).await?,
            endpoints,
            _slow: slow,
            _formats: process,
        })
    }
}

// === impl Proxy ===

impl Proxy {
    /// Models `openai-gpt`, `litellm_proxy-model` and so on: by this provider of `LiteLLM`'s, that model of the gateway.
    async fn start(python: &Path, gateway: &str) -> Result<Self> {
        let start = Instant::now();
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("config.yaml");
        let mut config = String::from("model_list:");
        for provider in ["openai", "litellm_proxy"] {
            for model in ["gpt", "model"] {
                write!(
                    config,
                    "
  - model_name: {provider}-{model}
    litellm_params: {{model: {provider}/{model}, api_base: '{gateway}/v1', api_key: sk-client-of-the-gateway}}"
                )?;
            }
        }
        config.push_str("\nrouter_settings: {num_retries: 0, disable_cooldowns: true}\n");
        fs::write(&file, config)?;
        let log = directory.path().join("stderr");
        let child = command(&python.with_file_name("litellm"))
            .arg("--config")
            .arg(&file)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .env("LITELLM_MASTER_KEY", "sk-of-the-proxy-0123456789abcdef")
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let mut proxy = Self {
            url: String::new(),
            child,
            log,
            _directory: directory,
        };
        loop {
            // Whether it runs comes first: what it printed is then all of it.
            let ended = proxy.child.try_wait()?;
            let log = proxy.log()?;
            if let Some((_, after)) = log.split_once("Uvicorn running on ")
                && let Some((url, _)) = after.split_once(' ')
            {
                url.clone_into(&mut proxy.url);
                return Ok(proxy);
            }
            ensure!(ended.is_none(), "LiteLLM's proxy ended: {ended:?}\n{log}");
            ensure!(
                start.elapsed() < PATIENCE,
                "LiteLLM's proxy is not up:\n{log}"
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }
}
