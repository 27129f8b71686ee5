//! The backend on a real Redis: what the script cannot show by its answers.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use vorrang_scheduler::{
    Claim, Deployment, Entry, GroupConfig, LimitKind, Micros, Seq, SessionId, Tokens,
    backend::{Backend, BackendError, RedisBackend, RedisOptions, Wake},
    message::{Answer, Message, Op, OpenSession, Reply, Used, Verdict},
    rules::Rules,
};

use crate::server::Server;

/// A name that would move an unescaped hash tag, breaks patterns, and is not ASCII.
pub(crate) const GROUP: &str = "g{1}*\u{fc} :%";

/// An instance that has received the group's last reply.
pub(crate) struct Peer {
    backend: Arc<RedisBackend>,
    name: Arc<str>,
    epoch: Arc<str>,
    session: SessionId,
    batch: u64,
    seen: Seq,
}

fn options(url: String) -> RedisOptions {
    RedisOptions {
        namespace: "test".into(),
        ..RedisOptions::new(url)
    }
}

fn connect(server: &Server) -> Arc<RedisBackend> {
    RedisBackend::connect(&options(server.url())).unwrap()
}

impl Peer {
    pub(crate) fn new(backend: &Arc<RedisBackend>, name: &str) -> Self {
        Self {
            backend: backend.clone(),
            name: name.into(),
            epoch: "".into(),
            session: SessionId::NONE,
            batch: 0,
            seen: Seq::NONE,
        }
    }

    pub(crate) async fn send(
        &mut self,
        open_session: Vec<OpenSession>,
        ops: Vec<Op>,
    ) -> Result<Reply, BackendError> {
        self.batch += 1;
        let message = Message {
            instance: self.name.clone(),
            epoch: self.epoch.clone(),
            session: if open_session.is_empty() {
                self.session
            } else {
                SessionId::NONE
            },
            batch: self.batch,
            open_session,
            complete: true,
            seen: self.seen,
            highest_finish: 0,
            ops,
        };
        let reply = self.backend.step(GROUP, &message).await?;
        self.epoch = reply.epoch.clone();
        if let Some(answer) = reply.answer.first() {
            (self.session, self.seen) = (answer.session, answer.seen);
        }
        Ok(reply)
    }

    pub(crate) async fn step(&mut self, ops: Vec<Op>) -> Answer {
        self.send(Vec::new(), ops).await.unwrap().answer.remove(0)
    }

    /// Opens a session after a loss, and reports the charges of these grants with messages of their own. Returns what counts after the recovery.
    async fn report_again(&mut self, granted: &[Seq]) -> Used {
        let open_session = OpenSession {
            number: 9,
            ..Self::open_session(self.name.clone())
        };
        self.send(vec![open_session], Vec::new()).await.unwrap();
        for granted in granted {
            let charge = Op::Charge {
                granted: *granted,
                excess: false,
                deployment: "gpt".into(),
                requests: 1,
                tokens: Tokens::from(7),
                age: Micros(1_000),
            };
            self.step(vec![charge]).await;
        }
        let mut answer = self.step(Vec::new()).await;
        while answer.recovering || answer.more {
            tokio::time::sleep(Duration::from_micros(answer.next_free.unsigned_abs())).await;
            answer = self.step(Vec::new()).await;
        }
        answer.used.remove(0)
    }

    fn open_session(name: Arc<str>) -> OpenSession {
        let mut config = GroupConfig::new(vec![
            Deployment::new("gpt")
                .limit(LimitKind::Requests, 2, Duration::from_secs(60))
                .limit(LimitKind::Concurrency, 2, Duration::ZERO),
        ]);
        config.timing.lease = Duration::from_millis(600);
        OpenSession {
            number: 1,
            rules: Arc::new(Rules::from(&config)),
            rules_version: 0,
            peers: vec![name],
            departed: Vec::new(),
            view: Vec::new(),
        }
    }

