//! Slots of a group's quota for calls that are made outside of the gateway.

use std::time::Duration;

use tokio::task::JoinHandle;
use vorrang_gateway::{CallPermit, ErrorKind, Router, SdkError};
use vorrang_scheduler::Tokens;

use crate::support::*;

/// So short that a wait for a window of a minute is over at once.
const SHORT: Duration = Duration::from_millis(30);

fn kind(error: &SdkError) -> ErrorKind {
    error.kind().unwrap()
}

/// Waits for a permit in a task of its own, until its ticket stands in the queue.
async fn queued_permit(router: &Router, priority: i32) -> JoinHandle<Result<CallPermit, SdkError>> {
    let before = status(router).waiting;
    let task = tokio::spawn({
        let router = router.clone();
        async move { router.permit("m").priority(priority).acquire().await }
    });
    until(router, |status| {
        status.waiting > before && status.depth as usize >= status.waiting
    })
    .await;
    task
}

#[tokio::test]
async fn permit_holds_concurrency_until_it_is_dropped() {
    let (router, _) = router(&mock("max_parallel_requests: 1", ""));
    let permit = router.permit("m").acquire().await.unwrap();
    assert_eq!(permit.deployment(), "d0");
    assert_eq!((permit.model.as_str(), &permit.api_base), ("up", &None));
    let call = queued(&router, chat("")).await;
    drop(permit);
    let answer = call.await.unwrap().unwrap();
    assert!(answer.info.waited > Duration::ZERO);
}

#[tokio::test]
async fn permits_and_calls_wait_in_one_order() {
    let (router, _) = router(&mock("max_parallel_requests: 1", ""));
    let first = router.permit("m").acquire().await.unwrap();
    let batch = queued_permit(&router, 9).await;
    let call = queued(&router, chat(r#","priority":5"#)).await;
    let urgent = queued_permit(&router, 0).await;
    drop(first);
    let urgent = urgent.await.unwrap().unwrap();
    let granted = |permit: &CallPermit| permit.info.numbers.unwrap().granted;
    let last = granted(&urgent);
    drop(urgent);
    let call = call.await.unwrap().unwrap();
    let middle = call.info.numbers.unwrap().granted;
    drop(call);
    let batch = batch.await.unwrap().unwrap();
    assert!(last < middle && middle < granted(&batch));
}

#[tokio::test]
async fn reported_use_corrects_the_tokens_of_a_permit() {
    let (router, _) = router(&mock("tpm: 1000", ""));
    let permit = |tokens| router.permit("m").tokens(tokens).timeout(SHORT).acquire();
    let mut first = permit(800).await.unwrap();
    let error = permit(300).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Timeout, "{error}");
    first.used(Tokens::new(90, 10));
    drop(first);
    drop(permit(900).await.unwrap());
}

#[tokio::test]
async fn tokens_that_were_not_corrected_stay_charged() {
    let (router, _) = router(&mock("tpm: 1000", ""));
    let permit = |tokens| router.permit("m").tokens(tokens).timeout(SHORT).acquire();
    drop(permit(800).await.unwrap());
    let error = permit(300).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Timeout, "{error}");
}

#[tokio::test]
async fn permit_of_a_call_that_was_not_sent_is_refunded() {
    let (router, _) = router(&mock("rpm: 1", ""));
    let permit = || router.permit("m").timeout(SHORT).acquire();
    permit().await.unwrap().not_sent();
    drop(permit().await.unwrap());
    let error = permit().await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Timeout, "{error}");
}

#[tokio::test]
async fn cooldown_of_a_permit_is_that_of_its_deployment() {
    let (router, _) = router(&mock("", ""));
    let mut permit = router.permit("m").acquire().await.unwrap();
    permit.cooldown(Duration::from_secs(60));
    drop(permit);
    until(&router, |status| status.deployments[0].cooling.is_some()).await;
    let late = router.permit("m").timeout(SHORT).acquire().await;
    assert!(late.is_err(), "{late:?}");
}

#[tokio::test]
async fn cooldown_of_a_permit_does_nothing_where_cooldowns_are_disabled() {
    let settings = "router_settings: {disable_cooldowns: true}";
    let (router, _) = router(&mock("", settings));
    let mut permit = router.permit("m").acquire().await.unwrap();
    permit.cooldown(Duration::from_secs(60));
    drop(permit);
    router.permit("m").acquire().await.unwrap().succeeded();
    assert_eq!(status(&router).deployments[0].cooling, None);
}

#[tokio::test]
async fn a7_dropped_wait_for_a_permit_leaves_the_queue() {
    let (router, _) = router(&mock("max_parallel_requests: 1", ""));
    let held = router.permit("m").acquire().await.unwrap();
    let waiting = queued_permit(&router, 0).await;
    waiting.abort();
    until(&router, |status| status.waiting == 0 && status.depth == 0).await;
    drop(held);
}

#[tokio::test]
async fn unknown_models_and_costs_above_every_limit_are_errors_of_their_kind() {
    let (router, _) = router(&mock("tpm: 1000", ""));
    let error = router.permit("other").acquire().await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("model=other"), "{error}");
    let error = router.permit("m").tokens(1001).acquire().await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("can never fit"), "{error}");
}
