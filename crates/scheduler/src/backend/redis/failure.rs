//! What went wrong, in a short stable word for metrics and a sentence for people.

use redis::{ErrorKind, RedisError};

use super::BackendError;

/// The password, so that no server's error can tell it: some quote the command they did not know.
pub(super) struct Secret(Option<String>);

impl Secret {
    pub(super) fn new(password: Option<&str>) -> Self {
        Self(password.filter(|p| !p.is_empty()).map(str::to_owned))
    }

    pub(super) fn remove_from(&self, text: &str) -> String {
        match &self.0 {
            Some(password) => text.replace(password, "***"),
            None => text.into(),
        }
    }

    pub(super) fn explain(&self, error: &RedisError) -> BackendError {
        BackendError {
            kind: kind(error),
            message: self.remove_from(&error.to_string()),
        }
    }
}

/// Most of them mean: not executed (P2). Where that is not certain, the message is sent again all the same.
fn kind(error: &RedisError) -> &'static str {
    if error.is_timeout() {
        return "timeout";
    }
    match error.kind() {
        ErrorKind::Io => return "io",
        ErrorKind::AuthenticationFailed => return "auth",
        _ => {}
    }
    match error.code().unwrap_or_default() {
        "NOSCRIPT" => "noscript",
        "READONLY" => "readonly",
        "LOADING" => "loading",
        "BUSY" => "busy",
        "MASTERDOWN" => "masterdown",
        "CLUSTERDOWN" => "clusterdown",
        "TRYAGAIN" => "tryagain",
        "NOREPLICAS" => "noreplicas",
        "OOM" => "oom",
        "NOPERM" => "noperm",
        "NOAUTH" | "WRONGPASS" => "auth",
        "ERR"
            if error
                .detail()
                .is_some_and(|detail| detail.contains("script")) =>
        {
            "script"
        }
        _ => "other",
    }
}

/// Whether the server at the other end is no (longer a) master: its name may lead elsewhere by now.
pub(super) fn is_wrong_server(error: &RedisError) -> bool {
    matches!(error.code(), Some("READONLY" | "MASTERDOWN"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_taken_out_of_errors() {
        let secret = Secret::new(Some("hunter2"));
        let error = RedisError::from((
            ErrorKind::Client,
            "unknown command",
            "`AUTH`, with args beginning with: `hunter2`".into(),
        ));
        assert!(error.to_string().contains("hunter2"));
        assert!(!secret.explain(&error).to_string().contains("hunter2"));
    }
}
