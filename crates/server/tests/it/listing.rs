//! Lists of models: what a caller may see of them.

use serde_json::{Value, json};

use crate::support::Gateway;

const MODELS: &str = "
model_list:
- {model_name: chat, litellm_params: {model: groq/llama, api_key: sk-planted, rpm: 5, tpm: 900, weight: 2}, model_info: {id: one, mode: chat}}
- {model_name: chat, litellm_params: {model: openai/gpt, api_base: 'http://user:sk-planted@h/v1', rpm: 7}, model_info: {id: two}}
- {model_name: embed, litellm_params: {model: openai/text-embedding-3-small, api_key: sk-planted}, model_info: {id: three, mode: embedding}}
router_settings: {model_group_alias: {talk: chat, hush: {model: chat, hidden: true}}}
general_settings: {master_key: sk-master}
vorrang_settings: {keys: [{name: embedder, key: sk-embedder, models: [embed]}]}
";

const MASTER: (&str, &str) = ("authorization", "Bearer sk-master");
const EMBEDDER: (&str, &str) = ("authorization", "Bearer sk-embedder");

async fn list(gateway: &Gateway, path: &str, key: (&str, &str)) -> Value {
    let answer = gateway.request("GET", path, &[key], "").await;
    assert!(!answer.text().contains("planted"), "{}", answer.text());
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

fn of<'a>(list: &'a Value, field: &str) -> Vec<&'a Value> {
    list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one[field])
        .collect()
}

#[tokio::test]
async fn models_have_their_owner_and_mode() {
    let gateway = Gateway::start(MODELS).await;
    let models = list(&gateway, "/v1/models", MASTER).await;
    assert_eq!(of(&models, "id"), ["chat", "embed", "talk"]);
    assert_eq!(of(&models, "owned_by"), ["groq", "openai", "groq"]);
    assert_eq!(of(&models, "mode"), ["chat", "embedding", "chat"]);
    let own = list(&gateway, "/v1/models", EMBEDDER).await;
    assert_eq!(of(&own, "id"), ["embed"]);
}

#[tokio::test]
async fn model_info_lists_deployments_without_addresses_and_keys() {
    let gateway = Gateway::start(MODELS).await;
    for path in ["/model/info", "/v1/model/info"] {
        let info = list(&gateway, path, MASTER).await;
        assert_eq!(
            of(&info, "model_name"),
            ["chat", "chat", "embed", "talk", "talk"]
        );
        assert_eq!(
            info["data"][0],
            json!({
                "model_name": "chat",
                "litellm_params": {"model": "groq/llama", "rpm": 5, "tpm": 900, "weight": 2.0},
                "model_info": {"id": "one", "db_model": false, "mode": "chat", "litellm_provider": "groq"},
            })
        );
        let own = list(&gateway, path, EMBEDDER).await;
        assert_eq!(of(&own, "model_name"), ["embed"]);
        let one = list(&gateway, &format!("{path}?litellm_model_id=three"), MASTER).await;
        assert_eq!(of(&one, "model_name"), ["embed"]);
        let hidden = format!("{path}?litellm_model_id=one");
        gateway
            .request("GET", &hidden, &[EMBEDDER], "")
            .await
            .error(404);
        gateway.request("GET", path, &[], "").await.error(401);
    }
}

#[tokio::test]
async fn model_group_info_sums_limits_that_all_deployments_have() {
    let gateway = Gateway::start(MODELS).await;
    let groups = list(&gateway, "/model_group/info", MASTER).await;
    assert_eq!(
        groups["data"][0],
        json!({"model_group": "chat", "providers": ["groq", "openai"], "mode": "chat", "rpm": 12, "tpm": null})
    );
    let own = list(&gateway, "/model_group/info", EMBEDDER).await;
    assert_eq!(of(&own, "model_group"), ["embed"]);
}
