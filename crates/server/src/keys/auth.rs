//! Authentication: `general_settings.master_key` and `vorrang_settings.keys`.

use http::{HeaderMap, HeaderName, header};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use vorrang_gateway::{Config, KeyPolicy};

use crate::failure::Failure;

type Hash = [u8; 32];

/// LiteLLM's own header goes before all others, for clients that need `Authorization` for something else.
const LITELLM_HEADER: &str = "x-litellm-api-key";

/// Headers a key may come in where there is no `Authorization`, in the order LiteLLM looks.
const KEY_HEADERS: [&str; 2] = ["api-key", "x-api-key"];

/// The keys this gateway knows, as hashes: comparing them takes the same time however much of a key was guessed.
pub(crate) struct Keys {
    /// With each key what it says about its calls; `None` is the master key, which says nothing.
    known: Vec<(Hash, Option<KeyPolicy>)>,
    /// The file's own header for keys.
    header: Option<HeaderName>,
}

impl Keys {
    pub(crate) fn new(config: &Config) -> Self {
        let master = config.master_key.iter().map(|key| (hash_secret(key), None));
        let named = config.keys.iter().map(|settings| {
            let policy = settings.policy.clone();
            (hash_secret(&settings.key), Some(policy))
        });
        Self {
            known: master.chain(named).collect(),
            header: config.key_header.clone(),
        }
    }

    /// What the caller's key says about its calls. Without any configured key every caller is served, as with LiteLLM.
    pub(crate) fn authenticate(&self, headers: &HeaderMap) -> Result<Option<KeyPolicy>, Failure> {
        if self.known.is_empty() {
            return Ok(None);
        }
        let key = self
            .presented(headers)
            .ok_or_else(|| Failure::unauthorized("No api key passed in."))?;
        self.find(&hash(key))
            .map(|index| self.known[index].1.clone())
            .ok_or_else(|| Failure::unauthorized("Invalid proxy server token passed."))
    }

    /// Whether the caller has the master key.
    pub(crate) fn is_master(&self, headers: &HeaderMap) -> bool {
        let found = self
            .presented(headers)
            .and_then(|key| self.find(&hash(key)));
        found.is_some_and(|index| self.known[index].1.is_none())
    }

    /// The header that a client's key may come in, and that no upstream may get.
    pub(crate) fn header(&self) -> Option<&HeaderName> {
        self.header.as_ref()
    }

    /// The key as it was sent: in the file's own header, where a request has that; else where [`presented`] finds it.
    fn presented<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        match self.header.as_ref().and_then(|name| headers.get(name)) {
            Some(value) => bearer(value.as_bytes()),
            None => presented(headers),
        }
    }

    /// Compares with every key, also after a match, so that the time does not reveal which key it was.
    fn find(&self, presented: &Hash) -> Option<usize> {
        let mut found = u64::MAX;
        for (index, (known, _)) in (0u64..).zip(&self.known) {
            let equal: Choice = known.ct_eq(presented);
            found.conditional_assign(&index, equal);
        }
        usize::try_from(found)
            .ok()
            .filter(|index| *index < self.known.len())
    }
}

/// The key as it was sent: in `x-litellm-api-key`, else `Authorization`, each as `Bearer KEY` (the scheme in any case, or missing),
/// else in one of [`KEY_HEADERS`]. The first that is there decides, also where it is empty.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let own = headers.get(LITELLM_HEADER);
    if let Some(value) = own.or_else(|| headers.get(header::AUTHORIZATION)) {
        return bearer(value.as_bytes());
    }
    KEY_HEADERS
        .iter()
        .filter_map(|name| headers.get(*name))
        .map(|value| value.as_bytes().trim_ascii())
        .find(|key| !key.is_empty())
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let key = match value.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"bearer ") => rest.trim_ascii(),
        _ if value.eq_ignore_ascii_case(b"bearer") => b"",
        _ => value,
    };
    Some(key).filter(|key| !key.is_empty())
}

