//! Requests about what a provider keeps. They go to its account at once: they cost nothing of a group's limits.
//!
//! Nothing is tried again here: the upstream's `retry-after` and `x-should-retry` pass, and the client decides.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::StreamExt as _;
use http::{HeaderMap, header};
use reqwest::Url;
use tokio::time::{Instant, timeout_at};

use super::{Inner, Router};
use crate::{
    Answer, CallError, CallInfo, ResourceCall, Setting,
    answer::{
        body::{AnswerBody, Bound, Chunks},
        watch::Watch,
    },
    attempt::{
        Begun,
        forward::{content_length, rest},
    },
    call_headers,
    codec::coding::{self, Coding},
    config::{Account, Upstream},
    problem::Problem,
    provider::{
        client::{self, Key},
        error_body,
        http::{Address, Response},
        retry::{self, Hints},
        secrets::Secrets,
    },
    request::resource::{self, ResourceBody},
    resource::{DEFAULT_PROVIDER, PROVIDER},
    tokens::usage::Meter,
};

/// What of a client's query is not the upstream's: the configuration says it.
const OF_GATEWAY: [&str; 2] = [PROVIDER, "api-version"];

/// Why no answer has begun, for the client and for the log.
struct Failed {
    problem: Problem,
    cause: &'static str,
    detail: Option<String>,
}

impl Failed {
    fn new(cause: &'static str, problem: Problem) -> Self {
        let detail = None;
        Self {
            problem,
            cause,
            detail,
        }
    }
}

/// A query: its provider, and the rest.
#[derive(Default)]
struct Query {
    provider: Option<String>,
    pairs: Vec<(String, String)>,
}

impl Router {
    /// Makes a call about files, batches or fine-tuning jobs at the account of its provider, without the queue. Dropping
    /// the future cancels the upstream call.
    ///
    /// # Errors
    /// The client's mistake, a provider without an account in the configuration, or the upstream's error.
    pub async fn call_resource(&self, call: ResourceCall) -> Result<Answer, CallError> {
        let inner = self.inner();
        let result = tokio::select! {
            biased;
            result = inner.resource(&call) => result,
            () = inner.cut.cancelled() => Err(Problem::Closed),
        };
        inner.answered(result, CallInfo::default(), call.call_id, None)
    }
}

impl Inner {
    async fn resource(self: &Arc<Self>, call: &ResourceCall) -> Result<Begun, Problem> {
        let time = match call.timeout {
            Setting::Unset => self.config.timeout,
            Setting::Set(time) => time,
            Setting::Invalid => {
                let message = "Invalid value for 'timeout': expected a number of seconds above 0";
                return Err(Problem::invalid("timeout", message));
            }
        };
        if let Some(key) = &call.key
            && call.resource.calls_models()
            && let Some(models) = &key.models
        {
            // Its file or its job may name any model.
            return Err(Problem::ModelNotAllowed {
                model: call.resource.path().to_owned(),
                allowed: models.clone(),
            });
        }
        let query = Query::of(call.query.as_deref())?;
        let body = self.resource_body(call).await?;
        let named = call.provider.as_ref().or(query.provider.as_ref());
        let provider = named.or(body.provider.as_ref());
        let account = self.account(call, provider.map_or(DEFAULT_PROVIDER, String::as_str))?;
        let time = account.timeout.map_or(time, |own| own.min(time));
        let until = Instant::now() + time;
        let started = Instant::now();
        // 0 where no answer begins.
        let mut status = 0;
        let url = url(&account.upstream, call, &query.pairs)?;
        let result = self
            .resource_at(account, call, url, &body, (time, until), &mut status)
            .await;
        let (settings, latency) = (account.settings, started.elapsed());
        (call.events).upstream(settings, &account.provider, status, latency);
        if let Err(Failed { cause, detail, .. }) = &result {
            tracing::warn!(
                request_id = call.call_id,
                account = account.provider,
                resource = call.resource.path(),
                status,
                cause,
                detail,
                "a call without a model failed"
            );
        }
        result.map_err(|failed| failed.problem)
    }

    /// Large bodies are read on a separate thread.
    async fn resource_body(self: &Arc<Self>, call: &ResourceCall) -> Result<ResourceBody, Problem> {
        if call.body.len() < super::prepare::LARGE_BODY_BYTES {
            return ResourceBody::of(call);
        }
        let call = call.clone();
        self.apart(move |_| ResourceBody::of(&call)).await?
    }

    fn account(&self, call: &ResourceCall, provider: &str) -> Result<&Account, Problem> {
        let settings = call.resource.of_settings();
        let mut accounts = self.config.accounts.iter();
        let found = accounts.find(|one| one.settings == settings && one.provider == provider);
        found.ok_or_else(|| {
            let shown: String = provider.chars().filter(|c| !c.is_control()).take(64).collect();
            let message = format!(
                "{}: the provider {shown} has no account here: {settings} of the configuration names none",
                call.resource.path()
            );
            Problem::invalid(PROVIDER, message)
        })
    }

