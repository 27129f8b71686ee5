//! An upstream in this process: a function gets the calls in the place of a server, under the same limits and in the same order.
//!
//!     cargo run -p vorrang-gateway --example custom_upstream

use std::{error::Error, time::Duration};

use serde_json::{Value, json};
use vorrang_gateway::{InProcess, Router};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    // It answers with the question.
    let echo = InProcess::new(|request: http::Request<bytes::Bytes>| async move {
        let question: Value = serde_json::from_slice(request.body())?;
        let text = question["messages"][0]["content"].clone();
        let answer = json!({
            "object": "chat.completion",
            "model": question["model"],
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        });
        Ok(http::Response::new(answer.to_string()))
    });
    let router = Router::builder()
        .model_list(&json!([{
            "model_name": "echo",
            "litellm_params": {"model": "openai/echo-1", "api_base": "http://echo.internal/v1", "tpm": 1000},
        }]))
        .upstream("http://echo.internal/v1", echo)
        .build()?;
    let request = json!({"model": "echo", "max_tokens": 10, "messages": [{"role": "user", "content": "Hey!"}]});
    let response = router.chat_completion(&request).send().await?;
    let answer: Value = response.json()?;
    assert_eq!(answer["model"], "echo-1");
    assert_eq!(answer["choices"][0]["message"]["content"], "Hey!");
    println!("{answer}");
    router.close(Duration::from_secs(1)).await;
    Ok(())
}
