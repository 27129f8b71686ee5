//! Whose share of a group a call takes from, and how much of it.

use std::collections::HashMap;

use hmac::{Hmac, Mac as _};
use secrecy::ExposeSecret as _;
use sha2::Sha256;
use vorrang_scheduler::Share;

use crate::{
    Call, Config, GroupSettings, KeyPolicy,
    config::{FairBy, FairCost},
    request::Fields,
};

/// Under `fair_cost: tokens` so many tokens take as much as a request does otherwise.
const TOKENS_PER_UNIT: f64 = 1000.0;

/// Makes the numbers of tenants and keys, which stand in Redis: names cannot be tried out on them without the fleet's keys.
///
/// All instances of a configuration derive the same number from a name. After a change of keys a tenant has two numbers until
/// all instances have the new keys.
#[derive(Clone)]
pub(crate) struct Tenants {
    hmac: Hmac<Sha256>,
    /// The numbers of the configuration's keys, by their names.
    keys: HashMap<String, u64>,
}

impl Tenants {
    /// Keyed by the master key, else by all other keys; without any, numbers are plain hashes, and names can be tried out on them.
    pub(crate) fn new(config: &Config) -> Self {
        let mut tenants = keyed_by(config, "tenant");
        let names = config.keys.iter().map(|key| &key.policy.name);
        let keys = names.map(|name| (name.clone(), tenants.key_of(name)));
        tenants.keys = keys.collect();
        tenants
    }

    /// The number of a caller's key; 0 for the master key, and for none. It is derived once for a key of the configuration.
    pub(crate) fn key(&self, key: Option<&KeyPolicy>) -> u64 {
        key.map_or(0, |key| self.key_of(&key.name))
    }

    /// The number of a key of this name.
    pub(crate) fn key_of(&self, name: &str) -> u64 {
        let known = self.keys.get(name).copied();
        // A program may make calls with keys that no file knows. No tenant is called like that: their names begin with a length.
        known.unwrap_or_else(|| self.number(&format!("key {name}")))
    }

    /// The name of the configuration's key with this number.
    pub(crate) fn key_name(&self, number: u64) -> Option<&str> {
        let mut keys = self.keys.iter();
        let found = keys.find(|(_, known)| **known == number);
        found.map(|(name, _)| name.as_str())
    }

    fn number(&self, name: &str) -> u64 {
        Share::new(&self.hidden(name), 1.0).tenant
    }

    /// The numbers that a tenant may have who is shown by this text: a name may have a slash in it.
    pub(crate) fn shown_as(&self, text: &str) -> Vec<u64> {
        let whole = canonical(text, None);
        let cuts = text.match_indices('/');
        let parts = cuts.map(|(at, _)| canonical(&text[..at], Some(&text[at + 1..])));
        let names = [whole].into_iter().chain(parts);
        names.map(|name| self.number(&name)).collect()
    }

    /// A name that cannot be derived without the keys.
    pub(crate) fn hidden(&self, name: &str) -> String {
        let code = self.hmac.clone().chain_update(name).finalize().into_bytes();
        format!("{code:x}")
    }
}

/// Keyed by the fleet's keys, for a purpose: what is derived for one says nothing of another.
pub(crate) fn keyed_by(config: &Config, purpose: &str) -> Tenants {
    let secrets: Vec<&str> = match &config.master_key {
        Some(key) => vec![key.expose_secret()],
        None => {
            let mut keys: Vec<&str> = config
                .keys
                .iter()
                .map(|settings| settings.key.expose_secret())
                .collect();
            keys.sort_unstable();
            keys
        }
    };
    // Keys hold no line breaks.
    let secret = format!("vorrang {purpose}\n{}", secrets.join("\n"));
    Tenants {
        hmac: keyed(secret.as_bytes()),
        keys: HashMap::new(),
    }
}

#[expect(
    clippy::expect_used,
    reason = "HMAC takes keys of any length (RFC 2104)"
)]
fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret).expect("any length is a key")
}

impl std::fmt::Debug for Tenants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenants").finish_non_exhaustive()
    }
}

/// So many tokens as service.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
pub(crate) fn units(tokens: u64) -> f64 {
    tokens.max(1) as f64 / TOKENS_PER_UNIT
}

