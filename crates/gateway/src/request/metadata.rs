//! `metadata` of a request. As in LiteLLM it is for logs on most endpoints, and does not reach the upstream.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::Endpoint;

/// OpenAI takes no more.
const MOST_ENTRIES: usize = 16;

/// What the upstream gets of it. `wanted`: chats carry it, too (`litellm_settings.enable_preview_features`).
pub(crate) fn sent(endpoint: Endpoint, json: &str, wanted: bool) -> Option<Cow<'_, str>> {
    match endpoint {
        Endpoint::Responses => Some(texts(json)),
        Endpoint::ChatCompletions if wanted => Some(texts(json)),
        Endpoint::Messages | Endpoint::CountTokens => Some(user_id(json)),
        _ => None,
    }
}

/// OpenAI takes texts only. What else is in it is for LiteLLM.
fn texts(json: &str) -> Cow<'_, str> {
    let taken = |(name, value): &(&String, &Value)| *name != "hidden_params" && value.is_string();
    kept(json, |entries| {
        let taken = entries.iter().filter(taken).take(MOST_ENTRIES);
        taken
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    })
}

/// All that Anthropic has in it; it refuses others.
fn user_id(json: &str) -> Cow<'_, str> {
    kept(json, |entries| {
        let id = entries.get_key_value("user_id").into_iter();
        id.map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    })
}

/// An object with some of its entries; as it was if that is all of them, or if it is none.
fn kept(json: &str, keep: impl Fn(&Map<String, Value>) -> Map<String, Value>) -> Cow<'_, str> {
    let Ok(Value::Object(entries)) = serde_json::from_str(json) else {
        return json.into();
    };
    let kept = keep(&entries);
    if kept.len() == entries.len() {
        return json.into();
    }
    Value::Object(kept).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_sent_for_responses_and_messages_only() {
        let json = r#"{"user_id": "u"}"#;
        for endpoint in [Endpoint::Responses, Endpoint::Messages] {
            assert_eq!(sent(endpoint, json, false).as_deref(), Some(json));
        }
        for endpoint in [
            Endpoint::ChatCompletions,
            Endpoint::Completions,
            Endpoint::Embeddings,
            Endpoint::ImageGenerations,
            Endpoint::Rerank,
        ] {
            assert_eq!(sent(endpoint, json, false), None, "{endpoint:?}");
        }
        let wanted = sent(Endpoint::ChatCompletions, json, true);
        assert_eq!(wanted.as_deref(), Some(json));
        assert_eq!(sent(Endpoint::Embeddings, json, true), None);
    }

    #[test]
    fn only_entries_that_the_provider_takes_are_sent() {
        let json = r#"{"user_id":"u","tags":["x"],"hidden_params":"h","a":"b"}"#;
        assert_eq!(texts(json), r#"{"user_id":"u","a":"b"}"#);
        assert_eq!(user_id(json), r#"{"user_id":"u"}"#);
        assert_eq!((texts("null"), user_id("7")), ("null".into(), "7".into()));
        let names: Vec<String> = (0..20).map(|n| format!(r#""{n}":"x""#)).collect();
        let many: Map<String, Value> =
            serde_json::from_str(&texts(&format!("{{{}}}", names.join(",")))).unwrap();
        assert_eq!(many.len(), MOST_ENTRIES);
    }
}
