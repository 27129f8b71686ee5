//! The page at `/ui`, used in a real browser (Debian's chromium) as a person does, on real instances.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use vorrang_gateway::Router;
use vorrang_tests::{Act, Gateway, Redis, Upstream, until};

use crate::sdk::{self, passes};

/// Two requests in three seconds: what waits goes soon. Names are what an attacker would call them.
fn fleet(redis: &Redis, upstream: &Upstream) -> String {
    format!(
        "
model_list:
  - model_name: model
    litellm_params: {{model: openai/upstream-model, api_base: '{0}', api_key: upstream-key, rpm: 2}}
    model_info: {{id: first}}
  - model_name: '<img src=x onerror=hacked=1>/?#%'
    litellm_params: {{model: openai/upstream-model, api_base: '{0}', api_key: upstream-key, rpm: 1000}}
    model_info: {{id: '<b onclick=hacked=1>'}}
general_settings: {{master_key: sk-master}}
litellm_settings: {{request_timeout: 120}}
vorrang_settings:
  redis_url: {1}
  window_seconds: 3
  keys:
    - {{name: batch, key: sk-batch}}
    - {{name: web, key: sk-web}}
",
        upstream.url(),
        redis.url()
    )
}

/// Python with a client of browsers, and the browser.
fn browser() -> Option<PathBuf> {
    let there = |path: &str| Path::new(path).is_file();
    let python = sdk::python()?;
    let client = Path::new("lib");
    let client = python.parent()?.parent()?.join(client);
    let client = client.read_dir().ok()?.filter_map(Result::ok).any(|one| {
        let packages = one.path().join("site-packages");
        packages.join("selenium").is_dir() && packages.join("axe_playwright_python").is_dir()
    });
    let found = client && there("/usr/bin/chromium") && there("/usr/bin/chromedriver");
    if !found {
        eprintln!(
            "SKIPPED: there is no chromium, or no selenium in .venv; scripts/test installs them"
        );
    }
    found.then_some(python)
}

/// What a person does: enters the key, sees requests wait, moves one and watches it go first, cancels one, pauses and resumes,
/// changes a limit; by mouse and by keyboard, in both colour schemes, at 1600 and 400 px.
#[tokio::test]
async fn page_shows_and_steers_the_queue_of_two_instances() -> Result<()> {
    let Some(python) = browser() else {
        return Ok(());
    };
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    upstream.plan(&[], Act::after(50)).await?;
    let config = fleet(&redis, &upstream);
    let (first, second) = (
        Gateway::start(&config).await?,
        Gateway::start(&config).await?,
    );
    let process = first.id().to_string();
    let urls = [first.url(), second.url(), &process];
    passes(&python, "python/page.py", &urls, "the page passes").await?;
    // Each action is told by whom it was done.
    let log = first.log()? + &second.log()?;
    ensure!(log.contains("vorrang::audit"), "no action in the log");
    ensure!(!log.contains("sk-master"), "a key in the log");
    Ok(())
}

/// The page shows a part of a long queue: what the browser lays out and how long it computes do not grow with what waits.
#[tokio::test]
async fn ten_thousand_waiting_tickets_do_not_make_the_page_slow() -> Result<()> {
    const TICKETS: usize = 10_000;
    let Some(python) = browser() else {
        return Ok(());
    };
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let config = fleet(&redis, &upstream).replace("window_seconds: 3", "window_seconds: 600");
    let gateway = Gateway::start(&config).await?;
    // Another member of the fleet, in this process: calls that wait there cost no connections.
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("config.yaml");
    std::fs::write(&file, &config)?;
    let member = Router::from_file(&file).await?;
    member.until_ready().await;
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..TICKETS {
        let member = member.clone();
        waiting.spawn(async move {
            let priority = if number % 10 == 0 { 0 } else { 1000 };
            let permit = member.permit("model").priority(priority).acquire().await;
            // The first two go at once, and are held.
            std::future::pending::<()>().await;
            drop(permit);
        });
    }
    let depth = || gateway.metric("vorrang_queue_depth", "group=\"model\"");
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    until("the queue", depth, |depth| *depth >= TICKETS as f64 - 2.0).await?;
    passes(
        &python,
        "python/page_many.py",
        &[gateway.url()],
        "ten thousand pass",
    )
    .await
}
