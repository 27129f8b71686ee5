//! What operators have changed until further notice (P23): paused groups and keys, and limits other than the configured ones.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    cost::KINDS,
    message::{MAX_OVERRIDES, Override, overridden},
    rules::{DeploymentRules, NONE, Rules},
    units::{Micros, Seq},
};

/// [`LimitOverride::kind`] of a limit of open calls.
pub(crate) const CONCURRENCY: u8 = KINDS as u8;

/// What operators have changed in a group. All instances know it, so it survives a loss of the group's state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Overrides {
    /// The sequence number of the last change; 0: there was none. The higher, the newer.
    pub version: Seq,
    /// The group is paused: nothing is granted.
    pub paused: bool,
    /// The numbers of paused keys, ascending.
    pub keys: Vec<u64>,
    /// Changed limits, in the order of their changes.
    pub limits: Vec<LimitOverride>,
}

/// A limit other than the configured one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitOverride {
    /// The deployment's id.
    pub deployment: Arc<str>,
    /// The index of a counted kind, or the number of them for open calls.
    pub kind: u8,
    /// The span of the window: its length and its guard; 0 for open calls.
    pub span: Micros,
    /// The limit in force.
    pub limit: i64,
}

impl Default for LimitOverride {
    fn default() -> Self {
        Self {
            deployment: "".into(),
            kind: CONCURRENCY,
            span: Micros::ZERO,
            limit: NONE,
        }
    }
}

impl LimitOverride {
    fn is_of(&self, other: &Self) -> bool {
        (&self.deployment, self.kind, self.span) == (&other.deployment, other.kind, other.span)
    }

    /// The limit of a deployment that this one replaces, if there is one.
    pub(crate) fn replaced<'a>(&self, of: &'a mut DeploymentRules) -> Option<&'a mut i64> {
        let limit = if self.kind == CONCURRENCY {
            Some(&mut of.concurrency)
        } else {
            let window = of.windows.iter_mut().find(|w| w.span == self.span);
            window.and_then(|window| window.limits.get_mut(usize::from(self.kind)))
        };
        limit.filter(|limit| **limit != NONE)
    }
}

impl Overrides {
    /// Makes one change, with this sequence number. A change beyond [`MAX_OVERRIDES`] does nothing.
    pub(crate) fn change(&mut self, change: &Override, version: Seq) {
        self.version = version;
        let Override {
            what,
            key,
            paused,
            limit,
        } = change;
        match *what {
            overridden::PAUSE if *key == 0 => self.paused = *paused,
            overridden::PAUSE => {
                let found = self.keys.binary_search(key);
                match (found, *paused) {
                    (Ok(index), false) => _ = self.keys.remove(index),
                    (Err(index), true) if self.keys.len() < MAX_OVERRIDES => {
                        self.keys.insert(index, *key);
                    }
                    _ => {}
                }
            }
            overridden::LIMIT => {
                self.limits.retain(|known| !known.is_of(limit));
                if limit.limit != NONE && self.limits.len() < MAX_OVERRIDES {
                    self.limits.push(limit.clone());
                }
            }
            _ => {}
        }
    }

    /// Whether a key is paused.
    pub(crate) fn holds(&self, key: u64) -> bool {
        key != 0 && self.keys.binary_search(&key).is_ok()
    }

    /// The limits in force: a configured limit that is not changed stays, and a changed limit that is not configured has no effect.
    pub(crate) fn apply(&self, rules: &mut Rules) {
        for changed in &self.limits {
            let deployment = rules.deployments.iter_mut();
            let mut of_it = deployment.filter(|d| d.id == changed.deployment);
            if let Some(limit) = of_it.next().and_then(|of| changed.replaced(of)) {
                *limit = changed.limit;
            }
        }
    }
}
