//! [`Router`]: groups of deployments, called by priority.

pub(crate) mod endpoints;

use std::{collections::HashMap, sync::Arc};

use futures_util::FutureExt as _;
use http::StatusCode;
use tokio::{
    sync::Semaphore,
    time::{Duration, Instant, sleep, timeout_at},
};
use vorrang_scheduler::{Claim, GroupStatus, Permit, Refused, Reserve, Scheduler, Ticket};

use crate::{
    Answer, Call, CallError, CallInfo, Config, Events, GroupSettings, KeyPolicy, Stage,
    WaitOutcome,
    answer::buffered::BufferedBody,
    attempt::{
        Attempt, Begun, Failed,
        backoff::{Next, Situation},
        secrets::Secrets,
    },
    call_headers,
    config::kept,
    error::Problem,
    provider::{client::Clients, retry},
    request::{
        Layout,
        tenant::{self, Tenants},
        terms,
    },
    tokens::{self, MeanCompletion},
    waiting::{
        by_key::WaitingByKey,
        estimates,
        room::{Room, Unbounded, WaitingCall, WaitingCalls},
    },
};

/// Calls groups of deployments, each request when it is its turn. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Router {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Arc<Config>,
    scheduler: Scheduler,
    groups: Vec<Group>,
    /// Groups by name and alias.
    names: HashMap<String, usize>,
    clients: Clients,
    tenants: Tenants,
    /// Of keys that may only have so many.
    waiting_by_key: WaitingByKey,
    /// Large requests that may be read at once: half of the cores.
    reading: Arc<Semaphore>,
    waiting: WaitingCalls,
}

/// What a [`Router`] may use of its process.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Idle upstream connections that are kept for later calls, over all hosts; at least one for each host.
    pub idle_connections: usize,
    /// Room for waiting calls.
    pub room: Arc<dyn Room>,
}

impl Default for Bounds {
    /// 256 idle connections, and room for every call.
    fn default() -> Self {
        Self {
            idle_connections: 256,
            room: Arc::new(Unbounded),
        }
    }
}

/// What a request asks for, and where in its body.
struct Prepared {
    layout: Layout,
    timeout: Duration,
    claim: Claim,
    input_tokens: u64,
}

/// Reading less than this takes no time that others would notice.
const LARGE_BODY_BYTES: usize = 128 * 1024;

/// A group that is open.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) settings: GroupSettings,
    pub(crate) queue: vorrang_scheduler::Group,
    pub(crate) mean: Arc<MeanCompletion>,
    /// Of each deployment.
    secrets: Vec<Secrets>,
}

/// One group as metrics show it.
#[derive(Debug, Clone)]
pub struct GroupView {
    /// The `model_name`.
    pub name: String,
    /// What this instance knows of it.
    pub status: GroupStatus,
    /// One for each deployment, in the order of [`GroupStatus::deployments`].
    pub limits: Vec<DeploymentLimits>,
    /// What the reserve keeps of each of them; empty without one.
    pub reserve: Vec<DeploymentLimits>,
    /// Whether tickets of any priority are paced.
    pub paced: bool,
}

/// A deployment's configured limits, or so much of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentLimits {
    /// The deployment's id.
    pub id: String,
    /// Requests per window.
    pub rpm: Option<u64>,
    /// Tokens per window.
    pub tpm: Option<u64>,
    /// Open calls.
    pub max_parallel_requests: Option<u64>,
}

impl Router {
    /// Opens every group of the configuration. Needs a tokio runtime.
    pub fn new(config: Arc<Config>, scheduler: Scheduler) -> Self {
        Self::bounded(config, scheduler, Bounds::default())
    }

