//! The rights of a user that docs/redis.md names: they suffice, and none is there for nothing.

use std::{collections::BTreeSet, time::Duration};

use vorrang_scheduler::backend::{Backend, RedisBackend, RedisOptions, Wake};

use crate::{
    Coverage, Forms, Store,
    backend::{GROUP, Peer, join, run},
    fixed, history,
    nodes::{Node, SERVICE},
    search,
    server::{Server, has_functions},
};

const USER: &str = "## Rights";
const SCRIPT: &str = "### Without functions";
const CLUSTER: &str = "### In a cluster";
const WAIT: &str = "### With `redis_wait_replicas`";
const SENTINELS: &str = "### At sentinels";

/// What a client says of itself. Its refusal changes nothing.
const INTRODUCTION: &str = "client|setinfo";

/// The words that follow `ACL SETUSER vorrang` below a heading of the document, with this namespace.
fn documented(heading: &str) -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/redis.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once(&format!("\n{heading}\n")).expect(heading);
    let (_, rest) = section
        .split_once("\n    ACL SETUSER vorrang ")
        .expect(heading);
    let block = rest.lines().take_while(|line| !line.is_empty());
    let words = block.flat_map(str::split_whitespace);
    words
        .map(|word| {
            word.replace("vorrang:", "test:")
                .replace("PASSWORD", "pass")
        })
        .collect()
}

/// The commands among rights, as `INFO commandstats` names them.
fn commands(rights: &[String]) -> BTreeSet<String> {
    let named = rights.iter().filter_map(|word| word.strip_prefix('+'));
    named.map(str::to_owned).collect()
}

/// The rights below these headings, as far as the server has the commands. One without functions needs those for the script.
fn rights(client: &redis::Client, headings: &[&str]) -> Vec<String> {
    let mut rights: Vec<String> = headings.iter().flat_map(|of| documented(of)).collect();
    if !has_functions(client) {
        let newer = ["fcall", "function|load", "ssubscribe", "spublish"];
        rights.extend(documented(SCRIPT));
        rights.retain(|word| !newer.contains(&&word[1..]));
    }
    rights
}

/// The command that makes the user.
fn user(rights: &[String]) -> Vec<&str> {
    let words = rights.iter().map(String::as_str);
    ["ACL", "SETUSER", "vorrang"]
        .into_iter()
        .chain(words)
        .collect()
}

fn options(url: String) -> RedisOptions {
    RedisOptions {
        namespace: "test".into(),
        // On a busy machine a replica may take its time.
        response_timeout: Duration::from_secs(20),
        ..RedisOptions::new(url)
    }
}

/// All that an instance does beside the steps of histories: enters, waits, is granted, woken, posts, and is asked whether all is well.
async fn use_all(options: &RedisOptions) {
    let used = tokio::time::timeout(Duration::from_secs(60), use_each(options));
    used.await.expect("a wake or a post does not arrive");
}

