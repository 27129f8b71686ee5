//! `vorrang_settings.max_waiting_body_bytes`, in total and by key.

use crate::{
    KeyPolicy,
    config::{Config, ConfigError, read::Section},
};

/// 1 GiB.
pub(in crate::config) const MAX_WAITING_BODY_BYTES: usize = 1 << 30;

impl Config {
    /// What the bodies of a key's waiting requests may take together, bytes: half of the total where its entry says nothing else.
    pub fn waiting_body_bytes_of(&self, key: &KeyPolicy) -> usize {
        let half = (self.max_waiting_body_bytes / 2).max(self.max_body_bytes);
        key.max_waiting_body_bytes.unwrap_or(half)
    }
}

/// Fills in what bodies may take together, and checks what keys may.
pub(in crate::config) fn body_budget(
    ours: &Section<'_>,
    config: &mut Config,
) -> Result<(), ConfigError> {
    const KEY: &str = "max_waiting_body_bytes";
    let too_small = "expected at least max_body_bytes: a request of that size could never be taken";
    let least = config.max_body_bytes;
    let total = ours.whole(KEY, 1)?.map(bytes);
    if total.is_some_and(|total| total < least) {
        return Err(ours.error(KEY, too_small));
    }
    config.max_waiting_body_bytes = total.unwrap_or(MAX_WAITING_BODY_BYTES.max(least));
    for key in &config.keys {
        if config.waiting_body_bytes_of(&key.policy) < least {
            let name = &key.policy.name;
            return Err(ours.error("keys", &format!("{KEY} of {name}: {too_small}")));
        }
    }
    Ok(())
}

pub(in crate::config) fn bytes(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
