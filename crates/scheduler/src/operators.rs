//! What operators see and change of a group (P23).

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use crate::{
    claim::Claim,
    config::{GroupConfig, LimitKind},
    cost::{COUNTED, Tokens},
    dispatcher::{Command, Query, QueryResult},
    message::{Override, View, ViewedDeployment, overridden},
    overrides::{CONCURRENCY, LimitOverride, Overrides},
    rules::{NONE, Rules, span},
    scheduler::{Group, Reasons},
    units::{Micros, Seq},
};

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The backend did not answer within the lease, or the group is closed. A change may be made later.
    #[error(
        "the group's state did not answer in time: a change that was asked for may still be made when it does"
    )]
    Late,
    /// The configuration has no such limit.
    #[error("the configuration has no such limit")]
    NoSuchLimit,
    /// As many keys are paused, or limits changed, as a group can have.
    #[error("a group has at most 64 paused keys and 64 changed limits")]
    TooMany,
}

/// A change until further notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing is granted while the group is paused: all tickets wait.
    PauseGroup(bool),
    /// Tickets of a paused key wait on their instances, and others pass them.
    PauseKey {
        /// [`Claim::key`].
        key: u64,
        /// False: it goes on.
        paused: bool,
    },
    /// Another limit than the configured one.
    Limit {
        /// The deployment's id.
        deployment: String,
        /// What is counted.
        kind: LimitKind,
        /// The length of the window, as in the configuration; zero for open calls.
        length: Duration,
        /// `None`: the configured one again.
        limit: Option<u64>,
    },
}

/// Whether a ticket was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// So many tickets are ahead of it now; with fair shares, so many of better priorities.
    Ahead(u64),
    /// Its key is paused. It will enter the queue with the new priority.
    Held,
    /// It does not wait on this instance, or has been granted.
    NotHere,
}

/// A part of a group's queue, and the state of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// How many tickets wait in the fleet, without those that are held.
    pub depth: u64,
    /// Tickets in order, orphaned ones included. With fair shares those behind the first of their tenant come last, by priority and tenant.
    pub rows: Vec<Row>,
    /// The deployments of all configurations.
    pub deployments: Vec<DeploymentView>,
    /// Sessions, at most 100.
    pub sessions: Vec<SessionView>,
    /// What operators have changed.
    pub overrides: Overrides,
    /// Time until the head can be granted, if known.
    pub next_free: Option<Duration>,
    /// Why the head waits.
    pub reasons: Reasons,
}

/// A ticket in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// 0 is the head. `None`: with fair shares, behind the first of its tenant.
    pub position: Option<u64>,
    /// Its arrival, by which its instance knows it.
    pub arrival: Seq,
    /// Its priority.
    pub priority: i32,
    /// The tokens that it asks for.
    pub tokens: Tokens,
    /// Its tenant's number; 0 without fair shares.
    pub tenant: u64,
    /// Its key's number; 0 without.
    pub key: u64,
    /// Its instance; empty if that has ended.
    pub instance: Arc<str>,
    /// Its instance has ended or is unresponsive: the entry is dropped soon.
    pub orphaned: bool,
    /// Since its arrival, by the group clock.
    pub age: Duration,
}

/// A ticket of this instance that is held because its key is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldTicket {
    /// Its arrival, with which it enters the queue when its key is resumed.
    pub arrival: Seq,
    /// Its priority.
    pub priority: i32,
    /// The tokens that it asks for.
    pub tokens: Tokens,
    /// Its key's number.
    pub key: u64,
}

/// A deployment's use by the whole fleet, and its health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentView {
    /// Its id.
    pub id: Arc<str>,
    /// Open calls.
    pub open: u64,
    /// The limits in force.
    pub limits: Vec<LimitView>,
    /// Time until its cooldown ends, if it cools.
    pub cooling: Option<Duration>,
    /// The upstream's status of its last cooldown or failure, 0 without one.
    pub status: u16,
    /// Time until pacing admits a paced ticket of one request.
    pub pace: Duration,
}

/// A limit in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitView {
    /// What is counted.
    pub kind: LimitKind,
    /// The length of the window, with its guard where this instance's configuration has no such window; zero for open calls.
    pub length: Duration,
    /// What counts now.
    pub used: u64,
    /// The limit.
    pub limit: u64,
}

