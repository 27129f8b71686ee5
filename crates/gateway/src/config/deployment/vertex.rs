//! Vertex AI: its OpenAI-compatible endpoint of a project and a location, or Claude or embeddings there, with Google's tokens.

use reqwest::Url;
use secrecy::SecretString;
use serde::Deserialize;

use super::target::{NoTarget, variable};
use crate::{
    config::{Dialect, Upstream, read::Section},
    provider::tokens::{PROJECT, TokenSource, is_project},
};

type Result<T> = std::result::Result<T, NoTarget>;

/// What follows a project's location: the OpenAI-compatible endpoint, or Anthropic's models.
const OPENAI: &str = "/endpoints/openapi";
const CLAUDE: &str = "/publishers/anthropic/models";
const GOOGLE: &str = "/publishers/google/models";

/// How names of models begin that are called by `predict`.
const EMBEDDINGS: [&str; 4] = [
    "text-embedding-",
    "text-multilingual-embedding-",
    "textembedding-gecko",
    "gemini-embedding-001",
];

/// LiteLLM's, where nothing names one.
const LOCATION: &str = "us-central1";

/// What a service account's file must have.
#[derive(Deserialize)]
struct Account {
    project_id: Option<String>,
    #[serde(rename = "client_email")]
    _client_email: String,
    #[serde(rename = "private_key")]
    _private_key: String,
    #[serde(rename = "token_uri")]
    _token_uri: String,
}

/// Completes the upstream of a `vertex_ai/` deployment. Returns what the model is called there.
pub(super) fn vertex(
    params: &Section<'_>,
    base: Option<Url>,
    model: &str,
    upstream: &mut Upstream,
) -> Result<String> {
    let claude = claude(model);
    let embeddings = EMBEDDINGS.iter().any(|begin| model.starts_with(begin));
    let mut model = match claude {
        Some(claude) => claude.to_owned(),
        None if embeddings => model.to_owned(),
        None => name(model)?,
    };
    let end = if claude.is_some() {
        upstream.dialect = Dialect::Vertex;
        CLAUDE
    } else if embeddings {
        upstream.dialect = Dialect::Predict;
        GOOGLE
    } else {
        OPENAI
    };
    let account = account(params)?;
    let environment = account_of_environment(params);
    let (project, location) = place(params, account.as_ref(), environment.as_ref())?;
    let account = account.or(environment);
    if let (Some(base), Some(_)) = (&base, claude)
        && let Some((_, named)) = base.path().split_once("/publishers/anthropic/models/")
    {
        // The address names the model.
        named
            .split(':')
            .next()
            .unwrap_or(named)
            .clone_into(&mut model);
    }
    upstream.api_base = match base {
        Some(base) => at(&base, &project, &location, end)?,
        None => format!("{}/{}{end}", host(&location), path(&project, &location)),
    };
    // LiteLLM does not send `api_key` to Vertex AI either.
    upstream.api_key = None;
    upstream.tokens = Some(TokenSource::google(account.map(|(json, _)| json)));
    Ok(model)
}

/// The name of a model of Anthropic's.
fn claude(model: &str) -> Option<&str> {
    let model = model.strip_prefix("anthropic/").unwrap_or(model);
    model.starts_with("claude").then_some(model)
}

/// `gemini-...` is Google's; others name their publisher.
fn name(model: &str) -> Result<String> {
    if model.starts_with("gemini") {
        return Ok(format!("google/{model}"));
    }
    if model.starts_with('*') {
        let reason = "leaves open which format its models have: expected a name such as gemini-*, claude-* or text-embedding-*";
        return Err(NoTarget::LeftOut("model", reason.into()));
    }
    if !model.contains('/') {
        let reason = "Vertex AI's OpenAI-compatible endpoint has Gemini, and models with their publisher's name before a slash";
        return Err(NoTarget::LeftOut("model", reason.into()));
    }
    Ok(model.to_owned())
}

