//! Placeholders in the Lua files for what `wire.rs` defines: the layout of ops, answers and grants. They are replaced when the files are joined.
//!
//! | word | stands for |
//! | --- | --- |
//! | `TAG_join` | the tag of an op of this kind, a string |
//! | `FIELDS_join` | an op's fields as the parameters of a function, its tag first |
//! | `FIELD_join_tenant` | the position of one field |
//! | `FIELDS_answer`, `FIELD_grant_granted` | the same of a struct, which has no tag |
//! | `LIMIT_tokens` | the position of a kind of limit in a window's limits |
//! | `MAX_OPS` | a constant (`script.rs`) |
//! | `OP_BOUNDS`, `OP_SIGNED`, `OP_NUMBERS`, `OP_TRIED` | tables by tag: the bounds of the fields, by position |

use std::collections::HashMap;

use crate::{
    cost::COUNTED,
    wire::{OPS, OpLayout, structs},
};

/// The position of an op's first field: the tag is first, and Lua counts from 1.
const FIRST: usize = 2;

/// The source with all placeholders replaced.
pub(super) fn filled(source: &str) -> String {
    // The bounds of ops are constants.
    replaced(&replaced(source, &words()), &constants())
}

fn constants() -> HashMap<String, String> {
    let literal = |value: i64| match value {
        0.. => value.to_string(),
        _ => format!("({value})"),
    };
    let all = super::script::integers().into_iter();
    all.map(|(name, value)| (name.to_owned(), literal(value)))
        .collect()
}

/// The tables of the bounds of ops.
#[cfg(test)]
pub(super) fn bounds() -> String {
    replaced("OP_BOUNDS", &words())
}

fn replaced(source: &str, words: &HashMap<String, String>) -> String {
    let mut filled = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find(is_word) {
        let (before, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c| !is_word(c)).unwrap_or(from.len()));
        filled.push_str(before);
        filled.push_str(words.get(word).map_or(word, String::as_str));
        rest = after;
    }
    filled + rest
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn words() -> HashMap<String, String> {
    let mut words = HashMap::new();
    for OpLayout { name, tag, fields } in OPS {
        words.insert(format!("TAG_{name}"), format!("'{tag}'"));
        let names = fields.iter().map(|(field, _)| *field);
        let parameters: Vec<&str> = std::iter::once("_").chain(names).collect();
        words.insert(format!("FIELDS_{name}"), parameters.join(", "));
        for (i, (field, _)) in fields.iter().enumerate() {
            words.insert(format!("FIELD_{name}_{field}"), (i + FIRST).to_string());
        }
    }
    for (name, fields) in structs() {
        words.insert(format!("FIELDS_{name}"), fields.join(", "));
        for (i, field) in fields.iter().enumerate() {
            words.insert(format!("FIELD_{name}_{field}"), (i + 1).to_string());
        }
    }
    for (i, kind) in COUNTED.into_iter().enumerate() {
        words.insert(format!("LIMIT_{}", kind.word()), (i + 1).to_string());
    }
    words.insert("OP_BOUNDS".into(), by_tag(|op| Some(list(most(op)))));
    let numbers = |op: &OpLayout| Some(list(bounded_by(op, "number")));
    words.insert("OP_NUMBERS".into(), by_tag(numbers));
    // At most one field of an op has each of these bounds.
    words.insert(
        "OP_SIGNED".into(),
        by_tag(|op| bounded_by(op, "signed").next()),
    );
    words.insert(
        "OP_TRIED".into(),
        by_tag(|op| bounded_by(op, "tried").next()),
    );
    words
}

/// A Lua table by tag.
fn by_tag(value: impl Fn(&OpLayout) -> Option<String>) -> String {
    list(
        OPS.iter()
            .filter_map(|op| Some(format!("{} = {}", op.tag, value(op)?))),
    )
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("{{ {} }}", items.collect::<Vec<_>>().join(", "))
}

/// The positions of the fields with this bound.
fn bounded_by(op: &OpLayout, bound: &str) -> impl Iterator<Item = String> {
    let fields = op.fields.iter().enumerate();
    fields
        .filter(move |(_, (_, known))| *known == bound)
        .map(|(i, _)| (i + FIRST).to_string())
}

/// The positions of the fields with a highest value, and that value.
fn most(op: &OpLayout) -> impl Iterator<Item = String> {
    op.fields.iter().enumerate().filter_map(|(i, (_, bound))| {
        let most = match *bound {
            "amount" => "MAX_AMOUNT",
            "duration" => "MAX_DURATION",
            "tenant" => "MAX_TENANT",
            "cost" => "MAX_COST",
            "latency" => "MAX_LATENCY",
            _ => return None,
        };
        Some(format!("[{}] = {most}", i + FIRST))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced_by_the_wire_layout() {
        let source = "if tag == TAG_join then f(FIELDS_sent) end g(op[FIELD_join_tenant], FIELD_grant_granted) x_TAG_join";
        assert_eq!(
            filled(source),
            "if tag == 'j' then f(_, granted, age) end g(op[7], 2) x_TAG_join"
        );
        assert_eq!(filled("OP_TRIED"), "{ j = 10, l = 9, p = 9, k = 9 }");
        assert_eq!(filled("OP_SIGNED"), "{ r = 8 }");
    }
}
