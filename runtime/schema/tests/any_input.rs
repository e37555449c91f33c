//! Whatever a client sends: no function that reads a tree panics on it, and cleaning and defaulting settle at once. Trees are made
//! of the table's own names, so that they get deep into the code, with values of the right type most of the time.
mod trees;

use mote_schema::{Catalog, Kind, Value, check, convert, defaults, prepare, protobuf, prune, strategic};
use trees::Random;

fn drive(kind: &Kind, random: &mut Random) -> bool {
    let mut value = Value::Object(random.object(kind.root, 0));
    let patch = Value::Object(random.object(kind.root, 0));
    let settled = prune::clean(kind, &mut value).is_ok();
    if settled {
        let once = value.clone();
        assert_eq!(prune::clean(kind, &mut value), Ok(vec![]), "{once}");
        assert_eq!(value, once, "cleaning twice");
        defaults::apply(kind, &mut value);
        let once = value.clone();
        defaults::apply(kind, &mut value);
        assert_eq!(value, once, "defaulting twice");
    }
    let mut created = value.clone();
    prepare::create(kind, &mut created);
    check::validate(kind, &created, None, "");
    let mut patched = created.clone();
    let _ = strategic::apply(kind, &mut patched, &patch);
    for sub in ["", "status", "finalize", "approval", "ephemeralcontainers", "resize", "scale"] {
        let mut updated = patched.clone();
        prepare::update(kind, sub, &created, &mut updated);
        check::validate(kind, &updated, Some(&created), sub);
    }
    convert::to_stored(kind, &mut value);
    convert::from_stored(kind, &mut value);
    let text = prune::to_yaml(&value).unwrap();
    assert_eq!(prune::parse_yaml(text.as_bytes()).map(|(v, _)| v), Ok(value), "{text}");
    settled
}

#[test]
fn no_tree_makes_a_panic() {
    let catalog = Catalog::builtin();
    let (mut random, mut settled) = (Random::new(0x9e37_79b9_7f4a_7c15, true), 0);
    for kind in catalog.kinds.iter().chain(&catalog.parts) {
        for _ in 0..8 {
            settled += usize::from(drive(kind, &mut random));
        }
    }
    // Most trees have a mistake of type somewhere; enough have none.
    assert!(settled > 50, "{settled}");
}

#[test]
fn no_bytes_make_a_panic() {
    let catalog = Catalog::builtin();
    let mut random = Random::new(7, true);
    for kind in catalog.kinds.iter().chain(&catalog.parts) {
        for _ in 0..50 {
            let bytes: Vec<u8> =
                (0..random.next(60)).map(|_| [0x0a, 0x12, 1, 2, 5, 0xff, 0x08][random.next(7)]).collect();
            let _ = protobuf::decode(kind, &bytes);
            let _ = protobuf::envelope(&[b"k8s\0", &bytes[..]].concat());
            let _ = prune::parse_json(&bytes);
            let _ = prune::parse_yaml(&bytes);
        }
    }
}
