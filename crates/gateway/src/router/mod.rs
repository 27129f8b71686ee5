//! [`Router`]: groups of deployments, called by priority.

pub(crate) mod chain;
pub(crate) mod endpoints;
pub(crate) mod fleet;
pub(crate) mod models;
mod names;
pub(crate) mod permit;
pub(crate) mod place;
mod prepare;
mod reload;
mod resources;
mod run;
pub(crate) mod views;
mod wait;

use std::{
    ops::Deref,
    pin::pin,
    sync::{Arc, Weak},
};

use arc_swap::ArcSwap;
use futures_util::future::{self, Either};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use vorrang_scheduler::{GroupStatus, Scheduler};

use crate::{
    Answer, Call, CallError, CallInfo, Config, Endpoint, GroupSettings, KeyPolicy,
    answer::buffered::BufferedBody,
    attempt::Begun,
    call_headers,
    config::{Alias, LeftOut},
    group::OpenGroup,
    journal::{Ended, Journal, LiveCall},
    problem::Problem,
    provider::{client::Clients, in_process::Upstreams},
    request::tenant::Tenants,
    router::{
        fleet::Member,
        names::Names,
        reload::{clients, open},
    },
    waiting::{
        by_key::WaitingByKey,
        room::{Room, Unbounded, WaitingCalls},
    },
};

/// Calls groups of deployments, each request when it is granted. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Router {
    current: Arc<ArcSwap<Inner>>,
}

/// A router with one configuration. A call keeps the one that it began with, but for what a deployment is called by.
#[derive(Debug)]
struct Inner {
    /// The router's, to look up its present configuration.
    current: Weak<ArcSwap<Inner>>,
    config: Arc<Config>,
    scheduler: Scheduler,
    groups: Vec<OpenGroup>,
    names: Names,
    clients: Arc<Clients>,
    tenants: Tenants,
    /// Of keys that may only have so many.
    waiting_by_key: WaitingByKey,
    /// Large requests that may be read at once: half of the cores.
    reading: Arc<Semaphore>,
    waiting: Arc<WaitingCalls>,
    journal: Arc<Journal>,
    member: Arc<Member>,
    bounds: Bounds,
    /// Ends all calls and answers.
    cut: CancellationToken,
}

/// What a [`Router`] may use of its process.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Idle upstream connections that are kept for later calls, over all hosts; at least one for each host.
    pub idle_connections: usize,
    /// Room for waiting calls.
    pub room: Arc<dyn Room>,
    /// Upstreams in this process.
    pub upstreams: Upstreams,
}

impl Default for Bounds {
    /// 256 idle connections, and room for every call.
    fn default() -> Self {
        Self {
            idle_connections: 256,
            room: Arc::new(Unbounded),
            upstreams: Upstreams::default(),
        }
    }
}

impl Router {
    /// Opens every group of the configuration. Needs a tokio runtime.
    pub fn new(config: Arc<Config>, scheduler: Scheduler) -> Self {
        Self::bounded(config, scheduler, Bounds::default())
    }

    /// Opens every group, and stays within these bounds.
    pub fn bounded(config: Arc<Config>, scheduler: Scheduler, bounds: Bounds) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let journal = Arc::new(Journal::new());
        let current = Arc::new_cyclic(|current| {
            ArcSwap::from_pointee(Inner {
                current: current.clone(),
                reading: Arc::new(Semaphore::new((cores / 2).max(1))),
                tenants: Tenants::new(&config),
                waiting_by_key: WaitingByKey::default(),
                names: Names::of(&config),
                groups: open(&config, &scheduler, journal.clock(), &[]),
                clients: Arc::new(clients(&config, &bounds)),
                config,
                member: Member::start(current.clone(), &scheduler, journal.clone()),
                scheduler,
                waiting: Arc::new(WaitingCalls::new(bounds.room.clone())),
                journal,
                bounds,
                cut: CancellationToken::new(),
            })
        });
        Self { current }
    }

    fn inner(&self) -> Arc<Inner> {
        self.current.load_full()
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.current.load().config.clone()
    }

    /// Queues a call and makes it when it is granted. Dropping the future leaves the queue and cancels the upstream call (A7).
    ///
    /// # Errors
    /// When there is no answer to give: the client's mistake, no permit within the request's time, or the upstream's error after the retries.
    pub async fn call(&self, mut call: Call) -> Result<Answer, CallError> {
        let mut info = CallInfo::default();
        let inner = self.inner();
        if let Some(model) = inner.config.model_of(call.endpoint) {
            call.model = Some(model.to_owned());
        }
        let live = inner.begin(&call);
        let journaled = JournaledCall {
            call: &call,
            life: &live,
        };
        let result = {
            // Pinned where it is made: `select!` would move it twice, and it has 7 kB.
            let run = pin!(inner.run(&journaled, &mut info));
            let cut = pin!(inner.cut.cancelled());
            match future::select(run, cut).await {
                Either::Left((result, _)) => result,
                Either::Right(_) => Err(Problem::Closed),
            }
        };
        inner.answered(result, info, call.call_id, Some((call.endpoint, live)))
    }

    /// Every model name and alias that is listed and that the key, where there is one, may call.
    pub fn models(&self, key: Option<&KeyPolicy>) -> Vec<String> {
        let inner = self.inner();
        let config = &inner.config;
        let groups = config.groups.iter().map(|group| (&group.name, &group.name));
        let listed = config.aliases.iter().filter(|alias| !alias.hidden);
        groups
            .chain(listed.map(|alias| (&alias.name, &alias.group)))
            .filter(|(name, group)| key.is_none_or(|key| key.allows(name, group)))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Whether a model can be called by this name, and by the key, where there is one.
    pub fn has_model(&self, key: Option<&KeyPolicy>, name: &str) -> bool {
        let inner = self.inner();
        let hidden = |alias: &Alias| alias.hidden && alias.name == name;
        let found = inner.group_index(name);
        found.is_some_and(|index| {
            let group = &inner.groups[index].settings.name;
            !inner.config.aliases.iter().any(hidden)
                && key.is_none_or(|key| key.allows(name, group))
        })
    }

    /// Ends all calls and answers.
    pub(crate) fn cut(&self) {
        self.current.load().cut.cancel();
    }

    pub(crate) fn scheduler(&self) -> Scheduler {
        self.current.load().scheduler.clone()
    }

    /// Whether every group has an open session (readiness).
    pub fn ready(&self) -> bool {
        self.current.load().scheduler.ready()
    }
}

