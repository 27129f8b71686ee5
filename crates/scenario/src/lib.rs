//! Load scenarios: what is sent when, and to what kind of provider. `vorrang-load` sends them, `vorrang simulate` runs them in virtual time.
//!
//! - [`scenario`]: the YAML file; some come with this crate.
//! - [`plan`]: the requests that it means, each with its time.
//! - [`settings`], [`faults`]: the provider.

pub mod amount;
pub mod faults;
pub mod plan;
pub mod scenario;
pub mod settings;
mod stretch;
