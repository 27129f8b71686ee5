//! What this instance tells others, and does for them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vorrang_scheduler::{Moved, Seq};

use super::{Member, posts::Question};
use crate::journal::{LifeView, OpenCallView, TicketLabel, WaitsReport};

/// What an instance says of itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Report {
    pub(super) version: String,
    pub(super) uptime_s: u64,
    pub(super) ready: bool,
    pub(super) draining: bool,
    pub(super) waiting: u64,
    pub(super) open: u64,
    pub(super) groups: Vec<GroupReport>,
}

/// What an instance says of a group.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct GroupReport {
    pub(super) name: String,
    pub(super) open: u64,
    pub(super) held: u64,
    pub(super) waits: WaitsReport,
}

/// The most held tickets of one instance that are listed.
const MOST_HELD: usize = 100;

/// A ticket that is held because its key is paused.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct HeldRow {
    pub(super) arrival: u64,
    pub(super) priority: i32,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) key: u64,
    pub(super) instance: String,
    pub(super) label: Option<TicketLabel>,
}

/// What became of an action on a ticket.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Acted {
    /// The ticket waits here, and it is done.
    pub(super) done: bool,
    /// So many tickets are surely before it now.
    pub(super) ahead: Option<u64>,
    /// The priority that it had.
    pub(super) from: Option<i32>,
    /// The ticket was here and does not wait any more.
    pub(super) left: bool,
    /// How it left, in words, where that is known.
    pub(super) how: Option<String>,
    /// The backend does not answer.
    pub(super) failed: Option<String>,
}

impl Member {
    /// The answer to a question; `None`: there is no instance any more.
    pub(super) async fn answer(&self, question: Question) -> Option<Value> {
        let answer = match question {
            Question::Report => serde_json::to_value(self.report()?),
            Question::Labels { group, arrivals } => {
                serde_json::to_value(self.labels(&group, &arrivals))
            }
            Question::Held { group } => serde_json::to_value(self.held(&group).await),
            Question::Calls { group } => serde_json::to_value(self.calls(&group)),
            Question::Life { call_id } => serde_json::to_value(self.life(&call_id).await),
            Question::Latest { group, most } => {
                serde_json::to_value(self.latest(group.as_deref(), most))
            }
            Question::Move {
                group,
                arrival,
                priority,
            } => serde_json::to_value(self.move_own(&group, Seq(arrival), priority).await),
            Question::Cancel {
                group,
                arrival,
                reason,
            } => serde_json::to_value(self.cancel_own(&group, Seq(arrival), &reason).await),
            Question::Wanted { id } => Ok(self.office.is_open(id).into()),
            Question::Drain { draining } => {
                self.drain(draining);
                Ok(json!({"draining": draining}))
            }
        };
        answer.ok()
    }

