//! LiteLLM's providers: what stands before the slash of `litellm_params.model`, and what follows from it.
//!
//! `docs/providers.md` shows the same table; a test holds both together.

use super::gemini_models;

/// One provider.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Provider {
    /// The prefix.
    pub(crate) name: &'static str,
    /// Where its API is, unless the file or the environment says otherwise; empty: one of them has to. `{NAME}` is a variable of the
    /// environment.
    pub(crate) base: &'static str,
    /// Environment variables with its key, and with its URL: the first that is set counts.
    pub(crate) key_variables: &'static [&'static str],
    pub(crate) base_variables: &'static [&'static str],
    pub(crate) format: Format,
    /// Fields of a request that it answers with an error: `drop_params` takes them out.
    pub(crate) refuses: &'static [&'static str],
    /// Fields that it knows by another name.
    pub(crate) renames: &'static [(&'static str, &'static str)],
    /// Fields that LiteLLM sends in the provider's own format, and that do nothing at the endpoint that is called here.
    pub(crate) ignores: &'static [&'static str],
    /// All fields of a chat that it knows, where any other is an error: others are left out of chats. `None`: it ignores others.
    pub(crate) takes: Option<&'static [&'static str]>,
}

/// How a provider's API is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// OpenAI's: the URL, the endpoint's path, the key as a bearer token.
    OpenAi,
    /// OpenAI's under `/v1`, which an address may lack.
    InV1,
    /// OpenAI's under `/v1` of a server whose own API is at its root: Ollama.
    UnderV1,
    /// Anthropic's own.
    Anthropic,
    /// OpenAI's at the provider's own address. Elsewhere servers of this kind speak Gemini's.
    Gemini,
    /// The deployment in the path, the API's version in the query, the key in `api-key`.
    Azure,
    /// Azure's Foundry: its model inference, or OpenAI's format at the server of one model.
    AzureAi,
    /// Gemini in OpenAI's format, Claude in Anthropic's, embeddings by `predict`, with Google's tokens instead of a key.
    Vertex,
    /// Claude in Anthropic's format, OpenAI's models in theirs, others by Converse, with AWS's keys or tokens.
    Bedrock,
    /// A format of its own that is not spoken here.
    Foreign,
}

/// A provider that speaks OpenAI's format.
const fn at(
    name: &'static str,
    base: &'static str,
    key_variables: &'static [&'static str],
    base_variables: &'static [&'static str],
) -> Provider {
    Provider {
        name,
        base,
        key_variables,
        base_variables,
        format: Format::OpenAi,
        refuses: &[],
        renames: &[],
        ignores: &[],
        takes: None,
    }
}

/// Servers of one's own: the file or the environment says where they are.
const fn own(
    name: &'static str,
    key_variables: &'static [&'static str],
    base_variables: &'static [&'static str],
) -> Provider {
    at(name, "", key_variables, base_variables)
}

const fn foreign(name: &'static str) -> Provider {
    own(name, &[], &[]).speaking(Format::Foreign)
}

impl Provider {
    const fn speaking(self, format: Format) -> Self {
        Self { format, ..self }
    }

    const fn refusing(self, refuses: &'static [&'static str]) -> Self {
        Self { refuses, ..self }
    }

    const fn renaming(self, renames: &'static [(&'static str, &'static str)]) -> Self {
        Self { renames, ..self }
    }

    const fn ignoring(self, ignores: &'static [&'static str]) -> Self {
        Self { ignores, ..self }
    }

    const fn taking(self, takes: &'static [&'static str]) -> Self {
        let takes = Some(takes);
        Self { takes, ..self }
    }
}

/// A server that speaks OpenAI's format, and of which nothing else is known.
pub(crate) static COMPATIBLE: Provider = own("", &[], &[]);

/// An older name that providers know.
const MAX_TOKENS: &[(&str, &str)] = &[("max_completion_tokens", "max_tokens")];

/// `thinking` is Anthropic's. OpenAI's models that reason refuse more: `openai_models`.
const OPENAI_REFUSES: &[&str] = &["thinking"];

