//! The provider of the end-to-end tests as a process: prints `serving http://...` and serves until it is ended.

use anyhow::Result;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("serving http://{}", listener.local_addr()?);
    vorrang_tests::upstream::serve(listener).await
}
