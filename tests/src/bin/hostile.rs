//! `./dev hostile [SECONDS]`: clients that mean harm against the binary, an hour of them unless told otherwise; CI runs a short
//! form (`suites/hostile.rs`). Prints what was done and how honest clients fared; fails when something does not hold.
//! `./dev hostile each [NAME]`: what each attack, or those so named, costs the server when it is alone.
use mote_tests::hostile;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut server = hostile::server();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["each"] => hostile::each(&server, ""),
        ["each", name] => hostile::each(&server, name),
        [seconds] => hostile::run(&mut server, seconds.parse().expect("a number of seconds")),
        _ => hostile::run(&mut server, 3_600),
    }
}
