//! What names two Redis, half of one, or one that would not be shared.

use super::*;

#[test]
fn redis_that_only_litellm_would_share_is_refused_where_limits_are() {
    let place = ["c.yaml:4: litellm_settings.cache_params:", "redis_url"];
    for params in [
        // The cache is not on.
        format!("cache_params: {{type: redis, {HOST}}}"),
        // It names no Redis.
        "cache: true, cache_params: {type: redis}".into(),
        "cache: true, cache_params: {type: os.environ/TYPE, ttl: 5}".into(),
    ] {
        let rest = format!("litellm_settings: {{{params}}}");
        refused(&rest, &[("TYPE", "redis")], &place);
        let free = format!("{}{rest}", MODEL.replace(", rpm: 3", ""));
        let loaded = Config::parse(&free, "c.yaml", &env(&[("TYPE", "redis")])).unwrap();
        let warnings = loaded.warnings();
        assert!(
            warnings.iter().any(|one| one.contains("cache_params")),
            "{warnings:?}"
        );
    }
    for name in [
        "REDIS_URL",
        "REDIS_HOST",
        "REDIS_CLUSTER_NODES",
        "REDIS_SENTINEL_NODES",
    ] {
        let variables = &[(name, "redis://u:hunter2@h")];
        refused("", variables, &[name, "redis_url: memory"]);
        let other = "litellm_settings: {cache: true, cache_params: {type: local}}";
        refused(other, variables, &[name, "redis_url: memory"]);
        let free = MODEL.replace(", rpm: 3", "");
        let loaded = Config::parse(&free, "c.yaml", &env(variables)).unwrap();
        assert!(
            loaded.warnings()[0].contains(name),
            "{:?}",
            loaded.warnings()
        );
    }
    let rest = "general_settings: {coordination_redis: {port: 1}}";
    refused(
        rest,
        &[],
        &["c.yaml:4: general_settings.coordination_redis:", "host"],
    );
}

