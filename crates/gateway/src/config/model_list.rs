//! `model_list`: groups of deployments, and what is left out.

use std::collections::HashMap;

use super::{
    ConfigError, DeploymentSettings, GroupSettings, Kind, LeftOut,
    deployment::{Defaults, Entry, deployment},
    read::{Recorded, Section},
    wildcard::{Reading, readings},
};

type Result<T> = std::result::Result<T, ConfigError>;

/// What `model_list` comes to.
#[derive(Default)]
pub(super) struct Models {
    pub(super) groups: Vec<GroupSettings>,
    /// Models without any deployment.
    pub(super) left_out: Vec<LeftOut>,
    /// Models of entries with an error.
    pub(super) broken: Vec<String>,
}

/// All entries are read, also after one with an error.
pub(super) fn model_list(root: &Section<'_>, defaults: &Defaults) -> Models {
    let file = root.file;
    let Some(entries) = root.sections("model_list").recorded_if_any(file) else {
        return Models::default();
    };
    let entries = entries.unwrap_or_default();
    if entries.is_empty() && !file.has_errors() {
        let text = "expected a list with at least one deployment (`- model_name: ...`)";
        file.record(root.error_of(Kind::MISSING, "model_list", text));
    }
    let mut groups: Vec<GroupSettings> = Vec::new();
    let mut left_out: Vec<(u64, LeftOut)> = Vec::new();
    let mut broken: Vec<String> = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut ordinal = |identity: &str| {
        let count = seen.entry(identity.to_owned()).or_default();
        *count += 1;
        *count - 1
    };
    for entry in &entries {
        let Some(readings) = readings(entry).recorded_if_any(file) else {
            broken.extend(entry.name("model_name").ok().flatten());
            continue;
        };
        for reading in readings {
            let name = reading.group.clone();
            let found = deployment(entry, &reading, defaults, &mut ordinal);
            match found.recorded_if_any(file) {
                Some(Entry::Deployment(settings)) => {
                    let inserted = insert(entry, &mut groups, reading, *settings);
                    inserted
                        .and_then(|()| check_other_groups(entry, &groups, &name))
                        .recorded(file);
                }
                // It is only missing among the providers of `*`.
                Some(Entry::LeftOut { .. }) if reading.provider.is_some() => {}
                Some(Entry::LeftOut { line, reason }) => {
                    let model = name;
                    left_out.push((line, LeftOut { model, reason }));
                }
                None => broken.push(name),
            }
        }
    }
    if let ([], Some((line, first))) = (&groups[..], left_out.first()) {
        let text = format!("{}; no other deployment is left", first.reason);
        file.record(file.error_at(Kind::NOTHING_LEFT, *line, None, &text));
    }
    let left_out = left_out.into_iter().map(|(_, left_out)| left_out);
    let left_out = left_out.filter(|one| !groups.iter().any(|group| group.name == one.model));
    Models {
        left_out: left_out.collect(),
        groups,
        broken,
    }
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
            passes_headers: false,
            default_priority: None,
            max_queue_depth: None,
            pace_worse_than: None,
            reserve: None,
            aging: None,
            fair: None,
            spill: None,
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
