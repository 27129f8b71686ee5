//! Whose share of a group a call takes from, and how much of it.

use vorrang_scheduler::Share;

use crate::{
    Call, GroupSettings,
    config::{FairBy, FairCost},
    request::Fields,
};

/// Under `fair_cost: tokens` so many tokens take as much as a request does otherwise.
const TOKENS_PER_TURN: f64 = 1000.0;

/// What a call takes, and from whom; nobody's in a group without fair shares.
pub(crate) fn share(call: &Call, fields: &Fields<'_>, group: &GroupSettings, tokens: u64) -> Share {
    let Some(fair) = &group.fair else {
        return Share::default();
    };
    let turns = match fair.cost {
        FairCost::Requests => 1.0,
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        FairCost::Tokens => tokens.max(1) as f64 / TOKENS_PER_TURN,
    };
    let weight = call.key.as_ref().map_or(1.0, |key| key.weight());
    Share::new(&tenant(call, fields, &fair.by), turns / weight)
}

/// A name that no other key's callers can have, whatever they send. Only a number is made of it.
fn tenant(call: &Call, fields: &Fields<'_>, by: &FairBy) -> String {
    let key = call.key.as_ref().map_or("", |key| key.name.as_str());
    let part = match by {
        FairBy::Key => None,
        // What is no text passes upstream as it is, and is told apart by its JSON.
        FairBy::User => fields
            .get("user")
            .map(|json| serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())),
        FairBy::Header(name) => call
            .fair_headers
            .get(name)
            .map(|value| value.as_bytes().escape_ascii().to_string()),
    };
    let length = key.len();
    match part.filter(|part| !part.is_empty()) {
        Some(part) => format!("{length}:{key}:{part}"),
        None => format!("{length}:{key}"),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use vorrang_scheduler::TURN;

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

    // Issue 4, fair shares: whose a call is.
    #[test]
    fn a_user_is_one_of_its_keys_and_of_nobody_elses() {
        let user = |key, body: &str| of(&call(key), body, &FairBy::User);
        let text = r#"{"user":"a"}"#;
        assert_eq!(
            user(Some("k"), text),
            user(Some("k"), r#"{"user":"\u0061"}"#)
        );
        // Nobody is named like the user of another key, or like another key.
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
    fn a_header_names_a_tenant_of_its_key() {
        let by = FairBy::Header(HeaderName::from_static("x-team"));
        let with = |key, value: &'static [u8]| {
            let mut call = call(key);
            let value = HeaderValue::from_bytes(value).unwrap();
            call.fair_headers.insert("X-Team", value);
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
    fn a_turn_is_a_request_or_a_thousand_tokens_by_the_keys_weight() {
        let mut group = Config::demo().groups.remove(0);
        let cost = |group: &GroupSettings, weight, tokens| {
            let mut call = call(Some("k"));
            call.key.as_mut().unwrap().weight = weight;
            let fields = serde_json::from_str("{}").unwrap();
            share(&call, &fields, group, tokens).cost
        };
        assert_eq!(cost(&group, Some(2.0), 5), Share::default().cost);
        let by = FairBy::Key;
        group.fair = Some(FairShares {
            by: by.clone(),
            cost: FairCost::Requests,
        });
        assert_eq!(cost(&group, None, 5), TURN);
        assert_eq!(cost(&group, Some(4.0), 5), TURN / 4);
        assert_eq!(cost(&group, Some(0.01), 5), TURN * 100);
        group.fair = Some(FairShares {
            by,
            cost: FairCost::Tokens,
        });
        assert_eq!(cost(&group, None, 2500), TURN * 5 / 2);
        assert_eq!(cost(&group, Some(0.5), 1000), TURN * 2);
        assert_eq!(cost(&group, None, 0), TURN / 1000);
    }
}
