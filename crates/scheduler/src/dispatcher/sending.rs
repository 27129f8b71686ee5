//! When the dispatcher sends, and what.

use std::sync::Arc;

use super::core::{Alive, Core, Outstanding, Pending, Transmission};
use crate::cost::KINDS;
use crate::message::{MAX_OPS, Message, Op};
use crate::mutation::{Part, without};
use crate::rules::{NONE, SIMPLE_SHUFFLE, Window};
use crate::units::{Micros, Seq, SessionId};

/// How long ends of calls that free nothing wait for another message: a client that has its answer asks again within less, and to others it is as if the network had
/// taken so much longer.
const LINGER: Micros = Micros(2_000);

impl Core {
    /// The next transmission, if one is due. To be called after every event, and at [`Core::deadline`].
    pub fn poll(&mut self, now: Micros) -> Option<Transmission> {
        self.fall_back_where_due(now);
        if self.outstanding.is_none() {
            self.install();
            if now < self.not_before {
                return None;
            }
            let idle = self.lingers(now) && self.queries.is_empty();
            if self.asleep && (idle || self.leaving) {
                return None;
            }
            if idle && !self.forced && now < self.step_at {
                return None;
            }
            self.compose(now);
        }
        let heartbeat = self.heartbeat();
        let outstanding = self.outstanding.as_mut()?;
        if outstanding.resend_at.is_none_or(|at| now < at) {
            return None;
        }
        outstanding.resend_at = None;
        // A lost message costs a heartbeat. A time-out of more than two is no use: a reply so late could not be used (P9).
        let timeout = heartbeat * if outstanding.attempts < 2 { 1 } else { 2 };
        outstanding.attempts += 1;
        Some(Transmission {
            message: outstanding.message.clone(),
            timeout,
        })
    }

    /// When to poll again if nothing happens; `None` while a transmission is outstanding, or if there is nothing to do.
    pub fn deadline(&self) -> Option<Micros> {
        match &self.outstanding {
            Some(outstanding) => outstanding.resend_at,
            None if self.asleep => None,
            None if self.forced || !self.can_wait() || !self.queries.is_empty() => {
                Some(self.not_before)
            }
            None if !self.pending.is_empty() => {
                let at = self.lingers_until.unwrap_or(Micros::ZERO);
                Some(at.min(self.step_at).max(self.not_before))
            }
            None => {
                let share_at = self.fallback.as_ref().and_then(|own| own.share_at);
                let at = self.step_at.min(share_at.unwrap_or(Micros::MAX));
                Some(at.max(self.not_before))
            }
        }
    }

    /// Nothing is pending that has to be sent now.
    fn lingers(&mut self, now: Micros) -> bool {
        if self.pending.is_empty() {
            return true;
        }
        self.can_wait() && now < *self.lingers_until.get_or_insert(now + LINGER)
    }

    /// Nothing is pending but ends of calls that free nothing: these go with the next ticket's message, if it comes soon. So a request that meets no other costs one
    /// message instead of two.
    fn can_wait(&self) -> bool {
        let ends = |pending: &Pending| match pending {
            Pending::Op(Op::Done { deployment, .. }) => self.frees_nothing(deployment),
            _ => false,
        };
        self.pending.len() < MAX_OPS / 2 && self.snapshot_left == 0 && self.pending.iter().all(ends)
    }

    /// Whether the end of a call on this deployment changes no decision: its limits are on requests alone, which a call counts against beyond its end, and open calls
    /// weigh in no choice.
    fn frees_nothing(&self, deployment: &str) -> bool {
        let one_configuration = self
            .last
            .as_ref()
            .is_some_and(|(answer, _)| answer.configurations == 1);
        let mut deployments = self.rules.deployments.iter();
        one_configuration
            && self.rules.strategy == SIMPLE_SHUFFLE
            && deployments.any(|known| {
                let counted = |window: &Window| window.limits[1..] != [NONE; KINDS - 1];
                *known.id == *deployment
                    && known.concurrency == NONE
                    && !known.windows.iter().any(counted)
            })
    }

