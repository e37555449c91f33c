//! Entries for the fuzz targets (`fuzz/`) to what is private here: compiled only for them (`--cfg fuzzing`).
use crate::dns::wire::{Query, answers_of, pass_on, read_answer};

/// A question, and another server's answer to it behind: two bytes of length, the question, the answer.
pub fn dns(data: &[u8]) {
    drop(Query::parse(data));
    drop(answers_of(data));
    let Some((len, rest)) = data.split_first_chunk::<2>() else { return };
    let Some((question, answer)) = rest.split_at_checked(u16::from_be_bytes(*len).into()) else { return };
    let Ok(query) = Query::parse(question) else { return };
    drop(Query::parse(&query.to_bytes(7)));
    let id = answer.first_chunk::<2>().map_or(0, |id| u16::from_be_bytes(*id));
    if let Some(passed) = read_answer(answer, id, &query) {
        for limit in [512, query.udp_limit(), 65_535] {
            let out = pass_on(answer, &passed, 1, &query, limit);
            assert!(out.len() <= limit.max(512), "{} over {limit}", out.len());
        }
    }
}
