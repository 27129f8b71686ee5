//! The shadow: what another configuration would decide about the same requests, beside the real decisions.
//!
//! Requests report what happens to them by a channel that they never wait for; a task of its own runs virtual groups in real time. It knows
//! the calls of this instance only, and so uses this instance's part of the limits.

mod group;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;
use vorrang_gateway::{Config, Joined, Router, WaitOutcome};
use vorrang_scheduler::Tokens;

use self::group::ShadowGroup;
use crate::metrics::shadow::ShadowMetrics;

/// So many reports wait for the shadow; further ones are lost, and counted.
const AHEAD: usize = 16_384;

/// How often it looks how many instances there are.
const LOOK: Duration = Duration::from_secs(1);

/// What happens to a request in one queue.
#[derive(Debug)]
enum News {
    Joined {
        group: String,
        key: Option<String>,
        joined: Joined,
    },
    /// It was granted, or left.
    Waited(Duration, WaitOutcome),
    /// Its call is over.
    Called(Duration, Option<Tokens>),
}

/// A report: which wait it is about, when it was made, and what has happened.
type Report = (u64, Instant, News);

/// Takes reports for another configuration. It ends with its last reference.
#[derive(Debug)]
pub(crate) struct Shadow {
    reports: mpsc::Sender<Report>,
    next: AtomicU64,
    metrics: Arc<ShadowMetrics>,
    _task: AbortOnDropHandle<()>,
}

/// A wait that a shadow knows of.
#[derive(Debug)]
pub(crate) struct Shadowed {
    shadow: Arc<Shadow>,
    number: u64,
    /// It was granted, and its call is not over.
    open: bool,
}

impl Shadow {
    /// Begins with empty queues. `router`: says how many instances there are.
    pub(crate) fn start(
        config: Arc<Config>,
        router: Router,
        metrics: Arc<ShadowMetrics>,
    ) -> Arc<Self> {
        let (reports, receiver) = mpsc::channel(AHEAD);
        let task = tokio::spawn(run(config, router, metrics.clone(), receiver));
        Arc::new(Self {
            reports,
            next: AtomicU64::new(1),
            metrics,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// A request enters a queue.
    pub(crate) fn joined(
        self: &Arc<Self>,
        group: &str,
        key: Option<&str>,
        joined: &Joined,
    ) -> Option<Shadowed> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let news = News::Joined {
            group: group.into(),
            key: key.map(str::to_owned),
            joined: *joined,
        };
        // What follows of a request whose beginning is lost is lost with it.
        self.report(number, news).then(|| Shadowed {
            shadow: self.clone(),
            number,
            open: false,
        })
    }

    fn report(&self, number: u64, news: News) -> bool {
        let sent = self.reports.try_send((number, Instant::now(), news));
        if sent.is_err() {
            self.metrics.lost();
        }
        sent.is_ok()
    }
}

impl Shadowed {
    /// Its wait has ended.
    pub(crate) fn waited(&mut self, waited: Duration, outcome: WaitOutcome) {
        self.open = outcome == WaitOutcome::Granted;
        self.shadow
            .report(self.number, News::Waited(waited, outcome));
    }

    /// Its call is over.
    pub(crate) fn called(mut self, took: Duration, used: Option<Tokens>) {
        self.open = false;
        self.shadow.report(self.number, News::Called(took, used));
    }
}

/// A permit was not used.
impl Drop for Shadowed {
    fn drop(&mut self) {
        if self.open {
            let unused = News::Called(Duration::ZERO, Some(Tokens::ZERO));
            self.shadow.report(self.number, unused);
        }
    }
}

/// Runs until it is aborted.
async fn run(
    config: Arc<Config>,
    router: Router,
    metrics: Arc<ShadowMetrics>,
    mut reports: mpsc::Receiver<Report>,
) {
    let start = Instant::now();
    let mut groups: HashMap<String, ShadowGroup> = HashMap::new();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::new();
    loop {
        let next = groups.values().filter_map(ShadowGroup::next).min();
        let due = async {
            match next {
                Some(at) => sleep_until(start + at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            count = reports.recv_many(&mut batch, 256) => if count == 0 {
                return;
            },
            () = due => {}
            _ = look.tick() => {
                for view in router.groups() {
                    if let Some(group) = groups.get_mut(&view.name) {
                        group.shared_by(view.status.instances);
                    }
                }
            }
        }
        for (number, at, news) in batch.drain(..) {
            let at = at.saturating_duration_since(start);
            if let News::Joined { group, .. } = &news
                && !groups.contains_key(group)
            {
                let instances = router.groups().into_iter();
                let mut views = instances.filter(|view| view.name == *group);
                let instances = views.next().map_or(1, |view| view.status.instances);
                match ShadowGroup::new(&config, group, instances, &metrics) {
                    Some(opened) => drop(groups.insert(group.clone(), opened)),
                    // The other configuration has no such group.
                    None => metrics.without_group(group),
                }
            }
            match news {
                News::Joined { group, key, joined } => {
                    if let Some(group) = groups.get_mut(&group) {
                        group.joined(number, at, key.as_deref(), &joined);
                    }
                }
                // A wait is in one group; the others do not know its number.
                News::Waited(waited, outcome) => groups
                    .values_mut()
                    .for_each(|group| group.waited(number, at, waited, outcome)),
                News::Called(took, used) => groups
                    .values_mut()
                    .for_each(|group| group.called(number, at, took, used)),
            }
        }
        let now = start.elapsed();
        groups.values_mut().for_each(|group| group.advance(now));
    }
}
