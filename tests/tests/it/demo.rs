//! What a user sees who starts `vorrang` for the first time.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use vorrang_tests::{Gateway, gateway::run, until};

/// Started without a configuration it serves at once. The printed curl line, run by a shell, gets a 200, and its
/// priority 0 counts.
#[tokio::test]
async fn demo_serves_its_printed_curl_line() -> Result<()> {
    // A REDIS_URL of another program must not change the backend of the demo.
    let gateway = Gateway::demo(&[("REDIS_URL", "redis://127.0.0.1:1")]).await?;
    let printed = gateway.stdout()?;
    let line = printed
        .lines()
        .find(|line| line.trim().starts_with("curl "));
    let line = line.with_context(|| format!("no curl line in:\n{printed}"))?;
    ensure!(
        line.contains(gateway.url()),
        "{line} does not go to {}",
        gateway.url()
    );
    ensure!(line.contains("\"priority\": 0"), "{line} has no priority 0");
    let answer = Command::new("sh").args(["-c", line]).output()?;
    let text = String::from_utf8(answer.stdout)?;
    ensure!(text.starts_with("HTTP/1.1 200 OK"), "{line}\n{text}");
    let head = text.to_lowercase();
    ensure!(
        head.contains("x-litellm-request-prioritization-used: true"),
        "{text}"
    );
    Ok(())
}

/// With `--demo-load` there is something to see: urgent requests go while batch requests wait, and all of it is answered.
#[tokio::test]
async fn demo_load_queues_batch_requests_and_serves_urgent_ones() -> Result<()> {
    let mut gateway = Gateway::demo_with(&["--demo-load"]).await?;
    gateway.ready().await?;
    ensure!(gateway.stdout()?.contains("/ui in a browser"), "no /ui");
    let waiting = || gateway.metric("vorrang_waiting", "demo-busy");
    until("a queue", waiting, |waiting| *waiting > 0.0).await?;
    let urgent = || gateway.metric("vorrang_wait_seconds_count", "priority=\"<0\"");
    until("an urgent call", urgent, |calls| *calls > 0.0).await?;
    ensure!(
        gateway
            .metric("vorrang_upstream_answers_total", "status=\"200\"")
            .await?
            > 0.0
    );
    gateway.terminate()?;
    ensure!(gateway.ended().await?.success(), "it ends with its traffic");
    Ok(())
}

#[test]
fn demo_load_needs_the_demo() -> Result<()> {
    let file =
        "model_list: [{model_name: m, litellm_params: {model: openai/m, mock_response: hi}}]\n";
    let output = run(
        file,
        &["--config", "config.yaml", "--demo-load", "--port", "0"],
        &[],
    )?;
    ensure!(!output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr)?;
    ensure!(
        said.contains("--demo-load is for the built-in demo"),
        "{said}"
    );
    Ok(())
}
