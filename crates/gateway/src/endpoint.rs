//! The endpoints. One row of the table says what a request needs, where it goes, what it costs, and what its answer is:
//! another endpoint is another row.

/// Which call of OpenAI's API or of Anthropic's this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    /// `/v1/chat/completions`: needs `messages`.
    ChatCompletions,
    /// `/v1/completions`: needs `prompt`.
    Completions,
    /// `/v1/responses`: needs `input`, or a stored `prompt`.
    Responses,
    /// `/v1/embeddings`: needs `input`.
    Embeddings,
    /// `/v1/moderations`: needs `input`.
    Moderations,
    /// `/v1/rerank`: needs `query` and `documents`.
    Rerank,
    /// `/v1/images/generations`: needs `prompt`.
    ImageGenerations,
    /// `/v1/images/edits`, a form: needs `image` and `prompt`.
    ImageEdits,
    /// `/v1/audio/speech`: needs `input`.
    Speech,
    /// `/v1/audio/transcriptions`, a form: needs `file`.
    Transcriptions,
    /// `/v1/audio/translations`, a form: needs `file`.
    Translations,
    /// Anthropic's `/v1/messages`: needs `messages` and `max_tokens`.
    Messages,
    /// Anthropic's `/v1/messages/count_tokens`: needs `messages`.
    CountTokens,
}

/// What there is to know of an endpoint.
#[derive(Debug)]
struct Row {
    endpoint: Endpoint,
    /// After `/v1` here, and after an upstream's base URL.
    path: &'static str,
    /// Whole paths here, besides the one above with and without `/v1`.
    other_paths: &'static [&'static str],
    /// A `multipart/form-data` body instead of a JSON object.
    form: bool,
    /// Fields that a request has to have. The first of them is its input.
    needs: &'static [Need],
    cost: Cost,
    answer: AnswerKind,
}

/// A field that a request has to have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    pub(crate) field: &'static str,
    /// How its JSON may begin; empty: in a form, which has no types.
    pub(crate) kinds: &'static [char],
    /// A field that may be there instead.
    pub(crate) or: Option<&'static str>,
}

/// What counts against limits of tokens before the usage is known.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cost {
    /// Nothing: the call counts as a request.
    Request,
    /// The text of the input, and the longest answer.
    Tokens {
        input: Input,
        /// Fields that a model reads besides the input.
        beside: &'static [&'static str],
        output: Output,
    },
}

/// What an input consists of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input {
    /// Messages, parts and items with texts, or a text.
    Messages,
    /// A text, texts, or numbers of tokens.
    Prompt,
}

/// How much of an answer a model writes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Output {
    None,
    /// As many texts as the largest of these fields says; without them one.
    Choices(&'static [&'static str]),
    /// The same for each text of the input.
    ChoicesOfEach(&'static [&'static str]),
}

/// What an answer's bytes are where neither JSON nor events are announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    /// JSON or events all the same.
    Json,
    /// A text, perhaps an empty one: whatever it begins with.
    Text,
    /// Sound: it passes as it comes.
    Binary,
}

const fn need(field: &'static str, kinds: &'static [char]) -> Need {
    let or = None;
    Need { field, kinds, or }
}

const FIELD: &[char] = &[];
const STRING: &[char] = &['"'];
const ARRAY: &[char] = &['['];
const STRING_OR_ARRAY: &[char] = &['"', '['];
const STRING_OR_OBJECT: &[char] = &['"', '{'];
const NUMBER: &[char] = &['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'];

