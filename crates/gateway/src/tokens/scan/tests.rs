use proptest::prelude::*;

use super::*;
use crate::{request::fields::quoted, tokens::scan_reference::Scanner as Reference};

fn written(json: &str, cut: usize) -> (u64, Vec<String>) {
    let mut scanner = Scanner::answer();
    let mut usages = Vec::new();
    for chunk in json.as_bytes().chunks(cut) {
        scanner.feed(chunk, |usage| {
            usages.push(String::from_utf8(usage.to_vec()).unwrap());
        });
    }
    (scanner.text_bytes(), usages)
}

#[test]
fn scanner_counts_text_by_its_key_at_any_chunk_boundary() {
    for (json, bytes) in [
        (
            r#"{"choices":[{"message":{"role":"assistant","content":"12345"}}]}"#,
            5,
        ),
        (
            r#"{"choices":[{"text":"123"},{"text":"45","finish_reason":"stop"}]}"#,
            5,
        ),
        (
            r#"{"choices":[{"delta":{"content":[{"type":"text","text":"123"}],"refusal":"45"}}]}"#,
            5,
        ),
        (
            r#"{"choices":[{"delta":{"reasoning":"123","reasoning_content":"123","content":"4"}}]}"#,
            4,
        ),
        (
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"12","arguments":"{\"a\":1}"}}]}}]}"#,
            9,
        ),
        (
            r#"{"choices":[{"message":{"function_call":{"arguments":{"a": [1, "x"]}}}}]}"#,
            13,
        ),
        (
            r#"{"choices":[{"message":{"content":null,"audio":{"data":"AAAAAAAA","transcript":"123"}}}]}"#,
            3,
        ),
        (
            r#"{"choices":[{"message":{"content":"\u00e9\"\n\ud83d\ude00"},"logprobs":{"content":[{"token":"x"}]}}]}"#,
            8,
        ),
        (
            r#"{"content":"no","id":"no","choices":{"delta":{"content":"no"}},"error":{"message":"no"}}"#,
            0,
        ),
    ] {
        assert!(
            serde_json::from_str::<serde_json::Value>(json).is_ok(),
            "{json}"
        );
        for cut in [1, 2, 3, 7, 1000] {
            assert_eq!(written(json, cut), (bytes, vec![]), "{json} by {cut}");
        }
    }
}

#[test]
fn usage_is_found_at_top_level_in_choices_and_in_wrappers() {
    let json = r#"{"a":{"usage":1},"usage" : {"x":"},","y":[{}]} ,"usage":null,"choices":[{"usage":{"z":1},"delta":{"usage":2}}],"x_groq":{"id":"usage","usage":{}},"\u0075sage":7,"usage":"s"}"#;
    for cut in [1, 3, 1000] {
        let (_, usages) = written(json, cut);
        let expected = [
            r#" {"x":"},","y":[{}]} "#,
            "null",
            r#"{"z":1}"#,
            "{}",
            "7",
            r#""s""#,
        ];
        assert_eq!(usages, expected, "by {cut}");
    }
}

