//! Routers on the memory backend, and upstreams that tests control. One binary: each links all of the gateway.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod beginning;
mod choosing;
mod coding;
mod config;
mod connections;
mod endpoints;
mod extremes;
mod fair;
mod fair_config;
mod fallbacks;
mod files;
mod forms;
mod forwarding;
mod golden;
mod groups;
mod keys;
mod large_bodies;
mod limits;
mod messages;
mod pausing;
mod providers;
mod request_defaults;
mod retrying;
mod safety;
mod scheduling;
mod slow_clients;
mod spill;
mod support;
mod tokens;
mod translated;
mod upstream_errors;
mod upstream_tls;
mod vertex;
mod waiting;
mod wildcards;
