//! Azure's addresses: the deployment in the path and the API's version in the query, or `/openai/v1`.

use oauth2::TokenUrl;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::target::{NoTarget, variable};
use crate::{
    config::{Dialect, KeyHeader, Kind, TokenSource, Upstream, read::Section},
    provider::entra::Application,
};

type Result<T> = std::result::Result<T, NoTarget>;

/// LiteLLM's, where the file names none.
const VERSION: &str = "2025-02-01-preview";

/// Foundry's model inference.
const INFERENCE_VERSION: &str = "2024-05-01-preview";

/// Versions that mean `/openai/v1`, which needs none.
const V1: &[&str] = &["v1", "latest", "preview"];

/// Completes the upstream of an `azure/` deployment. Returns what the model is called in the body.
pub(super) fn deployment(
    params: &Section<'_>,
    base: Url,
    model: &str,
    upstream: &mut Upstream,
) -> Result<String> {
    let model = without_hint(model);
    let named = deployment_in(&base);
    let Some(root) = versioned(params, base, upstream)? else {
        return Ok(named.unwrap_or_else(|| model.to_owned()));
    };
    let root = resource(&root);
    if upstream.dialect == Dialect::Responses {
        upstream.api_base = format!("{root}/openai");
        return Ok(named.unwrap_or_else(|| model.to_owned()));
    }
    // Chats of such a wildcard's models are all called in one way.
    upstream.dialect = Dialect::OpenAi;
    upstream.api_base = match named {
        Some(name) => format!("{root}/openai/deployments/{name}"),
        None => {
            let wrong = || {
                params.error(
                    "api_base",
                    "expected a URL such as https://name.openai.azure.com",
                )
            };
            upstream.model_in_path = model.contains('*');
            joined(root, &["openai", "deployments", model]).ok_or_else(wrong)?
        }
    };
    Ok(model.to_owned())
}

/// The deployment that a URL names, perhaps with the endpoint after it.
fn deployment_in(base: &Url) -> Option<String> {
    let (_, rest) = base.path().split_once("/openai/deployments/")?;
    rest.split('/').next().map(str::to_owned)
}

/// Completes the upstream of an account, whose calls name no deployment.
pub(super) fn account(params: &Section<'_>, base: Url, upstream: &mut Upstream) -> Result<()> {
    if let Some(root) = versioned(params, base, upstream)? {
        upstream.api_base = format!("{}/openai", resource(&root));
    }
    Ok(())
}

/// Sets key and version. The URL that needs the version; `None`: the upstream is at `/openai/v1`, which needs none.
fn versioned(params: &Section<'_>, base: Url, upstream: &mut Upstream) -> Result<Option<String>> {
    let in_url = version_in(params, &base)?;
    authorize(params, upstream)?;
    let responses = upstream.dialect == Dialect::Responses;
    let version = params.name("api_version")?.or(in_url);
    let of_environment = || variable(params, &["AZURE_API_VERSION"]).filter(|_| !responses);
    // The Responses API is at `/openai/v1` unless the file names a version, as in LiteLLM.
    let default = if responses { V1[0] } else { VERSION };
    let version = version.or_else(of_environment);
    let version = version.as_deref().unwrap_or(default);
    let root = root_of(base);
    if let Some((root, _)) = root.split_once("/openai/v1") {
        upstream.api_base = format!("{root}/openai/v1");
        return Ok(None);
    }
    if V1.contains(&version) {
        upstream.api_base = format!("{}/openai/v1", resource(&root));
        return Ok(None);
    }
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !version.chars().all(harmless) {
        return Err(params
            .error("api_version", "expected a version such as 2024-10-21")
            .into());
    }
    upstream.query = Some(format!("api-version={version}"));
    Ok(Some(root))
}

/// Completes the upstream of an `azure_ai/` deployment: Foundry's model inference, or a server of one model.
pub(super) fn foundry(
    params: &Section<'_>,
    base: Url,
    model: String,
    upstream: &mut Upstream,
) -> Result<String> {
    let in_url = version_in(params, &base)?;
    let host = base.host_str().unwrap_or_default().to_owned();
    let root = root_of(base);
    let root = root.strip_suffix("/chat/completions").unwrap_or(&root);
    let azure = host.ends_with(".azure.com");
    if azure {
        authorize(params, upstream)?;
    }
    let version = params.name("api_version")?.or(in_url);
    if upstream.dialect == Dialect::Responses {
        let root = root.strip_suffix("/models").unwrap_or(root);
        let root = root.strip_suffix("/openai/v1").unwrap_or(root);
        upstream.api_base = format!("{root}/openai/v1");
        return Ok(model);
    }
    upstream.dialect = Dialect::OpenAi;
    if host.ends_with(".services.ai.azure.com") && !root.ends_with("/openai/v1") {
        let root = root.strip_suffix("/models").unwrap_or(root);
        upstream.api_base = format!("{root}/models");
        upstream.query = Some(format!(
            "api-version={}",
            version.as_deref().unwrap_or(INFERENCE_VERSION)
        ));
    } else {
        root.clone_into(&mut upstream.api_base);
        upstream.query = version.map(|version| format!("api-version={version}"));
    }
    Ok(model)
}

