//! Fair shares: `fair_by` and `fair_cost` of a group, `weight` of a key, and what they come to.

use std::fmt::Write;

use http::{HeaderName, header};

use crate::{
    KeyPolicy,
    config::{
        Config, ConfigError, FairBy, FairCost, FairShares, GroupSettings, Kind, read::Section,
    },
};

type Result<T> = std::result::Result<T, ConfigError>;

/// Headers that authenticate the caller to the gateway cannot name its tenant.
const KEY_HEADERS: [HeaderName; 3] = [
    header::AUTHORIZATION,
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-api-key"),
];

pub(in crate::config) fn fair_shares(settings: &Section<'_>) -> Result<Option<FairShares>> {
    let cost = match settings.name("fair_cost")?.as_deref().map(str::trim) {
        None | Some("requests") => FairCost::Requests,
        Some("tokens") => FairCost::Tokens,
        Some(_) => return Err(settings.error("fair_cost", "expected requests or tokens")),
    };
    let Some(text) = settings.name("fair_by")? else {
        if settings.has("fair_cost") {
            return Err(settings.error("fair_cost", "expected fair_by beside it"));
        }
        return Ok(None);
    };
    let by = match text.trim() {
        "key" => FairBy::Key,
        "user" => FairBy::User,
        text => {
            let name = text
                .strip_prefix("header:")
                .ok_or_else(|| settings.error("fair_by", "expected key, user or header:NAME"))?;
            FairBy::Header(header_name(settings, name.trim())?)
        }
    };
    Ok(Some(FairShares { by, cost }))
}

fn header_name(settings: &Section<'_>, name: &str) -> Result<HeaderName> {
    let name = HeaderName::try_from(name).map_err(|_| {
        let text = "expected the name of an HTTP header after `header:`, for example header:x-team";
        settings.error("fair_by", text)
    })?;
    if KEY_HEADERS.contains(&name) {
        let text = "expected a header that carries no key; for shares by key, expected key";
        return Err(settings.error("fair_by", text));
    }
    Ok(name)
}

pub(in crate::config) fn weight(key: &Section<'_>) -> Result<Option<f64>> {
    let expected = "a number from 0.01 to 100";
    match key.number("weight", expected)? {
        Some(weight) if !(0.01..=100.0).contains(&weight) => {
            Err(key.error("weight", &format!("expected {expected}")))
        }
        weight => Ok(weight),
    }
}

/// What a tenant is, what counts as service, and the weights of keys.
pub(in crate::config) fn write(
    group: &GroupSettings,
    config: &Config,
    out: &mut String,
) -> std::fmt::Result {
    let Some(fair) = &group.fair else {
        return Ok(());
    };
    let keys = !config.keys.is_empty() || config.master_key.is_some();
    let of_a_key = if keys { " of a key" } else { "" };
    write!(out, "    fair shares: a tenant is ")?;
    match &fair.by {
        FairBy::Key if keys => write!(out, "a key")?,
        FairBy::Key => write!(out, "every caller (there are no keys)")?,
        FairBy::User => write!(out, "a `user`{of_a_key}")?,
        FairBy::Header(name) => write!(out, "a value of the header {name}{of_a_key}")?,
    }
    write!(
        out,
        "; a unit of service is {}",
        match fair.cost {
            FairCost::Requests => "a request",
            FairCost::Tokens => "1000 reserved tokens",
        }
    )?;
    let weights = config
        .callers(group)
        .map(|(_, key)| format!("{} {}", key.name, key.weight()));
    let master = config.master_key.iter().map(|_| "master key 1".to_owned());
    let weights: Vec<String> = weights.chain(master).collect();
    if !weights.is_empty() {
        write!(out, "; weights: {}", weights.join(", "))?;
    }
    if let Some(aging) = group.aging {
        write!(
            out,
            "; a unit of service at weight 1 lasts {aging:?} (aging)"
        )?;
    }
    writeln!(out)
}

/// Warns where `fair_by` or a `weight` changes nothing.
pub(in crate::config) fn warn(ours: &Section<'_>, config: &Config) -> Result<()> {
    let groups = ours.section("groups")?;
    let by_key =
        |group: &&GroupSettings| matches!(&group.fair, Some(fair) if fair.by == FairBy::Key);
    for group in config.groups.iter().filter(by_key) {
        let master = usize::from(config.master_key.is_some());
        if config.callers(group).count() + master < 2 {
            let text = "has no effect: fewer than two keys may call the group, so that all its callers are one tenant";
            let settings = groups.section(&group.name)?;
            settings.tell(Kind::NO_EFFECT, "fair_by", text);
        }
    }
    let shared = |key: &KeyPolicy| {
        let mut fair = config.groups.iter().filter(|group| group.fair.is_some());
        fair.any(|group| config.callers(group).any(|(_, of)| of.name == key.name))
    };
    let sections = ours.sections("keys")?.unwrap_or_default();
    for (section, key) in sections.iter().zip(&config.keys) {
        if section.has("weight") && !shared(&key.policy) {
            let text = "has no effect: no group that this key may call has fair_by";
            section.tell(Kind::NO_EFFECT, "weight", text);
        }
    }
    Ok(())
}