/// The call's tenant and its service; no tenant in a group without fair shares.
pub(crate) fn share(
    tenants: &Tenants,
    call: &Call,
    fields: &Fields<'_>,
    group: &GroupSettings,
    tokens: u64,
) -> Share {
    let Some(fair) = &group.fair else {
        return Share::default();
    };
    let service = match fair.cost {
        FairCost::Requests => 1.0,
        FairCost::Tokens => units(tokens),
    };
    let weight = call.key.as_ref().map_or(1.0, |key| key.weight());
    let name = tenants.hidden(&tenant(call, fields, &fair.by));
    Share::new(&name, service / weight)
}

/// A name that no other key's callers can have, whatever they send. Only a number is made of it.
fn tenant(call: &Call, fields: &Fields<'_>, by: &FairBy) -> String {
    let (key, part) = named(call, fields, by);
    canonical(key, part.as_deref())
}

/// The tenant as operators see it.
pub(crate) fn shown(call: &Call, fields: &Fields<'_>, by: &FairBy) -> String {
    match named(call, fields, by) {
        (key, None) => key.to_owned(),
        (key, Some(part)) => format!("{key}/{part}"),
    }
}

/// The name of the key, and what the tenant is called within it.
fn named<'a>(call: &'a Call, fields: &Fields<'_>, by: &FairBy) -> (&'a str, Option<String>) {
    let key = call.key.as_ref().map_or("", |key| key.name.as_str());
    let part = match by {
        FairBy::Key => None,
        // A `user` that is not a string passes upstream unchanged; its JSON text names the tenant.
        FairBy::User => fields
            .get("user")
            .map(|json| serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())),
        FairBy::Header(name) => call
            .labels
            .get(name.as_str())
            .map(|value| value.escape_ascii().to_string()),
    };
    (key, part.filter(|part| !part.is_empty()))
}

