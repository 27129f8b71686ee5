//! Service while the backend is away: the instance goes on alone, on a state of its own, with its part of each limit ([`WhenAway::Share`]).
//!
//! It is one more session: the messages, the step and the snapshot are the same as with the backend, and only where a message goes differs. When the backend is back,
//! the epoch of the own state is one that it never had: that is a loss (P1), so all instances report what they sent before anything is granted.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use super::core::{Core, TicketId, Waiting};
use crate::{
    claim::Entry,
    cost::Cost,
    message::{Answer, Message, Reply, Used},
    mutation::{Part, without},
    rules::{DeploymentRules, MAX_SEEN, NONE, Rules, Window},
    transition::{Environment, State, step},
    units::{Micros, Seq},
};

/// Sequence numbers of an own state begin above this: no backend draws them, so charges of different instances never have the same.
const OWN_NUMBERS: Seq = MAX_SEEN;

/// A number that an own state drew: it says nothing to the backend.
pub(super) fn is_own(number: Seq) -> bool {
    number >= OWN_NUMBERS
}

/// The instance's own state while the backend is away.
#[derive(Debug)]
pub(super) struct Fallback {
    /// Always there: an option is what a step takes.
    state: Option<State>,
    /// The configuration with the part of each limit that the instance may use.
    pub(super) rules: Arc<Rules>,
    /// When all that others may have sent before has left its windows: from then on the part is the whole share.
    pub(super) share_at: Option<Micros>,
}

/// The most that the fleet had used of a deployment in its longest window, within the last one or two of them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Peak {
    since: Micros,
    former: Most,
    current: Most,
}

/// What counted in the longest window, and open calls.
#[derive(Debug, Clone, Copy, Default)]
struct Most {
    cost: Cost,
    open: u64,
}

impl Most {
    fn max(self, other: Self) -> Self {
        Self {
            cost: self.cost.max(other.cost),
            open: self.open.max(other.open),
        }
    }
}

impl Peak {
    fn note(&mut self, now: Micros, window: Micros, used: Most) {
        if self.since + window <= now {
            (self.since, self.former, self.current) = (now, self.current, Most::default());
        }
        self.current = self.current.max(used);
    }

    fn most(self) -> Most {
        self.former.max(self.current)
    }
}

/// What one of `instances` may use of a limit. Before the others' calls have left their windows: what it has used itself, and its part of what nobody had.
fn part(limit: i64, own: u64, peak: u64, instances: u64, first: bool) -> i64 {
    let Ok(limit) = u64::try_from(limit) else {
        return NONE;
    };
    let share = limit / instances;
    let part = if first && instances > 1 {
        share.min(own + limit.saturating_sub(peak) / instances)
    } else {
        share
    };
    part.cast_signed()
}

impl Core {
    /// Whether the backend is away, and the instance serves alone.
    pub fn stands_in(&self) -> bool {
        self.fallback.is_some()
    }

    /// Keeps in mind how much the fleet uses, as the backend answered.
    pub(super) fn note_use(&mut self, now: Micros, answer: &Answer) {
        self.answered_at = now;
        let memory = self.rules.memory;
        self.peaks.resize(self.ids.len(), Peak::default());
        for (peak, &Used { cost, open, .. }) in self.peaks.iter_mut().zip(&answer.used) {
            peak.note(now, memory, Most { cost, open });
        }
    }

    /// Begins to serve alone when the backend has been unresponsive for the lease, and goes on to the whole share when that is safe.
    pub(super) fn fall_back_where_due(&mut self, now: Micros) {
        let share_at = self.fallback.as_ref().and_then(|own| own.share_at);
        if share_at.is_some_and(|at| at <= now) {
            self.enter_own_session(now, false);
            return;
        }
        let unresponsive = self
            .unanswered_since()
            .is_some_and(|since| since + self.rules.lease <= now);
        // Without a word from the backend nobody knows how many instances there are.
        let knows = self.seen.0 > Seq::NONE || !self.rules.is_limited();
        if self.fallback.is_some() || !self.serves_alone || !unresponsive || !knows || self.leaving
        {
            return;
        }
        let random = self.random(now);
        let environment = environment(now, random);
        // The lowest 2^51 of them, so that those that follow stay exact.
        let first = OWN_NUMBERS + (u64::from(random) << 19);
        let state = State::of_one_instance(&environment, first);
        self.outstanding = None;
        self.epoch = state.epoch().clone();
        self.fallback = Some(Fallback {
            state: Some(state),
            rules: self.rules.clone(),
            share_at: None,
        });
        self.enter_own_session(now, true);
    }

