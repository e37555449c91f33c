//! The budgets: the tables of `SPECIFICATION.md`, which the tests read too, so that each figure stands in one place.
//!
//! A table is known by its heading: `| what | bytes |` holds the parts of the binary, `| board | ...` each board, and
//! `| what | at most | ...` what things cost on any of them.
use crate::analysis::Analysis;
use std::collections::BTreeMap;

const PAGE: &str = include_str!("../SPECIFICATION.md");
const OTHERS: &str = "any other crate";
/// The board whose build the rows of sections and crates are about.
pub const HOST: &str = "x86_64";

#[derive(Debug, Default)]
pub struct Specification {
    /// Of the host's build: "whole", "section .text", "crate core", in bytes.
    pub parts: BTreeMap<String, u64>,
    /// By board, then by the column's heading.
    pub boards: BTreeMap<String, BTreeMap<String, u64>>,
    /// The tests that hold a board's figures, by the column's heading.
    pub held_by: BTreeMap<String, String>,
    pub costs: Vec<Cost>,
}

#[derive(Debug, PartialEq)]
pub struct Cost {
    pub what: String,
    pub at_most: u64,
    pub unit: String,
    pub held_by: String,
}

/// A figure against its budget.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub what: String,
    pub measured: u64,
    pub at_most: u64,
    pub held_by: String,
}

impl Row {
    pub fn over(&self) -> bool {
        self.measured > self.at_most
    }
}

impl Specification {
    pub fn embedded() -> Specification {
        Specification::parse(PAGE)
    }

    /// At most this, of a row of the table of costs.
    #[track_caller]
    pub fn cost(&self, what: &str) -> u64 {
        let found = self.costs.iter().find(|cost| cost.what == what);
        found.unwrap_or_else(|| panic!("SPECIFICATION.md has no row {what:?}")).at_most
    }

    /// At most this on a board, by the heading of the column.
    #[track_caller]
    pub fn board(&self, board: &str, what: &str) -> u64 {
        let found = self.boards.get(board).and_then(|row| row.get(what));
        *found.unwrap_or_else(|| panic!("SPECIFICATION.md has no {what:?} for {board}"))
    }

    pub fn parse(page: &str) -> Specification {
        let mut specification = Specification::default();
        let mut heading: Vec<&str> = Vec::new();
        for line in page.lines() {
            let Some(row) = line.trim().strip_prefix('|').and_then(|rest| rest.strip_suffix('|')) else {
                heading.clear();
                continue;
            };
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            if heading.is_empty() {
                heading = cells;
            } else if cells.iter().any(|cell| !cell.trim_matches(['-', ':']).is_empty()) {
                specification.add(&heading, &cells);
            }
        }
        specification
    }

    fn add(&mut self, heading: &[&str], cells: &[&str]) {
        let number = |cell: &str| cell.parse::<u64>().ok();
        match (heading, cells) {
            (["what", "bytes"], [what, bytes]) => {
                self.parts.extend(number(bytes).map(|bytes| ((*what).to_owned(), bytes)));
            }
            (["what", "at most", "unit", "held by"], [what, at_most, unit, held_by]) => {
                let cost = |at_most| Cost {
                    what: (*what).to_owned(),
                    at_most,
                    unit: (*unit).to_owned(),
                    held_by: (*held_by).to_owned(),
                };
                self.costs.extend(number(at_most).map(cost));
            }
            (["board", columns @ ..], ["held by", tests @ ..]) => {
                self.held_by.extend(columns.iter().zip(tests).map(|(what, test)| ((*what).into(), (*test).into())));
            }
            (["board", columns @ ..], [board, values @ ..]) => {
                let values =
                    columns.iter().zip(values).filter_map(|(what, value)| Some(((*what).into(), number(value)?)));
                self.boards.insert((*board).to_owned(), values.collect());
            }
            _ => {}
        }
    }

