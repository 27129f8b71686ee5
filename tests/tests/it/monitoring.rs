//! The dashboard and the alerts of `deploy/`: a real Prometheus scrapes a real fleet, and every expression has a sample.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::{task::JoinSet, time::sleep};
use vorrang_tests::{
    Act, Chat, Client, Gateway, Redis, Upstream,
    prometheus::{self, Prometheus},
    until,
};

/// Alerts that what the fleet goes through here has to raise.
const RAISED: [&str; 6] = [
    "VorrangRequestsTimeOut",
    "VorrangRequestsRefused",
    "VorrangServerErrors",
    "VorrangSpansLost",
    "VorrangStateLost",
    "VorrangUpstreamErrors",
];

fn deployed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(path)
}

fn config(upstream: &str, redis: &str) -> String {
    format!(
        "
model_list:
  - model_name: model
    litellm_params: {{model: openai/up, api_base: {upstream}, api_key: k, rpm: 6000, max_parallel_requests: 8}}
    model_info: {{id: first}}
  - model_name: tight
    litellm_params: {{model: up, mock_response: hello, rpm: 1}}
  - model_name: slow
    litellm_params: {{model: up, mock_response: hello, rps: 1}}
  - model_name: broken
    litellm_params: {{model: up, mock_response: litellm.InternalServerError}}
router_settings:
  num_retries: 0
  cooldown_time: 1
  allowed_fails: 1000000
  fallbacks: [{{broken: [model]}}]
vorrang_settings:
  redis_url: {redis}
  lease_seconds: 1
  groups:
    model: {{pace_worse_than: 10, reserve: {{priority: 0, share: 0.1}}}}
    tight: {{max_queue_depth: 1, spill: {{to: model, after: 0.1s, better_than: 0}}}}
"
    )
}

/// Traffic of all kinds, until it is dropped. What becomes of it is seen in the metrics.
fn traffic(client: &Client) -> JoinSet<()> {
    let chats = [
        Chat::new("urgent").priority(-5),
        Chat::new("user").with("stream", true),
        Chat::new("batch").priority(50),
        Chat::new("late").with("model", "slow").with("timeout", 0.2),
        Chat::new("refused")
            .with("model", "tight")
            .with("timeout", 0.2),
        Chat::new("spilled").with("model", "tight").priority(-1),
        Chat::new("falls back").with("model", "broken"),
        Chat::new("fails")
            .with("model", "broken")
            .with("disable_fallbacks", true),
    ];
    let mut running = JoinSet::new();
    for chat in chats {
        let client = client.clone();
        running.spawn(async move {
            loop {
                drop(client.chat(&chat).await);
                sleep(Duration::from_millis(50)).await;
            }
        });
    }
    running
}

/// The dashboard's expressions, as Grafana would send them.
fn of_dashboard() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(deployed("grafana/dashboards/vorrang.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let mut ids = BTreeSet::new();
    let mut expressions = BTreeSet::new();
    for panel in panels {
        ensure!(ids.insert(panel["id"].as_u64()), "an id twice: {panel}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().context("no expression")?;
            expressions.insert(filled(expression));
        }
    }
    let annotations = dashboard["annotations"]["list"].as_array();
    for annotation in annotations.into_iter().flatten() {
        let expression = annotation["expr"].as_str().context("no expression")?;
        expressions.insert(left_side(&filled(expression))?);
    }
    Ok(expressions)
}

fn filled(expression: &str) -> String {
    let filled = expression.replace("$group", ".*");
    filled.replace("$__rate_interval", "1m")
}

/// What is compared with a number at the end: an alert has no sample as long as all is well.
fn left_side(expression: &str) -> Result<String> {
    let (left, number) = expression
        .rsplit_once([' '])
        .and_then(|(left, number)| Some((left.strip_suffix([' ', '>', '<'])?, number)))
        .with_context(|| format!("no comparison: {expression}"))?;
    ensure!(number.parse::<f64>().is_ok(), "no number: {expression}");
    Ok(left.trim_end_matches([' ', '>', '<']).to_owned())
}

#[tokio::test]
async fn every_expression_of_the_dashboard_and_the_alerts_has_a_sample() -> Result<()> {
    if !prometheus::is_installed() {
        eprintln!("\n!!!! SKIPPED: the dashboard and the alerts: there is no prometheus\n");
        return Ok(());
    }
    let mut redis = Redis::start().await?;
    let upstream = Upstream::start().await?;
    let busy = Act {
        retry_after: Some("1".into()),
        ..Act::fail(429)
    };
    let first = [Act::fail(500), Act::reset(), busy];
    upstream.plan(&first, Act::after(20)).await?;
    let config = config(&upstream.url(), &redis.url());
    // There is no collector.
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "100"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ];
    let (one, two) = (
        Gateway::launch(&config, &env).await?,
        Gateway::launch(&config, &env).await?,
    );
    one.ready().await?;
    two.ready().await?;
    let targets = [&one, &two].map(|gateway| gateway.url().trim_start_matches("http://"));
    let prometheus = Prometheus::start(
        &targets,
        &fs::canonicalize(deployed("prometheus/rules.yml"))?,
    )
    .await?;
    let _traffic = [traffic(one.client()), traffic(two.client())];

    // A scrape of both before, so that what the loss of the state counts is an increase, whichever notices it.
    let scraped = || prometheus.query("count(sum by (instance) (vorrang_granted_total) > 10) == 2");
    until("grants", scraped, |found| !found.is_empty()).await?;
    redis.restart().await?;

    let mut left = of_dashboard()?;
    ensure!(left.len() > 40, "{left:?}");
    let rules = prometheus.rules().await?;
    ensure!(rules.len() > 15, "{rules:?}");
    for rule in &rules {
        left.insert(left_side(rule["query"].as_str().context("no query")?)?);
    }
    let left = std::sync::Mutex::new(left);
    let look = || async {
        let wanted = left.lock().unwrap().clone();
        for expression in wanted {
            let found = prometheus.query(&expression).await?;
            // 0 / 0 is NaN: a sample, and no figure.
            if found.iter().any(|value| value.is_finite()) {
                left.lock().unwrap().remove(&expression);
            }
        }
        Ok(left.lock().unwrap().clone())
    };
    until("samples of these", look, BTreeSet::is_empty).await?;

    let quiet = || async {
        let mut quiet = BTreeSet::from(RAISED.map(str::to_owned));
        for rule in prometheus.rules().await? {
            ensure!(rule["health"] != "err", "{rule}");
            if rule["state"] != "inactive" {
                quiet.remove(rule["name"].as_str().unwrap_or_default());
            }
        }
        Ok(quiet)
    };
    until("alerts that are not raised", quiet, BTreeSet::is_empty).await?;
    Ok(())
}

#[test]
fn prometheus_accepts_the_clusters_configuration_and_rules() -> Result<()> {
    if !prometheus::is_installed() {
        eprintln!("\n!!!! SKIPPED: Prometheus' configuration: there is no promtool\n");
        return Ok(());
    }
    let output = Command::new("promtool")
        .args(["check", "config", "--lint=all", "--lint-fatal"])
        .arg(deployed("prometheus/prometheus.yml"))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}{output:?}");
    ensure!(text.contains("rules found"), "{text}");
    Ok(())
}
