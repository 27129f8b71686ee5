//! What a call is expected to use, before it is made.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use vorrang_scheduler::rules::MAX_LIMIT;

use crate::{Endpoint, GroupSettings, config::FairCost, error::Problem, request::Request};

/// How many bytes of text make a token, roughly; the real usage corrects it afterwards.
const BYTES_PER_TOKEN: u64 = 4;

/// The running mean of the completion tokens of a group's answers, on this instance. Zero until there is one.
#[derive(Debug, Default)]
pub(crate) struct MeanCompletion(AtomicU64);

impl MeanCompletion {
    /// Later answers count a sixteenth each: the mean follows what clients ask now.
    const SHARE: f64 = 1.0 / 16.0;

    pub(crate) fn record(&self, tokens: u64) {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let tokens = tokens as f64;
        // Two at once may overwrite each other: one lost sample of a mean harms nobody.
        let mean = match self.0.load(Ordering::Relaxed) {
            0 => tokens,
            bits => f64::from_bits(bits).mul_add(1.0 - Self::SHARE, tokens * Self::SHARE),
        };
        self.0.store(mean.to_bits(), Ordering::Relaxed);
    }

    fn tokens(&self) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a mean of counts"
        )]
        let mean = f64::from_bits(self.0.load(Ordering::Relaxed)).ceil() as u64;
        mean
    }
}

/// Tokens to reserve: 0 where neither a deployment of the group nor its shares count tokens; never more than the largest limit, so that a guess does not exclude
/// a request. An explicit maximum above that limit can never fit and is refused. What a reserve keeps for better priorities counts as not there.
pub(crate) fn reserved(
    request: &Request<'_>,
    group: &GroupSettings,
    priority: i32,
    mean: &MeanCompletion,
) -> Result<u64, Problem> {
    let limits = || {
        let limits = group.deployments.iter().map(|deployment| deployment.tpm);
        limits.map(|limit| limit.map(|limit| group.room(priority, limit)))
    };
    let shared = matches!(&group.fair, Some(fair) if fair.cost == FairCost::Tokens);
    if !shared && limits().all(|limit| limit.is_none()) {
        return Ok(0);
    }
    // A deployment without `tpm` takes any cost.
    let largest = limits()
        .try_fold(0, |largest, limit| limit.map(|limit| limit.max(largest)))
        .unwrap_or(u64::MAX);
    let number = |key| {
        request
            .fields
            .get(key)
            .and_then(|text| text.parse::<u64>().ok())
    };
    let explicit = ["max_tokens", "max_completion_tokens", "max_output_tokens"]
        .into_iter()
        .filter_map(number)
        .max();
    let explicit = explicit.map(|tokens| tokens.saturating_mul(number("n").unwrap_or(1).max(1)));
    if let Some(tokens) = explicit
        && tokens > largest
    {
        let better = Some(largest) < group.deployments.iter().filter_map(|one| one.tpm).max();
        let from_it = if better { " from its priority" } else { "" };
        let message = format!(
            "The request asks for up to {tokens} tokens; no deployment of {} takes more than {largest}{from_it} in a window",
            group.name
        );
        return Err(Problem::NeverFits { message });
    }
    let prompt = text_bytes(request).div_ceil(BYTES_PER_TOKEN);
    Ok(prompt
        .saturating_add(explicit.unwrap_or_else(|| mean.tokens()))
        .min(largest)
        // Beyond that there is no limit, and the scheduler counts no further.
        .min(MAX_LIMIT))
}

/// Bytes of text in the request: images and audio are not counted.
pub(crate) fn text_bytes(request: &Request<'_>) -> u64 {
    let input = request.input();
    let counted = match request.endpoint {
        Endpoint::Completions => serde_json::from_str::<Prompt>(input).map(|prompt| prompt.0),
        Endpoint::ChatCompletions => serde_json::from_str::<Vec<Message>>(input)
            .map(|messages| messages.iter().map(|message| message.content.0).sum()),
    };
    // What the upstream will probably refuse still waits with a cost.
    counted.unwrap_or(input.len() as u64)
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Content,
}

/// A text, or parts of which those with a `text` count.
#[derive(Default)]
struct Content(u64);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ContentVisitor;

        impl<'de> Visitor<'de> for ContentVisitor {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or parts")
            }

            fn visit_unit<E>(self) -> Result<Content, E> {
                Ok(Content(0))
            }

            fn visit_str<E>(self, text: &str) -> Result<Content, E> {
                Ok(Content(text.len() as u64))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Content, A::Error> {
                let mut bytes = 0;
                while let Some(part) = parts.next_element::<Part>()? {
                    bytes += part.0;
                }
                Ok(Content(bytes))
            }
        }

        deserializer.deserialize_any(ContentVisitor)
    }
}

struct Part(u64);

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PartVisitor;

        impl<'de> Visitor<'de> for PartVisitor {
            type Value = Part;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a content part")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut part: A) -> Result<Part, A::Error> {
                let mut bytes = 0;
                while let Some(key) = part.next_key::<String>()? {
                    if matches!(key.as_str(), "text" | "refusal") {
                        bytes += part.next_value::<Content>()?.0;
                    } else {
                        part.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Part(bytes))
            }
        }

        deserializer.deserialize_map(PartVisitor)
    }
}

