//! `results.json`, `report.html` that shows it without a network, and `summary.md`.

use std::{fs, io, path::Path};

use crate::{results::Results, summary};

/// The page; its data goes where this is.
const PAGE: &str = include_str!("page.html");
const PLACE: &str = "/*DATA*/null";

pub(crate) fn write(results: &Results, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::write(
        directory.join("results.json"),
        serde_json::to_vec_pretty(results)?,
    )?;
    fs::write(directory.join("summary.md"), summary::markdown(results))?;
    // A text with `</script>` in it must not end the script.
    let data = serde_json::to_string(results)?.replace('<', "\\u003c");
    fs::write(
        directory.join("report.html"),
        PAGE.replacen(PLACE, &data, 1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_embeds_its_data_and_needs_no_network() {
        assert_eq!(PAGE.matches(PLACE).count(), 1);
        for outside in ["http:", "https:", "src=", "@import", "fetch("] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
    }
}
