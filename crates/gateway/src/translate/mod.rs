//! Between the formats of clients, which are OpenAI's chat completions and Anthropic's messages, and those of upstreams.
//!
//! Every translation of those passes through a chat. Embeddings come here, too. Requests and answers that a client and its upstream have in
//! the same format never come here.

mod chat_answer;
mod chat_events;
mod chunks;
mod content;
mod converse;
mod embeddings;
pub(crate) mod envelope;
mod messages_answer;
mod messages_events;
mod reasoning;
pub(crate) mod response;
mod responses;
mod schema;
mod shared;
mod to_chat;
mod to_messages;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_claude;
#[cfg(test)]
mod golden_events;
#[cfg(test)]
mod properties;

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{
    Endpoint, GroupSettings,
    codec::sse::{Event, EventDecoder},
    config::{DeploymentSettings, Target},
    problem::Problem,
    request::{Fields, Request, edits::Edits, metadata},
    tokens::usage::Hidden,
};

/// A format of requests and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// OpenAI's chat completions.
    Chat,
    /// Anthropic's messages.
    Messages,
    /// OpenAI's Responses API.
    Responses,
    /// Bedrock's Converse API.
    Converse,
    /// OpenAI's embeddings.
    Embeddings,
    /// Embeddings of Amazon's Titan models at Bedrock.
    Titan,
    /// Embeddings of Cohere's models at Bedrock.
    Cohere,
    /// Embeddings of Google's models at Vertex AI: its method `predict`.
    Predict,
}

