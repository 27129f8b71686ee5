//! What is printed when serving begins.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::demo_load::GROUP;

/// How a listener's URL begins (`http`, `https`), and where it is bound.
pub type Listener = (&'static str, SocketAddr);

/// The line that says where to go, such as `listening on http://127.0.0.1:4000 (all addresses)`.
pub fn listening(at: Listener) -> String {
    let all = if at.1.ip().is_unspecified() {
        " (all addresses)"
    } else {
        ""
    };
    format!("listening on {}{all}", url(at))
}

/// The line that says where health and metrics are, beside the port for all.
pub fn admin(at: Listener) -> String {
    format!("health and metrics on {}", url(at))
}

/// What to say where no key is configured and the deployments' own keys can be spent by all that reach `address`.
pub fn open_to_all(address: SocketAddr) -> Option<String> {
    (!address.ip().to_canonical().is_loopback()).then(|| {
        format!(
            "NO KEYS: EVERY CLIENT THAT REACHES {address} SPENDS THE API KEYS OF model_list. \
             Set general_settings.master_key or vorrang_settings.keys, or listen with --host 127.0.0.1"
        )
    })
}

/// Where a client on this machine reaches a listener.
fn url((scheme, mut address): Listener) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("{scheme}://{address}")
}

/// The demo's tour: a request that works, and what to try next. `program` is how this process was called.
/// `load`: it is sent traffic already.
pub fn tour(at: Listener, program: &str, load: bool) -> String {
    let url = url(at);
    let program = word(program);
    let call = |model: &str, priority: &str| {
        format!(
            "curl -i {url}/v1/chat/completions -H 'Content-Type: application/json' \
             -d '{{\"model\": \"{model}\", \"messages\": [{{\"role\": \"user\", \"content\": \"hi\"}}], \"priority\": {priority}}}'"
        )
    };
    format!(
        "No --config: this is the demo, with two mock models and its state in memory.

A request, prioritised; `demo` has no limits, so it goes at once:
  {at_once}

What to try next:
  `demo-limited` takes 6 requests a minute. Use them up, then let a batch job and a user wait; the user, who came last, goes first:
  for i in 1 2 3 4 5 6; do {use_up} -s -o /dev/null; done
  {batch} &
  {user}

  See and steer the queue:  {url}/ui in a browser, or {program} top --url {url}
{traffic}  Your LiteLLM config:      {program} check --config config.yaml && {program} --config config.yaml
  Several instances:        the same with --redis-url redis://localhost:6379
",
        traffic = if load {
            format!("                            `{GROUP}` is sent traffic (--demo-load)\n")
        } else {
            format!("  With traffic that queues: {program} --demo-load\n")
        },
        at_once = call("demo", "0"),
        use_up = call("demo-limited", "0"),
        batch = call("demo-limited", "1000"),
        user = call("demo-limited", "0"),
    )
}

/// As a shell takes it for one word.
fn word(text: &str) -> String {
    let plain = |char: char| char.is_alphanumeric() || "/._-+".contains(char);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tour_uses_the_command_the_program_was_started_with() {
        for (program, called) in [
            ("target/release/vorrang", "target/release/vorrang"),
            ("/my bin/it's", r"'/my bin/it'\''s'"),
        ] {
            let tour = tour(("http", "127.0.0.1:5".parse().unwrap()), program, false);
            let line =
                format!(" {called} check --config config.yaml && {called} --config config.yaml\n");
            assert!(tour.contains(&line), "{tour}");
        }
    }

    #[test]
    fn non_loopback_addresses_count_as_public() {
        for (address, open) in [
            ("127.0.0.1:5", false),
            ("127.9.9.9:5", false),
            ("[::1]:5", false),
            ("[::ffff:127.0.0.1]:5", false),
            ("0.0.0.0:5", true),
            ("[::]:5", true),
            ("10.0.0.1:5", true),
        ] {
            let said = open_to_all(address.parse().unwrap());
            assert_eq!(said.is_some(), open, "{address}");
        }
    }

    #[test]
    fn listening_line_names_a_callable_address() {
        for (address, line) in [
            ("127.0.0.1:5", "listening on http://127.0.0.1:5"),
            (
                "0.0.0.0:4000",
                "listening on http://127.0.0.1:4000 (all addresses)",
            ),
            (
                "[::]:4000",
                "listening on http://[::1]:4000 (all addresses)",
            ),
        ] {
            assert_eq!(listening(("http", address.parse().unwrap())), line);
        }
    }
}
