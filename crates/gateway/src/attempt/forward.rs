//! Forwards a request to an HTTP server, and takes its answer once that has begun.

use std::{mem, time::SystemTime};

use bytes::Bytes;
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use http::{HeaderMap, Method, header};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use vorrang_scheduler::ActiveCall;

use super::{
    Attempt, Begun, Failed,
    begin::{self, Beginning, Kind, NoBeginning},
};
use crate::{
    Endpoint, Stage, UpstreamEvents,
    answer::{
        body::{AnswerBody, Bound, BoxError, Chunks},
        watch::Watch,
    },
    call_headers,
    codec::coding::{self, Coding, Unreadable},
    config::{DeploymentSettings, Dialect, Upstream},
    endpoint::AnswerKind,
    problem::Problem,
    provider::{
        anthropic, aws, aws_events,
        client::{self, NoAnswer},
        error_body::ErrorBody,
        http::Response,
        retry::{Consequence, Hints, Retry},
    },
    request::payload::Payload,
    tokens::{
        self,
        reader::UsageReader,
        usage::{Expected, Hidden, Meter},
    },
    translate::{self, Asked, envelope},
};

/// Headers that most requests to upstreams have at most, and most answers to clients: their maps do not grow.
const SENT_HEADERS: usize = 12;
const ANSWERED_HEADERS: usize = 24;

/// Where an attempt goes.
#[derive(Clone, Copy)]
pub(super) struct Destination<'a> {
    pub(super) deployment: &'a DeploymentSettings,
    pub(super) upstream: &'a Upstream,
    /// What it calls the model.
    pub(super) model: &'a str,
    pub(super) watcher: Option<&'a dyn UpstreamEvents>,
}

