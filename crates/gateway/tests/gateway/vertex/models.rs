//! Embeddings, and wildcards.

use super::*;

#[tokio::test]
async fn embeddings_are_predictions() {
    const ANSWER: &str =
        r#"{"predictions":[{"embeddings":{"values":[0.5,1],"statistics":{"token_count":4}}}]}"#;
    let tokens = Upstream::start([token("tok-1", 3600)]).await;
    let account = Account::new(&tokens.base);
    let mut upstream = Upstream::start([ok(ANSWER), ok(ANSWER), ok("{}")]).await;
    let host = upstream.base.trim_end_matches("/v1");
    let settings = "router_settings: {num_retries: 0}";
    let config = format!(
        "model_list:\n- {{model_name: m, litellm_params: {{model: vertex_ai/text-embedding-005, api_base: '{host}', dimensions: 2, \
         tpm: 1000, vertex_credentials: '{}'}}}}\n{settings}\n",
        account.path("account.json")
    );
    let (router, _) = router(&config);
    let call = |rest: &str| Call::new(Endpoint::Embeddings, format!(r#"{{"model":"m"{rest}}}"#));
    let answer = router.call(call(r#","input":"hi""#)).await.unwrap();
    assert_eq!(
        text(answer.body).await.unwrap(),
        r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,1]}],"model":"text-embedding-005","usage":{"prompt_tokens":4,"total_tokens":4}}"#
    );
    until(&router, |status| status.deployments[0].tokens.total() == 4).await;
    let seen = upstream.next().await;
    assert_eq!(
        seen.path,
        "/v1/projects/project-1/locations/us-central1/publishers/google/models/text-embedding-005:predict"
    );
    assert_eq!(
        seen.body,
        r#"{"instances":[{"content":"hi"}],"parameters":{"outputDimensionality":2}}"#
    );
    let base64 = r#","input":["hi"],"encoding_format":"base64""#;
    let answer = router.call(call(base64)).await.unwrap();
    assert!(
        text(answer.body)
            .await
            .unwrap()
            .contains(r#""embedding":"AAAAPwAAgD8=""#)
    );
    let error = router.call(call(r#","input":[[1,2]]"#)).await.unwrap_err();
    assert_eq!(error.status().as_u16(), 400);
    let error = router.call(call(r#","input":"hi""#)).await.unwrap_err();
    assert_eq!(error.status().as_u16(), 502);
    let error = router.call(chat("")).await.unwrap_err();
    assert_eq!(error.status().as_u16(), 400);
}

#[tokio::test]
async fn wildcards_of_one_format_are_served() {
    let tokens = Upstream::start([token("tok-1", 3600), token("tok-2", 3600)]).await;
    let account = Account::new(&tokens.base);
    let mut upstream = Upstream::start([]).await;
    let host = upstream.base.trim_end_matches("/v1");
    let entry = |model: &str| {
        format!(
            "- {{model_name: 'vertex_ai/{model}', litellm_params: {{model: 'vertex_ai/{model}', api_base: '{host}', \
             vertex_credentials: '{}'}}}}\n",
            account.path("account.json")
        )
    };
    let (router, _) = router(&format!(
        "model_list:\n{}{}",
        entry("gemini-*"),
        entry("claude-*")
    ));
    let call = |model: &str| {
        let body = format!(
            r#"{{"model":"vertex_ai/{model}","messages":[],"thinking":{{"budget_tokens":5}}}}"#
        );
        Call::new(Endpoint::ChatCompletions, body)
    };
    router.call(call("gemini-2.5-flash")).await.unwrap();
    let seen = upstream.next().await;
    assert!(
        seen.path.ends_with("/endpoints/openapi/chat/completions"),
        "{}",
        seen.path
    );
    let sent: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(sent["model"], "google/gemini-2.5-flash");
    assert_eq!(
        sent["extra_body"]["google"]["thinking_config"]["thinking_budget"],
        5
    );
    // This upstream's answer is none of Anthropic's.
    let _ = router.call(call("claude-sonnet-5")).await;
    let seen = upstream.next().await;
    assert!(
        seen.path.ends_with("/models/claude-sonnet-5:rawPredict"),
        "{}",
        seen.path
    );
}
