//! The configuration: what is accepted, what is warned about, and what an error says.

use std::{collections::BTreeMap, time::Duration};

use http::HeaderValue;
use secrecy::ExposeSecret;
use vorrang_gateway::{
    Config, Loaded,
    config::{CorsOrigins, DeploymentSettings, GroupSettings, Target},
};
use vorrang_scheduler::{LimitKind, Strategy};

mod accounts;
mod deployments;
mod errors;
mod settings;
mod strategies;
mod traces;

const MODEL: &str =
    "model_list:\n- model_name: m\n  litellm_params: {model: gpt, mock_response: hi}\n";

fn env(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn load(text: &str) -> Loaded {
    Config::parse(text, "config.yaml", &env(&[])).unwrap()
}

fn with_model(rest: &str) -> Loaded {
    load(&format!("{MODEL}{rest}"))
}

fn error(text: &str) -> String {
    Config::parse(text, "config.yaml", &env(&[]))
        .unwrap_err()
        .to_string()
}

fn error_with_model(rest: &str) -> String {
    error(&format!("{MODEL}{rest}"))
}

fn redis_of(text: &str, variables: &[(&str, &str)]) -> String {
    let loaded = Config::parse(&format!("{MODEL}{text}"), "config.yaml", &env(variables)).unwrap();
    loaded.config.redis.unwrap().url.expose_secret().to_owned()
}

fn limits(config: &Config, group: &GroupSettings) -> Vec<(LimitKind, u64, Duration)> {
    config.group_config(group).deployments[0]
        .limits
        .iter()
        .map(|limit| (limit.kind, limit.limit, limit.length))
        .collect()
}

/// The configuration of the reference.
const REFERENCE: &str = r#"
model_list:
  - model_name: gpt-3.5-turbo-fake-model
    litellm_params:
      model: gpt-3.5-turbo
      mock_response: "hello world!"
      api_key: my-good-key
litellm_settings:
  request_timeout: 600          # how long a request waits at most
router_settings:
  redis_host: os.environ/REDIS_HOST
  redis_password: os.environ/REDIS_PASSWORD
  redis_port: os.environ/REDIS_PORT
"#;
