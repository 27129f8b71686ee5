//! `vorrang_settings.groups`, and what stands beside it for all groups.

pub(super) mod fair;
pub(super) mod headers;
pub(super) mod spill;
pub(crate) mod strategy;

use std::time::Duration;

use vorrang_scheduler::{MAX_AGING, MAX_HANDICAP, Reserve};

use self::fair::fair_shares;
use crate::config::{
    Config, ConfigError, GroupSettings, Kind,
    names::Names,
    read::{Recorded, Section},
};

type Result<T> = std::result::Result<T, ConfigError>;

const OF_A_GROUP: &str = "default_priority, max_queue_depth, pace_worse_than, reserve, aging_seconds, fair_by, fair_cost, spill";

/// Beside `groups`, `max_queue_depth` and `pace_worse_than` are for all groups that say nothing else.
pub(in crate::config) fn our_groups(
    ours: &Section<'_>,
    groups: &mut [GroupSettings],
    names: &Names<'_>,
) {
    let file = ours.file;
    let depth = ours.whole("max_queue_depth", 1).recorded(file);
    let pace = ours
        .priority_or_none("pace_worse_than", None)
        .recorded(file);
    for group in groups.iter_mut() {
        group.max_queue_depth = depth;
        group.pace_worse_than = pace;
    }
    let Some(section) = ours.section("groups").recorded_if_any(file) else {
        return;
    };
    for name in section.keys() {
        let named: Vec<_> = groups
            .iter_mut()
            .filter(|group| group.name == name || group.declared() == name)
            .collect();
        if named.is_empty() && !names.without_group(name) {
            let text = "no deployment of model_list has this model_name";
            file.record(section.error(name, text));
            continue;
        }
        let Some(settings) = section.section(name).recorded_if_any(file) else {
            continue;
        };
        let own_priority = settings.priority("default_priority").recorded(file);
        let own_depth = settings.whole("max_queue_depth", 1).recorded(file);
        let own_pace = settings
            .priority_or_none("pace_worse_than", pace)
            .recorded(file);
        let reserve = reserve(&settings).recorded(file);
        let aging = aging(&settings).recorded(file);
        let fair = fair_shares(&settings).recorded(file);
        let spill = spill::spill(&settings).recorded(file);
        settings.refuse_unknown(OF_A_GROUP);
        for group in named {
            group.default_priority = own_priority;
            group.max_queue_depth = own_depth.or(depth);
            group.pace_worse_than = own_pace;
            group.reserve = reserve;
            group.aging = aging;
            group.fair.clone_from(&fair);
            group.spill.clone_from(&spill);
        }
    }
}

fn reserve(settings: &Section<'_>) -> Result<Option<Reserve>> {
    if !settings.has("reserve") {
        return Ok(None);
    }
    let section = settings.section("reserve")?;
    let missing = |key, expected| {
        section.error_of(
            Kind::MISSING,
            key,
            &format!("is missing; expected {expected}"),
        )
    };
    let between = "a number above 0 and below 1";
    let share = section
        .number("share", between)?
        .ok_or_else(|| missing("share", between))?;
    if share <= 0.0 || share >= 1.0 {
        return Err(section.error("share", &format!("expected {between}")));
    }
    let priority = section
        .priority("priority")?
        .ok_or_else(|| missing("priority", "the worst priority that may use all there is"))?;
    section.refuse_unknown("priority, share");
    Ok(Some(Reserve { priority, share }))
}

fn aging(settings: &Section<'_>) -> Result<Option<Duration>> {
    // Less than a microsecond would count as nothing.
    let expected = "a number of seconds from 0.000001 to 31536000 (a year)";
    match settings.number("aging_seconds", expected)? {
        Some(seconds) if !(1e-6..=MAX_AGING.as_secs_f64()).contains(&seconds) => {
            Err(settings.error("aging_seconds", &format!("expected {expected}")))
        }
        seconds => Ok(seconds.map(Duration::from_secs_f64)),
    }
}

/// Aging rate times any priority of the file must stay within the scheduler's precision.
pub(in crate::config) fn check_aging(ours: &Section<'_>, config: &Config) -> Result<()> {
    let section = ours.section("groups")?;
    for group in &config.groups {
        let Some(aging) = group.aging else { continue };
        let settings = section.section(group.declared())?;
        let pace = if settings.has("pace_worse_than") {
            &settings
        } else {
            ours
        };
        let mut named = vec![
            (
                "router_settings.default_priority".to_owned(),
                config.default_priority,
            ),
            (settings.path_of("default_priority"), group.default_priority),
            (pace.path_of("pace_worse_than"), group.pace_worse_than),
            (
                settings.path_of("reserve.priority"),
                group.reserve.map(|reserve| reserve.priority),
            ),
        ];
        for (index, key) in config.callers(group) {
            let of = |setting| ours.path_of(&format!("keys[{index}].{setting}"));
            named.push((of("default_priority"), key.default_priority));
            named.push((of("best_priority"), key.best_priority));
        }
        let too_much = |priority: Option<i32>| {
            let levels = priority.unwrap_or(0).unsigned_abs();
            u128::from(levels) * aging.as_micros() > u128::from(MAX_HANDICAP.unsigned_abs())
        };
        if let Some((path, _)) = named.iter().find(|(_, priority)| too_much(*priority)) {
            let text =
                format!("times {path} is more than 2^52 microseconds (142 years); expected less");
            return Err(settings.error("aging_seconds", &text));
        }
    }
    Ok(())
}
