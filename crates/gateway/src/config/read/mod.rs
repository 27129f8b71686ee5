//! From raw values to typed ones: paths for messages, `os.environ/NAME`, and which keys have been read.

pub(super) mod env;
pub(super) mod file;
pub(super) mod include;
mod json;
mod numbers;
pub(super) mod syntax;
pub(super) mod tree;

use std::cell::Cell;

use secrecy::SecretString;

pub(in crate::config) use self::file::{File, Recorded};
use self::tree::{Entry, Node, Value};
use crate::config::{ConfigError, Kind};

type Result<T> = std::result::Result<T, ConfigError>;

/// One mapping of the file. Each key that is read is ticked off; what is left at the end is unknown.
pub(in crate::config) struct Section<'a> {
    pub(in crate::config) file: &'a File<'a>,
    /// Dotted, as messages name it; empty for the file itself.
    path: String,
    pub(in crate::config) line: u64,
    entries: Vec<(&'a Entry, Cell<bool>)>,
}

impl<'a> Section<'a> {
    pub(in crate::config) fn new(file: &'a File<'a>, path: String, node: &'a Node) -> Result<Self> {
        let entries = match &node.value {
            Value::Map(entries) => entries
                .iter()
                .map(|entry| (entry, Cell::new(false)))
                .collect(),
            Value::Null => Vec::new(),
            other => {
                let place = if path.is_empty() { "the file" } else { &path };
                let text = format!("expected a mapping (`key: value`), found {}", other.kind());
                return Err(file.error_at(Kind::INVALID, node.line, Some(place), &text));
            }
        };
        Ok(Self {
            file,
            path,
            line: node.line,
            entries,
        })
    }

    /// The path of a key in this section.
    pub(in crate::config) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The line of a key, or of the section.
    pub(in crate::config) fn line_of(&self, key: &str) -> u64 {
        self.entries
            .iter()
            .find(|(entry, _)| entry.key == key)
            .map_or(self.line, |(entry, _)| entry.line)
    }

