//! Between OpenAI's chat completions and Anthropic's messages, for upstreams that speak only one of them.
//!
//! Requests and answers that a client and its upstream have in the same format never come here.

mod chat_answer;
mod chat_events;
mod content;
pub(crate) mod envelope;
mod messages_answer;
mod messages_events;
mod reasoning;
pub(crate) mod response;
mod shared;
mod to_chat;
mod to_messages;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_events;

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{
    Endpoint, GroupSettings,
    codec::sse::Event,
    config::{DeploymentSettings, Target},
    problem::Problem,
    request::{Fields, Request, edits::Edits},
};

/// What a request is translated to. Its answer is translated back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Translation {
    /// A chat to messages.
    ToMessages,
    /// Messages to a chat.
    ToChat,
}

/// Deployments of a group that would have to be called in the other format, in which a request cannot be written.
#[derive(Debug, Default)]
pub(crate) struct Untranslatable {
    /// By their ids.
    deployments: Vec<String>,
    problem: Option<Problem>,
}

impl Untranslatable {
    /// An error if that is so for every deployment that serves the endpoint.
    pub(crate) fn find(
        request: &Request<'_>,
        group: &GroupSettings,
        model: &str,
    ) -> Result<Self, Problem> {
        let mut found = Self::default();
        let mut translated: Vec<&Edits> = Vec::new();
        let mut others = false;
        for deployment in &group.deployments {
            if deployment.lacks(request.endpoint).is_some() {
                continue;
            }
            let translation = match &deployment.target {
                Target::Upstream(upstream) => upstream.dialect.translation(request.endpoint),
                Target::Mock { .. } => None,
            };
            let Some(translation) = translation else {
                others = true;
                continue;
            };
            // Most deployments of a group change the same fields.
            if translated.contains(&&deployment.edits) {
                continue;
            }
            let model = group.model_at(deployment, model);
            match translation.body(request, &model, &deployment.edits, true) {
                Ok(_) => translated.push(&deployment.edits),
                Err(problem) => {
                    found.deployments.push(deployment.state_id.clone());
                    found.problem = Some(problem);
                }
            }
        }
        match found.problem {
            Some(problem) if !others && translated.is_empty() => Err(problem),
            problem => Ok(Self { problem, ..found }),
        }
    }

    /// Why a deployment cannot be sent the request.
    pub(crate) fn at(&self, deployment: &DeploymentSettings) -> Option<&Problem> {
        let problem = self.problem.as_ref()?;
        let of_it = self.deployments.contains(&deployment.state_id);
        of_it.then_some(problem)
    }
}

/// What the translation of an answer needs to know of its request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked {
    /// Whether a chat wants the usage at the end of its stream.
    pub(crate) usage: bool,
    /// Input tokens, estimated from its text.
    pub(crate) input_tokens: u64,
}

impl Translation {
    /// The endpoint that the upstream is called at.
    pub(crate) fn target(self) -> Endpoint {
        match self {
            Self::ToMessages => Endpoint::Messages,
            Self::ToChat => Endpoint::ChatCompletions,
        }
    }

    /// The request's body for the upstream. A deployment's defaults and drops are those of a chat.
    pub(crate) fn body(
        self,
        request: &Request<'_>,
        model: &str,
        edits: &Edits,
        usage_in_streams: bool,
    ) -> Result<Bytes, Problem> {
        let mut body = match self {
            Self::ToMessages => {
                let fields = edits.applied(request.endpoint, model, &request.fields);
                to_messages::request(values(fields)?, model, edits.drop_params)?
            }
            Self::ToChat => {
                let own = request.fields.fields.iter();
                let own = own.map(|(name, json)| (Cow::Borrowed(name.as_ref()), *json));
                let chat = to_chat::request(values(own)?, usage_in_streams, edits.drop_params)?;
                edited(&chat, model, edits)?
            }
        };
        body.insert("model".into(), model.into());
        Ok(Bytes::from(Value::Object(body).to_string()))
    }

    /// A whole answer in the format of the client; `None`: it is no answer.
    pub(crate) fn answer(self, answer: &[u8]) -> Option<Bytes> {
        let answer: Value = serde_json::from_slice(answer).ok()?;
        let translated = match self {
            Self::ToMessages => chat_answer::answer(&answer)?,
            Self::ToChat => messages_answer::answer(&answer)?,
        };
        Some(Bytes::from(translated.to_string()))
    }

    /// What translates an answer's events.
    pub(crate) fn events(self, asked: Asked) -> EventTranslator {
        match self {
            Self::ToMessages => EventTranslator::ToChat(chat_events::ChatEvents::new(asked)),
            Self::ToChat => {
                EventTranslator::ToMessages(Box::new(messages_events::MessagesEvents::new(asked)))
            }
        }
    }
}

/// Fields with their values; our own are not among them.
fn values<'a, V: AsRef<str>>(
    fields: impl IntoIterator<Item = (Cow<'a, str>, V)>,
) -> Result<Map<String, Value>, Problem> {
    let mut values = Map::new();
    for (name, json) in fields {
        let json = json.as_ref();
        if matches!(name.as_ref(), "priority" | "timeout" | "model") || json == "null" {
            continue;
        }
        let value = serde_json::from_str(json).map_err(|_| Problem::Invalid {
            message: format!(
                "Invalid value for '{name}': it has a number or a text that cannot be read"
            ),
            param: None,
        })?;
        values.insert(name.into_owned(), value);
    }
    Ok(values)
}

/// A chat with the changes of its deployment.
fn edited(
    chat: &Map<String, Value>,
    model: &str,
    edits: &Edits,
) -> Result<Map<String, Value>, Problem> {
    let texts: Vec<(&String, String)> = chat
        .iter()
        .map(|(name, value)| (name, value.to_string()))
        .collect();
    let fields = texts
        .iter()
        .map(|(name, json)| (Cow::Borrowed(name.as_str()), json.as_str()));
    let fields = Fields {
        fields: fields.collect(),
        too_many: false,
    };
    values(edits.applied(Endpoint::ChatCompletions, model, &fields))
}

/// The upstream's stream ended, or cannot be read: what has been sent is no whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BrokenOff(pub(crate) &'static str);

/// Translates the events of one answer.
#[derive(Debug)]
pub(crate) enum EventTranslator {
    ToChat(chat_events::ChatEvents),
    ToMessages(Box<messages_events::MessagesEvents>),
}

impl EventTranslator {
    /// Takes an event, and adds what it comes to.
    pub(crate) fn feed(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<(), BrokenOff> {
        match self {
            Self::ToChat(events) => events.feed(event, out),
            Self::ToMessages(events) => events.feed(event, out),
        }
    }

    /// The upstream's stream is over.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) -> Result<(), BrokenOff> {
        match self {
            Self::ToChat(events) => events.end(out),
            Self::ToMessages(events) => events.end(out),
        }
    }
}

fn invalid(param: &'static str, message: impl Into<String>) -> Problem {
    Problem::invalid(param, message)
}