#[test]
fn contradictory_topologies_are_refused() {
    let sentinels = "[[h, 1]]";
    for (rest, words) in [
        (
            format!("router_settings:\n  startup_nodes: {NODES}\n  sentinel_nodes: {sentinels}"),
            [
                "c.yaml:6: router_settings.sentinel_nodes",
                "router_settings.startup_nodes",
            ],
        ),
        (
            format!("vorrang_settings:\n  redis_startup_nodes: {NODES}\n  redis_url: redis://h"),
            [
                "c.yaml:5: vorrang_settings.redis_startup_nodes",
                "vorrang_settings.redis_url",
            ],
        ),
        (
            format!("vorrang_settings:\n  redis_sentinel_nodes: {sentinels}"),
            [
                "c.yaml:5: vorrang_settings.redis_sentinel_nodes",
                "redis_service_name",
            ],
        ),
        (
            format!("router_settings:\n  cache_kwargs:\n    sentinel_nodes: {sentinels}"),
            [
                "c.yaml:6: router_settings.cache_kwargs.sentinel_nodes",
                "service_name",
            ],
        ),
        (
            "router_settings: {redis_host: h, service_name: s}".into(),
            ["c.yaml:4: router_settings.service_name", "sentinel_nodes"],
        ),
        (
            "vorrang_settings: {redis_service_name: s}".into(),
            [
                "c.yaml:4: vorrang_settings.redis_service_name",
                "redis_sentinel_nodes",
            ],
        ),
        (
            format!("router_settings:\n  startup_nodes: {NODES}\n  redis_db: 1"),
            ["c.yaml:6: router_settings.redis_db", "expected 0"],
        ),
        (
            format!("router_settings: {{redis_startup_nodes: [{{{HOST}}}]}}"),
            [
                "c.yaml:4: router_settings.redis_startup_nodes",
                "same user and password",
            ],
        ),
        (
            "router_settings: {redis_startup_nodes: 'h1:1,h2:2'}".into(),
            ["c.yaml:4: router_settings.redis_startup_nodes", "list"],
        ),
        (
            "router_settings: {sentinel_nodes: [[h, x]], service_name: s}".into(),
            ["c.yaml:4: router_settings.sentinel_nodes", "[HOST, PORT]"],
        ),
        (
            format!("router_settings: {{redis_host: h, redis_cluster_nodes: {NODES}}}"),
            [
                "c.yaml:4: router_settings.redis_cluster_nodes",
                "redis_startup_nodes",
            ],
        ),
        (
            "vorrang_settings: {redis_host: h}".into(),
            ["c.yaml:4: vorrang_settings.redis_host", "unknown setting"],
        ),
        (
            "vorrang_settings: {redis_cluster: {}}".into(),
            [
                "c.yaml:4: vorrang_settings.redis_cluster",
                "unknown setting",
            ],
        ),
        (
            "vorrang_settings: {redis_wait_replicas: 1}".into(),
            ["c.yaml:4: vorrang_settings.redis_wait_replicas", "Redis"],
        ),
        (
            "vorrang_settings: {redis_url: memory, redis_wait_replicas: 1}".into(),
            ["c.yaml:4: vorrang_settings.redis_wait_replicas", "Redis"],
        ),
    ] {
        refused(&rest, &[], &words);
    }
    let cluster = ("REDIS_CLUSTER_NODES", r#"["hunter2"]"#);
    let sentinels = ("REDIS_SENTINEL_NODES", r#"[["hunter2", 1]]"#);
    let host = "router_settings: {redis_host: h}";
    let nodes = "router_settings: {sentinel_nodes: [[h, 1]], service_name: s}";
    refused(
        nodes,
        &[cluster],
        &["sentinel_nodes", "REDIS_CLUSTER_NODES"],
    );
    refused(
        host,
        &[sentinels],
        &["REDIS_SENTINEL_NODES", "service_name"],
    );
    refused(
        host,
        &[cluster, ("REDIS_DB", "2")],
        &["REDIS_DB", "expected 0"],
    );
    refused(
        host,
        &[("REDIS_CLUSTER_NODES", "hunter2")],
        &["REDIS_CLUSTER_NODES", "list"],
    );
}

#[test]
fn credentials_made_anew_are_refused_in_every_section() {
    for rest in [
        "router_settings: {startup_nodes: [h], cache_kwargs: {aws_iam_auth: true}}",
        "general_settings: {coordination_redis: {host: h, aws_iam_auth: true}}",
        "litellm_settings: {cache: true, cache_params: {type: redis, host: h, gcp_service_account: a}}",
        "litellm_settings: {cache: true, cache_params: {type: redis, host: h, azure_redis_ad_token: true}}",
    ] {
        refused(rest, &[], &["c.yaml:4: ", "redis_password"]);
    }
}

#[test]
fn unusable_redis_of_a_cache_is_refused_only_where_limits_are() {
    for params in [
        "host: h, port: os.environ/PORT",
        "host: os.environ/UNSET",
        "url: os.environ/PORT",
        "host: h, aws_iam_auth: true",
        "host: h, ssl_ca_path: /certificates",
        "host: h, ssl_ca_certs: /not/there",
        "redis_startup_nodes: os.environ/PORT",
    ] {
        let rest =
            format!("litellm_settings: {{cache: true, cache_params: {{type: redis, {params}}}}}");
        let variables = [("PORT", "hunter2")];
        refused(
            &rest,
            &variables,
            &["c.yaml:4: litellm_settings.cache_params."],
        );
        let free = format!("{}{rest}", MODEL.replace(", rpm: 3", ""));
        let loaded = Config::parse(&free, "c.yaml", &env(&variables)).unwrap();
        assert!(loaded.config.redis.is_none());
        let warnings = loaded.warnings().join(" ");
        let words =
            "c.yaml:4: litellm_settings.cache_params: the cache's Redis cannot be the queue's";
        assert!(warnings.contains(words), "{warnings}");
        assert!(!warnings.contains("hunter2"), "{warnings}");
    }
}
