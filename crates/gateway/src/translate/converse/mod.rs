//! Between a chat and Bedrock's Converse API, by way of Anthropic's messages, whose blocks Converse has under other names.

pub(super) mod answer;
mod blocks;
pub(super) mod events;
pub(super) mod request;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod properties;
