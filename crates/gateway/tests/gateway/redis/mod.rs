//! Every way in which a file or the environment names a Redis comes to one URL. What is expected of LiteLLM's settings was read off
//! `litellm/_redis.py`, `router_python_host.py`, `caching/caching.py` and `proxy/proxy_server.py` of LiteLLM 1.110.2.

mod refused;
mod sources;

use secrecy::{ExposeSecret, SecretString};
use vorrang_gateway::{Config, Loaded, RedisSettings};

use crate::safety::{MODEL, Variables, env, load, refused};

fn redis(rest: &str, variables: Variables) -> Option<RedisSettings> {
    match load(rest, variables) {
        Ok(loaded) => loaded.config.redis,
        Err(error) => panic!("{rest} {variables:?}: {error}"),
    }
}

fn url(rest: &str, variables: Variables) -> String {
    let redis = redis(rest, variables);
    let redis = redis.unwrap_or_else(|| panic!("{rest} {variables:?}: in memory"));
    redis.url.expose_secret().to_owned()
}

const HOST: &str = "host: h, port: 1, password: hunter2";

const NODES: &str = "[{host: h1, port: 1}, {host: h2}]";

#[test]
fn cluster_nodes_of_every_section_become_a_url() {
    for rest in [
        format!("vorrang_settings: {{redis_startup_nodes: {NODES}}}"),
        "vorrang_settings: {redis_startup_nodes: ['h1:1', h2]}".into(),
        format!("router_settings: {{redis_startup_nodes: {NODES}}}"),
        format!("router_settings: {{startup_nodes: {NODES}}}"),
        format!("router_settings: {{cache_kwargs: {{startup_nodes: {NODES}}}}}"),
        // LiteLLM needs a host and a port beside it, and does not use them.
        format!(
            "router_settings: {{redis_host: x, redis_port: 2, cache_kwargs: {{startup_nodes: {NODES}}}}}"
        ),
        format!("router_settings: {{redis_url: 'redis://x', startup_nodes: {NODES}}}"),
        format!("general_settings: {{coordination_redis: {{startup_nodes: {NODES}}}}}"),
        format!(
            "litellm_settings: {{cache: true, cache_params: {{type: redis, redis_startup_nodes: {NODES}}}}}"
        ),
        format!(
            "litellm_settings: {{cache: true, cache_params: {{type: redis, startup_nodes: {NODES}}}}}"
        ),
        "router_settings: {redis_startup_nodes: os.environ/NODES}".into(),
    ] {
        let nodes = [("NODES", r#"[{"host": "h1", "port": "1"}, {"host": "h2"}]"#)];
        assert_eq!(url(&rest, &nodes), "redis+cluster://h1:1,h2:6379", "{rest}");
    }
    let rest = format!(
        "router_settings: {{startup_nodes: {NODES}, redis_username: u@, redis_password: 'p:/', redis_db: 0, ssl: true}}"
    );
    assert_eq!(
        url(&rest, &[]),
        "rediss+cluster://u%40:p%3A%2F@h1:1,h2:6379"
    );
}

#[test]
fn sentinel_nodes_of_every_section_become_a_url() {
    let nodes = "sentinel_nodes: [[h1, 1], [h2, '2']], service_name: my master";
    for rest in [
        "vorrang_settings: {redis_sentinel_nodes: ['h1:1', {host: h2, port: 2}], redis_service_name: my master}".into(),
        format!("router_settings: {{{nodes}}}"),
        "router_settings: {redis_sentinel_nodes: [[h1, 1], [h2, 2]], redis_service_name: my master}".into(),
        format!("router_settings: {{redis_host: x, redis_port: 2, cache_kwargs: {{{nodes}}}}}"),
        format!("general_settings: {{coordination_redis: {{{nodes}}}}}"),
        format!("litellm_settings: {{cache: true, cache_params: {{type: redis, {nodes}}}}}"),
    ] {
        assert_eq!(
            url(&rest, &[]),
            "redis+sentinel://h1:1,h2:2/my%20master",
            "{rest}"
        );
    }
    let rest = "router_settings: {sentinel_nodes: [['::1', 26379], [h2]], service_name: s, redis_password: p, redis_db: 2, redis_ssl: true}";
    assert_eq!(
        url(rest, &[]),
        "rediss+sentinel://:p@[::1]:26379,h2:26379/s/2"
    );
}

#[test]
fn sentinels_have_a_user_and_a_password_of_their_own() {
    let sentinel = |rest: &str, variables: Variables| {
        let redis = redis(rest, variables).unwrap();
        let password = redis.sentinel_password;
        (
            redis.sentinel_username.unwrap_or_default(),
            password.map_or(String::new(), |password| {
                password.expose_secret().to_owned()
            }),
        )
    };
    let of = |user: &str, password: &str| (user.to_owned(), password.to_owned());
    let variable = [("REDIS_SENTINEL_PASSWORD", "v")];
    let nodes = "sentinel_nodes: [[h, 1]], service_name: s, redis_username: u, redis_password: p";
    let router = format!("router_settings: {{{nodes}}}");
    assert_eq!(sentinel(&router, &[]), of("", ""));
    // LiteLLM sends the servers' user with the sentinels' password.
    assert_eq!(sentinel(&router, &variable), of("u", "v"));
    let router = format!("router_settings: {{{nodes}, sentinel_password: f}}");
    assert_eq!(sentinel(&router, &variable), of("u", "f"));
    let ours = "redis_sentinel_nodes: ['h:1'], redis_service_name: s, redis_username: u";
    let with = format!("vorrang_settings: {{{ours}, redis_sentinel_password: f}}");
    assert_eq!(sentinel(&with, &variable), of("", "f"));
    let with = format!(
        "vorrang_settings: {{{ours}, redis_sentinel_password: f, redis_sentinel_username: n}}"
    );
    assert_eq!(sentinel(&with, &variable), of("n", "f"));
    let url = "vorrang_settings: {redis_url: 'redis+sentinel://u:p@h/s'}";
    assert_eq!(sentinel(url, &variable), of("", "v"));
    // Not to servers that are no sentinels.
    let plain = "vorrang_settings: {redis_url: 'redis://h', redis_sentinel_password: f}";
    assert_eq!(sentinel(plain, &variable), of("", ""));
    let warnings = load(plain, &[]).unwrap().warnings();
    assert!(
        warnings[0].contains("redis_sentinel_password: does nothing"),
        "{warnings:?}"
    );
}

#[test]
fn urls_of_every_topology_are_taken_as_they_are() {
    for url_of in [
        "redis://h",
        "rediss://u:p@h:1/2",
        "unix:///run/redis.sock",
        "redis+unix:///run/redis.sock",
        "redis+sentinel://u:p@h1:1,[::1]:2/service/3",
        "rediss+sentinel://h1,h2/service",
        "redis+cluster://u:p@h1:1,h2",
        "rediss+cluster://h1",
    ] {
        for rest in [
            format!("vorrang_settings: {{redis_url: '{url_of}'}}"),
            format!("router_settings: {{redis_url: '{url_of}'}}"),
            format!("router_settings: {{cache_kwargs: {{url: '{url_of}'}}}}"),
            format!("general_settings: {{coordination_redis: {{url: '{url_of}'}}}}"),
            format!(
                "litellm_settings: {{cache: true, cache_params: {{type: redis, url: '{url_of}'}}}}"
            ),
        ] {
            assert_eq!(url(&rest, &[]), url_of, "{rest}");
        }
        let redis = RedisSettings::from_url(&SecretString::from(url_of), "n", &env(&[])).unwrap();
        assert_eq!(redis.url.expose_secret(), url_of);
    }
}

#[test]
fn own_user_and_password_complete_a_url_without_them() {
    for (settings, expected) in [
        ("redis_url: 'redis://h:1/2'", "redis://u:p%40@h:1/2"),
        (
            "redis_url: 'redis+cluster://h1,h2'",
            "redis+cluster://u:p%40@h1,h2",
        ),
        (
            "redis_url: 'redis+sentinel://h/s'",
            "redis+sentinel://u:p%40@h/s",
        ),
    ] {
        let rest =
            format!("vorrang_settings: {{{settings}, redis_username: u, redis_password: p@}}");
        assert_eq!(url(&rest, &[]), expected);
        // The environment's are for LiteLLM's settings.
        let rest = format!("vorrang_settings: {{{settings}}}");
        let variables = [
            ("REDIS_USERNAME", "u"),
            ("REDIS_PASSWORD", "p"),
            ("REDIS_DB", "4"),
        ];
        assert!(!url(&rest, &variables).contains('@'));
    }
    let twice = "vorrang_settings: {redis_url: 'redis://:hunter2@h', redis_password: hunter2}";
    refused(
        twice,
        &[],
        &["c.yaml:4: vorrang_settings.redis_password", "once"],
    );
    let socket = "vorrang_settings: {redis_url: 'unix:///s', redis_password: hunter2}";
    refused(socket, &[], &["redis_password", "pass="]);
    let database = "vorrang_settings: {redis_url: 'redis://h', redis_db: 1}";
    refused(database, &[], &["redis_db", "in the URL"]);
}

#[test]
fn tls_of_the_cache_reaches_sentinels_and_clusters() {
    let cache = |more: &str| {
        format!(
            "litellm_settings: {{cache: true, cache_params: {{type: redis, ssl: true, {more}}}}}"
        )
    };
    assert_eq!(url(&cache("host: h"), &[]), "rediss://h:6379/0");
    assert_eq!(
        url(&cache("redis_startup_nodes: [h]"), &[]),
        "rediss+cluster://h:6379"
    );
    let sentinels = cache("sentinel_nodes: [[h, 1]], service_name: s");
    assert_eq!(url(&sentinels, &[]), "rediss+sentinel://h:1/s");
    refused(
        &cache("url: 'redis+cluster://h'"),
        &[],
        &["cache_params.ssl", "rediss+cluster"],
    );
    refused(
        &cache("host: h, ssl_min_version: 1"),
        &[],
        &["cache_params.ssl_min_version"],
    );
}

#[test]
fn plan_shows_topology_and_no_secret() {
    let rest = "vorrang_settings: {redis_sentinel_nodes: ['h1:1', 'h2:2'], redis_service_name: s, redis_username: hunter2, redis_password: hunter2, redis_sentinel_password: hunter2, redis_wait_replicas: 1}";
    let loaded = load(rest, &[]);
    let report = Loaded::report(&loaded);
    let config = loaded.unwrap().config;
    let plan = config.plan();
    for text in [&plan, &report] {
        assert!(text.contains("redis+sentinel://h1:1,h2:2/s"), "{text}");
    }
    assert!(plan.contains("each step waits for replicas: 1"), "{plan}");
    assert!(report.contains("\"wait_replicas\": 1"), "{report}");
    for text in [plan, report, format!("{config:?}")] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}
