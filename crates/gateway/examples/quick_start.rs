//! The quick start of LiteLLM's "Request Prioritization" in Rust: one deployment with one request a minute, and two calls. The second
//! waits for its turn, and gives up after its 2 seconds.
//!
//!     cargo run -p vorrang-gateway --example quick_start

use std::{error::Error, time::Duration};

use serde_json::{Value, json};
use vorrang_gateway::{ErrorKind, Router};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let router = Router::builder()
        .model_list(&json!([{
            "model_name": "gpt-3.5-turbo",
            "litellm_params": {
                "model": "gpt-3.5-turbo",
                // Answered in process, without a call.
                "mock_response": "Hello world this is Macintosh!",
                "rpm": 1,
            },
        }]))
        .timeout(Duration::from_secs(2))
        .routing_strategy("usage-based-routing-v2")
        .polling_interval(Duration::from_millis(30))
        .build()?;
    let request = json!({
        "model": "gpt-3.5-turbo",
        "messages": [{"role": "user", "content": "Hey!"}],
    });

    let response = router.chat_completion(&request).priority(0).send().await?;
    let answer: Value = response.json()?;
    println!("{}", answer["choices"][0]["message"]["content"]);
    println!("waited {:?}", response.info.waited);

    match router.chat_completion(&request).priority(0).send().await {
        Ok(_) => return Err("a second request within the minute".into()),
        Err(error) => {
            println!("didn't make the request: {error}");
            assert_eq!(error.kind(), Some(ErrorKind::Timeout));
        }
    }
    router.close(Duration::from_secs(1)).await;
    Ok(())
}