    /// A build against what its board allows; the host's against the rows of its parts too.
    pub fn rows(&self, board: &str, built: &Analysis) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut row = |what: String, measured: u64, at_most: Option<u64>| {
            rows.extend(at_most.map(|at_most| Row { what, measured, at_most, held_by: "./dev size".to_owned() }));
        };
        let of_board = |what: &str| self.boards.get(board)?.get(what).copied();
        row("binary bytes".to_owned(), built.file_bytes, of_board("binary bytes"));
        if let Some(bytes) = built.xz_bytes {
            row("xz bytes".to_owned(), bytes, of_board("xz bytes"));
        }
        row("dynamic libraries".to_owned(), built.libraries.len() as u64, Some(0));
        if board == HOST {
            row("whole".to_owned(), built.file_bytes, self.parts.get("whole").copied());
            for section in &built.sections {
                let what = format!("section {}", section.name);
                row(what.clone(), section.file_bytes, self.parts.get(&what).copied());
            }
            for (name, share) in &built.crates {
                let what = format!("crate {name}");
                let at_most = self.parts.get(&what).or(self.parts.get(OTHERS));
                row(what, share.code_bytes, at_most.copied());
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{analysis::Section, attribute::Share};

    const SMALL: &str = "text\n| what | bytes |\n| --- | ---: |\n| whole | 100 |\n| section .text | 50 |\n| crate a | 10 |\n\
        | any other crate | 5 |\n\n| board | binary bytes | PSS |\n| --- | ---: | ---: |\n| x86_64 | 90 | 7 |\n| held by | `./dev size` | `budget` |\n\n\
        | what | at most | unit | held by |\n| --- | ---: | --- | --- |\n| a watch | 18 | bytes | `memory` |\n";

    #[test]
    fn what_grew_is_named() {
        let specification = Specification::parse(SMALL);
        let share = |code_bytes| Share { code_bytes, data_bytes: 0 };
        let built = Analysis {
            file_bytes: 100,
            sections: vec![Section { name: ".text".to_owned(), file_bytes: 51, memory_bytes: 51, unnamed_bytes: 0 }],
            crates: [("a", 10), ("b", 6), ("c", 5)].map(|(name, bytes)| (name.to_owned(), share(bytes))).into(),
            ..Analysis::default()
        };
        let over = |board: &str| -> Vec<_> {
            let rows = specification.rows(board, &built).into_iter().filter(Row::over);
            rows.map(|row| (row.what, row.measured, row.at_most)).collect()
        };
        let expected = [("binary bytes", 100, 90), ("section .text", 51, 50), ("crate b", 6, 5)];
        assert_eq!(over("x86_64"), expected.map(|(what, measured, at_most)| (what.to_owned(), measured, at_most)));
        assert_eq!(over("another"), []);
        assert_eq!(specification.board("x86_64", "PSS"), 7);
        assert_eq!(specification.cost("a watch"), 18);
        assert_eq!(specification.held_by["PSS"], "`budget`");
    }

    #[test]
    fn the_page_has_the_rows_that_matter() {
        let page = Specification::embedded();
        for row in ["whole", OTHERS, "crate mote_api"] {
            assert!(page.parts.contains_key(row), "{row}");
        }
        assert_eq!(page.parts["whole"], page.board(HOST, "binary bytes"), "the page disagrees with itself");
        assert!(page.costs.len() > 5, "{:?}", page.costs);
    }

    /// What a board's profile says of its budget, the page says too.
    #[test]
    fn every_board_has_its_row() {
        let page = Specification::embedded();
        for profile in mote_boards::all() {
            let board = &profile.name;
            let found =
                ["binary bytes", "PSS idle kB", "idle writes bytes an hour"].map(|what| page.board(board, what));
            let budget = &profile.budget;
            let expected = [budget.binary_bytes, budget.idle_pss_kb, budget.idle_writes_bytes_an_hour];
            assert_eq!(found, expected, "SPECIFICATION.md and boards/{board}.toml disagree");
            assert_eq!(page.board(board, "flash MB a day"), profile.limits.flash_mb_a_day, "{board}");
        }
        let unknown = |board: &&String| mote_boards::named(board).is_none();
        assert_eq!(page.boards.keys().filter(unknown).count(), 0, "a row for a board that is not there");
    }
}
