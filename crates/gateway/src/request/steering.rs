//! Fields of LiteLLM's in a request's body that steer the gateway, and not the model. None of them goes to an upstream.
//!
//! docs/litellm-compatibility.md has the same table; a test holds them together.

use std::{collections::HashMap, sync::LazyLock, time::Duration};

use bytestring::ByteString;
use serde_json::Value;

use crate::{
    call::seconds,
    fallbacks::{Fallback, FallbackLists, FallbackReader},
    problem::Problem,
};

/// What happens to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handling {
    Obeyed,
    Dropped,
    /// A 400 that names it, unless it is null.
    Refused,
}
use Handling::{Dropped, Obeyed, Refused};

const CREDENTIALS: &str = "keys and addresses of upstreams come from the configuration only";
const CONTENT: &str =
    "requests and answers pass as they are, so that what it asks for would not be done";
const CACHE: &str = "answers are not cached";
const HEALTH: &str = "no caller changes limits or health that others share";
const LOGS: &str = "there are no callbacks, and bodies are never logged";
const CONFIGURED: &str = "the configuration says it";
const TESTING: &str = "for LiteLLM's own tests";

/// Name, what happens to it, and why or how.
#[rustfmt::skip]
const FIELDS: &[(&str, Handling, &str)] = &[
    ("priority", Obeyed, "the order in the queue"),
    ("timeout", Obeyed, "the request's time, seconds"),
    ("request_timeout", Obeyed, "the same, where there is no `timeout`"),
    ("stream_timeout", Obeyed, "one attempt of a streamed call, seconds"),
    ("num_retries", Obeyed, "attempts in a group after the first"),
    ("max_retries", Obeyed, "the same, where there is no `num_retries`"),
    ("fallbacks", Obeyed, "instead of the file's"),
    ("context_window_fallbacks", Obeyed, "instead of the file's"),
    ("content_policy_fallbacks", Obeyed, "instead of the file's"),
    ("disable_fallbacks", Obeyed, "true: none"),
    ("max_fallbacks", Obeyed, "fewer than the file allows"),
    ("mock_testing_fallbacks", Obeyed, "true: the first group is passed over, as after a failure"),
    ("mock_testing_context_fallbacks", Obeyed, "true: as after a request that is too long"),
    ("mock_testing_content_policy_fallbacks", Obeyed, "true: as after a refused content"),

    ("api_key", Refused, CREDENTIALS),
    ("api_base", Refused, CREDENTIALS),
    ("base_url", Refused, CREDENTIALS),
    ("user_config", Refused, CREDENTIALS),
    ("model_list", Refused, CREDENTIALS),
    ("client_id", Refused, CREDENTIALS),
    ("client_secret", Refused, CREDENTIALS),
    ("tenant_id", Refused, CREDENTIALS),
    ("azure_ad_token", Refused, CREDENTIALS),
    ("vertex_credentials", Refused, CREDENTIALS),
    ("vertex_ai_credentials", Refused, CREDENTIALS),
    ("user_provider_credentials", Refused, CREDENTIALS),
    ("s3_endpoint_url", Refused, CREDENTIALS),
    ("sagemaker_base_url", Refused, CREDENTIALS),
    ("deployment_url", Refused, CREDENTIALS),
    ("guardrails", Refused, CONTENT),
    ("policies", Refused, CONTENT),
    ("prompt_id", Refused, "prompts are not kept here"),
    ("allowed_model_region", Refused, "regions of deployments are not known; use a group of its own"),

    ("api_version", Dropped, CONFIGURED),
    ("api_type", Dropped, CONFIGURED),
    ("custom_llm_provider", Dropped, CONFIGURED),
    ("organization", Dropped, CONFIGURED),
    ("base_model", Dropped, CONFIGURED),
    ("model_info", Dropped, CONFIGURED),
    ("region_name", Dropped, CONFIGURED),
    ("extra_headers", Dropped, CONFIGURED),
    ("headers", Dropped, CONFIGURED),
    ("default_headers", Dropped, CONFIGURED),
    ("drop_params", Dropped, CONFIGURED),
    ("additional_drop_params", Dropped, CONFIGURED),
    ("allowed_openai_params", Dropped, CONFIGURED),
    ("modify_params", Dropped, CONFIGURED),
    ("ssl_verify", Dropped, CONFIGURED),
    ("keepalive_seconds", Dropped, "use the header `x-vorrang-keepalive`"),
    ("retry_strategy", Dropped, CONFIGURED),
    ("retry_policy", Dropped, CONFIGURED),
    ("model_group_retry_policy", Dropped, CONFIGURED),
    ("fallback_depth", Dropped, CONFIGURED),
    ("attempted_targets", Dropped, CONFIGURED),
    ("include_fallback_errors", Dropped, "each failure is in the log"),
    ("specific_deployment", Dropped, "the queue chooses among the deployments of a group"),
    ("deployment_id", Dropped, "the queue chooses among the deployments of a group"),
    ("cooldown_time", Dropped, HEALTH),
    ("allowed_fails", Dropped, HEALTH),
    ("rpm", Dropped, HEALTH),
    ("tpm", Dropped, HEALTH),
    ("max_parallel_requests", Dropped, HEALTH),
    ("cache", Dropped, CACHE),
    ("caching", Dropped, CACHE),
    ("caching_groups", Dropped, CACHE),
    ("cache_key", Dropped, CACHE),
    ("preset_cache_key", Dropped, CACHE),
    ("no-cache", Dropped, CACHE),
    ("no-store", Dropped, CACHE),
    ("use-cache", Dropped, CACHE),
    ("ttl", Dropped, CACHE),
    ("s-maxage", Dropped, CACHE),
    ("no-log", Dropped, LOGS),
    ("verbose", Dropped, LOGS),
    ("logger_fn", Dropped, LOGS),
    ("callbacks", Dropped, LOGS),
    ("success_callback", Dropped, LOGS),
    ("failure_callback", Dropped, LOGS),
    ("service_callback", Dropped, LOGS),
    ("turn_off_message_logging", Dropped, LOGS),
    ("proxy_server_request", Dropped, LOGS),
    ("secret_fields", Dropped, LOGS),
    ("standard_logging_object", Dropped, LOGS),
    ("spend_logs_metadata", Dropped, "costs are not counted"),
    ("input_cost_per_token", Dropped, "costs are not counted"),
    ("output_cost_per_token", Dropped, "costs are not counted"),
    ("input_cost_per_second", Dropped, "costs are not counted"),
    ("output_cost_per_second", Dropped, "costs are not counted"),
    ("max_budget", Dropped, "costs are not counted"),
    ("budget_duration", Dropped, "costs are not counted"),
    ("tags", Dropped, "tags do not choose deployments"),
    ("hf_model_name", Dropped, CONFIGURED),
    ("disable_global_guardrails", Dropped, CONFIGURED),
    ("router_settings_override", Dropped, CONFIGURED),
    ("mock_response", Dropped, "the call is made: LiteLLM obeys it only for keys that say so"),
    ("mock_tool_calls", Dropped, "the call is made: LiteLLM obeys it only for keys that say so"),
    ("mock_timeout", Dropped, TESTING),
    ("mock_delay", Dropped, TESTING),
    ("mock_testing_rate_limit_error", Dropped, TESTING),
];

