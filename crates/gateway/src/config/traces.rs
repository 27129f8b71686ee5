//! Where traces are sent: OpenTelemetry's own variables, and LiteLLM's for its callback `otel`.

use std::{fmt, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use reqwest::Url;

use super::{
    Env, Kind,
    plan::public,
    read::{
        Section,
        tree::{Node, Value},
    },
};

const PATH: &str = "/v1/traces";

/// Where traces are sent, by OTLP over HTTP in protobuf.
#[derive(Clone, PartialEq, Eq)]
pub struct TraceSettings {
    /// The whole URL, in most cases ending in `/v1/traces`.
    pub endpoint: String,
    /// Headers of each export, for example a collector's token.
    pub headers: HeaderMap,
    /// How long one export may take.
    pub timeout: Duration,
    /// `service.name`.
    pub service_name: String,
    /// Which requests are traced.
    pub sampling: Sampling,
    /// At most this many spans wait for an export; more are dropped.
    pub queue: usize,
    /// How long a span waits for others at most.
    pub delay: Duration,
}

/// Which requests are traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// What the caller's `traceparent` says comes first.
    pub by_parent: bool,
    /// Of a million others so many.
    pub per_million: u32,
}

/// A URL may hold a password or a token.
impl fmt::Debug for TraceSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceSettings")
            .field("endpoint", &public(&self.endpoint))
            .field("headers", &self.headers.len())
            .field("timeout", &self.timeout)
            .field("service_name", &self.service_name)
            .field("sampling", &self.sampling)
            .field("queue", &self.queue)
            .field("delay", &self.delay)
            .finish()
    }
}

impl TraceSettings {
    /// For a line of `vorrang check`, without what may be secret.
    pub(super) fn shown(&self) -> String {
        public(&self.endpoint)
    }
}

/// Reads what the environment and the file's `callbacks` say; `None`: nothing is traced.
///
/// A variable that cannot be read is a warning, as OpenTelemetry asks for: it does not keep calls from being served.
pub(super) fn traces(root: &Section<'_>, litellm: &Section<'_>) -> Option<TraceSettings> {
    let asked = ["callbacks", "success_callback"]
        .into_iter()
        .find(|key| litellm.node(key).is_some_and(names_otel));
    let reading = Reading { root };
    if reading.is("OTEL_SDK_DISABLED", "true") || reading.is("OTEL_TRACES_EXPORTER", "none") {
        return None;
    }
    let Some(endpoint) = endpoint(&reading, asked.is_some()) else {
        if let Some(key) = asked {
            let text = "the environment names no collector (OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_ENDPOINT): nothing is traced; \
                 LiteLLM prints spans to its console then";
            litellm.tell(Kind::NOT_DONE, key, text);
        }
        return None;
    };
    Some(TraceSettings {
        endpoint,
        headers: headers(&reading, asked.is_some()),
        timeout: reading
            .milliseconds(&[
                "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
                "OTEL_EXPORTER_OTLP_TIMEOUT",
            ])
            .unwrap_or(Duration::from_secs(10)),
        service_name: service_name(&reading),
        sampling: sampling(&reading),
        queue: reading
            .number("OTEL_BSP_MAX_QUEUE_SIZE")
            .filter(|size| *size >= 1.0)
            .map_or(2048, whole),
        delay: reading
            .milliseconds(&["OTEL_BSP_SCHEDULE_DELAY"])
            .unwrap_or(Duration::from_secs(5)),
    })
}

/// Whether `callbacks` names `otel`.
fn names_otel(node: &Node) -> bool {
    is_otel(node) || matches!(&node.value, Value::List(items) if items.iter().any(is_otel))
}

/// Whether `callbacks` names `otel` and nothing else.
pub(super) fn names_only_otel(node: &Node) -> bool {
    match &node.value {
        Value::List(items) => items.iter().all(is_otel),
        _ => is_otel(node),
    }
}

fn is_otel(node: &Node) -> bool {
    matches!(&node.value, Value::Text(text) if text == "otel")
}

/// The environment, and where what is wrong in it is said.
struct Reading<'a> {
    root: &'a Section<'a>,
}

