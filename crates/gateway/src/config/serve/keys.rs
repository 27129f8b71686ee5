//! `vorrang_settings.keys`.

use secrecy::{ExposeSecret, SecretString};

use super::bodies::bytes;
use crate::{
    KeyPolicy,
    config::{
        ConfigError, KeySettings, Kind,
        group::fair::weight,
        read::{Recorded, Section},
    },
};

type Result<T> = std::result::Result<T, ConfigError>;

/// Names are written into logs.
const LONGEST_NAME: usize = 64;

/// `known`: whether there is a model of this name.
pub(in crate::config) fn keys(
    ours: &Section<'_>,
    known: impl Fn(&str) -> bool,
    master_key: Option<&SecretString>,
) -> Vec<KeySettings> {
    let mut keys: Vec<KeySettings> = Vec::new();
    for section in ours
        .sections("keys")
        .recorded(ours.file)
        .unwrap_or_default()
    {
        let settings = settings(&section, &known, &keys, master_key);
        keys.extend(settings.recorded_if_any(ours.file));
    }
    keys
}

/// One entry.
fn settings(
    section: &Section<'_>,
    known: impl Fn(&str) -> bool,
    others: &[KeySettings],
    master_key: Option<&SecretString>,
) -> Result<KeySettings> {
    let key = key(section).recorded_if_any(section.file);
    let policy = policy(section, known)?;
    section.refuse_unknown(
        "name, key, admin, default_priority, best_priority, models, weight, max_waiting, max_waiting_body_bytes",
    );
    let mut others = others.iter();
    if others.clone().any(|other| other.policy.name == policy.name) {
        let text = "another key has the same name; expected one of its own";
        return Err(section.error("name", text));
    }
    // Where it is none, the error is known already, and any key will do.
    let key = key.unwrap_or_default();
    let same = |other: &SecretString| {
        let (one, other) = (key.expose_secret(), other.expose_secret());
        !one.is_empty() && one == other
    };
    if master_key.is_some_and(same) {
        return Err(section.error("key", "is the master key; expected one of its own"));
    }
    if others.any(|other| same(&other.key)) {
        let text = "another entry has the same key; expected one of its own";
        return Err(section.error("key", text));
    }
    Ok(KeySettings { key, policy })
}

fn key(section: &Section<'_>) -> Result<SecretString> {
    let key = section.secret("key")?.ok_or_else(|| {
        let text = "is missing; expected the key, or os.environ/NAME";
        section.error_of(Kind::MISSING, "key", text)
    })?;
    // What no client could send would lock its owner out.
    if !key
        .expose_secret()
        .bytes()
        .all(|byte| byte.is_ascii_graphic())
    {
        return Err(section.error(
            "key",
            "expected visible ASCII characters only (is there a line break at its end?)",
        ));
    }
    Ok(key)
}

fn policy(section: &Section<'_>, known: impl Fn(&str) -> bool) -> Result<KeyPolicy> {
    let name = section.required("name")?;
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.len() > LONGEST_NAME || !name.bytes().all(safe) {
        return Err(section.error(
            "name",
            &format!("expected at most {LONGEST_NAME} ASCII letters, digits, `-`, `_` and `.`"),
        ));
    }
    let file = section.file;
    let policy = KeyPolicy {
        name,
        admin: section.boolean("admin").recorded(file).unwrap_or(false),
        default_priority: section.priority("default_priority").recorded(file),
        best_priority: section.priority("best_priority").recorded(file),
        models: section.texts("models").recorded(file),
        weight: weight(section).recorded(file),
        max_waiting: section.whole("max_waiting", 1).recorded(file),
        max_waiting_body_bytes: section
            .whole("max_waiting_body_bytes", 1)
            .recorded(file)
            .map(bytes),
    };
    if let (Some(default), Some(best)) = (policy.default_priority, policy.best_priority)
        && default < best
    {
        let text = "is better than best_priority, which wins";
        section.tell(Kind::NO_EFFECT, "default_priority", text);
    }
    // LiteLLM reads an empty list as all models, others would read it as none: neither is guessed.
    if policy.models.as_ref().is_some_and(Vec::is_empty)
        || !policy.models.iter().flatten().all(|model| known(model))
    {
        return Err(section.error(
            "models",
            "expected names of model_list or model_group_alias (with at most one `*`); leave it out for all models",
        ));
    }
    Ok(policy)
}
