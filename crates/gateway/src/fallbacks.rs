//! Which groups take a call over: what the file says, and a request, in LiteLLM's formats.

use serde_json::{Map, Value};

use crate::request::steering;

/// LiteLLM's `max_fallbacks`.
pub(crate) const MOST: u32 = 5;

/// Where calls go on that a group could not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallbacks {
    /// After failures.
    pub general: FallbackLists,
    /// After requests that are too long for the model.
    pub context_window: FallbackLists,
    /// After requests that the provider's content policy refuses.
    pub content_policy: FallbackLists,
    /// So many groups are tried after the first.
    pub most: u32,
    /// A call goes only to groups that its key may call.
    pub checked: bool,
}

impl Default for Fallbacks {
    fn default() -> Self {
        Self {
            general: FallbackLists::default(),
            context_window: FallbackLists::default(),
            content_policy: FallbackLists::default(),
            most: MOST,
            checked: true,
        }
    }
}

/// Fallbacks of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FallbackLists {
    /// By the name of a group, in the order of the file.
    pub named: Vec<(String, Vec<Fallback>)>,
    /// Of all groups that have none of their own.
    pub any: Vec<Fallback>,
}

/// One fallback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// A group's name, or an alias.
    pub model: String,
    /// Fields that replace those of the request, with their JSON.
    pub fields: Vec<(String, String)>,
}

impl FallbackLists {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.any.is_empty()
    }

    /// The list of a group: under the name that it was called by, or under its own, or without the provider before the model; else
    /// the one for all.
    pub(crate) fn of(&self, called: &str, group: &str) -> &[Fallback] {
        let bare = called.split_once('/').map(|(_, model)| model);
        let mut names = [Some(called), Some(group), bare].into_iter().flatten();
        let own = names.find_map(|name| {
            let mut lists = self.named.iter();
            lists.find(|(of, _)| of == name).map(|(_, list)| list)
        });
        own.unwrap_or(&self.any)
    }

    /// All fallbacks, with the group that each is of; `None`: of any.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Option<&str>, &Fallback)> {
        let named = self.named.iter();
        let named = named.flat_map(|(of, list)| list.iter().map(|to| (Some(of.as_str()), to)));
        named.chain(self.any.iter().map(|to| (None, to)))
    }

    /// Adds fallbacks for groups without any of their own.
    pub(crate) fn otherwise(&mut self, list: Vec<Fallback>) {
        if self.any.is_empty() {
            self.any = list;
        }
    }

    /// Keeps those for which `keep` holds.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Fallback) -> bool) {
        for (_, list) in &mut self.named {
            list.retain(&keep);
        }
        self.any.retain(&keep);
    }
}

/// What stands where fallbacks are expected. Each fault is reported, and the rest is read.
pub(crate) struct FallbackReader<'a> {
    pub(crate) fault: &'a mut dyn FnMut(String),
}

impl FallbackReader<'_> {
    /// `[{"a": ["b", {"model": "c"}]}]`, also as a mapping; or `["b"]` and `[{"model": "c"}]` for every group; any of them also as a text.
    pub(crate) fn lists(&mut self, value: &Value) -> FallbackLists {
        let mut lists = FallbackLists::default();
        let value = unquoted(value);
        let items = match &value {
            Value::Array(items) => items.iter().collect(),
            Value::Null => Vec::new(),
            other => vec![other],
        };
        for item in items {
            match item {
                Value::Object(fields) if !is_target(fields) => {
                    for (of, list) in fields {
                        let list = self.list(of, list);
                        let own = lists.named.iter_mut().find(|(name, _)| name == of);
                        match (of.as_str(), own) {
                            ("*", _) => lists.any.extend(list),
                            (_, Some((_, own))) => *own = list,
                            (_, None) => lists.named.push((of.clone(), list)),
                        }
                    }
                }
                item => lists.any.extend(self.target("*", item)),
            }
        }
        lists.named.retain(|(_, list)| !list.is_empty());
        lists
    }

    /// A list of targets, or one.
    pub(crate) fn list(&mut self, of: &str, value: &Value) -> Vec<Fallback> {
        match unquoted(value) {
            Value::Array(items) => {
                let targets = items.iter().filter_map(|item| self.target(of, item));
                targets.collect()
            }
            Value::Null => Vec::new(),
            other => self.target(of, &other).into_iter().collect(),
        }
    }

    fn target(&mut self, of: &str, value: &Value) -> Option<Fallback> {
        match value {
            Value::String(model) if !model.is_empty() => Some(Fallback {
                model: model.clone(),
                fields: Vec::new(),
            }),
            Value::Object(fields) if is_target(fields) => {
                let model = fields["model"].as_str().unwrap_or_default().to_owned();
                let fields = fields.iter().filter(|(name, _)| *name != "model");
                let mut kept = Vec::new();
                for (name, value) in fields {
                    if steering::passes(name) {
                        kept.push((name.clone(), value.to_string()));
                    } else {
                        (self.fault)(format!(
                            "the fallback {model} of {of} has the field {name}, which is none of a request to a model"
                        ));
                    }
                }
                Some(Fallback {
                    model,
                    fields: kept,
                })
            }
            _ => {
                (self.fault)(format!(
                    "expected names of models as the fallbacks of {of}, or mappings with `model`"
                ));
                None
            }
        }
    }
}

