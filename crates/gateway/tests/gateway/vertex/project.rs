//! Whose project is called.

use super::*;

#[test]
fn project_comes_from_the_file_the_account_the_environment_or_the_credentials() {
    let account = Account::new("http://127.0.0.1:1");
    let of_account = format!(", vertex_credentials: '{}'", account.path("account.json"));
    let file = account.path("account.json");
    let variables = [
        ("VERTEXAI_PROJECT", "of-litellm"),
        ("GOOGLE_CLOUD_PROJECT", "of-google"),
        ("GCLOUD_PROJECT", "of-gcloud"),
        ("GOOGLE_APPLICATION_CREDENTIALS", &*file),
    ];
    for (params, first, expected) in [
        (", vertex_project: p", 0, "p"),
        (&*of_account, 0, "of-litellm"),
        (&*of_account, 1, "project-1"),
        (&*of_account, 4, "project-1"),
        ("", 1, "of-google"),
        ("", 2, "of-gcloud"),
        ("", 3, "project-1"),
        ("", 4, "PROJECT-OF-THE-CREDENTIALS"),
    ] {
        let text = format!(
            "model_list:\n- {{model_name: m, litellm_params: {{model: vertex_ai/gemini-x{params}}}}}\n"
        );
        let set = variables[first..].iter();
        let env: HashMap<String, String> = set
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        let config = Config::parse(&text, "config.yaml", &env).unwrap().config;
        let Target::Upstream(server) = &config.groups[0].deployments[0].target else {
            panic!("{params}")
        };
        let path = format!("/v1/projects/{expected}/locations/us-central1/");
        assert!(server.api_base.contains(&path), "{}", server.api_base);
    }
}

/// Runs in a process of its own, whose credentials are those of a service account: the configuration does not see them.
#[tokio::test]
#[ignore = "run by project_of_the_processs_credentials_is_asked_for_at_the_first_call"]
async fn call_with_the_credentials_of_the_process() {
    let mut upstream = Upstream::start([]).await;
    let host = upstream.base.trim_end_matches("/v1");
    let text = format!(
        "model_list:\n- {{model_name: m, litellm_params: {{model: vertex_ai/gemini-2.5-pro, api_base: '{host}', \
         thinking: {{type: enabled, budget_tokens: 64}}}}}}\n"
    );
    let env = HashMap::<String, String>::new();
    let config = Config::parse(&text, "config.yaml", &env).unwrap().config;
    router_with(config).call(chat("")).await.unwrap();
    let seen = upstream.next().await;
    assert_eq!(
        seen.path,
        "/v1/projects/project-1/locations/us-central1/endpoints/openapi/chat/completions"
    );
    assert_eq!(seen.headers["authorization"], "Bearer tok-1");
    assert_eq!(
        seen.body,
        r#"{"model":"google/gemini-2.5-pro","messages":[],"extra_body":{"google":{"thinking_config":{"thinking_budget":64}}}}"#
    );
}

#[tokio::test]
async fn project_of_the_processs_credentials_is_asked_for_at_the_first_call() {
    let tokens = Upstream::start([token("tok-1", 3600)]).await;
    let account = Account::new(&tokens.base);
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args([
        "--ignored",
        "--exact",
        "vertex::project::call_with_the_credentials_of_the_process",
    ]);
    child.env(
        "GOOGLE_APPLICATION_CREDENTIALS",
        account.path("account.json"),
    );
    let output = child.output().await.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && printed.contains("1 passed"),
        "{printed}"
    );
}
