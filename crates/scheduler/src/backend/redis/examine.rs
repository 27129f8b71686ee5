//! Whether a server is set up as the queue needs it.

use super::{BackendError, server::Server};

impl Server {
    /// Whether the server answers, and is set up as the queue needs it.
    pub(super) async fn examine(&self) -> Result<(), BackendError> {
        // The pool pings a connection before it reuses it.
        let pool = self.admin().await?;
        let mut connection = pool.get().await.map_err(|error| match error {
            deadpool_redis::PoolError::Backend(error) => self.secret.explain(&error),
            deadpool_redis::PoolError::Timeout(_) => BackendError {
                kind: "timeout",
                message: "no answer in time".into(),
            },
            error => BackendError {
                kind: "other",
                message: self.secret.remove_from(&error.to_string()),
            },
        })?;
        // P17 (partial writes): the step detects another master by INFO. Without it a loss of writes could remain undetected.
        let info: Result<String, _> = redis::cmd("INFO")
            .arg("replication")
            .query_async(&mut connection)
            .await;
        info.map_err(|error| match self.secret.explain(&error) {
            error if error.kind == "noperm" || error.message.contains("unknown command") => {
                BackendError {
                    kind: "config",
                    message: "Redis refuses the command INFO, without which a change of its master may go unnoticed: allow it to the user (ACL: +info)".into(),
                }
            }
            error => error,
        })?;
        let config: Result<Vec<(String, String)>, _> = redis::cmd("CONFIG")
            .arg("GET")
            .arg("maxmemory-policy")
            .query_async(&mut connection)
            .await;
        let policy = match config {
            Ok(pairs) => pairs.into_iter().next().map(|(_, policy)| policy),
            // Other errors are no refusal by the server, so its setting is unknown.
            Err(error) if error.code().is_none() => return Err(self.secret.explain(&error)),
            Err(_) => {
                // Managed servers forbid CONFIG.
                let info: String = redis::cmd("INFO")
                    .arg("memory")
                    .query_async(&mut connection)
                    .await
                    .map_err(|e| self.secret.explain(&e))?;
                info.lines()
                    .find_map(|line| line.strip_prefix("maxmemory_policy:"))
                    .map(|policy| policy.trim().to_owned())
            }
        };
        match policy {
            Some(policy) if policy != "noeviction" => Err(BackendError {
                kind: "config",
                message: format!(
                    "Redis may evict the queue: maxmemory-policy is {policy}, set it to noeviction"
                ),
            }),
            _ => Ok(()),
        }
    }
}