    /// Opens a session and steps until the recovery is over. A short lease keeps that short.
    pub(crate) async fn enter(&mut self) {
        let open_session = Self::open_session(self.name.clone());
        let mut reply = self
            .send(vec![open_session.clone()], Vec::new())
            .await
            .unwrap();
        if reply.verdict != Verdict::Done {
            reply = self
                .send(
                    vec![OpenSession {
                        number: 2,
                        ..open_session
                    }],
                    Vec::new(),
                )
                .await
                .unwrap();
        }
        let mut answer = reply.answer.remove(0);
        while answer.recovering {
            tokio::time::sleep(Duration::from_micros(answer.next_free.unsigned_abs())).await;
            answer = self.step(Vec::new()).await;
        }
    }
}

pub(crate) fn join(priority: i32) -> Op {
    Op::Join(Entry::new(Claim::new(priority, 7)))
}

/// Runs a command as the server's administrator.
pub(crate) fn run<T: redis::FromRedisValue>(server: &Server, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    words[1..].iter().for_each(|word| _ = command.arg(word));
    command
        .query(&mut server.client().get_connection().unwrap())
        .unwrap()
}

/// How often a command was called since the last reset.
fn calls(server: &Server, command: &str) -> u64 {
    let info: String = run(server, &["INFO", "commandstats"]);
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|rest| rest.split(',').next())
        .map_or(0, |calls| calls.parse().unwrap())
}

#[tokio::test]
async fn library_is_loaded_again_after_a_function_flush() {
    let Some(server) = Server::with_functions() else {
        return;
    };
    let mut peer = Peer::new(&connect(&server), "a");
    peer.enter().await;
    run::<()>(&server, &["FUNCTION", "FLUSH"]);
    assert_eq!(peer.step(vec![join(0)]).await.grants.len(), 1);
}

/// A server or a user without functions: the same step runs as a script, which is loaded again after a SCRIPT FLUSH.
#[tokio::test]
async fn step_runs_as_a_script_where_functions_are_refused() {
    for denied in ["-fcall", "-function|load"] {
        let Some(server) = Server::with_functions() else {
            return;
        };
        run::<()>(&server, &["ACL", "SETUSER", "default", denied]);
        let mut peer = Peer::new(&connect(&server), "a");
        peer.enter().await;
        run::<()>(&server, &["SCRIPT", "FLUSH"]);
        assert_eq!(peer.step(vec![join(0)]).await.grants.len(), 1);
        run::<()>(&server, &["CONFIG", "RESETSTAT"]);
        for _ in 0..5 {
            peer.step(vec![join(0)]).await;
        }
        assert_eq!(
            (calls(&server, "evalsha"), calls(&server, "fcall")),
            (5, 0),
            "{denied}"
        );
    }
}

#[tokio::test]
async fn each_step_is_one_fcall() {
    let Some(server) = Server::with_functions() else {
        return;
    };
    let mut peer = Peer::new(&connect(&server), "a");
    peer.enter().await;
    run::<()>(&server, &["CONFIG", "RESETSTAT"]);
    for n in 0..40 {
        peer.step(vec![join(n), join(0)]).await;
    }
    assert_eq!(
        (
            calls(&server, "fcall"),
            calls(&server, "evalsha"),
            calls(&server, "function|load")
        ),
        (40, 0, 0)
    );
}

/// P16 (bounds of a step): a step runs the same number of commands with a thousand waiting tickets as with ten.
#[tokio::test]
async fn commands_of_a_step_do_not_depend_on_the_queue_depth() {
    let server = Server::start();
    let mut peer = Peer::new(&connect(&server), "a");
    peer.enter().await;
    let mut counts = Vec::new();
    for waiting in [10, 1000] {
        for _ in 0..waiting / 10 {
            peer.step(vec![join(1); 10]).await;
        }
        run::<()>(&server, &["CONFIG", "RESETSTAT"]);
        peer.step(vec![join(0)]).await;
        let info: String = run(&server, &["INFO", "commandstats"]);
        let own = ["fcall", "config", "client", "info"];
        let lines = info
            .lines()
            .filter_map(|line| line.strip_prefix("cmdstat_"));
        let commands: u64 = lines
            .filter(|line| !own.iter().any(|own| line.starts_with(own)))
            .map(|line| {
                line.split(['=', ','])
                    .nth(1)
                    .unwrap()
                    .parse::<u64>()
                    .unwrap()
            })
            .sum();
        counts.push(commands);
    }
    assert!(counts[0] > 5 && counts[0] == counts[1], "{counts:?}");
}