    pub(in crate::config) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.entries.iter().map(|(entry, _)| entry.key.as_str())
    }

    /// An error about a key: says what was expected, never what was there.
    pub(in crate::config) fn error(&self, key: &str, text: &str) -> ConfigError {
        self.error_of(Kind::INVALID, key, text)
    }

    /// An error of a kind.
    pub(in crate::config) fn error_of(&self, kind: Kind, key: &str, text: &str) -> ConfigError {
        let (line, path) = (self.line_of(key), self.path_of(key));
        self.file.error_at(kind, line, Some(&path), text)
    }

    /// Something to say about a key.
    pub(in crate::config) fn tell(&self, kind: Kind, key: &str, text: &str) {
        let (line, path) = (self.line_of(key), self.path_of(key));
        self.file.tell(kind, line, Some(&path), text);
    }

    /// It is served, but otherwise than in LiteLLM.
    pub(in crate::config) fn warn(&self, key: &str, text: &str) {
        self.tell(Kind::DIFFERS, key, text);
    }

    /// Whether the key is there and not null.
    pub(in crate::config) fn has(&self, key: &str) -> bool {
        self.entries
            .iter()
            .any(|(entry, _)| entry.key == key && !matches!(entry.node.value, Value::Null))
    }

    /// The value of a key; null counts as absent, as in LiteLLM.
    pub(in crate::config) fn node(&self, key: &str) -> Option<&'a Node> {
        let (entry, seen) = self.entries.iter().find(|(entry, _)| entry.key == key)?;
        seen.set(true);
        (!matches!(entry.node.value, Value::Null)).then_some(&entry.node)
    }

    /// A text, `os.environ/NAME` resolved.
    pub(in crate::config) fn text(&self, key: &str) -> Result<Option<String>> {
        self.node(key)
            .map(|node| self.text_of(key, node))
            .transpose()
    }

    fn text_of(&self, key: &str, node: &Node) -> Result<String> {
        match &node.value {
            Value::Text(text) => self.resolve(key, text),
            Value::Integer(_) | Value::Float(_) => node.raw.clone().ok_or_else(|| {
                self.error(key, "expected a text, found a number; put it in quotes")
            }),
            other => Err(self.error(key, &format!("expected a text, found {}", other.kind()))),
        }
    }

    /// `os.environ/NAME`, or the text itself.
    pub(in crate::config) fn resolve(&self, key: &str, text: &str) -> Result<String> {
        let Some(name) = text.strip_prefix("os.environ/") else {
            return Ok(text.to_owned());
        };
        let name = name.trim();
        self.file.env.get(name).ok_or_else(|| {
            let text = format!("the environment variable {name} is not set");
            self.error_of(Kind::UNSET, key, &text)
        })
    }

    /// A text that must not be empty.
    pub(in crate::config) fn name(&self, key: &str) -> Result<Option<String>> {
        match self.text(key)? {
            Some(text) if text.trim().is_empty() => {
                Err(self.error(key, "expected a text that is not empty"))
            }
            other => Ok(other),
        }
    }

    /// A name that has to be there.
    pub(in crate::config) fn required(&self, key: &str) -> Result<String> {
        self.name(key)?
            .ok_or_else(|| self.error_of(Kind::MISSING, key, "is missing; expected a text"))
    }

    /// A secret that must not be empty.
    pub(in crate::config) fn secret(&self, key: &str) -> Result<Option<SecretString>> {
        Ok(self.name(key)?.map(SecretString::from))
    }

    /// A secret that may as well be an environment variable that is unset or empty: then there is none.
    pub(in crate::config) fn optional_secret(&self, key: &str) -> Result<Option<SecretString>> {
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        if let Value::Text(text) = &node.value
            && let Some(name) = text.strip_prefix("os.environ/")
            && self.file.env.get(name.trim()).is_none()
        {
            return Ok(None);
        }
        let text = self.text_of(key, node)?;
        Ok((!text.is_empty()).then(|| SecretString::from(text)))
    }

    pub(in crate::config) fn boolean(&self, key: &str) -> Result<Option<bool>> {
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        match &node.value {
            Value::Bool(value) => Ok(Some(*value)),
            Value::Text(text) => match self
                .resolve(key, text)?
                .trim()
                .to_ascii_lowercase()
                .as_str()
            {
                "true" | "yes" | "on" | "1" => Ok(Some(true)),
                "false" | "no" | "off" | "0" => Ok(Some(false)),
                _ => Err(self.error(key, "expected true or false, found a text")),
            },
            other => Err(self.error(
                key,
                &format!("expected true or false, found {}", other.kind()),
            )),
        }
    }

    /// A text, or a mapping as its JSON.
    pub(in crate::config) fn json_or_text(&self, key: &str) -> Result<Option<String>> {
        match self.node(key) {
            Some(node) if matches!(node.value, Value::Map(_)) => {
                self.json(key, node).map(|json| Some(json.to_string()))
            }
            _ => self.text(key),
        }
    }

    /// A boolean, or else a text.
    pub(in crate::config) fn boolean_or_text(
        &self,
        key: &str,
    ) -> Result<Option<std::result::Result<bool, String>>> {
        match self.node(key).map(|node| &node.value) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(Ok(*value))),
            Some(_) => {
                let text = self.text(key)?.unwrap_or_default();
                Ok(Some(match text.trim().to_ascii_lowercase().as_str() {
                    "true" | "yes" | "on" | "1" => Ok(true),
                    "false" | "no" | "off" | "0" => Ok(false),
                    _ => Err(text),
                }))
            }
        }
    }

    /// A list of texts.
    pub(in crate::config) fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        let Value::List(items) = &node.value else {
            return Err(self.error(
                key,
                &format!("expected a list of texts, found {}", node.value.kind()),
            ));
        };
        items
            .iter()
            .map(|item| self.text_of(key, item))
            .collect::<Result<Vec<_>>>()
            .map(Some)
    }

    /// The mapping under a key; an absent one is empty.
    pub(in crate::config) fn section(&self, key: &str) -> Result<Section<'a>> {
        match self.node(key) {
            Some(node) => Section::new(self.file, self.path_of(key), node),
            None => Ok(self.empty(key)),
        }
    }

    /// As if there were an empty mapping under a key.
    pub(in crate::config) fn empty(&self, key: &str) -> Section<'a> {
        Section {
            file: self.file,
            path: self.path_of(key),
            line: self.line_of(key),
            entries: Vec::new(),
        }
    }

    /// The list of mappings under a key. What is no mapping is an error and counts as empty.
    pub(in crate::config) fn sections(&self, key: &str) -> Result<Option<Vec<Section<'a>>>> {
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        let Value::List(items) = &node.value else {
            return Err(self.error(
                key,
                &format!("expected a list, found {}", node.value.kind()),
            ));
        };
        let section = |(index, item)| {
            let path = format!("{}[{index}]", self.path_of(key));
            Section::new(self.file, path, item).recorded_if_any(self.file)
        };
        Ok(Some(items.iter().enumerate().filter_map(section).collect()))
    }

    /// The mapping under a key, if there is one and it is a mapping.
    pub(in crate::config) fn section_if_mapping(&self, key: &str) -> Result<Option<Section<'a>>> {
        match self.node(key) {
            Some(node) if matches!(node.value, Value::Map(_)) => {
                Section::new(self.file, self.path_of(key), node).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Whether a key asks for anything: not where it is absent, null, empty or turned off.
    pub(in crate::config) fn asks(&self, key: &str) -> Result<bool> {
        let Some(node) = self.node(key) else {
            return Ok(false);
        };
        Ok(match &node.value {
            Value::Null => false,
            Value::Bool(on) => *on,
            Value::Integer(_) | Value::Float(_) => true,
            Value::Text(text) => {
                let text = self.resolve(key, text)?.trim().to_ascii_lowercase();
                !matches!(text.as_str(), "" | "false" | "no" | "off" | "0" | "none")
            }
            Value::List(items) => !items.is_empty(),
            Value::Map(entries) => !entries.is_empty(),
        })
    }

    /// Settings of LiteLLM that ask for something safer than is done here: an error each, with what to use instead.
    pub(in crate::config) fn refuse_asked(&self, keys: &[(&str, &str)]) {
        for (key, instead) in keys {
            if self.asks(key).recorded(self.file) {
                let text = format!("is not supported: {instead}");
                self.file.record(self.error_of(Kind::REFUSED, key, &text));
            }
        }
    }

    /// Settings of LiteLLM that do nothing here: one note each.
    pub(in crate::config) fn not_served(&self, keys: &[(&str, &str)]) {
        for (key, instead) in keys {
            if self.node(key).is_some() {
                let text = format!("this LiteLLM setting does nothing here: {instead}");
                self.tell(Kind::IDLE, key, &text);
            }
        }
    }

    /// Ticks a key off that needs no reading.
    pub(in crate::config) fn pass_over(&self, key: &str) {
        self.node(key);
    }

    /// The keys that have not been read, and are not null.
    pub(in crate::config) fn unread(&self) -> impl Iterator<Item = &'a str> {
        let unread = self
            .entries
            .iter()
            .filter(|(entry, seen)| !seen.get() && !matches!(entry.node.value, Value::Null));
        unread.map(|(entry, _)| entry.key.as_str())
    }

    /// Ends a section of LiteLLM's: unknown keys are a note each.
    pub(in crate::config) fn warn_unknown(&self) {
        // What begins with `x-` is for anchors, as in compose files.
        let own = |key: &str| self.path.is_empty() && key.starts_with("x-");
        for key in self.unread() {
            if !own(key) {
                self.tell(Kind::UNKNOWN, key, "unknown setting, ignored");
            }
        }
    }

    /// Ends a section of ours: unknown keys are an error each.
    pub(in crate::config) fn refuse_unknown(&self, known: &str) {
        // An error may have ended the reading before a key that is known.
        let is_known = |key: &str| known.split(", ").any(|name| name == key);
        for (entry, seen) in &self.entries {
            if !seen.get() && !is_known(&entry.key) {
                let text = format!("unknown setting; expected one of {known}");
                let error = self.error_of(Kind::UNKNOWN_OURS, &entry.key, &text);
                self.file.record(error);
            }
        }
    }
}
