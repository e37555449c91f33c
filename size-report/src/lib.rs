//! What every byte of the binary, and of memory and flash, goes to: sections and symbols read from the ELF file, symbols put on
//! the functions they came from, figures that `./dev figures` has measured; all of it held against the budgets of
//! `SPECIFICATION.md`, which the black-box tests read here too, and told in text, Markdown, JSON and one HTML page.
pub mod analysis;
pub mod attribute;
pub mod budget;
pub mod elf;
pub mod markdown;
pub mod page;
pub mod report;
pub mod text;
