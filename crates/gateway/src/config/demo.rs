//! What runs without a configuration file.

use std::time::Duration;

use vorrang_scheduler::{LimitKind, Strategy, Timing, WhenAway};

use super::{
    About, AddressSettings, Config, DeploymentSettings, Exposure, GroupSettings, Serves, Target,
    deployment::limits::Windows,
};
use crate::request::edits::Edits;

pub(super) fn demo() -> Config {
    Config {
        version: "demo".into(),
        groups: vec![
            group(
                "demo",
                None,
                "Hello! This answer comes from Vorrang's built-in mock deployment, without limits.",
            ),
            group(
                "demo-limited",
                Some(6),
                "Hello! This one is allowed 6 requests a minute; the rest wait their turn.",
            ),
        ],
        accounts: Vec::new(),
        left_out: Vec::new(),
        aliases: Vec::new(),
        master_key: None,
        key_header: None,
        keys: Vec::new(),
        redis: None,
        namespace: "vorrang".into(),
        keepalive: super::KEEPALIVE,
        // As where a file has no keys.
        cors_origins: super::CorsOrigins::Local,
        max_body_bytes: 33_554_432,
        admin_port: None,
        shadow: None,
        tls: None,
        addresses: AddressSettings::default(),
        exposure: Exposure::default(),
        max_waiting_body_bytes: super::serve::bodies::MAX_WAITING_BODY_BYTES,
        client_write_timeout: super::resolve::CLIENT_WRITE_TIMEOUT,
        grace: Duration::from_secs(30),
        shutdown_delay: Duration::ZERO,
        strategy: Strategy::SimpleShuffle,
        window: Windows::default().length,
        timing: Timing::default(),
        timeout: Duration::from_secs(600),
        stream_timeout: None,
        models: Vec::new(),
        required_fields: Vec::new(),
        default_priority: None,
        num_retries: 2,
        fallbacks: crate::Fallbacks::default(),
        retry_after: Duration::ZERO,
        allowed_fails: 3,
        cooldown_time: Duration::from_secs(5),
        disable_cooldowns: false,
        refuse_late: false,
        when_redis_is_away: WhenAway::Wait,
        traces: None,
    }
}

fn group(name: &str, rpm: Option<u64>, response: &str) -> GroupSettings {
    GroupSettings {
        name: name.into(),
        wildcard: None,
        deployments: vec![DeploymentSettings {
            id: format!("{name}-mock"),
            state_id: format!("{name}-mock"),
            model: name.into(),
            about: About {
                model: name.into(),
                ..About::default()
            },
            target: Target::Mock {
                response: response.into(),
            },
            serves: Serves::All,
            edits: Edits::default(),
            limits: rpm
                .map(|rpm| Windows::default().limit("rpm", LimitKind::Requests, rpm, None))
                .into_iter()
                .collect(),
            cached_token_weight: 1.0,
            weight: None,
            order: None,
            price: None,
            timeout: None,
            stream_timeout: None,
            num_retries: None,
            cooldown_time: None,
            keepalive: None,
        }],
        passes_headers: false,
        default_priority: None,
        max_queue_depth: None,
        pace_worse_than: None,
        reserve: None,
        aging: None,
        fair: None,
        spill: None,
    }
}
