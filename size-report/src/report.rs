//! What is told: builds, figures, budgets and what changed since the last release, put together once for text, Markdown,
//! JSON and the page. What is kept of a release (`baseline.json`, `history.jsonl`) is made and read here.
use crate::{
    analysis::Analysis,
    budget::{HOST, Row, Specification},
};
use serde_json::{Map, Value, json};

/// Changes smaller than this are the compiler's mood.
const CHANGE_BYTES: u64 = 256;

#[derive(Debug, Default)]
pub struct Report {
    pub version: String,
    pub commit: String,
    pub date: String,
    pub builds: Vec<Build>,
    /// What `./dev figures` has measured of the host's build; null where it has not.
    pub figures: Value,
    pub figure_rows: Vec<Row>,
    /// What `./dev bench` has measured of it: rows of what, measured, unit and goal.
    pub speed: Vec<Value>,
    /// Of the last release.
    pub baseline: Value,
    pub history: Vec<Value>,
}

#[derive(Debug)]
pub struct Build {
    pub board: String,
    pub analysis: Analysis,
    pub rows: Vec<Row>,
    /// Against the last release: empty when it had no such build.
    pub changes: Vec<Change>,
}

/// In bytes of the file.
#[derive(Debug, PartialEq)]
pub struct Change {
    pub what: String,
    pub before: u64,
    pub after: u64,
}

impl Change {
    pub fn difference(&self) -> i64 {
        self.after as i64 - self.before as i64
    }
}

impl Build {
    pub fn new(board: &str, analysis: Analysis, specification: &Specification, baseline: &Value) -> Build {
        let rows = specification.rows(board, &analysis);
        let changes = changes(&baseline["builds"][board], &analysis.baseline());
        Build { board: board.to_owned(), analysis, rows, changes }
    }

    /// The change of the whole, of crates, of functions: by the beginning of what changed.
    pub fn changes_of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Change> {
        self.changes.iter().filter(move |change| change.what.starts_with(kind))
    }
}

/// What differs, most bytes first.
fn changes(before: &Value, after: &Value) -> Vec<Change> {
    if before.is_null() {
        return Vec::new();
    }
    let flat = |build: &Value| -> Map<String, Value> {
        let mut flat = Map::new();
        flat.insert("whole".to_owned(), build["fileBytes"].clone());
        flat.insert("xz".to_owned(), build["xzBytes"].clone());
        for (kind, word) in [("sections", "section"), ("functions", "function")] {
            let parts = build[kind].as_object().into_iter().flatten();
            flat.extend(parts.map(|(name, bytes)| (format!("{word} {name}"), bytes.clone())));
        }
        for (name, share) in build["crates"].as_object().into_iter().flatten() {
            let bytes = share["code"].as_u64().unwrap_or(0) + share["data"].as_u64().unwrap_or(0);
            flat.insert(format!("crate {name}"), bytes.into());
        }
        flat
    };
    let (before, after) = (flat(before), flat(after));
    let bytes = |side: &Map<String, Value>, what: &str| side.get(what).and_then(Value::as_u64);
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let change = |what: &String| {
        let (before, after) = (bytes(&before, what), bytes(&after, what));
        // Only the largest functions are known of both: one that is in one list alone tells nothing.
        if what.starts_with("function ") && (before.is_none() || after.is_none()) {
            return None;
        }
        let change = Change { what: what.clone(), before: before.unwrap_or(0), after: after.unwrap_or(0) };
        (change.difference().unsigned_abs() >= CHANGE_BYTES).then_some(change)
    };
    let mut changes: Vec<Change> = names.into_iter().filter_map(change).collect();
    changes.sort_by_key(|change| std::cmp::Reverse(change.difference().unsigned_abs()));
    changes
}

impl Report {
    /// `figures` count only where they are of the build that is reported.
    pub fn take_figures(&mut self, figures: Value, specification: &Specification) {
        if !self.has_host_build(&figures) {
            return;
        }
        let whole = |value: &Value| value.as_f64().map(|value| value.ceil() as u64);
        for (what, measured) in figures["idle"].as_object().into_iter().flatten() {
            let at_most = specification.boards.get(HOST).and_then(|row| row.get(what));
            let held_by = specification.held_by.get(what).cloned().unwrap_or_default();
            if let (Some(measured), Some(at_most)) = (whole(measured), at_most) {
                self.figure_rows.push(Row { what: what.clone(), measured, at_most: *at_most, held_by });
            }
        }
        for cost in &specification.costs {
            if let Some(measured) = figures["costs"].get(&cost.what).and_then(whole) {
                let (what, held_by) = (format!("{}, {}", cost.what, cost.unit), cost.held_by.clone());
                self.figure_rows.push(Row { what, measured, at_most: cost.at_most, held_by });
            }
        }
        self.figures = figures;
    }

    /// The same holds for times.
    pub fn take_speed(&mut self, bench: &Value) {
        if self.has_host_build(bench) {
            self.speed = bench["rows"].as_array().cloned().unwrap_or_default();
        }
    }

