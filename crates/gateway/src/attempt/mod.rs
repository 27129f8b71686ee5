//! One attempt: one permit, one upstream call. It has begun with its first event, or with the whole of its body.

pub(crate) mod backoff;
pub(crate) mod begin;
mod failed;
pub(crate) mod forward;

pub(crate) use failed::Failed;

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::{Duration, Instant};
use vorrang_scheduler::{ActiveCall, Permit};

use crate::{
    Config, Events, UpstreamCall, UpstreamEnd,
    answer::{
        body::{AnswerBody, Bound, Chunks},
        watch::Watch,
    },
    attempt::forward::Destination,
    call_headers,
    config::{DeploymentSettings, Target},
    group::OpenGroup,
    problem::Problem,
    provider::{
        client::Clients,
        error_body::ErrorBody,
        mock,
        retry::{Consequence, Hints, Retry},
    },
    request::Request,
    tokens::{MeanCompletion, usage::Meter},
    translate::Untranslatable,
};

/// All that an attempt needs but the permit.
#[derive(Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) config: &'a Config,
    pub(crate) clients: &'a Clients,
    pub(crate) group: &'a OpenGroup,
    /// Index of the deployment in the group: the permit's may be of an earlier configuration.
    pub(crate) index: usize,
    pub(crate) request: &'a Request<'a>,
    /// What the group is asked for: a wildcard's deployments get a part of it.
    pub(crate) model: &'a str,
    /// The client's.
    pub(crate) accept_encoding: Option<&'a str>,
    /// Deployments whose upstreams cannot be sent it.
    pub(crate) untranslatable: &'a Untranslatable,
    /// The client's, for upstreams that speak Anthropic's format.
    pub(crate) anthropic_headers: &'a HeaderMap,
    /// The client's, for a group that passes them on.
    pub(crate) passed_headers: Option<&'a HeaderMap>,
    /// Input tokens, estimated from its text.
    pub(crate) input_tokens: u64,
    pub(crate) events: &'a dyn Events,
    /// The time the request has, and when it is over.
    pub(crate) timeout: Duration,
    /// One attempt of a streamed call: the request's own.
    pub(crate) stream_timeout: Option<Duration>,
    pub(crate) deadline: Instant,
}

/// The answer that has begun: the call's own headers are still to come.
pub(crate) struct Begun {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: AnswerBody,
}

impl Begun {
    /// A count of tokens that is made here.
    pub(crate) fn count(tokens: u64) -> Self {
        let body = serde_json::json!({"input_tokens": tokens}).to_string();
        let json = HeaderValue::from_static("application/json");
        Self {
            status: StatusCode::OK,
            headers: HeaderMap::from_iter([(header::CONTENT_TYPE, json)]),
            body: AnswerBody::ours(body.into()),
        }
    }
}

impl Attempt<'_> {
    /// Makes the call. Dropping the future cancels it.
    pub(crate) async fn make(self, permit: Permit) -> Result<Begun, Box<Failed>> {
        let deployment = &self.group.settings.deployments[self.index];
        if let Some(why) = deployment.lacks(self.request.endpoint) {
            let group = &self.group.settings.name;
            let problem = Problem::no_endpoint(group, self.request.endpoint, why);
            return Err(Box::new(Failed::misplaced(permit, problem)));
        }
        if let Some(problem) = self.untranslatable.at(deployment) {
            return Err(Box::new(Failed::misplaced(permit, problem.clone())));
        }
        let call = match permit.dispatch() {
            Ok(call) => call,
            Err(expired) => return Err(Box::new(Failed::expired(expired))),
        };
        // When A3 counts this call: what the network adds comes after it.
        tracing::debug!(
            group = self.group.settings.name,
            deployment = deployment.id,
            granted = call.numbers().granted.0,
            "dispatched"
        );
        let started = Instant::now();
        let model = self.group.settings.model_at(deployment, self.model);
        let mut watcher = self.events.calls_upstream(&UpstreamCall {
            group: &self.group.settings.name,
            deployment,
            endpoint: self.request.endpoint,
            model: &model,
            streamed: self.request.stream,
        });
        // 0 where no answer begins.
        let mut status = 0;
        let mut result = match &deployment.target {
            Target::Mock { response } => self.mock(call, deployment, &model, response, &mut status),
            Target::Upstream(upstream) => {
                let to = Destination {
                    deployment,
                    upstream,
                    model: &model,
                    watcher: watcher.as_deref(),
                };
                self.forward(call, to, &mut status).await
            }
        };
        if let Some(mut watcher) = watcher.take() {
            match &mut result {
                Ok(begun) => {
                    watcher.began(status);
                    begun.body.watched_by(watcher);
                }
                Err(failed) => {
                    let cause = failed.cause;
                    watcher.ended(UpstreamEnd::Failed { status, cause }, None);
                }
            }
        }
        self.events.upstream(
            &self.group.settings.name,
            &deployment.id,
            status,
            started.elapsed(),
        );
        result
    }

    /// What the answer counts for: the mean of the group's texts.
    fn mean(&self) -> Arc<MeanCompletion> {
        if self.request.endpoint.writes_text() {
            self.group.mean.clone()
        } else {
            Arc::default()
        }
    }

    fn mock(
        &self,
        mut call: ActiveCall,
        deployment: &DeploymentSettings,
        model: &str,
        text: &str,
        status: &mut u16,
    ) -> Result<Begun, Box<Failed>> {
        if let Some((raised, message)) = mock::raised(text) {
            *status = raised.as_u16();
            let error = ErrorBody {
                object: None,
                message: message.into(),
            };
            return Err(self.error(call, deployment, raised, Hints::default(), error));
        }
        let answer = match mock::answer(self.request, model, text) {
            Ok(answer) => answer,
            Err(problem) => {
                *status = problem.status().as_u16();
                // Nothing was sent: the charge is refunded.
                let consequence = Consequence {
                    retry: Retry::No,
                    failure: None,
                };
                let failed = Failed::unsent(call, problem, consequence, "no mock answer");
                return Err(Box::new(failed));
            }
        };
        *status = 200;
        call.succeeded();
        call.used_tokens(answer.usage);
        self.mean().record(answer.usage.output);
        let length = answer.chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let length = (!self.request.stream).then_some(length);
        let mut chunks = answer.chunks;
        let chunks = match chunks.pop() {
            Some(whole) if chunks.is_empty() => Chunks::Whole(whole),
            last => Chunks::Stream(stream::iter(chunks.into_iter().chain(last).map(Ok)).boxed()),
        };
        let mut headers = call_headers::roomy();
        let kind = HeaderValue::from_static(answer.content_type);
        headers.insert(header::CONTENT_TYPE, kind);
        let mut body = AnswerBody::new(
            chunks,
            length,
            Meter::known(),
            Watch::default(),
            Bound::Idle,
            call,
            self.mean(),
        );
        body.used(answer.usage);
        Ok(Begun {
            status: StatusCode::OK,
            headers,
            body,
        })
    }
}
