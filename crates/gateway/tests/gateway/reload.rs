//! Another configuration while calls wait and are under way.

use crate::support::*;
use vorrang_gateway::{Endpoint, Router};

fn group(name: &str, base: &str, id: &str, more: &str) -> String {
    format!(
        "- {{model_name: {name}, litellm_params: {{model: openai/{id}, api_base: '{base}', {more}}}, model_info: {{id: {id}}}}}\n"
    )
}

fn list(entries: &[String]) -> String {
    format!("model_list:\n{}", entries.concat())
}

fn reload(router: &Router, text: &str) {
    router.reload(config(text));
}

fn named(model: &str) -> vorrang_gateway::Call {
    let body = format!(r#"{{"model":"{model}","messages":[]}}"#);
    vorrang_gateway::Call::new(Endpoint::ChatCompletions, body)
}

#[tokio::test]
async fn waiting_call_is_served_as_soon_as_a_reload_raises_its_limit() {
    let mut upstream = Upstream::start([]).await;
    let of = |limit: u64| list(&[group("m", &upstream.base, "a", &format!("rpm: {limit}"))]);
    let (first, second) = (of(1), of(2));
    let (router, _scheduler) = router(&first);
    router.call(named("m")).await.unwrap();
    let waiting = queued(&router, named("m")).await;
    reload(&router, &second);
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer.info.deployment, "a");
    upstream.next().await;
    upstream.next().await;
}

#[tokio::test]
async fn waiting_calls_keep_their_order_over_a_reload() {
    let mut upstream = Upstream::start([]).await;
    let base = upstream.base.clone();
    let (router, _scheduler) = router(&list(&[group("m", &base, "a", "max_parallel_requests: 1")]));
    upstream.then(Reply::Hang);
    let hanging = tokio::spawn({
        let router = router.clone();
        async move { router.call(named("m")).await }
    });
    upstream.next().await;
    let mut waiting = Vec::new();
    for user in ["first", "second", "third"] {
        waiting.push(queued(&router, chat(&format!(r#","user":"{user}""#))).await);
    }
    reload(
        &router,
        &list(&[group("m", &base, "a", "max_parallel_requests: 1, rpm: 100")]),
    );
    hanging.abort();
    for user in ["first", "second", "third"] {
        let seen = upstream.next().await;
        let body: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
        assert_eq!(body["user"], user);
    }
    for call in waiting {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn waiting_call_goes_where_the_new_configuration_says_with_its_key() {
    let (old, mut new) = (Upstream::start([]).await, Upstream::start([]).await);
    let of = |base: &str, more: &str| list(&[group("m", base, "a", more)]);
    let (router, _scheduler) = router(&of(&old.base, "rpm: 1, api_key: old-key"));
    router.call(named("m")).await.unwrap();
    let waiting = queued(&router, named("m")).await;
    // The same deployment by its id, with another address and key.
    reload(&router, &of(&new.base, "rpm: 2, api_key: new-key"));
    waiting.await.unwrap().unwrap();
    assert_eq!(new.next().await.headers["authorization"], "Bearer new-key");
    assert_eq!(old.pending(), 1);
}

#[tokio::test]
async fn call_under_way_ends_as_it_began() {
    let mut upstream = Upstream::start([]).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    upstream.then(Reply::Stream("text/event-stream", receiver));
    let (router, _scheduler) = router(&list(&[group("m", &upstream.base, "a", "")]));
    let event = |text: &str| Ok(bytes::Bytes::from(format!("data: {text}\n\n")));
    sender.send(event("{}")).await.unwrap();
    let answer = router.call(chat(r#","stream":true"#)).await.unwrap();
    upstream.next().await;
    reload(&router, &list(&[group("other", &upstream.base, "b", "")]));
    sender.send(event("[DONE]")).await.unwrap();
    drop(sender);
    assert_eq!(
        text(answer.body).await.unwrap(),
        "data: {}\n\ndata: [DONE]\n\n"
    );
    // New calls see the new groups only.
    let error = router.call(named("m")).await.unwrap_err();
    assert_eq!(error.status(), 400);
    router.call(named("other")).await.unwrap();
}

#[tokio::test]
async fn calls_that_wait_in_a_group_that_goes_are_served() {
    let mut upstream = Upstream::start([]).await;
    upstream.then(Reply::Hang);
    let base = upstream.base.clone();
    let (router, _scheduler) = router(&list(&[group("m", &base, "a", "max_parallel_requests: 1")]));
    let hanging = tokio::spawn({
        let router = router.clone();
        async move { router.call(named("m")).await }
    });
    upstream.next().await;
    let waiting = queued(&router, named("m")).await;
    reload(&router, &list(&[group("other", &base, "b", "")]));
    hanging.abort();
    assert_eq!(waiting.await.unwrap().unwrap().info.group, "m");
    upstream.next().await;
}

#[tokio::test]
async fn group_that_comes_back_counts_what_it_has_sent() {
    let upstream = Upstream::start([]).await;
    let with = list(&[
        group("m", &upstream.base, "a", "rpm: 1"),
        group("n", &upstream.base, "b", ""),
    ]);
    let without = list(&[group("n", &upstream.base, "b", "")]);
    let (router, _scheduler) = router(&with);
    router.call(named("m")).await.unwrap();
    reload(&router, &without);
    reload(&router, &with);
    let waiting = queued(&router, named("m")).await;
    assert!(!waiting.is_finished());
    waiting.abort();
}

#[tokio::test]
async fn deployment_that_goes_gets_no_more_calls() {
    let (gone, mut stays) = (Upstream::start([]).await, Upstream::start([]).await);
    let stay = group("m", &stays.base, "b", "weight: 0");
    let both = list(&[group("m", &gone.base, "a", "weight: 1"), stay.clone()]);
    let (router, _scheduler) = router(&both);
    router.call(named("m")).await.unwrap();
    assert_eq!(gone.pending(), 1);
    reload(&router, &list(&[stay]));
    for _ in 0..5 {
        let answer = router.call(named("m")).await.unwrap();
        assert_eq!(answer.info.deployment, "b");
        stays.next().await;
    }
    assert_eq!(gone.pending(), 1);
}
