//! Providers that LiteLLM 1.108.7 knows and that are not in the table of those that are called here.

use crate::provider::table;

#[rustfmt::skip]
const OTHERS: &[&str] = &[
    "a2a", "a2a_agent", "aiohttp_openai", "amazon_nova", "anyscale", "auto_router", "aws_polly", "aws_textract",
    "azure_speech", "bedrock_mantle", "bespoke", "bytez", "clarifai", "compactifai", "cursor", "custom",
    "databricks_agent", "datarobot", "dotprompt", "edenai", "empower", "galadriel", "gdc", "gradient_ai", "heroku",
    "humanloop", "langflow", "langfuse", "laya", "litellm_agent", "manus", "maritalk", "microsoft_365_copilot",
    "milvus", "mongodb", "nadir", "nvidia_riva", "oobabooga", "pg_vector", "qwen_ai_platform", "qwencloud", "reducto",
    "s3_vectors", "sagemaker_nova", "sap", "scaledown", "soniox", "strands_decider", "text-completion-codestral",
    "text-completion-inception", "topaz", "transcribe", "typesafe", "valkey",
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
