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
//! | `OP_BOUNDS` | a table by tag: functions that cut the fields of an op to their bounds |

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
    words.insert("OP_BOUNDS".into(), bounds());
    words
}

/// A Lua table of functions by tag, each of which cuts the fields of an op to their bounds. They are written out, because a loop over the bounds would cost a step more
/// than the cuts.
pub(super) fn bounds() -> String {
    let functions = OPS.iter().map(|op| {
        let cuts: Vec<String> = op
            .fields
            .iter()
            .enumerate()
            .filter_map(|(i, (_, bound))| cut(i + FIRST, bound))
            .collect();
        match cuts.as_slice() {
            [] => format!("{} = function() end", op.tag),
            _ => format!("{} = function(one) {} end", op.tag, cuts.join(" ")),
        }
    });
    format!("{{ {} }}", functions.collect::<Vec<_>>().join(", "))
}

/// Cuts the field at a position, as the function of this name in `bounds.rs` does.
fn cut(at: usize, bound: &str) -> Option<String> {
    let most = match bound {
        "amount" => "MAX_AMOUNT",
        "duration" => "MAX_DURATION",
        "tenant" => "MAX_TENANT",
        "cost" => "MAX_COST",
        "latency" => "MAX_LATENCY",
        "number" => {
            return Some(format!(
                "if one[{at}] < 0 or one[{at}] > MAX_NUMBER then one[{at}] = 0 end"
            ));
        }
        "signed" => return Some(format!("one[{at}] = min(one[{at}], MAX_DURATION)")),
        "tried" => {
            return Some(format!(
                "if one[{at}] < 0 or one[{at}] >= 2 ^ MOST_TRIED then one[{at}] = 0 end"
            ));
        }
        _ => return None,
    };
    Some(format!(
        "if one[{at}] < 0 or one[{at}] > {most} then one[{at}] = {most} end"
    ))
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
        let cut =
            "u = function(one) if one[2] < 0 or one[2] > 9007199254740991 then one[2] = 0 end end";
        assert!(filled("OP_BOUNDS").contains(cut));
    }
}
