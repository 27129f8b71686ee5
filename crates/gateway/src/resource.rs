//! What a provider keeps for its clients: files, batches, fine-tuning jobs. They are called without a model and without
//! the queue. One row of the table is one kind of them.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method};
use serde_json::{Value, json};

use crate::{Events, KeyPolicy, NoEvents, Setting};

/// A kind of objects that a provider keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource {
    /// `/v1/files`: a new one is a form with `file` and `purpose`.
    Files,
    /// `/v1/batches`: needs `input_file_id`, `endpoint` and `completion_window`.
    Batches,
    /// `/v1/fine_tuning/jobs`: needs `model` and `training_file`.
    FineTuningJobs,
}

struct Row {
    resource: Resource,
    /// After `/v1` here, and after an upstream's base URL.
    path: &'static str,
    /// The section of the file whose accounts are called.
    settings: &'static str,
    /// A new one is a `multipart/form-data` body instead of a JSON object.
    form: bool,
    /// Fields that a new one has to have.
    needs: &'static [&'static str],
    /// `model` is a field of the upstream's. Elsewhere LiteLLM would choose the account by it.
    has_model: bool,
    /// It makes the provider call or train models, which a key's `models` cannot be compared with.
    calls_models: bool,
    /// What can be done with one of them: the method, and what follows its id.
    actions: &'static [(Method, &'static str)],
}

const JOB: &[(Method, &str)] = &[(Method::GET, ""), (Method::POST, "/cancel")];

const TABLE: &[Row] = &[
    Row {
        resource: Resource::Files,
        path: "/files",
        settings: "files_settings",
        form: true,
        needs: &["file", "purpose"],
        has_model: false,
        calls_models: false,
        actions: &[
            (Method::GET, ""),
            (Method::DELETE, ""),
            (Method::GET, "/content"),
        ],
    },
    Row {
        resource: Resource::Batches,
        path: "/batches",
        // They name files of that account.
        settings: "files_settings",
        form: false,
        needs: &["input_file_id", "endpoint", "completion_window"],
        has_model: false,
        calls_models: true,
        actions: JOB,
    },
    Row {
        resource: Resource::FineTuningJobs,
        path: "/fine_tuning/jobs",
        settings: "finetune_settings",
        form: false,
        needs: &["model", "training_file"],
        has_model: true,
        calls_models: true,
        actions: JOB,
    },
];

/// The provider where a request names none, as in LiteLLM.
pub(crate) const DEFAULT_PROVIDER: &str = "openai";

/// A field and a parameter of the query that names the provider.
pub(crate) const PROVIDER: &str = "custom_llm_provider";

impl Resource {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.resource)
    }

    /// Its path without `/v1`.
    pub fn path(self) -> &'static str {
        self.row().path
    }

    /// Whether a new one is a form (`multipart/form-data`) instead of a JSON object.
    pub fn is_form(self) -> bool {
        self.row().form
    }

    /// What can be done with one of them: the method, and what follows its id in the path.
    pub fn actions(self) -> &'static [(Method, &'static str)] {
        self.row().actions
    }

    /// The JSON Schema of a new one: what is checked here. All else passes as it is.
    pub fn body_schema(self) -> Value {
        let needs = self.needs().iter();
        let needed = needs.map(|name| ((*name).to_owned(), json!({"type": "string"})));
        let mut properties: serde_json::Map<_, _> = needed.collect();
        let provider =
            json!({"type": "string", "description": "The account's provider; openai by default."});
        properties.insert(PROVIDER.into(), provider);
        json!({
            "type": "object",
            "properties": properties,
            "required": self.needs(),
            "additionalProperties": true,
        })
    }

    /// The sections that name accounts.
    pub(crate) fn settings() -> impl Iterator<Item = &'static str> {
        let mut all: Vec<_> = TABLE.iter().map(|row| row.settings).collect();
        all.dedup();
        all.into_iter()
    }

    /// The section whose accounts are called.
    pub(crate) fn of_settings(self) -> &'static str {
        self.row().settings
    }

    pub(crate) fn needs(self) -> &'static [&'static str] {
        self.row().needs
    }

    pub(crate) fn has_model(self) -> bool {
        self.row().has_model
    }

    pub(crate) fn calls_models(self) -> bool {
        self.row().calls_models
    }

    fn row(self) -> &'static Row {
        // The rows stand in the order of the variants, as a test says.
        &TABLE[self as usize]
    }
}

/// One request about what a provider keeps, as it came in.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ResourceCall {
    /// What it is about.
    pub resource: Resource,
    /// GET lists, POST makes a new one; with an id one of [`Resource::actions`].
    pub method: Method,
    /// Which of them; `None`: all, or a new one.
    pub id: Option<String>,
    /// What follows the id in the path, such as `/content`.
    pub action: &'static str,
    /// The provider, where path or headers name it: it comes before the query's and the body's.
    pub provider: Option<String>,
    /// What stands behind the `?` of its path.
    pub query: Option<String>,
    /// The body as it was sent.
    pub body: Bytes,
    /// The body's `content-type`: a form's has its boundary.
    pub content_type: Option<HeaderValue>,
    /// The time until its answer begins.
    pub timeout: Setting<std::time::Duration>,
    /// The content codings that the answer's bytes may have, as a list like `gzip, br;q=0.5`; `None`: none.
    pub codings: Option<String>,
    /// The caller's key, where keys are configured.
    pub key: Option<KeyPolicy>,
    /// Identifies the call in answers and logs.
    pub call_id: String,
    /// Receives what happens, for metrics.
    pub events: Arc<dyn Events>,
}

impl ResourceCall {
    /// A request without an id and without a body: `GET` lists.
    pub fn new(resource: Resource, method: Method) -> Self {
        Self {
            resource,
            method,
            id: None,
            action: "",
            provider: None,
            query: None,
            body: Bytes::new(),
            content_type: None,
            timeout: Setting::Unset,
            codings: None,
            key: None,
            call_id: uuid::Uuid::new_v4().to_string(),
            events: Arc::new(NoEvents),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_has_its_row_and_paths_are_unique() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.resource as usize, index, "{}", row.path);
            assert!(row.path.starts_with('/') && !row.path.ends_with('/'));
            assert!(TABLE[..index].iter().all(|other| other.path != row.path));
            assert!(!crate::Endpoint::all().any(|endpoint| endpoint.path() == row.path));
        }
        let settings: Vec<_> = Resource::settings().collect();
        assert_eq!(settings, ["files_settings", "finetune_settings"]);
    }
}
