//! What the referee judges every five milliseconds: waiting tickets and the state of the group. The simulation spends most of its time here.

use vorrang_scheduler::{Tokens, transition::State};

use crate::{
    idle::Held,
    instance::Client,
    scenario::MS,
    world::{Event, World},
};

/// The waiting tickets of reachable instances.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    best_priority: i32,
    worst_priority: i32,
    /// The largest tokens of each kind.
    largest: Tokens,
    /// A ticket has waited for longer than a message takes.
    long: bool,
}

impl Waiting {
    fn of(client: &Client, long: bool) -> Self {
        Self {
            best_priority: client.priority,
            worst_priority: client.priority,
            largest: client.tokens,
            long,
        }
    }

    fn and(self, other: Option<Self>) -> Self {
        let other = other.unwrap_or(self);
        Self {
            best_priority: self.best_priority.min(other.best_priority),
            worst_priority: self.worst_priority.max(other.worst_priority),
            largest: self.largest.max(other.largest),
            long: self.long || other.long,
        }
    }
}

impl World {
    /// The session of an unresponsive instance may have ended, and its slots may be granted to others, while its calls continue.
    pub(crate) fn excuse_unresponsive(&mut self) {
        let uptime = self.uptime();
        for i in 0..self.instances.len() {
            if uptime.saturating_sub(self.instances[i].executed) + 5 * MS
                > self.rules.reap_after().0
            {
                self.referee.excuse(i);
            }
        }
    }

    /// Deployments and costs of grants that are about to be dispatched.
    pub(crate) fn granted(&self) -> Vec<(usize, Tokens)> {
        let alive = self.instances.iter().filter(|i| i.alive);
        alive
            .flat_map(|i| i.calls.values())
            .filter(|c| !c.dispatched)
            .map(|c| (c.deployment, c.client.tokens))
            .collect()
    }

    pub(crate) fn sample(&mut self) {
        self.excuse_unresponsive();
        let server_up = !self.server.down && self.server.hanging.is_none();
        let reachable = self
            .instances
            .iter()
            .filter(|i| server_up && i.reachable(self.now));
        let mut waiting: Option<Waiting> = None;
        for client in reachable.flat_map(|i| i.waiting.values()) {
            let long = client.since + 50 * MS < self.now;
            waiting = Some(Waiting::of(client, long).and(waiting));
            if long {
                self.referee.judge_large_ticket(self.now, client.tokens);
            }
        }
        let long = waiting.is_some_and(|waiting| waiting.long);
        let state = self.server.state.as_ref();
        let queued = state.map_or(0, State::waiting);
        let recovering = state.is_some_and(State::is_recovering);
        let clients = self.instances.iter().map(|i| i.waiting.len() as u64);
        self.referee.judge_queue(self.now, queued, clients.sum());
        // Neither pacing nor a reserve holds the head while a ticket waits that both let pass (P18). The head may be any of the tickets, and the largest.
        let threshold = self.rules.pace_worse_than.min(self.rules.reserve_priority);
        let all_held = waiting.is_some_and(|w| w.best_priority > threshold);
        let worse_than =
            |threshold: i32| all_held && waiting.is_some_and(|w| w.worst_priority > threshold);
        let largest = waiting.filter(|_| long).map(|waiting| waiting.largest);
        let held = Held {
            by_reserve: worse_than(self.rules.reserve_priority),
            by_pacing: worse_than(self.rules.pace_worse_than),
        };
        self.referee.judge_hopeless(self.now, long && !recovering);
        if self.scenario.idle != u64::MAX {
            let granted = self.granted();
            self.referee
                .judge_idle(self.now, largest, held, &granted, self.scenario.idle);
        }
        if self.open_clients > 0 {
            self.after(5 * MS, Event::Sample);
        }
    }
}
