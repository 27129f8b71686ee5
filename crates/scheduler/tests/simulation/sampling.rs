//! What the referee judges every few milliseconds: waiting tickets, and the state of the group. Most of the simulation's time is spent here.

use vorrang_scheduler::{Tokens, transition::State};

use crate::{
    instance::Client,
    referee::Held,
    scenario::MS,
    world::{Event, World},
};

/// What waits on instances that can be reached.
#[derive(Debug, Clone, Copy)]
struct Waits {
    /// Priorities.
    least: i32,
    most: i32,
    /// Of each kind.
    largest: Tokens,
    /// Some have waited for longer than a message takes.
    long: bool,
}

impl Waits {
    fn of(client: &Client, long: bool) -> Self {
        Self {
            least: client.priority,
            most: client.priority,
            largest: client.tokens,
            long,
        }
    }

    fn and(self, other: Option<Self>) -> Self {
        let other = other.unwrap_or(self);
        Self {
            least: self.least.min(other.least),
            most: self.most.max(other.most),
            largest: self.largest.max(other.largest),
            long: self.long || other.long,
        }
    }
}

impl World {
    /// A session unresponsive for longer than this may have been ended, and its slots given to others, while its calls go on.
    pub(crate) fn excuse_the_silent(&mut self) {
        let uptime = self.uptime();
        for i in 0..self.instances.len() {
            if uptime.saturating_sub(self.instances[i].executed) + 5 * MS > self.rules.reap_after()
            {
                self.referee.excuse(i);
            }
        }
    }

    /// Deployments and costs of what was granted and is about to be dispatched.
    pub(crate) fn granted(&self) -> Vec<(usize, Tokens)> {
        let alive = self.instances.iter().filter(|i| i.alive);
        alive
            .flat_map(|i| i.calls.values())
            .filter(|c| !c.dispatched)
            .map(|c| (c.deployment, c.client.tokens))
            .collect()
    }

    pub(crate) fn sample(&mut self) {
        self.excuse_the_silent();
        let server_up = !self.server.down && self.server.hanging.is_none();
        let reachable = self
            .instances
            .iter()
            .filter(|i| server_up && i.reachable(self.now));
        let mut waits: Option<Waits> = None;
        for client in reachable.flat_map(|i| i.waiting.values()) {
            let long = client.since + 50 * MS < self.now;
            waits = Some(Waits::of(client, long).and(waits));
            if long {
                self.referee.impossible(self.now, client.tokens);
            }
        }
        let long = waits.is_some_and(|waits| waits.long);
        let state = self.server.state.as_ref();
        let queued = state.map_or(0, State::waiting);
        let recovering = state.is_some_and(State::is_recovering);
        let everybody = self.instances.iter().map(|i| i.waiting.len() as u64);
        self.referee.crowd(self.now, queued, everybody.sum());
        // The head may have come a moment ago, and may be the largest. Where one waits that nothing is kept from the head goes, whoever it is.
        let held = waits
            .is_some_and(|w| w.least > self.rules.pace_worse_than.min(self.rules.reserve_priority));
        let worse_than = |threshold: i32| held && waits.is_some_and(|w| w.most > threshold);
        let waiting = waits.filter(|_| long).map(|waits| waits.largest);
        let held = Held {
            kept: worse_than(self.rules.reserve_priority),
            paced: worse_than(self.rules.pace_worse_than),
        };
        self.referee.hopeless(self.now, long && !recovering);
        if self.scenario.idle != u64::MAX {
            let granted = self.granted();
            self.referee
                .watch(self.now, waiting, held, &granted, self.scenario.idle);
        }
        if self.open_clients > 0 {
            self.after(5 * MS, Event::Sample);
        }
    }
}
