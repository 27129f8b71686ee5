//! `--demo-load`: traffic for the demo, so that there is a queue to look at. The calls go through the instance's own router, to a provider
//! of the process' own on loopback.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::post,
};
use futures_util::stream;
use http::{StatusCode, header};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, interval_at, sleep},
};
use vorrang_gateway::{Config, Events, GroupSettings, KeyPolicy, ProcessEnv, Router};

/// The group that the traffic goes to.
pub const GROUP: &str = "demo-busy";

/// Calls of the traffic that wait or run at once, at most. What comes beyond them is left out.
const MOST: usize = 200;

/// How long the provider fails, and how often it does.
const FAILS: Duration = Duration::from_secs(6);
const FAILS_EVERY: Duration = Duration::from_secs(120);

/// What one kind of caller sends.
struct Traffic {
    key: &'static str,
    priority: i32,
    /// So many calls at once, so often.
    calls: usize,
    every: Duration,
    /// How long the first ones come after the start.
    after: Duration,
    streams: bool,
    timeout: Duration,
}

/// Together 92 a minute where the limits let 100 through, and in bursts more: queues form, and drain.
const TRAFFIC: [Traffic; 4] = [
    Traffic {
        key: "on-call",
        priority: -10,
        calls: 1,
        every: Duration::from_secs(9),
        after: Duration::from_secs(4),
        streams: true,
        timeout: Duration::from_secs(60),
    },
    Traffic {
        key: "web",
        priority: 0,
        calls: 2,
        every: Duration::from_millis(2_800),
        after: Duration::from_millis(500),
        streams: true,
        timeout: Duration::from_secs(120),
    },
    Traffic {
        key: "reports",
        priority: 50,
        calls: 7,
        every: Duration::from_secs(35),
        after: Duration::from_secs(8),
        streams: false,
        timeout: Duration::from_secs(300),
    },
    Traffic {
        key: "batch",
        priority: 1000,
        calls: 50,
        every: Duration::from_secs(100),
        after: Duration::from_secs(1),
        streams: false,
        timeout: Duration::from_secs(600),
    },
];

/// The provider of the traffic, listening.
pub struct Provider {
    listener: TcpListener,
    groups: Vec<GroupSettings>,
}

impl Provider {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    /// There is none.
    pub async fn bind() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("cannot listen for the demo's own provider")?;
        let groups = groups(listener.local_addr()?)?;
        Ok(Self { listener, groups })
    }

    /// The groups that the traffic goes to, for the demo's configuration.
    pub fn groups(&self) -> Vec<GroupSettings> {
        self.groups.clone()
    }

    /// Answers calls, until it is dropped.
    async fn serve(self) {
        let routes = axum::Router::new()
            .route("/steady/chat/completions", post(answer))
            .route("/shaky/chat/completions", post(shaky))
            .with_state(Arc::new(Answers {
                start: Instant::now(),
                calls: AtomicU64::new(0),
            }));
        // It ends with the process, and has nothing to say before that.
        drop(axum::serve(self.listener, routes).await);
    }
}

/// Two deployments: one that always answers, and one that fails now and then, so that it cools.
fn groups(address: SocketAddr) -> Result<Vec<GroupSettings>> {
    let deployment = |id: &str, path: &str, limits: Value| {
        let mut params =
            json!({"model": "hosted_vllm/demo", "api_base": format!("http://{address}/{path}")});
        if let (Value::Object(params), Value::Object(limits)) = (&mut params, limits) {
            params.extend(limits);
        }
        json!({"model_name": GROUP, "litellm_params": params, "model_info": {"id": id}})
    };
    let document = json!({
        "model_list": [
            deployment("steady", "steady", json!({"rpm": 60, "max_parallel_requests": 8})),
            deployment("shaky", "shaky", json!({"rpm": 40, "tpm": 20_000})),
        ],
        "router_settings": {"allowed_fails": 1, "cooldown_time": 20},
    });
    let text = format!("{document:#}");
    Ok(Config::parse(&text, "--demo-load", &ProcessEnv)?
        .config
        .groups)
}