/// Without what only tells LiteLLM how to treat the model.
fn without_hint(model: &str) -> &str {
    let hints = ["o_series/", "gpt5_series/"];
    let mut hints = hints.iter();
    hints
        .find_map(|hint| model.strip_prefix(hint))
        .unwrap_or(model)
}

/// What an application of Entra ID needs to get tokens; the variables that LiteLLM takes in their place.
const APPLICATION: [(&str, &str); 3] = [
    ("tenant_id", "AZURE_TENANT_ID"),
    ("client_id", "AZURE_CLIENT_ID"),
    ("client_secret", "AZURE_CLIENT_SECRET"),
];

const SCOPE: &str = "https://cognitiveservices.azure.com/.default";

/// Azure's public cloud; others have their own.
const AUTHORITY: &str = "https://login.microsoftonline.com";

/// The key in Azure's header, or a token of Entra ID: one of the file, or one that its application gets.
fn authorize(params: &Section<'_>, upstream: &mut Upstream) -> Result<()> {
    let application = application(params)?;
    if upstream.api_key.is_some() {
        params.pass_over("azure_ad_token");
        upstream.key_header = KeyHeader::ApiKey;
        return Ok(());
    }
    let token = params.optional_secret("azure_ad_token")?;
    let token = token.or_else(|| variable(params, &["AZURE_AD_TOKEN"]).map(Into::into));
    if token
        .as_ref()
        .is_some_and(|token| token.expose_secret().starts_with("oidc/"))
    {
        let reason =
            "oidc/ tokens are not fetched here; tenant_id, client_id and client_secret get one";
        return Err(NoTarget::LeftOut("azure_ad_token", reason.into()));
    }
    upstream.api_key = token;
    if upstream.api_key.is_none() {
        upstream.tokens = application.map(TokenSource::entra);
    }
    if upstream.api_key.is_none() && upstream.tokens.is_none() {
        let keys = "api_key, azure_ad_token or tenant_id with client_id and client_secret is missing, and so is the environment variable AZURE_API_KEY";
        let text = format!("{keys}: Azure will refuse the calls");
        params.tell(Kind::NO_KEY, "api_key", &text);
    }
    Ok(())
}

/// The application that all three of its parts name.
fn application(params: &Section<'_>) -> Result<Option<Application>> {
    let mut parts = Vec::new();
    for (key, name) in APPLICATION {
        let part = params.optional_secret(key)?;
        parts.extend(part.or_else(|| variable(params, &[name]).map(Into::into)));
    }
    let scope = params.name("azure_scope")?;
    let scope = scope.or_else(|| variable(params, &["AZURE_SCOPE"]));
    let Ok::<[SecretString; 3], _>([tenant, client, secret]) = parts.try_into() else {
        if let Some((key, _)) = APPLICATION.iter().find(|(key, _)| params.has(key)) {
            let text = "does nothing alone: expected tenant_id, client_id and client_secret";
            params.tell(Kind::NO_EFFECT, key, text);
        }
        return Ok(None);
    };
    let authority = variable(params, &["AZURE_AUTHORITY_HOST"]);
    let authority = authority.unwrap_or_else(|| AUTHORITY.into());
    let url = joined(
        authority.trim_end_matches('/'),
        &[tenant.expose_secret(), "oauth2", "v2.0", "token"],
    );
    let token_url = url.and_then(|url| TokenUrl::new(url).ok());
    let wrong = "expected a tenant, and in the environment's AZURE_AUTHORITY_HOST a URL";
    Ok(Some(Application {
        token_url: token_url.ok_or_else(|| params.error("tenant_id", wrong))?,
        client_id: client.expose_secret().to_owned(),
        client_secret: secret,
        scope: scope.unwrap_or_else(|| SCOPE.into()),
    }))
}

/// The version that stands in a URL, the only thing that may stand behind its `?`.
fn version_in(params: &Section<'_>, base: &Url) -> Result<Option<String>> {
    let mut version = None;
    for (name, value) in base.query_pairs() {
        if name != "api-version" {
            return Err(params
                .error("api_base", "expected a URL without `?` but for api-version")
                .into());
        }
        version = Some(value.into_owned());
    }
    Ok(version)
}

/// The resource's own URL, where one of its deployments may be named.
fn resource(root: &str) -> &str {
    let named = root.split_once("/openai/deployments/");
    let resource = named.map_or(root, |(resource, _)| resource);
    resource.strip_suffix("/openai").unwrap_or(resource)
}

fn root_of(mut base: Url) -> String {
    base.set_query(None);
    base.set_fragment(None);
    base.as_str().trim_end_matches('/').to_owned()
}

/// A URL with more segments in its path, escaped where they have to be.
fn joined(root: &str, segments: &[&str]) -> Option<String> {
    let mut url = Url::parse(root).ok()?;
    url.path_segments_mut()
        .ok()?
        .pop_if_empty()
        .extend(segments);
    Some(url.into())
}
