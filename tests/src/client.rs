//! [`Client`]: raw HTTP, as any program speaks it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::{RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::Instant};

use crate::referee::Passage;

/// Longer than any test.
const TIMEOUT: Duration = Duration::from_secs(300);

/// A client of one gateway. Cheap to clone; each request that waits has a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
    /// From the request's start to the answer's end.
    pub took: Duration,
}

/// A chat request.
#[derive(Debug, Clone)]
pub struct Chat {
    /// The whole body.
    pub body: Value,
    /// Header `x-team`.
    team: Option<String>,
}

/// An HTTP client as the tests use it.
pub(crate) fn http() -> Result<reqwest::Client> {
    // reqwest wants one also where no TLS is spoken; a second installation is refused and changes nothing.
    drop(rustls::crypto::ring::default_provider().install_default());
    let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy();
    Ok(http.build()?)
}

// === impl Chat ===

impl Chat {
    /// A short chat with `model`. `user` tells it apart upstream.
    pub fn new(user: &str) -> Self {
        let messages = json!([{"role": "user", "content": "hi"}]);
        let body = json!({"model": "model", "messages": messages, "user": user});
        Self { body, team: None }
    }

    /// With another field.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.body[field] = value.into();
        self
    }

    /// In the name of a team, for shares by header.
    #[must_use]
    pub fn team(mut self, team: impl ToString) -> Self {
        self.team = Some(team.to_string());
        self
    }

    /// With a priority.
    #[must_use]
    pub fn priority(self, priority: i32) -> Self {
        self.with("priority", priority)
    }
}

// === impl Client ===

impl Client {
    /// A client of the gateway at `url`.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(url: &str) -> Result<Self> {
        let (http, url) = (http()?, url.into());
        Ok(Self { http, url })
    }

    /// Of the gateway.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A request to `path`, to be completed and sent.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url))
    }

    /// A GET, answered.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        Reply::of(self.http.get(format!("{}{path}", self.url))).await
    }

    /// The same as [`Client::chat`], meanwhile.
    pub fn send(&self, chat: Chat) -> JoinHandle<Result<Reply>> {
        let client = self.clone();
        tokio::spawn(async move { client.chat(&chat).await })
    }

    /// A chat at `/v1/chat/completions`, answered, whatever the status.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn chat(&self, chat: &Chat) -> Result<Reply> {
        let mut request = self.post("/v1/chat/completions").json(&chat.body);
        if let Some(team) = &chat.team {
            request = request.header("x-team", team);
        }
        Reply::of(request).await
    }
}

// === impl Reply ===

impl Reply {
    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// There is no whole answer.
    pub async fn of(request: RequestBuilder) -> Result<Self> {
        let start = Instant::now();
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await?;
        Ok(Self {
            status,
            headers,
            text,
            took: start.elapsed(),
        })
    }

    /// The same, if it is a 200.
    ///
    /// # Errors
    /// It is another.
    pub fn ok(self) -> Result<Self> {
        ensure!(
            self.status == 200,
            "{} instead of 200: {}",
            self.status,
            self.text
        );
        Ok(self)
    }

    /// A header's value; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| self.text.clone())
    }

    /// The error's message.
    ///
    /// # Errors
    /// The body has not the shape of an error: all four fields, and the status as its code.
    pub fn error(&self) -> Result<String> {
        let body = self.json()?;
        let error = body["error"]
            .as_object()
            .with_context(|| self.text.clone())?;
        for field in ["message", "type", "param", "code"] {
            ensure!(error.contains_key(field), "no {field} in {body}");
        }
        ensure!(
            error["code"].as_str() == Some(self.status.to_string().as_str()),
            "{} with {body}",
            self.status
        );
        Ok(error["message"].as_str().unwrap_or_default().into())
    }

    /// Its way through the queue, by its headers.
    ///
    /// # Errors
    /// They are not there.
    pub fn passage(&self) -> Result<Passage> {
        let ticket = self.header("x-vorrang-ticket");
        let part = |name: &str| {
            let mut parts = ticket.split(", ");
            parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        };
        let number = |name: &str| -> Result<u64> {
            let part = part(name).with_context(|| format!("no {name} in {ticket:?}"))?;
            Ok(part.parse()?)
        };
        let priority = self.header("x-vorrang-priority").parse()?;
        let score = part("score").map_or(Ok(i64::from(priority)), str::parse)?;
        Ok(Passage {
            priority,
            score,
            start: part("start").map_or(Ok(0), str::parse)?,
            arrival: number("arrival")?,
            entered: number("entered")?,
            granted: number("granted")?,
        })
    }
}
