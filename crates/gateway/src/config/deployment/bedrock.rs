//! Amazon Bedrock: Claude by InvokeModel in Anthropic's format, OpenAI's models by an OpenAI-compatible endpoint, others by
//! Converse.

use std::sync::Arc;

use reqwest::Url;
use secrecy::SecretString;

use super::target::{NoTarget, variable};
use crate::{
    config::{AwsKeys, Dialect, Upstream, read::Section},
    endpoint::Endpoint,
    provider::{
        aws::Keys,
        aws_chain::{Chain, Role, Way},
    },
};

type Result<T> = std::result::Result<T, NoTarget>;

/// LiteLLM's, where nothing names one.
const REGION: &str = "us-west-2";

/// Ways to call a model, which LiteLLM tells apart.
const ROUTES: [&str; 3] = ["converse/", "invoke/", "converse_like/"];

/// Those that lead to the OpenAI-compatible endpoint.
const OPENAI_ROUTES: [&str; 2] = ["openai/", "chat_completions/"];

/// Where a model's calls may be answered; they stand before its name.
const AREAS: [&str; 8] = [
    "us.", "eu.", "apac.", "jp.", "au.", "ca.", "us-gov.", "global.",
];

/// Models that are neither for chats nor for embeddings of texts.
const NO_CHATS: [&str; 11] = [
    "amazon.nova-2-multimodal-embeddings",
    "amazon.nova-2-sonic",
    "amazon.nova-canvas",
    "amazon.nova-reel",
    "amazon.nova-sonic",
    "amazon.rerank",
    "amazon.titan-image",
    "cohere.rerank",
    "luma.",
    "stability.",
    "twelvelabs.",
];

/// Ways to credentials that are not gone here.
const NOT_GONE: [&str; 2] = ["aws_web_identity_token", "aws_sts_endpoint"];

/// Completes the upstream of a `bedrock/` deployment. Returns what the model is called there.
pub(super) fn bedrock(
    params: &Section<'_>,
    base: Option<&Url>,
    model: &str,
    key: Option<SecretString>,
    upstream: &mut Upstream,
) -> Result<String> {
    let openai = OPENAI_ROUTES.iter().any(|route| model.starts_with(route));
    let mut model = model;
    for route in ROUTES.iter().chain(&OPENAI_ROUTES) {
        model = model.strip_prefix(route).unwrap_or(model);
    }
    let (in_model, model) = region_of(model);
    let region = region(params, in_model)?;
    let name = AREAS.iter().find_map(|area| model.strip_prefix(area));
    let name = name.unwrap_or(model);
    upstream.dialect =
        dialect(name, openai).map_err(|reason| NoTarget::LeftOut("model", reason.into()))?;
    credentials(params, key, &region, upstream)?;
    let root = root(params, base, &region)?;
    upstream.api_base = match upstream.dialect {
        Dialect::OpenAi if !root.ends_with("/openai/v1") => format!("{root}/openai/v1"),
        _ => root,
    };
    Ok(model.to_owned())
}

/// How a model is called, by its name without an area. `openai`: the file says, at the OpenAI-compatible endpoint.
fn dialect(name: &str, openai: bool) -> std::result::Result<Dialect, &'static str> {
    let begins = |names: &[&str]| names.iter().any(|begins| name.starts_with(begins));
    if openai || begins(&["openai."]) {
        Ok(Dialect::OpenAi)
    } else if begins(&["anthropic.claude"]) {
        Ok(Dialect::Bedrock)
    } else if begins(&["*"]) {
        Err(
            "leaves open which format its models have: expected a name such as anthropic.claude-* or qwen.*",
        )
    } else if begins(&["amazon.titan-embed"]) {
        Ok(Dialect::Titan)
    } else if begins(&["cohere.embed"]) {
        Ok(Dialect::Cohere)
    } else if begins(&NO_CHATS) {
        Err("is no model for chats, and is called in a format that is not spoken here")
    } else {
        Ok(Dialect::Converse)
    }
}

/// What models that are called in this way can be asked for.
pub(super) fn served(dialect: Dialect) -> &'static [Endpoint] {
    match dialect {
        Dialect::Titan | Dialect::Cohere => &[Endpoint::Embeddings],
        _ => &[Endpoint::ChatCompletions, Endpoint::Messages],
    }
}

