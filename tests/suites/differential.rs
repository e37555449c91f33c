//! The corpus of `differential/` against an API server alone: every case is answered as real kube-apiserver answered it, but
//! for those in `known-differences`, each of which must still be one.
use mote_tests::{Server, corpus, differential};
use std::{collections::BTreeMap, fs};

/// No controller is there to change what is asked for.
const ALONE: &str = "components: {disabled: [kubelet, network, scheduler, controllers]}\n";

#[test]
fn answers_are_those_of_kube_apiserver() {
    let server = Server::start_with(ALONE);
    let client = server.client();
    let mut known = known_differences();
    let (mut wrong, mut cases) = (Vec::new(), 0);
    for group in corpus::read(&[]) {
        let recorded = differential::recorded(&group.name);
        let answers = differential::ask(&client, &group).unwrap_or_else(|error| panic!("{}: {error}", group.name));
        cases += answers.len();
        for (case, answer) in group.cases.iter().zip(&answers) {
            let id = format!("{}: {}", group.name, case.name);
            let Some(wanted) = recorded.get(&case.name) else {
                wrong.push(format!("{id}\n    is not recorded"));
                continue;
            };
            let found = differential::differences(wanted, answer);
            match (known.remove(&id), found.is_empty()) {
                (None, false) => wrong.push(format!("{id}\n    {}", found.join("\n    "))),
                (Some(_), true) => wrong.push(format!("{id}\n    agrees now: take it off known-differences")),
                _ => {}
            }
        }
        assert_eq!(recorded.len(), answers.len(), "{} has answers of cases that are gone: record it again", group.name);
    }
    assert!(known.is_empty(), "known-differences names cases that are gone: {:?}", known.keys());
    assert!(wrong.is_empty(), "{} of {cases} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// Case to reason. A line of reason, in brackets, holds for the cases under it.
fn known_differences() -> BTreeMap<String, String> {
    let text = fs::read_to_string(corpus::directory().join("known-differences")).expect("the file is there");
    let (mut known, mut reason) = (BTreeMap::new(), String::new());
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(text) => reason = text.to_owned(),
            None => {
                assert!(!reason.is_empty(), "{line}: no reason above it");
                known.insert(line.to_owned(), reason.clone());
            }
        }
    }
    known
}