impl Reading<'_> {
    /// An empty variable counts as one that is not set, as OpenTelemetry asks for.
    fn get(&self, name: &str) -> Option<String> {
        let env: &dyn Env = self.root.file.env;
        env.get(name)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    }

    /// The first of them that is set, with its name.
    fn first<'n>(&self, names: &[&'n str]) -> Option<(&'n str, String)> {
        names
            .iter()
            .find_map(|name| self.get(name).map(|value| (*name, value)))
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.get(name)
            .is_some_and(|set| set.eq_ignore_ascii_case(value))
    }

    /// The value is never shown: it may be a secret.
    fn ignored(&self, name: &str, expected: &str) {
        let text = format!("of the environment is ignored: expected {expected}");
        self.root.tell(Kind::NOT_DONE, name, &text);
    }

    fn number(&self, name: &str) -> Option<f64> {
        let number = self.get(name)?.parse::<f64>().ok();
        let number = number.filter(|number| number.is_finite() && *number >= 0.0);
        if number.is_none() {
            self.ignored(name, "a number that is not negative");
        }
        number
    }

    fn milliseconds(&self, names: &[&str]) -> Option<Duration> {
        let (name, _) = self.first(names)?;
        let time = self.number(name)?;
        Duration::try_from_secs_f64(time / 1e3).ok()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` ends at the type's bounds"
)]
fn whole(number: f64) -> usize {
    number as usize
}

fn endpoint(reading: &Reading<'_>, of_litellm: bool) -> Option<String> {
    let own: &[&str] = if of_litellm { &["OTEL_ENDPOINT"] } else { &[] };
    let general = [&["OTEL_EXPORTER_OTLP_ENDPOINT"], own].concat();
    let whole = reading.first(&["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]);
    let (name, text, is_whole) = match whole {
        Some((name, text)) => (name, text, true),
        None => reading
            .first(&general)
            .map(|(name, text)| (name, text, false))?,
    };
    let url = Url::parse(&text).ok();
    let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
    else {
        reading.ignored(name, "a URL that begins with http:// or https://");
        return None;
    };
    let own: &[&str] = if of_litellm { &["OTEL_EXPORTER"] } else { &[] };
    let protocols = [
        &[
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ],
        own,
    ]
    .concat();
    if let Some((name, protocol)) = reading.first(&protocols)
        && !matches!(
            protocol.as_str(),
            "http/protobuf" | "http/json" | "http" | "otlp_http"
        )
    {
        let text = "http/protobuf, in which traces are sent (collectors take it at port 4318)";
        reading.ignored(name, text);
    }
    let has_path = url.path().trim_end_matches('/').ends_with(PATH);
    Some(if is_whole || has_path {
        text
    } else {
        let mut url = url;
        url.set_path(&format!("{}{PATH}", url.path().trim_end_matches('/')));
        url.to_string()
    })
}

/// `name=value,name=value`, values percent-encoded.
fn headers(reading: &Reading<'_>, of_litellm: bool) -> HeaderMap {
    let own: &[&str] = if of_litellm { &["OTEL_HEADERS"] } else { &[] };
    let names = [
        &[
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
            "OTEL_EXPORTER_OTLP_HEADERS",
        ],
        own,
    ]
    .concat();
    let mut headers = HeaderMap::new();
    let Some((variable, text)) = reading.first(&names) else {
        return headers;
    };
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        let parsed = pair.split_once('=').and_then(|(name, value)| {
            let name: HeaderName = name.trim().parse().ok()?;
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
            let mut value = HeaderValue::from_str(&value).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        });
        match parsed {
            Some((name, value)) => drop(headers.insert(name, value)),
            None => reading.ignored(variable, "a list like name=value,name=value"),
        }
    }
    headers
}

fn service_name(reading: &Reading<'_>) -> String {
    reading
        .get("OTEL_SERVICE_NAME")
        .or_else(|| {
            let attributes = reading.get("OTEL_RESOURCE_ATTRIBUTES")?;
            let mut pairs = attributes
                .split(',')
                .filter_map(|pair| pair.split_once('='));
            let name = pairs.find(|(name, _)| name.trim() == "service.name")?;
            Some(name.1.trim().to_owned())
        })
        .unwrap_or_else(|| "vorrang".into())
}

fn sampling(reading: &Reading<'_>) -> Sampling {
    const ALL: u32 = 1_000_000;
    let name = reading.get("OTEL_TRACES_SAMPLER").unwrap_or_default();
    let ratio = || {
        let ratio = reading.number("OTEL_TRACES_SAMPLER_ARG").unwrap_or(1.0);
        u32::try_from(whole(ratio.min(1.0) * f64::from(ALL))).unwrap_or(ALL)
    };
    let (by_parent, per_million) = match name.as_str() {
        "always_on" => (false, ALL),
        "always_off" => (false, 0),
        "traceidratio" => (false, ratio()),
        "" | "parentbased_always_on" => (true, ALL),
        "parentbased_always_off" => (true, 0),
        "parentbased_traceidratio" => (true, ratio()),
        _ => {
            reading.ignored(
                "OTEL_TRACES_SAMPLER",
                "always_on, always_off, traceidratio, or one of them after parentbased_",
            );
            (true, ALL)
        }
    };
    Sampling {
        by_parent,
        per_million,
    }
}
