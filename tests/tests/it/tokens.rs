//! Tokens by kind: reserved before a call, corrected by what an upstream reports (5 of input and 3 of output for each call).

use anyhow::{Result, ensure};
use vorrang_tests::{Act, Chat, Gateway, Redis, Upstream, config, until};

/// A2, A3: the maximum of an answer delays other requests in the whole fleet until the answer turns out to be shorter.
/// Input is counted separately.
#[tokio::test]
async fn reserved_output_tokens_are_freed_down_to_actual_usage() -> Result<()> {
    let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
    let url = format!("redis_url: {}", redis.url());
    let config = config(&upstream.url(), &["itpm: 1000", "otpm: 100"], &[], &[&url]);
    let (one, two) = (
        Gateway::start(&config).await?,
        Gateway::start(&config).await?,
    );
    upstream.plan(&[Act::hold()], Act::default()).await?;
    let long = one.client().send(Chat::new("long").with("max_tokens", 100));
    upstream.seen(1).await?;

    let late = Chat::new("late").with("max_tokens", 97);
    let late = two.client().chat(&late.with("timeout", 0.5)).await?;
    let message = late.error()?;
    ensure!(late.status == 408, "{late:?}");
    ensure!(
        message.contains("room for output tokens (otpm)"),
        "{message}"
    );

    upstream.release().await?;
    long.await??.ok()?;
    let next = Chat::new("next").with("max_tokens", 97);
    two.client().chat(&next).await?.ok()?;
    for (kind, expected) in [
        ("output_tokens", 6.0),
        ("input_tokens", 10.0),
        ("tokens", 16.0),
    ] {
        let labels = format!("kind=\"{kind}\"");
        let used = || two.metric("vorrang_used", &labels);
        until(kind, used, |used| *used == expected).await?;
    }
    let limit = two
        .metric("vorrang_limit", "kind=\"output_tokens\"")
        .await?;
    ensure!(limit == 100.0, "{limit}");

    let longer = Chat::new("longer").with("max_tokens", 101);
    let refused = two.client().chat(&longer).await?;
    ensure!(refused.status == 400, "{refused:?}");
    Ok(())
}
