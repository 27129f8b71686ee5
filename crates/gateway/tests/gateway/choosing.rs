//! Which deployment a call goes to: `order`, and the latency of answers.

use crate::support::*;
use vorrang_gateway::Router;

/// The deployments of so many calls, one after another.
async fn deployments(router: &Router, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let answer = router.call(chat("")).await.unwrap();
        let id = answer.headers["x-litellm-model-id"].to_str().unwrap();
        ids.push(id.to_owned());
        text(answer.body).await.unwrap();
    }
    ids
}

/// Nearly every call goes to the first where both are equal.
fn two(first: &str, second: &str, router: &str) -> String {
    let entry = |base: &str, id: &str, weight: &str| {
        format!(
            "- {{model_name: m, litellm_params: {{model: openai/up, api_base: '{base}', timeout: 0.5, weight: {weight}}}, model_info: {{id: {id}}}}}\n"
        )
    };
    format!(
        "model_list:\n{}{}router_settings: {{{router}}}\n",
        entry(first, "d0", "1000000000"),
        entry(second, "d1", "0.000001")
    )
}

#[tokio::test]
async fn higher_order_is_called_when_lower_orders_are_full() {
    let entry = |id: &str, params: &str| {
        format!(
            "- {{model_name: m, litellm_params: {{model: x, mock_response: hi, {params}}}, model_info: {{id: {id}}}}}\n"
        )
    };
    let (router, _) = router(&format!(
        "model_list:\n{}{}{}",
        entry("last", "rpm: 9"),
        entry("second", "order: 2, rpm: 1"),
        entry("first", "order: 1, rpm: 2"),
    ));
    assert_eq!(
        deployments(&router, 4).await,
        ["first", "first", "second", "last"]
    );
}

const BY_LATENCY: &str = "routing_strategy: latency-based-routing";

#[tokio::test]
async fn each_deployment_is_measured_by_its_first_answer() {
    let upstreams = [Upstream::start([]).await, Upstream::start([]).await];
    let text = two(&upstreams[0].base, &upstreams[1].base, BY_LATENCY);
    let (router, _) = router(&text);
    assert_eq!(deployments(&router, 2).await, ["d0", "d1"]);
}

#[tokio::test]
async fn deployment_that_timed_out_is_slow() {
    let [hangs, answers] = [
        Upstream::start([Reply::Hang]).await,
        Upstream::start([]).await,
    ];
    let (router, _) = router(&two(&hangs.base, &answers.base, BY_LATENCY));
    // The first call begins at d0, and is retried at d1.
    assert_eq!(deployments(&router, 5).await, ["d1"; 5]);
    assert_eq!(answers.pending(), 5);
}