    async fn resource_at(
        &self,
        account: &Account,
        call: &ResourceCall,
        url: Url,
        body: &ResourceBody,
        (time, until): (Duration, Instant),
        status: &mut u16,
    ) -> Result<Begun, Failed> {
        let upstream = &account.upstream;
        let mut headers = HeaderMap::new();
        let accept = call.codings.as_deref();
        headers.insert(header::ACCEPT_ENCODING, coding::negotiated(accept));
        let key_header = upstream.key_header;
        let to = client::Target {
            upstream,
            address: &Address::of(url),
            key: &Key::of(upstream, key_header),
            key_header,
        };
        let method = call.method.clone();
        let sending = client::send(&self.clients, method, to, headers, &body.payload);
        let response = match timeout_at(until, sending).await {
            Err(_) => {
                let group = account.provider.clone();
                let problem = Problem::TimedOutCalling { group, after: time };
                return Err(Failed::new("time-out", problem));
            }
            Ok(Err(silence)) => {
                let message = silence.cause.message().into();
                let problem = Problem::Unreachable { message };
                let detail = silence.detail;
                let failed = Failed::new(silence.cause.as_str(), problem);
                return Err(Failed { detail, ..failed });
            }
            Ok(Ok(response)) => response,
        };
        *status = response.status().as_u16();
        let secrets = Secrets::of(upstream);
        if !response.status().is_success() {
            return Err(refused(response, until, &secrets).await);
        }
        begun(response, call, &account.provider, &secrets)
    }
}

/// The upstream answered, but with no success.
async fn refused(response: Response, until: Instant, secrets: &Secrets) -> Failed {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        let status = status.as_u16();
        let message =
            format!("The upstream answered {status}, which is neither a success nor an error");
        return Failed::new("no success, no error", Problem::Unreachable { message });
    }
    let hints = Hints::of(response.headers(), SystemTime::now());
    let error = error_body::read(response, until, secrets).await;
    let problem = Problem::Upstream {
        status,
        message: error.message,
        body: error.object,
        retry_after: hints.after.filter(|_| retry::may_hint(status)),
        should_retry: hints.again,
    };
    Failed::new("error status", problem)
}

/// The answer, whose bytes pass while they come.
fn begun(
    response: Response,
    call: &ResourceCall,
    provider: &str,
    secrets: &Secrets,
) -> Result<Begun, Failed> {
    let status = response.status();
    let coding = Coding::of(response.headers()).map_err(|_| {
        let message = "The upstream answered in a content coding that it was not asked for".into();
        Failed::new("unknown coding", Problem::Unreachable { message })
    })?;
    let mut headers = HeaderMap::new();
    call_headers::pass(response.headers(), &mut headers);
    if let Some(name) = response.headers().get(header::CONTENT_DISPOSITION) {
        headers.insert(header::CONTENT_DISPOSITION, name.clone());
    }
    secrets.mask_headers(&mut headers);
    let mut length = content_length(response.headers());
    let mut chunks = rest(Vec::new(), response, provider.to_owned());
    if let Some(coding) = coding
        && !coding.accepted(call.codings.as_deref())
    {
        headers.remove(header::CONTENT_ENCODING);
        length = None;
        chunks = coding::decoded(chunks, coding).boxed();
    }
    let (usage, watch) = (Meter::known(), Watch::default());
    let mean = Arc::default();
    Ok(Begun {
        status,
        headers,
        body: AnswerBody::new(
            Chunks::Stream(chunks),
            length,
            usage,
            watch,
            Bound::Idle,
            None,
            mean,
        ),
    })
}

/// Where a call goes.
fn url(
    upstream: &Upstream,
    call: &ResourceCall,
    query: &[(String, String)],
) -> Result<Url, Problem> {
    let base = format!("{}{}", upstream.api_base, call.resource.path());
    // The configuration has read it.
    let unreadable = |_| Problem::Unreachable {
        message: "The account's address is no URL".into(),
    };
    let mut url = Url::parse(&base).map_err(unreadable)?;
    if let Some(id) = &call.id {
        // These would name something else at the upstream.
        if matches!(id.as_str(), "" | "." | "..") {
            return Err(Problem::Invalid {
                message: format!("{}: the path names no id", call.resource.path()),
                param: None,
            });
        }
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.push(id).extend(call.action.split('/').skip(1));
        }
    }
    url.set_query(upstream.query.as_deref());
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(url)
}

impl Query {
    fn of(text: Option<&str>) -> Result<Self, Problem> {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
            if let Some(name) = resource::not_served(&name) {
                return Err(resource::by_model(name));
            }
            if name == PROVIDER {
                query.provider = Some(value.into_owned());
            } else if !OF_GATEWAY.contains(&&*name) {
                query.pairs.push((name.into_owned(), value.into_owned()));
            }
        }
        Ok(query)
    }
}
