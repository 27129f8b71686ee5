//! Drives a [`Core`] with a real backend and tokio's clock.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};

use super::core::{Alive, Core, Event, TicketId, Transmission};
use super::differing::Differing;
use crate::{
    backend::{Backend, BackendError, UNDECODABLE},
    claim::Claim,
    message::{NEVER_FITS, QUEUE_FULL, Reply},
    scheduler::{DeploymentStatus, GroupStatus, Observer, Reasons},
    ticket::{Granted, Numbers, Permit, Refused},
};

/// What callers tell a dispatcher. Sending never blocks, so that it can be done from `Drop`.
#[derive(Debug)]
pub(crate) enum Command {
    Join {
        ticket: TicketId,
        claim: Claim,
        arrival: u64,
        start: u64,
        asker: Asker,
    },
    Leave {
        ticket: TicketId,
    },
    Return(PermitReturn),
    /// The call of a grant goes out.
    Dispatched {
        granted: u64,
    },
    /// The call of a grant may not go out any more.
    Expired,
    Succeeded {
        granted: u64,
    },
    Failed {
        granted: u64,
        status: u16,
        cool: Option<Duration>,
    },
    Wake,
    Look,
    /// Refuse all tickets, wait for the permits, say goodbye; then tell.
    Close {
        done: oneshot::Sender<()>,
    },
    /// Say goodbye whatever is still out.
    Abandon,
}

/// Who waits for a ticket. Either may have stopped: sending to them may fail.
#[derive(Debug)]
pub(crate) struct Asker {
    pub end: oneshot::Sender<Result<Permit, Refused>>,
    /// For how many are surely before it, once it is in the queue.
    pub ahead: Option<oneshot::Sender<u64>>,
}

/// A permit on its way back.
#[derive(Debug)]
pub(crate) struct PermitReturn {
    pub granted: u64,
    pub dispatched: bool,
    pub ok: bool,
    pub used: Option<u64>,
}

/// What a group's handles and its dispatcher share.
#[derive(Debug)]
pub(crate) struct GroupShared {
    pub name: Arc<str>,
    pub commands: mpsc::UnboundedSender<Command>,
    pub tickets: std::sync::atomic::AtomicU64,
    status: Mutex<(GroupStatus, Instant)>,
    /// P9: the session whose grants may be dispatched, and until when.
    alive: Mutex<(u64, Instant)>,
}

impl GroupShared {
    pub(crate) fn new(name: &str, commands: mpsc::UnboundedSender<Command>) -> Self {
        let status = Mutex::new((GroupStatus::default(), Instant::now()));
        Self {
            name: name.into(),
            commands,
            tickets: 0.into(),
            status,
            alive: Mutex::new((0, Instant::now())),
        }
    }

    /// P9 (dispatch within the session): whether a call that `session` granted may be dispatched now. If so the dispatcher receives that before
    /// the session can end for it.
    pub(crate) fn dispatch(&self, session: u64, granted: u64, limited: bool) -> bool {
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        let may = !limited || (alive.0 == session && Instant::now() <= alive.1);
        if may {
            self.tell(Command::Dispatched { granted });
        }
        may
    }

