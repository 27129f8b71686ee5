//! Providers that LiteLLM 1.108.7 knows and that are not in the table of those that are called here.

use crate::provider::table;

#[rustfmt::skip]
const OTHERS: &[&str] = &[
    "a2a", "a2a_agent", "abliteration", "aihubmix", "aiohttp_openai", "amazon_nova", "anyscale", "apertis", "auto_router",
    "aws_polly", "aws_textract", "azure_speech", "bedrock_mantle", "bespoke", "bytez", "charity_engine", "clarifai",
    "cognition", "compactifai", "coralbricks", "cortecs", "crusoe", "cursor", "custom", "darkbloom", "databricks_agent",
    "datarobot", "dotprompt", "edenai", "empiriolabs", "empower", "galadriel", "gdc", "gmi", "gradient_ai", "heroku",
    "humanloop", "inferenceapis", "langflow", "langfuse", "laya", "libertai", "litellm_agent", "llamagate", "manus",
    "maritalk", "meta", "microsoft_365_copilot", "milvus", "mongodb", "nadir", "neosantara", "nvidia_riva", "oobabooga",
    "parasail", "pg_vector", "pinstripes", "prism", "qwen_ai_platform", "qwencloud", "reducto", "reka", "s3_vectors",
    "sagemaker_nova", "sail", "sap", "sarvam", "scaledown", "scx-ai", "soniox", "strands_decider", "tensormesh",
    "text-completion-codestral", "text-completion-inception", "topaz", "transcribe", "typesafe", "valkey", "veniceai",
];

/// Whether LiteLLM would call a deployment of this provider.
pub(super) fn known_to_litellm(name: &str) -> bool {
    OTHERS.contains(&name) || table::named(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_that_are_called_here_are_not_listed_again() {
        for name in OTHERS {
            assert!(table::named(name).is_none(), "{name}");
        }
    }
}
