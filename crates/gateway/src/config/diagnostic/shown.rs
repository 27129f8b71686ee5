//! Texts of the file, shown so that they cannot change the lines or the terminal around them.

use std::fmt::{self, Write as _};

/// A text with control characters, marks that turn text around, and what is not seen escaped.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Shown<'a>(pub(in crate::config) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_deceptive(c) {
                write!(f, "\\u{{{:x}}}", u32::from(c))?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// JSON with the same characters escaped, as they can only stand in its strings.
pub(in crate::config) fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_deceptive(c) {
            // All of them fit into four digits. Writing to a string cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_escapes_and_line_breaks_are_escaped() {
        let shown = Shown("a\u{1b}[31mé\nb\u{202e}").to_string();
        assert_eq!(shown, "a\\u{1b}[31mé\\u{a}b\\u{202e}");
    }
}
