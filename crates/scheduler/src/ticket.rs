//! [`Ticket`] and [`Permit`]: what a request holds. Both may be dropped anywhere, also when their task is cancelled.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use crate::{
    claim::Claim,
    cost::Tokens,
    dispatcher::{Command, GroupShared, PermitReturn, TicketId, Waiter},
};

/// Why a ticket will never be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The cost is above a limit of every deployment.
    #[error("the request can never fit under the limits")]
    NeverFits,
    /// The queue is at its depth cap and everything that waits is better.
    #[error("the queue is full")]
    QueueFull,
    /// Every deployment cools because of this upstream status (401, 402 or 404).
    #[error("every deployment is cooling down after an upstream {0}")]
    Cooling(u16),
    /// This instance is shutting down.
    #[error("the scheduler is closed")]
    Closed,
}

/// The numbers of a grant: `x-vorrang-ticket: arrival=A, entered=E, granted=G`, with fair shares `start=T`, with aging `score=S`.
///
/// Ticket b was inverted by a iff `entered(b) < granted(a) < granted(b)` and (score, start, arrival) of b is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Drawn at the first entry; orders.
    pub arrival: u64,
    /// Drawn at this (re-)entry.
    pub entered: u64,
    /// Drawn at the grant.
    pub granted: u64,
    /// The priority; with aging the arrival (with fair shares, the start) + priority x what a level is worth, in microseconds.
    pub score: i64,
    /// With fair shares, when its tenant's turn begins: in ten-thousandths of a turn; with aging in microseconds, like an arrival.
    pub start: Option<u64>,
}

/// What a ticket asked for, where it stands, and how long it has waited so far.
#[derive(Debug, Clone, Copy, Default)]
struct Wait {
    claim: Claim,
    /// Of the first entry; 0 before.
    arrival: u64,
    start: u64,
    waited: Duration,
}

/// An entry in the queue. Dropping it leaves the queue at once (A7).
#[derive(Debug)]
pub struct Ticket {
    group: Arc<GroupShared>,
    id: TicketId,
    wait: Wait,
    since: Instant,
    end: oneshot::Receiver<Result<Permit, Refused>>,
    ahead: Option<oneshot::Receiver<u64>>,
    settled: bool,
}

impl Ticket {
    pub(crate) fn join(group: &Arc<GroupShared>, claim: Claim) -> Self {
        let wait = Wait {
            claim,
            ..Wait::default()
        };
        Self::enter(group.clone(), wait)
    }

    fn enter(group: Arc<GroupShared>, wait: Wait) -> Self {
        let id = group
            .tickets
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (end_sender, end) = oneshot::channel();
        let (ahead_sender, ahead) = oneshot::channel();
        group.tell(Command::Join {
            ticket: id,
            claim: wait.claim,
            arrival: wait.arrival,
            start: wait.start,
            waiter: Waiter {
                end: end_sender,
                ahead: Some(ahead_sender),
            },
        });
        Self {
            group,
            id,
            wait,
            since: Instant::now(),
            end,
            ahead: Some(ahead),
            settled: false,
        }
    }

    /// How many tickets were surely before this one when it came into the queue; `None` if it did not have to wait, or has been told.
    /// Cancel-safe.
    pub async fn ahead(&mut self) -> Option<u64> {
        let told = self.ahead.as_mut()?.await;
        self.ahead = None;
        told.ok()
    }

    /// Waits for the permit. Cancel-safe: it can be awaited again after a `select!` took another branch.
    ///
    /// # Errors
    /// When the ticket will never be granted; it has left the queue then. Awaited again after it returned, it is [`Refused::Closed`].
    pub async fn granted(&mut self) -> Result<Permit, Refused> {
        loop {
            if self.settled {
                return Err(Refused::Closed);
            }
            let Ok(answer) = (&mut self.end).await else {
                self.settled = true;
                if !self.group.is_served() {
                    return Err(Refused::Closed);
                }
                // The dispatcher that knew this ticket is gone: it enters the queue again, at the one that takes its place.
                let waited = self.wait.waited + self.since.elapsed();
                let wait = Wait {
                    waited,
                    ..self.wait
                };
                *self = Self::enter(self.group.clone(), wait);
                continue;
            };
            self.settled = true;
            let mut permit = answer?;
            self.wait.waited += self.since.elapsed();
            permit.wait.claim = self.wait.claim;
            permit.wait.waited = self.wait.waited;
            return Ok(permit);
        }
    }

    /// How long it has waited, over all its entries.
    pub fn waited(&self) -> Duration {
        self.wait.waited
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
            self.group.tell(Command::Leave { ticket: self.id });
        }
    }
}

