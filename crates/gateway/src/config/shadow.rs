//! `vorrang_settings.shadow`: another file, whose decisions are made beside the real ones.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Config, ConfigError, Diagnostic, Env, Kind};

const KEY: &str = "vorrang_settings.shadow";

/// Another configuration.
#[derive(Debug, Clone)]
pub struct Shadow {
    /// Its file, as the setting names it.
    pub file: String,
    /// What stands in it; `None` where the configuration was read from a text, which is in no folder.
    pub config: Option<Arc<Config>>,
}

impl Shadow {
    pub(super) fn named(file: String) -> Self {
        Self { file, config: None }
    }

    /// Reads its file, which is named from the folder of the file `of`. A shadow of the shadow is not read. Returns its files.
    pub(super) fn load(&mut self, of: &Path, env: &dyn Env) -> Result<Vec<PathBuf>, ConfigError> {
        let folder = of.parent().unwrap_or(Path::new(""));
        let path = folder.join(&self.file);
        match Config::load_alone(&path, env, None) {
            Ok(loaded) => {
                self.config = Some(Arc::new(loaded.config));
                Ok(loaded.files)
            }
            Err(error) => {
                let mut diagnostics = vec![Diagnostic {
                    file: Some(of.display().to_string()),
                    key: Some(KEY.into()),
                    ..Diagnostic::new(Kind::UNREADABLE, "the shadow's file has errors")
                }];
                diagnostics.extend(error.diagnostics().iter().cloned());
                Err(ConfigError::of(diagnostics))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;

    const MODEL: &str = "
model_list: [{model_name: chat, litellm_params: {model: openai/x, mock_response: hello, rpm: LIMIT}}]
";

    fn load(shadow: &str) -> Result<crate::Loaded, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("config.yaml");
        let ours = "vorrang_settings: {shadow: other.yaml}\n";
        fs::write(&main, format!("{}{ours}", MODEL.replace("LIMIT", "10"))).unwrap();
        if !shadow.is_empty() {
            fs::write(folder.path().join("other.yaml"), shadow).unwrap();
        }
        Config::load(&main, &BTreeMap::new())
    }

    #[test]
    fn shadow_is_read_from_the_folder_of_its_file_and_watched_with_it() {
        // It names itself: a shadow has none.
        let text = MODEL.replace("LIMIT", "20") + "vorrang_settings: {shadow: other.yaml}\n";
        let loaded = load(&text).unwrap();
        assert_eq!(loaded.files.len(), 2);
        let shadow = loaded.config.shadow.unwrap().config.unwrap();
        assert_eq!(shadow.groups[0].deployments[0].limits[0].limit, 20);
        assert_eq!(loaded.config.groups[0].deployments[0].limits[0].limit, 10);
    }

    #[test]
    fn errors_of_a_shadow_are_errors_that_name_its_file() {
        for text in ["", &MODEL.replace("LIMIT", "many"), "model_list: ["] {
            let error = load(text).unwrap_err();
            let all: Vec<String> = error
                .diagnostics()
                .iter()
                .map(ToString::to_string)
                .collect();
            assert!(
                all[0].contains("vorrang_settings.shadow: the shadow's file has errors"),
                "{all:?}"
            );
            assert!(all[1].contains("other.yaml"), "{all:?}");
        }
    }
}
