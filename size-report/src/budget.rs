//! The budgets: the rows of the table in `SPECIFICATION.md`, and what exceeds them.
use crate::{attribute::Share, elf::Elf};
use std::collections::BTreeMap;

const OTHERS: &str = "any other crate";

pub struct Budgets(BTreeMap<String, u64>);

#[derive(Debug, PartialEq)]
pub struct Excess {
    pub what: String,
    pub bytes: u64,
    pub budget_bytes: u64,
}

impl Budgets {
    /// Rows of the form `| what | bytes |`; the heading is not one, since its second cell is no number.
    pub fn parse(page: &str) -> Budgets {
        let row = |line: &str| {
            let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
            Some((cells.next()?.to_owned(), cells.next()?.parse().ok()?))
        };
        Budgets(page.lines().filter_map(row).collect())
    }

    pub fn exceeded(&self, file_bytes: u64, elf: &Elf, crates: &BTreeMap<String, Share>) -> Vec<Excess> {
        let whole = [("whole".to_owned(), file_bytes)].into_iter();
        let sections = elf.sections.iter().map(|section| (format!("section {}", section.name), section.file_bytes));
        let crates = crates.iter().map(|(name, share)| (format!("crate {name}"), share.code_bytes));
        let over = |(what, bytes): (String, u64)| {
            let others = if what.starts_with("crate ") { self.0.get(OTHERS) } else { None };
            let budget_bytes = *self.0.get(&what).or(others)?;
            (bytes > budget_bytes).then_some(Excess { what, bytes, budget_bytes })
        };
        whole.chain(sections).chain(crates).filter_map(over).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::Section;

    #[test]
    fn what_grew_is_named() {
        let budgets = Budgets::parse(
            "text\n| what | bytes |\n| --- | ---: |\n| whole | 100 |\n| section .text | 50 |\n| crate a | 10 |\n| any other crate | 5 |\n",
        );
        let elf = Elf {
            sections: vec![Section { name: ".text".to_owned(), file_bytes: 51, memory_bytes: 51 }],
            symbols: Vec::new(),
        };
        let share = |code_bytes| Share { code_bytes, data_bytes: 0 };
        let crates = [("a", 10), ("b", 6), ("c", 5)].map(|(name, bytes)| (name.to_owned(), share(bytes)));
        let found: Vec<_> = budgets
            .exceeded(100, &elf, &crates.into())
            .into_iter()
            .map(|e| (e.what, e.bytes, e.budget_bytes))
            .collect();
        assert_eq!(found, [("section .text".to_owned(), 51, 50), ("crate b".to_owned(), 6, 5)]);
    }

    #[test]
    fn the_page_has_the_rows_that_matter() {
        let budgets = Budgets::parse(include_str!("../SPECIFICATION.md"));
        for row in ["whole", OTHERS, "crate mote_api"] {
            assert!(budgets.0.contains_key(row), "{row}");
        }
        let board = mote_boards::named("x86_64").unwrap().budget.binary_bytes;
        assert_eq!(budgets.0.get("whole"), Some(&board), "the page and boards/x86_64.toml disagree");
    }
}
