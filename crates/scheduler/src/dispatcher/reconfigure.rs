//! A running dispatcher gets another configuration (P20).
//!
//! It ends its session and opens one with the new configuration, as after a loss of its session: the snapshot has its charges, open calls
//! and tickets, so that nothing is forgotten and every ticket keeps its arrival. Deployments are known by their ids, whatever their order.

use std::sync::Arc;

use super::core::Core;
use crate::{
    config::{GroupConfig, WhenAway},
    rules::Rules,
    units::Micros,
};

/// What a dispatcher derives from a configuration.
#[derive(Debug)]
pub(super) struct Derived {
    pub(super) ids: Vec<Arc<str>>,
    pub(super) rules: Arc<Rules>,
    pub(super) polling_interval: Micros,
    pub(super) report_within: Micros,
    pub(super) falls_back: bool,
}

impl From<&GroupConfig> for Derived {
    fn from(config: &GroupConfig) -> Self {
        let rules = Arc::new(Rules::from(config));
        let limits = config.deployments.iter().flat_map(|d| &d.limits);
        let window = limits
            .map(|l| Micros::from(l.length))
            .filter(|l| *l > Micros::ZERO)
            .min();
        Self {
            ids: rules.deployments.iter().map(|d| d.id.clone()).collect(),
            polling_interval: Micros::from(config.timing.polling_interval).max(Micros(1000)),
            report_within: rules.heartbeat().min(window.map_or(Micros::MAX, |w| w / 4)),
            falls_back: config.when_away == WhenAway::Share || !rules.is_limited(),
            rules,
        }
    }
}

impl Core {
    /// Another configuration for the group; the same again does nothing. It is in force with the next session, which is opened when the outstanding message is
    /// answered, and not before the local fallback ends (P21).
    pub fn reconfigure(&mut self, config: &GroupConfig) {
        let next = Derived::from(config);
        let same = next.rules == self.rules
            && next.polling_interval == self.polling_interval
            && next.falls_back == self.falls_back;
        self.next_config = (!same).then(|| Box::new(next));
        if same {
            return;
        }
        // While it sleeps, there is no session to end.
        if !self.asleep {
            self.forced = true;
        }
    }

    /// A new configuration waits, and can be installed now.
    pub(super) fn reconfigures(&self) -> bool {
        self.next_config.is_some() && self.outstanding.is_none() && !self.in_fallback()
    }

    /// Installs a new configuration. To be called where a session may end: no call is dispatched meanwhile (P9).
    pub(super) fn install(&mut self) {
        if !self.reconfigures() {
            return;
        }
        let Some(next) = self.next_config.take() else {
            return;
        };
        let old = std::mem::replace(&mut self.ids, next.ids);
        self.rules = next.rules;
        self.rules_version = 0;
        self.polling_interval = next.polling_interval;
        self.report_within = next.report_within;
        self.falls_back = next.falls_back;
        // What is known of use is by the old order and windows. After a loss unknown use counts as all that may be used (P13).
        self.peaks.clear();
        self.measured.clear();
        self.charge_log.usage = None;
        if let Some((answer, _)) = &mut self.last {
            answer.used.clear();
        }
        for ticket in self.tickets.values_mut() {
            let claim = &mut ticket.entry.claim;
            claim.tried = moved(claim.tried, &old, &self.ids);
        }
        if !self.asleep {
            self.lose_session();
        }
    }
}

/// Marks of deployments by their places in a list of ids, in another list.
fn moved(marks: u64, from: &[Arc<str>], to: &[Arc<str>]) -> u64 {
    let marked = |id: &Arc<str>| {
        let place = from.iter().take(64).position(|known| known == id);
        place.is_some_and(|place| marks >> place & 1 == 1)
    };
    let all = to.iter().take(64).enumerate();
    all.filter(|(_, id)| marked(id))
        .fold(0, |bits, (place, _)| bits | 1 << place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_tried_deployments_follow_their_ids() {
        let ids = |names: &[&str]| -> Vec<Arc<str>> { names.iter().map(|n| (*n).into()).collect() };
        let (old, new) = (ids(&["a", "b", "c"]), ids(&["c", "d", "b"]));
        assert_eq!(moved(0b110, &old, &new), 0b101);
        assert_eq!(moved(0b001, &old, &new), 0);
    }
}
