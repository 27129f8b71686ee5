//! What to say when the file is not YAML, or not the YAML its author meant.

use super::{
    File,
    tree::{Node, Value},
};
use crate::config::{ConfigError, Env, Kind};

/// Reads the text into raw values.
pub(in crate::config) fn parse(text: &str, name: &str, env: &dyn Env) -> Result<Node, ConfigError> {
    let names = [name.to_owned()];
    let file = File::new(&names, env);
    // Snippets would print what stands around an error, and that may be a key. `on`, `yes` and the like stay texts, so that a model may
    // be called `y`; where a boolean is expected, they are read as one. `.inf` and `5e999` may be meant as texts.
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::PassThrough,
    };
    match serde_saphyr::from_str_with_options::<Node>(text, options) {
        Ok(mut root) => match mistyped_text(&root, text, &file) {
            Some(error) => Err(error),
            None => {
                root.keep_numbers(text);
                Ok(root)
            }
        },
        Err(error) => {
            let line = error.location().map_or(1, |location| location.line());
            Err(mistyped_near(text, line, &file).unwrap_or_else(|| {
                file.error_at(Kind::YAML, line, None, &plain(&error.to_string()))
            }))
        }
    }
}

/// The parser's message without its position (ours has the file's name) and without the names of its options.
fn plain(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message);
    // What stands in quotes may be a value, and a value may be a key.
    let parts = message.split(['`', '"']).enumerate();
    let parts = parts.map(|(index, part)| if index % 2 == 0 { part } else { "..." });
    format!("not valid YAML: {}", parts.collect::<String>())
}

/// `key; value` alone in its section is a text to YAML, where a mapping was meant.
fn mistyped_text(root: &Node, text: &str, file: &File<'_>) -> Option<ConfigError> {
    let Value::Map(entries) = &root.value else {
        return None;
    };
    let entry = entries
        .iter()
        .find(|entry| matches!(entry.node.value, Value::Text(_)) && entry.node.line > entry.line)?;
    mistyped_at(text, entry.node.line, file)
}

/// Searches back from the parser's line for a line that is not `key: value`: the parser reports errors late.
fn mistyped_near(text: &str, line: u64, file: &File<'_>) -> Option<ConfigError> {
    (line.saturating_sub(3).max(1)..=line)
        .rev()
        .find_map(|line| mistyped_at(text, line, file))
}

fn mistyped_at(text: &str, line: u64, file: &File<'_>) -> Option<ConfigError> {
    let lines: Vec<&str> = text.lines().collect();
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    let key = mistyped_key(lines.get(index)?)?;
    let mut path = parents(&lines, index);
    path.push(key);
    let text = format!("expected `{key}: VALUE`, a colon and a space after the key");
    Some(file.error_at(Kind::YAML, line, Some(&path.join(".")), &text))
}

/// The key of a line such as `redis_host; VALUE`, `redis_host = VALUE` or `redis_host:VALUE`.
fn mistyped_key(line: &str) -> Option<&str> {
    let line = line.trim_start().trim_start_matches("- ").trim_start();
    let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    let (key, rest) = line.split_at(end);
    let starts_as_key = key.starts_with(|c: char| c.is_ascii_alphabetic());
    let rest = rest.trim_start();
    let separated = rest.starts_with([';', '='])
        || rest
            .strip_prefix(':')
            .is_some_and(|value| value.starts_with(|c: char| !c.is_whitespace()));
    (starts_as_key && separated).then_some(key)
}

/// The keys a line stands under, by indentation.
fn parents<'t>(lines: &[&'t str], index: usize) -> Vec<&'t str> {
    let indent_of = |line: &str| line.len() - line.trim_start().len();
    let mut indent = lines.get(index).map_or(0, |line| indent_of(line));
    let mut path = Vec::new();
    for line in lines[..index].iter().rev() {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') || indent_of(line) >= indent {
            continue;
        }
        indent = indent_of(line);
        if let Some((key, _)) = content.trim_start_matches("- ").split_once(':') {
            path.push(key.trim());
        }
    }
    path.reverse();
    path
}
