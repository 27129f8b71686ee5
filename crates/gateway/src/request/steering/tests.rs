//! Fields are read, taken out or refused.

use super::{
    fields::{BEGINNINGS, Handling::Dropped},
    *,
};

fn take(body: &str) -> Result<(Option<Steering>, String), Problem> {
    let object: serde_json::Map<String, Value> = serde_json::from_str(body).unwrap();
    let fields = object.into_iter();
    let mut fields: Vec<(ByteString, ByteString)> = fields
        .map(|(name, value)| (name.into(), value.to_string().into()))
        .collect();
    let steering = Steering::take(&mut fields)?;
    let left: Vec<&str> = fields.iter().map(|(name, _)| &**name).collect();
    Ok((steering.map(|found| *found), left.join(" ")))
}

#[test]
fn each_field_of_the_table_is_named_once_and_does_not_pass() {
    for (index, (name, _, why)) in FIELDS.iter().enumerate() {
        let earlier = FIELDS[..index].iter();
        assert!(earlier.clone().all(|(known, ..)| known != name), "{name}");
        assert!(!why.is_empty() && !passes(name), "{name}");
    }
    for name in [
        "model", "messages", "metadata", "user", "store", "extra", "ttl2",
    ] {
        assert!(passes(name), "{name}");
    }
}

#[test]
fn documentation_has_the_same_table() {
    let page = include_str!("../../../../../docs/litellm-compatibility.md");
    let (_, table) = page.split_once("## Fields of requests").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let rows = |handling| match handling {
        Obeyed => "| obeyed |",
        Dropped => "| dropped |",
        Refused => "| 400 |",
    };
    let beginnings: Vec<_> = BEGINNINGS
        .iter()
        .map(|(name, handling, _)| (format!("`{name}...`"), *handling))
        .collect();
    let names = FIELDS
        .iter()
        .map(|(name, handling, _)| (format!("`{name}`"), *handling));
    for (name, handling) in names.chain(beginnings) {
        let mut lines = table.lines().filter(|line| line.starts_with("| "));
        let line = lines.find(|line| line.contains(&name));
        let line = line.unwrap_or_else(|| panic!("{name} is not in the table"));
        assert!(line.contains(rows(handling)), "{name}: {line}");
    }
    let listed = table.lines().filter(|line| line.starts_with("| `"));
    let listed = listed.map(|line| line.split('|').nth(1).unwrap().matches('`').count() / 2);
    assert_eq!(
        listed.sum::<usize>(),
        FIELDS.len() + BEGINNINGS.len(),
        "the page has more"
    );
}

#[test]
fn obeyed_fields_are_read_and_taken_out() {
    let body = r#"{"model":"m","num_retries":3,"stream_timeout":"2.5","disable_fallbacks":"True",
        "fallbacks":["b",{"model":"c","n":2}],"max_fallbacks":1,"mock_testing_fallbacks":true,"priority":4,"x":1}"#;
    let (steering, left) = take(body).unwrap();
    let steering = steering.unwrap();
    assert_eq!(left, "model priority x");
    assert_eq!(
        (steering.num_retries, steering.max_fallbacks),
        (Some(3), Some(1))
    );
    assert_eq!(steering.stream_timeout, Some(Duration::from_millis(2500)));
    assert!(steering.disable_fallbacks);
    assert_eq!(steering.mock, Some(Mock::Failure));
    let targets: Vec<_> = steering.targets().collect();
    assert_eq!(targets[1].1.fields, [("n".into(), "2".into())]);
    assert_eq!(targets.len(), 2);
}

#[test]
fn requests_without_such_fields_have_no_steering() {
    let (steering, left) = take(r#"{"model":"m","timeout":3,"metadata":{"tags":"a"}}"#).unwrap();
    assert_eq!((steering, left.as_str()), (None, "model timeout metadata"));
}

#[test]
fn max_retries_counts_where_num_retries_is_absent() {
    for (body, retries) in [
        (r#"{"max_retries":5}"#, 5),
        (r#"{"max_retries":5,"num_retries":0}"#, 0),
        (r#"{"num_retries":null,"max_retries":1}"#, 1),
    ] {
        let (steering, _) = take(body).unwrap();
        assert_eq!(steering.unwrap().num_retries, Some(retries), "{body}");
    }
}

#[test]
fn malformed_and_refused_fields_get_400_that_names_them() {
    for (body, name) in [
        (r#"{"num_retries":-1}"#, "num_retries"),
        (r#"{"num_retries":1.5}"#, "num_retries"),
        (r#"{"max_fallbacks":[]}"#, "max_fallbacks"),
        (r#"{"stream_timeout":0}"#, "stream_timeout"),
        (r#"{"request_timeout":"soon"}"#, "request_timeout"),
        (r#"{"disable_fallbacks":1}"#, "disable_fallbacks"),
        (r#"{"fallbacks":7}"#, "fallbacks"),
        (
            r#"{"fallbacks":[{"model":"b","api_key":"sk-x"}]}"#,
            "fallbacks",
        ),
        (
            r#"{"content_policy_fallbacks":[{"m":[1]}]}"#,
            "content_policy_fallbacks",
        ),
        (r#"{"api_key":"sk-x"}"#, "api_key"),
        (r#"{"guardrails":["pii"]}"#, "guardrails"),
    ] {
        let problem = take(body).unwrap_err();
        assert_eq!(
            (problem.status().as_u16(), problem.param()),
            (400, Some(name)),
            "{body}"
        );
        let message = problem.to_string();
        assert!(
            message.contains(name) && !message.contains("sk-x"),
            "{message}"
        );
    }
    assert!(take(r#"{"aws_secret_access_key":"x"}"#).is_err());
    assert!(take(r#"{"guardrails":[],"api_base":null,"api_key":""}"#).is_ok());
}
