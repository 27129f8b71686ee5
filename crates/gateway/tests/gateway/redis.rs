//! Every way in which a file or the environment names a Redis comes to one URL. What is expected of LiteLLM's settings was read off
//! `litellm/_redis.py`, `router_python_host.py`, `caching/caching.py` and `proxy/proxy_server.py` of LiteLLM 1.110.2.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use vorrang_gateway::{Config, ConfigError, Loaded, RedisSettings};

const MODEL: &str =
    "model_list:\n- model_name: m\n  litellm_params: {model: gpt, mock_response: hi, rpm: 3}\n";

type Variables<'a> = &'a [(&'a str, &'a str)];

fn env(variables: Variables) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    variables.iter().map(owned).collect()
}

fn load(rest: &str, variables: Variables) -> Result<Loaded, ConfigError> {
    Config::parse(&format!("{MODEL}{rest}\n"), "c.yaml", &env(variables))
}

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

/// The error, which has to contain each of these words and no secret.
fn refused(rest: &str, variables: Variables, words: &[&str]) {
    let error = match load(rest, variables) {
        Err(error) => error.to_string(),
        Ok(loaded) => panic!("{rest} {variables:?} is taken: {}", loaded.config.plan()),
    };
    for word in words {
        assert!(error.contains(word), "{rest}: {word} in {error}");
    }
    assert!(!error.contains("hunter2"), "{error}");
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
        // A cluster of the file is what its author sees.
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
    let both = ["REDIS_CLUSTER_NODES", "REDIS_SENTINEL_NODES"];
    refused(host, &[cluster, sentinels], &both);
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
