//! Drives a [`Core`] with a real backend and tokio's clock.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    core::{Alive, Core, Event, QueryId, TicketId, Transmission},
    differing::Differing,
    queries::QueryResult,
    shared::{Board, Command, Entered, GroupShared, Waiter},
};
use crate::{
    backend::{Backend, BackendError, UNDECODABLE},
    config::GroupConfig,
    cost::Tokens,
    message::{NEVER_FITS, QUEUE_FULL, Reply, Used},
    permit::Permit,
    scheduler::{DeploymentStatus, Observer, Reasons},
    ticket::Refused,
    units::{Micros, SessionId},
};

/// An outstanding step, and its result.
type Flight = BoxFuture<'static, Option<Result<Reply, BackendError>>>;

struct Task {
    core: Core,
    board: Arc<Board>,
    /// For permits, which hold strong references.
    handles: Weak<GroupShared>,
    observer: Arc<dyn Observer>,
    started: Instant,
    config: Arc<Mutex<GroupConfig>>,
    waiters: HashMap<TicketId, Waiter>,
    /// Tickets that have entered and do not know it yet; how many are ahead of each, and its arrival.
    entered: Vec<(oneshot::Sender<Entered>, Entered)>,
    /// Queries without an answer, and the number of the next one.
    queries: HashMap<QueryId, oneshot::Sender<QueryResult>>,
    next_query: QueryId,
    closing: bool,
    closed: Vec<oneshot::Sender<()>>,
    differing: Differing,
    away: bool,
}

/// What a dispatcher needs besides its protocol's state.
pub(crate) struct Surroundings {
    pub board: Arc<Board>,
    pub handles: Weak<GroupShared>,
    pub backend: Arc<dyn Backend>,
    pub observer: Arc<dyn Observer>,
    /// When the local clock began.
    pub started: Instant,
    /// The latest, for a dispatcher that replaces one that panicked.
    pub config: Arc<Mutex<GroupConfig>>,
}

/// Runs a group's dispatcher until it is closed, or until all its handles are dropped and it has closed its session.
pub(super) async fn run(
    core: Core,
    around: &Surroundings,
    commands: &mut mpsc::UnboundedReceiver<Command>,
) {
    let mut task = Task {
        core,
        board: around.board.clone(),
        handles: around.handles.clone(),
        observer: around.observer.clone(),
        started: around.started,
        config: around.config.clone(),
        waiters: HashMap::new(),
        entered: Vec::new(),
        queries: HashMap::new(),
        next_query: 0,
        closing: false,
        closed: Vec::new(),
        differing: Differing::default(),
        away: false,
    };
    let mut flight: Option<(Instant, usize, Flight)> = None;
    let mut inbox = Vec::new();
    let mut give_up = None;
    // While the backend is away: resolves when it replies again.
    let mut returns: Option<BoxFuture<'static, ()>> = None;
    loop {
        // All pending commands go into one step.
        while let Ok(command) = commands.try_recv() {
            task.execute(command);
        }
        if flight.is_none() {
            if task.is_closed() {
                return;
            }
            // A snapshot must contain every dispatch: those from before this are in the channel, and none follow.
            if task.core.session_ends() {
                task.board.set_alive(SessionId::NONE, Instant::now());
                while let Ok(command) = commands.try_recv() {
                    task.execute(command);
                }
            }
            task.forget_queries();
            if let Some(transmission) = task.core.poll(task.now()) {
                let (ops, now) = (transmission.message.ops.len(), task.now());
                if let Some(reply) = task.core.answer_locally(now, &transmission.message) {
                    let events = task.core.on_reply(now, now, reply);
                    task.handle_events(events);
                    continue;
                }
                flight = Some((
                    Instant::now(),
                    ops,
                    transmit(&task.board.name, &around.backend, transmission),
                ));
            }
        }
        task.note_away();
        if task.core.in_fallback() && returns.is_none() {
            returns = Some(backend_returns(
                around.backend.clone(),
                task.board.name.clone(),
                around.board.lease() / 6,
            ));
        }
        task.publish();
        task.tell_entered();
        let deadline = task
            .core
            .deadline()
            .map(|at| task.started + Duration::from(at));
        tokio::select! {
            biased;
            result = async { match &mut flight { Some((.., f)) => f.await, None => std::future::pending().await } } => {
                if let Some((sent, ops, _)) = flight.take() {
                    task.finish(sent, ops, result);
                }
            }
            count = commands.recv_many(&mut inbox, 1024), if give_up.is_none() => {
                if count == 0 {
                    // All handles are dropped. The session is closed, if the backend replies in time.
                    task.closing = true;
                    give_up = Some(Instant::now() + around.board.lease());
                }
                for command in inbox.drain(..) {
                    task.execute(command);
                }
            }
            () = async { match &mut returns { Some(back) => back.await, None => std::future::pending().await } } => {
                returns = None;
                task.core.backend_returned();
            }
            () = sleep_or_never(give_up) => return,
            () = sleep_or_never(deadline), if flight.is_none() => {}
        }
    }
}

