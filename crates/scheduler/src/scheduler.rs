//! [`Scheduler`] and [`Group`]: the groups on one instance.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::{Instant, timeout},
};

use crate::{
    backend::{Backend, BackendError, Wake},
    claim::Claim,
    config::{GroupConfig, LimitKind},
    cost::Tokens,
    dispatcher::{Board, Command, GroupShared, Surroundings, supervise},
    message::{ALL_INSTANCES, reason},
    overrides::Overrides,
    ticket::Ticket,
};

/// Events of the scheduler, for metrics. All methods do nothing unless overridden.
pub trait Observer: Send + Sync + fmt::Debug {
    /// A step was answered: how many ops it carried and how long the answer took.
    fn stepped(&self, _group: &str, _ops: usize, _took: Duration) {}
    /// The session was invalid; the instance opens another.
    fn session_invalid(&self, _group: &str) {}
    /// The group's shared state was lost; its recovery has begun.
    fn recovered(&self, _group: &str) {}
    /// A grant was delivered or dispatched so late that it may belong to another ticket (P9); it was returned, and its ticket entered the queue
    /// again.
    fn grant_expired(&self, _group: &str) {}
    /// A group's dispatcher panicked and was replaced.
    fn dispatcher_replaced(&self, _group: &str) {}
    /// A step failed or timed out and is sent again; `kind` is a short stable word.
    fn backend_failed(&self, _group: &str, _kind: &'static str) {}
}

/// Observes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {}

/// Most messages of other instances that wait for a receiver.
const MOST_POSTS: usize = 1024;

/// All groups on one instance. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Scheduler {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    backend: Arc<dyn Backend>,
    instance: Arc<str>,
    observer: Arc<dyn Observer>,
    started: Instant,
    posts: broadcast::Sender<Arc<[u8]>>,
    groups: Mutex<HashMap<Arc<str>, Group>>,
}

impl Scheduler {
    /// A scheduler on a backend. `instance` is unique per process start. Needs a tokio runtime.
    pub fn new(
        backend: Arc<dyn Backend>,
        instance: impl Into<String>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let instance: Arc<str> = instance.into().into();
        let mut wakes = backend.wakes(&instance);
        let inner = Arc::new(Inner {
            backend,
            instance,
            observer,
            started: Instant::now(),
            posts: broadcast::channel(MOST_POSTS).0,
            groups: Mutex::default(),
        });
        let weak = Arc::downgrade(&inner);
        tokio::spawn(async move {
            while let Some(wake) = wakes.recv().await {
                let Some(inner) = weak.upgrade() else { return };
                let wake = match wake {
                    Wake::Post(body) => {
                        // Nobody may listen.
                        let _ = inner.posts.send(body);
                        continue;
                    }
                    wake => wake,
                };
                let groups = inner.groups.lock().unwrap_or_else(PoisonError::into_inner);
                match wake {
                    Wake::Group(name) => groups
                        .get(&name)
                        .into_iter()
                        .for_each(|group| group.shared.send(Command::Wake)),
                    Wake::All => groups
                        .values()
                        .for_each(|group| group.shared.send(Command::WakesLost)),
                    Wake::Post(_) => {}
                }
            }
        });
        Self { inner }
    }

    /// Opens a group and starts its dispatcher, which opens a session at once, and repeats the message until it is answered. The dispatcher
    /// ends with [`Scheduler::close`], or when the scheduler and all groups, tickets and permits are dropped.
    /// A group that is already open is returned unchanged.
    pub fn open(&self, name: &str, config: &GroupConfig) -> Group {
        let Inner {
            backend,
            instance,
            observer,
            started,
            groups,
            ..
        } = &*self.inner;
        let mut groups = groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = groups.get(name) {
            return group.clone();
        }
        let (commands, receiver) = mpsc::unbounded_channel();
        let board = Arc::new(Board::new(name, config.timing.lease));
        let shared = Arc::new(GroupShared::new(board.clone(), commands));
        shared.set_measures(config);
        let latest = Arc::new(Mutex::new(config.clone()));
        let around = Surroundings {
            board,
            handles: Arc::downgrade(&shared),
            backend: backend.clone(),
            observer: observer.clone(),
            started: *started,
            config: latest.clone(),
        };
        let dispatcher = supervise(instance.clone(), around, receiver);
        tokio::spawn(dispatcher);
        let group = Group {
            shared,
            config: latest,
        };
        groups.insert(name.into(), group.clone());
        group
    }

    fn groups(&self) -> Vec<Group> {
        self.inner
            .groups
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Whether every group is ready: has a session, is not recovering, and the backend has not been unresponsive for longer than the lease.
    pub fn ready(&self) -> bool {
        self.groups().iter().all(|group| group.status().ready)
    }

    /// The name of this instance in the fleet.
    pub fn instance(&self) -> &Arc<str> {
        &self.inner.instance
    }

    /// Sends a message to another instance of the fleet, or to all with this one. It may be lost.
    pub fn post(&self, to: Option<&str>, body: Vec<u8>) {
        let backend = self.inner.backend.clone();
        let to: Arc<str> = to.unwrap_or(ALL_INSTANCES).into();
        tokio::spawn(async move {
            if let Err(error) = backend.post(&to, body).await {
                tracing::debug!(%error, "a message to other instances was not sent");
            }
        });
    }

    /// The messages of other instances, and those of this one to all. Receivers that are behind lose the oldest of 1,024.
    pub fn posts(&self) -> broadcast::Receiver<Arc<[u8]>> {
        self.inner.posts.subscribe()
    }

    /// Where the groups' state lives.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.inner.backend
    }

