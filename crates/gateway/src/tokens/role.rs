//! Which parts of an answer or a request a model wrote or read, by their keys.

/// What a value is, by the keys that lead to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Skipped,
    /// An answer, or one event of it.
    Answer,
    /// An object that only adds a level to `usage`.
    Wrapper,
    Usage,
    Choices,
    Choice,
    /// An object whose texts were written by a model or for one: a message, a delta, a tool call, a part.
    Message,
    /// A text, or texts and messages in a list.
    Text(Of),
    /// JSON that a model reads or writes as text: all of it counts.
    Raw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    All,
    /// Servers send the same thoughts by both names; they count once.
    Reasoning,
    ReasoningContent,
}

impl Role {
    /// The role of the value of a key.
    pub(super) fn of_key(self, key: &[u8]) -> Self {
        match (self, key) {
            (Self::Answer, b"choices") => Self::Choices,
            // Of the Responses API: items with parts, texts of a stream, the whole at its end.
            (Self::Answer, b"output") => Self::Message,
            (Self::Answer, b"delta") => Self::Text(Of::All),
            (Self::Answer, b"response") => Self::Wrapper,
            // Anthropic's: the blocks of a message, the beginnings and pieces of blocks in a stream, and the message that its
            // first event has.
            (Self::Answer, b"content") => Self::Message,
            (Self::Answer, b"content_block") => Self::Message,
            (Self::Message, b"partial_json") => Self::Text(Of::All),
            (Self::Answer, b"message") => Self::Wrapper,
            (Self::Message, b"output") => Self::Text(Of::All),
            // Groq.
            (Self::Answer, b"x_groq") => Self::Wrapper,
            // Moonshot reports it inside of a choice.
            (Self::Answer | Self::Wrapper | Self::Choice, b"usage") => Self::Usage,
            (Self::Choice, b"message" | b"delta") => Self::Message,
            (Self::Choice, b"text") => Self::Text(Of::All),
            (
                Self::Message,
                b"content" | b"text" | b"refusal" | b"name" | b"thinking" | b"transcript",
            ) => Self::Text(Of::All),
            (Self::Message, b"reasoning") => Self::Text(Of::Reasoning),
            (Self::Message, b"reasoning_content") => Self::Text(Of::ReasoningContent),
            (Self::Message, b"arguments" | b"input") => Self::Raw,
            (
                Self::Message,
                b"tool_calls" | b"function_call" | b"function" | b"custom" | b"audio",
            ) => Self::Message,
            (Self::Raw, _) => Self::Raw,
            _ => Self::Skipped,
        }
    }

    /// The role of what stands in a list of this role.
    pub(super) fn of_element(self) -> Self {
        match self {
            Self::Choices => Self::Choice,
            Self::Choice | Self::Wrapper | Self::Usage => Self::Skipped,
            other => other,
        }
    }

    /// The role of an object where a value of this role was expected.
    pub(super) fn of_object(self) -> Self {
        match self {
            Self::Text(_) => Self::Message,
            Self::Choices => Self::Skipped,
            other => other,
        }
    }
}
