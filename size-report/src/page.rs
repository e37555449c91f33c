//! The report as one HTML page that needs nothing else: `page.html` with the report in it, drawn by the page itself.
use serde_json::Value;

const PAGE: &str = include_str!("page.html");
const PLACE: &str = "/*REPORT*/null";

/// `report` is what `Report::json` tells.
pub fn page(report: &Value) -> String {
    // A name of a function may hold anything, and `</script>` would end the script it stands in.
    let report =
        report.to_string().replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    PAGE.replacen(PLACE, &report, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_in_the_page_and_cannot_leave_its_script() {
        let name = "</script><b>&";
        let text = page(&serde_json::json!({"name": name}));
        assert!(!text.contains(name) && !text.contains(PLACE));
        assert!(text.contains("{\"name\":\"\\u003c/script>\\u003cb>&\"}"), "not where it should be");
    }

    #[test]
    fn the_page_asks_nobody_for_anything() {
        for word in ["http://", "https://", "src=", "@import", "url("] {
            let found = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!found.contains(word), "{word}");
        }
    }
}
