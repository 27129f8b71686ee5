//! What all sections of one file share: its name, its environment, and what there is to say about it.

use std::cell::RefCell;

use super::tree;
use crate::config::{ConfigError, Diagnostic, Env, Kind, Level};

type Result<T> = std::result::Result<T, ConfigError>;

/// What all sections of one file share.
pub(in crate::config) struct File<'a> {
    /// The file's, and those of the files that it includes.
    names: &'a [String],
    pub(in crate::config) env: &'a dyn Env,
    /// Each with its place for their order: a line of an included file comes after all of the file's own.
    found: RefCell<Vec<(u64, Diagnostic)>>,
}

impl<'a> File<'a> {
    pub(in crate::config) fn new(names: &'a [String], env: &'a dyn Env) -> Self {
        Self {
            names,
            env,
            found: RefCell::default(),
        }
    }

    /// Something to say about a line, and about a key.
    pub(in crate::config) fn tell(&self, kind: Kind, line: u64, key: Option<&str>, text: &str) {
        let told = self.diagnostic(kind, line, key, text);
        self.found.borrow_mut().push((line, told));
    }

    pub(in crate::config) fn error(&self, line: u64, text: &str) -> ConfigError {
        self.error_at(Kind::INVALID, line, None, text)
    }

    pub(in crate::config) fn error_at(
        &self,
        kind: Kind,
        line: u64,
        key: Option<&str>,
        text: &str,
    ) -> ConfigError {
        self.diagnostic(kind, line, key, text).into()
    }

    fn diagnostic(&self, kind: Kind, line: u64, key: Option<&str>, text: &str) -> Diagnostic {
        let (file, number) = tree::place(line);
        Diagnostic {
            file: self.names.get(file).cloned(),
            line: Some(number),
            key: key.map(str::to_owned),
            ..Diagnostic::new(kind, text)
        }
    }

    /// Keeps an error, so that the reading can continue: nothing runs with it all the same.
    pub(in crate::config) fn record(&self, error: ConfigError) {
        let names = self.names;
        let place = |one: &Diagnostic| {
            let file = names
                .iter()
                .position(|name| Some(name) == one.file.as_ref());
            tree::line(file.unwrap_or_default(), one.line.unwrap_or_default())
        };
        let errors = error.into_diagnostics().into_iter();
        let errors = errors.map(|one| (place(&one), one));
        self.found.borrow_mut().extend(errors);
    }

    pub(in crate::config) fn has_errors(&self) -> bool {
        let found = self.found.borrow();
        found.iter().any(|(_, one)| one.level == Level::Error)
    }

    /// All that was found, in the order of the file; an error where any of it is one.
    pub(in crate::config) fn finish(self) -> Result<Vec<Diagnostic>> {
        let failed = self.has_errors();
        let mut found = self.found.into_inner();
        found.sort_by_key(|(line, _)| *line);
        let mut all: Vec<Diagnostic> = Vec::with_capacity(found.len());
        for (_, one) in found {
            // What two readers of a key say is said once.
            if !all.contains(&one) {
                all.push(one);
            }
        }
        if failed {
            return Err(ConfigError::of(all));
        }
        Ok(all)
    }
}

/// What continues with a default where there was an error, so that one reading finds all of them.
pub(in crate::config) trait Recorded<T> {
    /// The value; after an error, which the file keeps, the default.
    fn recorded(self, file: &File<'_>) -> T
    where
        T: Default;

    /// The value; after an error, which the file keeps, nothing.
    fn recorded_if_any(self, file: &File<'_>) -> Option<T>;
}

impl<T> Recorded<T> for Result<T> {
    fn recorded(self, file: &File<'_>) -> T
    where
        T: Default,
    {
        self.recorded_if_any(file).unwrap_or_default()
    }

    fn recorded_if_any(self, file: &File<'_>) -> Option<T> {
        self.map_err(|error| file.record(error)).ok()
    }
}
