//! Which names of models there are: groups, and `router_settings.model_group_alias`.

use super::{
    Alias, ConfigError, GroupSettings, Kind, LeftOut,
    read::{Recorded, Section, tree::Value},
};

type Result<T> = std::result::Result<T, ConfigError>;

/// Names of `model_list` that became no group.
pub(super) struct Names<'a> {
    pub(super) left_out: &'a [LeftOut],
    /// Those of entries with an error: no further error should say that they are missing.
    pub(super) broken: &'a [String],
}

impl Names<'_> {
    /// Whether a key may have this among its `models`: a name that can be called, or one with a `*` that such a name fits.
    pub(super) fn knows<'s>(
        &self,
        groups: &[GroupSettings],
        mut aliases: impl Iterator<Item = &'s str>,
        model: &str,
    ) -> bool {
        let fits = |name: &str| {
            model.split_once('*').is_some_and(|(start, end)| {
                name.strip_prefix(start)
                    .is_some_and(|rest| rest.ends_with(end))
            })
        };
        let of_group =
            |group: &GroupSettings| group.name == model || group.fits(model) || fits(&group.name);
        let known = self.without_group(model)
            || groups.iter().any(of_group)
            || aliases.any(|name| name == model || fits(name));
        known && model.matches('*').count() <= 1
    }

    /// Whether an entry has this name, and none of them can be called.
    pub(super) fn without_group(&self, name: &str) -> bool {
        let mut left_out = self.left_out.iter();
        left_out.any(|one| one.model == name) || self.broken.iter().any(|broken| broken == name)
    }
}

/// `{alias: group}` or `{alias: {model: group, hidden: true}}`.
pub(super) fn aliases(
    section: &Section<'_>,
    groups: &[GroupSettings],
    names: &Names<'_>,
) -> Vec<Alias> {
    let mut aliases = Vec::new();
    for name in section.keys() {
        let Some((group, hidden)) = alias(section, name).recorded(section.file) else {
            continue;
        };
        let of_group = |known: &GroupSettings| known.name == group || known.fits(&group);
        if !groups.iter().any(of_group) {
            if !names.without_group(&group) {
                let text = "names no model_name of model_list; calls to it will be refused";
                section.tell(Kind::NO_GROUP, name, text);
            }
            continue;
        }
        if groups.iter().any(|known| known.name == name) {
            let text = "is the model_name of a group itself, which wins";
            section.tell(Kind::DIFFERS, name, text);
            continue;
        }
        aliases.push(Alias {
            name: name.to_owned(),
            group,
            hidden,
        });
    }
    aliases
}

/// The group, and whether the alias is hidden.
fn alias(section: &Section<'_>, name: &str) -> Result<Option<(String, bool)>> {
    let Some(node) = section.node(name) else {
        return Ok(None);
    };
    if matches!(node.value, Value::List(_)) {
        let text = "is a list, and an alias has one model_name: it leads nowhere, as in LiteLLM";
        section.tell(Kind::NO_GROUP, name, text);
        return Ok(None);
    }
    if !matches!(node.value, Value::Map(_)) {
        return Ok(Some((section.required(name)?, false)));
    }
    let settings = section.section(name)?;
    let hidden = settings.boolean("hidden")?.unwrap_or(false);
    let group = settings.required("model")?;
    settings.warn_unknown();
    Ok(Some((group, hidden)))
}
