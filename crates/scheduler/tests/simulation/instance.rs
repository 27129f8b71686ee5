//! A simulated instance: a real dispatcher, its clients and its calls.

use std::{collections::BTreeMap, sync::Arc};

use vorrang_scheduler::{
    Claim, GroupConfig, Share, Tokens,
    dispatcher::{Core, TicketId},
};

use crate::world::Event;

#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) priority: i32,
    pub(crate) tokens: Tokens,
    /// Number of its first entry, once it had a call.
    pub(crate) arrival: u64,
    /// The same with fair shares, where its tenant's turn begins.
    pub(crate) start: u64,
    pub(crate) share: Share,
    pub(crate) attempts: u32,
    /// Deployments that it called in vain.
    pub(crate) tried: u64,
    pub(crate) since: u64,
    /// The same for all its entries.
    pub(crate) name: u64,
}

// === impl Client ===

impl Client {
    pub(crate) fn claim(&self) -> Claim {
        Claim {
            priority: self.priority,
            tokens: self.tokens,
            share: self.share,
            tried: self.tried,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) client: Client,
    pub(crate) deployment: usize,
    pub(crate) probe: bool,
    pub(crate) entered: u64,
    pub(crate) dispatched: bool,
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// Status and cooldown.
    Failure(u16, Option<u64>),
    /// No connection.
    NotSent,
}

pub(crate) struct Instance {
    pub(crate) core: Core,
    pub(crate) alive: bool,
    /// When it was killed.
    pub(crate) died: u64,
    /// Lets its clients finish and goes.
    pub(crate) leaving: bool,
    /// What happened to it while it is stopped.
    pub(crate) paused: Option<Vec<Event>>,
    pub(crate) cut_until: u64,
    pub(crate) deaf_until: u64,
    /// The transmission that it waits for, and when that was sent on its own clock.
    pub(crate) transmission: Option<(u64, u64)>,
    pub(crate) timer: u64,
    /// It looks whether the server is there again.
    pub(crate) watches: bool,
    pub(crate) waiting: BTreeMap<TicketId, Client>,
    pub(crate) calls: BTreeMap<u64, Call>,
    /// The last of its messages that was executed, and when that was, in time in which the server was up.
    pub(crate) batch: u64,
    pub(crate) executed: u64,
    /// Which of a roll-out's configurations it has.
    pub(crate) side: usize,
    /// It has a session, and has not closed it.
    pub(crate) there: bool,
    offset: u64,
    /// Parts in a million.
    drift: u64,
}

impl Instance {
    pub(crate) fn new(name: &str, config: &GroupConfig, now: u64, rng: &mut fastrand::Rng) -> Self {
        let (offset, drift) = (rng.u64(0..1_000_000_000), rng.u64(0..100));
        let mut instance = Self {
            core: Core::new(Arc::from(name), config, 0),
            alive: true,
            died: 0,
            leaving: false,
            paused: None,
            cut_until: 0,
            deaf_until: 0,
            transmission: None,
            timer: 0,
            watches: false,
            waiting: BTreeMap::new(),
            calls: BTreeMap::new(),
            batch: 0,
            executed: 0,
            side: 0,
            there: false,
            offset,
            drift,
        };
        instance.core = Core::new(Arc::from(name), config, instance.clock(now));
        instance
    }

    /// Its monotonic clock: of any origin, and a little too fast.
    pub(crate) fn clock(&self, now: u64) -> u64 {
        self.offset + now + now * self.drift / 1_000_000
    }

    pub(crate) fn reachable(&self, now: u64) -> bool {
        self.alive && self.paused.is_none() && self.hears(now)
    }

    pub(crate) fn hears(&self, now: u64) -> bool {
        now >= self.cut_until && now >= self.deaf_until
    }
}
