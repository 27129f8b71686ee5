//! Keys of AWS that are found where the process runs.

use super::*;

/// A router whose environment has these variables.
fn router_in(text: &str, variables: &[(&str, &str)]) -> vorrang_gateway::Router {
    let variables = variables.iter();
    let env: HashMap<String, String> = variables
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    router_with(Config::parse(text, "config.yaml", &env).unwrap().config)
}

const CLAUDE: &str = "bedrock/anthropic.claude-3-haiku";

#[tokio::test]
async fn keys_of_a_profile_sign_calls() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let keys = |id: &str| {
        format!(
            "aws_access_key_id = {id}\naws_secret_access_key = wJalrXUtnFEMI\naws_session_token = session-1\n"
        )
    };
    let profiles = format!(
        "[default]\n{}[dev]\n{}",
        keys("AKIDDEFAULT"),
        keys("AKIDEXAMPLE")
    );
    std::fs::write(&file, profiles).unwrap();
    let file = file.display().to_string();
    let variables = [
        ("AWS_SHARED_CREDENTIALS_FILE", &*file),
        ("AWS_ACCESS_KEY_ID", "AKIDOTHER"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
    ];
    let mut upstream = Upstream::start([ok(ANSWER), ok(ANSWER)]).await;
    let host = host_of(&upstream);
    let named = config(CLAUDE, &upstream.base, "aws_profile_name: dev");
    router_in(&named, &variables)
        .call(message(""))
        .await
        .unwrap();
    assert_signed(&upstream.next().await, &host);
    let unnamed = config(CLAUDE, &upstream.base, "rpm: 9");
    let router = router_in(&unnamed, &[variables[0], ("AWS_PROFILE", "dev")]);
    router.call(message("")).await.unwrap();
    assert_signed(&upstream.next().await, &host);
}

#[tokio::test]
async fn keys_of_a_container_are_asked_for_once_until_they_expire() {
    let keys = json!({"AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "wJalrXUtnFEMI", "Token": "session-1",
                      "Expiration": "2999-01-01T00:00:00Z"});
    let mut container = Upstream::start([ok(&keys.to_string())]).await;
    let mut upstream = Upstream::start([ok(ANSWER), ok(ANSWER)]).await;
    let host = host_of(&upstream);
    let text = config(CLAUDE, &upstream.base, "rpm: 9");
    let address = format!("{}/keys", container.base);
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*address),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "token-1"),
    ];
    let router = router_in(&text, &variables);
    for _ in 0..2 {
        router.call(message("")).await.unwrap();
        assert_signed(&upstream.next().await, &host);
    }
    assert_eq!(container.next().await.headers["authorization"], "token-1");
    assert_eq!(container.pending(), 0);
}

#[tokio::test]
async fn without_keys_nothing_is_sent() {
    let upstream = Upstream::start([]).await;
    let text = config(CLAUDE, &upstream.base, "rpm: 9");
    let text = format!("{text}router_settings: {{num_retries: 0}}\n");
    let router = router_in(&text, &[("AWS_EC2_METADATA_DISABLED", "true")]);
    let problem = router.call(message("")).await.unwrap_err().problem;
    assert_eq!(problem.status().as_u16(), 502);
    assert_eq!(
        problem.to_string(),
        "No token for the upstream could be had"
    );
    assert_eq!(upstream.pending(), 0);
}
