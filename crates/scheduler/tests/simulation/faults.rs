//! What a fault does.

use crate::{
    instance::Instance,
    scenario::{Fault, SECOND},
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
                // An instance that was cut off may have missed the leap of the sequence numbers after the first loss (P5).
                self.comparable &= self.referee.flushes == 0;
                self.referee.flushes += 1;
                self.referee.chargeable = self.chargeable();
                // The next usage snapshots contain what is charged conservatively now.
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
            Fault::FailoverAndBack(back, length) => {
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
            Fault::PartialWrite(choice) => {
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
            Fault::LoseReplies(i, length) => {
                self.instances[i].replies_lost_until = self.now + length;
            }
            Fault::Kill(i) => self.kill(i),
            Fault::Operate(operation) => self.operate(operation),
            Fault::Reload(i, side) => {
                let Some(rollout) = &self.rollout else { return };
                let instance = &mut self.instances[i];
                if !instance.alive || instance.paused.is_some() {
                    return;
                }
                instance.core.reconfigure(&rollout.sides[side]);
                self.pump(i);
            }
            Fault::Restart(i) | Fault::RollOut(i, _) => {
                let side = match fault {
                    Fault::RollOut(_, side) => side,
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
                self.note_session(i, false, false);
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

    /// How many grants of dead instances a recovery may charge for: known once all others know of the deaths and have taken a usage snapshot since.
    fn chargeable(&self) -> Option<u64> {
        let dead = || (0..self.instances.len()).filter(|i| !self.instances[*i].alive);
        // As long as others do not know of a closed session, the limits themselves are charged for its instance.
        let uptime = self.uptime();
        let closed_lately = |i: &&Instance| i.core.is_asleep() && i.executed + 4 * SECOND > uptime;
        let mut living = self.instances.iter().filter(|i| i.alive);
        let known = self.only_deaths
            && dead().all(|i| self.instances[i].died + 4 * SECOND < self.now)
            && !living.any(|i| closed_lately(&i));
        let since = self
            .now
            .saturating_sub(self.referee.longest_window() + SECOND);
        // Grants that they did not dispatch are charged, too, because no other instance knows.
        let undelivered = self.referee.undelivered.values();
        let undelivered = undelivered.filter(|at| **at >= since).count() as u64;
        let made = || dead().map(|i| self.referee.made(i, since)).sum::<u64>();
        known.then(|| made() + undelivered)
    }
}