// What LiteLLM leaves out of chats to these with `drop_params`, whatever the model. `stream_options` is kept where the provider has it:
// LiteLLM counts the usage itself.
#[rustfmt::skip]
const PERPLEXITY_REFUSES: &[&str] = &[
    "audio", "function_call", "functions", "logit_bias", "logprobs", "modalities", "n", "parallel_tool_calls", "prediction",
    "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "seed", "service_tier", "stop", "store", "thinking", "tool_choice",
    "tools", "top_logprobs", "user", "verbosity",
];

#[rustfmt::skip]
const NVIDIA_REFUSES: &[&str] = &[
    "audio", "function_call", "functions", "logit_bias", "logprobs", "modalities", "n", "prediction", "prompt_cache_key",
    "prompt_cache_retention", "reasoning_effort", "safety_identifier", "service_tier", "store", "thinking", "top_logprobs", "user",
    "verbosity", "web_search_options",
];

#[rustfmt::skip]
const CEREBRAS_REFUSES: &[&str] = &[
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "modalities", "n", "parallel_tool_calls",
    "prediction", "presence_penalty", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier", "store", "thinking",
    "top_logprobs", "verbosity", "web_search_options",
];

#[rustfmt::skip]
const MISTRAL_REFUSES: &[&str] = &[
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "modalities", "n", "prediction",
    "presence_penalty", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier", "store", "stream_options",
    "thinking", "top_logprobs", "user", "verbosity", "web_search_options",
];

#[rustfmt::skip]
const XAI_REFUSES: &[&str] = &[
    "audio", "function_call", "functions", "modalities", "prediction", "prompt_cache_key", "prompt_cache_retention", "safety_identifier",
    "service_tier", "store", "thinking", "verbosity",
];

const OLLAMA_RENAMES: &[(&str, &str)] = &[
    ("max_completion_tokens", "max_tokens"),
    ("num_predict", "max_tokens"),
];

#[rustfmt::skip]
const OLLAMA_IGNORES: &[&str] = &[
    "keep_alive", "low_vram", "main_gpu", "min_p", "mirostat", "mirostat_eta", "mirostat_tau", "num_batch", "num_ctx", "num_gpu", "num_keep",
    "num_thread", "numa", "options", "penalize_newline", "repeat_last_n", "repeat_penalty", "template", "tfs_z", "top_k", "typical_p",
    "use_mlock", "use_mmap", "vocab_only",
];

