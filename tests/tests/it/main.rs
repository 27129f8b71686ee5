//! End-to-end tests. Each names the lines of the contract (docs/protocol.md) it proves.

mod admin;
mod away;
mod clients;
mod compose;
mod cooldown;
mod counts;
mod demo;
mod deploy;
mod fleet;
mod lifecycle;
mod monitoring;
mod openapi;
mod order;
mod outage;
mod page;
mod python;
mod redis;
mod redis_rights;
mod redis_tls;
mod reference;
mod scheduling;
mod sdk;
mod tokens;
mod top;
mod wire;
