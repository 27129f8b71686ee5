//! An HTTP server that calls go to: its address, its key, and what it serves.

use std::{fmt, sync::Arc};

use http::{HeaderMap, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};

pub use crate::provider::{aws::AwsKeys, tokens::TokenSource};
use crate::{
    Endpoint,
    config::plan,
    provider::{hosts, openai_models},
    translate::{Format, Translation},
};

/// All but RFC 3986's unreserved characters.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Versions of Claude's names stand after `@` there.
const VERTEX_NAME: &AsciiSet = &UNRESERVED.remove(b'@');

/// How Anthropic's OAuth tokens begin.
const OAUTH: &str = "sk-ant-oat";

/// An HTTP server that models are called at.
#[derive(Clone)]
#[non_exhaustive]
pub struct Upstream {
    /// Without a slash at its end; an endpoint's path follows.
    pub api_base: String,
    /// Which format its requests and answers have.
    pub dialect: Dialect,
    /// Whether a `*` of the base URL's path stands for the model.
    pub model_in_path: bool,
    /// What stands behind the `?` of each call's URL.
    pub query: Option<String>,
    /// Its key or token.
    pub api_key: Option<SecretString>,
    /// Where its tokens come from, in the place of a key.
    pub tokens: Option<TokenSource>,
    /// What its calls are signed with, in the place of a key.
    pub aws: Option<Box<AwsKeys>>,
    /// How that is sent.
    pub key_header: KeyHeader,
    /// Headers that each call carries besides.
    pub headers: HeaderMap,
    /// What it can be asked for.
    pub serves: Serves,
    /// Whether it may be asked to report the usage of a stream (`stream_options`).
    pub usage_in_streams: bool,
    /// How its certificate is verified.
    pub verify: Verify,
}

/// Its URL may hold a user and password, and its query a key.
impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("api_base", &plan::public(&self.api_base))
            .field("dialect", &self.dialect)
            .field("model_in_path", &self.model_in_path)
            .field("query", &self.query.as_ref().map(|_| "***"))
            .field("api_key", &self.api_key)
            .field("tokens", &self.tokens)
            .field("aws", &self.aws)
            .field("key_header", &self.key_header)
            .field("headers", &self.headers)
            .field("serves", &self.serves)
            .field("usage_in_streams", &self.usage_in_streams)
            .field("verify", &self.verify)
            .finish()
    }
}

/// How an upstream's certificate is verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verify {
    /// Against the system's CAs.
    #[default]
    System,
    /// Against these, in PEM.
    Only(Arc<str>),
    /// Not at all: whoever answers is believed.
    Nothing,
}

/// Which format an upstream speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// OpenAI's.
    #[default]
    OpenAi,
    /// OpenAI's, of which chats are called by the Responses API only.
    Responses,
    /// One of the two before, as the name of the model says: that of a wildcard.
    ByModel,
    /// Anthropic's: its Messages API.
    Anthropic,
    /// Anthropic's messages at Vertex AI, where the model stands in the path.
    Vertex,
    /// Vertex AI's method `predict`, for embeddings.
    Predict,
    /// Anthropic's messages at Bedrock, where the model stands in the path, and streams are framed in AWS's way.
    Bedrock,
    /// Bedrock's Converse API: the model stands in the path, and streams are framed in AWS's way.
    Converse,
    /// Embeddings of Amazon's Titan models at Bedrock, where the model stands in the path.
    Titan,
    /// Embeddings of Cohere's models at Bedrock, where the model stands in the path.
    Cohere,
}

impl Dialect {
    /// What has to be translated for a call of this endpoint.
    fn translation(self, endpoint: Endpoint) -> Option<Translation> {
        let client = match endpoint {
            Endpoint::ChatCompletions => Format::Chat,
            Endpoint::Messages => Format::Messages,
            Endpoint::Embeddings => Format::Embeddings,
            _ => return None,
        };
        let upstream = match self {
            Self::Titan => Format::Titan,
            Self::Cohere => Format::Cohere,
            Self::Predict => Format::Predict,
            _ if client == Format::Embeddings => return None,
            Self::OpenAi | Self::ByModel => Format::Chat,
            Self::Responses => Format::Responses,
            Self::Anthropic | Self::Vertex | Self::Bedrock => Format::Messages,
            Self::Converse => Format::Converse,
        };
        (client != upstream).then_some(Translation { client, upstream })
    }
}

/// How a key is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyHeader {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// `api-key: KEY`.
    ApiKey,
    /// `x-api-key: KEY`.
    XApiKey,
}

/// What a deployment can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Serves {
    /// Every endpoint, as far as is known here.
    All,
    /// These endpoints.
    Only(&'static [Endpoint]),
}

impl Serves {
    pub(super) fn includes(self, endpoint: Endpoint) -> bool {
        match self {
            Self::All => true,
            Self::Only(endpoints) => endpoints.contains(&endpoint),
        }
    }
}

impl Upstream {
    /// Where the model stands in a path that is to name it.
    const MODEL: &str = "/*";

    /// A server that takes its key as a bearer token and serves every endpoint.
    pub fn new(api_base: impl Into<String>, api_key: Option<SecretString>) -> Self {
        Self {
            api_base: api_base.into(),
            dialect: Dialect::OpenAi,
            query: None,
            model_in_path: false,
            api_key,
            tokens: None,
            aws: None,
            key_header: KeyHeader::Bearer,
            headers: HeaderMap::new(),
            serves: Serves::All,
            usage_in_streams: true,
            verify: Verify::System,
        }
    }

