//! The body of a request about what a provider keeps: which provider it names, and what goes to the upstream.

use bytestring::ByteString;

use super::{
    Fields, check_depth, missing, not_utf8, object, payload::Payload, steering, steering::Steering,
};
use crate::{
    problem::Problem,
    request::form::Form,
    resource::{PROVIDER, Resource, ResourceCall},
};

/// LiteLLM's ways to choose an account by a model, or to keep a file elsewhere.
const NOT_SERVED: [&str; 3] = ["model", "target_model_names", "target_storage"];

/// A body that was read.
#[derive(Debug)]
pub(crate) struct ResourceBody {
    /// `custom_llm_provider`.
    pub(crate) provider: Option<String>,
    pub(crate) payload: Payload,
}

impl ResourceBody {
    /// Reads a body. Fields that steer the gateway are taken out of it, or refused; all others pass as they are.
    pub(crate) fn of(call: &ResourceCall) -> Result<Self, Problem> {
        let resource = call.resource;
        let new = call.id.is_none() && call.method == http::Method::POST;
        if !new && call.body.is_empty() {
            return Ok(Self {
                provider: None,
                payload: Payload::Empty,
            });
        }
        if new && resource.is_form() {
            return Self::of_form(call);
        }
        let text = ByteString::try_from(call.body.clone()).map_err(|_| not_utf8())?;
        let fields = Fields::of(&text)?;
        check_depth(&text)?;
        let provider = fields.get(PROVIDER).map(serde_json::from_str);
        let provider = provider.transpose().map_err(|_| not_a_text())?;
        let mut kept: Vec<(ByteString, ByteString)> = (fields.fields.iter())
            .map(|(name, json)| (ByteString::from(&**name), text.slice_ref(json)))
            .collect();
        if new {
            check(resource, &kept)?;
        }
        // What it asks of the queue means nothing here.
        Steering::take(&mut kept)?;
        kept.retain(|(name, _)| steering::passes(name));
        let kept = kept.iter().map(|(name, json)| (&**name, &**json));
        Ok(Self {
            provider,
            payload: Payload::Json(object(kept)),
        })
    }

    fn of_form(call: &ResourceCall) -> Result<Self, Problem> {
        let form = Form::read(call.body.clone(), call.content_type.as_ref())?;
        let fields = form.fields()?.into_iter();
        let mut fields = fields
            .map(|(name, json)| (name.into(), json.into()))
            .collect::<Vec<(ByteString, ByteString)>>();
        check(call.resource, &fields)?;
        Steering::take(&mut fields)?;
        let provider = form.text_named(PROVIDER)?;
        Ok(Self {
            provider: provider.filter(|name| !name.is_empty()),
            payload: Payload::Form {
                content_type: form.content_type().clone(),
                pieces: form.passed(),
            },
        })
    }
}

/// What a new object has to have, and what LiteLLM would do otherwise with.
fn check(resource: Resource, fields: &[(ByteString, ByteString)]) -> Result<(), Problem> {
    let asks = |wanted: &str| {
        let found = fields.iter().find(|(name, _)| &**name == wanted);
        found.is_some_and(|(_, json)| &**json != "null")
    };
    for name in NOT_SERVED {
        if asks(name) && !(name == "model" && resource.has_model()) {
            return Err(by_model(name));
        }
    }
    let mut needs = resource.needs().iter();
    match needs.find(|name| !asks(name)) {
        Some(name) => Err(missing(name)),
        None => Ok(()),
    }
}

/// Accounts are chosen by their provider only.
pub(crate) fn by_model(name: &'static str) -> Problem {
    let message = format!(
        "'{name}' is not served here: an account is chosen by its provider only, as '{PROVIDER}'"
    );
    Problem::invalid(name, message)
}

/// The parameter of a query that is not served, if there is one.
pub(crate) fn not_served(name: &str) -> Option<&'static str> {
    NOT_SERVED.into_iter().find(|known| *known == name)
}

fn not_a_text() -> Problem {
    Problem::invalid(
        PROVIDER,
        format!("Invalid type for '{PROVIDER}': expected a string"),
    )
}
