//! One attempt: one permit, one upstream call. It has begun with its first event, or with the whole of its body.

pub(crate) mod backoff;
mod begin;
pub(crate) mod secrets;

use std::{sync::Arc, time::SystemTime};

use begin::{Beginning, Kind, NoBeginning};
use bytes::Bytes;
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::Response;
use secrecy::SecretString;
use tokio::time::{Duration, Instant, timeout_at};
use vorrang_scheduler::Permit;

use crate::{
    Config, Events, Stage,
    answer::{
        body::{AnswerBody, Bound, BoxError},
        watch::Watch,
    },
    call_headers,
    codec::coding::{self, Coding, Unreadable},
    config::{DeploymentSettings, Target},
    error::Problem,
    provider::{
        client::{self, Clients, NoAnswer},
        error_body::{self, ErrorBody},
        mock,
        retry::{self, Cooling, Hints, Retry, Verdict},
    },
    request::Request,
    router::Group,
    tokens::usage::{Expected, Meter, UsageReader},
};

/// All that an attempt needs but the permit.
#[derive(Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) config: &'a Config,
    pub(crate) clients: &'a Clients,
    pub(crate) group: &'a Group,
    pub(crate) request: &'a Request<'a>,
    /// The client's.
    pub(crate) accept_encoding: Option<&'a str>,
    /// Those of its text, estimated.
    pub(crate) input_tokens: u64,
    pub(crate) events: &'a dyn Events,
    /// The time the request has, and when it is over.
    pub(crate) timeout: Duration,
    pub(crate) deadline: Instant,
}

/// Where a call goes.
#[derive(Clone, Copy)]
struct Upstream<'a> {
    api_base: &'a str,
    api_key: Option<&'a SecretString>,
}

/// The answer that has begun: the call's own headers are still to come.
pub(crate) struct Begun {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: AnswerBody,
}

/// An attempt without an answer. It keeps its permit, so that a retry can re-enter with it (A8).
pub(crate) struct Failed {
    pub(crate) permit: Permit,
    pub(crate) problem: Problem,
    pub(crate) retry: Retry,
    /// How long the upstream asked to wait.
    pub(crate) hint: Option<Duration>,
    /// How long the deployment cools; `None` where it does not, or where it only counts.
    pub(crate) cool: Option<Duration>,
    /// Whether it counts for the deployment's health.
    pub(crate) counts: bool,
    /// For the log.
    pub(crate) cause: &'static str,
    pub(crate) detail: Option<String>,
    /// The permit could not be used any more (P9): nothing was tried.
    pub(crate) expired: bool,
}

impl Failed {
    fn new(mut permit: Permit, problem: Problem, verdict: Verdict, cause: &'static str) -> Self {
        if let Some(failure) = verdict.failure {
            permit.failed(failure.status, failure.cool);
        }
        Self {
            permit,
            problem,
            retry: verdict.retry,
            hint: None,
            cool: verdict.failure.and_then(|failure| failure.cool),
            counts: verdict.failure.is_some(),
            cause,
            detail: None,
            expired: false,
        }
    }

    /// P9 (dispatch within the session): nothing went out. The request queues again, and this was no attempt.
    fn expired(permit: Permit) -> Self {
        let verdict = Verdict {
            retry: Retry::Yes,
            failure: None,
        };
        Self {
            expired: true,
            ..Self::new(permit, Problem::BackendRecovering, verdict, "expired")
        }
    }

    fn silent(mut permit: Permit, silence: NoAnswer) -> Self {
        if silence.unsent {
            permit.not_dispatched();
        }
        let message = silence.cause.message().into();
        Self {
            detail: silence.detail,
            ..Self::new(
                permit,
                Problem::Unreachable { message },
                Verdict::SILENCE,
                silence.cause.as_str(),
            )
        }
    }
}

