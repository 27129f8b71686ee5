//! What the fuzz targets call, and the tests with inputs near valid ones: whatever the bytes are, nothing panics, and what
//! is accepted makes sense. Each says whether it accepted them.
#![allow(
    clippy::expect_used,
    reason = "an input that breaks a property has failed"
)]

use std::collections::HashMap;

use bytes::Bytes;

use crate::{
    Config, Endpoint,
    request::{Layout, edits::Edits},
    tokens::{
        amount::MOST_TOKENS,
        reader::UsageReader,
        usage::{Expected, Meter, Usage},
    },
};

/// A client's body: what goes to the upstream is the same request.
pub fn request(body: &[u8]) -> bool {
    let read = |endpoint| {
        let Ok(layout) = Layout::read(endpoint, Bytes::copy_from_slice(body), None) else {
            return false;
        };
        let request = layout.request();
        let sent = request.rewritten("upstream", &Edits::default());
        let again = Layout::read(endpoint, sent, None).expect("the upstream's body is a request");
        let again = again.request();
        assert_eq!(again.model, "upstream");
        assert_eq!(
            (again.stream, again.input()),
            (request.stream, request.input())
        );
        assert!(again.fields.get("priority").is_none() && again.fields.get("timeout").is_none());
        true
    };
    // Each of them: none may be left out because another accepts the body.
    let json = Endpoint::all().filter(|endpoint| !endpoint.is_form());
    json.filter(|&endpoint| read(endpoint)).count() > 0
}

/// An upstream's answer, after one byte that says how it comes: the usage is the same however the bytes are cut, and bounded.
pub fn usage(bytes: &[u8]) -> bool {
    let Some((&how, bytes)) = bytes.split_first() else {
        return false;
    };
    let whole = metered(how, bytes, bytes.len().max(1));
    let (cut, estimated) = metered(how, bytes, usize::from(how / 2 % 16) + 1);
    assert_eq!(whole, (cut, estimated));
    for usage in [cut, estimated].into_iter().flatten() {
        assert!(usage.input <= MOST_TOKENS && usage.output <= MOST_TOKENS);
    }
    cut.is_some()
}

fn metered(how: u8, bytes: &[u8], cut: usize) -> (Option<Usage>, Option<Usage>) {
    let reader = if how.is_multiple_of(2) {
        UsageReader::json()
    } else {
        UsageReader::events()
    };
    let expected = Expected {
        input: 30,
        cached_weight: 0.5,
    };
    let mut meter = Meter::new(reader, None, expected);
    let chunks = bytes.chunks(cut);
    let usage = chunks.fold(None, |usage, chunk| meter.feed(chunk).or(usage));
    (usage, meter.estimate(true))
}

/// A configuration file: one that is accepted can be explained, and makes groups.
pub fn config(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    let env = HashMap::from([("KEY".to_owned(), "secret".to_owned())]);
    let Ok(loaded) = Config::parse(text, "config.yaml", &env) else {
        return false;
    };
    assert!(!loaded.config.plan().is_empty());
    for group in &loaded.config.groups {
        loaded.config.group_config(group);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::near::check_near;

    #[test]
    fn any_request_body_is_refused_or_forwarded_unchanged() {
        let chat = br#"{"model":"m","messages":[{"role":"user","content":"a\u00e9\"b"}],"stream":true,"priority":-3,"timeout":1.5,"tools":[{"a":{}}]}"#;
        let completion = br#"{"prompt":["a","b"],"model":"m","stream":false,"n":2}"#;
        check_near("request", &[chat, completion], 20_000, request);
    }

    #[test]
    fn usage_of_any_answer_ignores_chunk_boundaries() {
        let json = br#" {"choices":[{"message":{"content":"hi","reasoning":"h\"m"}}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":2}}}"#;
        let events = b"!data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n: keep\r\nevent: x\r\ndata: {\"usage\":{\"input_tokens\":3,\r\ndata: \"output_tokens\":99999999999}}\n\ndata: [DONE]\n\n";
        check_near("usage", &[json, events], 20_000, usage);
    }

    #[test]
    fn any_configuration_is_refused_or_explained() {
        let file = br#"model_list:
  - model_name: gpt
    litellm_params: {model: openai/gpt-4o, api_key: os.environ/KEY, api_base: "http://127.0.0.1:1/v1", rpm: 60, tpm: 1e4, itpm: 100, timeout: 5}
    model_info: {id: one}
  - {model_name: gpt, litellm_params: {model: openai/m, mock_response: hi, max_parallel_requests: 3, weight: 2}}
router_settings: {routing_strategy: simple-shuffle, num_retries: 2, allowed_fails: 3, cooldown_time: 5, model_group_alias: {a: gpt}}
general_settings: {master_key: os.environ/KEY}
"#;
        let settings = br#"model_list: [{model_name: m, litellm_params: {model: openai/m, mock_response: hi, rpm: 3}}]
vorrang_settings:
  window_seconds: 60
  groups: {m: {reserve: {priority: 0, share: 0.1}, aging_seconds: 0.5, fair_by: "header:x", fair_cost: tokens}}
  keys: [{name: batch, key: k, default_priority: 1000, best_priority: 500, models: [m], weight: 0.5}]
"#;
        check_near("config", &[file, settings], 5_000, config);
    }
}
