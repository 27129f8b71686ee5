//! Embeddings of models that are invoked in their makers' formats.

use super::*;

#[tokio::test]
async fn embeddings_are_invoked_in_the_format_of_the_models_maker() {
    let titan = r#"{"embedding":[0.5,-1.0],"inputTextTokenCount":3}"#;
    let counted = vec![
        ("content-type", "application/json".to_owned()),
        ("x-amzn-bedrock-input-token-count", "5".to_owned()),
    ];
    let cohere = Bytes::from_static(br#"{"id":"1","embeddings":[[0.5],[1.5]],"texts":["a","b"]}"#);
    let replies = [ok(titan), Reply::With(StatusCode::OK, counted, cohere)];
    let mut upstream = Upstream::start(replies).await;
    let host = host_of(&upstream);
    let embed = |input: &str| {
        let body = format!(r#"{{"model":"m","input":{input},"dimensions":256,"priority":1}}"#);
        Call::new(Endpoint::Embeddings, body)
    };
    for (model, input, sent, vectors, tokens) in [
        (
            "amazon.titan-embed-text-v2:0",
            r#"["hi"]"#,
            json!({"inputText": "hi", "dimensions": 256}),
            json!([[0.5, -1.0]]),
            3,
        ),
        (
            "cohere.embed-english-v3",
            r#"["a","b"]"#,
            json!({"texts": ["a", "b"], "input_type": "search_document", "output_dimension": 256}),
            json!([[0.5], [1.5]]),
            5,
        ),
    ] {
        let more = format!("{KEYS}, tpm: 10000");
        let (router, _) = router(&config(&format!("bedrock/{model}"), &upstream.base, &more));
        let answer = router.call(embed(input)).await.unwrap();
        let body: Value = serde_json::from_str(&text(answer.body).await.unwrap()).unwrap();
        let data = body["data"].as_array().unwrap().iter();
        assert_eq!(
            json!(data.map(|one| &one["embedding"]).collect::<Vec<_>>()),
            vectors
        );
        assert_eq!(
            (&body["model"], &body["usage"]["prompt_tokens"]),
            (&json!(model), &json!(tokens))
        );
        let seen = upstream.next().await;
        assert_eq!(
            seen.path,
            format!("/model/{}/invoke", model.replace(':', "%3A"))
        );
        assert_signed(&seen, &host);
        assert_eq!(serde_json::from_slice::<Value>(&seen.body).unwrap(), sent);
        until(&router, |status| {
            status.deployments[0].tokens.total() == tokens
        })
        .await;
        let error = router.call(message("")).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    }
    // A call of several texts would be several calls of Titan's, which count one by one.
    let (router, _) = router(&config(
        "bedrock/amazon.titan-embed-text-v1",
        &upstream.base,
        KEYS,
    ));
    let error = router.call(embed(r#"["a","b"]"#)).await.unwrap_err();
    assert_eq!(
        (error.status(), error.param()),
        (StatusCode::BAD_REQUEST, Some("input"))
    );
    assert_eq!(upstream.pending(), 0);
}
