//! Headers with parameters, as forms have them.

/// A header's value and its parameters, names in lower case: `form-data; name="model"`. `None`: it is malformed.
pub(super) fn parameters(text: &str) -> Option<(&str, Vec<(String, String)>)> {
    let (value, mut rest) = text.split_at(text.find(';').unwrap_or(text.len()));
    let mut parameters = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if rest.is_empty() {
            return Some((value.trim(), parameters));
        }
        rest = rest.strip_prefix(';')?.trim_start_matches([' ', '\t']);
        if rest.is_empty() {
            continue;
        }
        let (name, after) = rest.split_once('=')?;
        let name = name.trim().to_ascii_lowercase();
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(token) {
            return None;
        }
        let after = after.trim_start_matches([' ', '\t']);
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (value, after) = after.split_at(after.find(';').unwrap_or(after.len()));
                (value.trim().to_owned(), after)
            }
        };
        parameters.push((name, value));
        rest = after;
    }
}

/// What is within quotes, and what follows them.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((index, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[index + 1..])),
            '\\' => value.push(chars.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// A field's name, and whether it is a file. `None`: its headers are malformed, or parsers may read them in several ways.
pub(super) fn disposition(head: &str) -> Option<(String, bool)> {
    let mut found = None;
    for line in head.split("\r\n") {
        let (header, value) = line.split_once(':')?;
        if value.contains(['\r', '\n', '\0']) {
            return None;
        }
        match header.to_ascii_lowercase().as_str() {
            "content-disposition" => {
                if found.replace(value).is_some() {
                    return None;
                }
            }
            // RFC 7578, 4.7: out of use. Its content would have to be decoded.
            "content-transfer-encoding" => {
                let plain = ["7bit", "8bit", "binary"];
                let known = |plain: &&str| value.trim().eq_ignore_ascii_case(plain);
                if !plain.iter().any(known) {
                    return None;
                }
            }
            other => {
                let token = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
                if other.is_empty() || !other.chars().all(token) {
                    return None;
                }
            }
        }
    }
    let (kind, parameters) = parameters(found?.trim())?;
    if !kind.eq_ignore_ascii_case("form-data") {
        return None;
    }
    let of = |wanted: &'static str| parameters.iter().filter(move |(name, _)| name == wanted);
    let mut names = of("name");
    let (Some((_, name)), None, None) = (names.next(), names.next(), of("name*").next()) else {
        return None;
    };
    let file = of("filename").chain(of("filename*")).next().is_some();
    Some((name.clone(), file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_clients_write_them() {
        for (head, name, file) in [
            (
                "Content-Disposition: form-data; name=\"model\"",
                "model",
                false,
            ),
            ("content-disposition:form-data;name=model", "model", false),
            (
                "Content-Type: audio/mpeg\r\nContent-Disposition: FORM-DATA; name=\"file\"; filename=\"a;b.mp3\"",
                "file",
                true,
            ),
            (
                "Content-Disposition: form-data; name=\"file\"; filename*=UTF-8''x",
                "file",
                true,
            ),
            (
                "Content-Disposition: form-data; name=\"a\\\"b\\\\\"",
                "a\"b\\",
                false,
            ),
            (
                "Content-Disposition: form-data; filename=\"x\"; name=\"image[]\";",
                "image[]",
                true,
            ),
        ] {
            assert_eq!(disposition(head), Some((name.to_owned(), file)), "{head}");
        }
    }

    #[test]
    fn what_parsers_may_read_in_several_ways_is_refused() {
        for head in [
            "",
            "Content-Type: text/plain",
            "Content-Disposition",
            "Content-Disposition: attachment; name=\"model\"",
            "Content-Disposition: form-data",
            "Content-Disposition: form-data; name=\"model",
            "Content-Disposition: form-data; name=\"a\"; name=\"model\"",
            "Content-Disposition: form-data; name=\"a\"; name*=UTF-8''model",
            "Content-Disposition: form-data; name=\"a\"\r\nContent-Disposition: form-data; name=\"model\"",
            "Content-Disposition: form-data; name=\"a\"\n\nx",
            "Content-Disposition: form-data;\r\n name=\"a\"",
            "Content-Disposition: form-data; name=\"model\"\r\nContent-Transfer-Encoding: base64",
            "Content-Disposition : form-data; name=\"model\"",
            "Content-Disposition: form-data; name=\"a\" \"model\"",
        ] {
            assert_eq!(disposition(head), None, "{head}");
        }
    }
}