fn canonical(key: &str, part: Option<&str>) -> String {
    let length = key.len();
    match part {
        Some(part) => format!("{length}:{key}:{part}"),
        None => format!("{length}:{key}"),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use vorrang_scheduler::UNIT_COST;

    use super::*;
    use crate::{Config, Endpoint, KeyPolicy, config::FairShares};

    fn call(key: Option<&str>) -> Call {
        Call {
            key: key.map(|name| KeyPolicy {
                name: name.into(),
                ..KeyPolicy::default()
            }),
            ..Call::new(Endpoint::ChatCompletions, "")
        }
    }

    fn of(call: &Call, body: &str, by: &FairBy) -> String {
        tenant(call, &serde_json::from_str(body).unwrap(), by)
    }

    // P19 (fair shares): a tenant is a user within a key, so that two keys may have users of one name.
    #[test]
    fn tenant_of_a_user_is_unique_per_key() {
        let user = |key, body: &str| of(&call(key), body, &FairBy::User);
        let text = r#"{"user":"a"}"#;
        assert_eq!(
            user(Some("k"), text),
            user(Some("k"), r#"{"user":"\u0061"}"#)
        );
        // No tenant has the name of another key's user, or of another key.
        let different = [
            user(Some("k"), text),
            user(Some("j"), text),
            user(None, text),
            user(Some("k:1:k"), text),
            user(Some("k"), r#"{"user":"1:k:a"}"#),
            user(Some("k"), r#"{"user":"b"}"#),
            user(Some("k"), r#"{"user":["a"]}"#),
            user(Some("k"), r#"{"user":{"a":1}}"#),
            user(Some("k"), r#"{"user":7}"#),
            user(Some("k"), r#"{"user":true}"#),
            user(Some("k"), "{}"),
            user(Some("j"), "{}"),
            user(None, "{}"),
        ];
        for (index, name) in different.iter().enumerate() {
            assert!(!different[..index].contains(name), "{name}");
        }
        for nameless in [r#"{"user":""}"#, r#"{"user":null}"#] {
            assert_eq!(user(Some("k"), nameless), user(Some("k"), "{}"));
        }
        assert_eq!(
            of(&call(Some("k")), text, &FairBy::Key),
            user(Some("k"), "{}")
        );
    }

    #[test]
    fn tenant_number_depends_only_on_the_configured_keys() {
        let number = |master: Option<&str>, keys: &[&str]| {
            let mut config = Config::demo();
            config.master_key = master.map(Into::into);
            config.keys = keys
                .iter()
                .map(|key| crate::KeySettings {
                    key: (*key).into(),
                    policy: KeyPolicy::default(),
                })
                .collect();
            let mut group = config.groups.remove(0);
            group.fair = Some(FairShares {
                by: FairBy::User,
                cost: FairCost::Requests,
            });
            let fields = serde_json::from_str(r#"{"user":"a"}"#).unwrap();
            share(&Tenants::new(&config), &call(Some("k")), &fields, &group, 0).tenant
        };
        assert_eq!(number(Some("m"), &[]), number(Some("m"), &["x"]));
        assert_eq!(number(None, &["x", "y"]), number(None, &["y", "x"]));
        let unkeyed = Share::new("1:k:a", 1.0).tenant;
        let different = [
            unkeyed,
            number(None, &[]),
            number(Some("m"), &[]),
            number(Some("n"), &[]),
            number(None, &["x", "y"]),
            number(None, &["xy"]),
        ];
        for (index, tenant) in different.iter().enumerate() {
            assert!(!different[..index].contains(tenant), "{different:?}");
        }
    }

    #[test]
    fn numbers_of_keys_depend_on_their_names_and_the_configured_keys() {
        let mut config = Config::demo();
        config.keys = ["a", "b"]
            .map(|name| crate::KeySettings {
                key: format!("sk-{name}").into(),
                policy: call(Some(name)).key.unwrap(),
            })
            .into();
        let tenants = Tenants::new(&config);
        let (a, b) = (tenants.key_of("a"), tenants.key_of("b"));
        assert!(a != b && a > 0 && a < 1 << 52);
        assert_eq!(tenants.key(call(Some("a")).key.as_ref()), a);
        assert_eq!(tenants.key(None), 0);
        assert_eq!(
            (tenants.key_name(a), tenants.key_name(7)),
            (Some("a"), None)
        );
        assert!(![0, a, b].contains(&tenants.key_of("c")));
        config.master_key = Some("other".into());
        assert_ne!(Tenants::new(&config).key_of("a"), a);
    }

    #[test]
    fn tenant_is_found_by_the_text_that_it_is_shown_by() {
        let config = Config::demo();
        let mut group = config.groups[0].clone();
        let tenants = Tenants::new(&config);
        for (key, body, by) in [
            (Some("k"), "{}", FairBy::Key),
            (None, "{}", FairBy::Key),
            (Some("k/1"), r#"{"user":"a/b"}"#, FairBy::User),
        ] {
            let call = call(key);
            let fields = serde_json::from_str(body).unwrap();
            let text = shown(&call, &fields, &by);
            let cost = FairCost::Requests;
            group.fair = Some(FairShares { by, cost });
            let number = share(&tenants, &call, &fields, &group, 0).tenant;
            assert!(tenants.shown_as(&text).contains(&number), "{text}");
        }
    }

    #[test]
    fn tenant_of_a_header_is_unique_per_key_and_value() {
        let by = FairBy::Header(HeaderName::from_static("x-team"));
        let with = |key, value: &'static [u8]| {
            let mut call = call(key);
            call.labels.insert("x-team".into(), value.into());
            of(&call, r#"{"user":"u"}"#, &by)
        };
        let none = of(&call(Some("k")), "{}", &by);
        assert_eq!(with(Some("k"), b""), none);
        // What is no ASCII is a name, too.
        let different = [
            none,
            with(Some("k"), b"red"),
            with(Some("k"), b"RED"),
            with(Some("j"), b"red"),
            with(None, b"red"),
            with(Some("k"), b"\xff"),
            with(Some("k"), b"\\xff"),
        ];
        for (index, name) in different.iter().enumerate() {
            assert!(!different[..index].contains(name), "{name}");
        }
    }

    #[test]
    fn service_is_one_request_or_a_thousand_tokens_divided_by_weight() {
        let mut group = Config::demo().groups.remove(0);
        let cost = |group: &GroupSettings, weight, tokens| {
            let mut call = call(Some("k"));
            call.key.as_mut().unwrap().weight = weight;
            let fields = serde_json::from_str("{}").unwrap();
            let tenants = Tenants::new(&Config::demo());
            share(&tenants, &call, &fields, group, tokens).cost
        };
        assert_eq!(cost(&group, Some(2.0), 5), Share::default().cost);
        let by = FairBy::Key;
        group.fair = Some(FairShares {
            by: by.clone(),
            cost: FairCost::Requests,
        });
        assert_eq!(cost(&group, None, 5), UNIT_COST);
        assert_eq!(cost(&group, Some(4.0), 5), UNIT_COST / 4);
        assert_eq!(cost(&group, Some(0.01), 5), UNIT_COST * 100);
        group.fair = Some(FairShares {
            by,
            cost: FairCost::Tokens,
        });
        assert_eq!(cost(&group, None, 2500), UNIT_COST * 5 / 2);
        assert_eq!(cost(&group, Some(0.5), 1000), UNIT_COST * 2);
        assert_eq!(cost(&group, None, 0), UNIT_COST / 1000);
    }
}
