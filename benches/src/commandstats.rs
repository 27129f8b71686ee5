//! What Redis says of the commands that it executed.

use std::collections::BTreeMap;

/// What `INFO commandstats` says of one command.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Calls {
    pub(crate) calls: u64,
    /// Microseconds in it, with all that a script calls.
    pub(crate) usec: u64,
}

impl Calls {
    /// Microseconds of each.
    pub(crate) fn each(self) -> f64 {
        self.usec as f64 / self.calls.max(1) as f64
    }
}

/// All commands by name.
pub(crate) type Commands = BTreeMap<String, Calls>;

/// How a step is called: by a function, or by a script.
const STEPS: [&str; 3] = ["fcall", "evalsha", "eval"];

/// `cmdstat_NAME:calls=1,usec=2,usec_per_call=2.00,...`
pub(crate) fn parse(info: &str) -> Option<Commands> {
    let lines = info
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_"));
    lines
        .map(|line| {
            let (name, figures) = line.split_once(':')?;
            let figure = |wanted: &str| -> Option<u64> {
                let mut figures = figures
                    .split(',')
                    .filter_map(|figure| figure.split_once('='));
                figures.find(|(name, _)| *name == wanted)?.1.parse().ok()
            };
            let calls = Calls {
                calls: figure("calls")?,
                usec: figure("usec")?,
            };
            Some((name.to_owned(), calls))
        })
        .collect()
}

/// What was called between two looks.
pub(crate) fn between(before: &Commands, after: &Commands) -> Commands {
    let since = |(name, now): (&String, &Calls)| {
        let then = before.get(name).copied().unwrap_or_default();
        let calls = Calls {
            calls: now.calls - then.calls,
            usec: now.usec - then.usec,
        };
        (calls.calls > 0).then(|| (name.clone(), calls))
    };
    after.iter().filter_map(since).collect()
}

/// The steps among them, by whichever command they are called.
pub(crate) fn steps(commands: &Commands) -> Calls {
    let of = commands
        .iter()
        .filter(|(name, _)| STEPS.contains(&name.as_str()));
    of.fold(Calls::default(), |sum, (_, one)| Calls {
        calls: sum.calls + one.calls,
        usec: sum.usec + one.usec,
    })
}

/// Commands that were executed inside of steps: all but the steps, and what the harness and connections ask for themselves.
pub(crate) fn inside(commands: &Commands) -> u64 {
    let own = |name: &str| {
        STEPS.contains(&name)
            || ["info", "ping", "select", "hello", "auth", "keys"].contains(&name)
            || ["client", "config", "script", "function", "memory"]
                .iter()
                .any(|own| name == *own || name.starts_with(&format!("{own}|")))
    };
    let of = commands.iter().filter(|(name, _)| !own(name));
    of.map(|(_, calls)| calls.calls).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Commandstats\r\n\
        cmdstat_evalsha:calls=40,usec=4000,usec_per_call=100.00,rejected_calls=0,failed_calls=0\r\n\
        cmdstat_fcall:calls=10,usec=500,usec_per_call=50.00,rejected_calls=0,failed_calls=0\r\n\
        cmdstat_client|setinfo:calls=2,usec=1,usec_per_call=0.50,rejected_calls=0,failed_calls=0\r\n\
        cmdstat_zadd:calls=80,usec=160,usec_per_call=2.00,rejected_calls=0,failed_calls=0\r\n";

    #[test]
    fn commandstats_are_parsed() {
        let commands = parse(INFO).unwrap();
        assert_eq!(
            commands["zadd"],
            Calls {
                calls: 80,
                usec: 160
            }
        );
        assert_eq!(
            steps(&commands),
            Calls {
                calls: 50,
                usec: 4500
            }
        );
        assert_eq!(inside(&commands), 80);
        assert_eq!(parse("cmdstat_get:calls=x,usec=1"), None);
    }

    #[test]
    fn only_what_was_called_since_counts() {
        let before = parse("cmdstat_zadd:calls=30,usec=60\ncmdstat_get:calls=5,usec=5").unwrap();
        let after = parse(INFO).unwrap();
        let since = between(&before, &after);
        assert_eq!(
            since["zadd"],
            Calls {
                calls: 50,
                usec: 100
            }
        );
        assert_eq!(since["evalsha"].calls, 40);
        assert!(!since.contains_key("get"));
    }
}
