//! Bytes as they lie on disks: they are read for ever, and a release writes only what the one before it reads.
use super::{Doc, bytes::Key, names};
use crate::doc::name_count;

const JSON: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","generation":2,"annotations":{"a/b":"c \"d\" <e>"},"managedFields":[{"fieldsV1":{"f:spec":{"f:nodeName":{},"k:{\"name\":\"x\"}":{}}}}]},"spec":{"priority":-7,"overhead":null,"hostNetwork":true,"big":18446744073709551615,"half":0.5,"containers":[{"name":"x","unknownField":[0,31,32,1000000]}]}}"#;

/// `JSON` as data version 1 has it.
const VERSION_1: &str = "01088301124276311343506f6403b300437765620e12078fdd612f6207096320226422203c653e14d9981996d80493d85b80e86b3a7b226e616d65223a2278227d8004084261030dc06400c16c02dd62696704ffffffffffffffffff01de68616c6605000000000000e03f1bda99004178e6756e6b6e6f776e4669656c64c8102f03400380897a";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

#[test]
fn what_data_version_1_wrote_is_read_and_still_written_so() {
    let stored = Doc::from_bytes(bytes(VERSION_1).into()).unwrap();
    let mut json = Vec::new();
    stored.write_json(&mut json);
    let fresh = Doc::from_json(JSON.as_bytes()).unwrap();
    assert_eq!(
        fresh.bytes()[..],
        stored.bytes()[..],
        "{}",
        fresh.bytes().iter().map(|b| format!("{b:02x}")).collect::<String>()
    );
    let mut again = Vec::new();
    fresh.write_json(&mut again);
    assert_eq!(String::from_utf8(json).unwrap(), String::from_utf8(again).unwrap());
}

/// A release adds names: it reads them as numbers, and writes them as text until the next one.
#[test]
fn a_new_name_is_text_until_the_release_before_knows_it() {
    let [newest, oldest] = [name_count() as u16 - 1, 0].map(|id| names::name(id).unwrap());
    let limit = name_count() as u16 - 1;
    assert!(matches!(Key::of(newest.as_bytes()).below(limit), Key::Inline(text) if text == newest.as_bytes()));
    let field = format!("f:{newest}");
    assert!(matches!(Key::of(field.as_bytes()).below(limit), Key::Inline(_)));
    assert!(matches!(Key::of(oldest.as_bytes()).below(limit), Key::Name(0)));
    assert!(matches!(Key::of(newest.as_bytes()), Key::Name(id) if id == limit));

    // Both forms are one object, and a write brings it to today's.
    let mut text = vec![1, 0x80 + newest.len() as u8 + 2, 0xda + newest.len() as u8];
    text.extend_from_slice(newest.as_bytes());
    text.push(0x15);
    let text = Doc::from_bytes(text.into()).unwrap();
    assert_eq!(text.root().get(newest).as_i64(), Some(5));
    let mut json = Vec::new();
    text.write_json(&mut json);
    let again = Doc::from_json(&json).unwrap();
    assert_eq!(again.root().get(newest).as_i64(), Some(5));
}

/// A number that no name has yet is a newer release's, and no object is read in part.
#[test]
fn an_unknown_number_is_refused() {
    let id = name_count() - 192;
    let bytes = vec![1, 0x83, 0xc0 + (id / 256) as u8, (id % 256) as u8, 0x15];
    assert!(Doc::from_bytes(bytes.into()).is_err());
}
