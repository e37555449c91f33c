//! `mote-size-report [--symbols FILE] BINARY` prints what the binary is made of and fails when a budget of
//! `size-report/SPECIFICATION.md` is exceeded. Sizes are BINARY's; names come from FILE, the same build before it was stripped.
use mote_size_report::{attribute, budget::Budgets, elf};
use std::process::ExitCode;

/// How many crates and pieces of data are listed.
const LISTED: usize = 30;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (mut symbols, mut binary) = (None, None);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--symbols" => symbols = args.next(),
            _ => binary = Some(arg),
        }
    }
    let Some(binary) = binary else {
        eprintln!("usage: mote-size-report [--symbols FILE] BINARY");
        return ExitCode::from(2);
    };
    match report(&binary, symbols.as_deref().unwrap_or(&binary)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mote-size-report: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all budgets hold.
fn report(binary: &str, with_symbols: &str) -> Result<bool, String> {
    let read = |path: &str| std::fs::read(path).map_err(|error| format!("{path}: {error}"));
    let parse = |path: &str, file: &[u8]| elf::parse(file).map_err(|error| format!("{path}: {error}"));
    let file = read(binary)?;
    let stripped = parse(binary, &file)?;
    let named = parse(with_symbols, &read(with_symbols)?)?;
    let crates = attribute::by_crate(&named.symbols);

    println!("{:>11}  {:>11}  whole file", file.len(), "");
    println!("\n{:>11}  {:>11}  section", "in file", "in memory");
    for section in stripped.sections.iter().filter(|section| section.memory_bytes >= 4096) {
        println!("{:>11}  {:>11}  {}", section.file_bytes, section.memory_bytes, section.name);
    }
    println!("\n{:>11}  {:>11}  crate", "code", "named data");
    let mut sorted: Vec<_> = crates.iter().collect();
    sorted.sort_by_key(|(_, share)| std::cmp::Reverse(share.code_bytes + share.data_bytes));
    for (name, share) in sorted.iter().take(LISTED) {
        println!("{:>11}  {:>11}  {name}", share.code_bytes, share.data_bytes);
    }
    println!("\n{:>11}  {:>11}  data", "", "bytes");
    let mut data: Vec<_> = named.symbols.iter().filter(|symbol| !symbol.code).collect();
    data.sort_by_key(|symbol| std::cmp::Reverse(symbol.bytes));
    for symbol in data.iter().take(LISTED / 3) {
        println!("{:>11}  {:>11}  {}", "", symbol.bytes, attribute::readable(&symbol.name));
    }

    let exceeded = Budgets::parse(include_str!("../SPECIFICATION.md")).exceeded(file.len() as u64, &stripped, &crates);
    println!();
    for excess in &exceeded {
        println!("over budget: {} takes {} bytes of {}", excess.what, excess.bytes, excess.budget_bytes);
    }
    if exceeded.is_empty() {
        println!("within budget");
    }
    Ok(exceeded.is_empty())
}