    /// Opens every group, and stays within these bounds.
    pub fn bounded(config: Arc<Config>, scheduler: Scheduler, bounds: Bounds) -> Self {
        let open = |settings: &GroupSettings| Group {
            settings: settings.clone(),
            queue: scheduler.open(&settings.name, &config.group_config(settings)),
            mean: Arc::default(),
            secrets: settings
                .deployments
                .iter()
                .map(|deployment| Secrets::of_target(&deployment.target))
                .collect(),
        };
        let groups: Vec<Group> = config.groups.iter().map(open).collect();
        let mut names: HashMap<String, usize> = HashMap::new();
        for alias in &config.aliases {
            if let Some(index) = groups
                .iter()
                .position(|group| group.settings.name == alias.group)
            {
                names.insert(alias.name.clone(), index);
            }
        }
        for (index, group) in groups.iter().enumerate() {
            names.insert(group.settings.name.clone(), index);
        }
        let clients = Clients::new(bounds.idle_connections / config.hosts().len().max(1));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            inner: Arc::new(Inner {
                reading: Arc::new(Semaphore::new((cores / 2).max(1))),
                tenants: Tenants::new(&config),
                waiting_by_key: WaitingByKey::default(),
                config,
                scheduler,
                groups,
                names,
                clients,
                waiting: WaitingCalls::new(bounds.room),
            }),
        }
    }

    /// Queues a call and makes it when it is its turn. Dropping the future leaves the queue and cancels the upstream call (A7).
    ///
    /// # Errors
    /// When there is no answer to give: the client's mistake, no permit within the request's time, or the upstream's error after the retries.
    pub async fn call(&self, call: Call) -> Result<Answer, CallError> {
        let mut info = CallInfo::default();
        match self.inner.run(&call, &mut info).await {
            Ok(begun) => {
                let mut headers = begun.headers;
                headers.extend(call_headers::of_call(&info, &call.call_id));
                Ok(Answer {
                    status: begun.status,
                    headers,
                    body: BufferedBody::new(begun.body),
                    info,
                })
            }
            Err(problem) => Err(CallError {
                problem,
                info: Box::new(info),
                call_id: call.call_id,
            }),
        }
    }

    /// Every model name and alias that is listed and that the key, where there is one, may call.
    pub fn models<'a>(&'a self, key: Option<&'a KeyPolicy>) -> impl Iterator<Item = &'a str> {
        let config = &self.inner.config;
        let groups = config.groups.iter().map(|group| (&group.name, &group.name));
        let listed = config.aliases.iter().filter(|alias| !alias.hidden);
        groups
            .chain(listed.map(|alias| (&alias.name, &alias.group)))
            .filter(move |(name, group)| key.is_none_or(|key| key.allows(name, group)))
            .map(|(name, _)| name.as_str())
    }

    /// Every group with its use and limits.
    pub fn groups(&self) -> Vec<GroupView> {
        let view = |group: &Group| {
            let deployments = group.settings.deployments.iter();
            let limits: Vec<_> = deployments.map(DeploymentLimits::from).collect();
            let reserve = group.settings.reserve;
            GroupView {
                name: group.settings.name.clone(),
                status: group.queue.status(),
                reserve: reserve
                    .map(|reserve| limits.iter().map(|of| of.kept_by(reserve)).collect())
                    .unwrap_or_default(),
                limits,
                paced: group.settings.pace_worse_than.is_some(),
            }
        };
        self.inner.groups.iter().map(view).collect()
    }

    /// The index of the group of this name or alias.
    pub(crate) fn group_named(&self, name: &str) -> Option<usize> {
        self.inner.names.get(name).copied()
    }

    pub(crate) fn groups_with_status(&self) -> impl Iterator<Item = (&GroupSettings, GroupStatus)> {
        let groups = self.inner.groups.iter();
        groups.map(|group| (&group.settings, group.queue.status()))
    }

    /// Whether every group has an open session (readiness).
    pub fn ready(&self) -> bool {
        self.inner.scheduler.ready()
    }
}

impl From<&crate::config::DeploymentSettings> for DeploymentLimits {
    fn from(settings: &crate::config::DeploymentSettings) -> Self {
        Self {
            id: settings.id.clone(),
            rpm: settings.rpm,
            tpm: settings.tpm,
            max_parallel_requests: settings.max_parallel_requests,
        }
    }
}

impl DeploymentLimits {
    /// What a reserve keeps of each limit for the better ones.
    fn kept_by(&self, reserve: Reserve) -> Self {
        let part = |limit: Option<u64>| limit.map(|limit| kept(reserve, limit));
        Self {
            id: self.id.clone(),
            rpm: part(self.rpm),
            tpm: part(self.tpm),
            max_parallel_requests: part(self.max_parallel_requests),
        }
    }
}

