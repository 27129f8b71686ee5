//! Fields of LiteLLM's in a request's body that steer the gateway, and not the model. None of them goes to an upstream.

mod fields;

use std::time::Duration;

use bytestring::ByteString;
use serde_json::Value;

use self::fields::{
    FIELDS,
    Handling::{Obeyed, Refused},
    handling,
};
pub(crate) use self::fields::{is_read, passes};
use crate::{
    call::seconds,
    fallbacks::{Fallback, FallbackLists, FallbackReader},
    problem::Problem,
};

/// What a request asks of the gateway, beside priority and time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Steering {
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) stream_timeout: Option<Duration>,
    pub(crate) num_retries: Option<u32>,
    pub(crate) fallbacks: Option<FallbackLists>,
    pub(crate) context_window: Option<FallbackLists>,
    pub(crate) content_policy: Option<FallbackLists>,
    pub(crate) disable_fallbacks: bool,
    pub(crate) max_fallbacks: Option<u32>,
    /// The first group is passed over as if it had failed so.
    pub(crate) mock: Option<Mock>,
}

/// Which failure a request wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mock {
    Failure,
    ContextWindow,
    ContentPolicy,
}

impl Steering {
    /// Takes the fields that steer the gateway out of a request's, but priority and time. `None`: there are none.
    pub(crate) fn take(
        fields: &mut Vec<(ByteString, ByteString)>,
    ) -> Result<Option<Box<Self>>, Problem> {
        let mut found: Option<Box<Self>> = None;
        let mut refused = None;
        fields.retain(|(name, json)| {
            let null = &**json == "null";
            match handling(name) {
                None => true,
                Some((Obeyed, _)) if matches!(&**name, "priority" | "timeout") => true,
                Some((Obeyed, _)) if !null => {
                    let obeyed = found.get_or_insert_default().obey(name, json);
                    refused = refused.take().or(obeyed.err());
                    false
                }
                Some((Refused, why)) if !null && !asks_for_nothing(json) => {
                    let name = shown(name, 64);
                    refused.get_or_insert(Problem::Invalid {
                        param: known(&name),
                        message: format!("The field '{name}' is not allowed in a request: {why}"),
                    });
                    false
                }
                Some(_) => false,
            }
        });
        refused.map_or(Ok(found), Err)
    }

    fn obey(&mut self, name: &str, json: &str) -> Result<(), Problem> {
        match name {
            "request_timeout" => self.request_timeout = Some(time(name, json)?),
            "stream_timeout" => self.stream_timeout = Some(time(name, json)?),
            "num_retries" => self.num_retries = Some(count(name, json)?),
            "max_retries" => {
                let retries = count(name, json)?;
                self.num_retries.get_or_insert(retries);
            }
            "max_fallbacks" => self.max_fallbacks = Some(count(name, json)?),
            "disable_fallbacks" => self.disable_fallbacks = flag(name, json)?,
            "fallbacks" => self.fallbacks = Some(lists(name, json)?),
            "context_window_fallbacks" => self.context_window = Some(lists(name, json)?),
            "content_policy_fallbacks" => self.content_policy = Some(lists(name, json)?),
            "mock_testing_fallbacks" if flag(name, json)? => self.mock = Some(Mock::Failure),
            "mock_testing_context_fallbacks" if flag(name, json)? => {
                self.mock = Some(Mock::ContextWindow);
            }
            "mock_testing_content_policy_fallbacks" if flag(name, json)? => {
                self.mock = Some(Mock::ContentPolicy);
            }
            _ => {}
        }
        Ok(())
    }

    /// The lists that the request brings, with the fields that they stand in.
    pub(crate) fn targets(&self) -> impl Iterator<Item = (&'static str, &Fallback)> {
        let lists = [
            ("fallbacks", &self.fallbacks),
            ("context_window_fallbacks", &self.context_window),
            ("content_policy_fallbacks", &self.content_policy),
        ];
        lists.into_iter().flat_map(|(field, lists)| {
            let targets = lists.iter().flat_map(FallbackLists::all);
            targets.map(move |(_, to)| (field, to))
        })
    }
}

/// As the table has it: an error names a field for as long as the program runs.
fn known(name: &str) -> Option<&'static str> {
    let mut fields = FIELDS.iter();
    fields
        .find(|(known, ..)| *known == name)
        .map(|(known, ..)| *known)
}

/// A client's own text in a message.
fn shown(text: &str, most_chars: usize) -> String {
    let harmless = text.chars().filter(|c| !c.is_control());
    harmless.take(most_chars).collect()
}

fn asks_for_nothing(json: &str) -> bool {
    matches!(json, "[]" | "{}" | "\"\"" | "false")
}

fn invalid(name: &str, expected: &str) -> Problem {
    Problem::Invalid {
        message: format!("Invalid value for '{name}': expected {expected}"),
        param: known(name),
    }
}

/// As a number, or as a text.
fn time(name: &str, json: &str) -> Result<Duration, Problem> {
    seconds(json.trim_matches('"')).ok_or_else(|| invalid(name, "a number of seconds above 0"))
}

fn count(name: &str, json: &str) -> Result<u32, Problem> {
    let number = json.trim_matches('"').parse();
    number.map_err(|_| invalid(name, "a whole number that is not negative"))
}

fn flag(name: &str, json: &str) -> Result<bool, Problem> {
    match json.trim_matches('"').to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(invalid(name, "true or false")),
    }
}

fn lists(name: &str, json: &str) -> Result<FallbackLists, Problem> {
    let expected = "a list of names of models, or of mappings from a model to such a list";
    let value: Value = serde_json::from_str(json).map_err(|_| invalid(name, expected))?;
    let mut fault = None;
    let mut reader = FallbackReader {
        fault: &mut |text: String| {
            fault.get_or_insert(text);
        },
    };
    let lists = reader.lists(&value);
    match fault {
        None => Ok(lists),
        Some(text) => Err(Problem::Invalid {
            message: format!("Invalid value for '{name}': {}", shown(&text, 200)),
            param: known(name),
        }),
    }
}

#[cfg(test)]
mod tests;