/// How fields begin that are not in the table.
const BEGINNINGS: &[(&str, Handling, &str)] = &[
    ("litellm_", Dropped, LOGS),
    ("aws_", Refused, CREDENTIALS),
    ("vertex_", Refused, CREDENTIALS),
    ("azure_", Refused, CREDENTIALS),
    ("langfuse_", Refused, CREDENTIALS),
    ("langsmith_", Refused, CREDENTIALS),
];

static BY_NAME: LazyLock<HashMap<&str, (Handling, &str)>> = LazyLock::new(|| {
    let fields = FIELDS.iter();
    fields
        .map(|(name, handling, why)| (*name, (*handling, *why)))
        .collect()
});

/// `None`: the field is none of the gateway's.
fn handling(name: &str) -> Option<(Handling, &'static str)> {
    if let Some(found) = BY_NAME.get(name) {
        return Some(*found);
    }
    let mut beginnings = BEGINNINGS.iter();
    let (_, handling, why) = beginnings.find(|(beginning, ..)| name.starts_with(beginning))?;
    Some((*handling, why))
}

/// Whether the field passes upstream.
pub(crate) fn passes(name: &str) -> bool {
    handling(name).is_none()
}

/// Whether the value of a field matters to the gateway.
pub(crate) fn is_read(name: &str) -> bool {
    matches!(handling(name), Some((Obeyed | Refused, _)))
}

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
                None => &**name != "metadata" || !is_litellms(json),
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

