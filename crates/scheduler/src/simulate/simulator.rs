//! Requests through a virtual group, from their arrival to the end of their calls.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::Duration,
};

use super::{Usage, VirtualCall, VirtualEvent, VirtualGroup};
use crate::{claim::Claim, config::GroupConfig, cost::Tokens, ticket::Refused};

/// A request: what it asks for, and how its calls go once they are granted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Request {
    /// Its priority, tokens and tenant.
    pub claim: Claim,
    /// How long after its arrival it stops waiting.
    pub patience: Duration,
    /// How many calls it makes, one after the other: more than one where attempts fail. At least one.
    pub calls: u32,
    /// How long each of them takes.
    pub took: Duration,
    /// The tokens that each of them uses; `None`: what is reserved.
    pub used: Option<Tokens>,
}

/// How the waiting of a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All its calls were granted.
    Granted,
    /// Its time was up.
    TimedOut,
    /// The queue refused it.
    Refused(Refused),
}

/// A request that waits or is called.
#[derive(Debug)]
struct Live<T> {
    request: Request,
    tag: T,
    calls_left: u32,
    /// When it stops waiting.
    deadline: Duration,
    /// When it entered the queue last.
    since: Duration,
    waited: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The call of this ticket is over.
    Call(u64),
    /// The time of a ticket is up.
    Time(u64),
}

/// Runs requests through one group in virtual time. `T`: what the user knows a request by.
#[derive(Debug)]
pub struct Simulator<T> {
    group: VirtualGroup,
    now: Duration,
    /// By ticket. A request that calls again has another ticket.
    live: HashMap<u64, Live<T>>,
    calls: HashMap<u64, (VirtualCall, Live<T>)>,
    due: BinaryHeap<Reverse<(Duration, Due)>>,
    tickets: u64,
    events: Vec<VirtualEvent>,
}

impl<T> Simulator<T> {
    /// A group without requests, at time zero. See [`VirtualGroup::new`].
    pub fn new(config: &GroupConfig, round_trip: Duration, seed: u64) -> Self {
        Self {
            group: VirtualGroup::new(config, round_trip, seed),
            now: Duration::ZERO,
            live: HashMap::new(),
            calls: HashMap::new(),
            due: BinaryHeap::new(),
            tickets: 0,
            events: Vec::new(),
        }
    }

    /// A request arrives at this time: not before the last one. All that happens before is done first.
    pub fn arrive(
        &mut self,
        at: Duration,
        request: Request,
        tag: T,
        ended: &mut impl FnMut(T, Duration, Ended),
    ) {
        self.run_before(at, ended);
        self.now = self.now.max(at);
        self.enter(
            None,
            Live {
                deadline: self.now + request.patience,
                calls_left: request.calls.max(1),
                request,
                tag,
                since: self.now,
                waited: Duration::ZERO,
            },
        );
    }

    /// Everything until no request is left.
    pub fn finish(&mut self, ended: &mut impl FnMut(T, Duration, Ended)) {
        while !self.live.is_empty() || !self.calls.is_empty() {
            let Some(at) = self.next() else { return };
            self.step_to(at, ended);
        }
    }

    /// The virtual time.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.live.len()
    }

    /// How many calls are open.
    pub fn open(&self) -> usize {
        self.calls.len()
    }

    /// How the limits have been used so far.
    pub fn usage(&self) -> Usage {
        self.group.usage()
    }

    fn next(&self) -> Option<Duration> {
        let due = self.due.peek().map(|Reverse((at, _))| *at);
        let next = self.group.next().map(|at| at.max(self.now));
        match (due, next) {
            (Some(due), Some(next)) => Some(due.min(next)),
            (due, next) => due.or(next),
        }
    }

    /// All that is due before a time. What is due at that time waits for what arrives then.
    fn run_before(&mut self, at: Duration, ended: &mut impl FnMut(T, Duration, Ended)) {
        while let Some(next) = self.next().filter(|next| *next < at) {
            self.step_to(next, ended);
        }
    }

    fn step_to(&mut self, at: Duration, ended: &mut impl FnMut(T, Duration, Ended)) {
        self.now = at;
        while let Some(Reverse((when, due))) = self.due.peek().copied() {
            if when > at {
                break;
            }
            self.due.pop();
            match due {
                Due::Call(ticket) => self.call_ends(ticket, ended),
                Due::Time(ticket) => {
                    if let Some(live) = self.live.remove(&ticket) {
                        self.group.leave(ticket);
                        let waited = live.waited + at.saturating_sub(live.since);
                        ended(live.tag, waited, Ended::TimedOut);
                    }
                }
            }
        }
        let mut events = std::mem::take(&mut self.events);
        self.group.advance(at, &mut events);
        for event in events.drain(..) {
            self.receive(event, ended);
        }
        self.events = events;
    }

    fn call_ends(&mut self, ticket: u64, ended: &mut impl FnMut(T, Duration, Ended)) {
        let Some((call, mut live)) = self.calls.remove(&ticket) else {
            return;
        };
        self.group.end(self.now, &call, live.request.used);
        live.calls_left -= 1;
        match live.calls_left {
            0 => ended(live.tag, live.waited, Ended::Granted),
            _ => {
                live.since = self.now;
                self.enter(Some(&call), live);
            }
        }
    }

    /// `after`: the call that has failed before.
    fn enter(&mut self, after: Option<&VirtualCall>, live: Live<T>) {
        self.tickets += 1;
        match after {
            None => self.group.join(self.tickets, live.request.claim),
            Some(call) => self.group.join_again(self.tickets, call),
        }
        self.live.insert(self.tickets, live);
    }

    fn receive(&mut self, event: VirtualEvent, ended: &mut impl FnMut(T, Duration, Ended)) {
        match event {
            VirtualEvent::Granted { ticket, call } => {
                // A ticket that has left is not granted.
                let Some(mut live) = self.live.remove(&ticket) else {
                    return;
                };
                live.waited += self.now.saturating_sub(live.since);
                let over = self.now + live.request.took;
                self.due.push(Reverse((over, Due::Call(ticket))));
                self.calls.insert(ticket, (call, live));
            }
            VirtualEvent::Waits { ticket } => {
                if let Some(live) = self.live.get(&ticket) {
                    let at = live.deadline.max(self.now);
                    self.due.push(Reverse((at, Due::Time(ticket))));
                }
            }
            VirtualEvent::Refused { ticket, why } => {
                if let Some(live) = self.live.remove(&ticket) {
                    let waited = live.waited + self.now.saturating_sub(live.since);
                    ended(live.tag, waited, Ended::Refused(why));
                }
            }
        }
    }
}
