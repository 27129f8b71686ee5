//! Which section, and which variable, names the queue's Redis.

use super::*;

#[test]
fn environment_completes_litellms_settings_by_litellms_order() {
    let cluster = ("REDIS_CLUSTER_NODES", r#"[{"host": "c", "port": 7}]"#);
    let sentinels = ("REDIS_SENTINEL_NODES", r#"[["s", 8]]"#);
    let service = ("REDIS_SERVICE_NAME", "service");
    let all = [
        ("REDIS_URL", "redis://url"),
        ("REDIS_HOST", "host"),
        ("REDIS_PORT", "9"),
        ("REDIS_PASSWORD", "p"),
        ("REDIS_USERNAME", "u"),
        ("REDIS_DB", "4"),
    ];
    let with = |more: &[(&'static str, &'static str)]| [&all[..], more].concat();
    for (rest, variables, expected) in [
        // A host of the file comes before a URL of the environment, which completes it.
        (
            "router_settings: {redis_host: h}",
            with(&[]),
            "redis://u:p@h:9/4",
        ),
        (
            "router_settings: {redis_host: h, redis_port: 1, redis_password: f, redis_username: g, redis_db: 0}",
            with(&[]),
            "redis://g:f@h:1/0",
        ),
        (
            "general_settings: {coordination_redis: {host: h}}",
            with(&[]),
            "redis://u:p@h:9/4",
        ),
        // A URL is complete but for the user of a password.
        (
            "router_settings: {redis_url: 'redis://h/1'}",
            with(&[]),
            "redis://h/1",
        ),
        (
            "router_settings: {redis_url: 'redis://:f@h/1'}",
            with(&[]),
            "redis://u:f@h/1",
        ),
        // A cluster comes before all.
        (
            "router_settings: {redis_host: h}",
            vec![cluster],
            "redis+cluster://c:7",
        ),
        (
            "router_settings: {redis_url: 'redis://h'}",
            vec![cluster],
            "redis+cluster://c:7",
        ),
        (
            "litellm_settings: {cache: true}",
            vec![all[0], cluster],
            "redis+cluster://c:7",
        ),
        // Sentinels come before a host and after a URL.
        (
            "router_settings: {redis_host: h}",
            vec![sentinels, service],
            "redis+sentinel://s:8/service",
        ),
        (
            "router_settings: {redis_url: 'redis://h'}",
            vec![sentinels, service],
            "redis://h",
        ),
        (
            "router_settings: {redis_host: h}",
            vec![cluster, sentinels],
            "redis+cluster://c:7",
        ),
        (
            "router_settings: {startup_nodes: [h]}",
            vec![sentinels, service],
            "redis+cluster://h:6379",
        ),
        // The cache of the environment.
        (
            "litellm_settings: {cache: true, cache_params: {type: redis}}",
            with(&[]),
            "redis://url",
        ),
        (
            "litellm_settings: {cache: true, cache_params: {type: redis}}",
            all[1..].to_vec(),
            "redis://u:p@host:9/4",
        ),
        (
            "litellm_settings: {cache: true, cache_params: {type: redis, host: h}}",
            with(&[]),
            "redis://u:p@h:9/4",
        ),
        // Without parameters the host comes first.
        (
            "litellm_settings: {cache: true}",
            with(&[]),
            "redis://u:p@host:9/4",
        ),
        (
            "litellm_settings: {cache: true}",
            all[..1].to_vec(),
            "redis://url",
        ),
        // What Kubernetes sets for a service that is called redis.
        (
            "router_settings: {redis_host: h}",
            vec![("REDIS_PORT", "tcp://10.0.0.1:6379")],
            "redis://h:6379/0",
        ),
        // What our section says comes before it.
        (
            "vorrang_settings: {redis_url: 'redis://h'}",
            vec![cluster, sentinels],
            "redis://h",
        ),
    ] {
        assert_eq!(url(rest, &variables), expected, "{rest} {variables:?}");
    }
    assert_eq!(
        redis("vorrang_settings: {redis_url: memory}", &[cluster]).map(|_| ()),
        None
    );
}

#[test]
fn first_section_that_names_a_redis_counts() {
    let sections = [
        "vorrang_settings: {redis_url: 'redis://ours'}",
        "router_settings: {redis_host: router}",
        "general_settings: {coordination_redis: {host: coordination}}",
        "litellm_settings: {cache: true, cache_params: {type: redis, host: cache}}",
    ];
    let hosts = ["ours", "router", "coordination", "cache"];
    for (index, host) in hosts.iter().enumerate() {
        let url = url(
            &sections[index..].join("\n"),
            &[("REDIS_URL", "redis://environment")],
        );
        assert!(url.contains(host), "{url}");
    }
    let others = sections[1..].join("\n");
    let in_memory = format!("{others}\nvorrang_settings: {{redis_url: memory}}");
    let loaded = load(&in_memory, &[]).unwrap();
    assert!(loaded.config.redis.is_none());
    let unused = "router_settings.redis_host: is not used; vorrang_settings.redis_url is";
    let warnings = loaded.warnings();
    assert!(
        warnings.iter().any(|one| one.contains(unused)),
        "{warnings:?}"
    );
}

#[test]
fn caches_without_a_redis_that_litellm_shares_are_not_the_queues() {
    for rest in [
        "litellm_settings: {cache: true, cache_params: {type: local}}",
        "litellm_settings: {cache: true, cache_params: {type: s3, s3_bucket_name: b}}",
        "litellm_settings: {cache: true, cache_params: {type: redis-semantic, redis_url: x, host: h}}",
        "litellm_settings: {cache: true, cache_params: {type: redis-semantic, host: h}}",
        "litellm_settings: {cache: false, cache_params: {type: redis, host: h}}",
        "litellm_settings: {cache: true, cache_params: {ttl: 600}}",
        "litellm_settings: {cache: true}",
    ] {
        assert!(redis(rest, &[]).is_none(), "{rest}");
    }
    // LiteLLM has a cache without a type in memory; whoever names a host means it.
    let rest = "litellm_settings: {cache: true, cache_params: {host: h}}";
    assert_eq!(url(rest, &[]), "redis://h:6379/0");
}

#[test]
fn namespace_of_litellms_redis_is_the_queues() {
    let namespace = |rest: &str| load(rest, &[]).unwrap().config.namespace;
    let cache = "litellm_settings: {cache: true, cache_params: {type: redis, host: h, namespace: 'team:a'}}";
    assert_eq!(namespace(cache), "team:a");
    let kwargs = "router_settings: {redis_host: h, cache_kwargs: {namespace: b}}";
    assert_eq!(namespace(kwargs), "b");
    // It belongs to that Redis.
    assert_eq!(
        namespace(&format!("{cache}\nrouter_settings: {{redis_host: h}}")),
        "vorrang"
    );
    assert_eq!(
        namespace(&format!("{cache}\nvorrang_settings: {{redis_url: memory}}")),
        "vorrang"
    );
    let own = format!("{cache}\nvorrang_settings: {{redis_namespace: own}}");
    assert_eq!(namespace(&own), "own");
    let braces = cache.replace("team:a", "{a}");
    refused(&braces, &[], &["cache_params.namespace", "redis_namespace"]);
}

#[test]
fn url_without_a_file_is_completed_by_the_environment() {
    let of = |url: &str, variables: Variables| {
        RedisSettings::from_url(&SecretString::from(url), "n", &env(variables))
    };
    let redis = of("redis+sentinel://h/s", &[("REDIS_SENTINEL_PASSWORD", "p")]).unwrap();
    assert_eq!(redis.sentinel_password.unwrap().expose_secret(), "p");
    assert_eq!(redis.namespace, "n");
    let clear = of("redis+sentinel://h/s", &[("REDIS_SSL", "true")]).unwrap_err();
    assert!(clear.to_string().contains("REDIS_SSL"), "{clear}");
    let wrong = of("redis+sentinel://:hunter2@h", &[])
        .unwrap_err()
        .to_string();
    assert!(
        wrong.contains("--redis-url") && !wrong.contains("hunter2"),
        "{wrong}"
    );
}