const TABLE: &[Row] = &[
    Row {
        endpoint: Endpoint::ChatCompletions,
        path: "/chat/completions",
        other_paths: &[],
        form: false,
        needs: &[need("messages", ARRAY)],
        cost: Cost::Tokens {
            input: Input::Messages,
            beside: &["tools", "functions", "response_format", "prediction"],
            output: Output::Choices(&["n"]),
        },
        answer: AnswerKind::Json,
    },
    Row {
        endpoint: Endpoint::Completions,
        path: "/completions",
        other_paths: &[],
        form: false,
        needs: &[need("prompt", STRING_OR_ARRAY)],
        cost: Cost::Tokens {
            input: Input::Prompt,
            beside: &["suffix", "response_format"],
            // The best of several: all of them are written.
            output: Output::ChoicesOfEach(&["n", "best_of"]),
        },
        answer: AnswerKind::Json,
    },
    Row {
        endpoint: Endpoint::Responses,
        path: "/responses",
        other_paths: &[],
        form: false,
        needs: &[Need {
            field: "input",
            kinds: STRING_OR_ARRAY,
            or: Some("prompt"),
        }],
        cost: Cost::Tokens {
            input: Input::Messages,
            beside: &["instructions", "tools", "text"],
            output: Output::Choices(&[]),
        },
        answer: AnswerKind::Json,
    },
    Row {
        endpoint: Endpoint::Embeddings,
        path: "/embeddings",
        other_paths: &[],
        form: false,
        needs: &[need("input", STRING_OR_ARRAY)],
        cost: Cost::Tokens {
            input: Input::Prompt,
            beside: &[],
            output: Output::None,
        },
        answer: AnswerKind::Json,
    },
    Row {
        endpoint: Endpoint::Moderations,
        path: "/moderations",
        other_paths: &[],
        form: false,
        needs: &[need("input", STRING_OR_ARRAY)],
        cost: Cost::Tokens {
            input: Input::Messages,
            beside: &[],
            output: Output::None,
        },
        answer: AnswerKind::Json,
    },
    Row {
        endpoint: Endpoint::Rerank,
        path: "/rerank",
        other_paths: &["/v2/rerank"],
        form: false,
        needs: &[need("query", STRING_OR_OBJECT), need("documents", ARRAY)],
        cost: Cost::Request,
        answer: AnswerKind::Json,
    },
    Row {
        endpoint: Endpoint::ImageGenerations,
        path: "/images/generations",
        other_paths: &[],
        form: false,
        needs: &[need("prompt", STRING)],
        cost: Cost::Request,
        answer: AnswerKind::Json,
    },
    Row {
        endpoint: Endpoint::ImageEdits,
        path: "/images/edits",
        other_paths: &[],
        form: true,
        needs: &[
            Need {
                field: "image",
                kinds: FIELD,
                or: Some("image[]"),
            },
            need("prompt", FIELD),
        ],
        cost: Cost::Request,
        answer: AnswerKind::Json,
    },
    Row {
        endpoint: Endpoint::Speech,
        path: "/audio/speech",
        other_paths: &[],
        form: false,
        needs: &[need("input", STRING)],
        cost: Cost::Request,
        answer: AnswerKind::Binary,
    },
    Row {
        endpoint: Endpoint::Transcriptions,
        path: "/audio/transcriptions",
        other_paths: &[],
        form: true,
        needs: &[need("file", FIELD)],
        cost: Cost::Request,
        answer: AnswerKind::Text,
    },
    Row {
        endpoint: Endpoint::Translations,
        path: "/audio/translations",
        other_paths: &[],
        form: true,
        needs: &[need("file", FIELD)],
        cost: Cost::Request,
        answer: AnswerKind::Text,
    },
    Row {
        endpoint: Endpoint::Messages,
        path: "/messages",
        other_paths: &[],
        form: false,
        needs: &[need("messages", ARRAY), need("max_tokens", NUMBER)],
        cost: Cost::Tokens {
            input: Input::Messages,
            beside: &["system", "tools"],
            output: Output::Choices(&[]),
        },
        answer: AnswerKind::Json,
    },
    Row {
        endpoint: Endpoint::CountTokens,
        path: "/messages/count_tokens",
        other_paths: &[],
        form: false,
        needs: &[need("messages", ARRAY)],
        // Anthropic counts it apart from the messages.
        cost: Cost::Request,
        answer: AnswerKind::Json,
    },
];

