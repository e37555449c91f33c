//! `mote-boards` prints a profile's build settings for `./dev build`, or without a name the profiles there are.
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else {
        for profile in mote_boards::all() {
            println!("{:<18}{:<30}{}", profile.name, profile.description, profile.build.target);
        }
        return ExitCode::SUCCESS;
    };
    let Some(profile) = mote_boards::named(&name) else {
        eprintln!("no board is called {name:?}; see `./dev build --list`");
        return ExitCode::FAILURE;
    };
    let mote_boards::Build { target, cpu, opt_level } = &profile.build;
    println!("target={target} cpu={cpu} opt_level={opt_level} binary_bytes={}", profile.budget.binary_bytes);
    ExitCode::SUCCESS
}