/// Sends traffic and answers it, until it is dropped.
pub(crate) async fn run(provider: Provider, router: Router, events: Arc<dyn Events>) {
    let room = Arc::new(Semaphore::new(MOST));
    let send = TRAFFIC.iter().map(|traffic| {
        let (router, events, room) = (router.clone(), events.clone(), room.clone());
        send(traffic, router, events, room)
    });
    tokio::join!(provider.serve(), futures_util::future::join_all(send));
}

async fn send(traffic: &Traffic, router: Router, events: Arc<dyn Events>, room: Arc<Semaphore>) {
    // Dropped with this future: then they leave the queue.
    let mut calls = JoinSet::new();
    let mut times = interval_at(Instant::now() + traffic.after, traffic.every);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        times.tick().await;
        while calls.try_join_next().is_some() {}
        for _ in 0..traffic.calls {
            let Ok(place) = room.clone().try_acquire_owned() else {
                break;
            };
            let (router, events) = (router.clone(), events.clone());
            let (key, priority, timeout) = (traffic.key, traffic.priority, traffic.timeout);
            let streams = traffic.streams;
            calls.spawn(async move {
                let _place = place;
                let request = json!({"model": GROUP, "messages": [{"role": "user", "content": "What is a queue?"}]});
                let key = KeyPolicy {
                    name: key.to_owned(),
                    ..KeyPolicy::default()
                };
                let call = router.chat_completion(&request).key(key).events(events);
                let call = call.priority(priority).timeout(timeout);
                // That one fails or is cancelled is what there is to see.
                if streams {
                    if let Ok(mut answer) = call.stream().await {
                        while let Some(Ok(_)) = answer.event::<Value>().await {}
                    }
                } else {
                    drop(call.send().await);
                }
            });
        }
    }
}

/// What the provider's answers depend on.
struct Answers {
    start: Instant,
    calls: AtomicU64,
}

/// Fails for a while, now and then.
async fn shaky(State(answers): State<Arc<Answers>>, request: Json<Value>) -> Response {
    let since = answers.start.elapsed().as_secs_f64() % FAILS_EVERY.as_secs_f64();
    if since > FAILS_EVERY.as_secs_f64() - FAILS.as_secs_f64() {
        let error = json!({"error": {"message": "The demo's provider has a bad moment.", "type": "server_error"}});
        return (StatusCode::SERVICE_UNAVAILABLE, Json(error)).into_response();
    }
    answer(State(answers), request).await
}

const WORDS: [&str; 8] = [
    "A ",
    "queue ",
    "is ",
    "how ",
    "requests ",
    "wait ",
    "their ",
    "turn.",
];

/// After a moment, at once or word by word.
async fn answer(State(answers): State<Arc<Answers>>, Json(request): Json<Value>) -> Response {
    // Not all take the same time.
    let nth = answers.calls.fetch_add(1, Ordering::Relaxed);
    let moment = Duration::from_millis(400 + nth * 370 % 1_300);
    sleep(moment).await;
    let usage = json!({"prompt_tokens": 60, "completion_tokens": 90, "total_tokens": 150});
    if request["stream"] != true {
        let choice = json!({"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": WORDS.concat()}});
        let answer = json!({"id": "chatcmpl-demo", "object": "chat.completion", "created": 0, "model": "demo", "choices": [choice], "usage": usage});
        return Json(answer).into_response();
    }
    let mut ticks = interval(moment / 4);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let events = stream::unfold((0, ticks), |(at, mut ticks)| async move {
        ticks.tick().await;
        let chunk = |choices: Value| json!({"id": "chatcmpl-demo", "object": "chat.completion.chunk", "created": 0, "model": "demo", "choices": choices});
        let event = match at {
            0..8 => chunk(json!([{"index": 0, "delta": {"content": WORDS[at]}}])).to_string(),
            8 => chunk(json!([{"index": 0, "delta": {}, "finish_reason": "stop"}])).to_string(),
            9 => "[DONE]".to_owned(),
            _ => return None,
        };
        Some((
            Ok::<_, Infallible>(format!("data: {event}\n\n")),
            (at + 1, ticks),
        ))
    });
    let head = [(header::CONTENT_TYPE, "text/event-stream")];
    (head, Body::from_stream(events)).into_response()
}