/// A call, and what the journal says of it.
#[derive(Clone, Copy)]
struct JournaledCall<'a> {
    call: &'a Call,
    life: &'a LiveCall,
}

impl Deref for JournaledCall<'_> {
    type Target = Call;

    fn deref(&self) -> &Call {
        self.call
    }
}

impl Inner {
    /// A call has come.
    fn begin(&self, call: &Call) -> LiveCall {
        let key = call.key.as_ref().map(|key| key.name.as_str());
        self.journal.begin(&call.call_id, key)
    }

    /// What a call came to, for its caller. `queued`: where it was one of a model, its endpoint and its entry in the journal.
    fn answered(
        &self,
        result: Result<Begun, Problem>,
        info: CallInfo,
        call_id: String,
        queued: Option<(Endpoint, LiveCall)>,
    ) -> Result<Answer, CallError> {
        let (endpoint, live) = queued.unzip();
        match result {
            Ok(begun) => {
                let mut headers = begun.headers;
                call_headers::add(&mut headers, &info, &call_id);
                Ok(Answer {
                    status: begun.status,
                    headers,
                    body: BufferedBody::new(begun.body, begun.status, live, &self.cut),
                    info,
                })
            }
            Err(problem) => {
                if let Some(live) = live {
                    live.ends(Ended::Failed(problem.status()));
                }
                Err(CallError {
                    problem,
                    info: Box::new(info),
                    call_id,
                    endpoint,
                })
            }
        }
    }

    fn groups_with_status(&self) -> impl Iterator<Item = (&GroupSettings, GroupStatus)> {
        let groups = self.groups.iter();
        groups.map(|group| (&group.settings, group.queue.status()))
    }

    /// The index of the group of this name or alias.
    fn group_index(&self, name: &str) -> Option<usize> {
        self.names.find(name).map(|name| name.group)
    }

    /// The index of the group that a call names.
    fn group(&self, call: &Call, model: &str) -> Result<usize, Problem> {
        let index = self.existing(call, model)?;
        // Tokens can be counted where messages can be sent.
        let endpoint = match call.endpoint {
            Endpoint::CountTokens => Endpoint::Messages,
            endpoint => endpoint,
        };
        let settings = &self.groups[index].settings;
        if let Some(why) = settings.lacks(endpoint) {
            return Err(Problem::no_endpoint(&settings.name, call.endpoint, why));
        }
        Ok(index)
    }

    /// The index of the group that a call names, whatever it can be asked for.
    fn existing(&self, call: &Call, model: &str) -> Result<usize, Problem> {
        let index = self.named(call, model)?;
        index.ok_or_else(|| {
            let mut left_out = self.config.left_out.iter();
            let operation = &call.operation;
            let message = match left_out.find(|left_out| left_out.model == model) {
                Some(LeftOut { reason, .. }) => {
                    format!("{operation}: {model} cannot be called: {reason}")
                }
                None => format!(
                    "{operation}: Invalid model name passed in model={model}. Call `/v1/models` to view available models for your key."
                ),
            };
            Problem::invalid("model", message)
        })
    }

    /// Whether a call may name this model as a fallback, in this field.
    fn may_ask_for(&self, call: &Call, field: &'static str, model: &str) -> Result<(), Problem> {
        if self.named(call, model)?.is_none() {
            let message = format!(
                "Invalid value for '{field}': there is no model {model}. Call `/v1/models` to view available models for your key."
            );
            return Err(Problem::invalid(field, message));
        }
        Ok(())
    }

    /// The group of this name, if there is one. Whether the key allows it is seen before: a key learns nothing of models that are not
    /// its own.
    fn named(&self, call: &Call, model: &str) -> Result<Option<usize>, Problem> {
        let index = self.group_index(model);
        let group = index.map_or(model, |index| &self.groups[index].settings.name);
        if let Some(key) = &call.key
            && !key.allows(model, group)
        {
            return Err(Problem::ModelNotAllowed {
                model: model.to_owned(),
                allowed: key.models.clone().unwrap_or_default(),
            });
        }
        Ok(index)
    }

    /// Whether comments may have to be written into event streams of a group.
    fn keeps_alive(&self, group: &OpenGroup) -> bool {
        let deployments = group.settings.deployments.iter();
        let own = deployments.filter_map(|deployment| deployment.keepalive);
        own.chain([self.config.keepalive])
            .any(|every| !every.is_zero())
    }
}
