//! The reference: an axum handler that parses a chat and answers a completion. What a gateway costs is what it costs beyond this.

use axum::{Json, Router, routing::post};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::answers;

/// Prints `listening on http://...` and serves until it is ended.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let service = Router::new().route("/v1/chat/completions", post(chat));
    Ok(axum::serve(listener, service).await?)
}

/// Answers in the model's name, so that the body was not parsed for nothing.
async fn chat(Json(request): Json<Value>) -> Json<answers::Completion> {
    let model = request["model"].as_str().unwrap_or_default();
    Json(answers::completion(model, answers::SHORT))
}