/// Checks the group's part of the backend periodically until it replies.
fn backend_returns(
    backend: Arc<dyn Backend>,
    group: Arc<str>,
    every: Duration,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        loop {
            sleep(every).await;
            if let Ok(Ok(())) = timeout(every, backend.check_group(&group)).await {
                return;
            }
        }
    })
}

async fn sleep_or_never(until: Option<Instant>) {
    match until {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn transmit(group: &Arc<str>, backend: &Arc<dyn Backend>, transmission: Transmission) -> Flight {
    let (group, backend) = (group.clone(), backend.clone());
    Box::pin(async move {
        let Transmission {
            message,
            timeout: limit,
        } = transmission;
        timeout(limit.into(), backend.step(&group, &message))
            .await
            .ok()
    })
}

impl Task {
    fn now(&self) -> Micros {
        self.at(Instant::now())
    }

    fn at(&self, instant: Instant) -> Micros {
        instant.saturating_duration_since(self.started).into()
    }

    fn execute(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Join { waiter, .. } if self.closing => {
                let _ = waiter.end.send(Err(Refused::Closed));
            }
            Command::Join {
                ticket,
                entry,
                waiter,
            } => {
                self.waiters.insert(ticket, waiter);
                self.core.join(ticket, entry);
            }
            Command::Leave { ticket } => {
                self.waiters.remove(&ticket);
                self.core.leave(ticket);
            }
            Command::Returned {
                granted,
                dispatched,
                ok,
                used,
            } => {
                if ok {
                    self.core.succeeded(granted);
                }
                self.core.give_back(now, granted, dispatched, used);
            }
            Command::Dispatched { granted } => self.core.dispatched(now, granted),
            Command::Expired => self.observer.grant_expired(&self.board.name),
            Command::Succeeded { granted } => self.core.succeeded(granted),
            Command::Measured { granted, took } => {
                self.core.measured(now, granted, Micros::from(took));
            }
            Command::Failed {
                granted,
                status,
                cool,
            } => {
                let cool = cool.map(Micros::from);
                self.core.failed(now, granted, status, cool);
            }
            Command::Reconfigure(config) => {
                self.core.reconfigure(&config);
                self.board.set_lease(config.timing.lease);
                let mut latest = self.config.lock().unwrap_or_else(PoisonError::into_inner);
                *latest = *config;
            }
            Command::Ask { query, answer } => {
                self.next_query += 1;
                self.queries.insert(self.next_query, answer);
                self.core.ask(self.next_query, query);
            }
            Command::Held { answer } => {
                // The operator may have left.
                let _ = answer.send(self.core.held());
            }
            Command::Cancel { arrival, done } => {
                let waiter = self.core.ticket_of(arrival).and_then(|ticket| {
                    self.core.leave(ticket);
                    self.waiters.remove(&ticket)
                });
                let cancelled = waiter.is_some_and(|waiter| {
                    let end = waiter.end.send(Err(Refused::Cancelled));
                    end.is_ok()
                });
                // The operator may have left.
                let _ = done.send(cancelled);
            }
            Command::Wake => self.core.wake(),
            Command::WakesLost => self.core.wakes_lost(),
            Command::Close { done } => {
                self.closing = true;
                self.closed.push(done);
                for (ticket, waiter) in self.waiters.drain() {
                    self.core.leave(ticket);
                    let _ = waiter.end.send(Err(Refused::Closed));
                }
            }
            Command::Abandon => self.core.close_session(),
        }
    }

    /// Withdraws queries that are not sent yet and whose operators have given up.
    fn forget_queries(&mut self) {
        let Self { core, queries, .. } = self;
        if queries.values().any(oneshot::Sender::is_closed) {
            queries.retain(|_, answer| !answer.is_closed());
            core.keep_queries(|id| queries.contains_key(&id));
        }
    }

    /// The session was to be closed, and is closed.
    fn is_closed(&mut self) -> bool {
        if !self.closing {
            return false;
        }
        if self.core.in_flight() == 0 && !self.core.is_asleep() {
            self.core.close_session();
        }
        if !self.core.is_asleep() {
            return false;
        }
        for done in self.closed.drain(..) {
            // The caller may have stopped waiting.
            let _ = done.send(());
        }
        true
    }

    fn finish(&mut self, sent: Instant, ops: usize, result: Option<Result<Reply, BackendError>>) {
        let now = self.now();
        self.board.stepped(&result);
        let name = self.board.name.clone();
        let group = &*name;
        match result {
            Some(Ok(reply)) => {
                self.observer.stepped(group, ops, sent.elapsed());
                let was_far = self.core.too_far();
                let events = self.core.on_reply(now, self.at(sent), reply);
                self.handle_events(events);
                if self.core.too_far() != was_far {
                    let round_trip_us = self.core.round_trip().map(|time| time.0);
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
            }
            Some(Err(error)) => {
                tracing::warn!(group, %error, "step failed");
                self.observer.backend_failed(group, error.kind);
                if error.kind == UNDECODABLE {
                    self.core.on_undecodable(now);
                    self.observer.session_invalid(group);
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

    fn handle_events(&mut self, events: Vec<Event>) {
        let Alive { session, until } = self.core.alive();
        let until = self.started + Duration::from(until);
        self.board.set_alive(session, until);
        for event in events {
            self.handle_event(event);
        }
    }

    /// Logs when the local fallback begins and ends.
    fn note_away(&mut self) {
        let (group, away) = (&*self.board.name, self.core.in_fallback());
        if away && !self.away {
            tracing::warn!(
                group,
                "the backend is away: this instance goes on with its part of the limits"
            );
        } else if !away && self.away {
            tracing::info!(group, "the backend answers again");
        }
        self.away = away;
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Granted { ticket, held } => {
                // Without a handle no ticket waits.
                let Some(handles) = self.handles.upgrade() else {
                    let granted = held.grant.granted;
                    self.core.give_back(self.now(), granted, false, None);
                    return;
                };
                let permit = Permit::new(handles, held);
                // Without a waiter the permit is dropped here, and returns as a command.
                if let Some(waiter) = self.waiters.remove(&ticket) {
                    let _ = waiter.end.send(Ok(permit));
                }
            }
            Event::Entered {
                ticket,
                ahead,
                arrival,
            } => {
                let waiter = self.waiters.get_mut(&ticket);
                if let Some(sender) = waiter.and_then(|waiter| waiter.ahead.take()) {
                    self.entered.push((sender, (ahead, arrival)));
                }
            }
            Event::Refused { ticket, code } => {
                let refused = match code {
                    NEVER_FITS => Refused::NeverFits,
                    QUEUE_FULL => Refused::QueueFull,
                    status => Refused::Cooling(status),
                };
                if let Some(waiter) = self.waiters.remove(&ticket) {
                    let _ = waiter.end.send(Err(refused));
                }
            }
            Event::Answered { query, result } => {
                if let Some(answer) = self.queries.remove(&query) {
                    let _ = answer.send(result);
                }
            }
            Event::Expired => self.observer.grant_expired(&self.board.name),
            Event::SessionInvalid => {
                tracing::debug!(
                    group = &*self.board.name,
                    "session refused, opening a new one"
                );
                self.observer.session_invalid(&self.board.name);
            }
            Event::Recovered => {
                tracing::warn!(
                    group = &*self.board.name,
                    "the group's shared state was lost and is being made anew"
                );
                self.observer.recovered(&self.board.name);
            }
        }
    }

    /// After the status is published: whoever learns its position estimates its wait by the status.
    fn tell_entered(&mut self) {
        for (sender, ahead) in self.entered.drain(..) {
            let _ = sender.send(ahead);
        }
    }

    fn publish(&mut self) {
        let now = self.now();
        let mut guard = self.board.lock();
        let (status, at) = &mut *guard;
        *at = Instant::now();
        status.ready = self.core.is_ready();
        let unresponsive = self.core.unanswered_since().map_or(Micros::ZERO, |since| {
            now.saturating_sub(since).max(Micros(1))
        });
        status.silent_for = unresponsive.into();
        status.instances = self.core.instances();
        status.waiting = self.core.waiting();
        status.held = self.core.held_count();
        status.in_flight = self.core.in_flight();
        status.round_trip = self.core.round_trip().map(Duration::from);
        status.too_far = self.core.too_far();
        status.away = self.away;
        status.overrides.clone_from(self.core.overrides());
        let Some((answer, received_at)) = self.core.last_answer() else {
            return;
        };
        let elapsed = now.saturating_sub(*received_at);
        let left = |time: Micros| Duration::from(time.saturating_sub(elapsed));
        // A sleeping dispatcher receives no replies, so it does not keep showing the last one.
        let is_current = !self.core.is_asleep();
        let current = |amount: u64| if is_current { amount } else { 0 };
        status.depth = current(answer.depth);
        status.reasons = Reasons(current(answer.reasons));
        status.configurations = current(answer.configurations);
        if self.differing.is_due(*at, status.configurations) {
            tracing::warn!(
                group = &*self.board.name,
                configurations = status.configurations,
                "instances of this group have different configurations: the stricter limits hold as long as they do"
            );
        }
        status.next_free = u64::try_from(answer.next_free)
            .ok()
            .map(|free| left(Micros(free)));
        status.deployments.clear();
        status.deployments.extend(answer.used.iter().map(
            |&Used {
                 cost,
                 open,
                 cooling,
                 pace,
             }| DeploymentStatus {
                requests: current(cost.requests),
                tokens: Tokens::new(current(cost.tokens.input), current(cost.tokens.output)),
                in_flight: current(open),
                cooling: (cooling > elapsed).then(|| left(cooling)),
                pace: if is_current {
                    left(pace)
                } else {
                    Duration::ZERO
                },
            },
        ));
    }
}
