//! A simulated instance: a real dispatcher, its clients and its calls.

use std::{collections::BTreeMap, sync::Arc};

use vorrang_scheduler::{
    Claim, GroupConfig, Micros, Seq, Share, Tokens,
    dispatcher::{Core, TicketId},
};

use crate::world::Event;

#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) priority: i32,
    pub(crate) tokens: Tokens,
    /// The number of its first entry, after its first grant.
    pub(crate) arrival: Seq,
    /// Its start tag with fair shares, after its first grant.
    pub(crate) start: u64,
    pub(crate) share: Share,
    pub(crate) attempts: u32,
    /// Deployments on which its calls failed.
    pub(crate) tried: u64,
    /// When it joined last.
    pub(crate) since: u64,
    /// The priorities that its ticket had before operators moved it.
    pub(crate) moved: Vec<i32>,
    /// A sequence number that was drawn after the last move; the highest one while that is not answered.
    pub(crate) moved_at: Seq,
    /// Identifies the client over all its entries.
    pub(crate) name: u64,
}

// === impl Client ===

impl Client {
    pub(crate) fn claim(&self) -> Claim {
        Claim {
            priority: self.priority,
            tokens: self.tokens,
            share: self.share,
            key: self.share.tenant,
            tried: self.tried,
            failed: self.tried != 0,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) client: Client,
    pub(crate) deployment: usize,
    pub(crate) probe: bool,
    pub(crate) entered: Seq,
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
    /// It shuts down, and lets its calls end before.
    pub(crate) leaving: bool,
    /// The events that it has missed, while it is stopped.
    pub(crate) paused: Option<Vec<Event>>,
    pub(crate) cut_until: u64,
    pub(crate) replies_lost_until: u64,
    /// The outstanding transmission, and when it was sent on the instance's own clock.
    pub(crate) transmission: Option<(u64, Micros)>,
    pub(crate) timer: u64,
    /// It checks periodically whether the server is reachable again.
    pub(crate) checks_server: bool,
    pub(crate) waiting: BTreeMap<TicketId, Client>,
    /// The arrivals of tickets that have entered.
    pub(crate) arrivals: BTreeMap<TicketId, Seq>,
    pub(crate) calls: BTreeMap<Seq, Call>,
    /// The last executed message.
    pub(crate) batch: u64,
    /// When that was, in time that the server was up.
    pub(crate) executed: u64,
    /// Its configuration, in a roll-out.
    pub(crate) side: usize,
    pub(crate) has_session: bool,
    offset: u64,
    /// How much faster its clock runs, in parts per million.
    drift: u64,
}

impl Instance {
    pub(crate) fn new(name: &str, config: &GroupConfig, now: u64, rng: &mut fastrand::Rng) -> Self {
        let (offset, drift) = (rng.u64(0..1_000_000_000), rng.u64(0..100));
        let mut instance = Self {
            core: Core::new(Arc::from(name), config, Micros::ZERO),
            alive: true,
            died: 0,
            leaving: false,
            paused: None,
            cut_until: 0,
            replies_lost_until: 0,
            transmission: None,
            timer: 0,
            checks_server: false,
            waiting: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            calls: BTreeMap::new(),
            batch: 0,
            executed: 0,
            side: 0,
            has_session: false,
            offset,
            drift,
        };
        instance.core = Core::new(Arc::from(name), config, instance.clock(now));
        instance
    }

    /// Its monotonic clock, of any origin and a little too fast.
    pub(crate) fn clock(&self, now: u64) -> Micros {
        Micros(self.offset + now + now * self.drift / 1_000_000)
    }

    pub(crate) fn reachable(&self, now: u64) -> bool {
        self.alive && self.paused.is_none() && self.receives(now)
    }

    /// Replies and wakes reach it.
    pub(crate) fn receives(&self, now: u64) -> bool {
        now >= self.cut_until && now >= self.replies_lost_until
    }
}
