//! One entry of `model_list`.

pub(super) mod account;
mod azure;
mod bedrock;
mod fields;
mod headers;
mod known;
pub(super) mod limits;
mod ollama;
mod providers;
mod purpose;
mod responses;
mod target;
pub(super) mod verify;
mod vertex;

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

pub(super) use self::fields::FieldRules;
use self::{
    known::Role,
    limits::{Windows, limits},
    target::{Found, NoTarget},
};
use crate::{
    config::{
        About, ConfigError, DeploymentSettings, Dialect, Kind, Serves, Target, Verify,
        litellm::refused,
        read::{Recorded, Section},
        wildcard::Reading,
    },
    endpoint,
    request::edits::Edits,
};

/// What the rest of the file says about every deployment.
pub(super) struct Defaults {
    /// `router_settings.default_max_parallel_requests`: for deployments without any limit, as in LiteLLM.
    pub(super) max_parallel_requests: Option<u64>,
    pub(super) windows: Windows,
    /// Deployments are chosen by their prices.
    pub(super) by_cost: bool,
    /// Deployments are chosen by their use: LiteLLM then takes limits from `model_info`, too.
    pub(super) by_usage: bool,
    pub(super) fields: FieldRules,
    /// `litellm_settings.ssl_verify`.
    pub(super) verify: Option<Verify>,
}

/// What an entry of `model_list` comes to.
pub(super) enum Entry {
    Deployment(Box<DeploymentSettings>),
    /// It cannot be called, and LiteLLM would start all the same: why.
    LeftOut {
        line: u64,
        reason: String,
    },
}

/// Who may call a deployment, and when, in LiteLLM.
const RESTRICTIONS: &[(&str, &str)] = &[
    (
        "blocked",
        "a deployment that nothing may call: leave it out",
    ),
    (
        "team_id",
        "there are no teams; give it a model_name of its own, and name that in the `models` of a key",
    ),
    ("access_windows", "deployments are called at all times"),
];

/// The deployment of an entry. `ordinal` counts the entries before it of the same identity.
pub(super) fn deployment(
    entry: &Section<'_>,
    reading: &Reading,
    defaults: &Defaults,
    mut ordinal: impl FnMut(&str) -> usize,
) -> Result<Entry, ConfigError> {
    let file = entry.file;
    let (group, full_model) = (&reading.group, &reading.model);
    entry.pass_over("model_name");
    let params = entry.section("litellm_params")?;
    params.pass_over("model");
    let api_base = params.text("api_base").recorded(file);
    let api_base = api_base.or(params.text("base_url").recorded(file));
    let api_key = api_key(&params).recorded(file);
    // One that stands beside `*` is OpenAI's.
    let api_key = api_key.filter(|_| reading.provider.is_none_or(|name| name == "openai"));
    if api_key
        .as_ref()
        .is_some_and(|key| key.expose_secret().starts_with("oidc/"))
    {
        return Ok(left_out(
            Kind::LEFT_OUT,
            &params,
            "api_key",
            "oidc/ tokens are not fetched here",
        ));
    }
    let info = entry.section("model_info").recorded_if_any(file);
    let info = info.unwrap_or_else(|| entry.empty("model_info"));
    let Found {
        target,
        model,
        provider,
    } = match target::target(&params, &info, full_model, api_key.clone(), defaults) {
        Ok(found) => found,
        Err(NoTarget::Error(error)) => {
            file.record(error);
            // What else is wrong with it is to be known as well.
            let model = full_model.clone();
            let target = Target::Mock {
                response: String::new(),
            };
            Found {
                target,
                model,
                provider: None,
            }
        }
        Err(NoTarget::LeftOut(key, reason)) => {
            return Ok(left_out(Kind::LEFT_OUT, &params, key, &reason));
        }
        Err(NoTarget::Unknown(key, reason)) => {
            return Ok(left_out(Kind::NO_PROVIDER, &params, key, &reason));
        }
    };

    info.refuse_asked(RESTRICTIONS);
    let named = info.name("id").recorded(file);
    let named = match (named, reading.provider) {
        (Some(id), Some(provider)) => Some(format!("{id}:{provider}")),
        (named, _) => named,
    };
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
            let shown = id(identity(&["shown", group, full_model, &host]));
            (shown, id(identity(&[group, full_model, base, key])))
        }
    };

    let of_info = defaults.by_usage.then_some(&info);
    let mut settings = DeploymentSettings {
        id,
        state_id,
        about: About {
            model: full_model.clone(),
            provider: provider.map(|provider| provider.name),
            mode: info.name("mode").recorded(file),
        },
        target,
        serves: mode(&info).recorded_if_any(file).unwrap_or(Serves::All),
        edits: Edits::default(),
        limits: limits(&params, of_info, defaults.windows).recorded(file),
        cached_token_weight: cached_token_weight(&params).recorded(file),
        weight: weight(&params).recorded(file),
        order: order(&params, &info).recorded(file),
        price: match defaults.by_cost {
            true => price(&params, &info).recorded(file),
            false => None,
        },
        timeout: params.seconds_if_any("timeout").recorded(file),
        stream_timeout: params.seconds_if_any("stream_timeout").recorded(file),
        num_retries: params.small("num_retries", 0).recorded(file),
        cooldown_time: params.seconds_if_any("cooldown_time").recorded(file),
        keepalive: params.seconds_or_zero("keepalive_seconds").recorded(file),
        model,
    };
    if !settings.is_limited() {
        let limit = defaults.max_parallel_requests.map(limits::concurrency);
        settings.limits.extend(limit);
    }
    purpose::check(&params, &info, &settings);
    params.refuse_asked(&[("guardrails", refused::CONTENT)]);
    let max_retries = params.small("max_retries", 0).recorded(file);
    if max_retries.is_some_and(|most| most > 0) {
        params.tell(
            Kind::NOT_DONE,
            "max_retries",
            "does nothing here: use num_retries",
        );
    }
    match provider {
        Some(provider) => {
            // Azure's deployments may have any name: this one says what the model is.
            let base_model = info.name("base_model").recorded(file);
            let base_model = base_model.or(params.name("base_model").recorded(file));
            let model = base_model.as_deref().unwrap_or(&settings.model);
            let model = model.rsplit('/').next().unwrap_or(model);
            let dialect = match &settings.target {
                Target::Upstream(upstream) => upstream.dialect,
                Target::Mock { .. } => Dialect::OpenAi,
            };
            settings.edits =
                fields::edits(&params, &defaults.fields, provider, dialect, model).recorded(file);
        }
        // What is answered in process has no use for its defaults.
        None => {
            for name in params.unread() {
                match known::role(name) {
                    Role::Field => params.pass_over(name),
                    Role::Setting(reason) | Role::Missed(reason) => {
                        params.not_served(&[(name, reason)]);
                    }
                    Role::Credential | Role::Unknown => {}
                }
            }
        }
    }
    params.warn_unknown();
    entry.warn_unknown();
    Ok(Entry::Deployment(Box::new(settings)))
}

