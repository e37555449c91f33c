//! Trees made of the table's own names, so that they get deep into the code, with values of the right type; some with mistakes.
use mote_schema::table::{BUILTIN, Container, Field, Shape, TypeId};
use mote_schema::{Map, Value, json};

/// xorshift: the same trees every time.
pub struct Random {
    state: u64,
    /// Of one value in 25.
    mistakes: bool,
}

impl Random {
    pub fn new(seed: u64, mistakes: bool) -> Random {
        Random { state: seed, mistakes }
    }

    pub fn next(&mut self, below: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 16) as usize % below.max(1)
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
            Shape::Bytes if !self.mistakes => json!(["", "YQ==", "/wAB"][self.next(3)]),
            Shape::Any => self.any(BUILTIN.name(field)),
            _ => json!(["a", "b-c", "*/5 * * * *", "10.0.0.0/8", "spec.nodeName", "YQ=="][self.next(6)]),
        }
    }

    /// Anything, or what the schema of a custom kind has there.
    fn any(&mut self, name: &str) -> Value {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let choices = match name {
            "additionalItems" | "additionalProperties" => [json!(true), json!(false), schema],
            "items" => [json!([{"type": "string"}, schema]), json!([{"not": schema}]), schema],
            "dependencies" => [json!(["a", "b"]), json!({"type": "string"}), schema],
            _ => [json!("a\n"), json!({"f:a": {".": {}}, "b": [1, null, -2.5]}), json!(7)],
        };
        choices[self.next(choices.len())].clone()
    }

    fn element(&mut self, field: &Field, depth: usize) -> Value {
        match field.shape {
            _ if self.mistakes && self.next(25) == 0 => self.odd(),
            Shape::Object(id) => Value::Object(self.object(id, depth + 1)),
            shape => self.scalar(shape, field),
        }
    }

    pub fn object(&mut self, id: TypeId, depth: usize) -> Map {
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
                _ if self.mistakes && self.next(40) == 0 => self.odd(),
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
