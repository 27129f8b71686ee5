//! Open calls. They are ordered by session, so that the calls of an ended session are found in parts (P16). `lua/calls.lua` has the same functions in the same order;
//! the counts of open calls are in `lua/windows.lua`, where they are a part of a deployment's totals.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::units::{Seq, SessionId};

/// The open calls of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Calls {
    /// Session, sequence number of the grant, deployment.
    calls: BTreeSet<(SessionId, Seq, Arc<str>)>,
    /// How many open calls each deployment has.
    open: BTreeMap<Arc<str>, u64>,
}

impl Calls {
    pub(super) fn len(&self) -> u64 {
        self.calls.len() as u64
    }

    /// How many open calls a deployment has.
    pub(super) fn open(&self, deployment: &str) -> u64 {
        self.open.get(deployment).copied().unwrap_or(0)
    }

    /// The sum of the deployments' counts.
    pub(super) fn total(&self) -> u64 {
        self.open.values().sum()
    }

    pub(super) fn add(&mut self, session: SessionId, granted: Seq, deployment: &Arc<str>) {
        if self.calls.insert((session, granted, deployment.clone())) {
            *self.open.entry(deployment.clone()).or_default() += 1;
        }
    }

    /// Returns whether the call was open.
    pub(super) fn remove(
        &mut self,
        session: SessionId,
        granted: Seq,
        deployment: &Arc<str>,
    ) -> bool {
        let removed = self.calls.remove(&(session, granted, deployment.clone()));
        if removed && let Some(open) = self.open.get_mut(deployment) {
            *open -= 1;
        }
        removed
    }

    /// The first `most` calls of a session, by their numbers.
    pub(super) fn first_of(&self, session: SessionId, most: usize) -> Vec<(Seq, Arc<str>)> {
        self.of(session, Seq::NONE)
            .take(most)
            .map(|(_, granted, deployment)| (*granted, deployment.clone()))
            .collect()
    }

    /// How many open calls a session has.
    pub(super) fn count_of(&self, session: SessionId) -> u64 {
        self.of(session, Seq::NONE).count() as u64
    }

    /// The deployment of a call.
    pub(super) fn deployment(&self, session: SessionId, granted: Seq) -> Option<Arc<str>> {
        self.of(session, granted)
            .next()
            .filter(|(_, number, _)| *number == granted)
            .map(|(.., deployment)| deployment.clone())
    }

    fn of(
        &self,
        session: SessionId,
        from: Seq,
    ) -> impl Iterator<Item = &(SessionId, Seq, Arc<str>)> {
        self.calls
            .range((session, from, Arc::from(""))..)
            .take_while(move |(of, ..)| *of == session)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
