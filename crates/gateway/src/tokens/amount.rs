//! Amounts of tokens as others write them.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// More tokens than any call can use. What comes from outside is cut to it, so that no sum overflows.
pub(crate) const MOST_TOKENS: u64 = 1 << 40;

/// An amount: an integer, a float (rounded up), or either as a text, at most [`MOST_TOKENS`]. `None`: negative, or no
/// amount at all, which is no reason to read nothing else of its object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount(pub(crate) Option<u64>);

impl Amount {
    fn from_float(number: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and cut to what fits"
        )]
        let amount = (number >= 0.0).then(|| (number.ceil() as u64).min(MOST_TOKENS));
        Self(amount)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AmountVisitor;

        impl<'de> Visitor<'de> for AmountVisitor {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of tokens")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Amount, E> {
                Ok(Amount(Some(number.min(MOST_TOKENS))))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Amount, E> {
                let number = u64::try_from(number).ok();
                Ok(Amount(number.map(|number| number.min(MOST_TOKENS))))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Amount, E> {
                Ok(Amount::from_float(number))
            }

            fn visit_str<E>(self, text: &str) -> Result<Amount, E> {
                let number = text.trim().parse::<f64>();
                Ok(number.map_or(Amount(None), Amount::from_float))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Amount, E> {
                Ok(Amount(None))
            }

            fn visit_unit<E>(self) -> Result<Amount, E> {
                Ok(Amount(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Amount, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Amount(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Amount, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Amount(None))
            }
        }

        deserializer.deserialize_any(AmountVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_amounts_accept_any_number_notation_and_are_bounded() {
        for (text, amount) in [
            ("7", Some(7)),
            ("7.0", Some(7)),
            ("7.2", Some(8)),
            ("5e2", Some(500)),
            (r#""500""#, Some(500)),
            (r#"" 5.5 ""#, Some(6)),
            ("-0.0", Some(0)),
            ("9223372036854775807", Some(MOST_TOKENS)),
            ("18446744073709551616", Some(MOST_TOKENS)),
            ("1e300", Some(MOST_TOKENS)),
            (r#""inf""#, Some(MOST_TOKENS)),
            ("-1", None),
            ("-9223372036854775808", None),
            ("-1e300", None),
            (r#""NaN""#, None),
            (r#""many""#, None),
            ("null", None),
            ("true", None),
            ("[1]", None),
            (r#"{"a":1}"#, None),
        ] {
            let read: Amount = serde_json::from_str(text).unwrap();
            assert_eq!(read, Amount(amount), "{text}");
        }
    }
}
