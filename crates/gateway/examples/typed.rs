//! The types of `async-openai` for requests, answers and events.
//!
//!     cargo run -p vorrang-gateway --example typed

use std::{error::Error, time::Duration};

use async_openai::types::chat::{
    ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequestArgs,
    CreateChatCompletionResponse, CreateChatCompletionStreamResponse,
};
use serde_json::json;
use vorrang_gateway::Router;

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let router = Router::builder()
        .model_list(&json!([{
            "model_name": "gpt",
            "litellm_params": {"model": "openai/gpt-4o", "mock_response": "Hello from the mock!"},
        }]))
        .build()?;
    let message = ChatCompletionRequestUserMessageArgs::default()
        .content("Hey!")
        .build()?;
    let request = CreateChatCompletionRequestArgs::default()
        .model("gpt")
        .messages([message.into()])
        .build()?;

    let response = router.chat_completion(&request).priority(5).send().await?;
    let answer: CreateChatCompletionResponse = response.json()?;
    let text = answer.choices[0].message.content.clone();
    assert_eq!(text.as_deref(), Some("Hello from the mock!"));

    let mut stream = router
        .chat_completion(&request)
        .priority(0)
        .stream()
        .await?;
    let mut streamed = String::new();
    while let Some(event) = stream.event::<CreateChatCompletionStreamResponse>().await {
        for choice in event?.choices {
            streamed.push_str(&choice.delta.content.unwrap_or_default());
        }
    }
    assert_eq!(Some(streamed), text);
    router.close(Duration::from_secs(1)).await;
    Ok(())
}
