//! [`Ticket`]: a request's entry in the queue. It may be dropped anywhere, also when its task is cancelled.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use crate::{
    claim::{Claim, Entry},
    dispatcher::{Command, GroupShared, TicketId, Waiter},
    permit::Permit,
    units::Seq,
};

/// Why a ticket will never be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The cost is above a limit of every deployment.
    #[error("the request can never fit under the limits")]
    NeverFits,
    /// The queue is at its depth cap and all waiting tickets are better.
    #[error("the queue is full")]
    QueueFull,
    /// Every deployment cools because of this upstream status (401, 402 or 404).
    #[error("every deployment is cooling down after an upstream {0}")]
    Cooling(u16),
    /// An operator has cancelled it.
    #[error("an operator has cancelled the request")]
    Cancelled,
    /// This instance is shutting down.
    #[error("the scheduler is closed")]
    Closed,
}

/// An entry in the queue. Dropping it leaves the queue at once (A7).
#[derive(Debug)]
pub struct Ticket {
    group: Arc<GroupShared>,
    id: TicketId,
    entry: Entry,
    /// The time of its earlier entries.
    waited: Duration,
    since: Instant,
    end: oneshot::Receiver<Result<Permit, Refused>>,
    ahead: Option<oneshot::Receiver<(u64, Seq)>>,
    settled: bool,
}

impl Ticket {
    pub(crate) fn join(group: Arc<GroupShared>, claim: Claim) -> Self {
        Self::enter(group, Entry::new(claim), Duration::ZERO)
    }

    fn enter(group: Arc<GroupShared>, entry: Entry, waited: Duration) -> Self {
        let id = group
            .tickets
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (end_sender, end) = oneshot::channel();
        let (ahead_sender, ahead) = oneshot::channel();
        group.send(Command::Join {
            ticket: id,
            entry,
            waiter: Waiter {
                end: end_sender,
                ahead: Some(ahead_sender),
            },
        });
        Self {
            group,
            id,
            entry,
            waited,
            since: Instant::now(),
            end,
            ahead: Some(ahead),
            settled: false,
        }
    }

    /// How many tickets were certainly ahead of this one when it entered the queue; `None` if it did not wait, or after the number was
    /// returned once. Cancel-safe.
    pub async fn ahead(&mut self) -> Option<u64> {
        let entered = self.ahead.as_mut()?.await;
        self.ahead = None;
        let (ahead, arrival) = entered.ok()?;
        self.entry.arrival = arrival;
        Some(ahead)
    }

    /// Waits for the permit. Cancel-safe: it can be awaited again after a `select!` took another branch.
    ///
    /// # Errors
    /// When the ticket will never be granted; it has left the queue. Awaited again after it has returned, it fails with [`Refused::Closed`].
    pub async fn granted(&mut self) -> Result<Permit, Refused> {
        loop {
            if self.settled {
                return Err(Refused::Closed);
            }
            let answer = (&mut self.end).await;
            let waited = self.waited();
            self.settled = true;
            let Ok(answer) = answer else {
                if !self.group.is_served() {
                    return Err(Refused::Closed);
                }
                // The dispatcher of this entry has ended: the ticket enters the queue again, through the dispatcher that replaced it.
                *self = Self::enter(self.group.clone(), self.entry, waited);
                continue;
            };
            self.waited = waited;
            return Ok(answer?.after(waited));
        }
    }

    /// The sequence number that orders the ticket within its priority, and by which operators name it; `None` before [`Ticket::ahead`] has returned, in
    /// a ticket that has never been granted.
    pub fn arrival(&self) -> Option<Seq> {
        Some(self.entry.arrival).filter(|arrival| *arrival != Seq::NONE)
    }

    /// How long the ticket has waited, over all its entries.
    pub fn waited(&self) -> Duration {
        self.waited
            + if self.settled {
                Duration::ZERO
            } else {
                self.since.elapsed()
            }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.settled {
            self.group.send(Command::Leave { ticket: self.id });
        }
    }
}

/// A ticket between two attempts: it has no queue entry and keeps only its arrival.
#[derive(Debug)]
pub struct PausedTicket {
    group: Arc<GroupShared>,
    entry: Entry,
    waited: Duration,
}

impl PausedTicket {
    pub(crate) fn new(group: Arc<GroupShared>, entry: Entry, waited: Duration) -> Self {
        Self {
            group,
            entry,
            waited,
        }
    }

    /// Enters the queue again with the first arrival (A8). If a healthy deployment that this request has not
    /// [failed](crate::ActiveCall::failed) on has room, it is granted there.
    pub fn enter(self) -> Ticket {
        Ticket::enter(self.group, self.entry, self.waited)
    }
}
