//! The admin API on a fleet of two real processes and a real Redis: what operators see and do from any instance.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use vorrang_tests::{
    Act, Chat, Gateway, Redis, Reply, Upstream, config, gateway::run, until, upstream::Seen,
};

/// Two instances, one Redis, one upstream.
struct Fleet {
    redis: Redis,
    upstream: Upstream,
    a: Gateway,
    b: Gateway,
}

impl Fleet {
    /// `first`: what the upstream does first. `limits`: of the deployment. `ours`: more lines of `vorrang_settings`.
    async fn start(first: &[Act], limits: &[&str], ours: &[&str]) -> Result<Self> {
        let (redis, upstream) = (Redis::start().await?, Upstream::start().await?);
        upstream.plan(first, Act::default()).await?;
        let url = format!("redis_url: {}", redis.url());
        let ours = [&[url.as_str(), "lease_seconds: 2"], ours].concat();
        let config = config(&upstream.url(), limits, &[], &ours);
        let (a, b) = (
            Gateway::start(&config).await?,
            Gateway::start(&config).await?,
        );
        Ok(Self {
            redis,
            upstream,
            a,
            b,
        })
    }

    /// Sends a request to an instance, under an id.
    fn send(gateway: &Gateway, id: &str, priority: i32) -> JoinHandle<Result<Reply>> {
        Self::send_with(gateway, id, priority, "none")
    }

    fn send_with(
        gateway: &Gateway,
        id: &str,
        priority: i32,
        key: &str,
    ) -> JoinHandle<Result<Reply>> {
        let chat = Chat::new(id).priority(priority);
        let request = gateway.client().post("/v1/chat/completions");
        let request = request.header("x-litellm-call-id", id).bearer_auth(key);
        tokio::spawn(Reply::of(request.json(&chat.body)))
    }

    /// The ids of the calls that wait, in their order, as this instance lists them.
    async fn waiting(&self, gateway: &Gateway) -> Result<Vec<String>> {
        let page = get(gateway, "/admin/groups/model/tickets").await?;
        let tickets = page["tickets"].as_array().context("tickets")?;
        let id = |ticket: &Value| ticket["call_id"].as_str().unwrap_or("?").to_owned();
        Ok(tickets.iter().map(id).collect())
    }

    /// Waits until both instances list these.
    async fn lists(&self, expected: &[&str]) -> Result<()> {
        for gateway in [&self.a, &self.b] {
            let what = format!("{expected:?} in the list");
            until(&what, || self.waiting(gateway), |seen| seen == expected).await?;
        }
        Ok(())
    }

    async fn ticket(&self, id: &str) -> Result<String> {
        let page = get(&self.a, "/admin/groups/model/tickets").await?;
        let mut tickets = page["tickets"].as_array().into_iter().flatten();
        let found = tickets.find(|ticket| ticket["call_id"] == id);
        let ticket = found.and_then(|ticket| ticket["ticket"].as_str());
        Ok(ticket.with_context(|| page.to_string())?.to_owned())
    }

    async fn act(gateway: &Gateway, path: &str, body: &Value) -> Result<Reply> {
        let request = gateway.client().post(&format!("/admin/{path}"));
        Reply::of(request.json(body)).await
    }

    async fn on_ticket(&self, id: &str, what: &str, body: &Value) -> Result<Reply> {
        let path = format!("groups/model/tickets/{id}/{what}");
        Self::act(&self.a, &path, body).await
    }
}

async fn get(gateway: &Gateway, path: &str) -> Result<Value> {
    gateway.client().get(path).await?.ok()?.json()
}

fn events(life: &Value) -> Vec<&str> {
    let events = life["events"].as_array().into_iter().flatten();
    events.filter_map(|event| event["what"].as_str()).collect()
}