fn hash(key: &[u8]) -> Hash {
    Sha256::digest(key).into()
}

fn hash_secret(key: &SecretString) -> Hash {
    hash(key.expose_secret().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        let batch = KeyPolicy {
            name: "batch".into(),
            default_priority: Some(1000),
            ..KeyPolicy::default()
        };
        Keys {
            known: vec![(hash(b"sk-master"), None), (hash(b"sk-batch"), Some(batch))],
            header: Some(HeaderName::from_static("x-own")),
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    http::HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn api_key_is_read_from_every_header_that_litellm_reads() {
        for pair in [
            ("authorization", "Bearer sk-batch"),
            ("authorization", "bearer   sk-batch "),
            ("authorization", "sk-batch"),
            ("x-litellm-api-key", "Bearer sk-batch"),
            ("x-litellm-api-key", "sk-batch"),
            ("api-key", "sk-batch"),
            ("x-api-key", "sk-batch"),
        ] {
            let policy = keys().authenticate(&headers(&[pair])).unwrap().unwrap();
            assert_eq!(policy.name, "batch", "{pair:?}");
        }
    }

    #[test]
    fn master_key_has_no_policy() {
        let policy = keys()
            .authenticate(&headers(&[("authorization", "Bearer sk-master")]))
            .unwrap();
        assert_eq!(policy, None);
        assert!(keys().is_master(&headers(&[("x-api-key", "sk-master")])));
        for pairs in [
            &[][..],
            &[("x-api-key", "sk-batch")],
            &[("x-api-key", "sk-m")],
        ] {
            assert!(!keys().is_master(&headers(pairs)), "{pairs:?}");
        }
    }

    #[test]
    fn missing_and_wrong_keys_get_distinct_errors_without_the_key() {
        for pairs in [
            &[][..],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer  ")],
            &[("x-api-key", "")],
        ] {
            let failure = keys().authenticate(&headers(pairs)).unwrap_err();
            assert_eq!(failure, Failure::unauthorized("No api key passed in."));
        }
        for key in ["Bearer sk-maste", "Bearer sk-master1", "Basic sk-master"] {
            let failure = keys()
                .authenticate(&headers(&[("authorization", key)]))
                .unwrap_err();
            assert!(!format!("{failure:?}").contains("sk-"), "{failure:?}");
        }
    }

    #[test]
    fn authorization_precedes_the_other_key_headers() {
        let both = headers(&[
            ("authorization", "Bearer wrong"),
            ("x-api-key", "sk-master"),
        ]);
        assert!(keys().authenticate(&both).is_err());
    }

    #[test]
    fn key_in_the_files_own_header_precedes_all_others() {
        for own in ["sk-batch", "Bearer sk-batch"] {
            let both = headers(&[("x-own", own), ("x-litellm-api-key", "wrong")]);
            assert_eq!(keys().authenticate(&both).unwrap().unwrap().name, "batch");
        }
        for own in ["", "wrong"] {
            let both = headers(&[("x-own", own), ("x-litellm-api-key", "sk-master")]);
            assert!(keys().authenticate(&both).is_err(), "{own}");
        }
        assert!(keys().is_master(&headers(&[("x-own", "sk-master")])));
    }

    #[test]
    fn x_litellm_api_key_precedes_authorization() {
        let foreign = ("authorization", "Basic dXNlcjpwYXNz");
        let both = headers(&[foreign, ("x-litellm-api-key", "sk-master")]);
        assert_eq!(keys().authenticate(&both), Ok(None));
        let empty = headers(&[("authorization", "sk-master"), ("x-litellm-api-key", "")]);
        assert!(keys().authenticate(&empty).is_err());
    }

    #[test]
    fn any_caller_is_accepted_without_configured_keys() {
        let open = Keys {
            known: Vec::new(),
            header: None,
        };
        assert_eq!(open.authenticate(&HeaderMap::new()), Ok(None));
        assert_eq!(
            open.authenticate(&headers(&[("authorization", "Bearer anything")])),
            Ok(None)
        );
    }
}
