//! What a model is for, by its name: a deployment whose provider lacks the endpoint for that loses all of its calls.

use crate::{
    Endpoint,
    config::{DeploymentSettings, Kind, Serves, read::Section},
};

/// How names of models tell what they are for: one of these at the start of the name or after a `-`, `/`, `_`, `.` or `:`.
const MARKS: &[(&[&str], Endpoint)] = &[
    (&["rerank"], Endpoint::Rerank),
    (
        &[
            "embed",
            "text-embedding",
            "nomic-embed",
            "bge-",
            "gte-",
            "e5-",
            "minilm",
            "voyage-",
        ],
        Endpoint::Embeddings,
    ),
    (&["whisper", "transcribe"], Endpoint::Transcriptions),
    (&["tts"], Endpoint::Speech),
    (
        &["dall-e", "gpt-image", "imagen-", "stable-diffusion", "flux"],
        Endpoint::ImageGenerations,
    ),
    (&["moderation"], Endpoint::Moderations),
];

/// What calls of this model need; `None`: chat, or nothing is known.
fn endpoint(model: &str) -> Option<Endpoint> {
    let model = model.to_ascii_lowercase();
    let marked = |mark: &&str| {
        let mut places = model.match_indices(*mark).map(|(place, _)| place);
        places.any(|place| place == 0 || model[..place].ends_with(['-', '/', '_', '.', ':']))
    };
    let mut marks = MARKS.iter();
    marks.find_map(|(names, endpoint)| names.iter().any(marked).then_some(*endpoint))
}

/// Says so where the provider is known not to have what the model is for.
pub(super) fn check(params: &Section<'_>, info: &Section<'_>, settings: &DeploymentSettings) {
    let path = match settings.serves {
        Serves::Only(endpoints) => {
            let served = |endpoint: &Endpoint| settings.lacks(*endpoint).is_none();
            if endpoints.iter().any(served) {
                return;
            }
            let text =
                "its provider is known to have no endpoint for this mode: the calls are refused";
            return info.tell(Kind::NO_ENDPOINT, "mode", text);
        }
        Serves::All => match endpoint(&settings.model) {
            Some(endpoint) if settings.lacks(endpoint).is_some() => endpoint.path(),
            _ => return,
        },
    };
    let text = format!(
        "by its name the model is for {path}, which its provider is known not to have: such calls are refused"
    );
    params.tell(Kind::NO_ENDPOINT, "model", &text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_models_are_for() {
        for (model, expected) in [
            ("text-embedding-3-small", Some(Endpoint::Embeddings)),
            ("nomic-embed-text:latest", Some(Endpoint::Embeddings)),
            ("BAAI/bge-m3", Some(Endpoint::Embeddings)),
            ("bge-reranker-v2", Some(Endpoint::Rerank)),
            ("whisper-1", Some(Endpoint::Transcriptions)),
            ("gpt-4o-mini-tts", Some(Endpoint::Speech)),
            ("dall-e-3", Some(Endpoint::ImageGenerations)),
            ("gpt-4o", None),
            ("unembed", None),
        ] {
            assert_eq!(endpoint(model), expected, "{model}");
        }
    }
}
