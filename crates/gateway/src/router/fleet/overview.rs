//! The fleet at a glance: what the step says of each group, and what the instances say of themselves.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::{Fleet, answering::Report, never, posts::Question, posts::READ};
use crate::{
    PriorityClass,
    journal::{HISTORY_STEPS, Histogram, STEP_SECONDS, milliseconds},
};

/// The fleet at a glance.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Overview {
    /// Milliseconds since 1970.
    pub at: u64,
    /// The instance that has made it.
    pub answered_by: String,
    /// Of that instance.
    pub version: String,
    /// By their ids.
    pub instances: Vec<InstanceOverview>,
    /// In the order of the configuration.
    pub groups: Vec<GroupOverview>,
}

/// One instance.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct InstanceOverview {
    /// Its id, new with each start.
    pub id: String,
    /// `None` where it did not answer.
    pub version: Option<String>,
    /// Since its start.
    pub uptime_s: Option<u64>,
    /// It has a session in every group, and does not drain; `None` where it did not answer.
    pub ready: Option<bool>,
    /// An operator has taken it out of the rotation.
    pub draining: bool,
    /// Its waiting tickets.
    pub waiting: u64,
    /// Its open calls.
    pub open: u64,
    /// False: it has a session, and did not answer.
    pub answered: bool,
}

/// One group.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct GroupOverview {
    /// The `model_name`.
    pub name: String,
    /// Nothing is granted until an operator says so.
    pub paused: bool,
    /// Their names, or `#` and their numbers where the configuration does not know them.
    pub paused_keys: Vec<String>,
    /// `priority`, `aging`, `fair` or `aging, fair`.
    pub order: &'static str,
    /// How a deployment is chosen.
    pub strategy: &'static str,
    /// Tickets of worse priorities are paced.
    pub pace_worse_than: Option<i32>,
    /// Room that is kept for better priorities.
    pub reserve: Option<ReserveOverview>,
    /// At most so many tickets wait.
    pub max_queue_depth: Option<u64>,
    /// Waiting tickets of the fleet that are in the queue.
    pub depth: u64,
    /// Waiting tickets of the fleet that are held, and not in the queue, because their keys are paused.
    pub held: u64,
    /// Open calls of the fleet.
    pub open: u64,
    /// Until the head can be granted.
    pub next_free_ms: Option<u64>,
    /// Why the head waits.
    pub reasons: Vec<&'static str>,
    /// The backend answers. Otherwise the figures are the last that are known.
    pub backend_answers: bool,
    /// This instance has no session, or the group's state is being rebuilt.
    pub recovering: bool,
    /// Different configurations that instances have.
    pub configurations: u64,
    /// All classes, the best first.
    pub classes: Vec<ClassOverview>,
    /// The last ten minutes.
    pub history: History,
    /// In the order of the configuration.
    pub deployments: Vec<DeploymentOverview>,
}

/// Room that is kept for better priorities.
#[derive(Debug, Clone, Copy, Serialize)]
#[non_exhaustive]
pub struct ReserveOverview {
    /// The worst priority that may use all there is.
    pub priority: i32,
    /// The part of each limit.
    pub share: f64,
}

/// A class of priorities in a group.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ClassOverview {
    /// As metrics call it.
    pub class: &'static str,
    /// Waiting tickets of the fleet.
    pub waiting: u64,
    /// Grants within the last minute.
    pub granted_per_minute: u64,
    /// Waits until a grant within the last five minutes.
    pub waits: WaitsOverview,
}

/// Waits until a grant.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[non_exhaustive]
pub struct WaitsOverview {
    /// How many.
    pub count: u64,
    /// The median, give or take a sixteenth.
    pub p50_ms: Option<u64>,
    /// The 99th percentile, give or take a sixteenth.
    pub p99_ms: Option<u64>,
}

/// Waiting tickets over the last ten minutes: the samples of all instances, added.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct History {
    /// The distance of two samples.
    pub step_s: u64,
    /// The time of the first sample.
    pub from_unix_s: u64,
    /// By class, the oldest first.
    pub classes: std::collections::BTreeMap<&'static str, Vec<u64>>,
    /// Of all classes.
    pub depth: Vec<u64>,
}

/// One deployment of a group.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct DeploymentOverview {
    /// Its id.
    pub id: String,
    /// What the upstream calls the model.
    pub model: String,
    /// Only deployments of the lowest order that have room are chosen from.
    pub order: Option<i32>,
    /// Its share under simple-shuffle.
    pub weight: Option<f64>,
    /// Open calls of the fleet.
    pub open: u64,
    /// Until its cooldown ends.
    pub cooling_ms: Option<u64>,
    /// The upstream's status for which it cools; 0: none came.
    pub cooling_status: Option<u16>,
    /// For how long pacing still holds whom it holds.
    pub pace_ms: u64,
    /// As the file has them.
    pub limits: Vec<LimitOverview>,
}

/// One limit of a deployment.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct LimitOverview {
    /// The setting: `rpm`, or `limits[0]`.
    pub limit: String,
    /// What is counted.
    pub kind: &'static str,
    /// The window; `None` for open calls.
    pub window_s: Option<f64>,
    /// What counts now; `None` while the backend does not answer.
    pub used: Option<u64>,
    /// In the file.
    pub configured: u64,
    /// By an operator's change, until further notice; else the configured one.
    pub in_force: u64,
}

