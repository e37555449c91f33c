//! `mote-boards` prints the profiles there are, and with a board's name all of its profile as assignments for a shell:
//! `build.cpu` is `build_cpu`; a list is words with spaces between them. `mote-boards sbom` lists what a binary is made of.
mod sbom;

use mote_boards::parse::{self, Fields, Value};
use std::{fs, path::Path, process::ExitCode};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        None => {
            for profile in mote_boards::all() {
                println!("{:<24}{:<44}{}", profile.name, profile.description, profile.detect.architecture);
            }
            ExitCode::SUCCESS
        }
        Some("sbom") => sbom::run(arguments),
        Some(board) => show(board),
    }
}

fn show(board: &str) -> ExitCode {
    if mote_boards::named(board).is_none() {
        eprintln!("no board is called {board:?}; see `./dev build --list`");
        return ExitCode::FAILURE;
    }
    let read = |name: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).ok();
    match parse::profile(board, &read) {
        Ok(fields) => {
            println!("board='{board}'");
            print(&fields);
            ExitCode::SUCCESS
        }
        Err(mistakes) => {
            for mistake in mistakes {
                eprintln!("boards/{mistake}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Texts have no ' in them, as the parser has seen to.
fn print(fields: &Fields) {
    for (path, value) in fields {
        let name = path.replace('.', "_");
        match value {
            Value::Text(text) => println!("{name}='{text}'"),
            Value::Number(number) => println!("{name}={number}"),
            Value::List(items) => println!("{name}='{}'", items.join(" ")),
        }
    }
}
