//! The SDK: settings in code, calls of any type, streams, errors by kind, upstreams in this process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::*;
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use vorrang_gateway::{
    BuildError, Endpoint, ErrorKind, Events, FallbackReason, InProcess, Router, SdkError,
};

fn mock(more: Value) -> Value {
    let mut params = json!({"model": "openai/up", "mock_response": "hello"});
    for (name, value) in more.as_object().unwrap() {
        params[name] = value.clone();
    }
    json!([{"model_name": "m", "litellm_params": params, "model_info": {"id": "d0"}}])
}

fn question() -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": "Hey!"}]})
}

#[tokio::test]
async fn priority_and_timeout_of_the_builder_are_those_of_the_call() {
    let router = Router::builder()
        .model_list(&mock(json!({"rpm": 1})))
        .build()
        .unwrap();
    let response = router.chat_completion(&question()).priority(7).send().await;
    assert_eq!(response.unwrap().info.priority, 7);
    let late = router
        .chat_completion(&question())
        .timeout(Duration::from_millis(20))
        .send();
    let error = late.await.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::Timeout), "{error}");
}

#[tokio::test]
async fn settings_in_code_are_read_like_those_of_a_file() {
    let router = Router::builder()
        .model_list(&mock(json!({})))
        .timeout(Duration::from_millis(2_500))
        .polling_interval(Duration::from_millis(50))
        .num_retries(4)
        .default_priority(3)
        .routing_strategy("least-busy")
        .setting("vorrang_settings", "max_queue_depth", &9)
        .build()
        .unwrap();
    let config = router.config();
    assert_eq!(config.timeout, Duration::from_millis(2_500));
    assert_eq!(config.timing.polling_interval, Duration::from_millis(50));
    assert_eq!((config.num_retries, config.default_priority), (4, Some(3)));
    assert_eq!(config.groups[0].max_queue_depth, Some(9));
}

#[tokio::test]
async fn wrong_settings_in_code_name_what_was_expected() {
    let built = Router::builder()
        .model_list(&mock(json!({"rpm": "many"})))
        .routing_strategy("fastest")
        .build();
    let error = built.unwrap_err();
    assert!(matches!(error, BuildError::Config(_)));
    let text = error.to_string();
    assert!(
        text.contains("rpm") && text.contains("routing_strategy"),
        "{text}"
    );
    // Redis is read by the rules of a file, too.
    let built = Router::builder()
        .model_list(&mock(json!({})))
        .cache_kwargs(&json!({"sentinel_nodes": [["h", 26379]]}))
        .build();
    let text = built.unwrap_err().to_string();
    let words = "router_settings.cache_kwargs.sentinel_nodes: names sentinels";
    assert!(text.contains(words), "{text}");
    // JSON has no keys but texts.
    let bad: HashMap<(u8, u8), u8> = [((1, 2), 3)].into();
    let built = Router::builder().model_list(&bad).build();
    assert!(matches!(built.unwrap_err(), BuildError::Setting(_)));
}

#[tokio::test]
async fn variables_of_the_builder_replace_the_environment() {
    let mut upstream = Upstream::start([]).await;
    let list = json!([{"model_name": "m", "litellm_params": {
        "model": "openai/up", "api_base": upstream.base, "api_key": "os.environ/MY_KEY"}}]);
    let router = Router::builder()
        .model_list(&list)
        .variables([("MY_KEY".to_owned(), "sk-mine".to_owned())].into())
        .build()
        .unwrap();
    router.chat_completion(&question()).send().await.unwrap();
    assert_eq!(
        upstream.next().await.headers["authorization"],
        "Bearer sk-mine"
    );
}

#[tokio::test]
async fn every_kind_of_call_reaches_its_endpoint() {
    let mut upstream = Upstream::start([]).await;
    let list = json!([{"model_name": "m", "litellm_params": {"model": "openai/up", "api_base": upstream.base}}]);
    let router = Router::builder().model_list(&list).build().unwrap();
    router.chat_completion(&question()).send().await.unwrap();
    assert_eq!(upstream.next().await.path, "/v1/chat/completions");
    let prompt = json!({"model": "m", "prompt": "Hey!"});
    router.text_completion(&prompt).send().await.unwrap();
    assert_eq!(upstream.next().await.path, "/v1/completions");
    let input = json!({"model": "m", "input": ["a", "b"]});
    router.embedding(&input).send().await.unwrap();
    assert_eq!(upstream.next().await.path, "/v1/embeddings");
    router
        .request(Endpoint::Responses, &input)
        .send()
        .await
        .unwrap();
    assert_eq!(upstream.next().await.path, "/v1/responses");
}

#[tokio::test]
async fn stream_gives_the_json_of_each_event_without_the_end() {
    let router = Router::builder()
        .model_list(&mock(json!({})))
        .build()
        .unwrap();
    let mut stream = router.chat_completion(&question()).stream().await.unwrap();
    let mut text = String::new();
    while let Some(event) = stream.event::<Value>().await {
        let event = event.unwrap();
        assert_eq!(event["object"], "chat.completion.chunk");
        text.push_str(
            event["choices"][0]["delta"]["content"]
                .as_str()
                .unwrap_or_default(),
        );
    }
    assert_eq!(text, "hello");
}

