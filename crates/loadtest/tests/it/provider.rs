//! The simulated provider over HTTP: its answers, and its report of the calls.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use vorrang_load::{
    amount::{Spread, Time},
    provider::{Fault, Kind, Outcome, Provider, Report, Settings},
};

struct Simulated {
    url: String,
    http: reqwest::Client,
    serving: tokio::task::JoinHandle<()>,
}

/// Quick, and with a window that no test outlasts.
fn settings() -> Settings {
    Settings {
        latency: Spread::Constant(0.0),
        token_speed: Spread::Constant(10_000.0),
        tokens: Spread::Constant(12.0),
        window: Time(Duration::from_secs(3600)),
        ..Settings::default()
    }
}

impl Simulated {
    async fn start(settings: Settings) -> Result<Self> {
        drop(rustls::crypto::ring::default_provider().install_default());
        let provider = Provider::bind("127.0.0.1", 0, settings).await?;
        let url = format!("http://{}", provider.address()?);
        let serving = tokio::spawn(async move { match provider.serve().await {} });
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { url, http, serving })
    }

    async fn call(&self, path: &str, body: &Value) -> reqwest::Result<reqwest::Response> {
        let request = self.http.post(format!("{}{path}", self.url));
        request.json(body).send().await
    }

    async fn chat(&self, id: &str) -> reqwest::Result<reqwest::Response> {
        let messages = json!([{"role": "user", "content": "12345678"}]);
        let body = json!({"model": "m", "messages": messages, "max_tokens": 10, "request_id": id});
        self.call("/v1/chat/completions", &body).await
    }

    async fn set_faults(&self, faults: Value) -> Result<()> {
        let answer = self.call("/faults", &faults).await?;
        ensure!(answer.status() == 200, "{}", answer.text().await?);
        Ok(())
    }

    async fn report(&self) -> Result<Report> {
        let answer = self.http.get(format!("{}/report", self.url)).send().await?;
        Ok(answer.json().await?)
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[tokio::test]
async fn both_apis_answer_streamed_and_whole_with_the_usage() -> Result<()> {
    let provider = Simulated::start(settings()).await?;
    for (path, input) in [
        ("/v1/chat/completions", "messages"),
        ("/v1/completions", "prompt"),
    ] {
        let value = if input == "prompt" {
            json!("12345678")
        } else {
            json!([{"role": "user", "content": "12345678"}])
        };
        let whole = json!({"model": "m", input: value});
        let answer: Value = provider.call(path, &whole).await?.json().await?;
        ensure!(answer["usage"]["total_tokens"] == 2 + 12, "{answer}");
        let mut streamed = whole;
        streamed["stream"] = true.into();
        let answer = provider.call(path, &streamed).await?;
        ensure!(answer.headers()["content-type"] == "text/event-stream");
        let text = answer.text().await?;
        ensure!(
            text.contains("\"total_tokens\":14") && text.ends_with("data: [DONE]\n\n"),
            "{text}"
        );
    }
    let report = provider.report().await?;
    ensure!(
        report
            .arrivals
            .iter()
            .all(|arrival| arrival.used == Some(14))
    );
    ensure!(report.counts.outcomes[&Outcome::Answered] == 4);
    Ok(())
}

/// The basis of the verdict on windows: one call above the limit is refused, reported and counted.
#[tokio::test]
async fn call_above_the_limit_gets_429_and_is_a_violation() -> Result<()> {
    let limited = Settings {
        rpm: Some(2),
        ..settings()
    };
    let provider = Simulated::start(limited).await?;
    for id in ["a", "b"] {
        ensure!(provider.chat(id).await?.status() == 200);
    }
    let refused = provider.chat("c").await?;
    ensure!(refused.status() == 429);
    let after: u64 = refused.headers()["retry-after"].to_str()?.parse()?;
    ensure!((1..=3600).contains(&after), "{after}");
    let report = provider.report().await?;
    ensure!(report.counts.violations.requests == 1 && report.fullest.requests == 3);
    ensure!(report.arrivals[2].violated == Some(Kind::Requests));
    ensure!(report.arrivals[2].id == "c" && report.arrivals[2].outcome == Outcome::Refused);

    provider.call("/reset", &json!(null)).await?;
    ensure!(provider.chat("d").await?.status() == 200);
    ensure!(provider.report().await?.counts.arrived == 1);
    Ok(())
}

#[tokio::test]
async fn excess_tokens_are_a_violation_until_a_shorter_answer_returns_some() -> Result<()> {
    let limited = Settings {
        tpm: Some(20),
        tokens: Spread::Constant(3.0),
        ..settings()
    };
    let provider = Simulated::start(limited).await?;
    // 12 are reserved (2 + max_tokens), 5 used; with the next 12 that is 17.
    for id in ["a", "b"] {
        ensure!(provider.chat(id).await?.status() == 200);
    }
    ensure!(provider.chat("c").await?.status() == 429);
    let report = provider.report().await?;
    ensure!(report.counts.violations.tokens == 1, "{:?}", report.counts);
    Ok(())
}

#[tokio::test]
async fn excess_open_call_is_a_violation_and_an_abandoned_call_is_not_counted() -> Result<()> {
    let limited = Settings {
        concurrency: Some(1),
        ..settings()
    };
    let provider = Simulated::start(limited).await?;
    provider
        .set_faults(json!([{"fault": "stall", "time": "1h", "count": 2}]))
        .await?;
    let stalled =
        async || -> Result<tokio::task::JoinHandle<()>> {
            let (http, url) = (provider.http.clone(), provider.url.clone());
            let call = tokio::spawn(async move {
                let body = json!({"model": "m", "prompt": "1"});
                let request = http.post(format!("{url}/v1/completions")).json(&body);
                drop(request.send().await);
            });
            while !provider.report().await?.arrivals.iter().any(|arrival| {
                arrival.outcome == Outcome::Open && arrival.fault == Some(Fault::Stall)
            }) {}
            Ok(call)
        };
    let first = stalled().await?;
    ensure!(provider.chat("second").await?.status() == 429);
    // Its caller leaves, on a connection of its own: the next one may be there before the provider knows.
    first.abort();
    let again = stalled().await?;
    again.abort();
    ensure!(provider.chat("third").await?.status() == 200);
    let report = provider.report().await?;
    ensure!(report.counts.violations.concurrency == 1 && report.fullest.concurrency <= 2);
    ensure!(
        report.counts.outcomes[&Outcome::Left] == 2,
        "{:?}",
        report.counts
    );
    Ok(())
}

#[tokio::test]
async fn simulated_provider_injects_configured_faults() -> Result<()> {
    let provider = Simulated::start(settings()).await?;
    provider
        .set_faults(json!([
            {"fault": "error", "status": 429, "retry_after": 7, "count": 1},
            {"fault": "reset", "count": 1},
            {"fault": "break", "count": 1},
        ]))
        .await?;
    let refused = provider.chat("a").await?;
    ensure!(refused.status() == 429 && refused.headers()["retry-after"] == "7");
    let error = provider.chat("b").await.expect_err("a reset");
    ensure!(
        format!("{error:?}").contains("ConnectionReset"),
        "{error:?}"
    );
    let broken = provider.chat("c").await?;
    ensure!(broken.status() == 200 && broken.bytes().await.is_err());
    ensure!(provider.chat("d").await?.bytes().await.is_ok());
    let report = provider.report().await?;
    let faults: Vec<Option<Fault>> = report.arrivals.iter().map(|one| one.fault).collect();
    let expected = [
        Some(Fault::Error),
        Some(Fault::Reset),
        Some(Fault::Break),
        None,
    ];
    ensure!(faults == expected, "{faults:?}");
    ensure!(
        report.counts.violations.total() == 0,
        "an ordered 429 is none"
    );

    let answer = provider
        .call("/faults", &json!([{"fault": "error", "share": 9}]))
        .await?;
    ensure!(answer.status() == 400 && answer.text().await?.contains("share"));
    Ok(())
}
