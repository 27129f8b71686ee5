//! Between a chat and OpenAI's Responses API.

pub(super) mod answer;
pub(super) mod events;
mod input;
pub(super) mod request;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod properties;

/// As error messages name it.
const FORMAT: &str = "the Responses API";