/// P23: from one instance an operator lists the fleet's queue, moves a ticket of the other, and cancels one.
#[tokio::test]
async fn operator_moves_and_cancels_tickets_of_another_instance() -> Result<()> {
    let fleet = Fleet::start(&[Act::hold()], &["max_parallel_requests: 1"], &[]).await?;
    let (a, b) = (&fleet.a, &fleet.b);
    let running = Fleet::send(a, "running", 0);
    fleet.upstream.seen(1).await?;
    let mut replies = Vec::new();
    let mut expected = Vec::new();
    for (gateway, id, priority) in [(a, "a0", 0), (b, "b1", 1), (a, "a5", 5), (b, "b9", 9)] {
        replies.push(Fleet::send(gateway, id, priority));
        expected.push(id);
        fleet.lists(&expected).await?;
    }

    let page = get(b, "/admin/groups/model/tickets?limit=2").await?;
    ensure!(page["total"] == 4 && page["next"] == 2, "{page}");
    ensure!(page["tickets"][1]["position"] == 2, "{page}");
    let instances = [0, 1].map(|index| page["tickets"][index]["instance"].clone());
    ensure!(instances[0] != instances[1], "{page}");
    let of_b = instances[1].as_str().context("an instance")?;
    let path = format!("/admin/groups/model/tickets?instance={of_b}&priority=9");
    let only = get(a, &path).await?;
    ensure!(
        only["tickets"].as_array().context("a list")?.len() == 1,
        "{only}"
    );

    let path = format!("/admin/groups/model/tickets?instance={of_b}&limit=1");
    let first = get(a, &path).await?;
    ensure!(
        first["next"] == 2,
        "the next one of it is further on: {first}"
    );
    // An instance that does not know a call says so at once, and is asked again.
    for id in ["a0", "b1", "b9", "a5", "b1", "b9", "b1", "b9"] {
        for gateway in [a, b] {
            let life = get(gateway, &format!("/admin/requests/{id}")).await?;
            ensure!(life["call_id"] == id, "{life}");
        }
    }

    let (b1, b9) = (fleet.ticket("b1").await?, fleet.ticket("b9").await?);
    let moved = fleet
        .on_ticket(&b9, "move", &json!({"priority": -1}))
        .await?;
    let moved = moved.ok()?.json()?;
    ensure!(moved["position"] == 1 && moved["from"] == 9, "{moved}");
    fleet.lists(&["b9", "a0", "b1", "a5"]).await?;
    let reason = json!({"reason": "too much of it"});
    fleet.on_ticket(&b1, "cancel", &reason).await?.ok()?;
    let cancelled = replies.remove(1).await??;
    ensure!(cancelled.status == 409, "{cancelled:?}");
    ensure!(
        cancelled.error()?.contains("too much of it"),
        "{cancelled:?}"
    );
    ensure!(
        cancelled.header("x-should-retry") == "false",
        "{cancelled:?}"
    );
    fleet.lists(&["b9", "a0", "a5"]).await?;

    // What is late, wrong, or nothing.
    for (ticket, what, body, status) in [
        (b1.as_str(), "cancel", &reason, 409),
        (&b1, "move", &json!({"priority": 1}), 409),
        ("12", "cancel", &reason, 404),
        ("x", "move", &json!({"priority": 1}), 404),
        (&b9, "move", &json!({"priority": 1e10}), 400),
        (&b9, "move", &json!({}), 400),
        (&b9, "cancel", &json!({"because": 1}), 400),
    ] {
        let reply = fleet.on_ticket(ticket, what, body).await?;
        ensure!(reply.status == status, "{ticket} {what} {body}: {reply:?}");
        reply.error()?;
    }
    let path = format!("/admin/groups/model/tickets/{b9}/cancel");
    let form = a.client().post(&path).body("{}");
    let form = Reply::of(form.header("content-type", "text/plain")).await?;
    ensure!(form.status == 415, "{form:?}");
    let nothing = a.client().get("/admin/groups/nothing/tickets").await?;
    ensure!(nothing.status == 404, "{nothing:?}");

    // What a client learns, also of a request at the other instance.
    let own = get(a, "/v1/queue/requests/b9").await?;
    ensure!(own["state"] == "waiting" && own["position"] == 1, "{own}");
    ensure!(own["instance"] == of_b, "{own}");
    ensure!(events(&own) == ["came", "queued", "moved"], "{own}");
    for (priority, position) in [(-5, 1), (0, 3), (10, 4)] {
        let path = format!("/v1/queue/preview?model=model&priority={priority}");
        let preview = get(a, &path).await?;
        ensure!(preview["position"] == position, "{priority}: {preview}");
    }

    fleet.upstream.release().await?;
    for reply in [running].into_iter().chain(replies) {
        reply.await??.ok()?;
    }
    let users: Vec<_> = fleet
        .upstream
        .seen(4)
        .await?
        .iter()
        .map(Seen::user)
        .collect();
    ensure!(users == ["running", "b9", "a0", "a5"], "{users:?}");
    let late = fleet
        .on_ticket(&b9, "move", &json!({"priority": 0}))
        .await?;
    ensure!(late.status == 409, "{late:?}");
    let life = get(a, "/admin/requests/b9").await?;
    let expected = [
        "came",
        "queued",
        "moved",
        "granted",
        "attempt",
        "first_token",
        "ended",
    ];
    ensure!(events(&life) == expected, "{life}");
    ensure!(
        life["outcome"] == "answered" && life["status"] == 200,
        "{life}"
    );
    let life = get(a, "/admin/requests/b1").await?;
    ensure!(
        life["outcome"] == "cancelled" && life["status"] == 409,
        "{life}"
    );
    let latest = get(b, "/admin/requests?group=model&limit=2").await?;
    ensure!(
        latest["requests"].as_array().context("a list")?.len() == 2,
        "{latest}"
    );

    let audited = |line: &&str| line.contains("vorrang::audit");
    let log = a.log()?;
    let lines: Vec<_> = log.lines().filter(audited).collect();
    let first: Value = serde_json::from_str(lines.first().context("no audit")?)?;
    let fields = [
        ("action", "move"),
        ("old", "9"),
        ("new", "-1"),
        ("ticket", &b9),
    ];
    for (field, value) in fields {
        ensure!(first[field] == value, "{field} of {first}");
    }
    // The refused ones, too.
    ensure!(lines.len() == 11, "{lines:?}");
    ensure!(a.metric("vorrang_admin_actions_total", "cancel").await? == 1.0);
    Ok(())
}