impl Attempt<'_> {
    /// Makes the call. Dropping the future cancels it.
    pub(crate) async fn make(self, mut permit: Permit) -> Result<Begun, Box<Failed>> {
        let deployment = &self.group.settings.deployments[permit.deployment()];
        if permit.dispatch().is_err() {
            return Err(Box::new(Failed::expired(permit)));
        }
        // When A3 counts this call: what the network adds comes after it.
        tracing::debug!(
            group = self.group.settings.name,
            deployment = deployment.id,
            granted = permit.numbers().granted,
            "dispatched"
        );
        let started = Instant::now();
        // 0 where no answer begins.
        let mut status = 0;
        let result = match &deployment.target {
            Target::Mock { response } => self.mock(permit, deployment, response, &mut status),
            Target::Upstream { api_base, api_key } => {
                let upstream = Upstream {
                    api_base,
                    api_key: api_key.as_ref(),
                };
                self.forward(permit, deployment, upstream, &mut status)
                    .await
            }
        };
        self.events.upstream(
            &self.group.settings.name,
            &deployment.id,
            status,
            started.elapsed(),
        );
        result
    }

    fn mock(
        &self,
        mut permit: Permit,
        deployment: &DeploymentSettings,
        text: &str,
        status: &mut u16,
    ) -> Result<Begun, Box<Failed>> {
        if let Some((raised, message)) = mock::raised(text) {
            *status = raised.as_u16();
            let error = ErrorBody {
                object: None,
                message: message.into(),
            };
            return Err(self.error(permit, deployment, raised, Hints::default(), error));
        }
        let answer = match mock::answer(self.request, &deployment.model, text) {
            Ok(answer) => answer,
            Err(problem) => {
                *status = problem.status().as_u16();
                // Nothing went out: the permit's charge is undone.
                permit.not_dispatched();
                let verdict = Verdict {
                    retry: Retry::No,
                    failure: None,
                };
                let failed = Failed::new(permit, problem, verdict, "no mock answer");
                return Err(Box::new(failed));
            }
        };
        *status = 200;
        permit.succeeded();
        permit.used_tokens(answer.usage.total());
        self.group.mean.record(answer.usage.output);
        let length = answer.chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let length = (!self.request.stream).then_some(length);
        let chunks = stream::iter(answer.chunks.into_iter().map(Ok)).boxed();
        let headers = HeaderMap::from_iter([(
            header::CONTENT_TYPE,
            HeaderValue::from_static(answer.content_type),
        )]);
        let body = AnswerBody::new(
            chunks,
            length,
            Meter::known(),
            Watch::default(),
            Bound::Idle,
            permit,
            self.group.mean.clone(),
        );
        Ok(Begun {
            status: StatusCode::OK,
            headers,
            body,
        })
    }

    async fn forward(
        &self,
        mut permit: Permit,
        deployment: &DeploymentSettings,
        upstream: Upstream<'_>,
        status: &mut u16,
    ) -> Result<Begun, Box<Failed>> {
        let own = if self.request.stream {
            deployment
                .stream_timeout
                .or(self.config.stream_timeout)
                .or(deployment.timeout)
        } else {
            deployment.timeout
        };
        let until = own.map_or(self.deadline, |own| self.deadline.min(Instant::now() + own));
        let body = self.request.rewritten(&deployment.model);
        let sending = client::send(
            self.clients,
            self.request.endpoint,
            upstream.api_base,
            upstream.api_key,
            coding::negotiated(self.accept_encoding),
            body,
        );
        let mut response = match timeout_at(until, sending).await {
            Err(_) => return Err(self.out_of_time(permit, until, own)),
            Ok(Err(silence)) => return Err(Box::new(Failed::silent(permit, silence))),
            Ok(Ok(response)) => response,
        };
        if !response.status().is_success() {
            *status = response.status().as_u16();
            return Err(self
                .refused(permit, deployment, response, until, upstream.api_key)
                .await);
        }
        let coding = match Coding::of(response.headers()) {
            Ok(coding) => coding,
            Err(unreadable) => return Err(unasked_coding(permit, unreadable)),
        };
        if self.request.stream && Kind::of(response.headers()) == Kind::Events {
            let keepalive = deployment.keepalive.unwrap_or(self.config.keepalive);
            self.events.stage(Stage::Silent { keepalive });
        }
        let begun = begin::read(&mut response, coding, self.request.stream);
        match timeout_at(until, begun).await {
            Err(_) => Err(self.out_of_time(permit, until, own)),
            Ok(Ok(beginning)) => {
                *status = response.status().as_u16();
                permit.succeeded();
                Ok(self.begun(permit, response, beginning, coding, until))
            }
            Ok(Err(NoBeginning::Broken(error))) => {
                let silence = client::no_answer(error);
                Err(Box::new(Failed::silent(permit, silence)))
            }
            Ok(Err(NoBeginning::Useless(message))) => {
                let problem = Problem::Unreachable {
                    message: message.into(),
                };
                let failed = Failed::new(permit, problem, Verdict::SILENCE, "no answer in a 200");
                Err(Box::new(failed))
            }
            Ok(Err(NoBeginning::Error(error))) => {
                *status = error.status.as_u16();
                let hints = Hints::of(response.headers(), SystemTime::now());
                let words = ErrorBody::new(error.status, &error.body, true, upstream.api_key);
                let failed = self.error(permit, deployment, error.status, hints, words);
                Err(Box::new(Failed {
                    cause: "error in a 200",
                    ..*failed
                }))
            }
        }
    }

    fn begun(
        &self,
        permit: Permit,
        response: Response,
        beginning: Beginning,
        coding: Option<Coding>,
        until: Instant,
    ) -> Begun {
        let status = response.status();
        let mut headers = HeaderMap::new();
        call_headers::pass(response.headers(), &mut headers);
        let events = Kind::of(response.headers()) == Kind::Events;
        let usage = if events {
            UsageReader::events()
        } else {
            UsageReader::json()
        };
        // A coding that the client did not ask for is taken off.
        let accepted = coding.filter(|coding| coding.accepted(self.accept_encoding));
        let expected = Expected {
            input: self.input_tokens,
            cached_weight: self.group.settings.deployments[permit.deployment()].cached_token_weight,
        };
        if accepted.is_none() {
            headers.remove(header::CONTENT_ENCODING);
        }
        let usage = Meter::new(usage, accepted, expected);
        let mean = Arc::clone(&self.group.mean);
        let body = match beginning {
            Beginning::Whole { coded, plain } => {
                let bytes = if accepted.is_some() { coded } else { plain };
                AnswerBody::whole(bytes, usage, permit, mean)
            }
            Beginning::Part(read) => {
                let bound = if self.request.stream {
                    Bound::Idle
                } else {
                    Bound::Until(until)
                };
                let deployment = &self.group.settings.deployments[permit.deployment()];
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
                AnswerBody::new(chunks, length, usage, watch, bound, permit, mean)
            }
        };
        Begun {
            status,
            headers,
            body,
        }
    }

    /// The upstream answered, but with no success.
    async fn refused(
        &self,
        permit: Permit,
        deployment: &DeploymentSettings,
        response: Response,
        until: Instant,
        api_key: Option<&SecretString>,
    ) -> Box<Failed> {
        let status = response.status();
        let hints = Hints::of(response.headers(), SystemTime::now());
        if !(status.is_client_error() || status.is_server_error()) {
            let message = format!(
                "The upstream answered {}, which is neither a success nor an error",
                status.as_u16()
            );
            let verdict = Verdict::of_status(status, hints, self.cooling(deployment));
            let problem = Problem::Unreachable { message };
            return Box::new(Failed::new(
                permit,
                problem,
                verdict,
                "no success, no error",
            ));
        }
        let error = error_body::read(response, until, api_key).await;
        self.error(permit, deployment, status, hints, error)
    }

    /// The upstream answered with an error.
    fn error(
        &self,
        permit: Permit,
        deployment: &DeploymentSettings,
        status: StatusCode,
        hints: Hints,
        error: ErrorBody,
    ) -> Box<Failed> {
        let cooling = self.cooling(deployment);
        let exhausted = status == StatusCode::TOO_MANY_REQUESTS && {
            let hint = hints.after.is_some();
            let object = String::from_utf8_lossy(error.object.as_deref().unwrap_or_default());
            retry::quota_exhausted(&error.message, hint) || retry::quota_exhausted(&object, hint)
        };
        let verdict = if exhausted {
            Verdict::exhausted(hints, cooling)
        } else {
            Verdict::of_status(status, hints, cooling)
        };
        let cooled = (status == StatusCode::TOO_MANY_REQUESTS).then_some(cooling.time);
        let hint = hints.after.filter(|_| retry::may_hint(status));
        let problem = Problem::Upstream {
            status,
            message: error.message,
            body: error.object,
            retry_after: hint.or(cooled.filter(|_| !exhausted)),
            should_retry: if exhausted { Some(false) } else { hints.again },
        };
        let cause = if exhausted {
            "quota exhausted"
        } else {
            "error status"
        };
        Box::new(Failed {
            hint,
            ..Failed::new(permit, problem, verdict, cause)
        })
    }

    /// The time for the attempt is over: the request's own, then that is that, or the deployment's, then another attempt may go better.
    fn out_of_time(&self, permit: Permit, until: Instant, own: Option<Duration>) -> Box<Failed> {
        let requests = until == self.deadline;
        let after = if requests {
            self.timeout
        } else {
            own.unwrap_or(self.timeout)
        };
        let problem = Problem::TimedOutCalling {
            group: self.group.settings.name.clone(),
            after,
        };
        // A client in a hurry says nothing about the deployment.
        let verdict = if requests {
            Verdict {
                retry: Retry::No,
                failure: None,
            }
        } else {
            Verdict::SILENCE
        };
        Box::new(Failed::new(permit, problem, verdict, "time-out"))
    }

    fn cooling(&self, deployment: &DeploymentSettings) -> Cooling {
        Cooling {
            disabled: self.config.disable_cooldowns,
            time: deployment
                .cooldown_time
                .unwrap_or(self.config.cooldown_time),
        }
    }
}

/// What has been read of an answer, and what is still to come.
fn rest(
    read: Vec<Bytes>,
    response: Response,
    deployment: String,
) -> BoxStream<'static, Result<Bytes, BoxError>> {
    let rest = response.bytes_stream().map_err(move |error| {
        let error = error.without_url();
        tracing::warn!(
            deployment,
            error = &error as &dyn std::error::Error,
            "the upstream broke off its answer"
        );
        BoxError::from("the upstream broke off its answer")
    });
    stream::iter(read.into_iter().map(Ok)).chain(rest).boxed()
}

/// The upstream was offered none that cannot be read, and its client could not read it either.
fn unasked_coding(permit: Permit, coding: Unreadable) -> Box<Failed> {
    let message = "The upstream answered in a content coding that it was not asked for".into();
    let problem = Problem::Unreachable { message };
    Box::new(Failed {
        detail: Some(coding.0),
        ..Failed::new(permit, problem, Verdict::SILENCE, "unknown coding")
    })
}

/// The header, not the client's view of it, which forgets what has been read already. Beside `transfer-encoding` it means
/// nothing (RFC 9112, 6.3).
fn content_length(headers: &HeaderMap) -> Option<u64> {
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
