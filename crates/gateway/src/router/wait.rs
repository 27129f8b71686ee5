//! Waits for one permit, and says why there is none.

use std::sync::Arc;

use futures_util::FutureExt as _;
use http::StatusCode;
use tokio::time::{Duration, Instant, sleep, timeout, timeout_at};
use vorrang_scheduler::{Permit, Refused, Ticket};

use super::{Inner, JournaledCall};
use crate::{
    CallInfo, Events, Place, Stage, WaitOutcome,
    group::OpenGroup,
    journal::Life,
    problem::Problem,
    provider::retry,
    waiting::{estimates, room::WaitingCall},
};

/// How often a call that has somewhere else to go looks whether every deployment cools.
const LOOK: Duration = Duration::from_millis(200);

/// When a call leaves a queue without a permit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leave<'a> {
    /// When the request's time is up.
    pub(super) deadline: Instant,
    /// As soon as every deployment cools but those that cannot serve it; `None`: not then.
    pub(super) cooling: Option<&'a [bool]>,
    /// After so long a wait, or when it is surely longer; `None`: never.
    pub(super) spill: Option<Duration>,
    /// It has been granted before.
    pub(super) retry: bool,
}

impl Inner {
    /// Waits for the permit until the time is up.
    pub(super) async fn wait(
        &self,
        call: &JournaledCall<'_>,
        group: &OpenGroup,
        ticket: &mut Ticket,
        mut entry: WaitingCall<'_>,
        leave: Leave<'_>,
        info: &mut CallInfo,
    ) -> Result<Permit, NoPermit> {
        let Leave {
            deadline, cooling, ..
        } = leave;
        // A retry has been in the queue: it gets a moment to be granted at once.
        let least = if leave.retry { LOOK } else { Duration::ZERO };
        let spills = leave.spill.map(|after| Instant::now() + after.max(least));
        let settings = &group.settings;
        let (name, priority) = (&settings.name, info.priority);
        let mut watch = WaitWatch {
            events: &*call.events,
            life: call.life,
            group: name,
            since: Instant::now(),
            outcome: WaitOutcome::Gone,
        };
        // A retry does not learn how many are ahead: it may leave from either wait.
        let leaves = async {
            tokio::select! {
                biased;
                () = entry.turned_away() => {
                    let status = group.queue.status();
                    let retry_after = estimates::drained(&status, priority, settings);
                    let problem = Problem::TurnedAway { retry_after };
                    (WaitOutcome::TurnedAway, NoPermit::Refused(problem))
                }
                retry_after = all_cool(group, cooling.unwrap_or_default()), if cooling.is_some() => {
                    let group = name.clone();
                    let problem = Problem::AllCooling { group, retry_after };
                    (WaitOutcome::Cooling, NoPermit::Refused(problem))
                }
            }
        };
        tokio::pin!(leaves);
        let ahead = tokio::select! {
            biased;
            ahead = timeout_at(deadline, ticket.ahead()) => ahead.ok().flatten(),
            (outcome, left) = &mut leaves => {
                watch.outcome = outcome;
                return Err(left);
            }
            () = until(spills), if leave.retry => {
                watch.outcome = WaitOutcome::Spilled;
                return Err(NoPermit::Spills);
            }
        };
        let mut granted = ticket.granted().now_or_never();
        let mut status = None;
        if granted.is_none() {
            status = Some(group.queue.status());
            // A grant is delivered before the status that follows it: for a ticket that was granted meanwhile there is nothing to estimate.
            granted = ticket.granted().now_or_never();
        }
        let status = status.unwrap_or_default();
        if let (Some(ahead), None) = (ahead, &granted) {
            let least = estimates::least_wait(&status, ahead, info.priority, settings);
            let left = deadline.saturating_duration_since(Instant::now());
            info.position = Some(ahead.saturating_add(1));
            // A paused ticket waits for an operator, and nobody knows how long.
            let paused = group.pauses(self.tenants.key(call.key.as_ref()));
            let known = (!paused).then_some(least);
            info.least_wait = known;
            if leave.spill.is_some_and(|after| least > after) {
                watch.outcome = WaitOutcome::Spilled;
                return Err(NoPermit::Spills);
            }
            if self.config.refuse_late && least > left {
                watch.outcome = WaitOutcome::TooLate;
                // By then enough tickets have been served for a request with this timeout to be in time.
                let served = estimates::served(&status, least, info.priority, settings);
                return Err(NoPermit::Refused(Problem::TooLate {
                    group: name.clone(),
                    least,
                    retry_after: served.saturating_sub(left),
                }));
            }
            call.events.queued(name, priority, ahead, least);
            call.life.queued(ticket.arrival(), ahead, known);
            if info.streamed {
                call.events.waits_at(&self.place(call));
                call.events.stage(Stage::Queued {
                    ahead,
                    least_wait: known,
                });
            }
        }
        let key = call.key.as_ref().filter(|_| granted.is_none());
        let Some(_waiting) = self.waiting_by_key.enter(key) else {
            watch.outcome = WaitOutcome::QueueFull;
            return Err(NoPermit::Refused(Problem::KeyQueueFull {
                most: key.and_then(|key| key.max_waiting).unwrap_or_default(),
                retry_after: estimates::drained(&status, info.priority, settings),
            }));
        };
        let granted = match granted {
            Some(granted) => Ok(granted),
            None => tokio::select! {
                biased;
                granted = timeout_at(deadline, ticket.granted()) => granted,
                (outcome, left) = &mut leaves => {
                    watch.outcome = outcome;
                    return Err(left);
                }
                () = until(spills) => {
                    watch.outcome = WaitOutcome::Spilled;
                    return Err(NoPermit::Spills);
                }
            },
        };
        let (outcome, result) = match granted {
            Ok(Ok(permit)) => {
                call.life.arrived(permit.numbers().arrival);
                (WaitOutcome::Granted, Ok(permit))
            }
            Ok(Err(Refused::NeverFits)) => {
                let message = format!("The request can never fit under the limits of {name}");
                (WaitOutcome::NeverFits, Err(Problem::NeverFits { message }))
            }
            Ok(Err(Refused::QueueFull)) => {
                let status = group.queue.status();
                let retry_after = estimates::drained(&status, info.priority, settings);
                (
                    WaitOutcome::QueueFull,
                    Err(Problem::QueueFull {
                        group: name.clone(),
                        retry_after,
                    }),
                )
            }
            Ok(Err(Refused::Cooling(retry::EXHAUSTED))) => {
                let group = name.clone();
                (WaitOutcome::Cooling, Err(Problem::Exhausted { group }))
            }
            Ok(Err(Refused::Cooling(status))) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                (
                    WaitOutcome::Cooling,
                    Err(Problem::Cooling {
                        group: name.clone(),
                        status,
                    }),
                )
            }
            Ok(Err(Refused::Cancelled)) => {
                let reason = call.life.is_cancelled();
                (WaitOutcome::Cancelled, Err(Problem::Cancelled { reason }))
            }
            Ok(Err(Refused::Closed)) => (WaitOutcome::Closed, Err(Problem::Closed)),
            Err(_) => {
                // Its ticket waits until it is dropped.
                let place = self.place(call);
                if let Ok(Some((ahead, least))) = timeout(LOOK, place.now()).await {
                    info.position = Some(ahead.saturating_add(1));
                    info.least_wait = least;
                } else if place.is_paused() {
                    info.least_wait = None;
                }
                (WaitOutcome::TimedOut, Err(self.out_of_time(group, ahead)))
            }
        };
        watch.outcome = outcome;
        result.map_err(NoPermit::Refused)
    }

    /// To ask where a call is in its queue.
    fn place(&self, call: &JournaledCall<'_>) -> Place {
        Place {
            router: self.current.clone(),
            life: Arc::clone(call.life),
        }
    }

    /// The time was up while waiting: because other tickets were first, or because nothing could be granted.
    fn out_of_time(&self, group: &OpenGroup, ahead: Option<u64>) -> Problem {
        let status = group.queue.status();
        let usable = status.ready && status.silent_for <= self.config.timing.lease;
        let refusal = status.failure.as_ref().filter(|error| error.is_refusal());
        if let Some(error) = refusal.filter(|_| !usable) {
            Problem::BackendRefuses {
                cause: error.cause(),
            }
        } else if status.silent_for > self.config.timing.lease {
            Problem::BackendSilent {
                silent_for: status.silent_for,
            }
        } else if !status.ready {
            Problem::BackendRecovering
        } else {
            estimates::timed_out(&group.settings, ahead, &status)
        }
    }
}

