//! The wire layout: ops, answers and grants are arrays. Only this file defines the order and the bounds of an op's fields; an answer's
//! fields have the order of its struct. The step in Redis gets both from here (`backend/redis/template.rs`).

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, Visitor, value},
};

use crate::{
    bounds,
    claim::Entry,
    message::{
        Answer, Grant, Op, Override, Reply, Used, View, ViewedDeployment, ViewedEntry,
        ViewedSession,
    },
    overrides::{LimitOverride, Overrides},
};

/// The layout of a kind of op: its tag, followed by its fields.
pub(crate) struct OpLayout {
    pub name: &'static str,
    pub tag: &'static str,
    /// The fields' names, and the functions of [`bounds`] that cut them.
    pub fields: &'static [(&'static str, &'static str)],
}

/// For each kind of op: its name and tag, the op, and its fields in order, each with its bound and its expression in the op.
macro_rules! ops {
    ($($name:ident $tag:literal $op:pat => { $($field:ident: $bound:ident = $place:expr),* $(,)? })*) => {
        /// All kinds of ops.
        pub(crate) const OPS: &[OpLayout] = &[$(OpLayout {
            name: stringify!($name),
            tag: $tag,
            fields: &[$((stringify!($field), stringify!($bound))),*],
        }),*];

        impl Serialize for Op {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $($op => ($tag, $(&$place),*).serialize(serializer),)*
                }
            }
        }

        impl Op {
            /// The op within the bounds.
            pub(crate) fn bounded(&self) -> Self {
                let mut op = self.clone();
                match &mut op {
                    $($op => { $(bounds::$bound(&mut $place);)* })*
                }
                op
            }
        }
    };
}

ops! {
    join "j" Op::Join(Entry { claim, arrival, start }) => {
        priority: any = claim.priority,
        arrival: number = arrival.0,
        input: amount = claim.tokens.input,
        output: amount = claim.tokens.output,
        start: number = *start,
        tenant: tenant = claim.share.tenant,
        cost: cost = claim.share.cost,
        key: tenant = claim.key,
        tried: tried = claim.tried,
    }
    leave "l" Op::Leave { claim, arrival } => {
        priority: any = claim.priority,
        arrival: number = arrival.0,
        input: amount = claim.tokens.input,
        output: amount = claim.tokens.output,
        tenant: tenant = claim.share.tenant,
        cost: cost = claim.share.cost,
        key: tenant = claim.key,
        tried: tried = claim.tried,
    }
    sent "s" Op::Sent { granted, age } => {
        granted: number = granted.0,
        age: duration = age.0,
    }
    done "d" Op::Done { granted, deployment, tokens, excess, ok } => {
        granted: number = granted.0,
        deployment: any = *deployment,
        input: amount = tokens.input,
        output: amount = tokens.output,
        excess_input: amount = excess.input,
        excess_output: amount = excess.output,
        ok: any = *ok,
    }
    unused "u" Op::Unused { granted } => {
        granted: number = granted.0,
    }
    report "r" Op::Report { granted, deployment, probe, again, ok, status, cool } => {
        granted: number = granted.0,
        deployment: any = *deployment,
        probe: any = *probe,
        again: any = *again,
        ok: any = *ok,
        status: any = *status,
        cool: signed = *cool,
    }
    measured "t" Op::Measured { deployment, took } => {
        deployment: any = *deployment,
        took: latency = took.0,
    }
    hold "h" Op::Hold { granted, deployment, probe } => {
        granted: number = granted.0,
        deployment: any = *deployment,
        probe: any = *probe,
    }
    charge "m" Op::Charge { granted, excess, deployment, requests, tokens, age } => {
        granted: number = granted.0,
        excess: any = *excess,
        deployment: any = *deployment,
        requests: amount = *requests,
        input: amount = tokens.input,
        output: amount = tokens.output,
        age: duration = age.0,
    }
    cool "c" Op::Cool { deployment, left, status } => {
        deployment: any = *deployment,
        left: duration = left.0,
        status: any = *status,
    }
    move "p" Op::Move { claim, arrival, to } => {
        priority: any = claim.priority,
        arrival: number = arrival.0,
        input: amount = claim.tokens.input,
        output: amount = claim.tokens.output,
        tenant: tenant = claim.share.tenant,
        cost: cost = claim.share.cost,
        key: tenant = claim.key,
        tried: tried = claim.tried,
        to: any = *to,
    }
    rank "k" Op::Rank { claim, arrival } => {
        priority: any = claim.priority,
        arrival: number = arrival.0,
        input: amount = claim.tokens.input,
        output: amount = claim.tokens.output,
        tenant: tenant = claim.share.tenant,
        cost: cost = claim.share.cost,
        key: tenant = claim.key,
        tried: tried = claim.tried,
    }
    look "v" Op::Look { from, most } => {
        from: amount = *from,
        most: amount = *most,
    }
    override "o" Op::Override(Override { what, key, paused, limit: LimitOverride { deployment, kind, span, limit } }) => {
        what: any = *what,
        key: tenant = *key,
        paused: any = *paused,
        deployment: any = *deployment,
        kind: any = *kind,
        span: duration = span.0,
        limit: limit = *limit,
    }
    overrides "q" Op::Overrides(Overrides { version, paused, keys, limits }) => {
        version: number = version.0,
        paused: any = *paused,
        keys: keys = *keys,
        limits: limits = *limits,
    }
    close_session "b" Op::CloseSession { clean } => {
        clean: any = *clean,
    }
}

/// The structs that are encoded as arrays, with the names of their fields in order.
pub(crate) fn structs() -> [(&'static str, &'static [&'static str]); 9] {
    [
        ("reply", field_names::<Reply>()),
        ("answer", field_names::<Answer>()),
        ("grant", field_names::<Grant>()),
        ("used", field_names::<Used>()),
        ("view", field_names::<View>()),
        ("viewed_entry", field_names::<ViewedEntry>()),
        ("viewed_deployment", field_names::<ViewedDeployment>()),
        ("viewed_session", field_names::<ViewedSession>()),
        ("reported_overrides", field_names::<Overrides>()),
    ]
}

/// The names of a struct's fields, from its `Deserialize` implementation.
fn field_names<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // The visit fails as soon as the names are recorded.
    let _ = T::deserialize(FieldNames(&mut names));
    names
}

struct FieldNames<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        Err(value::Error::custom("only the names were asked for"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(value::Error::custom("no struct"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_have_their_fields_in_order() {
        let [(_, reply), (_, answer), (_, grant), (_, used), ..] = structs();
        assert_eq!(reply, ["verdict", "epoch", "recovered", "answer"]);
        assert_eq!((answer[0], answer.len()), ("session", 23));
        assert_eq!((grant[0], grant.len()), ("arrival", 7));
        assert_eq!(used, ["cost", "open", "cooling", "pace"]);
    }

    #[test]
    fn tags_are_unique() {
        let tags: std::collections::BTreeSet<_> = OPS.iter().map(|op| op.tag).collect();
        assert_eq!(tags.len(), OPS.len());
    }
}
