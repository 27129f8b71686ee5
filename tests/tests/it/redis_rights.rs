//! A user with the rights of docs/redis.md and no others: a fleet is served, and a right that is missing is named.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use redis::{Client, Value, from_redis_value};
use vorrang_tests::{Chat, Gateway, Redis, Upstream, config, until};

/// What the gateway does without, as the document says: it serves, and is ready.
const DISPENSABLE: [&str; 7] = [
    "function|load", // The library is there.
    "config|get",    // INFO says it, too.
    "publish",       // Wakes are lost, which costs time.
    "subscribe",
    "select", // The database is 0.
    "unwatch",
    "ping",
];

/// The words that follow `ACL SETUSER vorrang` in docs/redis.md: the rights of a user on a server with functions.
fn documented() -> Result<Vec<String>> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/redis.md");
    let page = fs::read_to_string(page)?;
    let (_, rest) = page
        .split_once("\n    ACL SETUSER vorrang ")
        .context("the rights")?;
    let lines = rest.lines().take_while(|line| !line.is_empty());
    let words = lines.flat_map(str::split_whitespace);
    Ok(words.map(|word| word.replace("PASSWORD", "pass")).collect())
}

/// A server whose default user is off.
struct Guarded {
    redis: Redis,
    admin: redis::aio::MultiplexedConnection,
}

impl Guarded {
    async fn start() -> Result<Self> {
        let redis = Redis::start().await?;
        let mut own = redis.connection().await?;
        let admin: Vec<&str> = "ACL SETUSER admin on >admin ~* &* +@all"
            .split(' ')
            .collect();
        command(&mut own, &admin).await?;
        let address = redis.url().replace("//", "//admin:admin@");
        let mut guarded = Self {
            admin: Client::open(address)?
                .get_multiplexed_async_connection()
                .await?,
            redis,
        };
        guarded.run(&["ACL", "SETUSER", "default", "off"]).await?;
        let rights = documented()?;
        let words = rights.iter().map(String::as_str);
        let user: Vec<&str> = ["ACL", "SETUSER", "vorrang"]
            .into_iter()
            .chain(words)
            .collect();
        guarded.run(&user).await?;
        Ok(guarded)
    }

    async fn run(&mut self, words: &[&str]) -> Result<Value> {
        command(&mut self.admin, words).await
    }

    fn config(&self, upstream: &Upstream) -> String {
        let url = self.redis.url().replace("//", "//vorrang:pass@");
        let url = format!("redis_url: {url}");
        let ours = [url.as_str(), "lease_seconds: 0.6"];
        config(
            &upstream.url(),
            &["rpm: 1000", "max_parallel_requests: 1"],
            &[],
            &ours,
        )
    }
}

async fn command(
    connection: &mut redis::aio::MultiplexedConnection,
    words: &[&str],
) -> Result<Value> {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let answer = command.query_async(connection).await;
    answer.with_context(|| words.join(" "))
}

/// Two instances, more calls than may be open, an operator's questions: Redis refuses nothing that they ask for.
#[tokio::test]
async fn fleet_with_the_documented_rights_is_refused_nothing() -> Result<()> {
    let mut guarded = Guarded::start().await?;
    let upstream = Upstream::start().await?;
    let config = guarded.config(&upstream);
    let fleet = [
        Gateway::start(&config).await?,
        Gateway::start(&config).await?,
    ];
    let send = |index: usize| {
        let chat = Chat::new(&format!("r{index}"));
        fleet[index % 2].client().send(chat)
    };
    let replies: Vec<_> = (0..20).map(send).collect();
    for reply in replies {
        reply.await??.ok()?;
    }
    let overview = || async { fleet[0].client().get("/admin/overview").await?.ok()?.json() };
    let both = |seen: &serde_json::Value| {
        seen["instances"]
            .as_array()
            .is_some_and(|all| all.len() == 2)
    };
    until("both instances", overview, both).await?;
    let log: Vec<Vec<Value>> = from_redis_value(guarded.run(&["ACL", "LOG"]).await?)?;
    // What a client says of itself may be refused.
    let refused = log.iter().map(|entry| format!("{entry:?}"));
    let refused: Vec<String> = refused
        .filter(|entry| !entry.contains("client|setinfo"))
        .collect();
    ensure!(refused.is_empty(), "{refused:#?}");
    Ok(())
}