/// From a client's format, which is a chat, messages or embeddings, to that of its upstream. Answers are translated back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Translation {
    pub(crate) client: Format,
    pub(crate) upstream: Format,
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
        let mut translated: Vec<(Translation, &Edits)> = Vec::new();
        let mut others = false;
        for deployment in &group.deployments {
            if deployment.lacks(request.endpoint).is_some() {
                continue;
            }
            let model = group.model_at(deployment, model);
            let translation = match &deployment.target {
                Target::Upstream(upstream) => upstream.translation(request.endpoint, &model),
                Target::Mock { .. } => None,
            };
            let Some(translation) = translation else {
                others = true;
                continue;
            };
            // Most deployments of a group change the same fields.
            if translated.contains(&(translation, &deployment.edits)) {
                continue;
            }
            match translation.body(request, &model, &deployment.edits, true) {
                Ok(_) => translated.push((translation, &deployment.edits)),
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
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// Whether a chat wants the usage at the end of its stream.
    pub(crate) usage: bool,
    /// Input tokens, estimated from its text.
    pub(crate) input_tokens: u64,
    /// What the upstream calls the model, for formats that do not say it.
    pub(crate) model: String,
    /// Whether embeddings are to be in base64, as OpenAI's SDKs ask.
    pub(crate) base64: bool,
    /// Takes the usage of a stream that does not show it.
    pub(crate) hidden: Hidden,
}

impl Translation {
    /// The endpoint that the upstream is called at; `None`: the format has paths of its own.
    pub(crate) fn target(self) -> Option<Endpoint> {
        match self.upstream {
            Format::Chat => Some(Endpoint::ChatCompletions),
            Format::Messages => Some(Endpoint::Messages),
            Format::Responses => Some(Endpoint::Responses),
            Format::Embeddings => Some(Endpoint::Embeddings),
            Format::Converse | Format::Titan | Format::Cohere | Format::Predict => None,
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
        let drop = edits.drop_params;
        let mut chat = if self.client == Format::Messages {
            let own = request.fields.fields.iter();
            let own = own.map(|(name, json)| (Cow::Borrowed(name.as_ref()), *json));
            let chat = to_chat::request(values(own)?, usage_in_streams, drop)?;
            edited(&chat, model, edits)?
        } else {
            values(edits.applied(request.endpoint, model, &request.fields))?
        };
        if self.upstream == Format::Responses
            && let Some(own) = chat.remove("metadata")
        {
            // What a chat has for logs is no more the provider's here than elsewhere.
            let own = own.to_string();
            let sent = metadata::sent(Endpoint::ChatCompletions, &own, edits.metadata);
            let sent = sent.and_then(|json| serde_json::from_str(&json).ok());
            chat.extend(sent.map(|sent: Value| ("metadata".to_owned(), sent)));
        }
        let mut body = match self.upstream {
            Format::Chat | Format::Embeddings => chat,
            Format::Titan => embeddings::to_titan(chat, model)?,
            Format::Cohere => embeddings::to_cohere(chat)?,
            Format::Predict => embeddings::to_predict(chat)?,
            Format::Messages => to_messages::request(chat, model, drop)?,
            Format::Responses => responses::request::request(chat, drop)?,
            Format::Converse => converse::request::request(chat, model, drop)?,
        };
        if self.target().is_some() {
            body.insert("model".into(), model.into());
        }
        Ok(Bytes::from(Value::Object(body).to_string()))
    }

    /// A whole answer in the format of the client; `None`: it is no answer.
    pub(crate) fn answer(self, answer: &[u8], asked: &Asked) -> Option<Bytes> {
        let answer: Value = serde_json::from_slice(answer).ok()?;
        let chat = match self.upstream {
            Format::Chat | Format::Embeddings => answer,
            Format::Titan => embeddings::of_titan(&answer, asked)?,
            Format::Cohere => embeddings::of_cohere(&answer, asked)?,
            Format::Predict => embeddings::of_predict(&answer, asked)?,
            Format::Messages => chat_answer::answer(&answer)?,
            Format::Responses => responses::answer::answer(&answer)?,
            Format::Converse => {
                chat_answer::answer(&converse::answer::answer(&answer, &asked.model)?)?
            }
        };
        let translated = match self.client {
            Format::Messages => messages_answer::answer(&chat)?,
            _ => chat,
        };
        Some(Bytes::from(translated.to_string()))
    }

    /// What translates an answer's events.
    pub(crate) fn events(self, asked: Asked) -> EventTranslator {
        let messages = self.client == Format::Messages;
        let of_chat = Asked {
            usage: asked.usage || messages,
            ..asked.clone()
        };
        let chat: Option<Box<dyn ToChat>> = match self.upstream {
            Format::Chat
            | Format::Embeddings
            | Format::Titan
            | Format::Cohere
            | Format::Predict => None,
            Format::Messages => Some(Box::new(chat_events::ChatEvents::new(of_chat))),
            Format::Responses => Some(Box::new(responses::events::ResponsesEvents::new(of_chat))),
            Format::Converse => Some(Box::new(converse::events::ConverseEvents::new(of_chat))),
        };
        EventTranslator {
            chat,
            messages: messages.then(|| Box::new(messages_events::MessagesEvents::new(asked))),
            between: EventDecoder::keeping(response::LONGEST_EVENT_BYTES),
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

impl BrokenOff {
    const NO_JSON: Self = Self("the upstream sent an event that is not valid JSON");
}

/// Translates the events of one answer: to a chat's chunks, these to a message's events, or both.
#[derive(Debug)]
pub(crate) struct EventTranslator {
    chat: Option<Box<dyn ToChat>>,
    messages: Option<Box<messages_events::MessagesEvents>>,
    /// Reads the chunks between the two.
    between: EventDecoder,
}

/// Translates events to the chunks of a chat.
trait ToChat: fmt::Debug + Send {
    /// Takes an event, and adds what it comes to.
    fn feed(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<(), BrokenOff>;

    /// The upstream's stream is over: whether that was its end.
    fn end(&mut self, out: &mut Vec<u8>) -> bool;
}

impl EventTranslator {
    /// Takes an event, and adds what it comes to.
    pub(crate) fn feed(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<(), BrokenOff> {
        match (&mut self.chat, &mut self.messages) {
            (Some(chat), None) => chat.feed(event, out),
            (Some(chat), Some(_)) => {
                let mut chunks = Vec::new();
                chat.feed(event, &mut chunks)?;
                self.pass(&chunks, out)
            }
            (None, Some(messages)) => messages.feed(event, out),
            (None, None) => Ok(()),
        }
    }

    /// The upstream's stream is over.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) -> Result<(), BrokenOff> {
        if let Some(chat) = &mut self.chat {
            let mut chunks = Vec::new();
            if !chat.end(&mut chunks) {
                let why = "the upstream's stream ended before its last event";
                return Err(BrokenOff(why));
            }
            self.pass(&chunks, out)?;
        }
        match &mut self.messages {
            Some(messages) => messages.end(out),
            None => Ok(()),
        }
    }

    /// Chunks of a chat in the format of the client.
    fn pass(&mut self, chunks: &[u8], out: &mut Vec<u8>) -> Result<(), BrokenOff> {
        let Some(messages) = &mut self.messages else {
            out.extend_from_slice(chunks);
            return Ok(());
        };
        let before = out.len();
        let mut result = Ok(());
        self.between.feed(chunks, |event| {
            if result.is_ok() {
                result = messages.feed(event, out);
            }
        });
        if out.len() == before && !chunks.is_empty() {
            out.extend_from_slice(chunks::PING);
        }
        result
    }
}

fn invalid(param: &'static str, message: impl Into<String>) -> Problem {
    Problem::invalid(param, message)
}
