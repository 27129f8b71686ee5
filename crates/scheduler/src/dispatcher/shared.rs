//! What a group's handles and its dispatcher share: the commands to the dispatcher, and the board on which it publishes its status.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    core::TicketId,
    queries::{Query, QueryResult},
};
use crate::{
    backend::BackendError,
    claim::Entry,
    config::{GroupConfig, Strategy},
    cost::Tokens,
    grant::HeldGrant,
    message::Reply,
    permit::Permit,
    scheduler::GroupStatus,
    ticket::Refused,
    units::{Seq, SessionId},
};

/// A command of a handle to the dispatcher. Sending never blocks, so it is possible in `Drop`.
#[derive(Debug)]
pub(crate) enum Command {
    Join {
        ticket: TicketId,
        entry: Entry,
        waiter: Waiter,
    },
    Leave {
        ticket: TicketId,
    },
    /// The call of a grant is dispatched.
    Dispatched {
        granted: Seq,
    },
    /// The call of a grant may no longer be dispatched.
    Expired,
    Succeeded {
        granted: Seq,
    },
    /// The answer of a call took so long to begin.
    Measured {
        granted: Seq,
        took: Duration,
    },
    Failed {
        granted: Seq,
        status: u16,
        cool: Option<Duration>,
    },
    /// A grant returns. `dispatched`: its call may have been sent.
    Returned {
        granted: Seq,
        dispatched: bool,
        ok: bool,
        used: Option<Tokens>,
    },
    /// An operator's question, or change.
    Ask {
        query: Query,
        answer: oneshot::Sender<QueryResult>,
    },
    /// Which tickets of this instance are held because their keys are paused.
    Held {
        answer: oneshot::Sender<Vec<Entry>>,
    },
    /// An operator ends the wait of a ticket of this instance.
    Cancel {
        arrival: Seq,
        done: oneshot::Sender<bool>,
    },
    Wake,
    WakesLost,
    /// The group gets another configuration.
    Reconfigure(Box<GroupConfig>),
    /// Refuse all tickets, wait for the permits and calls, close the session, and then notify the caller.
    Close {
        done: oneshot::Sender<()>,
    },
    /// Close the session even if permits or calls are open.
    Abandon,
}

/// How many tickets are surely ahead of a ticket, and its arrival.
pub(crate) type Entered = (u64, Seq);

/// The receivers of a ticket's events. Sending to them may fail, because they may be dropped.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub end: oneshot::Sender<Result<Permit, Refused>>,
    /// Told once it is in the queue.
    pub ahead: Option<oneshot::Sender<Entered>>,
}

/// What a group's handles have. The dispatcher has none, so its commands end with the last handle, and then the dispatcher ends.
#[derive(Debug)]
pub(crate) struct GroupShared {
    pub board: Arc<Board>,
    /// Calls say how long their answers took to begin.
    measures: AtomicBool,
    commands: mpsc::UnboundedSender<Command>,
    pub tickets: AtomicU64,
}

impl GroupShared {
    pub(crate) fn new(board: Arc<Board>, commands: mpsc::UnboundedSender<Command>) -> Self {
        Self {
            board,
            measures: AtomicBool::new(false),
            commands,
            tickets: 0.into(),
        }
    }

    /// Whether calls of the configuration in force are measured.
    pub(crate) fn measures(&self) -> bool {
        self.measures.load(Ordering::Relaxed)
    }

    pub(crate) fn set_measures(&self, config: &GroupConfig) {
        let measures = matches!(config.strategy, Strategy::LatencyBased { .. });
        self.measures.store(measures, Ordering::Relaxed);
    }

    /// P9 (dispatch within the session): whether the call of a grant may be dispatched now. If so, the dispatcher learns it before it can end the session.
    pub(crate) fn dispatch(&self, held: &HeldGrant) -> bool {
        let alive = self.board.alive.lock();
        let alive = alive.unwrap_or_else(PoisonError::into_inner);
        let may = !held.limited || (alive.0 == held.session && Instant::now() <= alive.1);
        if may {
            let granted = held.grant.granted;
            self.send(Command::Dispatched { granted });
        }
        may
    }

    /// Sends a command to the dispatcher. It has ended only if it was closed or the runtime ends, and then the command has no effect.
    pub(crate) fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// A dispatcher serves the group, or will when it is replaced.
    pub(crate) fn is_served(&self) -> bool {
        !self.commands.is_closed()
    }
}

/// What a dispatcher publishes.
#[derive(Debug)]
pub(crate) struct Board {
    pub name: Arc<str>,
    status: Mutex<(GroupStatus, Instant)>,
    /// P9: the session whose grants may be dispatched, and until when.
    alive: Mutex<(SessionId, Instant)>,
    /// Of the configuration in force.
    lease: Mutex<Duration>,
}

impl Board {
    pub(crate) fn new(name: &str, lease: Duration) -> Self {
        Self {
            name: name.into(),
            status: Mutex::new((GroupStatus::default(), Instant::now())),
            alive: Mutex::new((SessionId::NONE, Instant::now())),
            lease: Mutex::new(lease),
        }
    }

    pub(crate) fn lease(&self) -> Duration {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_lease(&self, lease: Duration) {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease;
    }

    /// The dispatcher has panicked: the group is not ready, and no call may be dispatched.
    pub(super) fn clear(&self) {
        self.set_alive(SessionId::NONE, Instant::now());
        *self.lock() = (GroupStatus::default(), Instant::now());
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, (GroupStatus, Instant)> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_alive(&self, session: SessionId, until: Instant) {
        *self.alive.lock().unwrap_or_else(PoisonError::into_inner) = (session, until);
    }

    /// The status with durations as of now.
    pub(crate) fn status(&self) -> GroupStatus {
        let (mut status, at) = self
            .status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let passed = at.elapsed();
        if !status.silent_for.is_zero() {
            status.silent_for += passed;
        }
        status.next_free = status.next_free.map(|d| d.saturating_sub(passed));
        for deployment in &mut status.deployments {
            deployment.cooling = deployment
                .cooling
                .map(|d| d.saturating_sub(passed))
                .filter(|d| !d.is_zero());
            deployment.pace = deployment.pace.saturating_sub(passed);
        }
        status
    }

    /// Notes how a step ended; `None`: no answer came in time.
    pub(super) fn stepped(&self, result: &Option<Result<Reply, BackendError>>) {
        let mut guard = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        guard.0.failure = match result {
            Some(Ok(_)) => None,
            Some(Err(error)) => Some(error.clone()),
            None => Some(BackendError {
                kind: "timeout",
                message: "no answer in time".into(),
            }),
        };
    }
}