    pub(super) fn report(&self) -> Option<Report> {
        let router = self.router()?;
        let groups: Vec<_> = router.groups.iter().collect();
        let status: Vec<_> = groups.iter().map(|group| group.queue.status()).collect();
        let reports = groups.iter().zip(&status);
        let draining = self.draining();
        Some(Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.journal.clock().uptime().as_secs(),
            ready: !draining && status.iter().all(|status| status.ready),
            draining,
            waiting: status.iter().map(|status| status.waiting as u64).sum(),
            open: status.iter().map(|status| status.in_flight as u64).sum(),
            groups: reports
                .map(|(group, status)| GroupReport {
                    name: group.settings.name.clone(),
                    open: status.in_flight as u64,
                    held: status.held as u64,
                    waits: group.waits.report(),
                })
                .collect(),
        })
    }

    pub(super) fn labels(&self, group: &str, arrivals: &[u64]) -> Vec<TicketLabel> {
        let running = self.journal.running();
        let labels = running.iter().filter_map(|life| life.label(group));
        labels
            .filter(|label| arrivals.contains(&label.arrival))
            .collect()
    }

    /// Held tickets, in order, at most [`MOST_HELD`].
    pub(super) async fn held(&self, group: &str) -> Vec<HeldRow> {
        let Some(router) = self.router() else {
            return Vec::new();
        };
        let Some(of) = router.group_of_name(group) else {
            return Vec::new();
        };
        let held = of.queue.held().await;
        let arrivals: Vec<u64> = held
            .iter()
            .map(|one| one.arrival.0)
            .take(MOST_HELD)
            .collect();
        let labels = self.labels(group, &arrivals);
        let rows = held.iter().take(MOST_HELD).map(|one| HeldRow {
            arrival: one.arrival.0,
            priority: one.priority,
            input_tokens: one.tokens.input,
            output_tokens: one.tokens.output,
            key: one.key,
            instance: self.office.instance().to_string(),
            label: labels
                .iter()
                .find(|label| label.arrival == one.arrival.0)
                .cloned(),
        });
        rows.collect()
    }

    pub(super) fn calls(&self, group: &str) -> Vec<OpenCallView> {
        let running = self.journal.running();
        let of_it = running.iter().filter(|life| life.is_of(group));
        let own = self.office.instance();
        of_it
            .filter_map(|life| life.open_call())
            .map(|call| OpenCallView {
                instance: own.to_string(),
                ..call
            })
            .collect()
    }

    pub(super) fn latest(&self, group: Option<&str>, most: usize) -> Vec<LifeView> {
        let own = self.office.instance();
        let latest = self.journal.latest(group, most).into_iter();
        latest
            .map(|life| LifeView {
                instance: own.to_string(),
                ..life
            })
            .collect()
    }

    /// A call's life. Where it waits, the step is asked for its present position.
    pub(super) async fn life(&self, call_id: &str) -> Option<LifeView> {
        let life = self.journal.find(call_id)?;
        let mut view = life.view(self.journal.clock(), true);
        view.instance = self.office.instance().to_string();
        if let Some((name, claim, arrival)) = life.place()
            && let Some(router) = self.router()
            && let Some(group) = router.group_of_name(&name)
        {
            if let Ok(Some(ahead)) = group.queue.position(arrival).await {
                view.position = Some(ahead.saturating_add(1));
                view.least_wait_ms = group.least_wait_ms(ahead, claim.priority, claim.key);
            } else if group.queue.status().held > 0 {
                let held = group.queue.held().await;
                view.held = held.iter().any(|one| one.arrival == arrival);
            }
        }
        Some(view)
    }

    pub(super) async fn move_own(&self, group: &str, arrival: Seq, priority: i32) -> Acted {
        let Some(router) = self.router() else {
            return Acted::default();
        };
        let Some(of) = router.group_of_name(group) else {
            return Acted::default();
        };
        let life = self.journal.waiting(group, arrival);
        match of.queue.move_ticket(arrival, priority).await {
            Ok(Moved::NotHere) => self.not_here(group, arrival),
            Ok(moved) => Acted {
                done: true,
                from: life.map(|life| life.moved(priority)),
                ahead: match moved {
                    Moved::Ahead(ahead) => Some(ahead),
                    _ => None,
                },
                ..Acted::default()
            },
            Err(error) => Acted {
                failed: Some(error.to_string()),
                ..Acted::default()
            },
        }
    }

    pub(super) async fn cancel_own(&self, group: &str, arrival: Seq, reason: &str) -> Acted {
        let Some(router) = self.router() else {
            return Acted::default();
        };
        let Some(of) = router.group_of_name(group) else {
            return Acted::default();
        };
        if let Some(life) = self.journal.waiting(group, arrival) {
            life.cancels(reason);
        }
        if of.queue.cancel(arrival).await {
            Acted {
                done: true,
                ..Acted::default()
            }
        } else {
            self.not_here(group, arrival)
        }
    }

    fn not_here(&self, group: &str, arrival: Seq) -> Acted {
        let left = self.journal.has_left(group, arrival);
        Acted {
            left: left.is_some(),
            how: left,
            ..Acted::default()
        }
    }
}