#[test]
fn request_counts_text_and_tool_calls_but_no_image_data() {
    let image = "A".repeat(4000);
    let messages = format!(
        r#"[{{"role":"user","name":"me","content":[{{"type":"text","text":"12345678"}},{{"type":"image_url","image_url":{{"url":"{image}"}}}},{{"type":"input_audio","input_audio":{{"data":"{image}"}}}}]}},{{"role":"assistant","content":null,"reasoning_content":"1234","tool_calls":[{{"id":"x","function":{{"name":"f","arguments":"{{}}"}}}}]}},"12"]"#
    );
    assert_eq!(of_messages(&messages), 2 + 8 + 4 + 1 + 2 + 2);
    assert_eq!(
        of_raw(r#"[ { "a" : "b c\"" , "d" : [ 1.5 , true, null ] } ]"#),
        34
    );
    assert_eq!(of_raw(r#"{"a":{}}"#), 8);
}

#[test]
fn scanner_memory_is_bounded_for_deep_and_long_input() {
    let deep = format!(
        "{}\"usage\":1{}",
        "[{\"a\":".repeat(100_000),
        "}]".repeat(100_000)
    );
    let mut scanner = Scanner::answer();
    scanner.feed(deep.as_bytes(), |_| {});
    assert!(scanner.open.capacity() <= 2 * DEEPEST);

    let mut scanner = Scanner::answer();
    scanner.feed(b"{\"usage\":[\"", |_| {});
    for _ in 0..100 {
        scanner.feed(&[b'1'; 1000], |_| panic!("no usage"));
    }
    assert!(scanner.usage.is_none());
    let mut scanner = Scanner::answer();
    scanner.feed(b"{\"", |_| {});
    scanner.feed(&[b'k'; 100_000], |_| {});
    assert!(scanner.key.capacity() < 100);
}

/// Texts of a model and what looks like them, with strings of all kinds.
fn json() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        4 => prop::sample::select(KEYS).prop_map(str::to_owned),
        2 => "[a-z \\\\\"\n\u{e9}\u{1f600},:{}]{0,12}",
    ];
    let text = string.clone().prop_map(|text| quoted(&text));
    let leaf = prop_oneof![
        4 => text,
        1 => Just(r#""\ud83d\ude00 \u00e9\/\n""#.to_owned()),
        2 => any::<i32>().prop_map(|number| number.to_string()),
        1 => prop::sample::select(vec!["null", "true", " 1.5e3 "]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(6, 80, 6, move |inner| {
        let space = prop::sample::select(vec!["", " ", "\n\t"]);
        let field = (string.clone(), space, inner.clone());
        let field = field
            .prop_map(|(key, space, value)| format!("{}{space}:{space}{value}", quoted(&key)));
        prop_oneof![
            3 => prop::collection::vec(field, 0..6).prop_map(|all| format!("{{{}}}", all.join(","))),
            2 => prop::collection::vec(inner, 0..4).prop_map(|all| format!("[{}]", all.join(", "))),
        ]
    })
}

const KEYS: &[&str] = &[
    "choices",
    "message",
    "delta",
    "content",
    "text",
    "usage",
    "arguments",
    "input",
    "reasoning",
    "reasoning_content",
    "tool_calls",
    "function",
    "output",
    "response",
    "x_groq",
    "name",
    "other",
];

/// Where a text is cut.
fn cut(bytes: &[u8], mut cuts: Vec<usize>) -> Vec<&[u8]> {
    cuts.iter_mut().for_each(|cut| *cut %= bytes.len() + 1);
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2)
        .map(|ends| &bytes[ends[0]..ends[1]])
        .collect()
}

/// What both scanners read in pieces of some texts after each other.
fn compared(role: Role, texts: &[Vec<&[u8]>]) -> Result<(), TestCaseError> {
    let (mut scanner, mut reference) = (Scanner::new(role), Reference::new(role));
    for pieces in texts {
        for piece in pieces {
            let (mut usages, mut expected) = (Vec::new(), Vec::new());
            scanner.feed(piece, |usage| usages.push(usage.to_vec()));
            reference.feed(piece, |usage| expected.push(usage.to_vec()));
            prop_assert_eq!(usages, expected);
            prop_assert_eq!(scanner.text_bytes(), reference.text_bytes());
        }
        scanner.restart();
        reference.restart();
    }
    Ok(())
}

proptest::proptest! {
    #[test]
    fn scanner_reads_what_the_reference_reads(
        texts in prop::collection::vec((json(), prop::collection::vec(any::<usize>(), 0..9)), 1..4),
        answer: bool,
    ) {
        let answer = |text: &String| if answer {
            format!(r#"{{"choices":[{{"message":{text},"usage":{text}}}],"content":{text},"usage":{text}}}"#)
        } else {
            text.clone()
        };
        let texts: Vec<(String, Vec<usize>)> =
            texts.iter().map(|(text, cuts)| (answer(text), cuts.clone())).collect();
        let pieces: Vec<Vec<&[u8]>> =
            texts.iter().map(|(text, cuts)| cut(text.as_bytes(), cuts.clone())).collect();
        for role in [Role::Answer, Role::Text(Of::All), Role::Raw] {
            compared(role, &pieces)?;
        }
    }

    #[test]
    fn scanner_accepts_any_bytes(bytes: Vec<u8>) {
        Scanner::answer().feed(&bytes, |_| {});
    }

    #[test]
    fn scanner_accepts_brackets_in_any_order(text in "[\\[\\]{}:,\"\\\\u1 a]{0,200}") {
        Scanner::answer().feed(text.as_bytes(), |_| {});
        of_raw(&text);
    }

    #[test]
    fn raw_json_is_counted_without_whitespace_and_escapes(text in "[a-z\u{e9}\u{4e2d}\" ]{0,20}", number: u32, flag: bool) {
        let value = serde_json::json!({&text: [number, flag, null, {"a": {}, "b": []}], "c": "d"});
        let compact = value.to_string();
        let escapes = compact.matches('\\').count() as u64;
        let spread = serde_json::to_string_pretty(&value).unwrap();
        proptest::prop_assert_eq!(of_raw(&spread), compact.len() as u64 - escapes);
    }
}
