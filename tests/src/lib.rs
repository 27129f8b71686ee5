//! The parts of the end-to-end tests in `tests/it`: the real `vorrang`, a real Redis and an OpenAI-compatible upstream as
//! processes of their own, clients for them, and a referee for what they report.
//!
//! Every process is killed by its id when its handle is dropped, also by a panic. It stays in the process group of the test, so
//! that a runner that ends a test ends its processes, too.

pub mod certificates;
pub mod client;
pub mod cluster;
pub mod gateway;
mod process;
pub mod prometheus;
pub mod redis;
pub mod referee;
pub mod relay;
pub mod sentinel;
pub mod upstream;
pub mod wait;

pub use certificates::Certificates;
pub use client::{Chat, Client, Reply};
pub use cluster::Cluster;
pub use gateway::{Gateway, Start, config};
pub use redis::Redis;
pub use relay::Relay;
pub use sentinel::{Announcer, Service};
pub use upstream::{Act, Seen, Upstream};
pub use wait::{until, until_within};
