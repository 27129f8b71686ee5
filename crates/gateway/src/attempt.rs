//! One attempt: one permit, one upstream call.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{Client, Response};
use secrecy::SecretString;
use tokio::time::{Duration, Instant, timeout_at};
use vorrang_scheduler::Permit;

use crate::{
    Config, Events,
    body::{AnswerBody, Bound, BoxError},
    coding::{self, Coding, Unreadable},
    config::{DeploymentSettings, Target},
    error::Problem,
    headers, mock,
    request::Request,
    retry::{Cooling, Verdict, retry_after},
    router::Group,
    upstream::{self, NoAnswer},
    upstream_error,
    usage::{Expected, Meter, UsageReader},
};

/// All that an attempt needs but the permit.
#[derive(Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) config: &'a Config,
    pub(crate) client: &'a Client,
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
    pub(crate) retry: bool,
    /// The permit could not be used any more: nothing was tried.
    pub(crate) expired: bool,
}

impl Attempt<'_> {
    /// Makes the call. Dropping the future cancels it.
    pub(crate) async fn make(self, mut permit: Permit) -> Result<Begun, Box<Failed>> {
        let deployment = &self.group.settings.deployments[permit.deployment()];
        if permit.dispatch().is_err() {
            return Err(expired(permit));
        }
        // When A3 counts this call: what the network adds comes after it.
        tracing::debug!(
            group = self.group.settings.name,
            deployment = deployment.id,
            granted = permit.numbers().granted,
            "dispatched"
        );
        let started = Instant::now();
        // 0 until an answer's head is here.
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
            let verdict = Verdict::of_status(raised, None, self.cooling(deployment));
            let problem = self.upstream_problem(raised, message.into(), None, None, deployment);
            return Err(failed(permit, problem, verdict));
        }
        let answer = match mock::answer(self.request, &deployment.model, text) {
            Ok(answer) => answer,
            Err(problem) => {
                *status = problem.status().as_u16();
                // Nothing went out: the permit's charge is undone.
                permit.not_dispatched();
                return Err(Box::new(Failed {
                    permit,
                    problem,
                    retry: false,
                    expired: false,
                }));
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
        let sending = upstream::send(
            self.client,
            self.request.endpoint,
            upstream.api_base,
            upstream.api_key,
            coding::negotiated(self.accept_encoding),
            body,
        );
        let mut response = match timeout_at(until, sending).await {
            Err(_) => return Err(self.out_of_time(permit, until, own)),
            Ok(Err(silence)) => return Err(unanswered(permit, silence)),
            Ok(Ok(response)) => response,
        };
        *status = response.status().as_u16();
        if !response.status().is_success() {
            return Err(self
                .refused(permit, deployment, response, until, upstream.api_key)
                .await);
        }
        let coding = match Coding::of(response.headers()) {
            Ok(coding) => coding,
            Err(unreadable) => return Err(unasked_coding(permit, &unreadable)),
        };
        permit.succeeded();
        if self.request.stream {
            return Ok(self.begun(permit, response, None, coding, until));
        }
        // A whole answer counts as begun with its first byte: until then another attempt can still be made.
        match timeout_at(until, response.chunk()).await {
            Err(_) => Err(self.out_of_time(permit, until, own)),
            Ok(Err(error)) => Err(unanswered(permit, upstream::no_answer(error))),
            Ok(Ok(first)) => Ok(self.begun(permit, response, first, coding, until)),
        }
    }

    fn begun(
        &self,
        permit: Permit,
        response: Response,
        first: Option<Bytes>,
        coding: Option<Coding>,
        until: Instant,
    ) -> Begun {
        let status = response.status();
        let mut passed = HeaderMap::new();
        headers::pass(response.headers(), &mut passed);
        let events = passed
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
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
        let usage = Meter::new(usage, accepted, expected);
        let bound = if self.request.stream {
            Bound::Idle
        } else {
            Bound::Until(until)
        };
        let mut length = content_length(response.headers());
        let deployment = self.group.settings.deployments[permit.deployment()]
            .id
            .clone();
        let rest = response.bytes_stream().map_err(move |error| {
            let error = error.without_url();
            tracing::warn!(
                deployment,
                error = &error as &dyn std::error::Error,
                "the upstream broke off its answer"
            );
            BoxError::from("the upstream broke off its answer")
        });
        let mut chunks = stream::iter(first.map(Ok)).chain(rest).boxed();
        if accepted.is_none() {
            passed.remove(header::CONTENT_ENCODING);
            if let Some(coding) = coding {
                length = None;
                chunks = coding::decoded(chunks, coding).boxed();
            }
        }
        let body = AnswerBody::new(
            chunks,
            length,
            usage,
            bound,
            permit,
            Arc::clone(&self.group.mean),
        );
        Begun {
            status,
            headers: passed,
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
        let wait = retry_after(response.headers(), SystemTime::now());
        let verdict = Verdict::of_status(status, wait, self.cooling(deployment));
        if !(status.is_client_error() || status.is_server_error()) {
            let message = format!(
                "The upstream answered {}, which is neither a success nor an error",
                status.as_u16()
            );
            return failed(permit, Problem::Unreachable { message }, verdict);
        }
        let error = upstream_error::read(response, until, api_key).await;
        let problem = self.upstream_problem(status, error.message, error.object, wait, deployment);
        failed(permit, problem, verdict)
    }

    fn upstream_problem(
        &self,
        status: StatusCode,
        message: String,
        body: Option<Bytes>,
        wait: Option<Duration>,
        deployment: &DeploymentSettings,
    ) -> Problem {
        let cooldown = deployment
            .cooldown_time
            .unwrap_or(self.config.cooldown_time);
        let retry_after =
            (status == StatusCode::TOO_MANY_REQUESTS).then(|| wait.unwrap_or(cooldown));
        Problem::Upstream {
            status,
            message,
            body,
            retry_after,
        }
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
                retry: false,
                failure: None,
            }
        } else {
            Verdict::SILENCE
        };
        failed(permit, problem, verdict)
    }

    fn cooling(&self, deployment: &DeploymentSettings) -> Cooling {
        Cooling {
            disabled: self.config.disable_cooldowns,
            time: deployment
                .cooldown_time
                .unwrap_or(self.config.cooldown_time),
            others: self.group.settings.deployments.len() > 1,
        }
    }
}

/// P9 (dispatch within the session): nothing went out. The request queues again, and this was no attempt.
fn expired(permit: Permit) -> Box<Failed> {
    Box::new(Failed {
        permit,
        problem: Problem::BackendRecovering,
        retry: true,
        expired: true,
    })
}

fn unanswered(mut permit: Permit, silence: NoAnswer) -> Box<Failed> {
    if silence.unsent {
        permit.not_dispatched();
    }
    failed(
        permit,
        Problem::Unreachable {
            message: silence.message.into(),
        },
        Verdict::SILENCE,
    )
}

fn failed(mut permit: Permit, problem: Problem, verdict: Verdict) -> Box<Failed> {
    if let Some(failure) = verdict.failure {
        permit.failed(failure.status, failure.cool);
    }
    Box::new(Failed {
        permit,
        problem,
        retry: verdict.retry,
        expired: false,
    })
}

/// The upstream was offered none that cannot be read, and its client could not read it either.
fn unasked_coding(permit: Permit, coding: &Unreadable) -> Box<Failed> {
    tracing::warn!(
        coding = coding.0,
        "an answer has a content coding that was not asked for"
    );
    let message = "The upstream answered in a content coding that it was not asked for".into();
    failed(permit, Problem::Unreachable { message }, Verdict::SILENCE)
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
