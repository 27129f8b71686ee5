//! Bounds of request bodies: their number of fields, and the memory of all that wait.

use crate::support::{Answer, Gateway, chat};

const CONFIG: &str = "
model_list: [{model_name: tight, litellm_params: {model: openai/tight, mock_response: hello, rpm: 1}}]
vorrang_settings: {max_body_bytes: 1000, max_waiting_body_bytes: 1500}
";

#[tokio::test]
async fn bodies_beyond_the_budget_get_429_until_one_is_released() {
    let gateway = Gateway::start(CONFIG).await;
    let large = chat("tight", &format!(r#", "user": "{}""#, "x".repeat(800)));
    let post = |body: String| {
        let gateway = &gateway;
        async move {
            let path = "/v1/chat/completions";
            gateway
                .send(&crate::support::request("POST", path, &[], &body))
                .await
        }
    };
    // An answered request holds no budget.
    assert_eq!(Answer::read(post(large.clone()).await).await.status, 200);
    let waiting = post(large.clone()).await;
    gateway.until_waiting("tight", 1.0).await;
    let refused = Answer::read(post(large.clone()).await).await;
    let (message, kind) = refused.error(429);
    assert_eq!(kind, "throttling_error");
    assert!(message.contains("max_waiting_body_bytes"), "{message}");
    assert_eq!(refused.header("retry-after"), Some("5"));
    let _small = post(chat("tight", "")).await;
    gateway.until_waiting("tight", 2.0).await;

    drop(waiting);
    gateway.until_waiting("tight", 1.0).await;
    let _next = post(large).await;
    gateway.until_waiting("tight", 2.0).await;
}

#[tokio::test]
async fn body_of_very_many_fields_gets_400() {
    let gateway = Gateway::start(crate::support::MOCKS).await;
    let fields: String = (0..100_000)
        .map(|index| format!(r#","{index}":1"#))
        .collect();
    let answer = gateway
        .post("/v1/chat/completions", &[], &chat("free", &fields))
        .await;
    let (message, _) = answer.error(400);
    assert!(message.contains("256 fields"), "{message}");
}