    fn compose(&mut self, now: Micros) {
        self.forced = false;
        self.lingers_until = None;
        // Expired charges are dropped even if the instance is never idle. Each is checked about eight times.
        if self.forget_at <= now {
            let log_time = self.log_time();
            self.charge_log.forget(now, log_time);
            self.forget_at = now + log_time / 8;
        }
        if !self.tickets.is_empty() || !self.permits.is_empty() || !self.queries.is_empty() {
            self.busy_at = now;
        }
        let open_session = if self.session == SessionId::NONE {
            if self.asleep {
                self.asleep = false;
                self.busy_at = now;
            }
            self.take_snapshot(now);
            vec![self.open_session(now)]
        } else {
            Vec::new()
        };
        let mut ops = Vec::new();
        let mut joins = Vec::new();
        if open_session.is_empty() && !without(Part::P8Report) {
            // Reports come first: the op done of the same grant implies the dispatch, but not its time.
            while ops.len() < MAX_OPS
                && let Some(granted) = self.unreported.pop_first()
            {
                if let Some(charge) = self.charge_log.charges.get(&granted) {
                    let age = now.saturating_sub(charge.at);
                    ops.push(Op::Sent { granted, age });
                }
            }
            let room = MAX_OPS - ops.len();
            let measured = std::mem::take(&mut self.measured).into_iter().take(room);
            ops.extend(measured.map(|(deployment, took)| Op::Measured { deployment, took }));
        } else {
            // The snapshot has these charges.
            self.unreported.clear();
        }
        while ops.len() < MAX_OPS {
            let Some(next) = self.pending.pop_front() else {
                break;
            };
            self.snapshot_left = self.snapshot_left.saturating_sub(1);
            match next {
                Pending::Op(op) => ops.push(op),
                Pending::Charge(granted, excess) => {
                    ops.extend(self.logged_charge(now, granted, excess))
                }
                Pending::Join(id) => {
                    let Some(ticket) = self.tickets.get_mut(&id) else {
                        continue;
                    };
                    (ticket.entered, ticket.held) = (Seq::NONE, false);
                    joins.push((id, ticket.clone()));
                    ops.push(Op::Join(ticket.entry));
                }
            }
        }
        let asked = self.ask_all(&mut ops);
        if open_session.is_empty() && ops.is_empty() && self.is_idle(now) {
            ops.push(Op::CloseSession {
                clean: self.charge_log.charges.is_empty() || without(Part::P11Clean),
            });
        }
        if matches!(ops.last(), Some(Op::CloseSession { .. })) {
            self.alive = Alive::default();
        }
        self.batch += 1;
        let message = Message {
            instance: self.instance.clone(),
            epoch: self.epoch.clone(),
            session: self.session,
            batch: self.batch,
            open_session,
            complete: self.snapshot_left == 0,
            seen: self.highest_number(now),
            highest_finish: self.highest_finish,
            ops,
        };
        self.outstanding = Some(Outstanding {
            message: Arc::new(message),
            joins,
            asked,
            first_sent: now,
            attempts: 0,
            resend_at: Some(now),
        });
    }

    /// P5 (sequence numbers): numbers grow with time, so a number that was drawn for another instance since is no higher than this, even if the server has lost its
    /// state and its clock has gone back.
    fn highest_number(&self, now: Micros) -> Seq {
        match self.seen {
            (Seq::NONE, _) => Seq::NONE,
            (number, _) if without(Part::P5GrowsWithTime) => number,
            (number, at) => number + now.saturating_sub(at),
        }
    }

    /// P11 (charge log): no ticket waits, no permit or call is open, and the charge log is empty.
    fn is_idle(&mut self, now: Micros) -> bool {
        let unused = self.tickets.is_empty() && self.permits.is_empty();
        // The log is not searched at every poll of a busy instance.
        if !self.leaving && !unused {
            return false;
        }
        let log_time = self.log_time();
        self.charge_log.forget(now, log_time);
        let nothing =
            unused && self.charge_log.charges.is_empty() && self.charge_log.cooldowns.is_empty();
        // With the local fallback (P21) the session stays open: other instances count it for their parts of the limits.
        let counts = self.falls_back && self.rules.is_limited();
        if without(Part::P11ClosesAfter) && unused {
            return true;
        }
        self.leaving || !counts && nothing && self.busy_at + log_time <= now
    }
}