    pub(crate) fn has_key(&self) -> bool {
        // A password in the URL is a key, too, and a header may hold one.
        let url = Url::parse(&self.api_base).ok();
        self.api_key.is_some()
            || self.tokens.is_some()
            || self.aws.is_some()
            || !self.headers.is_empty()
            || url.is_some_and(|url| !url.username().is_empty() || url.password().is_some())
    }

    /// Its base URL without user, password and query.
    pub(crate) fn public_base(&self) -> String {
        plan::public(&self.api_base)
    }

    /// `host:port`; nothing of it is secret.
    pub(crate) fn host(&self) -> Option<String> {
        let url = Url::parse(&self.api_base).ok()?;
        Some(format!(
            "{}:{}",
            hosts::host_of(&url)?,
            url.port_or_known_default()?
        ))
    }

    pub(super) fn serves(&self, endpoint: Endpoint) -> bool {
        match (endpoint, self.dialect) {
            // It is answered by a chat.
            (Endpoint::Messages, Dialect::OpenAi | Dialect::ByModel) => {
                self.serves.includes(Endpoint::ChatCompletions)
            }
            (
                Endpoint::ChatCompletions | Endpoint::Messages | Endpoint::Responses,
                Dialect::Responses,
            ) => self.serves.includes(Endpoint::Responses),
            (_, Dialect::Responses) => false,
            (Endpoint::CountTokens, Dialect::Anthropic) => self.serves.includes(endpoint),
            (Endpoint::CountTokens, _) => false,
            _ => self.serves.includes(endpoint),
        }
    }

    /// The format that it speaks for a model. `model`: what it calls that.
    pub(crate) fn dialect(&self, model: &str) -> Dialect {
        match self.dialect {
            Dialect::ByModel if openai_models::only_responses(model) => Dialect::Responses,
            Dialect::ByModel => Dialect::OpenAi,
            dialect => dialect,
        }
    }

    /// What has to be translated for a call of this endpoint.
    pub(crate) fn translation(&self, endpoint: Endpoint, model: &str) -> Option<Translation> {
        self.dialect(model).translation(endpoint)
    }

    /// Whether a call of this endpoint is made in Anthropic's format.
    pub(crate) fn is_anthropic(&self, endpoint: Endpoint, model: &str) -> bool {
        match self.translation(endpoint, model) {
            Some(translation) => translation.upstream == Format::Messages,
            None => endpoint.is_anthropic(),
        }
    }

    /// Whether its key is one of Anthropic's OAuth tokens, which Anthropic's own tools have instead of a key.
    pub(crate) fn has_oauth_token(&self) -> bool {
        let key = self.api_key.as_ref().map(|key| key.expose_secret());
        let header = self.headers.get(header::AUTHORIZATION);
        let token = header
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.strip_prefix("Bearer "));
        let begins = |token: &str| token.starts_with(OAUTH);
        self.dialect == Dialect::Anthropic && token.or(key).is_some_and(begins)
    }

    /// How its key is sent.
    pub(crate) fn key_header(&self) -> KeyHeader {
        if self.has_oauth_token() {
            KeyHeader::Bearer
        } else {
            self.key_header
        }
    }

    /// Whether a call's URL depends on nothing but its endpoint.
    pub(crate) fn has_fixed_urls(&self) -> bool {
        match self.dialect {
            Dialect::Vertex
            | Dialect::Bedrock
            | Dialect::Converse
            | Dialect::Titan
            | Dialect::Cohere
            | Dialect::Predict
            | Dialect::ByModel => false,
            Dialect::OpenAi | Dialect::Responses | Dialect::Anthropic => !self.model_in_path,
        }
    }

    /// Where a call goes. `model`: what the upstream calls the model.
    pub(crate) fn url(&self, endpoint: Endpoint, model: &str, stream: bool) -> String {
        let named = |set| utf8_percent_encode(model, set);
        match (self.dialect, stream) {
            (Dialect::Vertex, true) => {
                return format!("{}/{}:streamRawPredict", self.api_base, named(VERTEX_NAME));
            }
            (Dialect::Vertex, false) => {
                return format!("{}/{}:rawPredict", self.api_base, named(VERTEX_NAME));
            }
            (Dialect::Predict, _) => {
                return format!("{}/{}:predict", self.api_base, named(VERTEX_NAME));
            }
            (Dialect::Bedrock | Dialect::Converse | Dialect::Titan | Dialect::Cohere, stream) => {
                let call = match (self.dialect, stream) {
                    (Dialect::Converse, false) => "converse",
                    (Dialect::Converse, true) => "converse-stream",
                    (Dialect::Bedrock, true) => "invoke-with-response-stream",
                    _ => "invoke",
                };
                return format!("{}/model/{}/{call}", self.api_base, named(UNRESERVED));
            }
            _ => {}
        }
        let translation = self.translation(endpoint, model);
        let endpoint = translation
            .and_then(Translation::target)
            .unwrap_or(endpoint);
        let mut url = match self.api_base.split_once(Self::MODEL) {
            // Azure's, where a wildcard leaves the deployment to the request.
            Some((start, end)) if self.model_in_path => {
                let model = utf8_percent_encode(model, NON_ALPHANUMERIC);
                format!("{start}/{model}{end}{}", endpoint.path())
            }
            _ => format!("{}{}", self.api_base, endpoint.path()),
        };
        if let Some(query) = &self.query {
            url.push('?');
            url.push_str(query);
        }
        url
    }
}
