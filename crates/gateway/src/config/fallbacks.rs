//! `fallbacks` and its relatives, in `router_settings` or `litellm_settings`, and what they name.

use std::fmt::Write;

use serde_json::Value;

use crate::{
    Fallback, FallbackLists, Fallbacks,
    config::{
        Config, ConfigError, Kind,
        diagnostic::shown::Shown,
        read::{Recorded, Section},
    },
    fallbacks::{FallbackReader, MOST},
};

type Result<T> = std::result::Result<T, ConfigError>;

/// The router's where they are not empty, else LiteLLM's other section's, as in LiteLLM. Names are checked later, when the groups are
/// known.
pub(super) fn fallbacks(
    router: &Section<'_>,
    litellm: &Section<'_>,
    general_settings: &Section<'_>,
) -> Fallbacks {
    let mut general = first(router, litellm, "fallbacks", lists);
    general.otherwise(first(router, litellm, "default_fallbacks", list));
    let most = [
        router.small("max_fallbacks", 0).recorded(router.file),
        litellm.small("max_fallbacks", 0).recorded(litellm.file),
    ];
    let checked = general_settings.boolean("enforce_fallback_model_access");
    let checked = checked.recorded(general_settings.file);
    Fallbacks {
        general,
        context_window: first(router, litellm, "context_window_fallbacks", lists),
        content_policy: first(router, litellm, "content_policy_fallbacks", lists),
        most: most.into_iter().flatten().next().unwrap_or(MOST),
        checked: checked.unwrap_or(true),
    }
}

/// Reads a setting in both sections, and takes the first that says something.
fn first<T: Default + PartialEq>(
    router: &Section<'_>,
    litellm: &Section<'_>,
    key: &str,
    read: impl Fn(&Section<'_>, &str) -> Result<T>,
) -> T {
    let [ours, theirs] = [router, litellm].map(|section| read(section, key).recorded(section.file));
    if ours == T::default() { theirs } else { ours }
}

fn lists(section: &Section<'_>, key: &str) -> Result<FallbackLists> {
    read(section, key, |reader, value| reader.lists(value))
}

fn list(section: &Section<'_>, key: &str) -> Result<Vec<Fallback>> {
    read(section, key, |reader, value| reader.list("*", value))
}

fn read<T: Default>(
    section: &Section<'_>,
    key: &str,
    read: impl FnOnce(&mut FallbackReader<'_>, &Value) -> T,
) -> Result<T> {
    let Some(node) = section.node(key) else {
        return Ok(T::default());
    };
    let value = section.json(key, node)?;
    let mut fault = |text: String| section.warn(key, &format!("{text}; it is left out"));
    Ok(read(&mut FallbackReader { fault: &mut fault }, &value))
}

/// Leaves fallbacks out that name no group, and says so.
pub(super) fn check_names(
    router: &Section<'_>,
    litellm: &Section<'_>,
    broken: &[String],
    config: &mut Config,
) {
    let mut fallbacks = std::mem::take(&mut config.fallbacks);
    for (key, lists) in [
        ("fallbacks", &mut fallbacks.general),
        ("context_window_fallbacks", &mut fallbacks.context_window),
        ("content_policy_fallbacks", &mut fallbacks.content_policy),
    ] {
        let keys = [key, "default_fallbacks"];
        let mut places = keys
            .iter()
            .flat_map(|key| [(router, *key), (litellm, *key)]);
        let place = places.find(|(section, key)| section.has(key));
        let (section, key) = place.unwrap_or((router, key));
        let tell = |kind, text: String| section.tell(kind, key, &text);
        // Models whose every deployment is left out, or has an error, are named already.
        let known = |name: &str| {
            config.group_called(name).is_some()
                || config.left_out.iter().any(|one| one.model == name)
                || broken.iter().any(|broken| broken == name)
        };
        for (of, _) in &lists.named {
            // The provider before a model may be left out.
            let ends = |name: &str| name.rsplit_once('/').is_some_and(|(_, model)| model == of);
            let groups = &config.groups;
            if !known(of) && !groups.iter().any(|group| ends(&group.name)) {
                tell(
                    Kind::IDLE,
                    format!("{of} names no model_name of model_list; its fallbacks are never used"),
                );
            }
        }
        let mut unknown: Vec<&str> = lists.all().map(|(_, to)| to.model.as_str()).collect();
        unknown.retain(|name| !known(name));
        unknown.sort_unstable();
        unknown.dedup();
        for name in unknown {
            tell(
                Kind::NO_GROUP,
                format!("{name} names no model_name of model_list; it is passed over"),
            );
        }
        lists.retain(|to| config.group_called(&to.model).is_some());
        lists.named.retain(|(_, list)| !list.is_empty());
    }
    config.fallbacks = fallbacks;
}

/// What is tried after which group.
pub(super) fn write(fallbacks: &Fallbacks, out: &mut String) -> std::fmt::Result {
    let none = FallbackLists::default();
    let all = [
        ("a failure", &fallbacks.general),
        ("a request that is too long", &fallbacks.context_window),
        ("a refused content", &fallbacks.content_policy),
    ];
    if all.iter().all(|(_, lists)| **lists == none) {
        return Ok(());
    }
    let most = fallbacks.most;
    writeln!(out, "fallbacks (at most {most} for one request):")?;
    if !fallbacks.checked {
        writeln!(
            out,
            "  also where the key of a call does not allow the group"
        )?;
    }
    for (after, lists) in all {
        let any = (!lists.any.is_empty()).then(|| ("any other group".to_owned(), &lists.any));
        let named = lists.named.iter().map(|(of, list)| (of.clone(), list));
        for (of, list) in named.chain(any) {
            let names = list.iter().map(|to| match to.fields.as_slice() {
                [] => to.model.clone(),
                fields => {
                    let fields = fields.iter().map(|(name, _)| name.as_str());
                    let fields = fields.collect::<Vec<_>>().join(", ");
                    format!("{} (with its own {fields})", to.model)
                }
            });
            let names = names.collect::<Vec<_>>().join(", then ");
            writeln!(out, "  after {after} of {}: {}", Shown(&of), Shown(&names))?;
        }
    }
    Ok(())
}
