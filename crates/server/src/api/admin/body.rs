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
    query: HashMap<String, String>,
}

impl Asked {
    pub(super) async fn of(request: &mut Request) -> Result<Self, Failure> {
        let names = request.extract_parts::<Path<HashMap<String, String>>>();
        let names = names.await.map(|Path(names)| names);
        let query = request.extract_parts::<Query<HashMap<String, String>>>();
        let query = query.await.map(|Query(query)| query);
        Ok(Self {
            names: names.map_err(|_| Failure::invalid("The path is not UTF-8"))?,
            query: query.map_err(|error| Failure::invalid(error.body_text()))?,
        })
    }

    /// A name in the path.
    pub(super) fn name(&self, name: &str) -> &str {
        self.names.get(name).map_or("", String::as_str)
    }

    /// A parameter of the query. An empty one is none, as pages send it.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let value = self.query.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
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
    let bytes = request_body::read(request.into_body(), limits, &mut held).await?;
    let bytes = if bytes.trim_ascii().is_empty() {
        b"{}"
    } else {
        &bytes[..]
    };
    serde_json::from_slice(bytes)
        .map_err(|error| Failure::invalid(format!("The body is not what is expected: {error}")))
}
