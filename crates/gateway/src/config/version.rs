//! What tells one configuration from another in metrics and logs.

use sha2::{Digest as _, Sha256};

use crate::{Config, request::tenant::keyed_by};

/// Twelve hexadecimal digits of the texts, keyed by the fleet's keys: a secret in a file cannot be tried out on them.
pub(super) fn of(config: &Config, texts: &[String]) -> String {
    let digest = texts.iter().fold(Sha256::new(), |digest, text| {
        digest
            .chain_update((text.len() as u64).to_be_bytes())
            .chain_update(text)
    });
    let digest = format!("{:x}", digest.finalize());
    let mut code = keyed_by(config, "configuration").hidden(&digest);
    code.truncate(12);
    code
}
