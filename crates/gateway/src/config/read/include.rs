//! `include`: other files whose lists continue those of the file, and whose other sections replace the file's.

use std::path::{Path, PathBuf};

use super::{
    syntax,
    tree::{Node, Value},
};
use crate::config::{ConfigError, Diagnostic, Env, Kind};

const KEY: &str = "include";

/// A file and those that it includes.
pub(in crate::config) struct Files {
    pub(in crate::config) root: Node,
    /// As messages name them. A line of the n-th is a line of the root that [`Node::shift`] moved by n.
    pub(in crate::config) names: Vec<String>,
    /// What stands in them.
    pub(in crate::config) texts: Vec<String>,
}

/// Reads a file and those that it includes. Names of files that are not there stay in the root under `include`.
pub(in crate::config) fn read(path: &Path, env: &dyn Env) -> Result<Files, ConfigError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let text = format!("cannot be read: {error}");
        let file = Some(name.clone());
        Diagnostic {
            file,
            ..Diagnostic::new(Kind::UNREADABLE, text)
        }
    })?;
    let mut files = Files {
        root: syntax::parse(&text, &name, env)?,
        names: vec![name],
        texts: vec![text],
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut seen: Vec<PathBuf> = vec![path.to_owned()];
    let mut missing = Vec::new();
    while let Some(item) = files.root.next_included() {
        let Value::Text(included) = &item.value else {
            missing.push(item);
            continue;
        };
        let path = folder.join(included);
        if seen.contains(&path) {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&path) else {
            missing.push(item);
            continue;
        };
        let name = path.display().to_string();
        let mut part = syntax::parse(&text, &name, env)?;
        part.shift(files.names.len());
        files.names.push(name);
        files.texts.push(text);
        files.root.absorb(part);
        seen.push(path);
    }
    files.root.set_list(KEY, missing);
    Ok(files)
}

impl Node {
    /// Takes the first of the files that are still to be included.
    fn next_included(&mut self) -> Option<Self> {
        let Value::Map(entries) = &mut self.value else {
            return None;
        };
        let entry = entries.iter_mut().find(|entry| entry.key == KEY)?;
        match &mut entry.node.value {
            Value::List(items) if !items.is_empty() => Some(items.remove(0)),
            _ => None,
        }
    }

    /// Adds another file's sections.
    fn absorb(&mut self, other: Self) {
        let (Value::Map(entries), Value::Map(others)) = (&mut self.value, other.value) else {
            return;
        };
        for other in others {
            let Some(own) = entries.iter_mut().find(|entry| entry.key == other.key) else {
                entries.push(other);
                continue;
            };
            match (&mut own.node.value, other.node.value) {
                (Value::List(own), Value::List(more)) => own.extend(more),
                (_, value) => {
                    own.line = other.line;
                    own.node.value = value;
                    own.node.line = other.node.line;
                }
            }
        }
    }

    /// Replaces a list; an empty one goes with its key.
    fn set_list(&mut self, key: &str, items: Vec<Self>) {
        let Value::Map(entries) = &mut self.value else {
            return;
        };
        let is_list = |node: &Self| matches!(node.value, Value::List(_));
        if items.is_empty() {
            entries.retain(|entry| entry.key != key || !is_list(&entry.node));
        } else if let Some(entry) = entries.iter_mut().find(|entry| entry.key == key) {
            entry.node.value = Value::List(items);
        }
    }
}