/// Done when every deployment cools but those without the endpoint: in how long the first is well again.
async fn all_cool(group: &OpenGroup, without: &[bool]) -> Duration {
    loop {
        let status = group.queue.status();
        let both = without.iter().zip(&status.deployments);
        let with_it = both.filter(|(without, _)| !**without);
        let cooling: Option<Vec<Duration>> = with_it.map(|(_, status)| status.cooling).collect();
        if let Some(first) = cooling.unwrap_or_default().into_iter().min() {
            return first;
        }
        sleep(LOOK).await;
    }
}

/// Never done without a time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Why there is no permit.
pub(super) enum NoPermit {
    /// There will be none.
    Refused(Problem),
    /// The wait is too long for it, and another queue may be shorter. It still waits.
    Spills,
}

/// A call that saw a deployment's own words about its failure passes them on.
pub(super) fn or_last(problem: Problem, last: Option<Problem>) -> Problem {
    match (problem, last) {
        (Problem::Cooling { .. } | Problem::Exhausted { .. }, Some(last))
            if matches!(last.status().as_u16(), 401 | 402 | 404 | 429) =>
        {
            last
        }
        (Problem::AllCooling { .. }, Some(last)) => last,
        (problem, _) => problem,
    }
}

/// Reports a wait when it ends, also when its future is dropped.
struct WaitWatch<'a> {
    events: &'a dyn Events,
    life: &'a Life,
    group: &'a str,
    since: Instant,
    outcome: WaitOutcome,
}

impl Drop for WaitWatch<'_> {
    fn drop(&mut self) {
        self.life.leaves(self.outcome);
        self.events.waited(
            self.group,
            self.life.priority(),
            self.since.elapsed(),
            self.outcome,
        );
    }
}