impl Attempt<'_> {
    pub(super) async fn forward(
        &self,
        mut call: ActiveCall,
        to: Destination<'_>,
        status: &mut u16,
    ) -> Result<Begun, Box<Failed>> {
        let Destination {
            deployment,
            upstream,
            model,
            watcher,
        } = to;
        let own = if self.request.stream {
            self.stream_timeout
                .or(deployment.stream_timeout)
                .or(self.config.stream_timeout)
                .or(deployment.timeout)
        } else {
            deployment.timeout
        };
        let until = own.map_or(self.deadline, |own| self.deadline.min(Instant::now() + own));
        let endpoint = self.request.endpoint;
        let stream = self.request.stream;
        let address = self
            .group
            .address(self.index, upstream, endpoint, model, stream);
        let Some(address) = address else {
            return Err(Box::new(Failed::silent(call, NoAnswer::NO_URL)));
        };
        let translation = upstream.translation(endpoint, model);
        let body = match translation {
            None => self.request.payload(model, &deployment.edits),
            Some(translation) => {
                let usage = upstream.usage_in_streams;
                match translation.body(self.request, model, &deployment.edits, usage) {
                    Ok(body) => Payload::Json(body),
                    Err(problem) => return Err(untranslated(call, problem)),
                }
            }
        };
        let mut headers = HeaderMap::with_capacity(SENT_HEADERS);
        if upstream.is_anthropic(endpoint, model) {
            headers.clone_from(self.anthropic_headers);
            anthropic::complete(&mut headers, upstream);
        }
        let body = match body {
            Payload::Json(json) => {
                Payload::Json(envelope::enveloped(upstream.dialect, json, &mut headers))
            }
            form => form,
        };
        if let Some(passed) = self.passed_headers {
            let own = mem::replace(&mut headers, passed.clone());
            own.keys().for_each(|name| drop(headers.remove(name)));
            headers.extend(own);
        }
        headers.insert(
            header::ACCEPT_ENCODING,
            // What is translated has to be read.
            coding::negotiated(self.accept_encoding.filter(|_| translation.is_none())),
        );
        if let Some(watcher) = watcher {
            watcher.add_headers(&mut headers);
        }
        let calls = self.group.calls(self.index);
        let to = client::Target {
            upstream,
            address: &address,
            key: &calls.key,
            key_header: calls.key_header,
        };
        let sending = client::send(self.clients, Method::POST, to, headers, &body);
        let mut response = match timeout_at(until, sending).await {
            Err(_) => return Err(self.out_of_time(call, until, own)),
            Ok(Err(silence)) => return Err(Box::new(Failed::silent(call, silence))),
            Ok(Ok(response)) => response,
        };
        if matches!(upstream.dialect, Dialect::Bedrock | Dialect::Converse) {
            response = aws_events::as_sse(response);
        }
        if !response.status().is_success() {
            *status = response.status().as_u16();
            if endpoint == Endpoint::CountTokens && matches!(*status, 404 | 405 | 501) {
                // Many servers that speak Anthropic's format do not count.
                call.succeeded();
                return Ok(Begun::count(tokens::counted(self.request)));
            }
            let refused = self.refused(call, deployment, response, until);
            return Err(Box::pin(refused).await);
        }
        let mut coding = match Coding::of(response.headers()) {
            Ok(coding) => coding,
            Err(unreadable) => return Err(unasked_coding(call, unreadable)),
        };
        let mut hidden = None;
        if let Some(translation) = translation {
            let mut asked = self.asked(model);
            asked.input_tokens = aws::input_tokens(&response).unwrap_or(asked.input_tokens);
            hidden = Some(asked.hidden.clone());
            let coding = coding.take();
            response = translate::response::translated(response, coding, translation, asked);
        }
        if self.request.stream && Kind::of(response.headers()) == Kind::Events {
            let keepalive = deployment.keepalive.unwrap_or(self.config.keepalive);
            self.events.stage(Stage::Silent { keepalive });
        }
        let answers = self.request.endpoint.answer();
        let begun = begin::read(&mut response, coding, self.request.stream, answers);
        match timeout_at(until, begun).await {
            Err(_) => Err(self.out_of_time(call, until, own)),
            Ok(Ok(beginning)) => {
                *status = response.status().as_u16();
                call.succeeded();
                Ok(self.begun(call, response, beginning, coding, until, hidden))
            }
            Ok(Err(NoBeginning::Broken(error))) => {
                let silence = client::no_answer(error);
                Err(Box::new(Failed::silent(call, silence)))
            }
            Ok(Err(NoBeginning::Useless(message))) => {
                let problem = Problem::Unreachable {
                    message: message.into(),
                };
                let failed = Failed::new(call, problem, Consequence::SILENCE, "no answer in a 200");
                Err(Box::new(failed))
            }
            Ok(Err(NoBeginning::Error(error))) => {
                *status = error.status.as_u16();
                let hints = Hints::of(response.headers(), SystemTime::now());
                let secrets = self.secrets();
                let words = ErrorBody::new(error.status, &error.body, true, secrets);
                let failed = self.error(call, deployment, error.status, hints, words);
                Err(Box::new(Failed {
                    cause: "error in a 200",
                    ..*failed
                }))
            }
        }
    }

    /// What the answer's translation needs to know.
    fn asked(&self, model: &str) -> Asked {
        let options = self.request.fields.get("stream_options");
        let options = options.and_then(|json| serde_json::from_str(json).ok());
        Asked {
            usage: options.is_some_and(|options: Value| options["include_usage"] == true),
            input_tokens: self.input_tokens,
            model: model.to_owned(),
            base64: self.request.fields.get("encoding_format") == Some("\"base64\""),
            hidden: Hidden::default(),
        }
    }

    fn begun(
        &self,
        call: ActiveCall,
        response: Response,
        beginning: Beginning,
        coding: Option<Coding>,
        until: Instant,
        hidden: Option<Hidden>,
    ) -> Begun {
        let status = response.status();
        let mut headers = HeaderMap::with_capacity(ANSWERED_HEADERS);
        call_headers::pass(response.headers(), &mut headers);
        let kind = Kind::of(response.headers());
        let events = kind == Kind::Events;
        let usage = match kind {
            Kind::Events => UsageReader::events(),
            Kind::Other if self.request.endpoint.answer() != AnswerKind::Json => UsageReader::Known,
            _ => UsageReader::json(),
        };
        // A coding that the client did not ask for is taken off.
        let accepted = coding.filter(|coding| coding.accepted(self.accept_encoding));
        let expected = Expected {
            input: self.input_tokens,
            cached_weight: self.group.settings.deployments[self.index].cached_token_weight,
        };
        if accepted.is_none() {
            headers.remove(header::CONTENT_ENCODING);
        }
        let usage = Meter::new(usage, accepted, expected).with(hidden);
        let mean = self.mean();
        let body = match beginning {
            Beginning::Whole { coded, plain } => {
                let bytes = if accepted.is_some() { coded } else { plain };
                AnswerBody::whole(bytes, usage, call, mean)
            }
            Beginning::Part(read) => {
                let bound = if self.request.stream {
                    Bound::Idle
                } else {
                    Bound::Until(until)
                };
                let deployment = &self.group.settings.deployments[self.index];
                let watch = Watch::new(
                    &deployment.id,
                    self.cooling(deployment),
                    events.then_some(accepted),
                    until < self.deadline,
                );
                let mut length = content_length(response.headers());
                let mut chunks = rest(read, response, deployment.id.clone());
                if let (Some(coding), None) = (coding, accepted) {
                    length = None;
                    chunks = coding::decoded(chunks, coding).boxed();
                }
                let chunks = Chunks::Stream(chunks);
                AnswerBody::new(chunks, length, usage, watch, bound, call, mean)
            }
        };
        Begun {
            status,
            headers,
            body,
        }
    }
}

/// What has been read of an answer, and what is still to come.
pub(crate) fn rest(
    read: Vec<Bytes>,
    response: Response,
    deployment: String,
) -> BoxStream<'static, Result<Bytes, BoxError>> {
    let rest = response.into_bytes().map_err(move |error| {
        tracing::warn!(
            deployment,
            error = &error as &dyn std::error::Error,
            "the upstream broke off its answer"
        );
        BoxError::from("the upstream broke off its answer")
    });
    stream::iter(read.into_iter().map(Ok)).chain(rest).boxed()
}

/// A request that was read when it came, and cannot be written in the upstream's format.
fn untranslated(call: ActiveCall, problem: Problem) -> Box<Failed> {
    let consequence = Consequence {
        retry: Retry::Elsewhere,
        failure: None,
    };
    let failed = Failed::unsent(call, problem, consequence, "no such request in its format");
    Box::new(failed)
}

/// The upstream was offered none that cannot be read, and its client could not read it either.
fn unasked_coding(call: ActiveCall, coding: Unreadable) -> Box<Failed> {
    let message = "The upstream answered in a content coding that it was not asked for".into();
    let problem = Problem::Unreachable { message };
    Box::new(Failed {
        detail: Some(coding.0),
        ..Failed::new(call, problem, Consequence::SILENCE, "unknown coding")
    })
}

/// The header, not the client's view of it, which forgets what has been read already. Beside `transfer-encoding` it means
/// nothing (RFC 9112, 6.3).
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}