impl Fleet {
    pub(super) async fn new_overview(&self) -> Overview {
        let router = self.router.inner();
        let member = &self.member;
        let views = member.views(&router).await;
        let asked = member.office.ask(None, &Question::Report, READ, never);
        let said = asked.await;
        let mut reports: Vec<(String, Report)> = said
            .into_iter()
            .filter_map(|said| Some((said.from, serde_json::from_value(said.answer).ok()?)))
            .collect();
        let own = member.office.instance().to_string();
        reports.extend(member.report().map(|report| (own.clone(), report)));
        let mut instances: Vec<_> = reports.iter().map(InstanceOverview::from).collect();
        // Those with a session that did not answer.
        for session in views.iter().flatten().flat_map(|view| &view.sessions) {
            let silent = instances
                .iter_mut()
                .find(|one| *one.id == *session.instance);
            let of = match silent {
                Some(known) if known.answered => continue,
                Some(known) => known,
                None => {
                    instances.push(InstanceOverview {
                        id: session.instance.to_string(),
                        ..InstanceOverview::default()
                    });
                    let Some(new) = instances.last_mut() else {
                        continue;
                    };
                    new
                }
            };
            of.waiting += session.waiting;
            of.open += session.open;
        }
        // While the backend is away, no session is seen, and no answer comes.
        for id in member.office.others() {
            if !instances.iter().any(|known| known.id == id) {
                instances.push(InstanceOverview {
                    id,
                    ..InstanceOverview::default()
                });
            }
        }
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        let groups = router.groups.iter().zip(&views);
        let reports: Vec<Report> = reports.into_iter().map(|(_, report)| report).collect();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Overview {
            at: milliseconds(unix.unwrap_or_default()),
            answered_by: own,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instances,
            groups: groups
                .map(|(group, view)| router.group_overview(group, view.as_ref(), &reports))
                .collect(),
        }
    }
}

impl From<&(String, Report)> for InstanceOverview {
    fn from((id, report): &(String, Report)) -> Self {
        Self {
            id: id.clone(),
            version: Some(report.version.clone()),
            uptime_s: Some(report.uptime_s),
            ready: Some(report.ready),
            draining: report.draining,
            waiting: report.waiting,
            open: report.open,
            answered: true,
        }
    }
}

/// What all instances say of the waits of one group, put together.
pub(super) fn classes(group: &str, reports: &[Report]) -> (Vec<ClassOverview>, History) {
    let reports = reports.iter().flat_map(|report| &report.groups);
    let of_it: Vec<_> = reports.filter(|report| report.name == group).collect();
    let last = of_it.iter().map(|report| report.waits.step).max();
    let first = last
        .unwrap_or_default()
        .saturating_sub(HISTORY_STEPS as u64 - 1);
    let mut depth = vec![0; HISTORY_STEPS];
    let mut history = std::collections::BTreeMap::new();
    let overview = |class: PriorityClass| {
        let (mut waiting, mut granted, mut waits) = (0, 0, Histogram::default());
        let mut samples = vec![0; HISTORY_STEPS];
        for report in &of_it {
            let mut known = report.waits.classes.iter();
            let Some(of) = known.find(|of| of.class == class.as_str()) else {
                continue;
            };
            waiting += of.waiting;
            granted += of.granted;
            waits.add(&of.waits);
            // Each ends with its instance's own last step.
            let begins = (report.waits.step + 1).saturating_sub(of.history.len() as u64);
            for (step, sample) in (begins..).zip(&of.history) {
                let at = step
                    .checked_sub(first)
                    .and_then(|at| usize::try_from(at).ok());
                if let Some(sum) = at.and_then(|at| samples.get_mut(at)) {
                    *sum += u64::from(*sample);
                }
            }
        }
        for (sum, of) in depth.iter_mut().zip(&samples) {
            *sum += of;
        }
        history.insert(class.as_str(), samples);
        ClassOverview {
            class: class.as_str(),
            waiting,
            granted_per_minute: granted,
            waits: WaitsOverview {
                count: waits.count(),
                p50_ms: waits.permille_ms(500),
                p99_ms: waits.permille_ms(990),
            },
        }
    };
    let classes = PriorityClass::ALL.into_iter().map(overview).collect();
    let history = History {
        step_s: STEP_SECONDS,
        from_unix_s: first * STEP_SECONDS,
        classes: history,
        depth,
    };
    (classes, history)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(step: u64, history: Vec<u32>) -> Report {
        serde_json::from_value(serde_json::json!({
            "groups": [{"name": "g", "later": 1, "waits": {"step": step, "classes": [
                {"class": "0", "waiting": 2, "granted": 3, "waits": [[1, 1]], "history": history},
                {"class": "of a later version", "waiting": 9},
            ]}}],
        }))
        .unwrap()
    }

    #[test]
    fn reports_of_instances_with_clocks_that_differ_are_added_by_step() {
        let mut full = vec![0; HISTORY_STEPS];
        full[HISTORY_STEPS - 1] = 5;
        full[HISTORY_STEPS - 2] = 4;
        let reports = [
            report(1000, full.clone()),
            report(1001, full),
            Report::default(),
        ];
        let (classes, history) = classes("g", &reports);
        let zero = classes.iter().find(|of| of.class == "0").unwrap();
        assert_eq!((zero.waiting, zero.granted_per_minute), (4, 6));
        assert_eq!((zero.waits.count, zero.waits.p50_ms), (2, Some(1)));
        assert_eq!(history.depth.len(), HISTORY_STEPS);
        assert_eq!(history.depth[HISTORY_STEPS - 3..], [4, 5 + 4, 5]);
        assert_eq!(
            history.from_unix_s,
            (1001 - HISTORY_STEPS as u64 + 1) * STEP_SECONDS
        );
        assert_eq!(history.classes["0"], history.depth);
        assert!(history.classes["<0"].iter().all(|waiting| *waiting == 0));
    }
}
