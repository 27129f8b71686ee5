//! Event streams whose every event is known.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vorrang_tests::{
    Chat,
    upstream::{PIECE_MS, PIECES, WORDS},
};

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With all pieces and `[DONE]`.
    Complete,
    /// With an error event.
    Failed,
    /// In the middle.
    Cut,
}

/// A streamed chat whose answer has so many pieces beside its words, one every so many milliseconds.
pub(crate) fn streamed(chat: Chat, pieces: usize, every_ms: u64) -> Chat {
    chat.with("stream", true)
        .with(PIECES, pieces)
        .with(PIECE_MS, every_ms)
}

/// Reads what has come of such an answer.
///
/// # Errors
/// A piece is missing, doubled or out of order, or something follows the end.
pub(crate) fn read(text: &str, pieces: usize) -> Result<End> {
    let words = WORDS.iter().map(ToString::to_string);
    let numbers = (0..pieces).map(|number| number.to_string());
    let mut expected = words.chain(numbers);
    let mut end = End::Cut;
    // What follows the last blank line is no whole event.
    let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    for event in whole.split("\n\n").filter(|event| !event.is_empty()) {
        ensure!(end == End::Cut, "{event} after the end");
        let data = event.strip_prefix("data: ").context(event.to_owned())?;
        if data == "[DONE]" {
            let missing = expected.next();
            ensure!(missing.is_none(), "{missing:?} is missing");
            end = End::Complete;
            continue;
        }
        let data: Value = serde_json::from_str(data).with_context(|| event.to_owned())?;
        if data.get("error").is_some() {
            end = End::Failed;
            continue;
        }
        if let Some(piece) = data["choices"][0]["delta"]["content"].as_str() {
            let due = expected.next();
            ensure!(due.as_deref() == Some(piece), "{piece} instead of {due:?}");
        }
    }
    Ok(end)
}
