//! `spill`: where urgent requests go that have waited long enough.

use crate::config::{Config, ConfigError, Spill, read::Section};

type Result<T> = std::result::Result<T, ConfigError>;

pub(super) fn spill(settings: &Section<'_>) -> Result<Option<Spill>> {
    if !settings.has("spill") {
        return Ok(None);
    }
    let section = settings.section("spill")?;
    let missing = |key, expected| section.error(key, &format!("is missing; expected {expected}"));
    let spill = Spill {
        to: section.required("to")?,
        after: section
            .time_with_unit("after")?
            .ok_or_else(|| missing("after", "a time, for example 2s"))?,
        better_than: section
            .priority("better_than")?
            .ok_or_else(|| missing("better_than", "a priority; better ones may leave the queue"))?,
    };
    section.refuse_unknown("to, after, better_than");
    Ok(Some(spill))
}

/// Each of them has to lead to another group.
pub(in crate::config) fn check(ours: &Section<'_>, config: &Config) -> Result<()> {
    let section = ours.section("groups")?;
    for group in &config.groups {
        let Some(spill) = &group.spill else { continue };
        let settings = section.section(group.declared())?.section("spill")?;
        let expected = match config.group_called(&spill.to) {
            None => "expected a model_name of model_list, or an alias",
            Some(to) if to.name == group.name => "expected another group than its own",
            Some(_) => continue,
        };
        return Err(settings.error("to", expected));
    }
    Ok(())
}