/// `{"model": "c", ...}` is one target; `{"model": ["c"]}` are those of a group that is called model.
fn is_target(fields: &Map<String, Value>) -> bool {
    fields.get("model").is_some_and(Value::is_string)
}

/// Lists and mappings may stand in a text, as in a variable of the environment.
fn unquoted(value: &Value) -> Value {
    if let Value::String(text) = value
        && text.trim_start().starts_with(['[', '{'])
        && let Ok(inner) = serde_json::from_str(text)
    {
        return inner;
    }
    value.clone()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> (FallbackLists, Vec<String>) {
        let mut faults = Vec::new();
        let mut reader = FallbackReader {
            fault: &mut |fault| faults.push(fault),
        };
        let lists = reader.lists(&value);
        (lists, faults)
    }

    fn names(list: &[Fallback]) -> Vec<&str> {
        list.iter().map(|to| to.model.as_str()).collect()
    }

    #[test]
    fn every_notation_of_fallbacks_is_read() {
        for value in [
            json!([{"a": ["b", "c"]}, {"*": ["d"]}]),
            json!([{"a": ["b", {"model": "c"}]}, "d"]),
            json!({"a": ["b", "c"], "*": "d"}),
            json!(r#"[{"a": ["b", "c"]}, {"model": "d"}]"#),
            json!([{"a": "[\"b\", \"c\"]"}, {"*": {"model": "d"}}]),
        ] {
            let (lists, faults) = read(value.clone());
            assert_eq!(faults, Vec::<String>::new(), "{value}");
            assert_eq!(names(lists.of("a", "a")), ["b", "c"], "{value}");
            assert_eq!(names(lists.of("x", "y")), ["d"], "{value}");
        }
        assert_eq!(read(json!(null)), Default::default());
        assert_eq!(read(json!([{"a": []}])), Default::default());
    }

    #[test]
    fn list_is_found_by_called_name_then_group_then_model_without_provider() {
        let (lists, _) = read(json!([{"alias": ["1"]}, {"openai/*": ["2"]}, {"gpt": ["3"]}]));
        for (called, group, expected) in [
            ("alias", "gpt", "1"),
            ("openai/gpt", "openai/*", "2"),
            ("x/gpt", "x/*", "3"),
            ("other", "gpt", "3"),
        ] {
            assert_eq!(names(lists.of(called, group)), [expected], "{called}");
        }
        assert!(lists.of("x", "y").is_empty());
    }

    #[test]
    fn fields_of_a_fallback_are_kept_unless_they_are_none_of_a_model() {
        let (lists, faults) =
            read(json!([{"model": "c", "temperature": 0.5, "api_key": "sk-1", "timeout": 3}]));
        assert_eq!(lists.any[0].fields, [("temperature".into(), "0.5".into())]);
        assert_eq!(faults.len(), 2);
        assert!(faults.iter().all(|fault| !fault.contains("sk-1")));
    }

    #[test]
    fn what_is_no_fallback_is_a_fault() {
        for value in [
            json!([{"a": 128_000}]),
            json!(3),
            json!([""]),
            json!([["a"]]),
        ] {
            let (lists, faults) = read(value.clone());
            assert!(lists.is_empty() && faults.len() == 1, "{value}");
        }
    }
}
