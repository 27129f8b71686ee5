//! What clients and metrics are told of pacing, reserves and aging.

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
async fn a_408_says_what_the_queue_waited_for() {
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
        // The better ones go at once.
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
            r#"group="kept",deployment="k0",kind="requests"} 1"#,
            r#"group="kept",deployment="k0",kind="tokens"} 50000"#,
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
        "concurrency",
        "cooldown",
        "pacing",
        "reserve",
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
async fn a_ticket_tells_its_score_where_there_is_aging() {
    let gateway = Gateway::start(CONFIG).await;
    let answer = batch(&gateway, "aged", "").await;
    let ticket = answer.header("x-vorrang-ticket").unwrap();
    let number = |name: &str| -> i64 {
        let mut parts = ticket.split(", ");
        let part = parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        part.unwrap_or_else(|| panic!("no {name} in {ticket}"))
            .parse()
            .unwrap()
    };
    assert_eq!(number("score"), number("arrival") + 1000 * 500_000);

    let gateway = Gateway::start(MOCKS).await;
    let answer = batch(&gateway, "free", "").await;
    let ticket = answer.header("x-vorrang-ticket").unwrap();
    assert!(!ticket.contains("score"), "{ticket}");
}
