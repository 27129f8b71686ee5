//! `model_list`: groups of deployments, and what is left out.

use std::collections::HashMap;

use super::{
    ConfigError, DeploymentSettings, GroupSettings, LeftOut,
    deployment::{Defaults, Entry, deployment},
    read::Section,
    wildcard::{Reading, readings},
};

type Result<T> = std::result::Result<T, ConfigError>;

/// The groups, and models without any deployment.
pub(super) fn model_list(
    root: &Section<'_>,
    defaults: &Defaults,
) -> Result<(Vec<GroupSettings>, Vec<LeftOut>)> {
    let entries = root.sections("model_list")?.unwrap_or_default();
    if entries.is_empty() {
        return Err(root.error(
            "model_list",
            "expected a list with at least one deployment (`- model_name: ...`)",
        ));
    }
    let mut groups: Vec<GroupSettings> = Vec::new();
    let mut left_out: Vec<(u64, LeftOut)> = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut ordinal = |identity: &str| {
        let count = seen.entry(identity.to_owned()).or_default();
        *count += 1;
        *count - 1
    };
    for entry in &entries {
        for reading in readings(entry)? {
            let name = reading.group.clone();
            match deployment(entry, &reading, defaults, &mut ordinal)? {
                Entry::Deployment(settings) => {
                    insert(entry, &mut groups, reading, *settings)?;
                    check_other_groups(entry, &groups, &name)?;
                }
                // It is only missing among the providers of `*`.
                Entry::LeftOut { .. } if reading.provider.is_some() => {}
                Entry::LeftOut { line, reason } => {
                    left_out.push((
                        line,
                        LeftOut {
                            model: name,
                            reason,
                        },
                    ));
                }
            }
        }
    }
    if let ([], Some((line, first))) = (&groups[..], left_out.first()) {
        let text = format!("{}; no other deployment is left", first.reason);
        return Err(root.file.error(*line, &text));
    }
    let left_out = left_out.into_iter().map(|(_, left_out)| left_out);
    let left_out = left_out.filter(|one| !groups.iter().any(|group| group.name == one.model));
    let left_out = left_out.collect();
    Ok((groups, left_out))
}

/// Puts a deployment into its group.
fn insert(
    entry: &Section<'_>,
    groups: &mut Vec<GroupSettings>,
    reading: Reading,
    settings: DeploymentSettings,
) -> Result<()> {
    let Reading {
        group: name,
        wildcard,
        ..
    } = reading;
    let Some(group) = groups.iter_mut().find(|group| group.name == name) else {
        groups.push(GroupSettings {
            name,
            wildcard,
            deployments: vec![settings],
            default_priority: None,
            max_queue_depth: None,
            pace_worse_than: None,
            reserve: None,
            aging: None,
            fair: None,
        });
        return Ok(());
    };
    let mut others = group.deployments.iter();
    if others.any(|other| other.id == settings.id) {
        let text = format!("another deployment of {name} has the same id; expected one of its own");
        return Err(entry.error("model_info.id", &text));
    }
    // `openai/*` of the file, and that of `*`: both are called by the names of either.
    if let (Some(of_group), Some(wildcard)) = (&mut group.wildcard, wildcard) {
        of_group.patterns.extend(wildcard.patterns);
    }
    group.deployments.push(settings);
    Ok(())
}

/// Limits are counted in each group: a deployment that is in several may be called up to its limit from each of them.
fn check_other_groups(entry: &Section<'_>, groups: &[GroupSettings], name: &str) -> Result<()> {
    let (own, others): (Vec<_>, Vec<_>) = groups.iter().partition(|group| group.name == name);
    let Some(new) = own.first().and_then(|group| group.deployments.last()) else {
        return Ok(());
    };
    let twin = others.into_iter().find_map(|group| {
        let mut all = group.deployments.iter();
        let twin = all.find(|other| other.id == new.id)?;
        (new.is_limited() || twin.is_limited()).then_some(group)
    });
    let Some(other) = twin else { return Ok(()) };
    Err(entry.error(
        "model_info.id",
        &format!(
            "a deployment of {} has the same id, and one of them has a limit, which each group would count on its own; \
             expected one group for it (with other names in router_settings.model_group_alias), or ids and limits of their own",
            other.name
        ),
    ))
}
