//! Routers on the memory backend, and upstreams that tests control. One binary: each links all of the gateway.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot be set up fails"
)]

mod bedrock;
mod beginning;
mod cache_points;
mod choosing;
mod coding;
mod config;
mod connections;
mod endpoints;
mod entra;
mod examples;
mod extremes;
mod fair;
mod fair_config;
mod fallbacks;
mod files;
mod fleet;
mod forms;
mod forwarding;
mod golden;
mod groups;
mod keys;
mod large_bodies;
mod limits;
mod litellm_settings;
mod messages;
mod metadata;
mod native_fields;
mod passed_headers;
mod pausing;
mod permit;
mod providers;
mod proxies;
mod redis;
mod reload;
mod request_defaults;
mod resources;
mod responses;
mod retrying;
mod safety;
mod scheduling;
mod sdk;
mod slow_clients;
mod spill;
mod support;
mod tokens;
mod translated;
mod upstream_calls;
mod upstream_errors;
mod upstream_tls;
mod vertex;
mod waiting;
mod wildcards;