/// Each right is taken away and given back under a running instance. Either calls are served all the same, or readiness names the right.
#[tokio::test]
async fn each_missing_right_is_named_or_dispensable() -> Result<()> {
    let mut guarded = Guarded::start().await?;
    let upstream = Upstream::start().await?;
    let gateway = Gateway::start(&guarded.config(&upstream)).await?;
    let readiness = || gateway.client().get("/health/readiness");
    let mut named = Vec::new();
    for right in documented()?
        .iter()
        .filter_map(|word| word.strip_prefix('+'))
    {
        let (taken, given) = (format!("-{right}"), format!("+{right}"));
        guarded.run(&["ACL", "SETUSER", "vorrang", &taken]).await?;
        // Subscriptions begin anew.
        guarded.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await?;
        let call = gateway.client().send(Chat::new(right));
        let outcome = || async {
            let reply = readiness().await?;
            Ok((reply.status, call.is_finished(), reply.text))
        };
        // Without functions the script is tried, and named.
        let word = match right {
            "fcall" | "function|load" => "evalsha",
            right => right,
        };
        // Redis 7.0 does not name a command that the step calls.
        // INFO is looked at every five seconds.
        let is_info = right == "info";
        let settled = |(status, served, text): &(u16, bool, String)| {
            let named = text.contains(word) || text.contains("can't run this command");
            *status == 200 && *served && !is_info || *status == 503 && named
        };
        let (status, ..) = until(&format!("an outcome without {right}"), outcome, settled).await?;
        if status == 503 {
            named.push(right.to_owned());
        } else if DISPENSABLE.contains(&right) {
            gateway.client().chat(&Chat::new("again")).await?.ok()?;
        }
        guarded.run(&["ACL", "SETUSER", "vorrang", &given]).await?;
        call.await??.ok()?;
        gateway.ready().await?;
    }
    for right in DISPENSABLE {
        ensure!(
            !named.iter().any(|named| named == right),
            "{right}: {named:?}"
        );
    }
    for right in ["fcall", "info", "time", "hmget", "hset", "zadd"] {
        ensure!(
            named.iter().any(|named| named == right),
            "{right} is not named: {named:?}"
        );
    }
    Ok(())
}

/// Without rights to its keys or its channels; without a user, with a wrong password, with a user that is off.
#[tokio::test]
async fn user_that_redis_refuses_is_named_and_served_once_it_may() -> Result<()> {
    let mut guarded = Guarded::start().await?;
    let upstream = Upstream::start().await?;
    let gateway = Gateway::start(&guarded.config(&upstream)).await?;
    let kill = ["CLIENT", "KILL", "USER", "vorrang"];
    for (taken, given, word) in [
        (vec!["resetkeys"], vec!["~vorrang:*"], "key"),
        (vec!["off"], vec!["on"], "password"),
        (
            vec!["resetpass", ">other"],
            vec!["resetpass", ">pass"],
            "password",
        ),
    ] {
        let user = |words: &[&'static str]| [&["ACL", "SETUSER", "vorrang"], words].concat();
        guarded.run(&user(&taken)).await?;
        guarded.run(&kill).await?;
        let call = gateway.client().send(Chat::new("waits"));
        let readiness = || gateway.client().get("/health/readiness");
        let named = until(word, readiness, |reply| {
            reply.status == 503 && reply.text.contains(word)
        });
        let reply = named.await.with_context(|| format!("{taken:?}"))?;
        ensure!(!reply.text.contains("pass@") && !gateway.log()?.contains("pass@"));
        guarded.run(&user(&given)).await?;
        call.await??.ok()?;
        gateway.ready().await?;
    }
    // The default user, which is off.
    let config = guarded.config(&upstream).replace("vorrang:pass@", "");
    let gateway = Gateway::launch(&config, &[]).await?;
    let readiness = || gateway.client().get("/health/readiness");
    until("the cause", readiness, |reply| {
        reply.status == 503 && reply.text.contains("password")
    })
    .await?;
    Ok(())
}
