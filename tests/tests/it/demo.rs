//! What a user sees who starts `vorrang` for the first time.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use vorrang_tests::Gateway;

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
