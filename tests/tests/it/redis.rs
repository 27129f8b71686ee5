//! Where a standalone Redis may be: a socket, an address of IPv6, a database, behind a password of any characters.

use anyhow::{Context as _, Result, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use vorrang_tests::{Act, Chat, Gateway, Redis, Reply, Upstream, config, until};

/// All characters of ASCII that are neither letters, digits nor control characters, and some others.
const SPECIAL: &str = "p !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ %2F \u{fc}\u{20ac}";

/// Starts an instance with these settings, and makes a call that needs the step: the deployment has a limit.
pub(crate) async fn serves(router: &[&str], ours: &[&str]) -> Result<()> {
    let upstream = Upstream::start().await?;
    let ours = [&["lease_seconds: 0.6"], ours].concat();
    let gateway = Gateway::start(&config(&upstream.url(), &["rpm: 100"], router, &ours)).await?;
    gateway.client().chat(&Chat::new("one")).await?.ok()?;
    upstream.seen(1).await?;
    Ok(())
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Double quotes, as YAML and JSON have them alike.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A socket, without a port, and a database of it other than 0.
#[tokio::test]
async fn unix_socket_serves() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("redis.sock");
    let socket = socket.to_str().context("the path")?;
    let redis = Redis::with(&["--unixsocket", socket]).await?;
    for url in [
        format!("unix://{socket}"),
        format!("redis+unix://{socket}?db=5"),
    ] {
        serves(&[], &[&format!("redis_url: {url}")]).await?;
    }
    let databases = redis.command(&["INFO", "keyspace"]).await?;
    let databases: String = redis::from_redis_value(databases)?;
    ensure!(databases.contains("db0:") && databases.contains("db5:"));
    Ok(())
}

/// A password of all characters: in a URL, in the setting of its own, and of a socket.
#[tokio::test]
async fn password_of_special_characters_is_sent_as_it_is() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("redis.sock");
    let socket = socket.to_str().context("the path")?;
    let redis = Redis::with(&["--unixsocket", socket]).await?;
    let password = format!(">{SPECIAL}");
    // The default user last: the test has no password itself.
    let user = ["ACL", "SETUSER", "us:er@/", "on", "~*", "&*", "+@all"];
    redis.command(&[&user[..], &[&password]].concat()).await?;
    redis
        .command(&["CONFIG", "SET", "requirepass", SPECIAL])
        .await?;
    let port = redis.port();
    let (user, word) = (encoded("us:er@/"), encoded(SPECIAL));
    for url in [
        format!("redis://{user}:{word}@127.0.0.1:{port}"),
        format!("redis://:{word}@127.0.0.1:{port}/3"),
        format!("unix://{socket}?user={user}&pass={word}"),
    ] {
        serves(&[], &[&format!("redis_url: {}", quoted(&url))]).await?;
    }
    let (port, password) = (
        format!("redis_port: {port}"),
        format!("redis_password: {}", quoted(SPECIAL)),
    );
    let router = ["redis_host: 127.0.0.1", &port, &password];
    serves(&router, &[]).await?;
    serves(&[&router[..], &["redis_username: 'us:er@/'"]].concat(), &[]).await
}

#[tokio::test]
async fn server_at_an_address_of_ipv6_serves() -> Result<()> {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: this machine has no IPv6");
        return Ok(());
    }
    let redis = Redis::with(&["--bind", "::1", "127.0.0.1"]).await?;
    let port = redis.port();
    serves(&[], &[&format!("redis_url: 'redis://[::1]:{port}'")]).await?;
    let port = format!("redis_port: {port}");
    serves(&["redis_host: '::1'", &port], &[]).await
}

/// Two fleets of one namespace in two databases of one server. Channels of Redis are of no database: their names keep the fleets apart.
#[tokio::test]
async fn fleets_in_two_databases_share_nothing() -> Result<()> {
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    upstream.plan(&[], Act::hold()).await?;
    let mut fleets = Vec::new();
    for database in [1, 2] {
        let url = format!("redis_url: {}/{database}", redis.url());
        let ours = [url.as_str(), "lease_seconds: 2"];
        let limits = ["max_parallel_requests: 1"];
        fleets.push(Gateway::start(&config(&upstream.url(), &limits, &[], &ours)).await?);
    }
    let mut replies = Vec::new();
    for (index, fleet) in fleets.iter().enumerate() {
        replies.push(fleet.client().send(Chat::new(&format!("open-{index}"))));
        // Each has the limit for itself.
        upstream.seen(index + 1).await?;
    }
    replies.push(fleets[1].client().send(Chat::new("waiting")));
    fleets[1].waiting(1).await?;
    let waiting = get(&fleets[1], "/admin/groups/model/tickets").await?;
    let ticket = waiting["tickets"][0]["ticket"]
        .as_str()
        .context("a ticket")?;
    let path = format!("/admin/groups/model/tickets/{ticket}/cancel");
    let request = fleets[0].client().post(&path);
    let cancelled = Reply::of(request.json(&json!({"reason": "not of this fleet"}))).await?;
    ensure!(cancelled.status == 404, "{cancelled:?}");
    fleets[1].waiting(1).await?;
    for fleet in &fleets {
        let overview = get(fleet, "/admin/overview").await?;
        let instances = overview["instances"].as_array().context("instances")?;
        ensure!(instances.len() == 1, "{overview}");
    }
    let channels = || async {
        let channels = redis.command(&["PUBSUB", "CHANNELS", "*"]).await?;
        Ok(redis::from_redis_value::<Vec<String>>(channels)?)
    };
    let apart = |channels: &Vec<String>| {
        let all = |of: &str| channels.iter().filter(|name| name.contains(of)).count();
        (all(":db1:"), all(":db2:")) == (4, 4)
    };
    until("channels of two databases", channels, apart).await?;
    for reply in replies {
        reply.abort();
    }
    Ok(())
}

async fn get(gateway: &Gateway, path: &str) -> Result<Value> {
    gateway.client().get(path).await?.ok()?.json()
}
