//! `router_settings.default_litellm_params`: what LiteLLM sends with every call, before what a deployment says itself.

use std::borrow::Cow;

use super::read::tree::{Entry, Node, Value};

/// The file with these parameters in each deployment's `litellm_params`.
pub(super) fn spread(root: &Node) -> Cow<'_, Node> {
    let defaults = map(root).and_then(|file| at(file, "router_settings"));
    let defaults = defaults.and_then(map);
    let defaults = defaults.and_then(|router| at(router, "default_litellm_params"));
    let Some(defaults) = defaults.and_then(map).filter(|all| !all.is_empty()) else {
        return Cow::Borrowed(root);
    };
    let given = |entry: &&Entry| !matches!(entry.node.value, Value::Null);
    let defaults: Vec<Entry> = defaults.iter().filter(given).cloned().collect();
    let mut root = root.clone();
    for params in all_params(&mut root) {
        if let Value::Map(entries) = &mut params.value {
            entries.retain(|entry| defaults.iter().all(|default| default.key != entry.key));
            entries.extend(defaults.iter().cloned());
        }
    }
    Cow::Owned(root)
}

fn map(node: &Node) -> Option<&Vec<Entry>> {
    match &node.value {
        Value::Map(entries) => Some(entries),
        _ => None,
    }
}

fn at<'a>(entries: &'a [Entry], key: &str) -> Option<&'a Node> {
    let mut entries = entries.iter();
    entries
        .find(|entry| entry.key == key)
        .map(|entry| &entry.node)
}

/// Each `litellm_params` of `model_list`.
fn all_params(root: &mut Node) -> impl Iterator<Item = &mut Node> {
    let entries = match &mut root.value {
        Value::Map(entries) => entries.as_mut_slice(),
        _ => &mut [],
    };
    let list = entries.iter_mut().find(|entry| entry.key == "model_list");
    let models = list.map(|entry| match &mut entry.node.value {
        Value::List(models) => models.as_mut_slice(),
        _ => &mut [],
    });
    models.unwrap_or_default().iter_mut().filter_map(|model| {
        let Value::Map(entries) = &mut model.value else {
            return None;
        };
        let params = entries
            .iter_mut()
            .find(|entry| entry.key == "litellm_params");
        params.map(|entry| &mut entry.node)
    })
}