#[rustfmt::skip]
pub(crate) static TABLE: &[Provider] = &[
    at("openai", "https://api.openai.com/v1", &["OPENAI_API_KEY"], &["OPENAI_BASE_URL", "OPENAI_API_BASE"]).refusing(OPENAI_REFUSES),
    at("text-completion-openai", "https://api.openai.com/v1", &["OPENAI_API_KEY"], &["OPENAI_BASE_URL", "OPENAI_API_BASE"]),
    own("azure", &["AZURE_OPENAI_API_KEY", "AZURE_API_KEY"], &["AZURE_API_BASE"]).speaking(Format::Azure).refusing(OPENAI_REFUSES),
    own("azure_text", &["AZURE_OPENAI_API_KEY", "AZURE_API_KEY"], &["AZURE_API_BASE"]).speaking(Format::Azure),
    own("azure_ai", &["AZURE_AI_API_KEY"], &["AZURE_AI_API_BASE"]).speaking(Format::AzureAi).refusing(OPENAI_REFUSES),
    at("anthropic", "https://api.anthropic.com/v1", &["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"], &["ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"]).speaking(Format::Anthropic),
    at("gemini", "https://generativelanguage.googleapis.com/v1beta/openai", &["GOOGLE_API_KEY", "GEMINI_API_KEY"], &["GEMINI_API_BASE"])
        .speaking(Format::Gemini).refusing(gemini_models::REFUSES).taking(gemini_models::TAKES),
    own("vertex_ai", &[], &[]).speaking(Format::Vertex),
    own("vertex_ai_beta", &[], &[]).speaking(Format::Vertex),
    own("bedrock", &["AWS_BEARER_TOKEN_BEDROCK"], &["AWS_BEDROCK_RUNTIME_ENDPOINT"]).speaking(Format::Bedrock),
    own("bedrock_converse", &["AWS_BEARER_TOKEN_BEDROCK"], &["AWS_BEDROCK_RUNTIME_ENDPOINT"]).speaking(Format::Bedrock),
    at("ollama", "http://localhost:11434", &["OLLAMA_API_KEY"], &["OLLAMA_API_BASE"])
        .speaking(Format::UnderV1).renaming(OLLAMA_RENAMES).ignoring(OLLAMA_IGNORES),
    at("ollama_chat", "http://localhost:11434", &["OLLAMA_API_KEY"], &["OLLAMA_API_BASE"])
        .speaking(Format::UnderV1).renaming(OLLAMA_RENAMES).ignoring(OLLAMA_IGNORES),

    at("openrouter", "https://openrouter.ai/api/v1", &["OPENROUTER_API_KEY", "OR_API_KEY"], &["OPENROUTER_API_BASE"]),
    at("groq", "https://api.groq.com/openai/v1", &["GROQ_API_KEY"], &["GROQ_API_BASE"])
        .refusing(&["logprobs", "logit_bias", "top_logprobs", "n", "thinking", "user", "verbosity", "web_search_options"]),
    at("mistral", "https://api.mistral.ai/v1", &["MISTRAL_API_KEY"], &["MISTRAL_API_BASE"]).speaking(Format::InV1)
        .refusing(MISTRAL_REFUSES)
        .renaming(&[("max_completion_tokens", "max_tokens"), ("seed", "random_seed")]),
    at("codestral", "https://codestral.mistral.ai/v1", &["CODESTRAL_API_KEY"], &["CODESTRAL_API_BASE"]).refusing(MISTRAL_REFUSES)
        .renaming(&[("max_completion_tokens", "max_tokens"), ("seed", "random_seed")]),
    at("cerebras", "https://api.cerebras.ai/v1", &["CEREBRAS_API_KEY"], &["CEREBRAS_API_BASE"]).refusing(CEREBRAS_REFUSES),
    at("deepseek", "https://api.deepseek.com/beta", &["DEEPSEEK_API_KEY"], &["DEEPSEEK_API_BASE"]).refusing(&["user", "verbosity"]),
    at("together_ai", "https://api.together.ai/v1", &["TOGETHER_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHERAI_API_KEY", "TOGETHER_AI_TOKEN"], &["TOGETHER_AI_API_BASE"]).refusing(&["thinking", "user", "verbosity"]),
    at("fireworks_ai", "https://api.fireworks.ai/inference/v1", &["FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY", "FIREWORKSAI_API_KEY", "FIREWORKS_AI_TOKEN"], &["FIREWORKS_API_BASE"]).refusing(&["thinking"]),
    at("xai", "https://api.x.ai/v1", &["XAI_API_KEY"], &["XAI_API_BASE"]).refusing(XAI_REFUSES),
    at("perplexity", "https://api.perplexity.ai", &["PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"], &["PERPLEXITY_API_BASE"]).refusing(PERPLEXITY_REFUSES),
    at("cohere", "https://api.cohere.ai/compatibility/v1", &["COHERE_API_KEY", "CO_API_KEY"], &["COHERE_API_BASE"]).refusing(&["thinking"]),
    at("cohere_chat", "https://api.cohere.ai/compatibility/v1", &["COHERE_API_KEY", "CO_API_KEY"], &["COHERE_API_BASE"]).refusing(&["thinking"]),
    at("nvidia_nim", "https://integrate.api.nvidia.com/v1", &["NVIDIA_NIM_API_KEY"], &["NVIDIA_NIM_API_BASE"]).refusing(NVIDIA_REFUSES).renaming(MAX_TOKENS),
    at("moonshot", "https://api.moonshot.ai/v1", &["MOONSHOT_API_KEY"], &["MOONSHOT_API_BASE"]),
    at("dashscope", "https://dashscope.aliyuncs.com/compatible-mode/v1", &["DASHSCOPE_API_KEY"], &["DASHSCOPE_API_BASE"]).refusing(&["thinking", "user", "verbosity"]),
    at("zai", "https://api.z.ai/api/paas/v4", &["ZAI_API_KEY"], &["ZAI_API_BASE"]),
    at("minimax", "https://api.minimax.io/v1", &["MINIMAX_API_KEY"], &["MINIMAX_API_BASE"]).speaking(Format::InV1),
    at("volcengine", "https://ark.cn-beijing.volces.com/api/v3", &["VOLCENGINE_API_KEY"], &["VOLCENGINE_API_BASE"]),
    at("tencent", "https://tokenhub-intl.tencentcloudmaas.com/v1", &["TENCENT_API_KEY"], &["TENCENT_API_BASE"]),
    at("xiaomi_mimo", "https://api.xiaomimimo.com/v1", &["XIAOMI_MIMO_API_KEY"], &[]).renaming(MAX_TOKENS),
    at("modelscope", "https://api-inference.modelscope.cn/v1", &["MODELSCOPE_API_KEY"], &["MODELSCOPE_API_BASE"]),
    at("github", "https://models.inference.ai.azure.com", &["GITHUB_API_KEY"], &["GITHUB_API_BASE"]),
    at("huggingface", "https://router.huggingface.co/v1", &["HF_TOKEN", "HUGGINGFACE_API_KEY"], &["HF_API_BASE"]).speaking(Format::InV1),
    at("deepinfra", "https://api.deepinfra.com/v1/openai", &["DEEPINFRA_API_KEY"], &["DEEPINFRA_API_BASE"]),
    at("sambanova", "https://api.sambanova.ai/v1", &["SAMBANOVA_API_KEY"], &["SAMBANOVA_API_BASE"]),
    at("nebius", "https://api.studio.nebius.ai/v1", &["NEBIUS_API_KEY"], &["NEBIUS_API_BASE"]),
    at("novita", "https://api.novita.ai/v3/openai", &["NOVITA_API_KEY"], &["NOVITA_API_BASE"]),
    at("nscale", "https://inference.api.nscale.com/v1", &["NSCALE_API_KEY"], &["NSCALE_API_BASE"]),
    at("hyperbolic", "https://api.hyperbolic.xyz/v1", &["HYPERBOLIC_API_KEY"], &["HYPERBOLIC_API_BASE"]),
    at("lambda_ai", "https://api.lambda.ai/v1", &["LAMBDA_API_KEY"], &["LAMBDA_API_BASE"]),
    at("featherless_ai", "https://api.featherless.ai/v1", &["FEATHERLESS_AI_API_KEY", "FEATHERLESS_API_KEY"], &["FEATHERLESS_AI_API_BASE", "FEATHERLESS_API_BASE"]),
    at("friendliai", "https://api.friendli.ai/serverless/v1", &["FRIENDLIAI_API_KEY", "FRIENDLI_TOKEN"], &["FRIENDLI_API_BASE"]),
    at("baseten", "https://inference.baseten.co/v1", &["BASETEN_API_KEY"], &[]),
    at("chutes", "https://llm.chutes.ai/v1", &["CHUTES_API_KEY"], &[]).renaming(MAX_TOKENS),
    at("synthetic", "https://api.synthetic.new/openai/v1", &["SYNTHETIC_API_KEY"], &[]).renaming(MAX_TOKENS),
    at("scaleway", "https://api.scaleway.ai/v1", &["SCW_SECRET_KEY"], &[]),
    at("ovhcloud", "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1", &["OVHCLOUD_API_KEY"], &["OVHCLOUD_API_BASE"]),
    at("aiml", "https://api.aimlapi.com/v1", &["AIML_API_KEY"], &["AIML_API_BASE"]),
    at("ai21", "https://api.ai21.com/studio/v1", &["AI21_API_KEY"], &["AI21_API_BASE"]),
    at("ai21_chat", "https://api.ai21.com/studio/v1", &["AI21_API_KEY"], &["AI21_API_BASE"]),
    at("meta_llama", "https://api.llama.com/compat/v1", &["LLAMA_API_KEY"], &["LLAMA_API_BASE"]),
    at("inception", "https://api.inceptionlabs.ai/v1", &["INCEPTION_API_KEY"], &["INCEPTION_API_BASE"]),
    at("morph", "https://api.morphllm.com/v1", &["MORPH_API_KEY"], &["MORPH_API_BASE"]),
    at("v0", "https://api.v0.dev/v1", &["V0_API_KEY"], &["V0_API_BASE"]),
    at("wandb", "https://api.inference.wandb.ai/v1", &["WANDB_API_KEY"], &["WANDB_API_BASE"]),
    at("publicai", "https://api.publicai.co/v1", &["PUBLICAI_API_KEY"], &["PUBLICAI_API_BASE"]).renaming(MAX_TOKENS),
    at("poe", "https://api.poe.com/v1", &["POE_API_KEY"], &[]).renaming(MAX_TOKENS),
    at("nano-gpt", "https://nano-gpt.com/api/v1", &["NANOGPT_API_KEY"], &[]).renaming(MAX_TOKENS),
    at("cometapi", "https://api.cometapi.com/v1", &["COMETAPI_KEY"], &["COMETAPI_API_BASE"]).speaking(Format::InV1),
    at("helicone", "https://ai-gateway.helicone.ai", &["HELICONE_API_KEY"], &[]),
    at("vercel_ai_gateway", "https://ai-gateway.vercel.sh/v1", &["VERCEL_AI_GATEWAY_API_KEY", "VERCEL_OIDC_TOKEN"], &["VERCEL_AI_GATEWAY_API_BASE"]),
    at("veniceai", "https://api.venice.ai/api/v1", &["VENICE_AI_API_KEY"], &[]),
    at("apertis", "https://api.stima.tech/v1", &["STIMA_API_KEY"], &[]).renaming(MAX_TOKENS),
    at("abliteration", "https://api.abliteration.ai/v1", &["ABLITERATION_API_KEY"], &[]),
    at("llamagate", "https://api.llamagate.dev/v1", &["LLAMAGATE_API_KEY"], &[]).renaming(MAX_TOKENS),
    at("gmi", "https://api.gmi-serving.com/v1", &["GMI_API_KEY"], &[]),
    at("charity_engine", "https://api.charityengine.services/remotejobs/v2/inference", &["CHARITY_ENGINE_API_KEY"], &[]).renaming(MAX_TOKENS),
    at("aihubmix", "https://aihubmix.com/v1", &["AIHUBMIX_API_KEY"], &["AIHUBMIX_API_BASE"]),
    at("crusoe", "https://api.inference.crusoecloud.com/v1", &["CRUSOE_API_KEY"], &["CRUSOE_API_BASE"]).renaming(MAX_TOKENS),
    at("darkbloom", "https://api.darkbloom.dev/v1", &["DARKBLOOM_API_KEY"], &["DARKBLOOM_API_BASE"]).renaming(MAX_TOKENS),
    at("neosantara", "https://api.neosantara.xyz/v1", &["NEOSANTARA_API_KEY"], &["NEOSANTARA_API_BASE"]).renaming(MAX_TOKENS),
    at("tensormesh", "https://serverless.tensormesh.ai/v1", &["TENSORMESH_INFERENCE_API_KEY"], &["TENSORMESH_SERVERLESS_BASE_URL"]).renaming(MAX_TOKENS),
    at("parasail", "https://api.parasail.io/v1", &["PARASAIL_API_KEY"], &["PARASAIL_API_BASE"]),
    at("libertai", "https://api.libertai.io/v1", &["LIBERTAI_API_KEY"], &["LIBERTAI_API_BASE"]).renaming(MAX_TOKENS),
    at("empiriolabs", "https://api.empiriolabs.ai/v1", &["EMPIRIOLABS_API_KEY"], &["EMPIRIOLABS_API_BASE"]).renaming(MAX_TOKENS),
    at("meta", "https://api.meta.ai/v1", &["META_API_KEY"], &["META_API_BASE"]),
    at("cognition", "https://api.cognition.ai/v1", &["COGNITION_API_KEY"], &["COGNITION_API_BASE"]),
    at("coralbricks", "https://inference.coralbricks.ai/v1", &["CORALBRICKS_API_KEY"], &["CORALBRICKS_API_BASE"]),
    at("cortecs", "https://api.cortecs.ai/v1", &["CORTECS_API_KEY"], &["CORTECS_API_BASE"]),
    at("pinstripes", "https://pinstripes.io/v1", &["PINSTRIPES_API_KEY"], &["PINSTRIPES_API_BASE"]).renaming(MAX_TOKENS),
    at("scx-ai", "https://api.scx.ai/v1", &["SCX_API_KEY"], &["SCX_API_BASE"]).renaming(MAX_TOKENS),
    at("prism", "https://api.prisminference.com/v1", &["PRISM_API_KEY"], &["PRISM_API_BASE"]),
    at("sail", "https://api.sailresearch.com/v1", &["SAIL_API_KEY"], &["SAIL_API_BASE"]),
    at("reka", "https://api.reka.ai/v1", &["REKA_API_KEY"], &["REKA_API_BASE"]),
    at("inferenceapis", "https://api.inferenceapis.com/v1", &["INFERENCEAPIS_API_KEY"], &["INFERENCEAPIS_API_BASE"]),
    at("sarvam", "https://api.sarvam.ai/v1", &["SARVAM_API_KEY"], &[]).renaming(MAX_TOKENS),
    at("assemblyai", "https://llm-gateway.assemblyai.com/v1", &["ASSEMBLYAI_API_KEY"], &[]),
    at("voyage", "https://api.voyageai.com/v1", &["VOYAGE_API_KEY"], &["VOYAGE_API_BASE"]),
    at("jina_ai", "https://api.jina.ai/v1", &["JINA_AI_API_KEY", "JINA_API_KEY", "JINA_AI_TOKEN"], &["JINA_AI_API_BASE"]),

    at("lemonade", "http://localhost:8000/api/v1", &["LEMONADE_API_KEY"], &["LEMONADE_API_BASE"]),
    at("llamafile", "http://127.0.0.1:8080/v1", &["LLAMAFILE_API_KEY"], &["LLAMAFILE_API_BASE"]),
    at("docker_model_runner", "http://localhost:22088/engines/llama.cpp", &["DOCKER_MODEL_RUNNER_API_KEY"], &["DOCKER_MODEL_RUNNER_API_BASE"]),
    own("lm_studio", &["LM_STUDIO_API_KEY"], &["LM_STUDIO_API_BASE"]).refusing(&["reasoning_effort", "thinking", "user", "verbosity"]),
    own("hosted_vllm", &["HOSTED_VLLM_API_KEY"], &["HOSTED_VLLM_API_BASE"]).refusing(&["user", "verbosity"]),
    own("vllm", &[], &[]),
    own("xinference", &["XINFERENCE_API_KEY"], &["XINFERENCE_API_BASE"]),
    own("litellm_proxy", &["LITELLM_PROXY_API_KEY"], &["LITELLM_PROXY_API_BASE"]),
    own("databricks", &["DATABRICKS_API_KEY"], &["DATABRICKS_API_BASE"]),
    at("cloudflare", "https://api.cloudflare.com/client/v4/accounts/{CLOUDFLARE_ACCOUNT_ID}/ai/v1", &["CLOUDFLARE_API_KEY"], &["CLOUDFLARE_API_BASE"]),
    own("infinity", &["INFINITY_API_KEY"], &[]),
    own("custom_openai", &[], &[]),
    own("openai_like", &[], &[]),

    foreign("sagemaker"),
    foreign("sagemaker_chat"),
    foreign("watsonx"),
    foreign("watsonx_text"),
    foreign("replicate"),
    foreign("snowflake"),
    foreign("predibase"),
    foreign("oci"),
    foreign("nlp_cloud"),
    foreign("petals"),
    foreign("triton"),
    foreign("anthropic_text"),
    foreign("chatgpt"),
    foreign("github_copilot"),
    foreign("gigachat"),
    foreign("deepgram"),
    foreign("elevenlabs"),
    foreign("stability"),
    foreign("recraft"),
    foreign("runwayml"),
    foreign("fal_ai"),
    foreign("black_forest_labs"),
    foreign("ragflow"),
    foreign("langgraph"),
];

