//! What there is to say about a file: errors, and what its author should know.

mod grouped;
mod kind;
pub(in crate::config) mod shown;

use std::fmt;

use serde::Serialize;

pub(in crate::config) use self::kind::Kind;
use self::shown::Shown;
pub use self::{grouped::Grouped, kind::Level};

/// One thing to say about a file: where, and what. Never a value that may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Diagnostic {
    /// How much it matters.
    pub level: Level,
    /// A stable word for its kind, such as `deployment-left-out`.
    pub code: &'static str,
    /// The file's name; `None`: it is about the environment or the command line.
    pub file: Option<String>,
    /// From 1.
    pub line: Option<u64>,
    /// The key's path, such as `model_list[0].litellm_params.rpm`.
    pub key: Option<String>,
    /// What was expected, or what happens instead.
    pub message: String,
}

impl Diagnostic {
    pub(in crate::config) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            level: kind.level,
            code: kind.code,
            file: None,
            line: None,
            key: None,
            message: message.into(),
        }
    }
}

/// `file:line: key: message`, on one line whatever stands in the file.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", Shown(file))?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "{}: ", Shown(key))?;
        }
        write!(f, "{}", Shown(&self.message))
    }
}

/// A configuration that cannot be used: everything that is wrong with it. Each error names file, line, key and what was expected;
/// never a value that may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Errors, at least one, and whatever else was noticed; in the order of the file.
    diagnostics: Vec<Diagnostic>,
}

impl ConfigError {
    /// Errors, and whatever else was noticed until they ended the reading.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    pub(in crate::config) fn of(diagnostics: Vec<Diagnostic>) -> Self {
        Self { diagnostics }
    }

    pub(in crate::config) fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.diagnostics
    }
}

impl From<Diagnostic> for ConfigError {
    fn from(error: Diagnostic) -> Self {
        Self::of(vec![error])
    }
}

/// The errors, one on each line.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.diagnostics.iter();
        let errors = errors.filter(|one| one.level == Level::Error);
        for (index, error) in errors.enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