/// A text, texts, or tokens: a token counts as its usual bytes.
struct Prompt(u64);

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PromptVisitor;

        impl<'de> Visitor<'de> for PromptVisitor {
            type Value = Prompt;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a prompt")
            }

            fn visit_u64<E>(self, _token: u64) -> Result<Prompt, E> {
                Ok(Prompt(BYTES_PER_TOKEN))
            }

            fn visit_str<E>(self, text: &str) -> Result<Prompt, E> {
                Ok(Prompt(text.len() as u64))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut prompts: A) -> Result<Prompt, A::Error> {
                let mut bytes = 0;
                while let Some(prompt) = prompts.next_element::<Prompt>()? {
                    bytes += prompt.0;
                }
                Ok(Prompt(bytes))
            }
        }

        deserializer.deserialize_any(PromptVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Config,
        config::{FairBy, FairShares},
    };

    fn group(tpm: &[Option<u64>]) -> GroupSettings {
        let mut group = Config::demo().groups.remove(0);
        let deployment = group.deployments.remove(0);
        group.deployments = tpm
            .iter()
            .map(|tpm| crate::config::DeploymentSettings {
                tpm: *tpm,
                ..deployment.clone()
            })
            .collect();
        group
    }

    fn chat(rest: &str, tpm: &[Option<u64>], mean: &MeanCompletion) -> Result<u64, Problem> {
        let body = format!(r#"{{"model":"m",{rest}}}"#);
        let request = Request::parse(Endpoint::ChatCompletions, body.as_bytes(), None).unwrap();
        reserved(&request, &group(tpm), 0, mean)
    }

    #[test]
    fn a_reservation_is_the_text_and_the_largest_maximum_times_n() {
        let none = MeanCompletion::default();
        let text = r#""messages":[{"role":"user","content":"12345678"}]"#;
        assert_eq!(chat(text, &[Some(1000)], &none), Ok(2));
        assert_eq!(
            chat(
                &format!(r#"{text},"max_tokens":10,"max_completion_tokens":30,"n":2"#),
                &[Some(1000)],
                &none
            ),
            Ok(62)
        );
        assert_eq!(
            chat(&format!(r#"{text},"max_tokens":10"#), &[None], &none),
            Ok(0)
        );
    }

    #[test]
    fn without_a_maximum_the_groups_mean_stands_in() {
        let mean = MeanCompletion::default();
        mean.record(100);
        assert_eq!(chat(r#""messages":[]"#, &[Some(1000)], &mean), Ok(100));
        mean.record(260);
        assert_eq!(chat(r#""messages":[]"#, &[Some(1000)], &mean), Ok(110));
    }

    #[test]
    fn only_an_explicit_maximum_above_every_limit_is_refused() {
        let mean = MeanCompletion::default();
        mean.record(5000);
        let long = format!(
            r#""messages":[{{"role":"user","content":"{}"}}]"#,
            "x".repeat(9000)
        );
        assert_eq!(chat(&long, &[Some(100), Some(1000)], &mean), Ok(1000));
        let explicit = r#""messages":[],"max_tokens":1001"#;
        let problem = chat(explicit, &[Some(100), Some(1000)], &mean).unwrap_err();
        assert_eq!(problem.status().as_u16(), 400);
        assert_eq!(chat(explicit, &[Some(100), None], &mean), Ok(1001));
        // What the scheduler has digits for.
        let absurd = r#""messages":[],"max_tokens":18446744073709551615,"n":9"#;
        assert_eq!(chat(absurd, &[Some(100), None], &mean), Ok(MAX_LIMIT));
    }

    // Issue 4, fair shares: turns of tokens need no limit of tokens.
    #[test]
    fn where_shares_count_tokens_they_are_reckoned_without_a_limit() {
        let mut group = group(&[None]);
        let by = FairBy::Key;
        let body = r#"{"model":"m","messages":[],"max_tokens":30}"#;
        let request = Request::parse(Endpoint::ChatCompletions, body.as_bytes(), None).unwrap();
        for (cost, tokens) in [(FairCost::Requests, 0), (FairCost::Tokens, 30)] {
            let by = by.clone();
            group.fair = Some(FairShares { by, cost });
            let reserved = reserved(&request, &group, 0, &MeanCompletion::default());
            assert_eq!(reserved, Ok(tokens));
        }
    }

    #[test]
    fn images_and_audio_are_not_counted_as_text() {
        let none = MeanCompletion::default();
        let image = "A".repeat(4000);
        let parts = format!(
            r#""messages":[{{"role":"user","content":[{{"type":"text","text":"12345678"}},{{"type":"image_url","image_url":{{"url":"{image}"}}}},{{"type":"input_audio","input_audio":{{"data":"{image}"}}}}]}},{{"role":"assistant","content":null}},{{"role":"assistant"}}]"#
        );
        assert_eq!(chat(&parts, &[Some(100_000)], &none), Ok(2));
    }

    #[test]
    fn prompts_count_as_texts_or_tokens() {
        for (prompt, tokens) in [
            (r#""12345""#, 2),
            (r#"["1234","5678"]"#, 2),
            ("[1,2,3]", 3),
            ("[[1,2],[3]]", 3),
        ] {
            let body = format!(r#"{{"model":"m","prompt":{prompt}}}"#);
            let request = Request::parse(Endpoint::Completions, body.as_bytes(), None).unwrap();
            assert_eq!(
                reserved(
                    &request,
                    &group(&[Some(1000)]),
                    0,
                    &MeanCompletion::default()
                ),
                Ok(tokens),
                "{prompt}"
            );
        }
    }
}