/// The provider of a prefix.
pub(crate) fn named(name: &str) -> Option<&'static Provider> {
    TABLE.iter().find(|provider| provider.name == name)
}

/// The provider whose own host this is.
pub(crate) fn at_host(host: &str) -> Option<&'static Provider> {
    let own = |provider: &&Provider| {
        let url = reqwest::Url::parse(provider.base).ok();
        url.is_some_and(|url| url.scheme() == "https" && url.host_str() == Some(host))
    };
    let known = TABLE.iter().find(own);
    // The older address, which most files have.
    known.or_else(|| (host == "api.together.xyz").then(|| named("together_ai"))?)
}

/// How names of models begin at the providers that LiteLLM finds by a bare name.
const NAMES: &[(&str, &[&str])] = &[
    (
        "openai",
        &[
            "gpt-",
            "chatgpt-",
            "o1",
            "o3",
            "o4",
            "ft:",
            "whisper-",
            "tts-",
            "dall-e-",
            "text-embedding-3-",
            "text-embedding-ada-",
            "omni-moderation-",
            "text-moderation-",
            "babbage-",
            "davinci-",
            "codex-",
            "computer-use-",
            "sora-",
        ],
    ),
    ("anthropic", &["claude-"]),
    (
        "vertex_ai",
        &[
            "gemini-",
            "text-embedding-00",
            "imagen-",
            "text-multilingual-embedding-",
        ],
    ),
    (
        "cohere",
        &[
            "command",
            "embed-english-",
            "embed-multilingual-",
            "embed-v4",
            "rerank-",
        ],
    ),
    ("ai21", &["jamba-", "j2-"]),
    (
        "bedrock",
        &[
            "anthropic.",
            "amazon.",
            "meta.",
            "cohere.",
            "mistral.",
            "ai21.",
            "us.",
            "eu.",
            "apac.",
            "global.",
        ],
    ),
];

