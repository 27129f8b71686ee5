//! A run to look at: `report.json`, and `report.html` that shows it without a network.

mod figures;
mod series;
mod summary;
mod tenants;

use std::{fs, io, path::Path};

pub use self::{
    figures::{Figures, Percentiles},
    series::Series,
    summary::Summary,
    tenants::{ShareLine, TenantLine},
};

/// The page; its data goes where this is.
const PAGE: &str = include_str!("page.html");
const PLACE: &str = "/*DATA*/null";

/// Writes `report.json` and `report.html` into a directory.
///
/// # Errors
/// They cannot be written.
pub fn write(summary: &Summary, directory: &Path) -> io::Result<()> {
    fs::write(
        directory.join("report.json"),
        serde_json::to_vec_pretty(summary)?,
    )?;
    fs::write(directory.join("report.html"), page(summary)?)
}

fn page(summary: &Summary) -> io::Result<String> {
    // A name with `</script>` in it must not end the script.
    let data = serde_json::to_string(summary)?.replace('<', "\\u003c");
    Ok(PAGE.replacen(PLACE, &data, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_page_embeds_its_data_and_needs_no_network() {
        assert_eq!(PAGE.matches(PLACE).count(), 1);
        for outside in ["http:", "https:", "src=", "@import", "fetch("] {
            let allowed = PAGE.matches("http://www.w3.org/2000/svg").count();
            let found = PAGE.matches(outside).count();
            let expected = if outside == "http:" { allowed } else { 0 };
            assert_eq!(found, expected, "{outside}");
        }
    }
}
