//! `vorrang_settings.keys`.

use secrecy::{ExposeSecret, SecretString};

use super::bodies::bytes;
use crate::{
    KeyPolicy,
    config::{ConfigError, GroupSettings, KeySettings, group::fair::weight, read::Section},
};

type Result<T> = std::result::Result<T, ConfigError>;

/// Names are written into logs.
const LONGEST_NAME: usize = 64;

pub(in crate::config) fn keys(
    ours: &Section<'_>,
    groups: &[GroupSettings],
    router: &Section<'_>,
    master_key: Option<&SecretString>,
) -> Result<Vec<KeySettings>> {
    let aliases: Vec<&str> = router.section("model_group_alias")?.keys().collect();
    let known = |model: &String| {
        let fits = |name: &str| {
            model.split_once('*').is_some_and(|(start, end)| {
                name.strip_prefix(start)
                    .is_some_and(|rest| rest.ends_with(end))
            })
        };
        let of_group =
            |group: &GroupSettings| group.name == *model || group.fits(model) || fits(&group.name);
        model.matches('*').count() <= 1
            && (groups.iter().any(of_group)
                || aliases.iter().any(|name| name == model || fits(name)))
    };
    let mut keys: Vec<KeySettings> = Vec::new();
    for section in ours.sections("keys")?.unwrap_or_default() {
        let settings = KeySettings {
            key: key(&section)?,
            policy: policy(&section, known)?,
        };
        section.refuse_unknown(
            "name, key, default_priority, best_priority, models, weight, max_waiting, max_waiting_body_bytes",
        )?;
        if keys
            .iter()
            .any(|other| other.policy.name == settings.policy.name)
        {
            return Err(section.error(
                "name",
                "another key has the same name; expected one of its own",
            ));
        }
        let same = |other: &SecretString| other.expose_secret() == settings.key.expose_secret();
        if master_key.is_some_and(same) {
            return Err(section.error("key", "is the master key; expected one of its own"));
        }
        if keys.iter().any(|other| same(&other.key)) {
            return Err(section.error(
                "key",
                "another entry has the same key; expected one of its own",
            ));
        }
        keys.push(settings);
    }
    Ok(keys)
}

fn key(section: &Section<'_>) -> Result<SecretString> {
    let key = section
        .secret("key")?
        .ok_or_else(|| section.error("key", "is missing; expected the key, or os.environ/NAME"))?;
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

fn policy(section: &Section<'_>, known: impl Fn(&String) -> bool) -> Result<KeyPolicy> {
    let name = section.required("name")?;
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.len() > LONGEST_NAME || !name.bytes().all(safe) {
        return Err(section.error(
            "name",
            &format!("expected at most {LONGEST_NAME} ASCII letters, digits, `-`, `_` and `.`"),
        ));
    }
    let policy = KeyPolicy {
        name,
        default_priority: section.priority("default_priority")?,
        best_priority: section.priority("best_priority")?,
        models: section.texts("models")?,
        weight: weight(section)?,
        max_waiting: section.whole("max_waiting", 1)?,
        max_waiting_body_bytes: section.whole("max_waiting_body_bytes", 1)?.map(bytes),
    };
    if let (Some(default), Some(best)) = (policy.default_priority, policy.best_priority)
        && default < best
    {
        section.warn(
            "default_priority",
            "is better than best_priority, which wins",
        );
    }
    // LiteLLM reads an empty list as all models, others would read it as none: neither is guessed.
    if policy.models.as_ref().is_some_and(Vec::is_empty)
        || !policy.models.iter().flatten().all(known)
    {
        return Err(section.error(
            "models",
            "expected names of model_list or model_group_alias (with at most one `*`); leave it out for all models",
        ));
    }
    Ok(policy)
}