impl Inner {
    async fn run(self: &Arc<Self>, call: &Call, info: &mut CallInfo) -> Result<Begun, Problem> {
        let prepared = self.prepared(call, info).await?;
        let request = prepared.layout.request();
        let group = self.group(call, &request.model)?;
        let timeout = prepared.timeout;
        let deadline = Instant::now() + timeout;
        let attempt = Attempt {
            config: &self.config,
            clients: &self.clients,
            group,
            request: &request,
            // No comment can be written into a coded event stream.
            accept_encoding: call
                .accept_encoding
                .as_deref()
                .filter(|_| !(request.stream && self.keeps_alive(group))),
            input_tokens: prepared.input_tokens,
            events: &*call.events,
            timeout,
            deadline,
        };

        let mut ticket = group.queue.join_as(prepared.claim);
        let rank = self.waiting.rank(prepared.claim.priority);
        let mut last = None;
        let mut tried = vec![false; group.settings.deployments.len()];
        loop {
            let entry = self.waiting.enter(rank);
            if request.stream {
                call.events.stage(Stage::Entering);
            }
            let waited = self
                .wait(call, group, &mut ticket, entry, deadline, info)
                .await;
            info.waited = ticket.waited();
            let permit = waited.map_err(|refused| refused.or_last(last.take()))?;
            let deployment = &group.settings.deployments[permit.deployment()];
            let secrets = &group.secrets[permit.deployment()];
            info.deployment.clone_from(&deployment.id);
            info.numbers = Some(permit.numbers());
            info.keepalive = deployment.keepalive.unwrap_or(self.config.keepalive);
            info.attempts += 1;
            if request.stream {
                call.events.stage(Stage::Calling);
            }
            match secrets.clean(attempt.make(permit).await) {
                Ok(begun) => return Ok(begun),
                Err(failed) if failed.expired => {
                    info.attempts -= 1;
                    ticket = failed.permit.retry();
                }
                Err(failed) => {
                    tried[failed.permit.deployment()] = true;
                    let failed = *failed;
                    let pause = match self.after(group, &failed, &tried, info, deadline) {
                        Next::Again(pause, _) => pause,
                        Next::GiveUp(_) => return Err(failed.problem),
                    };
                    last = Some(failed.problem);
                    // Others may go in the meantime: the permit is back, and the ticket keeps its arrival (A8).
                    let pausing = failed.permit.release();
                    if !pause.is_zero() {
                        sleep(pause).await;
                    }
                    ticket = pausing.enter();
                }
            }
        }
    }

