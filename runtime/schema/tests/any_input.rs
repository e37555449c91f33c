//! Whatever a client sends: no function that reads a tree panics on it, and cleaning and defaulting settle at once. Trees are made
//! of the table's own names, so that they get deep into the code, with values of the right type most of the time.
use mote_schema::{
    Catalog, Kind, check, convert, defaults, prepare, protobuf, prune, strategic,
    table::{BUILTIN, Container, Field, Shape, TypeId},
};
use serde_json::{Map, Value, json};

/// xorshift: the same trees every time.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % below.max(1)
    }

    fn odd(&mut self) -> Value {
        let odd = [
            json!(null),
            json!(true),
            json!(-1),
            json!(0),
            json!(1.5),
            json!(u64::MAX),
            json!(""),
            json!("a"),
            json!("A_b/c"),
            json!("1Gi"),
            json!("-5%"),
            json!("2024-02-30T00:00:00Z"),
            json!("10.0.0.1"),
            json!([]),
            json!({}),
            json!([[null]]),
            json!("é\u{0}"),
            json!({"$patch": "delete"}),
            json!([{"$patch": "replace"}, 1]),
        ];
        odd[self.next(odd.len())].clone()
    }

    fn scalar(&mut self, shape: Shape, field: &Field) -> Value {
        let values: Vec<&str> = BUILTIN.values(field).collect();
        if !values.is_empty() && self.next(2) == 0 {
            return values[self.next(values.len())].into();
        }
        match shape {
            Shape::Bool => json!(self.next(2) == 0),
            Shape::Int32 | Shape::Int64 => json!(self.next(70_000) as i64 - 10),
            Shape::Double => json!(0.5),
            Shape::Quantity => json!(["1", "100m", "1Gi", "-1", "0"][self.next(5)]),
            Shape::IntOrString => [json!(80), json!("web"), json!("25%")][self.next(3)].clone(),
            Shape::Time | Shape::MicroTime => json!("2024-01-01T00:00:00.5+01:00"),
            Shape::Duration => json!("1m"),
            _ => json!(["a", "b-c", "*/5 * * * *", "10.0.0.0/8", "spec.nodeName", "YQ=="][self.next(6)]),
        }
    }

    fn element(&mut self, field: &Field, depth: usize) -> Value {
        match field.shape {
            _ if self.next(25) == 0 => self.odd(),
            Shape::Object(id) => Value::Object(self.object(id, depth + 1)),
            shape => self.scalar(shape, field),
        }
    }

    fn object(&mut self, id: TypeId, depth: usize) -> Map<String, Value> {
        let mut map = Map::new();
        if depth > 9 {
            return map;
        }
        for field in BUILTIN.fields(id) {
            if self.next(3) > 0 && depth > 1 {
                continue;
            }
            let many = |r: &mut Random| r.next(3);
            let value = match field.container {
                _ if self.next(40) == 0 => self.odd(),
                Container::One => self.element(field, depth),
                Container::List => (0..many(self)).map(|_| self.element(field, depth)).collect(),
                Container::Map => {
                    let members = (0..many(self)).map(|i| (format!("k{i}"), self.element(field, depth)));
                    Value::Object(members.collect())
                }
                Container::MapOfLists => json!({"k": [self.element(field, depth)]}),
            };
            map.insert(BUILTIN.name(field).into(), value);
        }
        map
    }
}

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
    let (mut random, mut settled) = (Random(0x9e37_79b9_7f4a_7c15), 0);
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
    let mut random = Random(7);
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
