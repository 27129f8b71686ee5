//! [`Fleet`]: all instances as operators see them, from any one of them.
//!
//! The step knows the queue of the fleet; each instance knows its own calls. Instances exchange what they know by posts.

mod actions;
mod answering;
mod filters;
mod groups;
mod overview;
mod posts;
mod preview;
mod tickets;

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, Semaphore, broadcast::error::RecvError},
    time::Instant,
};
use vorrang_scheduler::{GroupView, Scheduler};

pub(crate) use self::groups::replaces;
use self::posts::{PostOffice, Question, READ};
pub use self::{
    actions::{ChangedLimit, LimitChange, MovedTicket, Paused},
    overview::{
        ClassOverview, DeploymentOverview, GroupOverview, History, InstanceOverview, LimitOverview,
        Overview, WaitsOverview,
    },
    preview::{Preview, PreviewOf},
    tickets::{TicketPage, TicketQuery, TicketRow},
};
use super::{Inner, Router};
use crate::journal::{Journal, LifeView};

/// So many questions of others are answered at once. More are not answered: an operator may ask again.
const MOST_ANSWERING: usize = 64;
/// An overview serves all who ask for one within this time.
const OVERVIEW_AGE: Duration = Duration::from_millis(700);
/// Instances that came since are asked as well.
const ROSTER_AGE: Duration = Duration::from_secs(2);

/// All instances of the fleet, seen from this one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fleet {
    router: Router,
    member: Arc<Member>,
}

/// Why the fleet cannot be told or shown something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The key may not see it.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such group, ticket, call, instance, deployment or limit.
    #[error("{0}")]
    NotFound(String),
    /// The ticket does not wait any more.
    #[error("{0}")]
    Conflict(String),
    /// An instance or the backend does not answer in time.
    #[error("{0}")]
    Unavailable(String),
}

/// This instance as a member of its fleet.
pub(super) struct Member {
    router: Weak<ArcSwap<Inner>>,
    journal: Arc<Journal>,
    office: PostOffice,
    draining: AtomicBool,
    overview: Mutex<Option<(Instant, Arc<Overview>)>>,
    /// When the instances of the fleet were last looked for.
    roster: Mutex<Option<Instant>>,
}

// === impl Member ===

impl Member {
    /// Answers what others ask for as long as the router lives. Needs a tokio runtime.
    pub(super) fn start(
        router: Weak<ArcSwap<Inner>>,
        scheduler: &Scheduler,
        journal: Arc<Journal>,
    ) -> Arc<Self> {
        let member = Arc::new(Self {
            router,
            journal,
            office: PostOffice::new(scheduler.clone()),
            draining: AtomicBool::new(false),
            overview: Mutex::default(),
            roster: Mutex::default(),
        });
        let mut posts = scheduler.posts();
        let weak = Arc::downgrade(&member);
        let answering = Arc::new(Semaphore::new(MOST_ANSWERING));
        tokio::spawn(async move {
            loop {
                let body = match posts.recv().await {
                    Ok(body) => body,
                    // Those that were lost in a flood are asked again.
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                };
                let Some(member) = weak.upgrade() else { return };
                let Some(post) = member.office.received(&body) else {
                    continue;
                };
                let Ok(turn) = answering.clone().try_acquire_owned() else {
                    continue;
                };
                tokio::spawn(async move {
                    let _turn = turn;
                    let question = post.question.clone().unwrap_or_default();
                    // One that a later version asks.
                    let Ok(question) = serde_json::from_value::<Question>(question) else {
                        member.office.answer(&post, Value::Null);
                        return;
                    };
                    if question.changes() && !member.office.is_wanted(&post).await {
                        return;
                    }
                    if let Some(answer) = member.answer(question).await {
                        member.office.answer(&post, answer);
                    }
                });
            }
        });
        member
    }

    fn router(&self) -> Option<Arc<Inner>> {
        Some(self.router.upgrade()?.load_full())
    }

    pub(super) fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn drain(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// Looks at every group; `None` where the backend does not answer. What has a session is expected to answer questions.
    async fn views(&self, router: &Inner) -> Vec<Option<GroupView>> {
        let groups = router.groups.iter();
        let looks = groups.map(|group| async { group.queue.look(0, 0).await.ok() });
        let views = join_all(looks).await;
        let sessions = views.iter().flatten().flat_map(live);
        let all = views.iter().all(Option::is_some);
        self.office.live(sessions, all);
        views
    }

    fn learn(&self, view: &GroupView) {
        self.office.live(live(view), false);
    }

    /// The instances of the fleet are known, but those that came within the last seconds.
    async fn roster(&self, router: &Inner) {
        let mut looked = self.roster.lock().await;
        if looked.is_none_or(|looked| looked.elapsed() > ROSTER_AGE) {
            self.views(router).await;
            *looked = Some(Instant::now());
        }
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").finish_non_exhaustive()
    }
}

// === impl Fleet ===

impl Router {
    /// The fleet as operators see it.
    pub fn fleet(&self) -> Fleet {
        Fleet {
            router: self.clone(),
            member: self.current.load().member.clone(),
        }
    }

