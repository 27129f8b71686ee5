//! Which endpoints a provider has, where that is known: a call to another would only fail there, and might cost the
//! deployment its health.

use reqwest::Url;

use crate::{
    Endpoint::{
        self, ChatCompletions, Completions, CountTokens, Embeddings, ImageEdits, ImageGenerations,
        Messages, Moderations, Rerank, Responses, Speech, Transcriptions, Translations,
    },
    provider::table::Provider,
};

/// To the best of our knowledge of November 2026: not checked against each provider's documentation. A provider that is not
/// here, or an `api_base` of another host, is asked.
const KNOWN: &[(&[&str], &[Endpoint])] = &[
    (&["anthropic"], &[ChatCompletions, Messages, CountTokens]),
    (&["perplexity", "moonshot"], &[ChatCompletions]),
    (&["cerebras", "deepseek"], &[ChatCompletions, Completions]),
    (&["codestral"], &[ChatCompletions]),
    (
        &["groq"],
        &[
            ChatCompletions,
            Responses,
            Speech,
            Transcriptions,
            Translations,
        ],
    ),
    (
        &["mistral"],
        &[ChatCompletions, Embeddings, Moderations, Transcriptions],
    ),
    (&["cohere", "cohere_chat"], &[ChatCompletions, Embeddings]),
    (
        &["gemini"],
        &[ChatCompletions, Embeddings, ImageGenerations],
    ),
    (
        &["ollama", "ollama_chat"],
        &[
            ChatCompletions,
            Completions,
            Responses,
            Embeddings,
            ImageGenerations,
        ],
    ),
    (
        &["vertex_ai", "vertex_ai_beta", "bedrock", "bedrock_converse"],
        &[ChatCompletions, Messages],
    ),
    (&["voyage", "jina_ai"], &[Embeddings, Rerank]),
];

/// OpenAI's own. Others' servers, which files call by the same prefix, may have more.
const OPENAI: &[Endpoint] = &[
    ChatCompletions,
    Completions,
    Responses,
    Embeddings,
    Moderations,
    ImageGenerations,
    ImageEdits,
    Speech,
    Transcriptions,
    Translations,
];

/// Azure's where the deployment stands in the path; its `/openai/v1` has more.
const AZURE_DEPLOYMENTS: &[Endpoint] = &[
    ChatCompletions,
    Completions,
    Embeddings,
    ImageGenerations,
    ImageEdits,
    Speech,
    Transcriptions,
    Translations,
];

/// The endpoints that a deployment's server has; `None`: it may have any.
pub(crate) fn of(provider: &Provider, api_base: &str) -> Option<&'static [Endpoint]> {
    let known = KNOWN
        .iter()
        .find(|(names, _)| names.contains(&provider.name));
    if let Some((_, endpoints)) = known {
        return Some(endpoints);
    }
    if provider.name.starts_with("azure") {
        let in_path = api_base.contains("/openai/deployments/");
        return in_path.then_some(AZURE_DEPLOYMENTS);
    }
    let url = Url::parse(api_base).ok()?;
    (url.host_str() == Some("api.openai.com")).then_some(OPENAI)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::table;

    #[test]
    fn known_providers_are_those_of_the_table() {
        let names = KNOWN.iter().flat_map(|(names, _)| *names);
        for name in names {
            assert!(table::named(name).is_some(), "{name}");
        }
    }

    #[test]
    fn only_known_endpoint_lists_exclude_endpoints() {
        let has = |name: &str, base: &str, endpoint| {
            let endpoints = of(table::named(name).unwrap(), base);
            endpoints.is_none_or(|known| known.contains(&endpoint))
        };
        assert!(!has("openai", "https://api.openai.com/v1", Rerank));
        assert!(has("openai", "http://localhost:8000/v1", Rerank));
        assert!(!has("groq", "https://api.groq.com/openai/v1", Embeddings));
        let azure = "https://a.openai.azure.com/openai";
        assert!(!has("azure", &format!("{azure}/deployments/d"), Responses));
        assert!(has("azure", &format!("{azure}/v1"), Responses));
        assert!(has("together_ai", "https://api.together.ai/v1", Rerank));
    }
}
