//! What the bodies of requests that wait may take of the memory, in total and by key.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use vorrang_gateway::Config;

/// The bytes of all request bodies that are here, from their first byte until their answer begins. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct BodyBudget(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    total: Arc<Counter>,
    /// By the key's name. The master key and callers without keys share the total alone.
    keys: HashMap<String, Arc<Counter>>,
}

#[derive(Debug)]
struct Counter {
    limit: AtomicUsize,
    used: AtomicUsize,
}

/// What one request holds of the budget; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    budget: BodyBudget,
    key: Option<String>,
    bytes: usize,
}

/// The budget of the key or of all is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BudgetUsedUp;

// === impl Counter ===

impl Counter {
    fn new(limit: usize) -> Self {
        Self {
            limit: AtomicUsize::new(limit),
            used: AtomicUsize::new(0),
        }
    }

    fn add(&self, bytes: usize) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .is_ok()
    }

    fn subtract(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

// === impl BodyBudget ===

impl BodyBudget {
    /// `before`: the budget of the configuration until now. What is held of it counts in this one, too.
    pub(crate) fn new(config: &Config, before: Option<&Self>) -> Self {
        let counter = |known: Option<&Arc<Counter>>, limit: usize| match known {
            Some(known) => {
                known.limit.store(limit, Ordering::Relaxed);
                known.clone()
            }
            None => Arc::new(Counter::new(limit)),
        };
        let keys = config.keys.iter().map(|key| {
            let name = key.policy.name.clone();
            let known = before.and_then(|before| before.0.keys.get(&name));
            let limit = config.waiting_body_bytes_of(&key.policy);
            (name, counter(known, limit))
        });
        let total = before.map(|before| &before.0.total);
        Self(Arc::new(Counters {
            keys: keys.collect(),
            total: counter(total, config.max_waiting_body_bytes),
        }))
    }

    /// For one request of a key.
    pub(crate) fn hold(&self, key: Option<&str>) -> HeldBytes {
        HeldBytes {
            budget: self.clone(),
            key: key.map(str::to_owned),
            bytes: 0,
        }
    }
}

// === impl HeldBytes ===

impl HeldBytes {
    fn counters(&self) -> impl Iterator<Item = &Counter> {
        let keys = &self.budget.0.keys;
        let own = self.key.as_ref().and_then(|key| keys.get(key));
        own.into_iter()
            .chain([&self.budget.0.total])
            .map(|counter| &**counter)
    }

    /// Holds more bytes.
    ///
    /// # Errors
    /// There is no room for them; what is held already stays held.
    pub(crate) fn add(&mut self, bytes: usize) -> Result<(), BudgetUsedUp> {
        for (index, counter) in self.counters().enumerate() {
            if !counter.add(bytes) {
                for added in self.counters().take(index) {
                    added.subtract(bytes);
                }
                return Err(BudgetUsedUp);
            }
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        for counter in self.counters() {
            counter.subtract(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn budget() -> BodyBudget {
        let text = "
model_list: [{model_name: m, litellm_params: {model: openai/m, mock_response: x}}]
vorrang_settings:
  max_body_bytes: 10
  max_waiting_body_bytes: 100
  keys:
    - {name: a, key: ka}
    - {name: b, key: kb, max_waiting_body_bytes: 80}
";
        let loaded = Config::parse(text, "test.yaml", &BTreeMap::new()).unwrap();
        BodyBudget::new(&loaded.config, None)
    }

    #[test]
    fn body_budget_limits_each_key_and_the_total() {
        let budget = budget();
        let mut first = budget.hold(Some("a"));
        assert_eq!(first.add(50), Ok(()));
        assert_eq!(budget.hold(Some("a")).add(1), Err(BudgetUsedUp));
        let mut second = budget.hold(Some("b"));
        assert_eq!(second.add(51), Err(BudgetUsedUp), "above the total");
        assert_eq!(second.add(40), Ok(()));
        let mut keyless = budget.hold(None);
        assert_eq!(keyless.add(11), Err(BudgetUsedUp));
        assert_eq!(keyless.add(10), Ok(()));
    }

    #[test]
    fn dropped_and_refused_requests_hold_no_body_budget() {
        let budget = budget();
        for _ in 0..10 {
            let mut held = budget.hold(Some("b"));
            assert_eq!(held.add(70), Ok(()));
            assert_eq!(held.add(20), Err(BudgetUsedUp));
            assert_eq!(held.add(10), Ok(()));
        }
    }
}