/// The provider that LiteLLM takes a bare name for.
pub(crate) fn of_bare_name(model: &str) -> Option<&'static Provider> {
    let begins = |(_, beginnings): &&(&str, &[&str])| {
        beginnings
            .iter()
            .any(|beginning| model.starts_with(beginning))
    };
    NAMES.iter().find(begins).and_then(|(name, _)| named(name))
}

/// How names of models begin that LiteLLM takes for this provider's.
pub(crate) fn bare_names(provider: &Provider) -> &'static [&'static str] {
    let mut names = NAMES.iter();
    let found = names.find(|(name, _)| *name == provider.name);
    found.map_or(&[], |(_, beginnings)| beginnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> String {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/providers.md");
        std::fs::read_to_string(path).unwrap()
    }

    fn list(names: &[&str]) -> String {
        let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        quoted.join(", ")
    }

    #[test]
    fn providers_page_lists_the_table() {
        let page = page();
        for provider in TABLE {
            let name = provider.name;
            if provider.format == Format::Foreign {
                assert!(page.contains(&format!("`{name}`")), "{name}");
                continue;
            }
            let base = match provider.base {
                "" if provider.format == Format::Vertex => "of the location".into(),
                "" if provider.format == Format::Bedrock => "of the region".into(),
                "" => "of the file".into(),
                base => format!("`{base}`"),
            };
            let cells = [list(provider.key_variables), list(provider.base_variables)];
            let row = format!("| `{name}` | {base} | {} | {} |", cells[0], cells[1]);
            let row = row.replace("|  |", "| |").replace("|  |", "| |");
            assert!(page.lines().any(|line| line == row), "{row}");
        }
        let rows = page
            .lines()
            .filter(|line| line.starts_with("| `") && line.matches(" |").count() == 4);
        let spoken = TABLE
            .iter()
            .filter(|provider| provider.format != Format::Foreign);
        assert_eq!(rows.count(), spoken.count(), "a row of no provider");
    }

    #[test]
    fn provider_names_are_unique_and_base_urls_have_no_trailing_slash() {
        for (index, provider) in TABLE.iter().enumerate() {
            let name = provider.name;
            assert!(
                !TABLE[..index].iter().any(|other| other.name == name),
                "{name}"
            );
            assert!(!provider.base.ends_with('/'), "{name}");
            assert!(
                provider.base.is_empty() || reqwest::Url::parse(provider.base).is_ok(),
                "{name}"
            );
        }
    }

    #[test]
    fn model_name_prefix_selects_a_provider_of_the_table() {
        for (name, beginnings) in NAMES {
            assert!(named(name).is_some(), "{name}");
            for beginning in *beginnings {
                assert_eq!(
                    of_bare_name(&format!("{beginning}x")).map(|found| found.name),
                    Some(*name)
                );
            }
        }
        assert_eq!(of_bare_name("llama-3"), None);
    }

    #[test]
    fn base_url_host_selects_its_provider() {
        assert_eq!(
            at_host("openrouter.ai").map(|found| found.name),
            Some("openrouter")
        );
        assert_eq!(
            at_host("api.together.xyz").map(|found| found.name),
            Some("together_ai")
        );
        // Anyone's server may be there.
        assert_eq!(at_host("localhost"), None);
        assert_eq!(at_host("example.com"), None);
    }
}
