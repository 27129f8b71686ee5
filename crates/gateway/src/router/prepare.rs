//! Reads what a request asks for, before it queues.

use std::sync::Arc;

use tokio::time::{Duration, Instant};
use vorrang_scheduler::Claim;

use super::Inner;
use crate::{
    Call, CallInfo, Endpoint,
    config::DeploymentSettings,
    problem::Problem,
    request::{
        Layout, Request, tenant,
        terms::{self, Priority},
    },
    tokens,
    translate::Untranslatable,
};

/// What a request asks for, and where in its body.
pub(super) struct Prepared {
    pub(super) layout: Arc<Layout>,
    pub(super) terms: Terms,
    /// The group that it names.
    pub(super) group: usize,
    /// An error: it can never be served there.
    pub(super) stop: Result<Stop, Problem>,
}

/// What holds for a request in all groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// The time that it has, and when that is over.
    pub(super) timeout: Duration,
    pub(super) deadline: Instant,
    /// Its own number of retries, and its own time for one attempt of a stream.
    pub(super) num_retries: Option<u32>,
    pub(super) stream_timeout: Option<Duration>,
}

/// A group on the call's way, and what the call asks of it.
pub(super) struct Stop {
    pub(super) group: usize,
    pub(super) layout: Arc<Layout>,
    pub(super) claim: Claim,
    /// Whether anything named its priority.
    pub(super) prioritized: bool,
    /// The priority that the request itself names.
    pub(super) asked_priority: Option<i32>,
    pub(super) input_tokens: u64,
    pub(super) untranslatable: Untranslatable,
}

/// So many deployments a claim can name.
const MOST_TRIED: usize = 52;

/// Reading less than this takes no time that others would notice.
pub(super) const LARGE_BODY_BYTES: usize = 128 * 1024;

impl Inner {
    /// Reads the request. Large requests are read on separate threads, a few at a time, so that others are not delayed.
    pub(super) async fn prepared(
        self: &Arc<Self>,
        call: &Call,
        info: &mut CallInfo,
    ) -> Result<Prepared, Problem> {
        if call.body.len() < LARGE_BODY_BYTES {
            return self.prepare(call, info);
        }
        let call = call.clone();
        let read = self.apart(move |inner| {
            let mut info = CallInfo::default();
            (inner.prepare(&call, &mut info), info)
        });
        let (prepared, read) = Box::pin(read).await?;
        *info = read;
        prepared
    }

    /// The same request, or what a fallback makes of it, in another group.
    pub(super) async fn stop(
        self: &Arc<Self>,
        call: &Call,
        layout: Arc<Layout>,
        group: usize,
    ) -> Result<Stop, Problem> {
        let read = move |inner: &Self, call: &Call| {
            let request = layout.request();
            let priority = inner.priority(call, &request, group)?;
            inner.stop_at(call, &layout, &request, group, priority)
        };
        if call.body.len() < LARGE_BODY_BYTES {
            return read(self, call);
        }
        let call = call.clone();
        self.apart(move |inner| read(inner, &call)).await?
    }

    /// On a separate thread.
    pub(super) async fn apart<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        // The semaphore is never closed.
        let turn = self.reading.clone().acquire_owned().await;
        let inner = self.clone();
        let reading = tokio::task::spawn_blocking(move || {
            // Held until it is done, also where the client has left.
            let _turn = turn;
            read(&inner)
        });
        match reading.await {
            Ok(read) => Ok(read),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is ending, and this future with it.
                Err(_) => Err(Problem::Closed),
            },
        }
    }

    fn prepare(&self, call: &Call, info: &mut CallInfo) -> Result<Prepared, Problem> {
        let layout = Arc::new(Layout::of(call)?);
        let group = self.group(call, layout.model())?;
        info.group.clone_from(&self.groups[group].settings.name);
        let request = layout.request();
        for field in &self.config.required_fields {
            required(&request, field)?;
        }
        info.streamed = request.stream;
        let priority = self.priority(call, &request, group)?;
        info.priority = priority.effective;
        info.prioritized = priority.named;
        let steering = layout.steering.as_deref();
        let other = steering.and_then(|steering| steering.request_timeout);
        let timeout = terms::timeout(call, &request.fields, other, &self.config)?;
        let terms = Terms {
            timeout,
            deadline: Instant::now() + timeout,
            num_retries: terms::num_retries(call, steering)?,
            stream_timeout: terms::stream_timeout(call, steering)?,
        };
        if let Some(steering) = steering {
            for (field, to) in steering.targets() {
                self.may_ask_for(call, field, &to.model)?;
            }
        }
        let stop = self.stop_at(call, &layout, &request, group, priority);
        drop(request);
        Ok(Prepared {
            stop,
            layout,
            terms,
            group,
        })
    }

    fn priority(
        &self,
        call: &Call,
        request: &Request<'_>,
        group: usize,
    ) -> Result<Priority, Problem> {
        let settings = &self.groups[group].settings;
        terms::priority(call, &request.fields, settings, &self.config)
    }

    fn stop_at(
        &self,
        call: &Call,
        layout: &Arc<Layout>,
        request: &Request<'_>,
        index: usize,
        priority: Priority,
    ) -> Result<Stop, Problem> {
        let group = &self.groups[index];
        let reserved = tokens::reserved(request, &group.settings, priority.effective, &group.mean)?;
        let found = self.names.find(&request.model);
        let model = found.map_or(&*request.model, |found| found.model);
        let untranslatable = Untranslatable::find(request, &group.settings, model)?;
        let claim = Claim {
            priority: priority.effective,
            tokens: reserved.tokens,
            share: tenant::share(
                &self.tenants,
                call,
                &request.fields,
                &group.settings,
                reserved.tokens.total(),
            ),
            tried: without_endpoint(&group.settings.deployments, call.endpoint, &untranslatable),
            failed: false,
            key: self.tenants.key(call.key.as_ref()),
        };
        Ok(Stop {
            group: index,
            layout: layout.clone(),
            claim,
            prioritized: priority.named,
            asked_priority: priority.asked,
            input_tokens: reserved.input,
            untranslatable,
        })
    }
}

/// Whether a request has this field, `a` or `a.b`.
fn required(request: &Request<'_>, field: &str) -> Result<(), Problem> {
    let (outer, inner) = match field.split_once('.') {
        Some((outer, inner)) => (outer, Some(inner)),
        None => (field, None),
    };
    let has = |inner: &str, json: &str| {
        let object = serde_json::from_str::<serde_json::Map<_, serde_json::Value>>(json);
        object.is_ok_and(|object| object.contains_key(inner))
    };
    let value = request.fields.get(outer);
    if value.is_some_and(|json| inner.is_none_or(|inner| has(inner, json))) {
        return Ok(());
    }
    Err(Problem::Invalid {
        message: format!(
            "Missing required parameter: '{field}'. This gateway's configuration requires it."
        ),
        param: (field == "user").then_some("user"),
    })
}

/// Deployments that the queue only grants where no other has room: those without the endpoint.
fn without_endpoint(
    deployments: &[DeploymentSettings],
    endpoint: Endpoint,
    untranslatable: &Untranslatable,
) -> u64 {
    let lacking = deployments
        .iter()
        .take(MOST_TRIED)
        .enumerate()
        .filter(|(_, deployment)| {
            deployment.lacks(endpoint).is_some() || untranslatable.at(deployment).is_some()
        });
    lacking.fold(0, |bits, (index, _)| bits | 1 << index)
}
