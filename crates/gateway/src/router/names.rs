//! What the names that clients give lead to: groups by name and alias, and wildcards.

use std::collections::HashMap;

use crate::{
    Config,
    config::{GroupSettings, Pattern},
};

/// The names of a configuration's groups.
#[derive(Debug)]
pub(super) struct Names {
    exact: HashMap<String, Target>,
    /// The longest first.
    patterns: Vec<(Pattern, usize)>,
}

#[derive(Debug)]
struct Target {
    group: usize,
    /// The name that an alias stands for, where that is one of a wildcard's.
    model: Option<String>,
}

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found<'a> {
    /// The index of the group.
    pub(super) group: usize,
    /// The name that the group is asked for.
    pub(super) model: &'a str,
}

impl Names {
    pub(super) fn of(config: &Config) -> Self {
        let groups = || config.groups.iter().enumerate();
        let group = |(index, group): (usize, &GroupSettings)| {
            let target = Target {
                group: index,
                model: None,
            };
            (group.name.clone(), target)
        };
        let of_group = |(index, group): (usize, &GroupSettings)| {
            let patterns = group
                .wildcard
                .iter()
                .flat_map(|wildcard| &wildcard.patterns);
            let patterns: Vec<_> = patterns.map(|one| (one.clone(), index)).collect();
            patterns
        };
        let mut patterns: Vec<(Pattern, usize)> = groups().flat_map(of_group).collect();
        // Stable: of patterns as long as one another the first of the file.
        patterns.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.length));
        let mut names = Self {
            exact: groups().map(group).collect(),
            patterns,
        };
        for alias in &config.aliases {
            let Some(found) = names.find(&alias.group) else {
                continue;
            };
            let target = Target {
                group: found.group,
                model: Some(alias.group.clone()),
            };
            names.exact.entry(alias.name.clone()).or_insert(target);
        }
        names
    }

    pub(super) fn find<'a>(&'a self, name: &'a str) -> Option<Found<'a>> {
        if let Some(target) = self.exact.get(name) {
            return Some(Found {
                group: target.group,
                model: target.model.as_deref().unwrap_or(name),
            });
        }
        let mut patterns = self.patterns.iter();
        let (_, group) = patterns.find(|(pattern, _)| pattern.fits(name))?;
        Some(Found {
            group: *group,
            model: name,
        })
    }
}