/// It cannot be called: `reason` is about `key`.
fn left_out(kind: Kind, params: &Section<'_>, key: &str, reason: &str) -> Entry {
    let text = format!("the deployment is left out: {reason}");
    params.tell(kind, key, &text);
    Entry::LeftOut {
        line: params.line_of(key),
        reason: format!("{}: {reason}", params.path_of(key)),
    }
}

/// What `model_info.mode` says.
fn mode(info: &Section<'_>) -> Result<Serves, ConfigError> {
    let Some(mode) = info.name("mode")? else {
        return Ok(Serves::All);
    };
    Ok(match endpoint::of_mode(&mode) {
        Some(endpoints) => Serves::Only(endpoints),
        None => {
            let text = "is no mode that is known here: the deployment is called for every endpoint";
            info.warn("mode", text);
            Serves::All
        }
    })
}

/// Its key; an empty one is none, as in LiteLLM.
fn api_key(params: &Section<'_>) -> Result<Option<SecretString>, ConfigError> {
    let Some(key) = params.text("api_key")?.filter(|key| !key.trim().is_empty()) else {
        return Ok(None);
    };
    if key.contains("${") {
        params.tell(Kind::LITERAL, "api_key", &target::literal());
    }
    if HeaderValue::from_str(&key).is_err() {
        return Err(params.error(
            "api_key",
            "expected visible characters only (is there a line break at its end?)",
        ));
    }
    Ok(Some(key.into()))
}

/// Only deployments of the lowest order are chosen from.
fn order(params: &Section<'_>, info: &Section<'_>) -> Result<Option<i32>, ConfigError> {
    Ok(params.priority("order")?.or(info.priority("order")?))
}

/// What a token of each kind costs, together, as LiteLLM compares deployments.
fn price(params: &Section<'_>, info: &Section<'_>) -> Result<Option<f64>, ConfigError> {
    let expected = "a number of at least 0";
    let cost = |section: &Section<'_>, key| match section.number(key, expected)? {
        Some(cost) if cost < 0.0 => Err(section.error(key, &format!("expected {expected}"))),
        cost => Ok(cost),
    };
    let mut price = None;
    for key in ["input_cost_per_token", "output_cost_per_token"] {
        let cost = cost(params, key)?.or(cost(info, key)?);
        price = cost.map_or(price, |cost| Some(price.unwrap_or(0.0) + cost));
    }
    Ok(price)
}

/// A share under simple-shuffle; 0: only where no other deployment has room.
fn weight(params: &Section<'_>) -> Result<Option<f64>, ConfigError> {
    let expected = "a number of at least 0";
    match params.number("weight", expected)? {
        Some(weight) if weight < 0.0 => {
            Err(params.error("weight", &format!("expected {expected}")))
        }
        weight => Ok(weight),
    }
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
