//! One entry of `model_list`.

pub(super) mod limits;

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use self::limits::{Windows, limits};
use crate::config::{ConfigError, DeploymentSettings, Target, read::Section};

const OPENAI: &str = "https://api.openai.com/v1";

/// Providers of LiteLLM's whose servers speak OpenAI's API at their `api_base`.
const COMPATIBLE: &[&str] = &[
    "custom_openai",
    "deepinfra",
    "deepseek",
    "fireworks_ai",
    "groq",
    "hosted_vllm",
    "litellm_proxy",
    "llamafile",
    "lm_studio",
    "mistral",
    "nvidia_nim",
    "openai",
    "openai_like",
    "openrouter",
    "perplexity",
    "text-completion-openai",
    "together_ai",
    "vllm",
    "xai",
];

/// What the rest of the file says about every deployment.
pub(in crate::config) struct Defaults {
    /// `router_settings.default_max_parallel_requests`: for deployments without any limit, as in LiteLLM.
    pub(in crate::config) max_parallel_requests: Option<u64>,
    pub(in crate::config) windows: Windows,
}

/// A deployment and the group it belongs to. `ordinal` counts the entries before it of the same identity.
pub(in crate::config) fn deployment(
    entry: &Section<'_>,
    defaults: &Defaults,
    mut ordinal: impl FnMut(&str) -> usize,
) -> Result<(String, DeploymentSettings), ConfigError> {
    let group = entry.required("model_name")?;
    if group.contains('*') {
        entry.warn(
            "model_name",
            "wildcards are not expanded; this name is taken as it is",
        );
    }
    if !entry.has("litellm_params") {
        return Err(entry.error(
            "litellm_params",
            "is missing; expected a mapping with at least `model`",
        ));
    }
    let params = entry.section("litellm_params")?;
    let full_model = params.required("model")?;
    let api_base = params.name("api_base")?;
    let api_key = params.secret("api_key")?;
    if api_key
        .as_ref()
        .is_some_and(|key| HeaderValue::from_str(key.expose_secret()).is_err())
    {
        return Err(params.error(
            "api_key",
            "expected visible characters only (is there a line break at its end?)",
        ));
    }
    let (target, model) = target(&params, &full_model, api_base.as_deref(), api_key.clone())?;

    let info = entry.section("model_info")?;
    let named = info.name("id")?;
    let (id, state_id) = match named {
        // It travels in a header of every answer.
        Some(id) if id.chars().any(|c| c.is_control() || !c.is_ascii()) => {
            return Err(info.error("id", "expected printable ASCII characters"));
        }
        Some(id) => (id.clone(), id),
        None => {
            let key = api_key.as_ref().map_or("", |key| key.expose_secret());
            let base = api_base.as_deref().unwrap_or_default();
            let host = target.host().unwrap_or_default();
            let mut id = |identity: String| hash(&identity, ordinal(&identity));
            // A key or a token in `api_base` could be found out by trying from the hash of it.
            let shown = id(identity(&["shown", &group, &full_model, &host]));
            (shown, id(identity(&[&group, &full_model, base, key])))
        }
    };

    let mut settings = DeploymentSettings {
        id,
        state_id,
        model,
        target,
        limits: limits(&params, defaults.windows)?,
        cached_token_weight: cached_token_weight(&params)?,
        weight: params.positive("weight")?,
        timeout: params.seconds("timeout")?,
        stream_timeout: params.seconds("stream_timeout")?,
        num_retries: params.small("num_retries", 0)?,
        cooldown_time: params.seconds("cooldown_time")?,
        keepalive: params.seconds_or_zero("keepalive_seconds")?,
    };
    if !settings.is_limited() {
        let limit = defaults.max_parallel_requests.map(limits::concurrency);
        settings.limits.extend(limit);
    }
    params.not_served(&[
        (
            "order",
            "all deployments with room are equal but for their weight",
        ),
        ("max_retries", "use num_retries"),
        ("organization", "it is not sent upstream"),
        ("api_version", "only OpenAI-compatible servers are called"),
        ("tags", "tags do not choose deployments"),
        ("extra_headers", "it is not sent upstream"),
        ("input_cost_per_token", "costs are not counted"),
        ("output_cost_per_token", "costs are not counted"),
    ]);
    params.warn_unknown();
    entry.warn_unknown();
    Ok((group, settings))
}

fn cached_token_weight(params: &Section<'_>) -> Result<f64, ConfigError> {
    let expected = "a number between 0 and 1";
    let weight = params
        .number("cached_token_weight", expected)?
        .unwrap_or(1.0);
    if !(0.0..=1.0).contains(&weight) {
        return Err(params.error("cached_token_weight", &format!("expected {expected}")));
    }
    Ok(weight)
}

/// Where calls go, and what the model is called there: `provider/name`, or a bare name for OpenAI.
fn target(
    params: &Section<'_>,
    full_model: &str,
    api_base: Option<&str>,
    api_key: Option<SecretString>,
) -> Result<(Target, String), ConfigError> {
    let (provider, model) = full_model.split_once('/').unwrap_or(("openai", full_model));
    if model.is_empty() {
        return Err(params.error(
            "model",
            "expected `provider/name`, or a bare name for OpenAI",
        ));
    }
    let model = model.to_owned();
    if let Some(response) = params.text("mock_response")? {
        return Ok((Target::Mock { response }, model));
    }
    if let Some(base) = api_base {
        if !COMPATIBLE.contains(&provider) {
            params.warn("model", &format!("the provider {provider} is not known here; api_base is called as an OpenAI-compatible server"));
        }
        let url = reqwest::Url::parse(base)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let Some(url) = url else {
            return Err(params.error("api_base", "expected a URL such as https://host/v1"));
        };
        if api_key.is_some() && (!url.username().is_empty() || url.password().is_some()) {
            return Err(params.error(
                "api_base",
                "expected the credentials once: as api_key, or as user and password in the URL",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(params.error("api_base", "expected a URL without `?` and `#`"));
        }
        return Ok((
            Target::Upstream {
                api_base: url.as_str().trim_end_matches('/').to_owned(),
                api_key,
            },
            model,
        ));
    }
    if !matches!(provider, "openai" | "text-completion-openai") {
        return Err(params.error(
            "api_base",
            &format!("is missing; the provider {provider} needs the URL of an OpenAI-compatible server (only openai has a default)"),
        ));
    }
    // The key of the environment belongs to OpenAI: it goes nowhere else.
    let api_key = api_key.or_else(|| {
        params
            .file
            .env
            .get("OPENAI_API_KEY")
            .filter(|key| !key.is_empty())
            .map(SecretString::from)
    });
    if api_key.is_none() {
        params.warn("api_key", "is missing, and so is the environment variable OPENAI_API_KEY: OpenAI will refuse the calls");
    }
    Ok((
        Target::Upstream {
            api_base: OPENAI.into(),
            api_key,
        },
        model,
    ))
}

/// What identifies a deployment when its limits change.
fn identity(parts: &[&str]) -> String {
    let digest = Sha256::new();
    // Lengths keep ("ab", "c") and ("a", "bc") apart.
    let digest = parts.iter().fold(digest, |digest, part| {
        digest
            .chain_update((part.len() as u64).to_be_bytes())
            .chain_update(part)
    });
    format!("{:x}", digest.finalize())
}

fn hash(identity: &str, ordinal: usize) -> String {
    let digest = Sha256::new()
        .chain_update(identity)
        .chain_update((ordinal as u64).to_be_bytes())
        .finalize();
    let mut text = format!("{digest:x}");
    text.truncate(32);
    text
}
