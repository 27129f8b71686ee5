//! What a call is expected to use, before it is made.

pub(crate) mod amount;
pub(crate) mod reader;
mod role;
pub(crate) mod scan;
#[cfg(test)]
mod scan_reference;
pub(crate) mod usage;

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};
use vorrang_scheduler::{LimitKind, MAX_LIMIT, Tokens};

use crate::{
    Endpoint, GroupSettings,
    config::{DeploymentSettings, FairCost},
    endpoint::{Cost, Input, Output},
    problem::Problem,
    request::Request,
    tokens::amount::Amount,
};

/// How many bytes of text make a token, roughly; the real usage corrects it afterwards.
pub(crate) const BYTES_PER_TOKEN: u64 = 4;

/// The running mean of the completion tokens of a group's answers, on this instance. Zero until there is one.
#[derive(Debug, Default)]
pub(crate) struct MeanCompletion(AtomicU64);

impl MeanCompletion {
    /// Later answers count a sixteenth each: the mean follows what clients ask now.
    const SHARE: f64 = 1.0 / 16.0;

    pub(crate) fn record(&self, tokens: u64) {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let tokens = tokens as f64;
        // Concurrent updates may overwrite each other: a lost sample of a mean does no harm.
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

/// What a request is expected to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reserved {
    /// Its text, as tokens.
    pub(crate) input: u64,
    /// What counts against limits until the usage is known.
    pub(crate) tokens: Tokens,
}

/// What one deployment takes of a ticket's tokens; the most there is where it has no limit.
#[derive(Debug, Clone, Copy)]
struct Room {
    total: u64,
    input: u64,
    output: u64,
}

impl Room {
    fn of(deployment: &DeploymentSettings, part: impl Fn(u64) -> u64) -> Self {
        let room = |kind| {
            let lowest = deployment.lowest(kind);
            lowest.map_or(u64::MAX, |limit| part(limit).min(MAX_LIMIT))
        };
        Self {
            total: room(LimitKind::Tokens),
            input: room(LimitKind::InputTokens),
            output: room(LimitKind::OutputTokens),
        }
    }

    fn is_limited(self) -> bool {
        self.total.min(self.input).min(self.output) < u64::MAX
    }

    /// The longest answer.
    fn most_output(self) -> u64 {
        self.output.min(self.total)
    }

