//! What the admin API tells, as far as it is shown. A field that an instance does not know is absent, and none of them stops the display.

use serde::Deserialize;
use serde_json::Value;

/// Without fields that are null: they are not known, and read as their defaults.
pub(crate) fn without_nulls(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            for field in fields.values_mut() {
                *field = without_nulls(field.take());
            }
        }
        Value::Array(items) => {
            for item in items {
                *item = without_nulls(item.take());
            }
        }
        _ => {}
    }
    value
}

/// The fleet.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Overview {
    pub(crate) answered_by: String,
    pub(crate) instances: Vec<Instance>,
    pub(crate) groups: Vec<Group>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Instance {
    pub(crate) ready: bool,
    pub(crate) draining: bool,
    pub(crate) answered: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) paused: bool,
    pub(crate) paused_keys: Vec<String>,
    pub(crate) depth: u64,
    pub(crate) held: u64,
    pub(crate) open: u64,
    pub(crate) next_free_ms: Option<f64>,
    pub(crate) reasons: Vec<String>,
    pub(crate) backend_answers: Option<bool>,
    pub(crate) recovering: bool,
    pub(crate) classes: Vec<Class>,
    pub(crate) deployments: Vec<Deployment>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Class {
    pub(crate) class: String,
    pub(crate) waiting: u64,
    pub(crate) granted_per_minute: Option<f64>,
    pub(crate) waits: Waits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Waits {
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Deployment {
    pub(crate) id: String,
    pub(crate) open: u64,
    pub(crate) cooling_ms: Option<f64>,
    pub(crate) cooling_status: Option<u16>,
    pub(crate) limits: Vec<Limit>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Limit {
    pub(crate) limit: String,
    pub(crate) used: Option<u64>,
    pub(crate) configured: Option<u64>,
    pub(crate) in_force: Option<u64>,
}

/// A page of a group's queue.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tickets {
    pub(crate) total: u64,
    pub(crate) next: Option<u64>,
    pub(crate) tickets: Vec<Ticket>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Ticket {
    pub(crate) ticket: String,
    pub(crate) position: Option<u64>,
    pub(crate) priority: i32,
    pub(crate) age_ms: f64,
    pub(crate) tokens: Option<u64>,
    pub(crate) tenant: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) instance: Option<String>,
    pub(crate) call_id: Option<String>,
    pub(crate) least_wait_ms: Option<f64>,
    pub(crate) orphaned: bool,
    pub(crate) held: bool,
}

// === impl Limit ===

impl Limit {
    pub(crate) fn is_full(&self) -> bool {
        let both = self.in_force.zip(self.used);
        both.is_some_and(|(limit, used)| used >= limit)
    }

    pub(crate) fn is_changed(&self) -> bool {
        self.in_force != self.configured
    }
}

// === impl Group ===

impl Group {
    /// The longest p99 of its classes, in ms.
    pub(crate) fn worst_p99(&self) -> Option<f64> {
        let all = self.classes.iter().filter_map(|class| class.waits.p99_ms);
        all.reduce(f64::max)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_values_are_read_as_unknown() {
        let overview = json!({"instances": [{"ready": null, "answered": false}], "groups": [{
            "name": "gpt", "depth": 12,
            "deployments": [{"id": "a", "open": null, "limits": [{"limit": "rpm", "used": null, "in_force": 6}]}],
        }]});
        let overview: Overview = serde_json::from_value(without_nulls(overview)).unwrap();
        let limit = &overview.groups[0].deployments[0].limits[0];
        assert_eq!((limit.used, limit.is_full()), (None, false));
        assert!(!overview.instances[0].ready);
    }
}