#[tokio::test]
async fn error_after_the_first_event_is_the_last_item_of_the_stream() {
    let upstream = Upstream::start([Reply::Typed(
        "text/event-stream",
        "data: {\"a\":1}\n\ndata: {\"error\":{\"message\":\"broken\"}}\n\ndata: {\"b\":2}\n\n"
            .into(),
    )])
    .await;
    let list = json!([{"model_name": "m", "litellm_params": {"model": "openai/up", "api_base": upstream.base}}]);
    let router = Router::builder().model_list(&list).build().unwrap();
    let stream = router.chat_completion(&question()).stream().await.unwrap();
    let items: Vec<_> = stream.collect().await;
    assert_eq!(items.len(), 2);
    assert_eq!(items[0].as_ref().unwrap(), "{\"a\":1}");
    let Err(SdkError::Event(text)) = &items[1] else {
        panic!("{items:?}");
    };
    assert!(text.contains("broken"), "{text}");
}

#[tokio::test]
async fn body_that_is_json_already_goes_as_it_is_and_can_be_streamed() {
    let router = Router::builder()
        .model_list(&mock(json!({})))
        .build()
        .unwrap();
    let json = question().to_string();
    let call = || router.request_json(Endpoint::ChatCompletions, json.clone());
    let response = call().send().await.unwrap();
    assert_eq!(
        response.json::<Value>().unwrap()["choices"][0]["message"]["content"],
        "hello"
    );
    let mut stream = call().stream().await.unwrap();
    let event = stream.event::<Value>().await.unwrap().unwrap();
    assert_eq!(event["object"], "chat.completion.chunk");
    let broken = router.request_json(Endpoint::ChatCompletions, "{");
    let error = broken.send().await.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::InvalidRequest));
}

#[derive(Debug, Default)]
struct Waits(Mutex<Vec<(String, i32, u64, Duration)>>);

impl Events for Waits {
    fn queued(&self, group: &str, priority: i32, ahead: u64, least_wait: Duration) {
        let wait = (group.to_owned(), priority, ahead, least_wait);
        self.0.lock().unwrap().push(wait);
    }
}

#[tokio::test]
async fn call_that_waits_reports_its_position_and_its_least_wait() {
    let router = Router::builder()
        .model_list(&mock(json!({"rpm": 1})))
        .timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    router.until_ready().await;
    let waits = Arc::new(Waits::default());
    let request = question();
    let call = |priority| {
        let call = router.chat_completion(&request).priority(priority);
        call.events(waits.clone()).send()
    };
    call(0).await.unwrap();
    assert!(waits.0.lock().unwrap().is_empty(), "it goes at once");
    let later = async {
        while waits.0.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        call(5).await
    };
    let (first, second) = tokio::join!(call(4), later);
    assert!(first.is_err() && second.is_err());
    let waits = waits.0.lock().unwrap();
    let [(group, 4, 0, _), (_, 5, 1, least)] = waits.as_slice() else {
        panic!("{waits:?}");
    };
    assert_eq!(group, "m");
    assert!(*least > Duration::from_secs(50), "{least:?}");
}

#[tokio::test]
async fn refusal_says_why_another_model_may_take_a_request() {
    let refused = |code: &str| {
        error(
            400,
            &json!({"error": {"message": "no", "code": code}}).to_string(),
        )
    };
    let codes = ["context_length_exceeded", "content_filter", "invalid_value"];
    let upstream = Upstream::start(codes.map(refused)).await;
    let list = json!([{"model_name": "m", "litellm_params": {"model": "openai/up", "api_base": upstream.base}}]);
    let router = Router::builder().model_list(&list).build().unwrap();
    let mut refusals = Vec::new();
    for _ in codes {
        let error = router.chat_completion(&question()).send().await;
        let Err(SdkError::Call(error)) = error else {
            panic!("it was answered");
        };
        refusals.push(error.problem.refusal());
    }
    let expected = [
        Some(FallbackReason::ContextWindow),
        Some(FallbackReason::ContentPolicy),
        None,
    ];
    assert_eq!(refusals, expected);
}

#[tokio::test]
async fn answer_of_another_type_is_an_error_of_its_own() {
    let router = Router::builder()
        .model_list(&mock(json!({})))
        .build()
        .unwrap();
    let response = router.chat_completion(&question()).send().await.unwrap();
    let error = response.json::<Vec<u8>>().unwrap_err();
    assert!(matches!(error, SdkError::Answer(_)) && error.kind().is_none());
}

#[tokio::test]
async fn invalid_requests_are_errors_of_the_clients_kind() {
    let router = Router::builder()
        .model_list(&mock(json!({})))
        .build()
        .unwrap();
    for request in [
        json!({}),
        json!([]),
        json!("m"),
        json!({"model": "nope", "messages": []}),
    ] {
        let error = router.chat_completion(&request).stream().await.unwrap_err();
        assert_eq!(error.kind(), Some(ErrorKind::InvalidRequest), "{request}");
    }
}

