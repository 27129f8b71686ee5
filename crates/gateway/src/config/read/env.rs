//! Where `os.environ/NAME` is looked up.

use std::collections::{BTreeMap, HashMap};

/// Where `os.environ/NAME` is looked up.
pub trait Env: Send + Sync {
    /// The variable's value, if it is set.
    fn get(&self, name: &str) -> Option<String>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// `environment_variables` of the file, before the environment: LiteLLM sets them for its process.
pub(in crate::config) struct Overlay<'a> {
    pub(in crate::config) own: HashMap<String, String>,
    pub(in crate::config) env: &'a dyn Env,
}

impl Env for Overlay<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.own.get(name).cloned().or_else(|| self.env.get(name))
    }
}

impl Env for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        HashMap::get(self, name).cloned()
    }
}

impl Env for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).cloned()
    }
}
