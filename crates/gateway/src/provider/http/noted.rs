//! Whether a call made a new connection, or reused a pooled connection.

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll},
};

use tower_layer::Layer;
use tower_service::Service;

tokio::task_local! {
    /// The call that is being made has got a new connection.
    static CONNECTED: Cell<bool>;
}

/// Makes a call; says also whether it made a new connection. A connection that is made for the call but given to the pool, because
/// another one became free earlier, is finished by a task of its own and not seen here.
pub(crate) async fn noted<T>(call: impl Future<Output = T>) -> (T, bool) {
    let noted = async {
        let result = call.await;
        (result, CONNECTED.with(Cell::get))
    };
    CONNECTED.scope(Cell::new(false), noted).await
}

/// Notes each connection that is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoteConnections;

impl<S> Layer<S> for NoteConnections {
    type Service = Noting<S>;

    fn layer(&self, inner: S) -> Noting<S> {
        Noting(inner)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Noting<S>(S);

impl<S, T> Service<T> for Noting<S>
where
    S: Service<T>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, target: T) -> Self::Future {
        let connecting = self.0.call(target);
        Box::pin(async move {
            let connection = connecting.await?;
            // Outside of a call there is nothing to note.
            let _ = CONNECTED.try_with(|connected| connected.set(true));
            Ok(connection)
        })
    }
}