/// Endpoints of models that write text. A file's `mode` does not tell them apart reliably, and LiteLLM does not look at it.
const TEXT: &[Endpoint] = &[
    Endpoint::ChatCompletions,
    Endpoint::Completions,
    Endpoint::Responses,
    Endpoint::Messages,
    Endpoint::CountTokens,
];

/// LiteLLM's names for `model_info.mode`, and others that files have.
const MODES: &[(&[&str], &[Endpoint])] = &[
    (&["chat", "completion", "responses"], TEXT),
    (&["embedding", "embeddings"], &[Endpoint::Embeddings]),
    (&["moderation", "moderations"], &[Endpoint::Moderations]),
    (&["rerank"], &[Endpoint::Rerank]),
    (
        &["image_generation", "image_edit"],
        &[Endpoint::ImageGenerations, Endpoint::ImageEdits],
    ),
    (&["audio_speech", "tts"], &[Endpoint::Speech]),
    (
        &["audio_transcription", "stt"],
        &[Endpoint::Transcriptions, Endpoint::Translations],
    ),
];

/// The endpoints of deployments with this `model_info.mode`; `None`: the mode is not known.
pub(crate) fn of_mode(mode: &str) -> Option<&'static [Endpoint]> {
    let (_, endpoints) = MODES.iter().find(|(names, _)| names.contains(&mode))?;
    Some(endpoints)
}

impl Endpoint {
    /// Every endpoint.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.endpoint)
    }

    /// Its path without `/v1`, as messages and logs name it.
    pub fn path(self) -> &'static str {
        self.row().path
    }

    /// Whole paths that it has besides [`Endpoint::path`] with and without `/v1`.
    pub fn other_paths(self) -> &'static [&'static str] {
        self.row().other_paths
    }

    /// Whether its body is a form (`multipart/form-data`) instead of a JSON object.
    pub fn is_form(self) -> bool {
        self.row().form
    }

    pub(crate) fn needs(self) -> &'static [Need] {
        self.row().needs
    }

    pub(crate) fn cost(self) -> Cost {
        self.row().cost
    }

    pub(crate) fn answer(self) -> AnswerKind {
        self.row().answer
    }

    /// Whether a model writes text as its answer.
    pub(crate) fn writes_text(self) -> bool {
        TEXT.contains(&self) && self != Self::CountTokens
    }

    /// Whether it is one of Anthropic's, whose errors have a shape of their own.
    pub fn is_anthropic(self) -> bool {
        matches!(self, Self::Messages | Self::CountTokens)
    }

    fn row(self) -> &'static Row {
        // The rows stand in the order of the variants, as a test says.
        &TABLE[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_has_its_row_and_paths_are_unique() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.endpoint as usize, index, "{}", row.path);
            assert!(row.path.starts_with('/') && !row.path.ends_with('/'));
            assert!(!row.needs.is_empty(), "{}", row.path);
            let paths = || row.other_paths.iter().chain([&row.path]);
            for other in &TABLE[..index] {
                assert!(paths().all(|path| *path != other.path), "{}", row.path);
            }
        }
    }

    #[test]
    fn modes_lead_to_their_endpoints() {
        for (mode, endpoint) in [
            ("chat", Endpoint::Completions),
            ("completion", Endpoint::ChatCompletions),
            ("embeddings", Endpoint::Embeddings),
            ("tts", Endpoint::Speech),
        ] {
            assert!(of_mode(mode).unwrap().contains(&endpoint), "{mode}");
        }
        assert!(of_mode("ocr").is_none());
        let listed = |endpoint| MODES.iter().any(|(_, of)| of.contains(&endpoint));
        assert!(Endpoint::all().all(listed), "an endpoint without a mode");
    }
}