    /// Whether an operator has taken this instance out of the balancers' rotation. It still serves what comes.
    pub fn draining(&self) -> bool {
        self.current.load().member.draining()
    }
}

impl Fleet {
    /// The whole fleet at a glance. It is made at most about once a second, however many ask.
    pub async fn overview(&self) -> Arc<Overview> {
        let mut latest = self.member.overview.lock().await;
        if let Some((made, overview)) = &*latest
            && made.elapsed() < OVERVIEW_AGE
        {
            return overview.clone();
        }
        let overview = Arc::new(self.new_overview().await);
        *latest = Some((Instant::now(), overview.clone()));
        overview
    }

    /// The next overview is a new one: an operator looks at what an action has changed.
    async fn forget_overview(&self) {
        *self.member.overview.lock().await = None;
    }

    /// One group of the [`overview`](Self::overview).
    ///
    /// # Errors
    /// There is no such group.
    pub async fn group(&self, name: &str) -> Result<GroupOverview, FleetError> {
        let overview = self.overview().await;
        let mut groups = overview.groups.iter();
        let group = groups.find(|group| group.name == name);
        group.cloned().ok_or_else(|| no_group(name))
    }

    /// The open calls of a group: those that are with an upstream.
    ///
    /// # Errors
    /// There is no such group.
    pub async fn calls(&self, group: &str) -> Result<Value, FleetError> {
        let router = self.router.inner();
        self.known(&router, group)?;
        self.member.roster(&router).await;
        let question = Question::Calls {
            group: group.to_owned(),
        };
        let mut calls = list(serde_json::to_value(self.member.calls(group)).ok());
        let said = self.member.office.ask(None, &question, READ, never).await;
        calls.extend(said.into_iter().flat_map(|said| list(Some(said.answer))));
        calls.sort_by_key(|call| std::cmp::Reverse(call["running_ms"].as_u64()));
        Ok(json!({ "calls": calls }))
    }

    /// The latest calls of a group, or of all, the newest first: those under way and those that ended.
    ///
    /// # Errors
    /// There is no such group.
    pub async fn requests(&self, group: Option<&str>, most: usize) -> Result<Value, FleetError> {
        let router = self.router.inner();
        if let Some(group) = group {
            self.known(&router, group)?;
        }
        self.member.roster(&router).await;
        let question = Question::Latest {
            group: group.map(str::to_owned),
            most,
        };
        let mut requests = list(serde_json::to_value(self.member.latest(group, most)).ok());
        let said = self.member.office.ask(None, &question, READ, never).await;
        requests.extend(said.into_iter().flat_map(|said| list(Some(said.answer))));
        requests.sort_by_key(|one| std::cmp::Reverse(one["came_unix_ms"].as_u64()));
        requests.truncate(most);
        Ok(json!({ "requests": requests }))
    }

    /// The life of a call, of any instance.
    ///
    /// # Errors
    /// No instance knows it, or one that may know it does not answer.
    pub async fn request(&self, call_id: &str) -> Result<Value, FleetError> {
        let own = self.member.life(call_id).await;
        let ended = |life: &LifeView| life.state == "ended";
        let (mut lives, mut complete) = (Vec::new(), true);
        // A client may use an id again, at another instance.
        if own.as_ref().is_none_or(ended) {
            self.member.roster(&self.router.inner()).await;
            let question = Question::Life {
                call_id: call_id.to_owned(),
            };
            let said = self.member.office.ask(None, &question, READ, never).await;
            complete = said.complete;
            lives = said.into_iter().map(|said| said.answer).collect();
        }
        lives.extend(own.and_then(|own| serde_json::to_value(own).ok()));
        let known = lives.into_iter().filter(Value::is_object);
        let latest =
            known.max_by_key(|life| (life["state"] != "ended", life["came_unix_ms"].as_u64()));
        latest.ok_or_else(|| match complete {
            true => FleetError::NotFound(format!("No call {call_id} is known")),
            false => FleetError::Unavailable(format!(
                "No instance that answers knows the call {call_id}, and one does not answer"
            )),
        })
    }

    /// The life of a call for the client that made it, by the name of its key.
    ///
    /// # Errors
    /// No instance knows it, or it is a call of another key.
    pub async fn own_request(&self, call_id: &str, key: Option<&str>) -> Result<Value, FleetError> {
        let life = self.request(call_id).await?;
        if life["key"].as_str() == key {
            return Ok(life);
        }
        Err(FleetError::NotFound(format!("No call {call_id} is known")))
    }

    fn known(&self, router: &Inner, group: &str) -> Result<(), FleetError> {
        match router.group_of_name(group) {
            Some(_) => Ok(()),
            None => Err(no_group(group)),
        }
    }

    /// Instances that have a session in a group or have answered lately.
    async fn instances(&self, router: &Inner) -> HashSet<String> {
        self.member.roster(router).await;
        self.member.office.others()
    }
}

/// The instances with a session.
fn live(view: &GroupView) -> impl Iterator<Item = String> {
    let live = view.sessions.iter().filter(|one| !one.unresponsive);
    live.map(|one| one.instance.to_string())
}

fn no_group(name: &str) -> FleetError {
    FleetError::NotFound(format!("There is no group {name}"))
}

/// Reads wait for every answer.
fn never(_: &Value) -> bool {
    false
}

fn list(answer: Option<Value>) -> Vec<Value> {
    match answer {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}
