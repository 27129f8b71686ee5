//! Several processes share one queue and its limits on one Redis: start this in two terminals at once.
//!
//!     REDIS_URL=redis://localhost:6379 cargo run -p vorrang-gateway --example fleet

use std::{env, error::Error, time::Duration};

use serde_json::json;
use vorrang_gateway::Router;

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("REDIS_URL").map_err(|_| "set REDIS_URL to a Redis that does not evict")?;
    let router = Router::builder()
        .model_list(&json!([{
            "model_name": "shared",
            "litellm_params": {
                "model": "openai/any",
                "mock_response": "Hello!",
                // For all processes together.
                "max_parallel_requests": 1,
            },
        }]))
        .timeout(Duration::from_secs(60))
        .redis_url(&url)
        .setting("vorrang_settings", "redis_namespace", "vorrang-example")
        .build()?;
    for priority in [5, 0, 3] {
        let request = json!({"model": "shared", "messages": [{"role": "user", "content": "Hey!"}]});
        let response = router
            .chat_completion(&request)
            .priority(priority)
            .send()
            .await?;
        let numbers = response.info.numbers.ok_or("a granted call has numbers")?;
        println!("priority {priority}: granted {}", numbers.granted.0);
    }
    router.close(Duration::from_secs(5)).await;
    Ok(())
}