/// An instance's session in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// The instance.
    pub instance: Arc<str>,
    /// Its waiting tickets, without those that are held.
    pub waiting: u64,
    /// Its open calls.
    pub open: u64,
    /// It has not fetched a grant in time.
    pub unresponsive: bool,
}

impl Group {
    fn config(&self) -> GroupConfig {
        let latest = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        latest.clone()
    }

    async fn ask(&self, query: Query) -> Result<QueryResult, Unanswered> {
        let (answer, answered) = oneshot::channel();
        self.shared.send(Command::Ask { query, answer });
        let lease = self.shared.board.lease();
        match timeout(lease, answered).await {
            Ok(Ok(result)) => Ok(result),
            _ => Err(Unanswered::Late),
        }
    }

    /// A part of the queue: at most `most` tickets, and at most 100, from the rank `from` on; and the state of the group.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn look(&self, from: u64, most: u64) -> Result<GroupView, Unanswered> {
        match self.ask(Query::Look(from, most)).await? {
            QueryResult::View(view, depth) => Ok(self.group_view(*view, from, depth)),
            _ => Err(Unanswered::Late),
        }
    }

    /// How many tickets would be ahead of one that came now; with fair shares, how many surely.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn preview(&self, claim: Claim) -> Result<u64, Unanswered> {
        match self.ask(Query::Preview(claim)).await? {
            QueryResult::Ahead(ahead) => Ok(ahead),
            _ => Err(Unanswered::Late),
        }
    }

    /// How many tickets are ahead of a ticket of this instance; with fair shares, how many surely. `None`: it is not in the queue.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn position(&self, arrival: Seq) -> Result<Option<u64>, Unanswered> {
        match self.ask(Query::Position(arrival)).await? {
            QueryResult::Ahead(ahead) => Ok(Some(ahead)),
            _ => Ok(None),
        }
    }

    /// Gives a ticket of this instance another priority. It keeps its arrival.
    ///
    /// # Errors
    /// When the backend does not answer. The ticket then moves as soon as it does.
    pub async fn move_ticket(&self, arrival: Seq, priority: i32) -> Result<Moved, Unanswered> {
        Ok(match self.ask(Query::Move(arrival, priority)).await? {
            QueryResult::Ahead(ahead) => Moved::Ahead(ahead),
            QueryResult::Held => Moved::Held,
            _ => Moved::NotHere,
        })
    }

    /// The tickets of this instance that are held because their keys are paused, in order.
    pub async fn held(&self) -> Vec<HeldTicket> {
        let (answer, held) = oneshot::channel();
        self.shared.send(Command::Held { answer });
        let held = held.await.unwrap_or_default().into_iter();
        held.map(|entry| HeldTicket {
            arrival: entry.arrival,
            priority: entry.claim.priority,
            tokens: entry.claim.tokens,
            key: entry.claim.key,
        })
        .collect()
    }

    /// Ends the wait of a ticket of this instance with [`Refused::Cancelled`](crate::Refused::Cancelled). False: no such ticket waits here.
    pub async fn cancel(&self, arrival: Seq) -> bool {
        let (done, cancelled) = oneshot::channel();
        self.shared.send(Command::Cancel { arrival, done });
        cancelled.await.unwrap_or(false)
    }

    /// Changes the group for the whole fleet until further notice. Returns all changes that are in force then.
    ///
    /// # Errors
    /// When the backend does not answer (the change may be made later), there is no such limit, or there are too many changes.
    pub async fn change(&self, change: Change) -> Result<Overrides, Unanswered> {
        let wanted = self.override_of(change)?;
        let QueryResult::Overrides(overrides) = self.ask(Query::Override(wanted.clone())).await?
        else {
            return Err(Unanswered::Late);
        };
        let missing = match wanted.what {
            overridden::LIMIT => {
                wanted.limit.limit != NONE && !overrides.limits.contains(&wanted.limit)
            }
            _ => wanted.key != 0 && wanted.paused && !overrides.holds(wanted.key),
        };
        if missing {
            return Err(Unanswered::TooMany);
        }
        Ok(overrides)
    }

    fn group_view(&self, view: View, from: u64, depth: u64) -> GroupView {
        let status = self.status();
        let config = self.config();
        let clock = Seq::at(view.clock);
        let positions = (from..).map(|rank| Some(rank).filter(|rank| *rank < view.ordered));
        let rows = positions.zip(view.rows).map(|(position, row)| Row {
            position,
            arrival: row.arrival,
            priority: row.priority,
            tokens: row.tokens,
            tenant: row.tenant,
            key: row.key,
            instance: row.instance,
            orphaned: row.orphaned,
            age: Duration::from(Micros(clock.0.saturating_sub(row.arrival.0))),
        });
        let deployments = view.deployments.into_iter();
        let sessions = view.sessions.into_iter().map(|session| SessionView {
            instance: session.instance,
            waiting: session.waiting,
            open: session.open,
            unresponsive: session.unresponsive,
        });
        GroupView {
            depth,
            rows: rows.collect(),
            deployments: deployments.map(|of| deployment_view(of, &config)).collect(),
            sessions: sessions.collect(),
            overrides: status.overrides,
            next_free: status.next_free,
            reasons: status.reasons,
        }
    }

    fn override_of(&self, change: Change) -> Result<Override, Unanswered> {
        Ok(match change {
            Change::PauseGroup(paused) => Override {
                what: overridden::PAUSE,
                paused,
                ..Override::default()
            },
            Change::PauseKey { key, paused } => Override {
                what: overridden::PAUSE,
                key,
                paused,
                ..Override::default()
            },
            Change::Limit {
                deployment,
                kind,
                length,
                limit,
            } => Override {
                what: overridden::LIMIT,
                limit: self.limit_override(deployment, kind, length, limit)?,
                ..Override::default()
            },
        })
    }

    fn limit_override(
        &self,
        deployment: String,
        kind: LimitKind,
        length: Duration,
        limit: Option<u64>,
    ) -> Result<LimitOverride, Unanswered> {
        let counted = COUNTED.iter().position(|counted| *counted == kind);
        let kind = counted.map_or(CONCURRENCY, |index| {
            u8::try_from(index).unwrap_or(CONCURRENCY)
        });
        let config = self.config();
        let rules = Rules::from(&config);
        let span = if kind == CONCURRENCY {
            Micros::ZERO
        } else {
            span(length, &config.timing)
        };
        let limit = limit.map_or(NONE, |limit| limit.min(crate::MAX_LIMIT).cast_signed());
        let changed = LimitOverride {
            deployment: deployment.into(),
            kind,
            span,
            limit,
        };
        let mut of = rules
            .deployments
            .iter()
            .filter(|d| d.id == changed.deployment)
            .cloned();
        let known = of
            .next()
            .is_some_and(|mut of| changed.replaced(&mut of).is_some());
        // A change whose limit is gone can still be taken back.
        if known || limit == NONE {
            Ok(changed)
        } else {
            Err(Unanswered::NoSuchLimit)
        }
    }
}

fn deployment_view(of: ViewedDeployment, config: &GroupConfig) -> DeploymentView {
    let mut limits = Vec::new();
    for (window_span, most, total) in of.windows {
        let configured = config.deployments.iter().find(|d| *d.id == *of.id);
        let lengths = configured.iter().flat_map(|d| &d.limits).map(|l| l.length);
        let mut lengths = lengths.filter(|length| span(*length, &config.timing) == window_span);
        let length = lengths.next().unwrap_or_else(|| window_span.into());
        for ((kind, limit), used) in COUNTED.into_iter().zip(most).zip(total.amounts()) {
            if let Ok(limit) = u64::try_from(limit) {
                limits.push(LimitView {
                    kind,
                    length,
                    used,
                    limit,
                });
            }
        }
    }
    if let Ok(limit) = u64::try_from(of.concurrency) {
        limits.push(LimitView {
            kind: LimitKind::Concurrency,
            length: Duration::ZERO,
            used: of.open,
            limit,
        });
    }
    DeploymentView {
        id: of.id,
        open: of.open,
        limits,
        cooling: (of.cooling > Micros::ZERO).then(|| of.cooling.into()),
        status: of.status,
        pace: of.pace.into(),
    }
}
