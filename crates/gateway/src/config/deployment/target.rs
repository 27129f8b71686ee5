//! Where a deployment's calls go: its provider, the provider's address and key, and what the model is called there.

use reqwest::Url;
use secrecy::SecretString;

use super::{
    Defaults, azure, bedrock, headers::headers, providers, responses, verify::verify, vertex,
};
use crate::{
    Endpoint,
    config::{
        ConfigError, Dialect, KeyHeader, Kind, Serves, Target, Upstream, Verify, read::Section,
    },
    provider::{
        endpoints, hosts,
        table::{self, Format, Provider},
    },
};

/// Why a deployment has no target.
#[derive(Debug)]
pub(super) enum NoTarget {
    /// The file is wrong.
    Error(ConfigError),
    /// LiteLLM would start without it, or serves what is not served here. The key that it is about, and the reason.
    LeftOut(&'static str, String),
    /// LiteLLM would start and then refuse its calls: the same as here.
    Unknown(&'static str, String),
}

impl From<ConfigError> for NoTarget {
    fn from(error: ConfigError) -> Self {
        Self::Error(error)
    }
}

type Result<T> = std::result::Result<T, NoTarget>;

pub(super) const PROVIDER: &str = "custom_llm_provider";

/// Where calls go.
pub(super) struct Found {
    pub(super) target: Target,
    /// What the model is called there.
    pub(super) model: String,
    /// `None`: it is answered in process.
    pub(super) provider: Option<&'static Provider>,
}

pub(super) fn target(
    params: &Section<'_>,
    info: &Section<'_>,
    full_model: &str,
    key: Option<SecretString>,
    defaults: &Defaults,
) -> Result<Found> {
    if let Some(response) = params.text("mock_response")? {
        let (_, model) = full_model.split_once('/').unwrap_or(("", full_model));
        return Ok(Found {
            target: Target::Mock { response },
            model: model.to_owned(),
            provider: None,
        });
    }
    let named = base_of_file(params)?;
    let (provider, model) = provider(params, full_model, named.as_ref())?;
    if provider.format == Format::Vertex {
        let mut upstream = Upstream::new("", None);
        upstream.headers = headers(params)?;
        upstream.verify = how_verified(params, defaults)?;
        let model = vertex::vertex(params, named, &model, &mut upstream)?;
        upstream.serves = match upstream.dialect {
            Dialect::Predict => Serves::Only(&[Endpoint::Embeddings]),
            _ => serves(provider, &upstream),
        };
        return Ok(Found {
            target: Target::Upstream(upstream),
            model,
            provider: Some(provider),
        });
    }
    if provider.format == Format::Bedrock {
        let mut upstream = Upstream::new("", None);
        upstream.headers = headers(params)?;
        upstream.verify = how_verified(params, defaults)?;
        let model = bedrock::bedrock(params, named.as_ref(), &model, key, &mut upstream)?;
        upstream.serves = Serves::Only(bedrock::served(upstream.dialect));
        return Ok(Found {
            target: Target::Upstream(upstream),
            model,
            provider: Some(provider),
        });
    }
    let (base, mut upstream) = server(params, provider, named, key, defaults)?;
    let (dialect, model) = responses::dialect(params, info, provider, &model);
    upstream.dialect = dialect;
    let model = match provider.format {
        Format::Azure => azure::deployment(params, base, model, &mut upstream)?,
        Format::AzureAi => azure::foundry(params, base, model.to_owned(), &mut upstream)?,
        _ => {
            upstream.api_base = openai_base(params, provider, &base)?;
            if provider.format == Format::Anthropic {
                upstream.dialect = Dialect::Anthropic;
                upstream.key_header = KeyHeader::XApiKey;
            }
            if provider.name == "text-completion-openai" {
                params.warn(
                    "model",
                    "chats are sent as chats (LiteLLM makes text completions of them)",
                );
            }
            if provider.name == "fireworks_ai" && !model.starts_with("accounts/") {
                format!("accounts/fireworks/models/{model}")
            } else {
                model.to_owned()
            }
        }
    };
    upstream.serves = serves(provider, &upstream);
    upstream.usage_in_streams = !provider.refuses.contains(&"stream_options");
    Ok(Found {
        target: Target::Upstream(upstream),
        model,
        provider: Some(provider),
    })
}

/// A provider's server, with its key and what each call carries. What endpoints' paths follow is still to be set.
fn server(
    params: &Section<'_>,
    provider: &Provider,
    named: Option<Url>,
    key: Option<SecretString>,
    defaults: &Defaults,
) -> Result<(Url, Upstream)> {
    let (base, of_file) = address(params, provider, named)?;
    let key = match key {
        Some(key) => Some(key),
        None if keeps_to_its_own(provider, &base, of_file) => {
            variable(params, provider.key_variables).map(SecretString::from)
        }
        None => None,
    };
    if key.is_none() && !of_file && provider.base.starts_with("https:") {
        let text = format!(
            "is missing, and so is the environment variable {}: {} will refuse the calls",
            provider.key_variables.join(" or "),
            base.host_str().unwrap_or_default()
        );
        params.tell(Kind::NO_KEY, "api_key", &text);
    }
    if key.is_some() && (!base.username().is_empty() || base.password().is_some()) {
        return Err(params
            .error(
                "api_base",
                "expected the credentials once: as api_key, or as user and password in the URL",
            )
            .into());
    }
    let mut upstream = Upstream::new("", key);
    upstream.headers = headers(params)?;
    upstream.verify = how_verified(params, defaults)?;
    Ok((base, upstream))
}

/// Where calls of an account go, which name no model.
pub(super) fn account(
    params: &Section<'_>,
    key: Option<SecretString>,
    defaults: &Defaults,
) -> Result<Upstream> {
    let named = base_of_file(params)?;
    let (provider, _) = provider(params, "", named.as_ref())?;
    let azure = match provider.format {
        Format::OpenAi | Format::InV1 | Format::UnderV1 => false,
        Format::Azure => true,
        _ => {
            let name = provider.name;
            let reason =
                format!("{name} keeps them in a format of its own, which is not spoken here");
            return Err(NoTarget::LeftOut(PROVIDER, reason));
        }
    };
    let (base, mut upstream) = server(params, provider, named, key, defaults)?;
    if azure {
        azure::account(params, base, &mut upstream)?;
    } else {
        upstream.api_base = openai_base(params, provider, &base)?;
    }
    Ok(upstream)
}

fn openai_base(params: &Section<'_>, provider: &Provider, base: &Url) -> Result<String> {
    if base.query().is_some() || base.fragment().is_some() {
        return Err(params
            .error("api_base", "expected a URL without `?` and `#`")
            .into());
    }
    api_base(provider, base)
}

fn serves(provider: &Provider, upstream: &Upstream) -> Serves {
    endpoints::of(provider, &upstream.api_base).map_or(Serves::All, Serves::Only)
}

fn how_verified(params: &Section<'_>, defaults: &Defaults) -> Result<Verify> {
    let own = verify(params)?;
    Ok(own.or_else(|| defaults.verify.clone()).unwrap_or_default())
}

/// `api_base` of the file, or `base_url`, which means the same.
fn base_of_file(params: &Section<'_>) -> Result<Option<Url>> {
    let keys = ["api_base", "base_url"];
    for key in keys {
        if let Some(text) = params.text(key)?.filter(|text| !text.trim().is_empty()) {
            if text.contains("${") {
                return Err(NoTarget::LeftOut(key, literal()));
            }
            return match url(&text) {
                Some(url) => Ok(Some(url)),
                None => {
                    let uri: Option<http::Uri> = text.trim().parse().ok();
                    let host = uri.as_ref().and_then(|uri| uri.host());
                    let expected = match host.is_some_and(hosts::ends_with_a_number) {
                        true => {
                            "expected http:// before a host that ends with a number: no certificate has such a name"
                        }
                        false => "expected a URL such as https://host/v1",
                    };
                    Err(params.error(key, expected).into())
                }
            };
        }
    }
    Ok(None)
}

/// LiteLLM does not replace it either.
pub(super) fn literal() -> String {
    "holds a literal `${...}`: a variable of the environment is written os.environ/NAME".into()
}

fn url(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim()).ok();
    let url = url.or_else(|| hosts::substituted(text))?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

/// The provider, and what the model is called there.
fn provider(
    params: &Section<'_>,
    full_model: &str,
    base: Option<&Url>,
) -> Result<(&'static Provider, String)> {
    let unknown = |name: &str| {
        let whose = if providers::known_to_litellm(name) {
            "is not known here"
        } else {
            "is not known here, nor to LiteLLM"
        };
        let reason = format!(
            "the provider {name} {whose}; with the URL of an OpenAI-compatible server as api_base it can be called"
        );
        match providers::known_to_litellm(name) {
            true => NoTarget::LeftOut("model", reason),
            false => NoTarget::Unknown("model", reason),
        }
    };
    if let Some(name) = params.name(PROVIDER)? {
        let model = full_model
            .strip_prefix(&format!("{name}/"))
            .unwrap_or(full_model);
        let provider = match (table::named(&name), base) {
            (Some(provider), _) => provider,
            (None, Some(_)) => &table::COMPATIBLE,
            (None, None) => return Err(unknown(&name)),
        };
        return Ok((provider, model.to_owned()));
    }
    let of_host = base.and_then(|base| table::at_host(base.host_str()?));
    let Some((prefix, model)) = full_model.split_once('/') else {
        return bare(params, full_model, base.is_some(), of_host);
    };
    if model.is_empty() {
        let expected = "expected `provider/name`, or a bare name for OpenAI";
        return Err(params.error("model", expected).into());
    }
    match (table::named(prefix), of_host) {
        (Some(provider), _) => Ok((provider, model.to_owned())),
        // Such as `meta-llama/...` at Together: what stands before the slash belongs to the name.
        (None, Some(provider)) => Ok((provider, full_model.to_owned())),
        (None, None) if base.is_some() => {
            params.warn("model", &format!(
                "the provider {prefix} is not known here; api_base is called as an OpenAI-compatible server, and the model as what follows the slash"
            ));
            Ok((&table::COMPATIBLE, model.to_owned()))
        }
        (None, None) => Err(unknown(prefix)),
    }
}

/// A name without a provider.
fn bare(
    params: &Section<'_>,
    model: &str,
    based: bool,
    of_host: Option<&'static Provider>,
) -> Result<(&'static Provider, String)> {
    let found = of_host.or_else(|| table::of_bare_name(model));
    let provider = match found {
        Some(provider) if provider.name == "vertex_ai" && !based && !asks_for_vertex(params) => {
            params.warn("model", "names no provider: gemini/ is taken, as nothing of Vertex AI is named (LiteLLM takes vertex_ai/)");
            table::named("gemini")
        }
        Some(provider) => Some(provider),
        None if based => Some(&table::COMPATIBLE),
        None if model == "*" => table::named("openai"),
        None => None,
    };
    let provider = provider.ok_or_else(|| {
        let reason =
            "names no provider, and is no name that is known of one: expected `provider/name`";
        NoTarget::LeftOut("model", reason.into())
    })?;
    Ok((provider, model.to_owned()))
}

fn asks_for_vertex(params: &Section<'_>) -> bool {
    let keys = [
        "vertex_project",
        "vertex_location",
        "vertex_credentials",
        "vertex_ai_project",
    ];
    let variables = [
        "VERTEXAI_PROJECT",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "DEFAULT_VERTEXAI_PROJECT",
    ];
    keys.iter().any(|key| params.has(key)) || variable(params, &variables).is_some()
}

/// Where the provider is, and whether the file says so.
fn address(params: &Section<'_>, provider: &Provider, named: Option<Url>) -> Result<(Url, bool)> {
    if provider.format == Format::Foreign {
        let reason = format!(
            "the provider {} has a format of its own, which is not spoken here",
            provider.name
        );
        return Err(NoTarget::LeftOut("model", reason));
    }
    if let Some(url) = named {
        return Ok((url, true));
    }
    if let Some(text) = variable(params, provider.base_variables) {
        let wrong = || {
            params.error(
                "api_base",
                &format!(
                    "is missing, and {} is no URL",
                    provider.base_variables.join(" or ")
                ),
            )
        };
        return Ok((url(&text).ok_or_else(wrong)?, false));
    }
    let (home, missing) = home(params, provider);
    url(&home).map(|url| (url, false)).ok_or_else(|| {
        let variables: Vec<&str> = provider
            .base_variables
            .iter()
            .copied()
            .chain(missing)
            .collect();
        let or = match &variables[..] {
            [] => String::new(),
            variables => format!(
                ", and so is the environment variable {}",
                variables.join(" or ")
            ),
        };
        NoTarget::LeftOut(
            "api_base",
            format!(
                "is missing{or}; the provider {} needs the URL of its server",
                provider.name
            ),
        )
    })
}

/// The provider's own address, and a variable of the environment that it lacks.
fn home(params: &Section<'_>, provider: &Provider) -> (String, Option<&'static str>) {
    let parts = provider.base.split_once('{');
    let parts = parts.and_then(|(start, rest)| Some((start, rest.split_once('}')?)));
    let Some((start, (name, end))) = parts else {
        return (provider.base.to_owned(), None);
    };
    match variable(params, &[name]) {
        Some(value) => (format!("{start}{}{end}", value.trim()), None),
        None => (String::new(), Some(name)),
    }
}

/// Whether a key of the environment, which belongs to the provider, may be sent to this address.
fn keeps_to_its_own(provider: &Provider, base: &Url, of_file: bool) -> bool {
    let own = Url::parse(provider.base).ok();
    !of_file
        || own.is_none_or(|own| own.host_str() == base.host_str() && own.scheme() == base.scheme())
}

/// The first variable that is set and not empty.
pub(super) fn variable(params: &Section<'_>, names: &[&str]) -> Option<String> {
    let mut values = names.iter().filter_map(|name| params.file.env.get(name));
    values.find(|value| !value.trim().is_empty())
}

/// As LiteLLM, which adds `/v1/messages` to an address without it. An address that ends with `/v1` is taken as well.
pub(super) fn anthropics_base(text: &str) -> String {
    let text = text.strip_suffix("/messages").unwrap_or(text);
    let root = text.strip_suffix("/v1").unwrap_or(text);
    format!("{root}/v1")
}

/// What endpoints' paths follow.
fn api_base(provider: &Provider, base: &Url) -> Result<String> {
    let text = base.as_str().trim_end_matches('/');
    // Some files name the endpoint.
    let text = text.strip_suffix("/chat/completions").unwrap_or(text);
    let own = Url::parse(provider.base).ok();
    let at_home = own.is_some_and(|own| own.host_str() == base.host_str());
    match provider.format {
        Format::Anthropic => Ok(anthropics_base(text)),
        Format::Gemini if at_home => Ok(provider.base.to_owned()),
        Format::Gemini if !text.ends_with("/openai") => {
            let reason = "a deployment of gemini at another address speaks Gemini's own format, which is not spoken here";
            Err(NoTarget::LeftOut("api_base", reason.into()))
        }
        // The path that Cloudflare had before.
        _ if provider.name == "cloudflare" && text.ends_with("/ai/run") => {
            Ok(format!("{}v1", text.strip_suffix("run").unwrap_or(text)))
        }
        Format::InV1 if !text.ends_with("/v1") => Ok(format!("{text}/v1")),
        Format::UnderV1 => {
            let ends = ["/api/generate", "/api/chat", "/api", "/v1"];
            let root = ends
                .iter()
                .find_map(|end| text.strip_suffix(end))
                .unwrap_or(text);
            Ok(format!("{root}/v1"))
        }
        _ => Ok(text.to_owned()),
    }
}
