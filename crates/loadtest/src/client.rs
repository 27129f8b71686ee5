//! One client: sends a request at its time, and records its outcome.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use http::HeaderMap;
use reqwest::Response;
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    log::{Ended, Record, Ticket},
    plan::Planned,
    scenario::{Api, Scenario, Traffic},
};

/// What the provider counts a token for.
const BYTES_PER_TOKEN: usize = 4;

/// The clients of a run.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) http: reqwest::Client,
    pub(crate) targets: Vec<String>,
    /// As `Authorization: Bearer`, where a traffic has none of its own.
    pub(crate) key: Option<String>,
    /// Distinguishes this run's requests from another's.
    pub(crate) run: String,
    /// All times count from here.
    pub(crate) start: Instant,
    /// No request waits longer.
    pub(crate) end: Instant,
    /// One for each traffic: all its clients hang up.
    pub(crate) leave: Vec<Notify>,
}

/// What is known of a request while it is on its way.
struct Course {
    target: usize,
    head: Option<Instant>,
    ticket: Option<Ticket>,
}

/// An HTTP client for thousands of requests that wait, each on a connection of its own.
///
/// # Errors
/// TLS cannot be set up.
pub(crate) fn http() -> reqwest::Result<reqwest::Client> {
    // reqwest wants one also where no TLS is spoken; a second installation is refused and changes nothing.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .no_proxy()
        .http1_only()
        .connect_timeout(Duration::from_secs(5))
        // Hundreds that came at once probe at once, too: the kernel's queue of a loopback overflows, and what waits is taken for dead.
        .tcp_keepalive(None)
        .tcp_user_timeout(None)
        // Not one that the other side is about to close: that would look like a lost request.
        .pool_idle_timeout(Duration::from_secs(2))
        .build()
}

impl Clients {
    pub(crate) fn micros(&self, instant: Instant) -> u64 {
        let time = instant.saturating_duration_since(self.start);
        u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
    }

    /// Sends one request now and follows it to its end.
    pub(crate) async fn send(&self, index: usize, planned: &Planned) -> Record {
        let hung_up = self.leave[planned.traffic].notified();
        let sent = Instant::now();
        let meant = self.start + planned.at;
        let id = format!("{}-{index}", self.run);
        let body = self.body(planned, &id);
        let mut course = Course {
            target: index % self.targets.len(),
            head: None,
            ticket: None,
        };
        let patience = async {
            match planned.leave {
                Some(time) => sleep(time).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = timeout_at(self.end, self.exchange(planned, body, &mut course)) => ended.unwrap_or(Ended::Unanswered),
            () = patience => Ended::Left,
            () = hung_up => Ended::Left,
        };
        Record {
            id,
            phase: planned.phase,
            traffic: planned.traffic,
            tenant: planned.tenant,
            meant: self.micros(meant),
            sent: self.micros(sent),
            head: course.head.map(|head| self.micros(head)),
            end: self.micros(Instant::now()),
            target: course.target,
            ended,
            ticket: course.ticket,
        }
    }

    fn body(&self, planned: &Planned, id: &str) -> Vec<u8> {
        let traffic = &self.scenario.traffic[planned.traffic];
        let size = usize::try_from(planned.prompt_tokens).unwrap_or(usize::MAX);
        let text = "v".repeat(size.saturating_mul(BYTES_PER_TOKEN));
        let mut body = json!({
            "model": self.scenario.model,
            "user": self.scenario.user(planned.traffic, planned.tenant),
            "request_id": id,
        });
        match traffic.api {
            Api::Chat => body["messages"] = json!([{"role": "user", "content": text}]),
            Api::Text => body["prompt"] = text.into(),
        }
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body[name] = value;
            }
        };
        set("priority", traffic.priority.map(Value::from));
        set("max_tokens", planned.max_tokens.map(Value::from));
        let timeout = traffic.timeout.map(|timeout| timeout.0.as_secs_f64());
        set("timeout", timeout.map(Value::from));
        set("stream", planned.stream.then_some(Value::Bool(true)));
        body.to_string().into_bytes()
    }

    async fn exchange(&self, planned: &Planned, body: Vec<u8>, course: &mut Course) -> Ended {
        let traffic = &self.scenario.traffic[planned.traffic];
        let answer = match self.answer(traffic, body, &mut course.target).await {
            Ok(answer) => answer,
            Err(ended) => return ended,
        };
        course.head = Some(Instant::now());
        course.ticket = ticket(answer.headers());
        let status = answer.status().as_u16();
        match whole(answer, planned.stream && status == 200).await {
            true if status == 200 => Ended::Answered,
            true => Ended::Status(status),
            false => Ended::Cut,
        }
    }

    /// The answer's head. A target that takes no connection is passed over, as a balancer does: nothing was sent to it.
    async fn answer(
        &self,
        traffic: &Traffic,
        body: Vec<u8>,
        target: &mut usize,
    ) -> Result<Response, Ended> {
        let path = match traffic.api {
            Api::Chat => "/v1/chat/completions",
            Api::Text => "/v1/completions",
        };
        let body = bytes::Bytes::from(body);
        for _ in &self.targets {
            let mut request = self.http.post(format!("{}{path}", self.targets[*target]));
            if let Some(key) = traffic.key.as_ref().or(self.key.as_ref()) {
                request = request.bearer_auth(key);
            }
            let request = request.header("content-type", "application/json");
            match request.body(body.clone()).send().await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_connect() => *target = (*target + 1) % self.targets.len(),
                Err(_) => return Err(Ended::Cut),
            }
        }
        Err(Ended::Unreachable)
    }
}

