//! What a group's handles and its dispatcher share: the commands that go one way, and the board that the dispatcher writes for all to read.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::core::TicketId;
use crate::{
    backend::BackendError,
    claim::Entry,
    cost::Tokens,
    grant::HeldGrant,
    message::Reply,
    permit::Permit,
    scheduler::GroupStatus,
    ticket::Refused,
    units::{Seq, SessionId},
};

/// What callers tell a dispatcher. Sending never blocks, so that it can be done from `Drop`.
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
    /// The call of a grant goes out.
    Dispatched {
        granted: Seq,
    },
    /// The call of a grant may not go out any more.
    Expired,
    Succeeded {
        granted: Seq,
    },
    Failed {
        granted: Seq,
        status: u16,
        cool: Option<Duration>,
    },
    /// A grant returns. `dispatched`: something may have been sent.
    Returned {
        granted: Seq,
        dispatched: bool,
        ok: bool,
        used: Option<Tokens>,
    },
    Wake,
    Look,
    /// Refuse all tickets, wait for the permits, close the session; then tell.
    Close {
        done: oneshot::Sender<()>,
    },
    /// Close the session whatever is still out.
    Abandon,
}

/// Who waits for a ticket. Either may have stopped: sending to them may fail.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub end: oneshot::Sender<Result<Permit, Refused>>,
    /// For how many are surely before it, once it is in the queue.
    pub ahead: Option<oneshot::Sender<u64>>,
}

/// What a group's handles have. When the last of them is gone the dispatcher's commands end, and with them the dispatcher: it has none itself.
#[derive(Debug)]
pub(crate) struct GroupShared {
    pub board: Arc<Board>,
    commands: mpsc::UnboundedSender<Command>,
    pub tickets: std::sync::atomic::AtomicU64,
}

impl GroupShared {
    pub(crate) fn new(board: Arc<Board>, commands: mpsc::UnboundedSender<Command>) -> Self {
        Self {
            board,
            commands,
            tickets: 0.into(),
        }
    }

    /// P9 (dispatch within the session): whether the call of a grant may be dispatched now. If so the dispatcher knows it before the session
    /// can end for it.
    pub(crate) fn dispatch(&self, held: &HeldGrant) -> bool {
        let alive = self.board.alive.lock();
        let alive = alive.unwrap_or_else(PoisonError::into_inner);
        let may = !held.limited || (alive.0 == held.session && Instant::now() <= alive.1);
        if may {
            let granted = held.grant.granted;
            self.tell(Command::Dispatched { granted });
        }
        may
    }

    /// Tells the dispatcher; it is gone only when it was closed or the runtime ends, and then nothing matters.
    pub(crate) fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// Whether a dispatcher serves the group, or will again.
    pub(crate) fn is_served(&self) -> bool {
        !self.commands.is_closed()
    }
}

/// What a dispatcher shows.
#[derive(Debug)]
pub(crate) struct Board {
    pub name: Arc<str>,
    status: Mutex<(GroupStatus, Instant)>,
    /// P9: the session whose grants may be dispatched, and until when.
    alive: Mutex<(SessionId, Instant)>,
}

impl Board {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            status: Mutex::new((GroupStatus::default(), Instant::now())),
            alive: Mutex::new((SessionId::NONE, Instant::now())),
        }
    }

    /// The dispatcher is gone and knows nothing any more: not ready, and nothing may be dispatched.
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

    /// Durations are moved on to the present.
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
