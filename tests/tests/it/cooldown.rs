//! Upstreams that fail (A8, A9), mostly with two instances on one Redis.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::sleep;
use vorrang_tests::{Act, Chat, Gateway, Redis, Upstream, config, until, upstream::Fate};

struct Pair {
    _redis: Redis,
    upstream: Upstream,
    one: Gateway,
    two: Gateway,
}

impl Pair {
    async fn start() -> Result<Self> {
        Self::with(&[], &[]).await
    }

    async fn with(limits: &[&str], router: &[&str]) -> Result<Self> {
        let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
        let url = format!("redis_url: {}", redis.url());
        let config = config(&upstream.url(), limits, router, &[&url]);
        let (one, two) = (
            Gateway::start(&config).await?,
            Gateway::start(&config).await?,
        );
        Ok(Self {
            _redis: redis,
            upstream,
            one,
            two,
        })
    }

    /// Waits until both know that the deployment cools.
    async fn cooling(&self) -> Result<()> {
        for gateway in [&self.one, &self.two] {
            let look = || gateway.metric("vorrang_cooling_seconds", "");
            until("a cooldown", look, |left| *left > 0.0).await?;
        }
        Ok(())
    }
}

/// Long enough that a call which must not be made would be seen.
const A_WHILE: Duration = Duration::from_millis(500);

/// A8, A9: a 429 is retried when its Retry-After is over, with its first arrival. Meanwhile the other instance does not
/// call, either. Then the head probes, and the other tickets go only after its success.
#[tokio::test]
async fn cooldown_is_shared_and_ends_with_one_probe() -> Result<()> {
    let pair = Pair::start().await?;
    let busy = Act {
        retry_after: Some("2".into()),
        ..Act::fail(429)
    };
    pair.upstream.plan(&[busy], Act::hold()).await?;
    let first = pair.one.client().send(Chat::new("first"));
    pair.cooling().await?;
    let others = [
        pair.two.client().send(Chat::new("other")),
        pair.two.client().send(Chat::new("other").priority(1)),
        pair.one.client().send(Chat::new("other").priority(2)),
    ];
    pair.two.waiting(2).await?;
    let calls = pair.upstream.seen(2).await?;
    ensure!(calls[1].user() == "first", "the head probes: {calls:?}");
    let pause = Duration::from_micros(calls[1].at - calls[0].at);
    ensure!(pause >= Duration::from_secs(2), "{pause:?}");
    sleep(A_WHILE).await;
    pair.upstream.seen(2).await?;
    pair.two.waiting(2).await?;
    pair.upstream.release().await?;
    let first = first.await??.ok()?;
    ensure!(
        first.header("x-litellm-attempted-retries") == "1",
        "{first:?}"
    );
    for other in others {
        other.await??.ok()?;
    }
    pair.upstream.seen(5).await?;
    Ok(())
}

/// A9: a probe whose client disconnects proves nothing, and the next ticket may probe, on whichever instance it waits.
#[tokio::test]
async fn disconnect_of_the_probing_client_frees_the_probe() -> Result<()> {
    let pair = Pair::start().await?;
    let busy = Act {
        retry_after: Some("1".into()),
        ..Act::fail(429)
    };
    pair.upstream
        .plan(&[busy, Act::hold()], Act::default())
        .await?;
    let first = pair.one.client().send(Chat::new("first"));
    pair.cooling().await?;
    let next = pair.two.client().send(Chat::new("next"));
    let last = pair.two.client().send(Chat::new("last").priority(9));
    pair.two.waiting(2).await?;
    pair.upstream.seen(2).await?;
    first.abort();
    next.await??.ok()?;
    last.await??.ok()?;
    let calls = pair.upstream.seen(4).await?;
    let seen: Vec<_> = calls.iter().map(|call| (call.user(), call.fate)).collect();
    let expected = [
        ("first", Fate::Answered),
        ("first", Fate::Broken),
        ("next", Fate::Answered),
        ("last", Fate::Answered),
    ];
    ensure!(
        seen == expected.map(|(user, fate)| (user.to_owned(), fate)),
        "{seen:?}"
    );
    Ok(())
}

/// A9: when every deployment cools because of a 401, waiting calls get that error at once, on the other instance, too.
#[tokio::test]
async fn wrong_key_of_the_only_deployment_fails_all_waiting_calls_at_once() -> Result<()> {
    let pair = Pair::with(&["max_parallel_requests: 1"], &["cooldown_time: 60"]).await?;
    let refused = Act {
        hold: true,
        ..Act::fail(401)
    };
    pair.upstream.plan(&[], refused).await?;
    let first = pair.one.client().send(Chat::new("first"));
    pair.upstream.seen(1).await?;
    let waiting = [&pair.one, &pair.two].map(|gateway| gateway.client().send(Chat::new("waiting")));
    pair.one.waiting(1).await?;
    pair.two.waiting(1).await?;
    pair.upstream.release().await?;
    ensure!(first.await??.status == 401);
    for reply in waiting {
        let reply = reply.await??;
        ensure!(reply.status == 401, "{reply:?}");
        reply.error()?;
    }
    pair.cooling().await?;
    let later = pair.two.client().chat(&Chat::new("later")).await?;
    ensure!(later.status == 401, "{later:?}");
    // None of them waited for the end of the cooldown or called the upstream.
    ensure!(later.took < Duration::from_secs(10), "{later:?}");
    pair.upstream.seen(1).await?;
    Ok(())
}