    /// As much of a guess as fits, of the answer first: the input cannot be bounded by its client.
    fn cut(self, input: u64, output: u64) -> Tokens {
        let output = output.min(self.most_output());
        let input = input.min(self.input).min(self.total - output);
        // Beyond that there is no limit, and the scheduler counts no further.
        Tokens::new(input.min(MAX_LIMIT), output.min(MAX_LIMIT))
    }
}

/// The most tokens that one request of this priority may ask for, of input and output together.
pub(crate) fn largest(group: &GroupSettings, priority: i32) -> u64 {
    let deployments = group.deployments.iter();
    let rooms = deployments.map(|one| Room::of(one, |limit| group.room(priority, limit)));
    let most = rooms.map(|room| room.total.min(room.input.saturating_add(room.output)));
    most.max().unwrap_or(u64::MAX)
}

/// Tokens to reserve: none where neither a deployment of the group nor its shares count tokens; never more than fits at the
/// deployment that takes most, so that a guess does not exclude a request. An explicit maximum that fits at none is refused.
/// What a reserve keeps for better priorities counts as not there.
pub(crate) fn reserved(
    request: &Request<'_>,
    group: &GroupSettings,
    priority: i32,
    mean: &MeanCompletion,
) -> Result<Reserved, Problem> {
    let deployments = group.deployments.iter();
    let rooms = deployments
        .clone()
        .map(|one| Room::of(one, |limit| group.room(priority, limit)));
    if matches!(request.endpoint.cost(), Cost::Request) {
        return Ok(Reserved::default());
    }
    let shared = matches!(&group.fair, Some(fair) if fair.cost == FairCost::Tokens);
    if !shared && !rooms.clone().any(Room::is_limited) {
        return Ok(Reserved::default());
    }
    let longest = |rooms: &mut dyn Iterator<Item = Room>| rooms.map(Room::most_output).max();
    // A deployment without limits of tokens takes any cost.
    let largest = longest(&mut rooms.clone()).unwrap_or(u64::MAX);
    let explicit = explicit_output(request);
    if let Some(tokens) = explicit
        && tokens > largest
    {
        let whole = longest(&mut deployments.map(|one| Room::of(one, |limit| limit)));
        let better = Some(largest) < whole;
        let from_it = if better { " from its priority" } else { "" };
        let message = format!(
            "The request asks for up to {tokens} tokens; no deployment of {} takes more than {largest}{from_it} in a window",
            group.name
        );
        return Err(Problem::NeverFits { message });
    }
    let input = input_tokens(request);
    let output = explicit.unwrap_or_else(|| unasked_output(request, group, mean));
    // What a client has asked for is not cut.
    let takes = rooms.filter(|room| explicit.is_none_or(|output| output <= room.most_output()));
    let cuts = takes.map(|room| room.cut(input, output));
    let tokens = cuts.max_by_key(|cut| cut.total()).unwrap_or_default();
    Ok(Reserved { input, tokens })
}

/// Fields that name the most tokens of an answer.
const MAXIMA: [&str; 3] = ["max_tokens", "max_completion_tokens", "max_output_tokens"];

fn amount(json: &str) -> Option<u64> {
    serde_json::from_str::<Amount>(json).ok()?.0
}

/// The largest maximum that the request names, for each of its answers.
fn explicit_output(request: &Request<'_>) -> Option<u64> {
    if matches!(output(request), Output::None) {
        return None;
    }
    let field = |key: &str| amount(request.fields.get(key)?);
    let most = MAXIMA.into_iter().filter_map(field).max()?;
    Some(answers(request, field).saturating_mul(most))
}

/// What is reserved for a request that names no maximum: the largest of its deployments' default maxima, and the mean of the
/// group for deployments without one. As it is no wish of the client's, it excludes no deployment.
fn unasked_output(request: &Request<'_>, group: &GroupSettings, mean: &MeanCompletion) -> u64 {
    if matches!(output(request), Output::None) {
        return 0;
    }
    let deployments = group.deployments.iter().map(|deployment| {
        let default = |key: &str| amount(deployment.edits.default_of(key)?);
        let Some(most) = MAXIMA.into_iter().filter_map(default).max() else {
            return mean.tokens();
        };
        let field = |key: &str| match request.fields.get(key) {
            Some(json) => amount(json),
            None => default(key),
        };
        answers(request, field).saturating_mul(most)
    });
    deployments.max().unwrap_or_default()
}

/// How many answers of that length are written.
fn answers(request: &Request<'_>, amount: impl Fn(&str) -> Option<u64>) -> u64 {
    let (choices, inputs) = match output(request) {
        Output::None => return 0,
        Output::Choices(fields) => (fields, 1),
        Output::ChoicesOfEach(fields) => (fields, prompts(request.input())),
    };
    let choices = choices.iter().filter_map(|field| amount(field)).max();
    choices.unwrap_or(1).max(1).saturating_mul(inputs)
}

/// What a model writes for the request.
fn output(request: &Request<'_>) -> Output {
    match request.endpoint.cost() {
        Cost::Request => Output::None,
        Cost::Tokens { output, .. } => output,
    }
}

/// How many prompts a completion answers: a text and a list of tokens are one.
pub(crate) fn prompts(input: &str) -> u64 {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Prompts {
        One(#[expect(dead_code, reason = "only its shape matters")] Vec<u64>),
        Many(Vec<serde::de::IgnoredAny>),
        Other(serde::de::IgnoredAny),
    }
    match serde_json::from_str(input) {
        Ok(Prompts::Many(prompts)) => prompts.len().max(1) as u64,
        _ => 1,
    }
}

/// All text that a model is given, as tokens: messages with their tool calls and reasoning, or prompts; tools and the
/// format of the answer. Images and audio are not counted.
pub(crate) fn input_tokens(request: &Request<'_>) -> u64 {
    estimated(request, request.endpoint.cost())
}

/// The same for a request that only asks for its count.
pub(crate) fn counted(request: &Request<'_>) -> u64 {
    estimated(request, Endpoint::Messages.cost())
}

fn estimated(request: &Request<'_>, cost: Cost) -> u64 {
    let Cost::Tokens { input, beside, .. } = cost else {
        return 0;
    };
    let text = request.input();
    let counted = match input {
        Input::Messages => scan::of_messages(text),
        Input::Prompt => serde_json::from_str::<Prompt>(text)
            // What the upstream will probably refuse still waits with a cost.
            .map_or(text.len() as u64, |prompt| prompt.0),
    };
    let beside = beside.iter().filter_map(|key| {
        let json = request.fields.get(key)?;
        Some(match *key {
            "system" => scan::of_messages(json),
            _ => scan::of_raw(json),
        })
    });
    let beside: u64 = beside.sum();
    (counted + beside).div_ceil(BYTES_PER_TOKEN)
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
        Config, Endpoint,
        config::{self, FairBy, FairShares, named},
    };

    fn group(tpm: &[Option<u64>]) -> GroupSettings {
        let mut group = Config::demo().groups.remove(0);
        let deployment = group.deployments.remove(0);
        group.deployments = tpm
            .iter()
            .map(|tpm| DeploymentSettings {
                limits: tpm.map(|tpm| named("tpm", tpm)).into_iter().collect(),
                ..deployment.clone()
            })
            .collect();
        group
    }

    fn chat(rest: &str, tpm: &[Option<u64>], mean: &MeanCompletion) -> Result<u64, Problem> {
        let body = format!(r#"{{"model":"m",{rest}}}"#);
        let request = Request::parse(Endpoint::ChatCompletions, body.as_bytes(), None).unwrap();
        reserved(&request, &group(tpm), 0, mean).map(|reserved| reserved.tokens.total())
    }

    #[test]
    fn reservation_is_prompt_text_plus_largest_maximum_times_n() {
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
    fn reservation_without_a_maximum_uses_the_groups_mean() {
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

    fn kinds(limits: [Option<u64>; 3]) -> DeploymentSettings {
        let named = ["tpm", "itpm", "otpm"].into_iter().zip(limits);
        let limits = named.filter_map(|(name, limit)| Some(config::named(name, limit?)));
        let deployment = Config::demo().groups.remove(0).deployments.remove(0);
        DeploymentSettings {
            limits: limits.collect(),
            ..deployment
        }
    }

    #[test]
    fn estimated_tokens_are_cut_to_the_deployment_with_most_room() {
        let none = MeanCompletion::default();
        let mean = MeanCompletion::default();
        mean.record(100);
        let text = "x".repeat(400);
        let body = |rest: &str| {
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]{rest}}}"#)
        };
        let explicit = r#","max_tokens":60"#;
        let cases = [
            (vec![[None, Some(50), None]], &none, "", Ok((50, 0))),
            (vec![[None, None, Some(50)]], &mean, "", Ok((100, 50))),
            (
                vec![[None, Some(80), Some(70)]],
                &mean,
                explicit,
                Ok((80, 60)),
            ),
            // Of both together the answer's part is kept: it is what the client asked for.
            (vec![[Some(90), None, None]], &mean, explicit, Ok((30, 60))),
            (
                vec![[None, Some(10), None], [None, None, Some(20)]],
                &mean,
                "",
                Ok((100, 20)),
            ),
            // Too long an answer for the one that takes more input.
            (
                vec![[None, None, Some(59)], [None, Some(7), Some(60)]],
                &mean,
                explicit,
                Ok((7, 60)),
            ),
            (
                vec![[None, None, Some(59)], [Some(59), None, None]],
                &mean,
                explicit,
                Err(400),
            ),
            (
                vec![[None, None, Some(59)], [None; 3]],
                &mean,
                explicit,
                Ok((100, 60)),
            ),
        ];
        for (limits, mean, rest, expected) in cases {
            let mut group = group(&[]);
            group.deployments = limits.iter().copied().map(kinds).collect();
            let body = body(rest);
            let request = Request::parse(Endpoint::ChatCompletions, body.as_bytes(), None).unwrap();
            let found = reserved(&request, &group, 0, mean);
            let found = found.map(|reserved| reserved.tokens.into());
            let found = found.map_err(|problem| problem.status().as_u16());
            assert_eq!(found, expected, "{limits:?} {rest}");
        }
    }

    // P19 (fair shares): service in tokens needs the reservation even without a limit of tokens.
    #[test]
    fn fair_cost_tokens_reserves_tokens_without_a_token_limit() {
        let mut group = group(&[None]);
        let by = FairBy::Key;
        let body = r#"{"model":"m","messages":[],"max_tokens":30}"#;
        let request = Request::parse(Endpoint::ChatCompletions, body.as_bytes(), None).unwrap();
        for (cost, tokens) in [(FairCost::Requests, 0), (FairCost::Tokens, 30)] {
            let by = by.clone();
            group.fair = Some(FairShares { by, cost });
            let reserved = reserved(&request, &group, 0, &MeanCompletion::default());
            assert_eq!(reserved.map(|reserved| reserved.tokens.total()), Ok(tokens));
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
    fn tools_response_formats_and_tool_calls_are_reserved() {
        let none = MeanCompletion::default();
        let limit = [Some(100_000)];
        let reserved = |rest: &str| chat(rest, &limit, &none).unwrap();
        let words = "w".repeat(4000);
        for field in ["tools", "functions", "response_format"] {
            let with = format!(r#""messages":[],"{field}":[{{"description":"{words}"}}]"#);
            assert_eq!(reserved(&with), 1005, "{field}");
        }
        for message in [
            r#"{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"WORDS"}}]}"#,
            r#"{"role":"assistant","function_call":{"arguments":"WORDS"}}"#,
            r#"{"role":"assistant","content":null,"reasoning_content":"WORDS"}"#,
            r#"{"role":"assistant","content":[{"type":"thinking","thinking":"WORDS"}]}"#,
            r#"{"role":"tool","content":"WORDS"}"#,
        ] {
            let messages = format!(r#""messages":[{}]"#, message.replace("WORDS", &words));
            assert!((1000..1002).contains(&reserved(&messages)), "{message}");
        }
    }

    #[test]
    fn maximum_accepts_any_number_notation_and_counts_once_per_answer() {
        let none = MeanCompletion::default();
        for (fields, tokens) in [
            (r#""max_tokens":500.0"#, 500),
            (r#""max_tokens":"500""#, 500),
            (r#""max_completion_tokens":5e2,"n":2.0"#, 1000),
            (r#""max_tokens":-5"#, 0),
            (r#""max_tokens":null,"max_output_tokens":499.5"#, 500),
        ] {
            let messages = format!(r#""messages":[],{fields}"#);
            assert_eq!(
                chat(&messages, &[Some(5000)], &none),
                Ok(tokens),
                "{fields}"
            );
        }
        for (prompt, answers) in [
            (r#""text""#, 1),
            ("[1,2,3]", 1),
            (r#"["a","b","c"]"#, 3),
            ("[[1,2],[3]]", 2),
            ("[]", 1),
        ] {
            let body = format!(r#"{{"model":"m","prompt":{prompt},"max_tokens":100,"best_of":2}}"#);
            let request = Request::parse(Endpoint::Completions, body.as_bytes(), None).unwrap();
            assert_eq!(explicit_output(&request), Some(200 * answers), "{prompt}");
        }
    }

    #[test]
    fn prompts_count_as_text_or_token_ids() {
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
                )
                .map(|reserved| reserved.tokens.total()),
                Ok(tokens),
                "{prompt}"
            );
        }
    }
}
