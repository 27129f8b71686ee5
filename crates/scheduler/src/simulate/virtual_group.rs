//! A group of one instance, whose clock is moved by its user.

use std::{sync::Arc, time::Duration};

use super::usage::{Usage, UsageMeter};
use crate::{
    claim::{Claim, Entry},
    config::{GroupConfig, WhenAway},
    cost::Tokens,
    dispatcher::{Core, Event},
    message::{NEVER_FITS, QUEUE_FULL, Reply},
    rules::Rules,
    ticket::Refused,
    transition::{Environment, State, step},
    units::{Micros, Seq},
};

/// While no ticket waits, what only frees room is sent this late at most: no decision depends on it.
const IDLE_STEP: Micros = Micros::SECOND;

/// A grant of a [`VirtualGroup`], whose call is open until it is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtualCall {
    granted: Seq,
    entry: Entry,
    deployment: usize,
}

impl VirtualCall {
    /// Index of the deployment in the configuration.
    pub fn deployment(&self) -> usize {
        self.deployment
    }
}

/// What became of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VirtualEvent {
    /// It is granted, and its call goes out now.
    Granted {
        /// As it joined.
        ticket: u64,
        /// Its call.
        call: VirtualCall,
    },
    /// It has entered the queue and waits.
    Waits {
        /// As it joined.
        ticket: u64,
    },
    /// It will not be granted.
    Refused {
        /// As it joined.
        ticket: u64,
        /// Why.
        why: Refused,
    },
}

/// A message on its way: when its reply arrives, when it was sent, and what the reply is.
#[derive(Debug)]
struct Flight {
    arrives: Micros,
    sent: Micros,
    reply: Reply,
}

/// One instance's group in virtual time: the dispatcher's protocol over the step. Times are since its beginning, and never go back.
///
/// After each change its user calls [`advance`](Self::advance) with the same time, and again at [`next`](Self::next) at the latest. Changes
/// of one time go into one message, as they do in a real instance.
#[derive(Debug)]
pub struct VirtualGroup {
    core: Core,
    state: Option<State>,
    environment: Environment,
    random: fastrand::Rng,
    round_trip: Micros,
    flight: Option<Flight>,
    /// When the last message was sent.
    stepped: Micros,
    /// An op waits whose time counts.
    urgent: bool,
    usage: UsageMeter,
}

impl VirtualGroup {
    /// A group without tickets. `round_trip`: from the sending of a message until its reply is there; `seed`: of the step's random choices.
    pub fn new(config: &GroupConfig, round_trip: Duration, seed: u64) -> Self {
        let config = GroupConfig {
            // The backend is never away.
            when_away: WhenAway::Wait,
            ..config.clone()
        };
        Self {
            core: Core::new("simulated".into(), &config, Micros::ZERO),
            state: None,
            environment: Environment {
                now: Micros::ZERO,
                random: 0,
                replication: Arc::from(""),
                certain: true,
            },
            random: fastrand::Rng::with_seed(seed),
            round_trip: round_trip.into(),
            flight: None,
            stepped: Micros::ZERO,
            urgent: false,
            usage: UsageMeter::new(&Rules::from(&config)),
        }
    }

    /// Gives the group another configuration, from its next step on. Tickets keep their places. The [`Usage`] stays by the limits of the first.
    pub fn reconfigure(&mut self, config: &GroupConfig) {
        self.core.reconfigure(&GroupConfig {
            when_away: WhenAway::Wait,
            ..config.clone()
        });
    }

    /// A ticket joins. The caller chooses its number, and never uses it twice.
    pub fn join(&mut self, ticket: u64, claim: Claim) {
        self.core.join(ticket, Entry::new(claim));
    }

    /// The request of a call that has failed joins again, with its first arrival (A8).
    pub fn join_again(&mut self, ticket: u64, call: &VirtualCall) {
        let mut entry = call.entry;
        entry.claim.has_failed_on(call.deployment);
        self.core.join(ticket, entry);
    }

    /// A ticket leaves the queue; nothing if it is not there.
    pub fn leave(&mut self, ticket: u64) {
        self.core.leave(ticket);
    }

    /// A call is over. `used`: its tokens, if known.
    pub fn end(&mut self, now: Duration, call: &VirtualCall, used: Option<Tokens>) {
        // Tokens above a reservation count from when they are reported.
        let reserved = call.entry.claim.tokens;
        let excess = used.is_some_and(|used| used.saturating_sub(reserved) != Tokens::ZERO);
        self.urgent |= excess;
        self.core.give_back(now.into(), call.granted, true, used);
    }

    /// How many tickets wait.
    pub fn waiting(&self) -> usize {
        self.core.waiting()
    }

    /// How the limits have been used so far.
    pub fn usage(&self) -> Usage {
        self.usage.usage()
    }

    /// When to advance next if nothing happens before; `None`: there is nothing to do.
    pub fn next(&self) -> Option<Duration> {
        self.due().map(Duration::from)
    }

    fn due(&self) -> Option<Micros> {
        match &self.flight {
            Some(flight) => Some(flight.arrives),
            None if self.core.may_idle() && !self.urgent => {
                let at = self.core.deadline()?;
                Some(at.max(self.stepped + IDLE_STEP))
            }
            None => self.core.deadline(),
        }
    }

    /// Does what is due at this time, and tells what became of tickets. Returns when to advance next.
    pub fn advance(&mut self, now: Duration, events: &mut Vec<VirtualEvent>) {
        let now = Micros::from(now);
        loop {
            if let Some(flight) = self.flight.take_if(|flight| flight.arrives <= now) {
                let received = self.core.on_reply(now, flight.sent, flight.reply);
                for event in received {
                    self.receive(now, event, events);
                }
            }
            if self.flight.is_some() || self.due().is_none_or(|at| now < at) {
                return;
            }
            let Some(transmission) = self.core.poll(now) else {
                return;
            };
            (self.stepped, self.urgent) = (now, false);
            // The clock begins at one second, so that no sequence number is 0.
            self.environment.now = now + self.round_trip / 2 + Micros::SECOND;
            self.environment.random = self.random.u32(..);
            let outcome = step(&mut self.state, &self.environment, &transmission.message);
            if let Some(state) = &self.state {
                self.usage.note(now, state);
            }
            self.flight = Some(Flight {
                arrives: now + self.round_trip,
                sent: now,
                reply: outcome.reply,
            });
        }
    }

    fn receive(&mut self, now: Micros, event: Event, events: &mut Vec<VirtualEvent>) {
        match event {
            Event::Granted { ticket, held } => {
                let granted = held.grant.granted;
                self.core.dispatched(now, granted);
                events.push(VirtualEvent::Granted {
                    ticket,
                    call: VirtualCall {
                        granted,
                        entry: held.entry,
                        deployment: held.deployment,
                    },
                });
            }
            Event::Entered { ticket, .. } => events.push(VirtualEvent::Waits { ticket }),
            Event::Refused { ticket, code } => events.push(VirtualEvent::Refused {
                ticket,
                why: match code {
                    NEVER_FITS => Refused::NeverFits,
                    QUEUE_FULL => Refused::QueueFull,
                    status => Refused::Cooling(status),
                },
            }),
            // Nothing is lost here, and a grant that expires enters again by itself.
            Event::Expired | Event::SessionInvalid | Event::Recovered | Event::Answered { .. } => {}
        }
    }
}
