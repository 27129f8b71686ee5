//! Azure with an application of Entra ID, whose tokens a server of the test's own gives.

use std::collections::HashMap;

use serde_json::json;
use vorrang_gateway::Config;

use crate::support::*;

fn token(text: &str, seconds: u64) -> Reply {
    ok(&json!({"access_token": text, "expires_in": seconds, "token_type": "Bearer"}).to_string())
}

fn config_of(upstream: &Upstream, authority: &Upstream, params: &str) -> Config {
    let host = upstream.base.trim_end_matches("/v1");
    let text = format!(
        "model_list:\n- {{model_name: m, litellm_params: {{model: azure/gpt, api_base: '{host}', {params}}}}}\n\
         router_settings: {{num_retries: 0}}\n"
    );
    let authority = authority.base.trim_end_matches("/v1").to_owned();
    let env = HashMap::from([
        ("AZURE_AUTHORITY_HOST".to_owned(), authority),
        ("SECRET".to_owned(), "geheim&+".to_owned()),
    ]);
    Config::parse(&text, "config.yaml", &env).unwrap().config
}

const PARAMS: &str = "tenant_id: tenant-1, client_id: app-1, client_secret: os.environ/SECRET";

#[tokio::test]
async fn token_of_an_application_is_fetched_once_and_again_when_it_has_expired() {
    // The first is as good as expired.
    let mut authority = Upstream::start([token("tok-1", 1), token("tok-2", 3600)]).await;
    let mut upstream = Upstream::start([]).await;
    let router = router_with(config_of(&upstream, &authority, PARAMS));
    for expected in ["Bearer tok-1", "Bearer tok-2", "Bearer tok-2"] {
        router.call(chat("")).await.unwrap();
        let seen = upstream.next().await;
        assert_eq!(seen.path, "/openai/deployments/gpt/chat/completions");
        assert_eq!(seen.headers["authorization"], expected);
        assert!(!seen.headers.contains_key("api-key"));
    }
    assert_eq!(authority.pending(), 2);
    let asked = authority.next().await;
    assert_eq!(asked.path, "/tenant-1/oauth2/v2.0/token");
    assert_eq!(
        asked.headers["content-type"],
        "application/x-www-form-urlencoded"
    );
    let mut fields: Vec<&str> = str::from_utf8(&asked.body).unwrap().split('&').collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "client_id=app-1",
            "client_secret=geheim%26%2B",
            "grant_type=client_credentials",
            "scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default",
        ]
    );
}

#[tokio::test]
async fn without_a_token_nothing_is_sent_and_no_secret_is_shown() {
    let refusal = r#"{"error":"invalid_client","error_description":"AADSTS7000215"}"#;
    let authority = Upstream::start([error(401, refusal)]).await;
    let upstream = Upstream::start([]).await;
    let config = config_of(&upstream, &authority, PARAMS);
    assert!(!format!("{config:?}{}", config.plan()).contains("geheim"));
    let problem = router_with(config)
        .call(chat(""))
        .await
        .unwrap_err()
        .problem;
    assert_eq!(problem.status().as_u16(), 502);
    assert_eq!(
        problem.to_string(),
        "No token for the upstream could be had"
    );
    assert_eq!(upstream.pending(), 0);
}

#[tokio::test]
async fn a_key_of_the_file_is_sent_rather_than_a_token() {
    let authority = Upstream::start([]).await;
    let mut upstream = Upstream::start([]).await;
    let params = format!("api_key: k-1, {PARAMS}");
    let router = router_with(config_of(&upstream, &authority, &params));
    router.call(chat("")).await.unwrap();
    assert_eq!(upstream.next().await.headers["api-key"], "k-1");
    assert_eq!(authority.pending(), 0);
}