#[tokio::test]
async fn user_without_publish_and_info_can_step_and_fails_the_check() {
    let server = Server::start();
    run::<()>(
        &server,
        &[
            "ACL", "SETUSER", "poor", "on", ">secret", "~test:*", "&*", "+@all", "-publish",
            "-info", "-config",
        ],
    );
    let url = server.url() + "?user=poor&pass=secret";
    let backend = RedisBackend::connect(&options(url)).unwrap();
    let (mut one, mut two) = (Peer::new(&backend, "one"), Peer::new(&backend, "two"));
    one.enter().await;
    two.enter().await;
    let granted = one.step(vec![join(0), join(0)]).await.grants;
    assert_eq!(two.step(vec![join(5)]).await.grants.len(), 0);
    // The slot goes to the other instance, and the wake fails.
    one.step(vec![Op::Unused {
        granted: granted[0].granted,
    }])
    .await;
    assert_eq!(two.step(Vec::new()).await.grants.len(), 1);
    // Without INFO the step would not notice another master (P17), so the check that readiness depends on fails.
    let error = backend.check().await.unwrap_err();
    assert_eq!(error.kind, "config", "{error}");
    assert!(error.message.contains("+info"), "{error}");
}

/// P17 (partial writes): a script that ended between the order of the entries and the entries leaves none that would come back.
#[tokio::test]
async fn entries_without_a_place_in_the_order_are_dropped_after_a_partial_write() {
    let server = Server::start();
    let user = "ACL SETUSER poor on >secret ~test:* &* +@all";
    run::<()>(&server, &user.split(' ').collect::<Vec<_>>());
    let url = server.url() + "?user=poor&pass=secret";
    let mut peer = Peer::new(&RedisBackend::connect(&options(url)).unwrap(), "one");
    peer.enter().await;
    let granted = peer.step(vec![join(0)]).await.grants[0].granted;
    let keys: Vec<String> = run(&server, &["KEYS", "test:*:entries"]);
    let windows = keys[0].replace(":entries", ":windows");
    let unordered = || {
        let names: Vec<String> = run(&server, &["HKEYS", &keys[0]]);
        let names = names.into_iter().filter(|name| !name.is_empty());
        let mut unordered = names.filter(|name| {
            let score: Option<f64> = run(&server, &["ZSCORE", &windows, name]);
            score.is_none()
        });
        unordered.next()
    };
    assert_eq!(unordered(), None);
    run::<()>(&server, &["ACL", "SETUSER", "poor", "-hdel"]);
    let unused = vec![Op::Unused { granted }];
    let error = peer.send(Vec::new(), unused).await.unwrap_err();
    assert_eq!(error.kind, "noperm", "{error}");
    assert!(unordered().is_some(), "the script ended in the middle");
    run::<()>(&server, &["ACL", "SETUSER", "poor", "+hdel"]);
    // The next step finds the state dirty, and begins a recovery.
    while peer.send(Vec::new(), Vec::new()).await.is_err() {}
    assert_eq!(peer.report_again(&[]).await.cost.requests, 0);
    assert_eq!(unordered(), None);
}

/// A user that lost the right to functions, has none to scripts, and gets the former back, steps again on the same connection.
#[tokio::test]
async fn functions_are_used_again_when_the_user_may_again() {
    let Some(server) = Server::with_functions() else {
        return;
    };
    let user = "ACL SETUSER poor on >secret ~test:* &* +@all -evalsha -eval";
    run::<()>(&server, &user.split(' ').collect::<Vec<_>>());
    let url = server.url() + "?user=poor&pass=secret";
    let mut peer = Peer::new(&RedisBackend::connect(&options(url)).unwrap(), "one");
    peer.enter().await;
    run::<()>(&server, &["ACL", "SETUSER", "poor", "-fcall"]);
    for _ in 0..2 {
        let error = peer.send(Vec::new(), Vec::new()).await.unwrap_err();
        assert_eq!(error.kind, "noperm", "{error}");
    }
    run::<()>(&server, &["ACL", "SETUSER", "poor", "+fcall"]);
    peer.send(Vec::new(), Vec::new()).await.unwrap();
}