/// What the dispatcher knows of a grant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Granted {
    pub numbers: Numbers,
    pub deployment: usize,
    pub probe: bool,
    /// P9 holds for it.
    pub limited: bool,
    pub session: u64,
}

/// The permit's session is over, or may be: its grant was, or will be, given to another ticket. [`Permit::retry`] enters the queue again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the permit has expired: the call must not go out")]
pub struct Expired;

/// The right to make one upstream call on one deployment. Always given back: dropping it is enough, wherever that happens.
///
/// Dropped without [`Permit::dispatch`], requests and tokens are refunded; after it they stay (P14).
#[derive(Debug)]
pub struct Permit {
    group: Arc<GroupShared>,
    grant: Granted,
    wait: Wait,
    dispatched: bool,
    ok: bool,
    used: Option<Tokens>,
}

impl Permit {
    pub(crate) fn new(group: Arc<GroupShared>, grant: Granted) -> Self {
        let wait = Wait {
            arrival: grant.numbers.arrival,
            start: grant.numbers.start.unwrap_or(0),
            ..Wait::default()
        };
        Self {
            group,
            grant,
            wait,
            dispatched: false,
            ok: false,
            used: None,
        }
    }

    /// Index of the deployment in the group's configuration.
    pub fn deployment(&self) -> usize {
        self.grant.deployment
    }

    /// The ticket's numbers.
    pub fn numbers(&self) -> Numbers {
        self.grant.numbers
    }

    /// How long the ticket waited, over all its entries, without the time of its calls.
    pub fn waited(&self) -> Duration {
        self.wait.waited
    }

    /// Whether this call is the probe of a deployment after its cooldown (A9).
    pub fn is_probe(&self) -> bool {
        self.grant.probe
    }

    /// The call goes out now: to be called just before its first byte may leave, and not earlier, as its time counts from here. From here on the
    /// charge stays. Calling it again changes nothing.
    ///
    /// # Errors
    /// Where the group's last answer is so old that the grant may be another ticket's (P9): the call must not go out.
    pub fn dispatch(&mut self) -> Result<(), Expired> {
        let Granted {
            session,
            numbers,
            limited,
            ..
        } = self.grant;
        if self.dispatched {
            return Ok(());
        }
        if !self.group.dispatch(session, numbers.granted, limited) {
            self.group.tell(Command::Expired);
            return Err(Expired);
        }
        self.dispatched = true;
        Ok(())
    }

    /// Takes [`Permit::dispatch`] back: certainly nothing was sent (connect, DNS or TLS failure).
    pub fn not_dispatched(&mut self) {
        self.dispatched = false;
    }

    /// The answer has begun: weighs against failures, and ends a probe.
    pub fn succeeded(&mut self) {
        self.ok = true;
        if self.grant.probe {
            self.group.tell(Command::Succeeded {
                granted: self.grant.numbers.granted,
            });
        }
    }

    /// The attempt failed. `cool`: the deployment cools for this long at once; `None`: it counts towards `allowed_fails`.
    /// `status`: the upstream's, or 0 where there was none.
    pub fn failed(&mut self, status: u16, cool: Option<Duration>) {
        self.ok = false;
        self.wait.claim.has_tried(self.deployment());
        self.group.tell(Command::Failed {
            granted: self.grant.numbers.granted,
            status,
            cool,
        });
    }

    /// What the call really used, by kind or as a total, as it was reserved; corrects the token windows when the permit goes back.
    pub fn used_tokens(&mut self, tokens: impl Into<Tokens>) {
        self.used = Some(tokens.into());
    }

    /// Gives the permit back and re-enters the queue with the first arrival (A8). Where there is room at a healthy deployment that this request
    /// has not [failed](Permit::failed) on yet, it goes there.
    pub fn retry(self) -> Ticket {
        self.release().enter()
    }

    /// Gives the permit back. The ticket can re-enter the queue later.
    pub fn release(self) -> Pausing {
        let (group, wait) = (self.group.clone(), self.wait);
        drop(self);
        Pausing { group, wait }
    }
}

/// A ticket between two attempts: it is in no queue and holds nothing but its arrival.
#[derive(Debug)]
pub struct Pausing {
    group: Arc<GroupShared>,
    wait: Wait,
}

impl Pausing {
    /// Re-enters the queue with the first arrival (A8).
    pub fn enter(self) -> Ticket {
        Ticket::enter(self.group, self.wait)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.group.tell(Command::Return(PermitReturn {
            granted: self.grant.numbers.granted,
            dispatched: self.dispatched,
            ok: self.ok,
            used: self.used,
        }));
    }
}