    fn has_host_build(&self, measured: &Value) -> bool {
        self.builds.iter().any(|build| build.board == HOST && measured["buildId"] == build.analysis.build_id.as_str())
    }

    pub fn over(&self) -> impl Iterator<Item = (&str, &Row)> {
        let of_builds = self.builds.iter().flat_map(|build| build.rows.iter().map(|row| (&*build.board, row)));
        of_builds.chain(self.figure_rows.iter().map(|row| (HOST, row))).filter(|(_, row)| row.over())
    }

    pub fn json(&self) -> Value {
        let row = |row: &Row| json!({"what": row.what, "measured": row.measured, "atMost": row.at_most, "heldBy": row.held_by, "over": row.over()});
        let build = |build: &Build| {
            let mut value = build.analysis.json();
            value["rows"] = build.rows.iter().map(row).collect();
            let changes = build.changes.iter();
            value["changes"] = changes
                .map(|change| json!({"what": change.what, "before": change.before, "after": change.after}))
                .collect();
            (build.board.clone(), value)
        };
        json!({
            "version": self.version,
            "commit": self.commit,
            "date": self.date,
            "builds": self.builds.iter().map(build).collect::<Map<_, _>>(),
            "figures": self.figures,
            "figureRows": self.figure_rows.iter().map(row).collect::<Value>(),
            "speed": self.speed,
            "since": {"version": self.baseline["version"], "date": self.baseline["date"]},
            "history": self.history,
        })
    }

    /// What `baseline.json` holds until the next release: builds that were not made this time keep what they had.
    pub fn to_baseline(&self) -> Value {
        let mut builds = self.baseline["builds"].as_object().cloned().unwrap_or_default();
        builds.extend(self.builds.iter().map(|build| (build.board.clone(), build.analysis.baseline())));
        let figures = if self.figures.is_null() { &self.baseline["figures"] } else { &self.figures };
        json!({"version": self.version, "commit": self.commit, "date": self.date, "builds": builds, "figures": figures})
    }

    /// One line of `history.jsonl`.
    pub fn to_history(&self) -> Value {
        let build = |build: &Build| {
            let Analysis { file_bytes, xz_bytes, .. } = &build.analysis;
            (build.board.clone(), json!({"fileBytes": file_bytes, "xzBytes": xz_bytes}))
        };
        json!({
            "version": self.version,
            "commit": self.commit,
            "date": self.date,
            "builds": self.builds.iter().map(build).collect::<Map<_, _>>(),
            "idle": self.figures["idle"],
            "costs": self.figures["costs"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_largest_first() {
        let build = |whole: u64, a: u64, f: u64| {
            json!({"fileBytes": whole, "xzBytes": null, "sections": {".text": 5000}, "crates": {"a": {"code": a, "data": 100}},
                "functions": {"f": f, "only here": whole}})
        };
        let mut after = build(10_000, 3000, 900);
        after["functions"].as_object_mut().unwrap().remove("only here");
        let change = |what: &str, before, after| Change { what: what.to_owned(), before, after };
        let expected = [change("crate a", 2100, 3100), change("whole", 9500, 10_000), change("function f", 1200, 900)];
        assert_eq!(changes(&build(9500, 2000, 1200), &after), expected);
        assert_eq!(changes(&Value::Null, &after), []);
    }

    #[test]
    fn a_saved_report_is_the_next_one_s_baseline() {
        let specification = Specification::embedded();
        let analysis = || Analysis { file_bytes: 10_000, build_id: "ab".to_owned(), ..Analysis::default() };
        let mut report = Report { version: "1".to_owned(), ..Report::default() };
        report.baseline = json!({"builds": {"another": {"fileBytes": 1}}});
        report.builds.push(Build::new(HOST, analysis(), &specification, &report.baseline));
        report.take_figures(json!({"buildId": "ab", "idle": {"PSS idle kB": 1.5}}), &specification);
        assert_eq!((report.figure_rows[0].measured, report.over().count()), (2, 0));
        let baseline = report.to_baseline();
        assert_eq!(baseline["builds"]["another"]["fileBytes"], 1);
        let grown = Analysis { file_bytes: 12_000, ..analysis() };
        let next = Build::new(HOST, grown, &specification, &baseline);
        assert_eq!(next.changes_of("whole").map(Change::difference).collect::<Vec<_>>(), [2000]);
        assert_eq!(report.to_history()["idle"]["PSS idle kB"], 1.5);
    }

    #[test]
    fn figures_of_another_build_do_not_count() {
        let specification = Specification::embedded();
        let mut report = Report::default();
        let analysis = Analysis { build_id: "ab".to_owned(), ..Analysis::default() };
        report.builds.push(Build::new(HOST, analysis, &specification, &Value::Null));
        report.take_figures(json!({"buildId": "cd", "idle": {"PSS idle kB": 1}}), &specification);
        assert_eq!((report.figure_rows.len(), report.figures.is_null()), (0, true));
    }
}
