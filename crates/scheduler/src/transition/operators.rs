//! What operators change and see (P23): overrides, and views of the queue. `lua/operators.lua` has the same functions in the same order.

use super::{State, Step};
use crate::{
    bounds,
    cost::Cost,
    message::{
        MAX_ROWS, MAX_SESSIONS, Message, Op, View, ViewedDeployment, ViewedEntry, ViewedSession,
    },
    mutation::{Part, without},
    overrides::Overrides,
    rules::{DeploymentRules, Rules},
    units::{Seq, SessionId},
};

impl State {
    /// P23 (operators): takes changes of the overrides, before the rules in force are settled. All sessions are woken to learn them.
    pub(super) fn receive_overrides(
        &mut self,
        session: SessionId,
        message: &Message,
        step: &mut Step,
    ) {
        let mut changed = false;
        for op in &message.ops {
            match op {
                Op::Override(_) => {
                    let Op::Override(change) = op.bounded() else {
                        continue;
                    };
                    let version = self.draw();
                    self.overrides.change(&change, version);
                    // The sender learns what came of it, even where that is nothing new.
                    if let Some(session) = self.sessions.get_mut(&session) {
                        session.overrides_reported = Seq::NONE;
                    }
                    changed = true;
                }
                Op::Overrides(_) => {
                    let Op::Overrides(known) = op.bounded() else {
                        continue;
                    };
                    let newer = bounds::seen(known.version) > self.overrides.version;
                    if newer && !without(Part::P23Newer) {
                        self.overrides = known;
                        changed = true;
                    }
                }
                _ => {}
            }
        }
        if changed {
            self.configurations.unsettled = true;
            let sessions = self.sessions.values();
            step.wakes.extend(sessions.map(|s| s.instance.clone()));
        }
    }

    /// The overrides, if the instance of this session does not have them yet.
    pub(super) fn unreported_overrides(&mut self, session: SessionId) -> Vec<Overrides> {
        let version = self.overrides.version;
        let session = self.sessions.get_mut(&session);
        let news = session.is_some_and(|session| {
            std::mem::replace(&mut session.overrides_reported, version) != version
        });
        news.then(|| self.overrides.clone()).into_iter().collect()
    }

    /// A part of the queue, and the state of the group.
    pub(super) fn view(&self, rules: &Rules, (from, most): (u64, u64)) -> View {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let most = usize::try_from(most.min(MAX_ROWS)).unwrap_or(0);
        let rows = self.queue.part(from, most).into_iter().map(|entry| {
            let owner = self.sessions.get(&entry.session);
            ViewedEntry {
                arrival: entry.arrival,
                priority: entry.priority,
                tokens: entry.tokens,
                tenant: entry.tenant,
                key: entry.key,
                instance: owner.map_or_else(|| "".into(), |owner| owner.instance.clone()),
                orphaned: self.is_orphaned(entry),
            }
        });
        let sessions = self.sessions.iter().take(MAX_SESSIONS);
        let sessions = sessions.map(|(id, session)| ViewedSession {
            instance: session.instance.clone(),
            waiting: self.waiting.get(id).copied().unwrap_or(0),
            open: self.calls.count_of(*id),
            unresponsive: session.unresponsive,
        });
        View {
            clock: self.clock,
            rows: rows.collect(),
            ordered: self.queue.ordered(),
            deployments: rules
                .deployments
                .iter()
                .map(|of| self.viewed(rules, of))
                .collect(),
            sessions: sessions.collect(),
        }
    }

    fn viewed(&self, rules: &Rules, of: &DeploymentRules) -> ViewedDeployment {
        let used = self.used(rules, &of.id);
        let health = self.health.get(&of.id);
        let windows = of.windows.iter().enumerate();
        ViewedDeployment {
            id: of.id.clone(),
            open: used.open,
            concurrency: of.concurrency,
            windows: windows
                .map(|(i, window)| {
                    let total: Cost = self.windows.total(of, i);
                    (window.span, window.limits, total)
                })
                .collect(),
            cooling: used.cooling,
            status: health.map_or(0, |health| health.status),
            pace: used.pace,
        }
    }
}