    /// Refuses every waiting ticket with [`Refused::Closed`](crate::Refused::Closed), waits until all permits are back or `grace` is over, and closes the session.
    /// With an unresponsive backend it gives up one lease after the grace.
    pub async fn close(&self, grace: Duration) {
        let groups = self.groups();
        let mut done = Vec::new();
        for group in &groups {
            let (sender, receiver) = oneshot::channel();
            group.shared.send(Command::Close { done: sender });
            done.push(receiver);
        }
        let mut all = futures_util::future::join_all(done);
        if timeout(grace, &mut all).await.is_err() {
            for group in &groups {
                group.shared.send(Command::Abandon);
            }
            let leases = groups.iter().map(|group| group.shared.board.lease());
            let lease = leases.max().unwrap_or_default();
            if timeout(lease, all).await.is_err() {
                tracing::warn!("the backend did not answer the close-session message");
            }
        }
    }
}

/// One group on this instance. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Group {
    pub(crate) shared: Arc<GroupShared>,
    /// The latest.
    pub(crate) config: Arc<Mutex<GroupConfig>>,
}

impl Group {
    /// Enters the queue. `tokens`: what the call is expected to use at most, by kind or as a total ([`Tokens`]), 0 where it does not
    /// matter.
    pub fn join(&self, priority: i32, tokens: impl Into<Tokens>) -> Ticket {
        self.join_as(Claim::new(priority, tokens))
    }

    /// Enters the queue of a group with fair shares.
    pub fn join_as(&self, claim: Claim) -> Ticket {
        Ticket::join(self.shared.clone(), claim)
    }

    /// Gives the group another configuration. Tickets keep their places, and calls go on. It is in force as soon as the backend has
    /// answered the opening of another session; a permit that was granted and not dispatched before that may [expire](crate::Expired).
    ///
    /// The index of a deployment is by the configuration of the grant: [`Permit::deployment_id`](crate::Permit::deployment_id) tells it
    /// from those of others.
    pub fn reconfigure(&self, config: &GroupConfig) {
        self.shared
            .send(Command::Reconfigure(Box::new(config.clone())));
    }

    /// The status of the group on this instance.
    pub fn status(&self) -> GroupStatus {
        let mut status = self.shared.board.status();
        status.ready &= status.silent_for <= self.shared.board.lease() && !status.too_far;
        status
    }
}

/// Why the head of a queue waits: the reasons at all deployments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reasons(pub(crate) u64);

impl Reasons {
    /// All reasons, by a short stable word each, and whether the head waits for it.
    pub fn all(self) -> impl Iterator<Item = (&'static str, bool)> {
        let limits = LimitKind::ALL.map(|kind| (reason::of_limit(kind), kind.word()));
        let others = [
            (reason::COOLDOWN, "cooldown"),
            (reason::PROBING, "probing"),
            (reason::PACING, "pacing"),
            (reason::RESERVE, "reserve"),
            (reason::PAUSED, "paused"),
        ];
        let all = limits.into_iter().chain(others);
        all.map(move |(bit, word)| (word, self.0 & bit != 0))
    }

    /// The reasons for which the head waits; none with an empty queue.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        let held = self.all().filter(|(_, held)| *held);
        held.map(|(word, _)| word)
    }
}

/// The status of a group on one instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// A session is open (or was closed because the instance was idle), the group is not recovering, and the backend answers fast enough.
    pub ready: bool,
    /// How long the backend has not answered a message; zero if none is unanswered.
    pub silent_for: Duration,
    /// The shortest of the last eight round trips to the backend; `None` before as many answers.
    pub round_trip: Option<Duration>,
    /// The round trip is above a twelfth of the lease (250 ms): grants arrive too late to be dispatched, and slots are lost. Not ready.
    pub too_far: bool,
    /// The backend is unavailable, and this instance grants locally: see [`WhenAway`](crate::WhenAway). The status shows only its own calls.
    pub away: bool,
    /// Why the last step failed, if it did.
    pub failure: Option<BackendError>,
    /// How many instances have a session in the group, as far as this one knows: at least itself.
    pub instances: usize,
    /// Tickets waiting on this instance, with those that are held.
    pub waiting: usize,
    /// Of these, how many are held because their keys are paused: they are not in the queue.
    pub held: usize,
    /// Permits and open calls on this instance.
    pub in_flight: usize,
    /// Tickets waiting in the whole fleet, as of the last answer; 0 on an idle instance without a session, which gets no more answers.
    pub depth: u64,
    /// Time until the head of the queue can be granted, if known.
    pub next_free: Option<Duration>,
    /// Why the head of the queue waits, as of the last answer.
    pub reasons: Reasons,
    /// How many different configurations the instances of the group have, as of the last answer: more than 1 during a roll-out.
    pub configurations: u64,
    /// What operators have changed until further notice, as far as this instance knows.
    pub overrides: Overrides,
    /// By deployment, in the order of the configuration. Empty before the first answer.
    pub deployments: Vec<DeploymentStatus>,
}

/// Usage of one deployment by the whole fleet, as of the last answer; 0 on an idle instance without a session, which gets no more answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeploymentStatus {
    /// Requests in the longest window.
    pub requests: u64,
    /// Tokens in the longest window.
    pub tokens: Tokens,
    /// Open calls.
    pub in_flight: u64,
    /// Time until its cooldown ends, if it cools.
    pub cooling: Option<Duration>,
    /// Time until pacing admits a paced ticket of one request; zero without pacing.
    pub pace: Duration,
}
