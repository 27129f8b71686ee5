//! `forward_client_headers_to_llm_api`: of all groups, or of some.

use crate::config::{
    GroupSettings,
    read::{Recorded, Section},
};

const KEY: &str = "forward_client_headers_to_llm_api";

pub(in crate::config) fn passed_headers(
    general: &Section<'_>,
    litellm: &Section<'_>,
    groups: &mut [GroupSettings],
) {
    let file = general.file;
    let all = general.boolean(KEY).recorded(file) == Some(true);
    let some = litellm
        .section("model_group_settings")
        .recorded_if_any(file);
    let some = some.map(|section| {
        let names = section.texts(KEY).recorded(file);
        section.warn_unknown();
        names
    });
    let some = some.flatten().unwrap_or_default();
    for group in groups {
        let named = |name: &String| {
            let wildcard = name.split_once('*').is_some_and(|(start, end)| {
                let rest = group.name.strip_prefix(start);
                rest.is_some_and(|rest| rest.ends_with(end))
            });
            wildcard || *name == group.name || name == group.declared()
        };
        group.passes_headers = all || some.iter().any(named);
    }
}