    fn enter_own_session(&mut self, now: Micros, first: bool) {
        let rules = Arc::new(self.own_part(now, first));
        // Others may dispatch until then what the backend granted them before (P9).
        let others_end = self.answered_at + self.rules.dispatch_within() + self.rules.memory;
        let alone = self.memory.peers.len() < 2;
        if let Some(own) = &mut self.fallback {
            own.rules = rules;
            own.share_at = (first && !alone).then_some(others_end);
        }
        self.lose_session();
    }

    /// A ticket that is in no queue until the next session.
    pub(super) fn park(&mut self, id: TicketId) {
        if let Some(ticket) = self.tickets.get_mut(&id) {
            ticket.entered = Seq::NONE;
            if is_own(ticket.entry.arrival) {
                ticket.entry.arrival = Seq::NONE;
            }
        }
    }

    /// The answer of the own state to a message, while the backend is away.
    pub fn answer_alone(&mut self, now: Micros, message: &Message) -> Option<Reply> {
        let random = self.random(now);
        let own = self.fallback.as_mut()?;
        Some(step(&mut own.state, &environment(now, random), message).reply)
    }

    /// The backend answers again: a session is opened there.
    pub fn backend_is_back(&mut self) {
        if self.fallback.take().is_none() {
            return;
        }
        self.outstanding = None;
        // They enter as they stand in order here, and are numbered anew.
        for Waiting { entry, .. } in self.tickets.values_mut() {
            if is_own(entry.arrival) {
                *entry = Entry::new(entry.claim);
            }
        }
        self.by_arrival.retain(|arrival, _| !is_own(*arrival));
        self.lose_session();
    }

    /// Another number for each instance, and each time.
    fn random(&self, now: Micros) -> u32 {
        let mut hasher = DefaultHasher::new();
        (&self.instance, now).hash(&mut hasher);
        (hasher.finish() >> 32) as u32
    }

    /// The configuration with this instance's part of each limit.
    fn own_part(&self, now: Micros, first: bool) -> Rules {
        let instances = if without(Part::P21Share) {
            1
        } else {
            self.memory.peers.len().max(1) as u64
        };
        let part_of = |(index, deployment): (usize, &DeploymentRules)| {
            let peak = self.peaks.get(index).copied().unwrap_or_default().most();
            let open = self
                .permits
                .values()
                .filter(|p| *p.deployment() == deployment.id);
            let open = open.count() as u64;
            let windows = deployment.windows.iter().map(|window| {
                let own = self.memory.sent_within(&deployment.id, window.span, now);
                let (own, peak) = (own.amounts(), peak.cost.amounts());
                let part_of = |k: usize| part(window.limits[k], own[k], peak[k], instances, first);
                Window {
                    span: window.span,
                    limits: std::array::from_fn(part_of),
                }
            });
            DeploymentRules {
                concurrency: part(deployment.concurrency, open, peak.open, instances, first),
                windows: windows.collect(),
                ..deployment.clone()
            }
        };
        let deployments = self.rules.deployments.iter().enumerate().map(part_of);
        Rules {
            deployments: deployments.collect(),
            ..Rules::clone(&self.rules)
        }
    }
}

/// The own state's clock begins with the process: its epoch began before any of a backend's.
fn environment(now: Micros, random: u32) -> Environment {
    Environment {
        now: now + Micros::SECOND,
        random,
        replication: "".into(),
        certain: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Tokens;

    #[test]
    fn parts_of_a_limit_never_exceed_it_together() {
        for limit in 0..40_u64 {
            for own in [0, 3, 7] {
                for others in [0, 5, 33] {
                    let peak = own + others;
                    if peak > limit {
                        continue;
                    }
                    // Two more have the others' use between them.
                    let uses = [own, others / 2, others - others / 2];
                    let parts = |first| {
                        let parts = uses.map(|own| part(limit.cast_signed(), own, peak, 3, first));
                        parts.iter().sum::<i64>().unsigned_abs()
                    };
                    assert!(
                        parts(true) <= limit && parts(false) <= limit,
                        "{limit} {uses:?}"
                    );
                }
            }
        }
        assert_eq!(part(NONE, 1, 2, 3, true), NONE);
        assert_eq!(part(10, 0, 10, 1, true), 10, "alone");
        assert_eq!(part(3, 0, 0, 3, false), 1);
        assert_eq!(part(2, 0, 0, 3, false), 0);
    }

    #[test]
    fn peak_is_that_of_the_last_window_at_least() {
        let mut peak = Peak::default();
        let used = |requests| Most {
            cost: Cost {
                requests,
                tokens: Tokens::ZERO,
            },
            open: 0,
        };
        peak.note(Micros(100), Micros(10), used(7));
        peak.note(Micros(105), Micros(10), used(3));
        assert_eq!(peak.most().cost.requests, 7);
        peak.note(Micros(110), Micros(10), used(2));
        assert_eq!(peak.most().cost.requests, 7);
        peak.note(Micros(120), Micros(10), used(1));
        assert_eq!(peak.most().cost.requests, 2);
    }
}