/// OpenAI has `metadata`, too: texts by name. With more in it, it is for LiteLLM's log.
fn is_litellms(metadata: &str) -> bool {
    let names = ["tags", "spend_logs_metadata"];
    metadata.starts_with('{')
        && names.iter().any(|name| metadata.contains(name))
        && serde_json::from_str::<Value>(metadata).is_ok_and(|value| {
            names
                .iter()
                .any(|name| value[name].is_array() || value[name].is_object())
        })
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
mod tests {
    use super::*;

    fn take(body: &str) -> Result<(Option<Steering>, String), Problem> {
        let object: serde_json::Map<String, Value> = serde_json::from_str(body).unwrap();
        let fields = object.into_iter();
        let mut fields: Vec<(ByteString, ByteString)> = fields
            .map(|(name, value)| (name.into(), value.to_string().into()))
            .collect();
        let steering = Steering::take(&mut fields)?;
        let left: Vec<&str> = fields.iter().map(|(name, _)| &**name).collect();
        Ok((steering.map(|found| *found), left.join(" ")))
    }

    #[test]
    fn each_field_of_the_table_is_named_once_and_does_not_pass() {
        for (index, (name, _, why)) in FIELDS.iter().enumerate() {
            let earlier = FIELDS[..index].iter();
            assert!(earlier.clone().all(|(known, ..)| known != name), "{name}");
            assert!(!why.is_empty() && !passes(name), "{name}");
        }
        for name in [
            "model", "messages", "metadata", "user", "store", "extra", "ttl2",
        ] {
            assert!(passes(name), "{name}");
        }
    }

    #[test]
    fn documentation_has_the_same_table() {
        let page = include_str!("../../../../docs/litellm-compatibility.md");
        let (_, table) = page.split_once("## Fields of requests").unwrap();
        let (table, _) = table.split_once("\n## ").unwrap();
        let rows = |handling| match handling {
            Obeyed => "| obeyed |",
            Dropped => "| dropped |",
            Refused => "| 400 |",
        };
        let beginnings: Vec<_> = BEGINNINGS
            .iter()
            .map(|(name, handling, _)| (format!("`{name}...`"), *handling))
            .collect();
        let names = FIELDS
            .iter()
            .map(|(name, handling, _)| (format!("`{name}`"), *handling));
        for (name, handling) in names.chain(beginnings) {
            let mut lines = table.lines().filter(|line| line.starts_with("| "));
            let line = lines.find(|line| line.contains(&name));
            let line = line.unwrap_or_else(|| panic!("{name} is not in the table"));
            assert!(line.contains(rows(handling)), "{name}: {line}");
        }
        let listed = table.lines().filter(|line| line.starts_with("| `"));
        let listed = listed.map(|line| line.split('|').nth(1).unwrap().matches('`').count() / 2);
        assert_eq!(
            listed.sum::<usize>(),
            FIELDS.len() + BEGINNINGS.len(),
            "the page has more"
        );
    }

    #[test]
    fn obeyed_fields_are_read_and_taken_out() {
        let body = r#"{"model":"m","num_retries":3,"stream_timeout":"2.5","disable_fallbacks":"True",
            "fallbacks":["b",{"model":"c","n":2}],"max_fallbacks":1,"mock_testing_fallbacks":true,"priority":4,"x":1}"#;
        let (steering, left) = take(body).unwrap();
        let steering = steering.unwrap();
        assert_eq!(left, "model priority x");
        assert_eq!(
            (steering.num_retries, steering.max_fallbacks),
            (Some(3), Some(1))
        );
        assert_eq!(steering.stream_timeout, Some(Duration::from_millis(2500)));
        assert!(steering.disable_fallbacks);
        assert_eq!(steering.mock, Some(Mock::Failure));
        let targets: Vec<_> = steering.targets().collect();
        assert_eq!(targets[1].1.fields, [("n".into(), "2".into())]);
        assert_eq!(targets.len(), 2);
    }

    #[test]
    fn requests_without_such_fields_have_no_steering() {
        let (steering, left) =
            take(r#"{"model":"m","timeout":3,"metadata":{"tags":"a"}}"#).unwrap();
        assert_eq!((steering, left.as_str()), (None, "model timeout metadata"));
    }

    #[test]
    fn max_retries_counts_where_num_retries_is_absent() {
        for (body, retries) in [
            (r#"{"max_retries":5}"#, 5),
            (r#"{"max_retries":5,"num_retries":0}"#, 0),
            (r#"{"num_retries":null,"max_retries":1}"#, 1),
        ] {
            let (steering, _) = take(body).unwrap();
            assert_eq!(steering.unwrap().num_retries, Some(retries), "{body}");
        }
    }

    #[test]
    fn metadata_passes_unless_it_has_litellms_form() {
        for (metadata, passes) in [
            (r#"{"a":"b","tags":"x"}"#, true),
            (r#"{"tags":["x"]}"#, false),
            (r#"{"spend_logs_metadata":{"a":1}}"#, false),
            (r#""tags""#, true),
            ("null", true),
        ] {
            let (_, left) = take(&format!(r#"{{"metadata":{metadata}}}"#)).unwrap();
            assert_eq!(left == "metadata", passes, "{metadata}");
        }
    }

    #[test]
    fn malformed_and_refused_fields_get_400_that_names_them() {
        for (body, name) in [
            (r#"{"num_retries":-1}"#, "num_retries"),
            (r#"{"num_retries":1.5}"#, "num_retries"),
            (r#"{"max_fallbacks":[]}"#, "max_fallbacks"),
            (r#"{"stream_timeout":0}"#, "stream_timeout"),
            (r#"{"request_timeout":"soon"}"#, "request_timeout"),
            (r#"{"disable_fallbacks":1}"#, "disable_fallbacks"),
            (r#"{"fallbacks":7}"#, "fallbacks"),
            (
                r#"{"fallbacks":[{"model":"b","api_key":"sk-x"}]}"#,
                "fallbacks",
            ),
            (
                r#"{"content_policy_fallbacks":[{"m":[1]}]}"#,
                "content_policy_fallbacks",
            ),
            (r#"{"api_key":"sk-x"}"#, "api_key"),
            (r#"{"guardrails":["pii"]}"#, "guardrails"),
        ] {
            let problem = take(body).unwrap_err();
            assert_eq!(
                (problem.status().as_u16(), problem.param()),
                (400, Some(name)),
                "{body}"
            );
            let message = problem.to_string();
            assert!(
                message.contains(name) && !message.contains("sk-x"),
                "{message}"
            );
        }
        assert!(take(r#"{"aws_secret_access_key":"x"}"#).is_err());
        assert!(take(r#"{"guardrails":[],"api_base":null,"api_key":""}"#).is_ok());
    }
}
