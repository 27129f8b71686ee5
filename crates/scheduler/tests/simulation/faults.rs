//! Things go wrong.

use crate::{
    instance::Instance,
    scenario::{Fault, SECOND, WINDOW},
    world::{Event, World},
};

impl World {
    pub(crate) fn stop_server(&mut self, down: bool, length: u64) {
        if self.server.down || self.server.hanging.is_some() {
            return;
        }
        self.server.uptime += self.now - self.server.up_since;
        self.server.up_since = self.now;
        if down {
            self.server.down = true;
        } else {
            self.server.hanging = Some(Vec::new());
        }
        self.after(length, Event::ServerBack);
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Flush => {
                self.server.state = None;
                // Whoever was cut off may have missed the leap of the first one.
                self.comparable &= self.referee.flushes == 0;
                self.referee.flushes += 1;
                self.referee.chargeable = self.chargeable();
                // What is charged now is in the next view.
                self.only_deaths &= self.referee.chargeable.is_some();
            }
            Fault::Failover(back) => {
                let at = self.server.history.len().saturating_sub(back);
                if let Some(older) = self.server.history.get(at).cloned() {
                    self.server.state = Some(older);
                    self.server.history.clear();
                    self.server.replication += 1;
                }
            }
            Fault::Elsewhere(back, length) => {
                let at = self.server.history.len().saturating_sub(back);
                if let (Some(state), Some(older)) = (
                    self.server.state.clone(),
                    self.server.history.get(at).cloned(),
                ) {
                    let first = self.server.replication;
                    self.after(length, Event::Failback(Box::new(state), first));
                    self.server.state = Some(older);
                    self.server.history.clear();
                    self.server.replication += 100;
                }
            }
            Fault::Torn(choice) => {
                if let (Some(state), Some(before)) =
                    (&mut self.server.state, self.server.history.back())
                {
                    state.tear(before, choice);
                }
            }
            Fault::Hang(length) => self.stop_server(false, length),
            Fault::Down(length, keeps) => {
                self.stop_server(true, length);
                if !keeps {
                    self.server.state = None;
                }
                self.server.replication += 1;
            }
            Fault::Clock(seconds) => {
                self.server.clock = self
                    .server
                    .clock
                    .wrapping_add_signed(seconds * SECOND.cast_signed());
            }
            Fault::Pause(i, length) => {
                if self.instances[i].alive && self.instances[i].paused.is_none() {
                    self.instances[i].paused = Some(Vec::new());
                    self.after(length, Event::Resume(i));
                }
            }
            Fault::Cut(i, length) => self.instances[i].cut_until = self.now + length,
            Fault::Deafen(i, length) => self.instances[i].deaf_until = self.now + length,
            Fault::Kill(i) => self.kill(i),
            Fault::Restart(i) | Fault::Roll(i, _) => {
                let side = match fault {
                    Fault::Roll(_, side) => side,
                    _ => self.instances[i].side,
                };
                let instance = &mut self.instances[i];
                if !instance.alive || instance.paused.is_some() {
                    return;
                }
                instance.leaving = true;
                for (ticket, _) in std::mem::take(&mut instance.waiting) {
                    instance.core.leave(ticket);
                    self.open_clients -= 1;
                }
                self.start_instance(side);
                self.see_session(i, false, false);
                self.pump(i);
            }
        }
    }

    pub(crate) fn kill(&mut self, i: usize) {
        let instance = &mut self.instances[i];
        instance.alive = false;
        instance.died = self.now;
        self.open_clients -= (instance.waiting.len() + instance.calls.len()) as u64;
        instance.waiting.clear();
        instance.calls.clear();
        self.referee.killed(i);
    }

    /// What the dead were granted within the window memory, once all others have seen their deaths and looked again.
    fn chargeable(&self) -> Option<u64> {
        let dead = || (0..self.instances.len()).filter(|i| !self.instances[*i].alive);
        // So is everything for an instance that closed its session a moment ago, as long as others do not know.
        let uptime = self.uptime();
        let left = |i: &&Instance| i.core.is_asleep() && i.executed + 4 * SECOND > uptime;
        let mut living = self.instances.iter().filter(|i| i.alive);
        let seen = self.only_deaths
            && dead().all(|i| self.instances[i].died + 4 * SECOND < self.now)
            && !living.any(|i| left(&i));
        let since = self.now.saturating_sub(WINDOW + SECOND);
        // What they did not dispatch is charged, too: nobody else knows that.
        let undelivered = self.referee.undelivered.values();
        let undelivered = undelivered.filter(|at| **at >= since).count() as u64;
        let made = || dead().map(|i| self.referee.made(i, since)).sum::<u64>();
        seen.then(|| made() + undelivered)
    }
}
