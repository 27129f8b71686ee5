//! How many requests of a key wait on this instance: one key must not fill a queue that others share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::KeyPolicy;

/// Counts the waiting requests of keys that have a `max_waiting`, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct WaitingByKey(Arc<Mutex<HashMap<String, u64>>>);

/// Counts until it is dropped.
#[derive(Debug)]
pub(crate) struct CountedWait(Option<(WaitingByKey, String)>);

impl WaitingByKey {
    /// Counts one more waiting request of this key. `None`: the key is at its maximum.
    pub(crate) fn enter(&self, key: Option<&KeyPolicy>) -> Option<CountedWait> {
        let Some((key, most)) = key.and_then(|key| Some((key, key.max_waiting?))) else {
            return Some(CountedWait(None));
        };
        let mut counts = self.counts();
        let count = counts.entry(key.name.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(CountedWait(Some((self.clone(), key.name.clone()))))
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        // Nothing panics between two changes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CountedWait {
    fn drop(&mut self) {
        let Some((all, name)) = &self.0 else { return };
        let mut counts = all.counts();
        if let Some(count) = counts.get_mut(name) {
            *count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_never_exceeds_its_max_waiting() {
        let key = |name: &str, max_waiting| KeyPolicy {
            name: name.into(),
            max_waiting,
            ..KeyPolicy::default()
        };
        let (few, other, free) = (
            key("few", Some(2)),
            key("other", Some(2)),
            key("free", None),
        );
        let waiting = WaitingByKey::default();
        let first = waiting.enter(Some(&few)).unwrap();
        let _second = waiting.enter(Some(&few)).unwrap();
        assert!(waiting.enter(Some(&few)).is_none());
        let _others = waiting.enter(Some(&other)).unwrap();
        let _unbounded: Vec<_> = (0..5)
            .map(|_| waiting.enter(Some(&free)).unwrap())
            .collect();
        let _nobodys = waiting.enter(None).unwrap();
        drop(first);
        let _third = waiting.enter(Some(&few)).unwrap();
        assert!(waiting.enter(Some(&few)).is_none());
    }
}