/// An instance that is killed right after an action has told of it.
#[tokio::test]
async fn action_is_in_the_log_before_it_is_answered() -> Result<()> {
    let fleet = Fleet::start(&[], &[], &[]).await?;
    for action in 1..=10 {
        let what = ["resume", "pause"][action % 2];
        Fleet::act(&fleet.a, &format!("groups/model/{what}"), &json!({}))
            .await?
            .ok()?;
        let told = fleet.a.log()?.matches("vorrang::audit").count();
        ensure!(told == action, "{told} of {action}");
    }
    Ok(())
}

const KEYS: &str = "keys: [{name: batch, key: sk-batch}, {name: app, key: sk-app}, {name: ops, key: sk-ops, admin: true}]";

async fn with_key(gateway: &Gateway, path: &str, key: &str) -> Result<Reply> {
    let url = format!("{}{path}", gateway.url());
    Reply::of(reqwest::Client::new().get(url).bearer_auth(key)).await
}

async fn act_as_ops(gateway: &Gateway, path: &str, body: &Value) -> Result<Reply> {
    let request = gateway.client().post(&format!("/admin/{path}"));
    Reply::of(request.bearer_auth("sk-ops").json(body)).await
}

/// P23: a paused group and a paused key wait, the pause survives the loss of Redis' data, and only the right keys may see or do it.
#[tokio::test]
async fn paused_groups_and_keys_wait_until_they_are_resumed() -> Result<()> {
    let fleet = Fleet::start(&[], &["rpm: 1000"], &[KEYS]).await?;
    let (a, b) = (&fleet.a, &fleet.b);
    for (key, status) in [("sk-batch", 403), ("sk-wrong", 401), ("sk-ops", 200)] {
        let reply = with_key(a, "/admin/overview", key).await?;
        ensure!(reply.status == status, "{key}: {reply:?}");
    }
    ensure!(a.client().get("/admin/overview").await?.status == 401);

    act_as_ops(a, "groups/model/pause", &json!({}))
        .await?
        .ok()?;
    let waits = Fleet::send_with(b, "waits", 0, "sk-app");
    b.waiting(1).await?;
    let group = || async {
        with_key(b, "/admin/groups/model", "sk-ops")
            .await?
            .ok()?
            .json()
    };
    let paused = |group: &Value| group["paused"] == true && group["reasons"] == json!(["paused"]);
    until("the reason paused", group, paused).await?;
    fleet.redis.flush().await?;
    until("the pause after the loss", group, |group| {
        paused(group) && group["depth"] == 1
    })
    .await?;
    ensure!(!waits.is_finished());
    for (key, status) in [("sk-app", 200), ("sk-batch", 404), ("sk-ops", 404)] {
        let reply = with_key(a, "/v1/queue/requests/waits", key).await?;
        ensure!(reply.status == status, "{key}: {reply:?}");
    }
    act_as_ops(b, "groups/model/resume", &json!({}))
        .await?
        .ok()?;
    waits.await??.ok()?;

    let of_batch = json!({"key": "batch"});
    let paused = act_as_ops(a, "groups/model/pause", &of_batch).await?.ok()?;
    ensure!(paused.json()? == json!({"paused": false, "paused_keys": ["batch"]}));
    let unknown = act_as_ops(a, "groups/model/pause", &json!({"key": "nobody"})).await?;
    ensure!(unknown.status == 404, "{unknown:?}");
    let held = Fleet::send_with(b, "held", -9, "sk-batch");
    b.waiting(1).await?;
    Fleet::send_with(b, "passes", 9, "sk-app").await??.ok()?;
    ensure!(!held.is_finished());
    let shown = async |path: &str| with_key(a, path, "sk-ops").await?.ok()?.json();
    let group = || async { shown("/admin/groups/model").await };
    until("the held ticket", group, |group| {
        group["held"] == 1 && group["depth"] == 0
    })
    .await?;
    let page = shown("/admin/groups/model/tickets?key=batch").await?;
    let row = &page["tickets"][0];
    ensure!(page["held"] == 1 && row["call_id"] == "held", "{page}");
    ensure!(row["held"] == true && row["position"].is_null(), "{page}");
    let life = shown("/admin/requests/held").await?;
    ensure!(life["held"] == true && life["state"] == "waiting", "{life}");
    act_as_ops(a, "groups/model/resume", &of_batch)
        .await?
        .ok()?;
    held.await??.ok()?;
    let users: Vec<_> = fleet
        .upstream
        .calls()
        .await?
        .iter()
        .map(Seen::user)
        .collect();
    ensure!(users == ["waits", "passes", "held"], "{users:?}");
    let log = a.log()?;
    ensure!(
        log.contains(r#""by":"ops""#) && !log.contains("sk-ops"),
        "{log}"
    );
    Ok(())
}

/// P23: a limit is changed for the whole fleet until further notice, survives the loss of Redis' data, and can be taken back.
#[tokio::test]
async fn changed_limit_is_in_force_everywhere_and_survives_a_flush() -> Result<()> {
    let fleet = Fleet::start(&[], &["rpm: 2"], &[]).await?;
    let (a, b) = (&fleet.a, &fleet.b);
    for (gateway, id) in [(a, "first"), (b, "second")] {
        Fleet::send(gateway, id, 0).await??.ok()?;
    }
    let third = Fleet::send(b, "third", 0);
    b.waiting(1).await?;
    let change = |value: Value| json!({"deployment": "first", "limit": "rpm", "value": value});
    let raised = Fleet::act(a, "groups/model/limits", &change(json!(3))).await?;
    let raised = raised.ok()?.json()?;
    let limit = &raised["limits"][0];
    ensure!(
        limit["configured"] == 2 && limit["in_force"] == 3,
        "{raised}"
    );
    third.await??.ok()?;
    let fourth = Fleet::send(a, "fourth", 0);
    a.waiting(1).await?;

    fleet.redis.flush().await?;
    let limit = || async {
        let group = get(b, "/admin/groups/model").await?;
        let limit = &group["deployments"][0]["limits"][0];
        Ok((
            limit["in_force"].as_u64(),
            limit["used"].as_u64(),
            group["depth"].as_u64(),
        ))
    };
    let expected = (Some(3), Some(3), Some(1));
    until("the changed limit after the loss", limit, |seen| {
        *seen == expected
    })
    .await?;
    ensure!(!fourth.is_finished());
    ensure!(b.metric("vorrang_changed_limits", "").await? == 1.0);
    ensure!(b.metric("vorrang_limit", "requests").await? == 3.0);

    for (body, status) in [
        (
            json!({"deployment": "none", "limit": "rpm", "value": 3}),
            404,
        ),
        (
            json!({"deployment": "first", "limit": "tpm", "value": 3}),
            404,
        ),
        (change(json!(0)), 400),
        (change(json!("3")), 400),
        (json!({"deployment": "first", "limit": "rpm"}), 400),
    ] {
        let reply = Fleet::act(a, "groups/model/limits", &body).await?;
        ensure!(reply.status == status, "{body}: {reply:?}");
    }
    Fleet::act(b, "groups/model/limits", &change(json!(4)))
        .await?
        .ok()?;
    fourth.await??.ok()?;
    let back = Fleet::act(a, "groups/model/limits", &change(Value::Null)).await?;
    ensure!(back.ok()?.json()?["limits"][0]["in_force"] == 2);
    Ok(())
}

/// A drained instance leaves the rotation and goes on serving; an instance that is killed is seen to be silent, and then is gone.
#[tokio::test]
async fn drained_instance_serves_on_and_a_killed_one_disappears() -> Result<()> {
    let mut fleet = Fleet::start(&[Act::hold()], &["max_parallel_requests: 1"], &[]).await?;
    let running = Fleet::send(&fleet.a, "running", 0);
    fleet.upstream.seen(1).await?;
    let _lost = Fleet::send(&fleet.b, "lost", 0);
    fleet.lists(&["lost"]).await?;
    let own = |overview: &Value| {
        overview["answered_by"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let b = own(&get(&fleet.b, "/admin/overview").await?);
    let a = own(&get(&fleet.a, "/admin/overview").await?);

    let drain = |what: &str| format!("instances/{b}/{what}");
    Fleet::act(&fleet.a, &drain("drain"), &json!({}))
        .await?
        .ok()?;
    let readiness = fleet.b.client().get("/health/readiness").await?;
    ensure!(
        readiness.status == 503 && readiness.text.contains("draining"),
        "{readiness:?}"
    );
    let instance = |gateway: &Gateway, id: String| {
        let client = gateway.client().clone();
        async move {
            let overview = client.get("/admin/overview").await?.ok()?.json()?;
            let mut all = overview["instances"].as_array().into_iter().flatten();
            let found = all.find(|instance| instance["id"] == id.as_str());
            Ok(found.cloned().unwrap_or_default())
        }
    };
    until(
        "draining",
        || instance(&fleet.a, b.clone()),
        |of| of["draining"] == true,
    )
    .await?;
    ensure!(fleet.b.client().get("/v1/models").await?.status == 200);
    Fleet::act(&fleet.b, &drain("resume"), &json!({}))
        .await?
        .ok()?;
    fleet.b.ready().await?;
    let nobody = Fleet::act(&fleet.a, "instances/nobody/drain", &json!({})).await?;
    ensure!(nobody.status == 404, "{nobody:?}");

    let lost = fleet.ticket("lost").await?;
    let everyone = Fleet::act(&fleet.a, "instances/*/drain", &json!({})).await?;
    ensure!(everyone.status == 404, "{everyone:?}");
    // What was answered with a 503 is not done later.
    fleet.b.freeze()?;
    let late = fleet
        .on_ticket(&lost, "cancel", &json!({"reason": "late"}))
        .await?;
    ensure!(late.status == 503, "{late:?}");
    fleet.b.thaw()?;
    fleet.lists(&["lost"]).await?;
    for what in ["drain", "resume"] {
        Fleet::act(&fleet.a, &drain(what), &json!({})).await?.ok()?;
    }
    let life = get(&fleet.a, "/admin/requests/lost").await?;
    ensure!(
        life["state"] == "waiting" && !events(&life).contains(&"cancelled"),
        "{life}"
    );
    fleet.b.kill()?;
    let silent = |of: &Value| of["answered"] == false || of.is_null();
    until(
        "a silent instance",
        || instance(&fleet.a, b.clone()),
        silent,
    )
    .await?;
    let late = fleet
        .on_ticket(&lost, "move", &json!({"priority": 1}))
        .await?;
    ensure!(matches!(late.status, 404 | 503), "{late:?}");
    until("its end", || instance(&fleet.a, b.clone()), Value::is_null).await?;
    ensure!(instance(&fleet.a, a).await?["answered"] == true);
    until("an empty list", || fleet.waiting(&fleet.a), Vec::is_empty).await?;
    fleet.upstream.release().await?;
    running.await??.ok()?;
    Ok(())
}

/// `vorrang queue`: the same by hand, with exit codes for scripts.
#[tokio::test(flavor = "multi_thread")]
async fn queue_command_lists_moves_and_fails_with_its_own_exit_codes() -> Result<()> {
    let fleet = Fleet::start(&[Act::hold()], &["max_parallel_requests: 1"], &[]).await?;
    let running = Fleet::send(&fleet.a, "running", 0);
    fleet.upstream.seen(1).await?;
    let first = Fleet::send(&fleet.a, "one", 1);
    fleet.lists(&["one"]).await?;
    let second = Fleet::send(&fleet.b, "two", 2);
    fleet.lists(&["one", "two"]).await?;
    let (one, two) = (fleet.ticket("one").await?, fleet.ticket("two").await?);

    let url = fleet.a.url().to_owned();
    let queue = |words: &[&str]| -> Result<(i32, String, String)> {
        let words = [&["queue", "--url", &url], words].concat();
        let output = tokio::task::block_in_place(|| run("{}", &words, &[]))?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes);
        let code = output.status.code().context("no exit code")?;
        Ok((code, text(output.stdout)?, text(output.stderr)?))
    };
    let (code, text, _) = queue(&["ls"])?;
    ensure!(code == 0 && text.contains("model  running  2"), "{text}");
    let (code, text, _) = queue(&["ls", "model", "--json"])?;
    let listed: Value = serde_json::from_str(&text)?;
    ensure!(code == 0 && listed["tickets"][1]["ticket"] == two, "{text}");
    let (code, text, _) = queue(&["move", "model", &two, "-7"])?;
    ensure!(
        code == 0 && text.contains("priority -7 and position 1"),
        "{text}"
    );
    fleet.lists(&["two", "one"]).await?;
    let (code, text, _) = queue(&["ls", "model", "--priority", "-7"])?;
    ensure!(
        code == 0 && text.contains(&two) && !text.contains(&one),
        "{text}"
    );
    let (code, text, _) = queue(&["cancel", "model", &one, "--reason", "by hand"])?;
    ensure!(code == 0, "{text}");
    ensure!(first.await??.error()?.contains("by hand"));
    let (code, _, error) = queue(&["cancel", "model", &one])?;
    ensure!(code == 4 && error.contains("does not wait"), "{error}");
    let (code, _, error) = queue(&["pause", "nothing"])?;
    ensure!(code == 3 && error.contains("no group nothing"), "{error}");
    let (code, text, _) = queue(&["limit", "model", "first", "max_parallel_requests", "2"])?;
    ensure!(
        code == 0 && text.trim_end().ends_with("  1           2"),
        "{text}"
    );
    // There is room for another call now.
    second.await??.ok()?;
    let (code, ..) = queue(&["limit", "model", "first", "rpm", "-2"])?;
    ensure!(code == 2);
    let (code, text, _) = queue(&["pause", "model"])?;
    ensure!(code == 0 && text.contains("is paused"), "{text}");
    let (code, text, _) = queue(&["resume", "model"])?;
    ensure!(code == 0 && text.contains("is running"), "{text}");
    fleet.upstream.release().await?;
    running.await??.ok()?;
    Ok(())
}

/// An overview comes each second, for as long as the client reads, and ends with the instance.
#[tokio::test]
async fn overview_events_are_sent_each_second_until_the_instance_stops() -> Result<()> {
    let mut gateway = Gateway::demo(&[]).await?;
    let url = format!("{}/admin/events", gateway.url());
    let mut answer = reqwest::Client::new().get(url).send().await?;
    ensure!(answer.headers()["content-type"] == "text/event-stream");
    let mut text = String::new();
    while text.matches("event: overview\ndata: {").count() < 3 {
        let chunk = answer.chunk().await?.context("the stream ended")?;
        text += std::str::from_utf8(&chunk)?;
    }
    let first = text.lines().find_map(|line| line.strip_prefix("data: "));
    let overview: Value = serde_json::from_str(first.context("no data")?)?;
    ensure!(overview["instances"][0]["answered"] == true, "{overview}");
    gateway.terminate()?;
    let rest = async {
        while answer.chunk().await?.is_some() {}
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(10), rest).await??;
    gateway.ended().await?;
    Ok(())
}