/// `us-west-2/anthropic...`: a region before the model; `arn:aws:bedrock:us-west-2:...`: one in its ARN.
fn region_of(model: &str) -> (Option<&str>, &str) {
    if model.starts_with("arn:") {
        return (model.split(':').nth(3), model);
    }
    let region = |text: &str| {
        let mut parts = text.rsplit('-');
        let number = parts
            .next()
            .is_some_and(|last| last.len() == 1 && last.bytes().all(|b| b.is_ascii_digit()));
        number && parts.count() >= 2
    };
    match model.split_once('/') {
        Some((before, rest)) if region(before) => (Some(before), rest),
        _ => (None, model),
    }
}

fn region(params: &Section<'_>, in_model: Option<&str>) -> Result<String> {
    let named = params.name("aws_region_name")?;
    let region = named.or_else(|| in_model.map(str::to_owned));
    let variables = ["AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION"];
    let region = region.or_else(|| variable(params, &variables));
    let region = region.unwrap_or_else(|| REGION.into());
    let harmless = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if !region.chars().all(harmless) {
        let expected = "expected letters, digits and `-`";
        return Err(params.error("aws_region_name", expected).into());
    }
    Ok(region)
}

/// A bearer token, else keys to sign with: of the file, else of the environment, else what is found where the process runs.
fn credentials(
    params: &Section<'_>,
    key: Option<SecretString>,
    region: &str,
    upstream: &mut Upstream,
) -> Result<()> {
    let own = |name: &str| -> Result<Option<String>> {
        Ok(params.text(name)?.filter(|text| !text.trim().is_empty()))
    };
    let profile = own("aws_profile_name")?;
    let (arn, session) = (own("aws_role_name")?, own("aws_session_name")?);
    let external_id = own("aws_external_id")?;
    let id = own("aws_access_key_id")?;
    let secret = own("aws_secret_access_key")?;
    let token = own("aws_session_token")?;
    let of_environment = |name: &str| variable(params, &[name]);
    let bearer = key.or_else(|| {
        let unnamed = id.is_none() && arn.is_none() && profile.is_none();
        let token = of_environment("AWS_BEARER_TOKEN_BEDROCK");
        token.filter(|_| unnamed).map(Into::into)
    });
    if let Some(bearer) = bearer {
        upstream.api_key = Some(bearer);
        return Ok(());
    }
    for name in NOT_GONE {
        if own(name)?.is_some() {
            let reason = "is not supported here: use keys, aws_profile_name, aws_role_name, or the environment (AWS_WEB_IDENTITY_TOKEN_FILE)";
            return Err(NoTarget::LeftOut(name, reason.into()));
        }
    }
    let own = match (id, secret) {
        (Some(id), Some(secret)) => Some((id, secret, token)),
        (None, None) if arn.is_none() && profile.is_none() => {
            let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(of_environment);
            let [id, secret] = keys;
            let token = of_environment("AWS_SESSION_TOKEN");
            id.zip(secret).map(|(id, secret)| (id, secret, token))
        }
        (None, None) => None,
        _ => {
            let expected = "expected both aws_access_key_id and aws_secret_access_key";
            return Err(params.error("aws_access_key_id", expected).into());
        }
    };
    let role = arn.map(|arn| Role {
        arn,
        session,
        external_id,
        region: region.to_owned(),
    });
    let keys = match (own, role) {
        (Some((id, secret, token)), None) => Keys::Own {
            id,
            secret: secret.into(),
            session_token: token.map(Into::into),
        },
        (own, role) => {
            let way = Way { profile, own, role };
            Keys::Found(Arc::new(Chain::new(way, of_environment)))
        }
    };
    upstream.aws = Some(Box::new(AwsKeys {
        keys,
        region: region.to_owned(),
    }));
    Ok(())
}

/// Where Bedrock is.
fn root(params: &Section<'_>, base: Option<&Url>, region: &str) -> Result<String> {
    let named = params.text("aws_bedrock_runtime_endpoint")?;
    let named = named.or_else(|| variable(params, &["AWS_BEDROCK_RUNTIME_ENDPOINT"]));
    let text = match (named, base) {
        (Some(named), _) => named,
        (None, Some(base)) => base.as_str().to_owned(),
        (None, None) => format!("https://bedrock-runtime.{region}.amazonaws.com"),
    };
    let whole = Url::parse(text.trim()).ok();
    let whole = whole.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if whole.is_none_or(|url| url.query().is_some() || url.fragment().is_some()) {
        let expected = "expected a URL without `?` and `#`";
        return Err(params
            .error("aws_bedrock_runtime_endpoint", expected)
            .into());
    }
    Ok(text.trim().trim_end_matches('/').to_owned())
}
