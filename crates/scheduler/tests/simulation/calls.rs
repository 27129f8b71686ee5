//! Clients: they arrive, wait, call and leave.

use vorrang_scheduler::{Entry, Micros, Seq, Tokens, rules::MAX_AMOUNT, transition::State};

use crate::{
    instance::{Client, Outcome},
    referee::Dispatch,
    scenario::{MS, SECOND},
    world::{Event, World, split},
};

impl World {
    pub(crate) fn arrive(&mut self, client: Client, patience: Option<u64>) {
        let candidates: Vec<usize> = (0..self.instances.len())
            .filter(|i| self.instances[*i].alive && !self.instances[*i].leaving)
            .collect();
        let i = candidates[self.rng.usize(..candidates.len())];
        if self.instances[i].paused.is_some() {
            // A stopped process accepts no connection.
            self.after(100 * MS, Event::Arrive(client, patience));
            return;
        }
        if let Some(patience) = patience {
            self.after(patience, Event::Leave(i, client.name));
        }
        self.join(
            i,
            Client {
                since: self.now,
                ..client
            },
        );
    }

    pub(crate) fn join(&mut self, i: usize, client: Client) {
        self.next_ticket += 1;
        let instance = &mut self.instances[i];
        let entry = Entry {
            claim: client.claim(),
            arrival: client.arrival,
            start: client.start,
        };
        instance.core.join(self.next_ticket, entry);
        instance.waiting.insert(self.next_ticket, client);
        self.pump(i);
    }

    pub(crate) fn client_leaves(&mut self, i: usize, name: u64) {
        let instance = &mut self.instances[i];
        let ticket = instance
            .waiting
            .iter()
            .find(|(_, c)| c.name == name)
            .map(|(id, _)| *id);
        let call = instance
            .calls
            .iter()
            .find(|(_, c)| c.client.name == name)
            .map(|(granted, _)| *granted);
        let clock = instance.clock(self.now);
        if let Some(ticket) = ticket {
            instance.waiting.remove(&ticket);
            instance.core.leave(ticket);
        } else if let Some(granted) = call {
            // Its call is cancelled. A cancelled probe proves nothing (A9).
            let sent = instance
                .calls
                .remove(&granted)
                .is_some_and(|c| c.dispatched);
            instance.core.give_back(clock, granted, sent, None);
            self.referee.returned(granted);
            self.referee.end(granted);
        } else {
            return;
        }
        self.open_clients -= 1;
        self.pump(i);
    }

    // === Calls ===

    pub(crate) fn dispatch(&mut self, i: usize, granted: Seq) {
        let clock = self.instances[i].clock(self.now);
        let Some(call) = self.instances[i].calls.get(&granted) else {
            return;
        };
        let client = call.client.clone();
        if !self.instances[i].core.dispatch(clock, granted) {
            self.instances[i].calls.remove(&granted);
            self.referee.returned(granted);
            self.instances[i]
                .core
                .give_back(clock, granted, false, None);
            if self.instances[i].leaving {
                self.open_clients -= 1;
                self.pump(i);
            } else {
                self.join(i, client);
            }
            return;
        }
        self.excuse_unresponsive();
        let outcome = self.outcome();
        let length = 5 * MS + self.rng.u64(0..self.scenario.longest_call);
        let head = self.rng.u64(MS..length);
        let Some(call) = self.instances[i].calls.get_mut(&granted) else {
            return;
        };
        (call.dispatched, call.outcome) = (outcome != Outcome::NotSent, outcome);
        let dispatch = Dispatch {
            at: self.now,
            instance: i,
            priority: call.client.priority,
            arrival: call.client.arrival,
            start: call.client.start,
            share: call.client.share,
            entered: call.entered,
            granted,
            deployment: call.deployment,
            tokens: call.client.tokens,
            probe: call.probe,
            sent: call.dispatched,
        };
        if self.verbose {
            println!("             {dispatch:?}");
        }
        // Undelivered grants hold room, too.
        let state = self.server.state.as_ref();
        let undelivered = state.map_or(0, State::undelivered);
        if dispatch.probe && undelivered == 0 {
            let granted = self.granted();
            let Dispatch {
                deployment, tokens, ..
            } = dispatch;
            self.referee
                .judge_probe(self.now, deployment, tokens, client.tried, &granted);
        }
        if undelivered == 0 {
            let granted = self.granted();
            self.referee.judge_order(&dispatch, client.tried, &granted);
        }
        self.referee.dispatch(dispatch.clone());
        self.judge_rollout(&dispatch);
        self.pump(i);
        self.after(head, Event::Head(i, granted));
        if outcome == Outcome::Success {
            self.after(length, Event::End(i, granted));
        }
    }

