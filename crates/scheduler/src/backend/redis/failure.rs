//! Errors of Redis as a short stable word for metrics and a sentence for operators.

use redis::{ErrorKind, RedisError};

use super::BackendError;

/// The passwords, which are removed from the server's errors: some quote an unknown command.
#[derive(Clone)]
pub(super) struct Secret(Vec<String>);

impl Secret {
    pub(super) fn new(mut passwords: Vec<String>) -> Self {
        passwords.retain(|password| !password.is_empty());
        Self(passwords)
    }

    pub(super) fn remove_from(&self, text: &str) -> String {
        let remove = |text: String, password: &String| text.replace(password, "***");
        self.0.iter().fold(text.into(), remove)
    }

    pub(super) fn explain(&self, error: &RedisError) -> BackendError {
        BackendError {
            kind: kind(error),
            message: self.remove_from(&error.to_string()),
        }
    }
}

/// The word for an error. Most kinds mean that the step was not executed (P2); the message is sent again in any case.
fn kind(error: &RedisError) -> &'static str {
    if error.is_timeout() {
        return "timeout";
    }
    match error.kind() {
        ErrorKind::Io => return "io",
        ErrorKind::AuthenticationFailed => return "auth",
        _ => {}
    }
    let code = error.code().unwrap_or_default();
    let detail = error.detail().unwrap_or_default();
    // Before version 7 Redis wraps the error of a command in a script in an error of the script.
    let wrapped = KINDS
        .iter()
        .find(|(word, _)| detail.contains(&format!("-{word} ")));
    let known = KINDS.iter().find(|(word, _)| *word == code);
    match known.or(wrapped) {
        Some((_, kind)) => kind,
        // The error for a long command, such as a script, of a client that has not authenticated.
        None if detail.contains("unauthenticated") => "auth",
        // A command of the script that the user may not run, or a key that it may not touch.
        None if is_of_the_script(detail) => "noperm",
        None if code == "ERR" && detail.contains("script") => "script",
        None => "other",
    }
}

/// Error codes of Redis, and the kinds, which are labels of metrics.
const KINDS: &[(&str, &str)] = &[
    ("NOSCRIPT", "noscript"),
    ("READONLY", "readonly"),
    ("LOADING", "loading"),
    ("BUSY", "busy"),
    ("MASTERDOWN", "masterdown"),
    ("CLUSTERDOWN", "clusterdown"),
    ("CROSSSLOT", "crossslot"),
    ("MOVED", "moved"),
    ("ASK", "moved"),
    ("TRYAGAIN", "tryagain"),
    ("NOREPLICAS", "noreplicas"),
    ("OOM", "oom"),
    ("MISCONF", "misconf"),
    ("NOPERM", "noperm"),
    ("NOAUTH", "auth"),
    ("WRONGPASS", "auth"),
];

/// Whether another attempt to connect would fail as well: the server has refused, and its configuration or the gateway's has to change.
pub(super) fn is_settled(error: &BackendError) -> bool {
    matches!(error.kind, "auth" | "noperm" | "config" | "moved")
}

/// Whether the server is not a master: the host's name may have another address by now.
pub(super) fn is_wrong_server(error: &RedisError) -> bool {
    matches!(error.code(), Some("READONLY" | "MASTERDOWN"))
}

/// Whether the group may have another master by now: this one is lost, or says so.
pub(super) fn may_have_moved(error: &RedisError) -> bool {
    let lost = error.is_timeout() || error.is_io_error() || error.is_unrecoverable_error();
    lost || is_wrong_server(error)
        || matches!(
            error.code(),
            Some("CLUSTERDOWN" | "MOVED" | "ASK" | "TRYAGAIN")
        )
}

/// Whether the server has functions, but not this one.
pub(super) fn is_unknown_function(error: &RedisError) -> bool {
    error
        .detail()
        .is_some_and(|detail| detail.contains("Function not found"))
}

/// Whether a library that was to be loaded is there already.
pub(super) fn is_known_library(error: &RedisError) -> bool {
    error
        .detail()
        .is_some_and(|detail| detail.contains("already exists"))
}

/// Whether the server does not have a command, or the user may not use it.
pub(super) fn is_refused_command(error: &RedisError) -> bool {
    let detail = error.detail().unwrap_or_default();
    // Rights to keys are another matter.
    detail.starts_with("unknown command")
        || error.code() == Some("NOPERM") && detail.contains("command")
}

/// Whether a command was refused that the step calls. From 7.2 on its name is there; `ACL LOG` always has it.
fn is_of_the_script(detail: &str) -> bool {
    detail.contains("The user executing the script can't")
        || detail.contains("ACL failure in script")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_kind_follows_the_error_code_of_redis() {
        let error = |code: &str, detail: &str| {
            let reply = format!("-{code} {detail}\r\n");
            let value = redis::parse_redis_value(reply.as_bytes()).unwrap();
            let error = value.extract_error().unwrap_err();
            Secret::new(Vec::new()).explain(&error)
        };
        for (code, detail, kind) in [
            (
                "READONLY",
                "You can't write against a read only replica.",
                "readonly",
            ),
            ("MOVED", "866 10.0.0.1:6379", "moved"),
            (
                "OOM",
                "command not allowed when used memory > 'maxmemory'.",
                "oom",
            ),
            ("NOAUTH", "Authentication required.", "auth"),
            ("WRONGPASS", "invalid username-password pair", "auth"),
            (
                "NOPERM",
                "User default has no permissions to run the 'info' command",
                "noperm",
            ),
            (
                "MISCONF",
                "Redis is configured to save RDB snapshots",
                "misconf",
            ),
            (
                "NOREPLICAS",
                "Not enough good replicas to write.",
                "noreplicas",
            ),
            ("CLUSTERDOWN", "Hash slot not served", "clusterdown"),
            (
                "ERR",
                "Error running script (call to f_1): @user_script:7: -OOM command not allowed",
                "oom",
            ),
            (
                "ERR",
                "Error running script (call to f_1): @user_script:7",
                "script",
            ),
            (
                "ERR",
                "The user executing the script can't run this command or subcommand script: f, on @user_function:7.",
                "noperm",
            ),
            (
                "ERR",
                "ACL failure in script: User a has no permissions to run the 'zadd' command",
                "noperm",
            ),
            ("ERR", "Protocol error: unauthenticated bulk length", "auth"),
            ("ERR", "unknown command", "other"),
        ] {
            let error = error(code, detail);
            assert_eq!(error.kind, kind, "{code} {detail}");
            assert!(error.is_refusal());
        }
    }

    #[test]
    fn password_is_removed_from_errors() {
        let secret = Secret::new(vec!["hunter2".into()]);
        let error = RedisError::from((
            ErrorKind::Client,
            "unknown command",
            "`AUTH`, with args beginning with: `hunter2`".into(),
        ));
        assert!(error.to_string().contains("hunter2"));
        assert!(!secret.explain(&error).to_string().contains("hunter2"));
    }
}
