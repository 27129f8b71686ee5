//! LiteLLM's documented feature "Request Prioritization": its config and its calls, unchanged.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use vorrang_tests::{Gateway, Redis, Reply, gateway::run};

/// As the documentation prints it.
pub(crate) const CONFIG: &str = "model_list:
  - model_name: gpt-3.5-turbo-fake-model
    litellm_params:
      model: gpt-3.5-turbo
      mock_response: \"hello world!\"
      api_key: my-good-key
litellm_settings:
  request_timeout: 600          # how long a request waits at most
router_settings:
  redis_host: os.environ/REDIS_HOST
  redis_password: os.environ/REDIS_PASSWORD
  redis_port: os.environ/REDIS_PORT
";

/// As the documentation's curl sends it.
const CALL: &str = r#"{"model": "gpt-3.5-turbo-fake-model", "messages": [{"role": "user", "content": "hi"}], "priority": 0}"#;

/// The gateway of the documentation on a Redis of its own.
pub(crate) async fn start(redis: &Redis) -> Result<Gateway> {
    let port = redis.port().to_string();
    // The password is not set: Redis has none.
    let gateway = Gateway::launch(
        CONFIG,
        &[("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", &port)],
    )
    .await?;
    gateway.ready().await?;
    Ok(gateway)
}

async fn post(gateway: &Gateway, path: &str, body: String) -> Result<Reply> {
    let request = gateway.client().post(path).body(body);
    let request = request.header("Content-Type", "application/json");
    Reply::of(request.header("Authorization", "Bearer sk-1234")).await
}

#[tokio::test]
async fn documented_config_and_curl_calls_work_unchanged() -> Result<()> {
    let redis = Redis::start().await?;
    let gateway = start(&redis).await?;
    for path in [
        "/chat/completions",
        "/v1/chat/completions",
        "/queue/chat/completions",
    ] {
        let reply = post(&gateway, path, CALL.into()).await?.ok()?;
        let body = reply.json()?;
        ensure!(
            body["choices"][0]["message"]["content"] == "hello world!",
            "{path}: {body}"
        );
        ensure!(body["object"] == "chat.completion", "{path}: {body}");
        ensure!(body["usage"]["total_tokens"].is_u64(), "{path}: {body}");
        ensure!(
            reply.header("x-litellm-request-prioritization-used") == "True",
            "{path}: {reply:?}"
        );
        ensure!(
            reply.header("x-litellm-priority") == "0",
            "{path}: {reply:?}"
        );
        ensure!(
            !reply.header("x-litellm-call-id").is_empty(),
            "{path}: {reply:?}"
        );
        ensure!(
            reply.header("x-litellm-model-group") == "gpt-3.5-turbo-fake-model",
            "{path}: {reply:?}"
        );
        reply.passage()?;
    }
    let text = json!({"model": "gpt-3.5-turbo-fake-model", "prompt": "hi", "priority": 2000});
    for path in ["/completions", "/v1/completions"] {
        let body = post(&gateway, path, text.to_string()).await?.ok()?.json()?;
        ensure!(
            body["choices"][0]["text"] == "hello world!",
            "{path}: {body}"
        );
    }
    // It went through Redis.
    ensure!(redis.calls("fcall").await? > 0);
    Ok(())
}

/// What the original answers, word for word where clients may look at it.
#[tokio::test]
async fn errors_have_the_documented_messages() -> Result<()> {
    let redis = Redis::start().await?;
    let gateway = start(&redis).await?;
    let unknown = CALL.replace("gpt-3.5-turbo-fake-model", "nope");
    let reply = post(&gateway, "/chat/completions", unknown).await?;
    let expected = "/chat/completions: Invalid model name passed in model=nope. Call `/v1/models` to view available models for your key.";
    ensure!(
        reply.status == 400 && reply.error()? == expected,
        "{reply:?}"
    );
    let missing = r#"{"model": "gpt-3.5-turbo-fake-model", "priority": 0}"#;
    let reply = post(&gateway, "/chat/completions", missing.into()).await?;
    ensure!(
        reply.status == 400 && reply.error()? == "Missing required parameter: 'messages'.",
        "{reply:?}"
    );
    ensure!(reply.json()?["error"]["param"] == "messages", "{reply:?}");
    Ok(())
}

/// The SDK's quick start as a gateway: `rpm: 1`, `timeout=2`. The second request waits its two seconds and no longer.
#[tokio::test]
async fn quick_start_limit_and_timeout_are_enforced() -> Result<()> {
    let config = "model_list:
  - model_name: gpt-3.5-turbo-fake-model
    litellm_params: {model: gpt-3.5-turbo, mock_response: Hello world this is Macintosh!, rpm: 1}
router_settings:
  timeout: 2
  routing_strategy: usage-based-routing-v2
  polling_interval: 0.03
";
    let gateway = Gateway::start(config).await?;
    post(&gateway, "/chat/completions", CALL.into())
        .await?
        .ok()?;
    let second = post(&gateway, "/chat/completions", CALL.into()).await?;
    ensure!(second.status == 408, "{second:?}");
    ensure!(
        second
            .error()?
            .starts_with("Request timed out while polling queue")
    );
    ensure!(
        (Duration::from_secs(2)..Duration::from_secs(3)).contains(&second.took),
        "{second:?}"
    );
    Ok(())
}

#[test]
fn documented_typo_is_reported_with_line_and_expectation() -> Result<()> {
    let typo = CONFIG.replace("redis_host: ", "redis_host; ");
    let line = typo.lines().position(|line| line.contains("redis_host;"));
    let place = format!("config.yaml:{}", line.map_or(0, |line| line + 1));
    for args in [
        &["--config", "config.yaml"][..],
        &["check", "--config", "config.yaml"],
    ] {
        let env = [
            ("REDIS_HOST", "localhost"),
            ("REDIS_PORT", "1"),
            ("REDIS_PASSWORD", "geheim"),
        ];
        let output = run(&typo, args, &env)?;
        let text = String::from_utf8(output.stderr)?;
        ensure!(!output.status.success(), "{args:?}: {text}");
        ensure!(text.contains(&place), "{args:?}: {text}");
        ensure!(
            text.contains("redis_host:") && text.contains("expected"),
            "{args:?}: {text}"
        );
        ensure!(!text.contains("panicked"), "{text}");
    }
    Ok(())
}

#[test]
fn missing_environment_variable_is_named() -> Result<()> {
    let output = run(
        CONFIG,
        &["check", "--config", "config.yaml"],
        &[("REDIS_PORT", "1")],
    )?;
    let text = String::from_utf8(output.stderr)?;
    ensure!(!output.status.success(), "{text}");
    ensure!(
        text.contains("REDIS_HOST") && text.contains("config.yaml:10"),
        "{text}"
    );
    Ok(())
}

#[test]
fn check_prints_the_plan_and_no_secret() -> Result<()> {
    let env = [
        ("REDIS_HOST", "localhost"),
        ("REDIS_PORT", "6380"),
        ("REDIS_PASSWORD", "geheim"),
    ];
    let output = run(CONFIG, &["check", "--config", "config.yaml"], &env)?;
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(output.status.success(), "{text}");
    for part in ["gpt-3.5-turbo-fake-model", "localhost:6380", "600"] {
        ensure!(text.contains(part), "no {part} in {text}");
    }
    for secret in ["geheim", "my-good-key"] {
        ensure!(!text.contains(secret), "{secret} in {text}");
    }
    Ok(())
}