async fn use_each(options: &RedisOptions) {
    let backend = RedisBackend::connect(options).unwrap();
    let (mut one, mut two) = (Peer::new(&backend, "one"), Peer::new(&backend, "two"));
    let mut wakes = backend.wakes("two");
    one.enter().await;
    two.enter().await;
    while !wakes.is_empty() {
        wakes.recv().await;
    }
    let granted = one.step(vec![join(0), join(0)]).await.grants;
    two.step(vec![join(5)]).await;
    one.step(vec![vorrang_scheduler::message::Op::Unused {
        granted: granted[0].granted,
    }])
    .await;
    // In a cluster it is subscribed once the group is known: until then all is said to be new.
    while wakes.recv().await != Some(Wake::Group(GROUP.into())) {}
    assert_eq!(two.step(Vec::new()).await.grants.len(), 1);
    // Until there is a subscriber.
    let posted = async {
        loop {
            backend.post("two", b"hello".to_vec()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let heard = async { while !matches!(wakes.recv().await, Some(Wake::Post(_))) {} };
    tokio::select! {
        () = posted => {}
        () = heard => {}
    }
    for _ in 0..2 {
        backend.check().await.unwrap();
        backend.check_group(GROUP).await.unwrap();
    }
}

/// The commands that a server has executed, by all users.
fn executed(info: &str) -> BTreeSet<String> {
    let lines = info
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_"));
    let name = |line: &str| line.split(':').next().map(str::to_owned);
    lines.filter_map(name).collect()
}

/// What was refused.
fn refused(log: Vec<Vec<redis::Value>>) -> Vec<String> {
    let text = |entry: Vec<redis::Value>| format!("{entry:?}");
    let counts = |entry: &String| !entry.contains(INTRODUCTION) && !entry.contains("client\"");
    log.into_iter().map(text).filter(counts).collect()
}

/// Histories of all rules in both forms of the step, and all that the backend does beside them.
#[tokio::test]
async fn documented_rights_suffice_and_all_are_used() {
    let server = Server::start();
    let mut rights = rights(&server.client(), &[USER]);
    // For both forms of the step.
    let script = documented(SCRIPT);
    rights.extend(script.into_iter().filter(|word| word.starts_with('+')));
    run::<()>(&server, &user(&rights));
    let url = server.url() + "?user=vorrang&pass=pass";
    {
        let user = redis::Client::open(url.as_str()).unwrap();
        let (mut store, mut coverage) = (Store::as_user(&server, user), Coverage::default());
        search("short", history::short(), 60, &mut store, &mut coverage);
        search("bulky", history::bulky(), 3, &mut store, &mut coverage);
        for bounded in [
            fixed::many_orphaned_entries(),
            fixed::usage_summed_in_parts(),
        ] {
            store.forms = Forms::Mixed;
            crate::play(&bounded, &mut store, &mut coverage).unwrap();
        }
    }
    use_all(&options(url.clone() + "&db=3")).await;
    assert_eq!(refused(run(&server, &["ACL", "LOG"])), Vec::<String>::new());
    // Before 7.0 it does not count subcommands.
    if has_functions(&server.client()) {
        let executed = executed(&run::<String>(&server, &["INFO", "commandstats"]));
        let idle: Vec<String> = commands(&rights).difference(&executed).cloned().collect();
        assert_eq!(idle, Vec::<String>::new(), "rights that nothing needs");
    }
}

/// The same without the right to call functions.
#[tokio::test]
async fn documented_rights_without_functions_suffice() {
    let server = Server::start();
    run::<()>(&server, &user(&rights(&server.client(), &[USER, SCRIPT])));
    let url = server.url() + "?user=vorrang&pass=pass";
    use_all(&options(url)).await;
    let log = refused(run(&server, &["ACL", "LOG"]));
    assert!(log.iter().all(|entry| entry.contains("fcall")), "{log:?}");
}

#[tokio::test]
async fn documented_rights_of_a_cluster_suffice_and_all_are_used() {
    let node = Node::cluster();
    let rights = rights(&node.client(), &[USER, CLUSTER]);
    node.run::<()>(&user(&rights));
    node.run::<()>(&["CONFIG", "RESETSTAT"]);
    let url = format!("redis+cluster://vorrang:pass@{}", node.address());
    use_all(&options(url)).await;
    assert_eq!(refused(node.run(&["ACL", "LOG"])), Vec::<String>::new());
    if has_functions(&node.client()) {
        let executed = executed(&node.run::<String>(&["INFO", "commandstats"]));
        let mut cluster = commands(&documented(CLUSTER));
        // For a slot on its way, which the fault tests have.
        assert!(cluster.remove("asking"));
        let idle: Vec<String> = cluster.difference(&executed).cloned().collect();
        assert_eq!(idle, Vec::<String>::new(), "rights that nothing needs");
    }
}

/// At the server behind sentinels the rights are those of any server; a user of its own at the sentinel asks for the master.
#[tokio::test]
async fn documented_rights_at_sentinels_suffice_and_all_are_used() {
    let server = Node::server(&[]);
    server.run::<()>(&user(&rights(&server.client(), &[USER])));
    let sentinel = server.sentinel();
    sentinel.run::<()>(&user(&documented(SENTINELS)));
    sentinel.run::<()>(&["ACL", "SETUSER", "default", "resetpass", ">other"]);
    let url = format!(
        "redis+sentinel://vorrang:pass@{}/{SERVICE}",
        sentinel.address()
    );
    let options = RedisOptions {
        sentinel_username: Some("vorrang".into()),
        sentinel_password: Some("pass".into()),
        ..options(url)
    };
    use_all(&options).await;
    assert_eq!(refused(server.run(&["ACL", "LOG"])), Vec::<String>::new());
    // Without the user the sentinels refuse, and that is said.
    let unknown = RedisOptions {
        sentinel_username: None,
        sentinel_password: None,
        ..options
    };
    let error = RedisBackend::connect(&unknown)
        .unwrap()
        .check()
        .await
        .unwrap_err();
    assert!(
        error.kind == "auth" && error.message.contains("sentinel"),
        "{error}"
    );
}

/// `redis_wait_replicas`.
#[tokio::test]
async fn documented_right_to_wait_for_replicas_suffices_and_is_needed() {
    let server = Node::server(&[]);
    let _replica = server.replica();
    let is_online = || {
        let info: String = server.run(&["INFO", "replication"]);
        info.contains("state=online")
    };
    while !is_online() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.run::<()>(&user(&rights(&server.client(), &[USER])));
    let options = RedisOptions {
        wait_replicas: 1,
        ..options(format!("redis://vorrang:pass@{}", server.address()))
    };
    let backend = RedisBackend::connect(&options).unwrap();
    let mut peer = Peer::new(&backend, "one");
    let error = peer.send(Vec::new(), Vec::new()).await.unwrap_err();
    assert!(
        error.kind == "noperm" && error.message.contains("wait"),
        "{error}"
    );
    server.run::<()>(&user(&documented(WAIT)));
    use_all(&options).await;
}