/// All keys of a group are in one slot of a Redis Cluster, and unused groups expire.
#[tokio::test]
async fn all_keys_share_a_hash_tag_and_have_a_ttl() {
    let server = Server::start();
    let mut peer = Peer::new(&connect(&server), "a");
    peer.enter().await;
    let granted = peer
        .step(vec![join(0), join(0), join(0), join(9)])
        .await
        .grants;
    let deployment = granted[0].deployment.clone();
    peer.step(vec![Op::Done {
        granted: granted[0].granted,
        deployment: deployment.clone(),
        tokens: Tokens::from(3),
        excess: Tokens::ZERO,
        ok: false,
    }])
    .await;
    let failed = |granted| Op::Report {
        granted,
        deployment: deployment.clone(),
        probe: false,
        again: false,
        ok: false,
        status: 500,
        cool: 1_000_000,
    };
    peer.step(vec![failed(granted[1].granted)]).await;
    let inspect = || {
        let keys: Vec<String> = run(&server, &["KEYS", "*"]);
        assert_eq!(keys.len(), 9);
        let tag = |key: &String| key[key.find('{').unwrap()..=key.find('}').unwrap()].to_owned();
        assert_eq!(keys.iter().map(tag).collect::<BTreeSet<_>>().len(), 1);
        for key in keys {
            let left: i64 = run(&server, &["TTL", &key]);
            assert!((600_000..=604_800).contains(&left), "{key} lives {left} s");
        }
    };
    inspect();
    // Keys of empty parts keep their TTL.
    peer.step(vec![Op::CloseSession { clean: true }]).await;
    inspect();
}

#[tokio::test]
async fn grant_wakes_its_owner_and_recovery_wakes_all_instances() {
    let server = Server::start();
    let backend = connect(&server);
    let (mut one, mut two) = (Peer::new(&backend, "one"), Peer::new(&backend, "two"));
    let mut wakes = backend.wakes("two");
    // Wakes from before the subscription may be lost, so all groups are stepped.
    assert_eq!(wakes.recv().await, Some(Wake::All));
    one.enter().await;
    assert_eq!(wakes.recv().await, Some(Wake::Group(GROUP.into())));
    two.enter().await;
    let granted = one.step(vec![join(0), join(0)]).await.grants;
    two.step(vec![join(5)]).await;
    one.step(vec![Op::Unused {
        granted: granted[0].granted,
    }])
    .await;
    assert_eq!(wakes.recv().await, Some(Wake::Group(GROUP.into())));
    assert_eq!(two.step(Vec::new()).await.grants.len(), 1);
}

/// P2 (retransmission), P15 (wakes): while Redis is down steps fail with the reason. When it is up again, steps succeed and wakes are received.
#[tokio::test]
async fn backend_reconnects_to_a_restarted_server() {
    let mut server = Server::start();
    let backend = connect(&server);
    let mut peer = Peer::new(&backend, "a");
    let mut wakes = backend.wakes("a");
    assert_eq!(wakes.recv().await, Some(Wake::All));
    peer.enter().await;
    while !wakes.is_empty() {
        wakes.recv().await;
    }
    server.stop();
    let error = loop {
        if let Err(error) = peer.send(Vec::new(), Vec::new()).await {
            break error;
        }
    };
    assert!(["io", "timeout"].contains(&error.kind), "{error}");
    assert!(backend.check().await.is_err());
    server.restart();
    while peer.send(Vec::new(), Vec::new()).await.is_err() {}
    while wakes.recv().await != Some(Wake::All) {}
    backend.check().await.unwrap();
}

#[tokio::test]
async fn connecting_does_not_wait_for_the_server() {
    let mut server = Server::start();
    server.stop();
    let backend = connect(&server);
    let mut peer = Peer::new(&backend, "a");
    let error = peer.send(Vec::new(), Vec::new()).await.unwrap_err();
    assert_eq!(error.kind, "io", "{error}");
    server.restart();
    peer.enter().await;
}