    fn set_alive(&self, session: u64, until: Instant) {
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
    fn stepped(&self, result: &Option<Result<Reply, BackendError>>) {
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

    /// Tells the dispatcher; it is gone only when the runtime is, and then nothing matters.
    pub(crate) fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

/// A step under way: when it was sent, and what comes of it.
type Flight = BoxFuture<'static, Option<Result<Reply, BackendError>>>;

struct Task {
    core: Core,
    shared: Arc<GroupShared>,
    observer: Arc<dyn Observer>,
    started: Instant,
    askers: HashMap<TicketId, Asker>,
    closing: bool,
    closed: Vec<oneshot::Sender<()>>,
    differing: Differing,
}

/// Runs a group's dispatcher until all its handles are gone or it was closed.
pub(crate) async fn run(
    core: Core,
    shared: Arc<GroupShared>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    backend: Arc<dyn Backend>,
    observer: Arc<dyn Observer>,
    started: Instant,
) {
    let mut task = Task {
        core,
        shared,
        observer,
        started,
        askers: HashMap::new(),
        closing: false,
        closed: Vec::new(),
        differing: Differing::default(),
    };
    let mut flight: Option<(Instant, usize, Flight)> = None;
    let mut inbox = Vec::new();
    loop {
        // Everything that came meanwhile goes into one step.
        while let Ok(command) = commands.try_recv() {
            task.execute(command);
        }
        if flight.is_none() {
            if task.farewell() {
                return;
            }
            // A snapshot has to have every dispatch: those before this are in the channel, and there are none after it.
            if task.core.session_ends() {
                task.shared.set_alive(0, Instant::now());
                while let Ok(command) = commands.try_recv() {
                    task.execute(command);
                }
            }
            if let Some(transmission) = task.core.poll(task.now()) {
                let ops = transmission.message.ops.len();
                flight = Some((
                    Instant::now(),
                    ops,
                    transmit(&task.shared.name, &backend, transmission),
                ));
            }
        }
        task.publish();
        let deadline = task
            .core
            .deadline()
            .map(|at| task.started + Duration::from_micros(at));
        tokio::select! {
            biased;
            result = async { match &mut flight { Some((.., f)) => f.await, None => std::future::pending().await } } => {
                if let Some((sent, ops, _)) = flight.take() {
                    task.finish(sent, ops, result);
                }
            }
            count = commands.recv_many(&mut inbox, 1024) => {
                if count == 0 {
                    return;
                }
                for command in inbox.drain(..) {
                    task.execute(command);
                }
            }
            () = async { match deadline { Some(at) => sleep_until(at).await, None => std::future::pending().await } }, if flight.is_none() => {}
        }
    }
}

fn transmit(group: &Arc<str>, backend: &Arc<dyn Backend>, transmission: Transmission) -> Flight {
    let (group, backend) = (group.clone(), backend.clone());
    Box::pin(async move {
        let Transmission {
            message,
            timeout: limit,
        } = transmission;
        timeout(Duration::from_micros(limit), backend.step(&group, &message))
            .await
            .ok()
    })
}

impl Task {
    fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    fn at(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.started).as_micros())
            .unwrap_or(u64::MAX)
    }

    fn execute(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Join { asker, .. } if self.closing => {
                let _ = asker.end.send(Err(Refused::Closed));
            }
            Command::Join {
                ticket,
                claim,
                arrival,
                start,
                asker,
            } => {
                self.askers.insert(ticket, asker);
                self.core.join(ticket, claim, arrival, start);
            }
            Command::Leave { ticket } => {
                self.askers.remove(&ticket);
                self.core.leave(ticket);
            }
            Command::Return(PermitReturn {
                granted,
                dispatched,
                ok,
                used,
            }) => {
                if ok {
                    self.core.succeeded(granted);
                }
                self.core.give_back(now, granted, dispatched, used);
            }
            Command::Dispatched { granted } => self.core.dispatched(now, granted),
            Command::Expired => self.observer.grant_expired(&self.shared.name),
            Command::Succeeded { granted } => self.core.succeeded(granted),
            Command::Failed {
                granted,
                status,
                cool,
            } => {
                let cool = cool.map(|d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX));
                self.core.failed(now, granted, status, cool);
            }
            Command::Wake => self.core.wake(),
            Command::Look => self.core.look(),
            Command::Close { done } => {
                self.closing = true;
                self.closed.push(done);
                for (ticket, asker) in self.askers.drain() {
                    self.core.leave(ticket);
                    let _ = asker.end.send(Err(Refused::Closed));
                }
            }
            Command::Abandon => self.core.say_goodbye(),
        }
    }

    /// Whether the goodbye has been said and answered.
    fn farewell(&mut self) -> bool {
        if !self.closing {
            return false;
        }
        if self.core.in_flight() == 0 && !self.core.is_asleep() {
            self.core.say_goodbye();
        }
        if !self.core.is_asleep() {
            return false;
        }
        for done in self.closed.drain(..) {
            // Whoever closes may have stopped waiting.
            let _ = done.send(());
        }
        true
    }

    fn finish(&mut self, sent: Instant, ops: usize, result: Option<Result<Reply, BackendError>>) {
        let now = self.now();
        self.shared.stepped(&result);
        let group = &*self.shared.name;
        match result {
            Some(Ok(reply)) => {
                self.observer.stepped(group, ops, sent.elapsed());
                let was_far = self.core.too_far();
                let events = self.core.on_reply(now, self.at(sent), reply);
                let Alive { session, until } = self.core.alive();
                let until = self.started + Duration::from_micros(until);
                self.shared.set_alive(session, until);
                if self.core.too_far() != was_far {
                    let round_trip_us = self.core.round_trip();
                    if was_far {
                        tracing::info!(group, round_trip_us, "the backend is near enough again");
                    } else {
                        tracing::warn!(
                            group,
                            round_trip_us,
                            "the backend is too far away: slots will be lost"
                        );
                    }
                }
                for event in events {
                    self.hand_out(event);
                }
            }
            Some(Err(error)) => {
                tracing::warn!(group, %error, "step failed");
                self.observer.backend_failed(group, error.kind);
                if error.kind == UNDECODABLE {
                    self.core.on_undecodable(now);
                    self.observer.resynced(group);
                } else {
                    self.core.on_failure(now);
                }
            }
            None => {
                tracing::warn!(group, "step timed out");
                self.observer.backend_failed(group, "timeout");
                self.core.on_failure(now);
            }
        }
    }

    fn hand_out(&mut self, event: Event) {
        match event {
            Event::Granted {
                ticket,
                arrival,
                entered,
                granted,
                score,
                start,
                deployment,
                probe,
                limited,
            } => {
                let numbers = Numbers {
                    arrival,
                    entered,
                    granted,
                    score,
                    start: (start > 0).then_some(start),
                };
                let session = self.core.alive().session;
                let grant = Granted {
                    numbers,
                    deployment,
                    probe,
                    limited,
                    session,
                };
                let permit = Permit::new(self.shared.clone(), grant);
                // Nobody there any more: the permit drops here and comes back as a command.
                if let Some(asker) = self.askers.remove(&ticket) {
                    let _ = asker.end.send(Ok(permit));
                }
            }
            Event::Entered { ticket, ahead } => {
                let asker = self.askers.get_mut(&ticket);
                if let Some(sender) = asker.and_then(|asker| asker.ahead.take()) {
                    let _ = sender.send(ahead);
                }
            }
            Event::Refused { ticket, code } => {
                let refused = match code {
                    NEVER_FITS => Refused::NeverFits,
                    QUEUE_FULL => Refused::QueueFull,
                    status => Refused::Cooling(status),
                };
                if let Some(asker) = self.askers.remove(&ticket) {
                    let _ = asker.end.send(Err(refused));
                }
            }
            Event::Expired => self.observer.grant_expired(&self.shared.name),
            Event::Resynced => {
                tracing::debug!(
                    group = &*self.shared.name,
                    "session refused, opening a new one"
                );
                self.observer.resynced(&self.shared.name);
            }
            Event::Recovered => {
                tracing::warn!(
                    group = &*self.shared.name,
                    "the group's shared state was lost and is being made anew"
                );
                self.observer.recovered(&self.shared.name);
            }
        }
    }

    fn publish(&mut self) {
        let now = self.now();
        let mut guard = self
            .shared
            .status
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (status, at) = &mut *guard;
        *at = Instant::now();
        status.ready = self.core.is_ready();
        let silent = self
            .core
            .unanswered_since()
            .map_or(0, |since| now.saturating_sub(since).max(1));
        status.silent_for = Duration::from_micros(silent);
        status.waiting = self.core.waiting();
        status.in_flight = self.core.in_flight();
        status.round_trip = self.core.round_trip().map(Duration::from_micros);
        status.too_far = self.core.too_far();
        let Some((answer, told)) = self.core.last_answer() else {
            return;
        };
        let passed = now.saturating_sub(*told);
        let left = |micros: u64| Duration::from_micros(micros.saturating_sub(passed));
        // Nobody tells a sleeper what the others do: what it heard last would be shown for ever.
        let heard = !self.core.is_asleep();
        let now = |amount: u64| if heard { amount } else { 0 };
        status.depth = now(answer.depth);
        status.reasons = Reasons(now(answer.reasons));
        status.configurations = now(answer.configurations);
        if self.differing.is_due(*at, status.configurations) {
            tracing::warn!(
                group = &*self.shared.name,
                configurations = status.configurations,
                "instances of this group have different configurations: the stricter limits hold as long as they do"
            );
        }
        status.next_free = u64::try_from(answer.next_free).ok().map(left);
        status.deployments.clear();
        status.deployments.extend(answer.used.iter().map(
            |&(requests, tokens, in_flight, cooling, pace)| DeploymentStatus {
                requests: now(requests),
                tokens: now(tokens),
                in_flight: now(in_flight),
                cooling: (cooling > passed).then(|| left(cooling)),
                pace: left(now(pace)),
            },
        ));
    }
}
