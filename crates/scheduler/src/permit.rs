//! [`Permit`] and [`ActiveCall`]: the handles of a granted request. Both may be dropped anywhere, also when their task is cancelled.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    claim::Entry,
    cost::Tokens,
    dispatcher::{Command, GroupShared},
    grant::{HeldGrant, Numbers},
    rules::MAX_LATENCY,
    ticket::{PausedTicket, Ticket},
};

/// The upstream's status of a call that timed out there.
const REQUEST_TIMEOUT: u16 = 408;

/// The grant of a permit or call. Dropping it returns the grant to the dispatcher.
#[derive(Debug)]
struct Loan {
    group: Arc<GroupShared>,
    held: HeldGrant,
    waited: Duration,
    dispatched: bool,
    /// The time of the dispatch, where it is measured how long answers take to begin.
    measured_from: Option<Instant>,
    ok: bool,
    used: Option<Tokens>,
}

impl Loan {
    /// Returns the grant. Its ticket can enter the queue again.
    fn release(self) -> PausedTicket {
        PausedTicket::new(self.group.clone(), self.held.entry, self.waited)
    }

    /// Reports how long the answer took to begin, once, where that is measured.
    fn measured(&mut self, took: impl FnOnce(Instant) -> Duration) {
        if let Some(from) = self.measured_from.take() {
            self.group.send(Command::Measured {
                granted: self.held.grant.granted,
                took: took(from),
            });
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.group.send(Command::Returned {
            granted: self.held.grant.granted,
            dispatched: self.dispatched,
            ok: self.ok,
            used: self.used,
        });
    }
}

/// The permit's session has ended, or may have: its grant was, or will be, given to another ticket (P9), and the call must not go out. The
/// permit has been returned, and its charge is refunded.
#[derive(Debug, thiserror::Error)]
#[error("the permit has expired: the call must not go out")]
pub struct Expired(PausedTicket);

impl Expired {
    /// The ticket, to enter the queue again.
    pub fn into_ticket(self) -> PausedTicket {
        self.0
    }
}

/// The right to make one upstream call on one deployment. Always returned: dropping it is enough, wherever that happens, and its charge is
/// refunded then. What is to be charged begins with [`Permit::dispatch`].
#[derive(Debug)]
#[must_use = "dropped, it is returned and its charge refunded"]
pub struct Permit(Loan);

impl Permit {
    pub(crate) fn new(group: Arc<GroupShared>, held: HeldGrant) -> Self {
        Self(Loan {
            group,
            held,
            waited: Duration::ZERO,
            dispatched: false,
            measured_from: None,
            ok: false,
            used: None,
        })
    }

    /// Sets how long the ticket has waited.
    pub(crate) fn after(mut self, waited: Duration) -> Self {
        self.0.waited = waited;
        self
    }

    /// The call goes out now: to be called just before its first byte may leave, and not earlier, as its time counts from here.
    ///
    /// # Errors
    /// If the group's last answer is so old that the grant may belong to another ticket (P9): the call must not go out.
    pub fn dispatch(mut self) -> Result<ActiveCall, Expired> {
        let loan = &mut self.0;
        if !loan.group.dispatch(&loan.held) {
            loan.group.send(Command::Expired);
            return Err(Expired(self.release()));
        }
        loan.dispatched = true;
        loan.measured_from = loan.group.measures().then(Instant::now);
        Ok(ActiveCall(self.0))
    }

    /// Returns the permit and enters the queue again with the first arrival (A8).
    pub fn retry(self) -> Ticket {
        self.release().enter()
    }

    /// Returns the permit. The ticket can enter the queue again later.
    pub fn release(self) -> PausedTicket {
        self.0.release()
    }
}

/// A call that was dispatched: its charge stays (P14), unless [nothing was sent](ActiveCall::not_sent). It ends when it is dropped, wherever
/// that happens; its place under a limit of open calls is free then.
#[derive(Debug)]
#[must_use = "dropped, the call counts as ended"]
pub struct ActiveCall(Loan);

impl ActiveCall {
    /// Certainly nothing was sent (connect, DNS or TLS failure): the call ends, and its charge is refunded.
    pub fn not_sent(mut self) -> PausedTicket {
        self.0.dispatched = false;
        self.0.release()
    }

    /// The answer has begun: weighs against failures, and ends a probe. Where deployments are chosen by their latency, it is measured here.
    pub fn succeeded(&mut self) {
        self.0.ok = true;
        self.0.measured(|from| from.elapsed());
        if self.is_probe() {
            let granted = self.0.held.grant.granted;
            self.0.group.send(Command::Succeeded { granted });
        }
    }

    /// The attempt failed. `cool`: the deployment cools for this long at once; `None`: it counts towards `allowed_fails`.
    /// `status`: the upstream's, or 0 where there was none.
    pub fn failed(&mut self, status: u16, cool: Option<Duration>) {
        let HeldGrant {
            entry: Entry { claim, .. },
            deployment,
            grant,
            ..
        } = &mut self.0.held;
        self.0.ok = false;
        claim.has_failed_on(*deployment);
        self.0.group.send(Command::Failed {
            granted: grant.granted,
            status,
            cool,
        });
        if status == REQUEST_TIMEOUT {
            self.timed_out();
        }
    }

    /// The attempt timed out. Where deployments are chosen by their latency, that counts as an answer after 1000 s. To be called beside
    /// [`failed`](ActiveCall::failed), which does it for the status 408.
    pub fn timed_out(&mut self) {
        self.0.measured(|_| MAX_LATENCY.into());
    }

    /// The tokens that the call used, by kind or as a total, as they were reserved; corrects the token windows when the call ends.
    pub fn used_tokens(&mut self, tokens: impl Into<Tokens>) {
        self.0.used = Some(tokens.into());
    }

    /// Ends the call and enters the queue again with the first arrival (A8). If a healthy deployment that this request has not
    /// [failed](ActiveCall::failed) on has room, it is granted there.
    pub fn retry(self) -> Ticket {
        self.release().enter()
    }

    /// Ends the call. The ticket can enter the queue again later.
    pub fn release(self) -> PausedTicket {
        self.0.release()
    }
}

/// What a grant shows before and after its dispatch.
macro_rules! shows_its_grant {
    ($($handle:ident)*) => {$(
        impl $handle {
            /// Index of the deployment in the group's configuration.
            pub fn deployment(&self) -> usize {
                self.0.held.deployment
            }

            /// The deployment's [id](crate::Deployment::id).
            pub fn deployment_id(&self) -> &str {
                &self.0.held.grant.deployment
            }

            /// The ticket's numbers.
            pub fn numbers(&self) -> Numbers {
                self.0.held.numbers()
            }

            /// How long the ticket waited, over all its entries, without the time of its calls.
            pub fn waited(&self) -> Duration {
                self.0.waited
            }

            /// Whether the call is the probe of a deployment after its cooldown (A9).
            pub fn is_probe(&self) -> bool {
                self.0.held.grant.probe
            }
        }
    )*};
}

shows_its_grant! { Permit ActiveCall }
