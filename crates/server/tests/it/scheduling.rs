//! What clients and metrics show of pacing, reserves, aging and fair shares.

use std::sync::Arc;

use tokio::{net::TcpListener, sync::Semaphore};

use crate::support::{Answer, Gateway, MOCKS, chat, request};

/// `paced` lets two batch calls go at once and the next after ten seconds; half of `kept` is kept from them.
const CONFIG: &str = "
model_list:
  - model_name: paced
    litellm_params: {model: openai/x, mock_response: hello, rpm: 6}
    model_info: {id: p0}
  - model_name: kept
    litellm_params: {model: openai/x, mock_response: hello, rpm: 2, tpm: 100000}
    model_info: {id: k0}
  - model_name: aged
    litellm_params: {model: openai/x, mock_response: hello}
    model_info: {id: a0}
vorrang_settings:
  groups:
    paced: {pace_worse_than: 0}
    kept: {reserve: {priority: 0, share: 0.5}}
    aged: {aging_seconds: 0.5}
";

const PATH: &str = "/v1/chat/completions";

async fn batch(gateway: &Gateway, model: &str, more: &str) -> Answer {
    let body = chat(model, &format!(r#", "priority": 1000{more}"#));
    gateway.post(PATH, &[], &body).await
}

/// Labels and value of a metric's series, each as one text.
async fn series(gateway: &Gateway, name: &str) -> Vec<String> {
    let page = gateway.get("/metrics").await.text();
    let start = format!("{name}{{");
    let lines = page.lines().filter_map(|line| line.strip_prefix(&start));
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn status_408_reports_what_the_queue_waits_for() {
    let gateway = Gateway::start(CONFIG).await;
    let says = "Request timed out while polling queue. It came as number 1 in the queue of";
    for (model, at_once, waited_for) in [
        ("paced", 2, "the pace of its priority (pacing)"),
        (
            "kept",
            1,
            "room for requests (rpm) and room that is not kept for better priorities (reserve)",
        ),
    ] {
        for _ in 0..at_once {
            assert_eq!(batch(&gateway, model, "").await.status, 200);
        }
        let late = batch(&gateway, model, r#", "timeout": 0.5"#).await;
        let expected =
            format!("{says} {model}, where 1 waits now; the first of them waits for {waited_for}.");
        assert_eq!(late.error(408), (expected, "timeout_error".into()));
        assert_eq!(late.header("x-should-retry"), Some("false"));
        // Better priorities go at once.
        let user = gateway.post(PATH, &[], &chat(model, "")).await;
        assert_eq!(user.status, 200, "{model}");
    }
}

#[tokio::test]
async fn metrics_show_the_pace_the_reserve_and_what_the_head_waits_for() {
    let gateway = Gateway::start(CONFIG).await;
    assert_eq!(
        series(&gateway, "vorrang_reserve").await,
        [
            r#"group="kept",deployment="k0",kind="requests",window_seconds="60"} 1"#,
            r#"group="kept",deployment="k0",kind="tokens",window_seconds="60"} 50000"#,
        ]
    );
    for _ in 0..2 {
        assert_eq!(batch(&gateway, "paced", "").await.status, 200);
    }
    let body = chat("paced", r#", "priority": 1000"#);
    let waiting = gateway.send(&request("POST", PATH, &[], &body)).await;
    gateway.until_waiting("paced", 1.0).await;

    let pace = series(&gateway, "vorrang_pace_seconds").await;
    let [pace] = pace.as_slice() else {
        panic!("{pace:?}")
    };
    let left = pace.strip_prefix(r#"group="paced",deployment="p0"} "#);
    let left: f64 = left.unwrap().parse().unwrap();
    // A sixth of the window and its guard, as of when the second went.
    assert!((1.0..=10.1).contains(&left), "{pace}");

    let head = series(&gateway, "vorrang_head_waits_for").await;
    let words = [
        "requests",
        "tokens",
        "input_tokens",
        "output_tokens",
        "concurrency",
        "cooldown",
        "probing",
        "pacing",
        "reserve",
        "paused",
    ];
    let expected = ["paced", "kept", "aged"].into_iter().flat_map(|group| {
        words.map(|word| {
            let held = u8::from(group == "paced" && word == "pacing");
            format!(r#"group="{group}",reason="{word}"}} {held}"#)
        })
    });
    assert_eq!(head, expected.collect::<Vec<_>>());

    drop(waiting);
    gateway.until_waiting("paced", 0.0).await;
    let head = series(&gateway, "vorrang_head_waits_for").await;
    assert!(head.iter().all(|line| line.ends_with(" 0")), "{head:?}");
}

#[tokio::test]
async fn ticket_header_reports_its_score_with_aging() {
    let gateway = Gateway::start(CONFIG).await;
    let answer = batch(&gateway, "aged", "").await;
    let of_arrival = number(&answer, "arrival") + 1000 * 500_000;
    assert_eq!(number(&answer, "score"), of_arrival);

    let gateway = Gateway::start(MOCKS).await;
    let answer = batch(&gateway, "free", "").await;
    let ticket = answer.header("x-vorrang-ticket").unwrap();
    let more = ticket.contains("score") || ticket.contains("start");
    assert!(!more, "{ticket}");
}

/// One of a ticket's numbers.
fn number(answer: &Answer, name: &str) -> i64 {
    let ticket = answer.header("x-vorrang-ticket").unwrap();
    let mut parts = ticket.split(", ");
    let part = parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    part.unwrap_or_else(|| panic!("no {name} in {ticket}"))
        .parse()
        .unwrap()
}

/// An upstream that answers one call for each permit of the gate.
async fn gated() -> (String, Arc<Semaphore>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    let gate = Arc::new(Semaphore::new(0));
    let app = axum::Router::new().fallback({
        let gate = gate.clone();
        move || async move {
            gate.acquire().await.unwrap().forget();
            "{}"
        }
    });
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    (base, gate)
}

/// P19 (fair shares): tenants are named by a header, within the caller's key.
#[tokio::test]
async fn tenants_named_by_a_header_get_fair_shares() {
    let (base, gate) = gated().await;
    let config = format!(
        "
model_list:
  - model_name: one
    litellm_params: {{model: openai/x, api_base: '{base}', max_parallel_requests: 1}}
vorrang_settings:
  groups: {{one: {{fair_by: header:X-Team}}}}
  keys:
    - {{name: k, key: sk-k}}
    - {{name: j, key: sk-j}}
"
    );
    let gateway = Gateway::start(&config).await;
    let mut calls = Vec::new();
    // The first is under way, the others wait.
    for (waiting, (key, team)) in (0..).map(f64::from).zip([
        ("sk-k", "red"),
        ("sk-k", "red"),
        ("sk-k", "red"),
        ("sk-k", "red"),
        ("sk-k", "blue"),
        ("sk-j", "red"),
    ]) {
        let headers = [("x-api-key", key), ("x-team", team)];
        let body = chat("one", "");
        let call = gateway.send(&request("POST", PATH, &headers, &body)).await;
        calls.push((key, team, call));
        let open = || async { gateway.gauge("vorrang_in_flight", "one").await == 1.0 };
        gateway.until("one call is open", open).await;
        gateway.until_waiting("one", waiting).await;
    }
    gate.add_permits(calls.len());
    let mut granted = Vec::new();
    for (key, team, call) in calls {
        let answer = Answer::read(call).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let start = number(&answer, "start");
        granted.push((number(&answer, "granted"), start, key, team));
    }
    granted.sort_unstable();
    let waited = &granted[1..];
    assert!(
        waited.is_sorted_by_key(|(_, start, ..)| start),
        "{granted:?}"
    );
    let order: Vec<_> = waited.iter().map(|(.., key, team)| (*key, *team)).collect();
    let red = ("sk-k", "red");
    assert_eq!(order, [red, ("sk-k", "blue"), ("sk-j", "red"), red, red]);
}
