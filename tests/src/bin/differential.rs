//! Records what a cluster answers to the corpus, or says where it answers otherwise than the one that was recorded.
//!
//! `differential record|compare KUBECONFIG [GROUP...]`; the cluster should be one to throw away, see
//! `differential/README.md`.
use mote_tests::{corpus, differential, http::Client};
use std::{fmt::Write, fs, path::Path, process::exit};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [command, kubeconfig, groups @ ..] = words.as_slice() else { usage() };
    let client = Client::new(Path::new(kubeconfig));
    let mut differences = 0;
    for group in corpus::read(groups) {
        let answers = match differential::ask(&client, &group) {
            Ok(answers) => answers,
            Err(error) => {
                eprintln!("{}: {error}", group.name);
                exit(1);
            }
        };
        match command.as_str() {
            "record" => {
                let mut text = String::new();
                for (case, answer) in group.cases.iter().zip(&answers) {
                    let _ = writeln!(text, "{}", answer.to_json(&case.name));
                }
                let file = corpus::directory().join(format!("answers/{}.jsonl", group.name));
                fs::write(file, text).expect("the answers can be written");
                println!("{}: {} cases", group.name, answers.len());
            }
            "compare" => {
                let recorded = differential::recorded(&group.name);
                for (case, answer) in group.cases.iter().zip(&answers) {
                    let found = match recorded.get(&case.name) {
                        Some(wanted) => differential::differences(wanted, answer),
                        None => vec!["not recorded".to_owned()],
                    };
                    if !found.is_empty() {
                        differences += 1;
                        println!("{}: {}\n    {}", group.name, case.name, found.join("\n    "));
                    }
                }
            }
            _ => usage(),
        }
    }
    if command == "compare" {
        println!("{differences} cases differ");
    }
}

fn usage() -> ! {
    eprintln!("differential record|compare KUBECONFIG [GROUP...]");
    exit(2)
}
