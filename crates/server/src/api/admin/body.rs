//! What comes with a request of an operator: names in the path, a query, a JSON body.

use std::collections::HashMap;

use axum::{
    RequestExt as _,
    extract::{Path, Query, Request},
};
use http::header;
use serde::de::DeserializeOwned;

use crate::{api::hosts, app::App, failure::Failure, request_body};

/// Far more than any action takes.
const LARGEST: usize = 64 * 1024;

/// The names in a request's path, and its query.
pub(super) struct Asked {
    names: HashMap<String, String>,
    query: Vec<(String, String)>,
}

impl Asked {
    pub(super) async fn of(request: &mut Request) -> Result<Self, Failure> {
        let names = request.extract_parts::<Path<HashMap<String, String>>>();
        let names = names.await.map(|Path(names)| names);
        let query = request.extract_parts::<Query<Vec<(String, String)>>>();
        let query = query.await.map(|Query(query)| query);
        Ok(Self {
            names: names.map_err(|_| Failure::invalid("The path is not UTF-8"))?,
            query: query.map_err(|error| Failure::invalid(error.body_text()))?,
        })
    }

    /// Whether the query has only these parameters, and each once: a typing error would look like an answer.
    pub(super) fn expects(&self, known: &[&str]) -> Result<(), Failure> {
        for (index, (name, _)) in self.query.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let text = match known {
                    [] => format!("Query parameter {name}: none is known here"),
                    known => {
                        let known = known.join(", ");
                        format!("Query parameter {name} is unknown; known ones are {known}")
                    }
                };
                return Err(Failure::invalid(text));
            }
            if self.query[..index].iter().any(|(other, _)| other == name) {
                let text = format!("Query parameter {name} comes more than once");
                return Err(Failure::invalid(text));
            }
        }
        Ok(())
    }

    /// A name in the path.
    pub(super) fn name(&self, name: &str) -> &str {
        self.names.get(name).map_or("", String::as_str)
    }

    /// A parameter of the query. An empty one is none, as pages send it.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let mut query = self.query.iter();
        let (_, value) = query.find(|(known, _)| known == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// A parameter that is a number.
    pub(super) fn number<T: std::str::FromStr>(
        &self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, Failure> {
        let parse = |text: &str| {
            text.parse().map_err(|_| {
                Failure::invalid(format!("Query parameter {name}: expected {expected}"))
            })
        };
        self.text(name).map(parse).transpose()
    }
}

/// The JSON object of an action; an empty body is an empty object. It has to say that it is JSON: the page of another site may have a
/// browser send other types without asking this server first.
pub(super) async fn json<T: DeserializeOwned>(app: &App, request: Request) -> Result<T, Failure> {
    let headers = request.headers();
    if !headers.contains_key(header::CONTENT_TYPE) {
        return Err(Failure::unsupported_media_type());
    }
    hosts::content_type(headers, false)?;
    let live = app.live();
    let mut limits = live.body_limits;
    limits.size = limits.size.min(LARGEST);
    let mut held = live.body_budget.hold(None);
    let bytes = request_body::read(&mut request.into_body(), limits, &mut held).await?;
    let bytes = if bytes.trim_ascii().is_empty() {
        b"{}"
    } else {
        &bytes[..]
    };
    // Field by field, an array would be read as an object too.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Failure::invalid("The body is not a JSON object"));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Failure::invalid(format!("The body is not what is expected: {error}")))
}