/// Reads an answer to its end; false if it has none.
async fn whole(answer: Response, events: bool) -> bool {
    const LAST: &[u8] = b"data: [DONE]";
    let mut chunks = answer.bytes_stream();
    let mut tail = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let Ok(chunk) = chunk else { return false };
        tail.extend_from_slice(&chunk);
        let old = tail.len().saturating_sub(2 * LAST.len());
        tail.drain(..old);
    }
    !events || tail.windows(LAST.len()).any(|part| part == LAST)
}

fn ticket(headers: &HeaderMap) -> Option<Ticket> {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let numbers = header("x-vorrang-ticket")?;
    let word = |name: &str| {
        let mut parts = numbers.split(", ");
        parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
    };
    let number = |name: &str| word(name)?.parse::<u64>().ok();
    let count = |name: &str| header(name)?.parse::<u64>().ok();
    Some(Ticket {
        group: header("x-litellm-model-group")?.to_owned(),
        priority: header("x-vorrang-priority")?.parse().ok()?,
        arrival: number("arrival")?,
        entered: number("entered")?,
        granted: number("granted")?,
        start: number("start").unwrap_or(0),
        score: word("score").and_then(|score| score.parse().ok()),
        waited: count("x-vorrang-wait-ms")?.saturating_mul(1000),
        least_wait: count("x-vorrang-least-wait-ms").map(|time| time.saturating_mul(1000)),
        retries: count("x-litellm-attempted-retries")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticket_is_parsed_from_headers_only_if_all_required_are_present() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-vorrang-ticket", "arrival=5, entered=7, granted=9"),
            ("x-vorrang-priority", "-3"),
            ("x-vorrang-wait-ms", "12"),
            ("x-litellm-model-group", "model"),
            ("x-litellm-attempted-retries", "1"),
        ] {
            assert_eq!(ticket(&headers), None);
            headers.insert(name, value.parse().unwrap());
        }
        let mut expected = Ticket {
            group: "model".into(),
            priority: -3,
            arrival: 5,
            entered: 7,
            granted: 9,
            start: 0,
            score: None,
            waited: 12_000,
            least_wait: None,
            retries: 1,
        };
        assert_eq!(ticket(&headers), Some(expected.clone()));
        let mut numbers = |text: &str| {
            headers.insert("x-vorrang-ticket", text.parse().unwrap());
            ticket(&headers)
        };
        let shared = numbers("arrival=5, entered=7, granted=9, start=11");
        expected.start = 11;
        assert_eq!(shared, Some(expected.clone()));
        let aged = numbers("arrival=5, entered=7, granted=9, start=11, score=-30");
        expected.score = Some(-30);
        assert_eq!(aged, Some(expected.clone()));
        let aged = numbers("arrival=5, entered=7, granted=9, score=-30");
        expected.start = 0;
        assert_eq!(aged, Some(expected.clone()));
        headers.insert("x-vorrang-least-wait-ms", "11".parse().unwrap());
        expected.least_wait = Some(11_000);
        assert_eq!(ticket(&headers), Some(expected));
    }
}
