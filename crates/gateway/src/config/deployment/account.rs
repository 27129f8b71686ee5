//! `files_settings` and `finetune_settings`: accounts at providers, for what is called without a model.

use std::time::Duration;

use super::{
    Defaults, api_key,
    known::{self, Role},
    target::{self, NoTarget, PROVIDER},
};
use crate::{
    Resource,
    config::{
        ConfigError, Kind, Upstream,
        read::{Recorded, Section},
    },
};

/// An account at a provider: where its files, batches and fine-tuning jobs are.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Account {
    /// The section that it stands in.
    pub settings: &'static str,
    /// `custom_llm_provider`: requests name it so.
    pub provider: String,
    /// Where it is called.
    pub upstream: Upstream,
    /// Until its answer begins, where it is shorter than the request's time.
    pub timeout: Option<Duration>,
}

/// All of them, in the order of the file.
pub(in crate::config) fn accounts(root: &Section<'_>, defaults: &Defaults) -> Vec<Account> {
    let mut all: Vec<Account> = Vec::new();
    for settings in Resource::settings() {
        let entries = root.sections(settings).recorded(root.file);
        for entry in entries.into_iter().flatten() {
            let account = account(settings, &entry, defaults).recorded(root.file);
            let Some(account) = account else { continue };
            let same = |one: &Account| one.settings == settings && one.provider == account.provider;
            if all.iter().any(same) {
                let text =
                    "stands more than once; the first entry of a provider counts, as in LiteLLM";
                entry.tell(Kind::TWICE, PROVIDER, text);
            } else {
                all.push(account);
            }
        }
    }
    all
}

/// `None`: it is left out, as its provider cannot be called.
fn account(
    settings: &'static str,
    entry: &Section<'_>,
    defaults: &Defaults,
) -> Result<Option<Account>, ConfigError> {
    let file = entry.file;
    let Some(provider) = entry.name(PROVIDER)? else {
        return Err(entry.error_of(Kind::MISSING, PROVIDER, "expected the name of a provider"));
    };
    let key = api_key(entry).recorded(file);
    let timeout = entry.seconds_if_any("timeout").recorded(file);
    let upstream = match target::account(entry, key, defaults) {
        Ok(upstream) => upstream,
        Err(NoTarget::Error(error)) => return Err(error),
        Err(NoTarget::LeftOut(key, reason) | NoTarget::Unknown(key, reason)) => {
            // There is no model here.
            let key = if key == "model" { PROVIDER } else { key };
            let text = format!("the account is left out: {reason}");
            entry.tell(Kind::LEFT_OUT, key, &text);
            return Ok(None);
        }
    };
    for name in entry.unread() {
        if let Role::Setting(reason) = known::role(name) {
            entry.not_served(&[(name, reason)]);
        }
    }
    entry.warn_unknown();
    Ok(Some(Account {
        settings,
        provider,
        upstream,
        timeout,
    }))
}