/// The JSON of `vertex_credentials`, which is it or names its file; `None`: the process's own credentials.
fn account(params: &Section<'_>) -> Result<Option<(SecretString, Account)>> {
    let key = "vertex_credentials";
    let left_out = |reason: String| NoTarget::LeftOut(key, reason);
    let Some(text) = params
        .json_or_text(key)?
        .filter(|text| !text.trim().is_empty())
    else {
        return Ok(None);
    };
    let json = if text.trim_start().starts_with('{') {
        text
    } else {
        let read = std::fs::read_to_string(text.trim());
        read.map_err(|error| left_out(format!("the file cannot be read: {error}")))?
    };
    // What is wrong is not shown: the error may quote the key.
    let account: Account = serde_json::from_str(&json).map_err(|_| {
        left_out("expected the JSON of a service account, or the name of its file".into())
    })?;
    Ok(Some((json.into(), account)))
}

/// `GOOGLE_APPLICATION_CREDENTIALS` may be a variable of the file. What is no service account is left to Google's library.
fn account_of_environment(params: &Section<'_>) -> Option<(SecretString, Account)> {
    let file = variable(params, &["GOOGLE_APPLICATION_CREDENTIALS"])?;
    let json = std::fs::read_to_string(file.trim()).ok()?;
    let account = serde_json::from_str(&json).ok()?;
    Some((json.into(), account))
}

fn place(
    params: &Section<'_>,
    account: Option<&(SecretString, Account)>,
    environment: Option<&(SecretString, Account)>,
) -> Result<(String, String)> {
    let project = match params.name("vertex_project")? {
        Some(project) => Some(project),
        None => params.name("vertex_ai_project")?,
    };
    let project =
        project.or_else(|| variable(params, &["VERTEXAI_PROJECT", "DEFAULT_VERTEXAI_PROJECT"]));
    let project = project.or_else(|| account?.1.project_id.clone());
    // As Google's own libraries, which LiteLLM asks. They ask the credentials last, as is done here at the first call.
    let project = project.or_else(|| variable(params, &["GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"]));
    let project = project.or_else(|| environment?.1.project_id.clone());
    let project = project.unwrap_or_else(|| PROJECT.into());
    let location = match params.name("vertex_location")? {
        Some(location) => Some(location),
        None => params.name("vertex_ai_location")?,
    };
    let location = location.or_else(|| variable(params, &["VERTEXAI_LOCATION", "VERTEX_LOCATION"]));
    let location = location.unwrap_or_else(|| LOCATION.into());
    for (key, value) in [("vertex_project", &project), ("vertex_location", &location)] {
        if !is_project(value) {
            return Err(params.error(key, "expected letters, digits and `-`").into());
        }
    }
    Ok((project, location))
}

fn path(project: &str, location: &str) -> String {
    format!("v1/projects/{project}/locations/{location}")
}

fn host(location: &str) -> String {
    match location {
        "global" => "https://aiplatform.googleapis.com".into(),
        "eu" | "us" => format!("https://aiplatform.{location}.rep.googleapis.com"),
        location => format!("https://{location}-aiplatform.googleapis.com"),
    }
}

/// Another address: a host, or the URL of a model there.
fn at(base: &Url, project: &str, location: &str, end: &str) -> Result<String> {
    let text = base.as_str().trim_end_matches('/');
    if let Some((root, _)) = text.split_once(OPENAI) {
        return Ok(format!("{root}{end}"));
    }
    if let Some((root, _)) = text.split_once("/publishers/")
        && root.contains("/locations/")
    {
        return Ok(format!("{root}{end}"));
    }
    if base.path() != "/" {
        let reason = "expected the address of Vertex AI's host, or of a model there (.../projects/P/locations/L/publishers/...)";
        return Err(NoTarget::LeftOut("api_base", reason.into()));
    }
    Ok(format!("{text}/{}{end}", path(project, location)))
}