    /// What happens after a failed attempt, and a line in the log that says so.
    fn after(
        &self,
        group: &Group,
        failed: &Failed,
        tried: &[bool],
        info: &CallInfo,
        deadline: Instant,
    ) -> Next {
        let index = failed.permit.deployment();
        let deployment = &group.settings.deployments[index];
        let mut cooling = group.queue.status().deployments.into_iter();
        let cooling: Vec<_> = tried
            .iter()
            .map(|_| cooling.next().and_then(|deployment| deployment.cooling))
            .collect();
        let situation = Situation {
            attempts: info.attempts,
            retries: deployment.num_retries.unwrap_or(self.config.num_retries),
            retry: failed.retry,
            hint: failed.hint,
            cool: failed.cool,
            deployment: index,
            tried,
            cooling: &cooling,
            left: deadline.saturating_duration_since(Instant::now()),
            least: self.config.retry_after,
        };
        let next = situation.next(rand::random());
        let (Next::Again(_, words) | Next::GiveUp(words)) = next;
        let pause = match next {
            Next::Again(pause, _) => Some(pause.as_millis()),
            Next::GiveUp(_) => None,
        };
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    group = info.group,
                    deployment = deployment.id,
                    attempt = info.attempts,
                    status = failed.problem.status().as_u16(),
                    cause = failed.cause,
                    detail = failed.detail,
                    next = words,
                    pause_ms = pause,
                    "an attempt failed"
                )
            };
        }
        match (next, failed.counts) {
            (Next::Again(..), _) => line!(info),
            (Next::GiveUp(_), true) => line!(warn),
            // The client's own mistake.
            (Next::GiveUp(_), false) => line!(debug),
        }
        next
    }

    /// Reads the request: a large one on a thread of its own, so that all others go on, and only a few of them at once.
    async fn prepared(
        self: &Arc<Self>,
        call: &Call,
        info: &mut CallInfo,
    ) -> Result<Prepared, Problem> {
        if call.body.len() < LARGE_BODY_BYTES {
            return self.prepare(call, info);
        }
        // The semaphore is never closed.
        let turn = self.reading.clone().acquire_owned().await;
        let (inner, call) = (self.clone(), call.clone());
        let reading = tokio::task::spawn_blocking(move || {
            // Until it is done, also where the client has left.
            let _turn = turn;
            let mut info = CallInfo::default();
            (inner.prepare(&call, &mut info), info)
        });
        match reading.await {
            Ok((prepared, read)) => {
                *info = read;
                prepared
            }
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is ending, and this future with it.
                Err(_) => Err(Problem::Closed),
            },
        }
    }

    fn prepare(&self, call: &Call, info: &mut CallInfo) -> Result<Prepared, Problem> {
        let path_model = call.path_model.as_deref();
        let layout = Layout::read(call.endpoint, call.body.clone(), path_model)?;
        let request = layout.request();
        let group = self.group(call, &request.model)?;
        info.group.clone_from(&group.settings.name);
        info.streamed = request.stream;
        let priority = terms::priority(call, &request.fields, &group.settings, &self.config)?;
        info.priority = priority.effective;
        info.prioritized = priority.named;
        let timeout = terms::timeout(call, &request.fields, &self.config)?;
        let reserved =
            tokens::reserved(&request, &group.settings, priority.effective, &group.mean)?;
        let tokens = reserved.total;
        let claim = Claim {
            priority: priority.effective,
            tokens,
            share: tenant::share(
                &self.tenants,
                call,
                &request.fields,
                &group.settings,
                tokens,
            ),
            tried: 0,
        };
        Ok(Prepared {
            layout,
            timeout,
            claim,
            input_tokens: reserved.input,
        })
    }

    fn group(&self, call: &Call, model: &str) -> Result<&Group, Problem> {
        let group = self.names.get(model).map(|&index| &self.groups[index]);
        // Before the model is known to exist: a key learns nothing of models that are not its own.
        if let Some(key) = &call.key
            && !key.allows(model, group.map_or(model, |group| &group.settings.name))
        {
            return Err(Problem::ModelNotAllowed {
                model: model.to_owned(),
                allowed: key.models.clone().unwrap_or_default(),
            });
        }
        group.ok_or_else(|| {
            let message = format!(
                "{}: Invalid model name passed in model={model}. Call `/v1/models` to view available models for your key.",
                call.route
            );
            Problem::invalid("model", message)
        })
    }

    /// Whether comments may have to be written into event streams of a group.
    fn keeps_alive(&self, group: &Group) -> bool {
        let deployments = group.settings.deployments.iter();
        let own = deployments.filter_map(|deployment| deployment.keepalive);
        own.chain([self.config.keepalive])
            .any(|every| !every.is_zero())
    }

    /// Waits for the permit until the time is up.
    async fn wait(
        &self,
        call: &Call,
        group: &Group,
        ticket: &mut Ticket,
        mut entry: WaitingCall<'_>,
        deadline: Instant,
        info: &mut CallInfo,
    ) -> Result<Permit, NoPermit> {
        let (settings, span) = (&group.settings, self.config.span());
        let (name, priority) = (&settings.name, info.priority);
        let mut watch = WaitWatch {
            events: &*call.events,
            group: name,
            priority: info.priority,
            since: Instant::now(),
            outcome: WaitOutcome::Gone,
        };
        let turned_away = || {
            let status = group.queue.status();
            NoPermit(Problem::TurnedAway {
                retry_after: estimates::drained(&status, priority, settings, span),
            })
        };
        let ahead = tokio::select! {
            biased;
            ahead = timeout_at(deadline, ticket.ahead()) => ahead.ok().flatten(),
            () = entry.turned_away() => {
                watch.outcome = WaitOutcome::TurnedAway;
                return Err(turned_away());
            }
        };
        let status = group.queue.status();
        // A grant is told before the status of after it: of one that was granted meanwhile there is nothing left to reckon.
        let granted = ticket.granted().now_or_never();
        if let (Some(ahead), None) = (ahead, &granted) {
            let least = estimates::least_wait(&status, ahead, info.priority, settings, span);
            let left = deadline.saturating_duration_since(Instant::now());
            info.least_wait = Some(least);
            if self.config.refuse_late && least > left {
                watch.outcome = WaitOutcome::TooLate;
                // By then as many have been served as it takes for a request as patient as this one.
                let served = estimates::served(&status, least, info.priority, settings, span);
                return Err(NoPermit(Problem::TooLate {
                    group: name.clone(),
                    least,
                    retry_after: served.saturating_sub(left),
                }));
            }
            if info.streamed {
                call.events.stage(Stage::Queued {
                    ahead,
                    least_wait: least,
                });
            }
        }
        let key = call.key.as_ref().filter(|_| granted.is_none());
        let Some(_waiting) = self.waiting_by_key.enter(key) else {
            watch.outcome = WaitOutcome::QueueFull;
            return Err(NoPermit(Problem::KeyQueueFull {
                most: key.and_then(|key| key.max_waiting).unwrap_or_default(),
                retry_after: estimates::drained(&status, info.priority, settings, span),
            }));
        };
        let granted = match granted {
            Some(granted) => Ok(granted),
            None => tokio::select! {
                biased;
                granted = timeout_at(deadline, ticket.granted()) => granted,
                () = entry.turned_away() => {
                    watch.outcome = WaitOutcome::TurnedAway;
                    return Err(turned_away());
                }
            },
        };
        let (outcome, result) = match granted {
            Ok(Ok(permit)) => (WaitOutcome::Granted, Ok(permit)),
            Ok(Err(Refused::NeverFits)) => {
                let message = format!("The request can never fit under the limits of {name}");
                (WaitOutcome::NeverFits, Err(Problem::NeverFits { message }))
            }
            Ok(Err(Refused::QueueFull)) => {
                let status = group.queue.status();
                let retry_after = estimates::drained(&status, info.priority, settings, span);
                (
                    WaitOutcome::QueueFull,
                    Err(Problem::QueueFull {
                        group: name.clone(),
                        retry_after,
                    }),
                )
            }
            Ok(Err(Refused::Cooling(retry::EXHAUSTED))) => {
                let group = name.clone();
                (WaitOutcome::Cooling, Err(Problem::Exhausted { group }))
            }
            Ok(Err(Refused::Cooling(status))) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                (
                    WaitOutcome::Cooling,
                    Err(Problem::Cooling {
                        group: name.clone(),
                        status,
                    }),
                )
            }
            Ok(Err(Refused::Closed)) => (WaitOutcome::Closed, Err(Problem::Closed)),
            Err(_) => (WaitOutcome::TimedOut, Err(self.out_of_time(group, ahead))),
        };
        watch.outcome = outcome;
        result.map_err(NoPermit)
    }

    /// The time was up while waiting: because others were first, or because nobody could be granted anything.
    fn out_of_time(&self, group: &Group, ahead: Option<u64>) -> Problem {
        let status = group.queue.status();
        let usable = status.ready && status.silent_for <= self.config.timing.lease;
        let refusal = status.failure.as_ref().filter(|error| error.is_refusal());
        if let Some(error) = refusal.filter(|_| !usable) {
            Problem::BackendRefuses {
                cause: error.cause(),
            }
        } else if status.silent_for > self.config.timing.lease {
            Problem::BackendSilent {
                silent_for: status.silent_for,
            }
        } else if !status.ready {
            Problem::BackendRecovering
        } else {
            estimates::timed_out(&group.settings, ahead, &status)
        }
    }
}

/// Why there is no permit.
struct NoPermit(Problem);

impl NoPermit {
    /// A call that saw a deployment's own words about its key, model or quota passes them on.
    fn or_last(self, last: Option<Problem>) -> Problem {
        match (self.0, last) {
            (Problem::Cooling { .. } | Problem::Exhausted { .. }, Some(last))
                if matches!(last.status().as_u16(), 401 | 402 | 404 | 429) =>
            {
                last
            }
            (problem, _) => problem,
        }
    }
}

/// Reports a wait when it ends, also when its future is dropped.
struct WaitWatch<'a> {
    events: &'a dyn Events,
    group: &'a str,
    priority: i32,
    since: Instant,
    outcome: WaitOutcome,
}

impl Drop for WaitWatch<'_> {
    fn drop(&mut self) {
        self.events.waited(
            self.group,
            self.priority,
            self.since.elapsed(),
            self.outcome,
        );
    }
}