    pub(crate) fn outcome(&mut self) -> Outcome {
        if self.scenario.unsent > 0.0 && self.chance(self.scenario.unsent) {
            return Outcome::NotSent;
        }
        if !self.chance(self.scenario.failing) {
            return Outcome::Success;
        }
        match self.rng.u8(..8) {
            0..3 => Outcome::Failure(429, Some(self.rng.u64(200 * MS..5 * SECOND))),
            3..6 => Outcome::Failure(500, None),
            6 => Outcome::Failure(401, Some(self.rng.u64(200 * MS..3 * SECOND))),
            _ => Outcome::NotSent,
        }
    }

    /// The head of the response, or the failure.
    pub(crate) fn head(&mut self, i: usize, granted: Seq) {
        let clock = self.instances[i].clock(self.now);
        let Some(call) = self.instances[i].calls.get(&granted).cloned() else {
            return;
        };
        self.referee.head(granted);
        let took = match self.instances[i].core.measures() {
            true => Some(Micros(self.rng.u64(..3 * SECOND))),
            false => None,
        };
        let core = &mut self.instances[i].core;
        let (status, cool) = match call.outcome {
            Outcome::Success => {
                core.succeeded(granted);
                if let Some(took) = took {
                    core.measured(clock, granted, took);
                }
                if call.probe {
                    self.referee.healed(call.deployment, self.now);
                }
                self.pump(i);
                return;
            }
            Outcome::Failure(status, cool) => (status, cool),
            Outcome::NotSent => (0, None),
        };
        core.failed(clock, granted, status, cool.map(Micros));
        // A probe that fails is not counted but cools at once (A9), unless the state that had the cooldown is lost.
        let cooldown_time = self.rules.deployments[call.deployment].cooldown.0;
        if let Some(cool) = cool {
            self.referee
                .cooled(call.deployment, self.now, self.now + cool, status);
        } else if status != 0 && call.client.tried != 0 {
            // A request that fails on every deployment counts once, and proves nothing as a probe (A9).
        } else if call.probe && self.faultless {
            self.referee
                .probe_failed(call.deployment, self.now, cooldown_time, status);
        } else if !call.probe {
            self.referee.failed(call.deployment, self.now, status);
        }
        core.give_back(clock, granted, call.dispatched, None);

        self.instances[i].calls.remove(&granted);
        self.referee.end(granted);
        let client = Client {
            attempts: call.client.attempts + 1,
            tried: call.client.tried | 1 << call.deployment,
            ..call.client
        };
        if client.attempts < 3 && !self.instances[i].leaving {
            self.join(i, client);
        } else {
            self.open_clients -= 1;
            self.pump(i);
        }
    }

    pub(crate) fn end(&mut self, i: usize, granted: Seq) {
        let clock = self.instances[i].clock(self.now);
        let Some(call) = self.instances[i].calls.remove(&granted) else {
            return;
        };
        let reserved = call.client.tokens.total();
        let used = match self.rng.u8(..3) {
            0 => None,
            1 => Some(self.rng.u64(0..=reserved)),
            _ => Some(reserved + self.rng.u64(0..20)),
        };
        // The kinds are split otherwise than in the reservation: more of one and less of the other.
        let used = used.map(|used| split(used, call.client.name / 5));
        let used = match self.rng.u8(..20) {
            0 if self.scenario.extreme_amounts => {
                let extreme = [1 << 53, u64::MAX >> 1, u64::MAX][self.rng.usize(..3)];
                Some(Tokens::new(extreme, extreme))
            }
            _ => used,
        };
        let most = Tokens::new(MAX_AMOUNT, MAX_AMOUNT);
        if let Some(used) = used.map(|used| used.min(most)) {
            self.referee
                .corrected(call.deployment, granted, self.now, used);
        }
        self.instances[i].core.give_back(clock, granted, true, used);
        self.referee.end(granted);
        self.open_clients -= 1;
        self.pump(i);
    }
}