#[tokio::test]
async fn upstream_in_this_process_gets_the_request_as_a_server_would() {
    let upstream = InProcess::new(|request: http::Request<Bytes>| async move {
        assert_eq!(request.uri(), "http://mine.internal/v1/chat/completions");
        assert_eq!(request.headers()["authorization"], "Bearer sk-mine");
        let body: Value = serde_json::from_slice(request.body())?;
        if body["model"] == "down" {
            return Err("not today".into());
        }
        if body["stream"] == true {
            let event = Bytes::from_static(b"data: {\"streamed\":true}\n\n");
            let events = futures_util::stream::iter([Ok::<_, std::io::Error>(event)]);
            let response = http::Response::builder().header("content-type", "text/event-stream");
            return Ok(response.body(reqwest::Body::wrap_stream(events))?);
        }
        Ok(http::Response::new(body.to_string().into()))
    });
    let deployment = |name: &str, model: &str| {
        json!({"model_name": name, "litellm_params": {"model": format!("openai/{model}"),
            "api_base": "http://mine.internal/v1", "api_key": "sk-mine", "num_retries": 0}})
    };
    let router = Router::builder()
        .model_list(&json!([deployment("m", "up"), deployment("n", "down")]))
        .upstream("http://mine.internal/v1/", upstream)
        .build()
        .unwrap();
    let response = router.chat_completion(&question()).send().await.unwrap();
    assert_eq!(response.json::<Value>().unwrap()["model"], "up");
    let mut stream = router.chat_completion(&question()).stream().await.unwrap();
    assert_eq!(
        stream.event::<Value>().await.unwrap().unwrap()["streamed"],
        true
    );
    assert!(stream.event::<Value>().await.is_none());
    let request = json!({"model": "n", "messages": []});
    let error = router.chat_completion(&request).send().await.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::InternalServer), "{error}");
}

#[tokio::test]
async fn file_opens_the_same_router() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let list = json!({"model_list": mock(json!({}))});
    std::fs::write(file.path(), list.to_string()).unwrap();
    let router = Router::from_file(file.path()).await.unwrap();
    router.chat_completion(&question()).send().await.unwrap();
    router.close(Duration::from_secs(1)).await;
    let error = router
        .chat_completion(&question())
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::ServiceUnavailable));
    let missing = Router::from_file("/nonexistent/config.yaml").await;
    assert!(missing.unwrap_err().to_string().contains("cannot be read"));
}

#[tokio::test]
async fn settings_by_name_in_a_section_that_is_set_as_a_whole_are_an_error() {
    let list =
        || json!([{"model_name": "m", "litellm_params": {"model": "m", "mock_response": "a"}}]);
    let before = Router::builder()
        .setting("model_list", "a", &1)
        .model_list(&list());
    let after = Router::builder()
        .model_list(&list())
        .setting("model_list", "a", &1);
    for builder in [before, after] {
        let error = builder.build().unwrap_err();
        let words = "model_list is set as a whole, and cannot have settings by name";
        assert_eq!(error.to_string(), words);
    }
}

/// A3: what is on its way counts until it has ended.
#[tokio::test]
async fn close_cuts_off_what_outlasts_the_grace_before_its_slot_is_free() {
    let (_sender, events) = tokio::sync::mpsc::channel(1);
    let stream = Reply::Stream("text/event-stream", events);
    let mut upstream = Upstream::start([Reply::Hang, stream]).await;
    let params =
        json!({"model": "openai/up", "api_base": upstream.base, "max_parallel_requests": 2});
    let list = json!([{"model_name": "m", "litellm_params": params}]);
    let router = Router::builder().model_list(&list).build().unwrap();
    let calls: Vec<_> = [false, true]
        .map(|streamed| {
            let router = router.clone();
            tokio::spawn(async move {
                let call = router.chat_completion(&question());
                match streamed {
                    false => call.send().await.map(drop),
                    true => call.stream().await.map(drop),
                }
            })
        })
        .into();
    upstream.next().await;
    upstream.next().await;
    router.close(Duration::from_millis(30)).await;
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), Some(ErrorKind::ServiceUnavailable), "{error}");
    }
    upstream.gone().await;
    upstream.gone().await;
}

#[tokio::test]
async fn close_breaks_off_a_stream_that_has_begun() {
    let (sender, events) = tokio::sync::mpsc::channel(1);
    let upstream = Upstream::start([Reply::Stream("text/event-stream", events)]).await;
    let params = json!({"model": "openai/up", "api_base": upstream.base});
    let list = json!([{"model_name": "m", "litellm_params": params}]);
    let router = Router::builder().model_list(&list).build().unwrap();
    let event = Bytes::from_static(b"data: {\"id\":\"a\",\"choices\":[]}\n\n");
    sender.send(Ok(event)).await.unwrap();
    let mut stream = router.chat_completion(&question()).stream().await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    router.close(Duration::ZERO).await;
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(matches!(error, SdkError::Broken(_)), "{error}");
    assert!(stream.next().await.is_none());
}