#[tokio::test]
async fn evicting_server_fails_the_check_and_the_policy_is_named() {
    let server = Server::start();
    let backend = connect(&server);
    backend.check().await.unwrap();
    run::<()>(
        &server,
        &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"],
    );
    let error = backend.check().await.unwrap_err().to_string();
    assert!(
        error.contains("maxmemory-policy")
            && error.contains("allkeys-lru")
            && error.contains("noeviction"),
        "{error}"
    );
    // Managed servers forbid CONFIG. INFO contains the policy too.
    run::<()>(&server, &["ACL", "SETUSER", "default", "-config"]);
    let error = backend.check().await.unwrap_err().to_string();
    assert!(error.contains("allkeys-lru"), "{error}");
}

#[tokio::test]
async fn wrong_password_error_does_not_contain_the_password() {
    let server = Server::start();
    run::<()>(
        &server,
        &["ACL", "SETUSER", "poor", "on", ">secret", "~*", "+@all"],
    );
    let backend =
        RedisBackend::connect(&options(server.url() + "?user=poor&pass=hunter2")).unwrap();
    let error = Peer::new(&backend, "a")
        .send(Vec::new(), Vec::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind, "auth", "{error}");
    assert!(!error.to_string().contains("hunter2"));
}

/// P17 (partial writes): a key that was deleted by hand is a loss. The next heartbeat finds it, though the library keeps much of what the key had.
#[tokio::test]
async fn key_deleted_by_hand_is_a_loss() {
    for key in ["meta", "queue", "windows", "calls", "entries"] {
        let server = Server::start();
        let mut peer = Peer::new(&connect(&server), "a");
        peer.enter().await;
        let answer = peer.step(vec![join(0), join(0), join(0)]).await;
        assert_eq!((answer.grants.len(), answer.depth), (2, 1));
        let granted: Vec<Seq> = answer.grants.iter().map(|grant| grant.granted).collect();
        let keys: Vec<String> = run(&server, &["KEYS", &format!("*:{key}")]);
        assert_eq!(run::<u64>(&server, &["DEL", &keys[0]]), 1);
        let reply = peer.send(Vec::new(), Vec::new()).await.unwrap();
        assert_eq!(
            (reply.verdict, reply.recovered),
            (Verdict::SessionInvalid, true),
            "{key}"
        );
        // The placeholders are back.
        let keys: Vec<String> = run(&server, &["KEYS", "*"]);
        assert_eq!(keys.len(), 9, "{key}");
        // What the instance reports counts once, whatever has survived.
        let used = peer.report_again(&granted).await;
        assert_eq!(used.cost.requests, 2, "{key}");
    }
}

/// A server that wants a password answers a long command by closing the connection. That would look like a broken one: each step names the password.
#[tokio::test]
async fn missing_password_is_named_by_each_step() {
    let server = Server::start();
    run::<()>(&server, &["CONFIG", "SET", "requirepass", "secret"]);
    let mut peer = Peer::new(&connect(&server), "a");
    for _ in 0..20 {
        let error = peer.send(Vec::new(), vec![join(0)]).await.unwrap_err();
        assert_eq!(error.kind, "auth", "{error}");
    }
}

/// P2 (retransmission): a step that Redis refuses for lack of memory executes nothing, so the same message can be sent again.
#[tokio::test]
async fn step_without_redis_memory_executes_nothing() {
    let server = Server::start();
    let mut peer = Peer::new(&connect(&server), "a");
    peer.enter().await;
    run::<()>(&server, &["CONFIG", "SET", "maxmemory", "1"]);
    let error = peer.send(Vec::new(), vec![join(0)]).await.unwrap_err();
    assert_eq!(error.kind, "oom", "{error}");
    run::<()>(&server, &["CONFIG", "SET", "maxmemory", "0"]);
    peer.batch -= 1;
    let answer = peer.step(vec![join(0)]).await;
    assert_eq!((answer.grants.len(), answer.used[0].cost.requests), (1, 1));
}
