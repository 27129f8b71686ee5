//! Between a chat and OpenAI's Responses API.

pub(super) mod answer;
pub(super) mod events;
mod input;
pub(super) mod request;

#[cfg(test)]
mod golden;
#[cfg(test)]
pub(super) mod properties;
