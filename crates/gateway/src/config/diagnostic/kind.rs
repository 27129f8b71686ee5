//! The kinds of what there is to say: a stable code and a level each.

use std::fmt;

use serde::Serialize;

/// How much something matters to who comes from LiteLLM, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Level {
    /// Nothing runs with it.
    Error,
    /// Some calls are not served that LiteLLM would serve.
    Loss,
    /// Calls are served otherwise than by LiteLLM, or not as the file's author may think.
    Difference,
    /// Nothing changes for calls.
    Note,
}

impl Level {
    /// As documents for machines have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Loss => "loss",
            Self::Difference => "difference",
            Self::Note => "note",
        }
    }
}

/// As a line begins that says it.
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Loss => "warning",
            Self::Difference => "difference",
            Self::Note => "note",
        })
    }
}

/// A code, and its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Kind {
    pub(in crate::config) level: Level,
    pub(in crate::config) code: &'static str,
}

/// Documented in `docs/operations.md`, which a test compares.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $level:ident $code:literal;)*) => {
        impl Kind {
            $($(#[$doc])* pub(in crate::config) const $name: Self = Self { level: Level::$level, code: $code };)*

            #[cfg(test)]
            pub(in crate::config) const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

kinds! {
    /// The text is no YAML, or not the YAML that was meant.
    YAML = Error "invalid-yaml";
    /// A file that is named cannot be read.
    UNREADABLE = Error "file-not-readable";
    /// A value is not of the kind that the key takes.
    INVALID = Error "invalid-value";
    MISSING = Error "missing-setting";
    /// `os.environ/NAME` names a variable that is not set.
    UNSET = Error "variable-not-set";
    /// A key in our own section that is none of ours.
    UNKNOWN_OURS = Error "unknown-vorrang-setting";
    /// It asks for something safer or stricter than is done.
    REFUSED = Error "setting-refused";
    /// No deployment is left that can be called.
    NOTHING_LEFT = Error "no-deployment-left";

    LEFT_OUT = Loss "deployment-left-out";
    /// Its provider is known not to have the endpoint that its model is for.
    NO_ENDPOINT = Loss "endpoint-missing";
    NO_INCLUDE = Loss "include-missing";
    /// Some calls need a setting that is not served.
    NOT_SERVED = Loss "setting-not-served";
    /// Clients refuse the listener's certificate.
    EXPIRED = Loss "certificate-expired";

    /// The upstream will refuse the calls, as it does with LiteLLM.
    NO_KEY = Difference "key-missing";
    /// LiteLLM does not know the provider either, and refuses the calls.
    NO_PROVIDER = Difference "provider-unknown";
    /// An alias of nothing: its calls are refused, as LiteLLM refuses them.
    NO_GROUP = Difference "group-missing";
    /// `${NAME}`, which LiteLLM does not replace either.
    LITERAL = Difference "variable-not-replaced";
    /// Served, but not in the same way.
    DIFFERS = Difference "served-differently";
    /// It asks for something that is not done: budgets, caches, retries by kind.
    NOT_DONE = Difference "setting-not-done";
    /// Written twice; one of them counts.
    TWICE = Difference "key-repeated";
    /// A number that PyYAML reads otherwise than many expect.
    READ_AS_PYYAML = Difference "read-as-pyyaml";
    /// Sent upstream, as in LiteLLM, though nothing is known of it.
    UNKNOWN_FIELD = Difference "unknown-field";
    /// It may be a name that is mistyped.
    UNKNOWN = Difference "unknown-setting";
    INSECURE = Difference "certificates-not-verified";
    /// The file allows longer waits than its author may think.
    LONG_WAIT = Difference "long-wait";
    /// One of our own settings that changes nothing as things are.
    NO_EFFECT = Difference "no-effect";

    /// A setting of LiteLLM's that changes nothing for calls here.
    IDLE = Note "setting-idle";
    /// Another setting says the same and counts.
    UNUSED = Note "setting-overridden";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_page_lists_the_codes_of_each_level() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md");
        let page = std::fs::read_to_string(page).unwrap();
        for level in [Level::Error, Level::Loss, Level::Difference, Level::Note] {
            let of_level = Kind::ALL.iter().filter(|kind| kind.level == level);
            let codes: Vec<String> = of_level.map(|kind| format!("`{}`", kind.code)).collect();
            let row = format!("| `{}` | {} |", level.word(), codes.join(", "));
            assert!(page.lines().any(|line| line == row), "no line {row}");
        }
    }

    #[test]
    fn codes_are_unique_and_kebab_case() {
        for (index, kind) in Kind::ALL.iter().enumerate() {
            let plain = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(kind.code.chars().all(plain), "{kind:?}");
            let mut others = Kind::ALL[..index].iter();
            assert!(others.all(|other| other.code != kind.code), "{kind:?}");
        }
    }
}
