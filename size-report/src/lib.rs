//! What every byte of the binary goes to: sections and symbols read from the ELF file, symbols put on the crates they
//! came from, and both held against the budgets of `SPECIFICATION.md`.
pub mod attribute;
pub mod budget;
pub mod elf;
