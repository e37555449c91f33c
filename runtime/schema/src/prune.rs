//! Makes a tree out of what a client sent into what is stored: checks JSON types against the table, drops what the kind does
//! not know (and says so), drops nulls and zeros as Go's round trip through a typed struct does, writes the zeros Go writes,
//! and brings times and quantities into their canonical form. Equal objects come out equal, byte for byte, since members of
//! a `crate::Map` are sorted.
//!
//! Errors are worded as sigs.k8s.io/json and the UnmarshalJSON methods of apimachinery word them. What cannot be matched: upstream
//! reports the first mistake in the order of the text, this reports the first in the order of names.
use crate::patch::go_type as json_type;
use crate::{
    Kind,
    quantity::Quantity,
    structural,
    table::{Container, Field, Presence, Shape, Table, TypeId},
};
use crate::{List, Map, Name, Text, Value};
pub use crate::{
    parse::{parse_json, parse_yaml},
    yaml::to_yaml,
};
pub use mote_doc::protobuf::parse_time;

/// Complaints kept of one object, as upstream keeps (kubernetes_patch.go, saveStrictError).
const MAX_COMPLAINTS: usize = 100;
/// JSON schemas are the only types that contain themselves.
const MAX_DEPTH: usize = 128;

/// Ok: what a strict client wants to hear (`unknown field "spec.foo"`). Err: why the object cannot be decoded.
pub fn clean(kind: &Kind, value: &mut Value) -> Result<Vec<String>, String> {
    if kind.is_custom() {
        return structural::clean(kind, value);
    }
    let Value::Object(map) = value else {
        let go = kind.table().go_name(kind.root);
        return Err(format!("json: cannot unmarshal {} into Go value of type {go}", json_type(value)));
    };
    map.remove("apiVersion");
    map.remove("kind");
    let mut cleaner = Cleaner { table: kind.table(), complaints: Vec::new(), error: None, path: Vec::new() };
    cleaner.object(kind.root, map);
    if let Some(error) = cleaner.error {
        return Err(error);
    }
    let complaints = cleaner.complaints;
    if is_definition(kind) {
        structural::normalize(value);
    }
    Ok(complaints)
}

/// The kind whose objects make kinds.
pub(crate) fn is_definition(kind: &Kind) -> bool {
    kind.kind == "CustomResourceDefinition" && kind.group == "apiextensions.k8s.io"
}

/// The same for a part of an object, "spec.template", whose type is known.
pub fn clean_type(table: &Table, id: TypeId, value: &mut Map) -> Result<Vec<String>, String> {
    let mut cleaner = Cleaner { table, complaints: Vec::new(), error: None, path: Vec::new() };
    cleaner.object(id, value);
    cleaner.error.map_or(Ok(cleaner.complaints), Err)
}

enum Step {
    Name(Name),
    /// A key of a map: strict paths show it, Go's error path does not.
    Key(Name),
    Index(usize),
}

struct Cleaner<'t> {
    table: &'t Table,
    complaints: Vec<String>,
    /// The first mistake; decoding goes on, as upstream's does.
    error: Option<String>,
    path: Vec<Step>,
}

/// Where a value stands: the struct and the field that hold it.
#[derive(Clone, Copy)]
struct Place<'f> {
    owner: TypeId,
    field: &'f Field,
}

impl<'t> Cleaner<'t> {
    fn object(&mut self, id: TypeId, map: &mut Map) {
        if self.path.len() > MAX_DEPTH {
            self.fail("json: exceeded max depth".into());
            return;
        }
        let table = self.table;
        let mut drop = Vec::new();
        for (name, value) in map.iter_mut() {
            let Some(field) = table.field(id, name) else {
                self.complain(name);
                drop.push(name.clone());
                continue;
            };
            if value.is_null() && (field.shape != Shape::Any || field.container != Container::One) {
                drop.push(name.clone());
                continue;
            }
            self.path.push(Step::Name(name.clone()));
            self.field(Place { owner: id, field }, value);
            self.path.pop();
            let is_left_out = match field.presence {
                Presence::Omit => is_zero(field, value),
                // What went through storage is nil.
                Presence::Always if field.container != Container::One => is_zero(field, value),
                _ => false,
            };
            if value.is_null() && field.shape != Shape::Any || is_left_out {
                drop.push(name.clone());
            }
        }
        for name in drop {
            map.remove(&name);
        }
        for field in table.fields(id) {
            let name = table.name(field);
            if map.contains_key(name) {
                continue;
            }
            let zero = match (field.presence, field.container) {
                (Presence::Always, Container::One) => zero(table, field.shape),
                // Go writes a nil slice or map as null.
                (Presence::Always | Presence::Null, _) => Some(Value::Null),
                _ => None,
            };
            if let Some(zero) = zero {
                map.insert(name.into(), zero);
            }
        }
    }

    fn field(&mut self, place: Place<'_>, value: &mut Value) {
        match place.field.container {
            Container::One => self.one(place, value),
            Container::List => self.list(place, value),
            Container::Map | Container::MapOfLists => match value {
                Value::Object(map) => {
                    for (key, element) in map.iter_mut() {
                        self.path.push(Step::Key(key.clone()));
                        match place.field.container {
                            Container::MapOfLists if element.is_null() => *element = Value::Array(List::default()),
                            Container::MapOfLists => self.list(place, element),
                            _ => self.element(place, element),
                        }
                        self.path.pop();
                    }
                }
                other => self.mismatch(json_type(other), place, &self.table.go_type(place.field)),
            },
        }
    }

    fn list(&mut self, place: Place<'_>, value: &mut Value) {
        match value {
            Value::Array(list) => {
                for (at, element) in list.iter_mut().enumerate() {
                    self.path.push(Step::Index(at));
                    self.element(place, element);
                    self.path.pop();
                }
            }
            other => self.mismatch(json_type(other), place, &self.table.go_type(place.field)),
        }
    }

    /// A null among elements is the element's zero; that of times and bytes is null.
    fn element(&mut self, place: Place<'_>, value: &mut Value) {
        if !value.is_null() {
            self.one(place, value);
        } else if let Some(zero) = zero(self.table, place.field.shape) {
            *value = zero;
        }
    }

    fn one(&mut self, place: Place<'_>, value: &mut Value) {
        let shape = place.field.shape;
        match (shape, &mut *value) {
            (Shape::Any, _)
            | (Shape::Bool, Value::Bool(_))
            | (Shape::String, Value::String(_))
            | (Shape::Double, Value::Number(_)) => {}
            (Shape::Object(id), Value::Object(map)) => self.object(id, map),
            (Shape::Int32 | Shape::Int64, Value::Number(number)) => {
                let fits = number.as_i64().filter(|n| shape == Shape::Int64 || i32::try_from(*n).is_ok());
                if fits.is_none() {
                    let found = format!("number {number}");
                    self.mismatch(&found, place, &self.table.go_element(place.field));
                }
            }
            (Shape::Bytes, Value::String(text)) => self.bytes(text),
            (Shape::Quantity, Value::String(text)) => match Quantity::parse(text.trim()) {
                Ok(quantity) => *text = quantity.to_string().into(),
                Err(error) => self.fail(error.to_string()),
            },
            // A bare number is one too; anything else is read as its text and refused.
            (Shape::Quantity, other) => match Quantity::parse(&other.to_string()) {
                Ok(quantity) => *other = Value::String(quantity.to_string().into()),
                Err(error) => self.fail(error.to_string()),
            },
            (Shape::IntOrString, Value::String(_)) => {}
            (Shape::IntOrString, Value::Number(number)) => {
                if number.as_i64().is_none_or(|n| i32::try_from(n).is_err()) {
                    self.fail(format!("json: cannot unmarshal number {number} into Go value of type int32"));
                }
            }
            (Shape::IntOrString, other) => {
                self.fail(format!("json: cannot unmarshal {} into Go value of type int32", json_type(other)));
            }
            (Shape::Time | Shape::MicroTime, Value::String(text)) => {
                let text = std::mem::take(text);
                self.time(&text, shape == Shape::MicroTime, value);
            }
            (Shape::Duration, Value::String(text)) => {
                if !is_go_duration(text) {
                    self.fail(format!("time: invalid duration {text:?}"));
                }
            }
            (Shape::Time | Shape::MicroTime | Shape::Duration, other) => {
                self.fail(format!("json: cannot unmarshal {} into Go value of type string", json_type(other)));
            }
            (_, other) => {
                let found = json_type(other);
                self.mismatch(found, place, &self.table.go_element(place.field));
            }
        }
    }

    fn bytes(&mut self, text: &mut Text) {
        use base64::{Engine, alphabet, engine};
        // Go's StdEncoding wants padding, does not look at trailing bits and skips line breaks.
        const LAX: engine::GeneralPurpose = engine::GeneralPurpose::new(
            &alphabet::STANDARD,
            engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
        );
        let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        match LAX.decode(&joined) {
            Ok(bytes) => *text = LAX.encode(bytes).into(),
            Err(error) => {
                let at = match error {
                    base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                    // Go names the start of the quantum that is cut short.
                    base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => joined.len() / 4 * 4,
                };
                self.fail(format!("illegal base64 data at input byte {at}"));
            }
        }
    }

    /// The zero time is written as null, hence dropped.
    fn time(&mut self, text: &str, micro: bool, value: &mut Value) {
        let Some(time) = parse_time(text) else {
            let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
            self.fail(format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""));
            return;
        };
        *value = match time {
            t if t.as_second() == GO_ZERO_SECONDS => Value::Null,
            t if micro => Value::String(t.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into()),
            t => Value::String(t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()),
        };
    }

    fn mismatch(&mut self, found: &str, place: Place<'_>, wanted: &str) {
        let path: Vec<&str> = self
            .path
            .iter()
            .filter_map(|s| if let Step::Name(name) = s { Some(name.as_str()) } else { None })
            .collect();
        let owner = self.table.type_name(place.owner);
        let path = path.join(".");
        self.fail(format!("json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {wanted}"));
    }

    fn fail(&mut self, error: String) {
        self.error.get_or_insert(error);
    }

    fn complain(&mut self, name: &str) {
        if self.complaints.len() >= MAX_COMPLAINTS {
            return;
        }
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Index(at) => path += &format!("[{at}]"),
                Step::Name(name) | Step::Key(name) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path += name;
                }
            }
        }
        if !path.is_empty() {
            path.push('.');
        }
        self.complaints.push(format!("unknown field {:?}", path + name));
    }
}

/// Seconds of 0001-01-01T00:00:00Z, Go's zero time.
const GO_ZERO_SECONDS: i64 = -62_135_596_800;

/// time.ParseDuration: signed decimal numbers with units.
pub(crate) fn is_go_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let mut any = false;
    while !rest.is_empty() {
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = &rest[..rest.len() - after.len()];
        if !number.contains(|c: char| c.is_ascii_digit()) || number.matches('.').count() > 1 {
            return false;
        }
        let Some(next) = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"].iter().find_map(|unit| after.strip_prefix(unit))
        else {
            return false;
        };
        rest = next;
        any = true;
    }
    any
}

/// What Go's omitempty (omitzero for structs) leaves out.
fn is_zero(field: &Field, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0) && field.shape != Shape::IntOrString,
        Value::String(s) => s.is_empty() && field.shape != Shape::IntOrString,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// The zero Go writes for a value that is not a pointer; nothing for what has none (times are null, any JSON is nil).
fn zero(table: &Table, shape: Shape) -> Option<Value> {
    Some(match shape {
        Shape::Bool => Value::Bool(false),
        Shape::Int32 | Shape::Int64 | Shape::Double | Shape::IntOrString => Value::from(0),
        Shape::String => Value::String(Text::new()),
        Shape::Quantity => Value::String("0".into()),
        Shape::Duration => Value::String("0s".into()),
        // Go writes a zero time as null.
        Shape::Time | Shape::MicroTime => Value::Null,
        Shape::Bytes | Shape::Any => return None,
        Shape::Object(id) => {
            let always = table.fields(id).iter().filter(|f| f.presence == Presence::Always);
            let members = always.filter(|f| f.shape != Shape::Object(id)).filter_map(|f| {
                let zero = if f.container == Container::One { zero(table, f.shape)? } else { Value::Null };
                Some((table.name(f).to_owned(), zero))
            });
            Value::Object(members.collect())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalog;
    use crate::json;

    fn run(group: &str, kind: &str, value: &mut Value) -> Result<Vec<String>, String> {
        let catalog = Catalog::builtin();
        clean(catalog.kinds.iter().find(|k| k.group == group && k.kind == kind).unwrap(), value)
    }

    fn check_error(kind: (&str, &str), mut value: Value, want: &str) {
        assert_eq!(run(kind.0, kind.1, &mut value), Err(want.into()), "{value}");
    }

    #[test]
    fn wrong_types_are_worded_as_upstream_words_them() {
        let deployment = ("apps", "Deployment");
        let go = "json: cannot unmarshal";
        let cases = [
            (
                json!({"replicas": "2"}),
                format!("{go} string into Go struct field DeploymentSpec.spec.replicas of type int32"),
            ),
            (
                json!({"replicas": 1.5}),
                format!("{go} number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"),
            ),
            (
                json!({"template": {"spec": {"containers": {}}}}),
                format!(
                    "{go} object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container"
                ),
            ),
            (
                json!({"template": {"spec": {"containers": [{"image": 1}]}}}),
                format!(
                    "{go} number into Go struct field Container.spec.template.spec.containers.image of type string"
                ),
            ),
            (
                json!({"template": {"spec": {"restartPolicy": 1}}}),
                format!(
                    "{go} number into Go struct field PodSpec.spec.template.spec.restartPolicy of type v1.RestartPolicy"
                ),
            ),
            (
                json!({"template": {"metadata": {"labels": {"a": 1}}}}),
                format!("{go} number into Go struct field ObjectMeta.spec.template.metadata.labels of type string"),
            ),
            (
                json!({"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "x"}}}]}}}),
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'".into(),
            ),
        ];
        for (spec, want) in cases {
            check_error(deployment, json!({ "spec": spec }), &want);
        }
        check_error(("", "Secret"), json!({"data": {"a": "*"}}), "illegal base64 data at input byte 0");
        check_error(
            ("", "Pod"),
            json!({"metadata": {"creationTimestamp": "x"}}),
            "parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\"",
        );
        check_error(("", "Pod"), json!([]), "json: cannot unmarshal array into Go value of type v1.Pod");
    }

    #[test]
    fn unknown_fields_are_told_and_dropped() {
        let mut pod = json!({"kind": "Pod", "foo": 1, "metadata": {"labels": {"x": "y"}},
            "spec": {"bar": {}, "containers": [{"name": "a"}, {"name": "b", "imagee": "c"}]}});
        let complaints = run("", "Pod", &mut pod).unwrap();
        assert_eq!(
            complaints,
            ["unknown field \"foo\"", "unknown field \"spec.bar\"", "unknown field \"spec.containers[1].imagee\""]
        );
        assert_eq!(
            pod,
            json!({"metadata": {"labels": {"x": "y"}}, "status": {},
            "spec": {"containers": [{"name": "a", "resources": {}}, {"name": "b", "resources": {}}]}})
        );
    }

    #[test]
    fn a_round_trip_through_go_is_matched() {
        let mut pod = json!({"metadata": {"creationTimestamp": null, "labels": {}, "annotations": {"a": null},
                "deletionTimestamp": "2024-01-01T02:00:00.5+02:00"},
            "spec": {"hostNetwork": false, "nodeName": "", "enableServiceLinks": false, "containers": [{"name": "c", "command": [],
                "resources": {"limits": {"memory": "1024Mi", "cpu": 0.5}}, "ports": [{"containerPort": 80, "hostPort": 0}],
                "securityContext": {}}],
                "volumes": [{"name": "v", "emptyDir": {}}]},
            "status": {"containerStatuses": [{"name": "c"}]}});
        assert_eq!(run("", "Pod", &mut pod), Ok(vec![]));
        assert_eq!(
            pod,
            json!({"metadata": {"annotations": {"a": ""}, "deletionTimestamp": "2024-01-01T00:00:00Z"},
            "spec": {"enableServiceLinks": false, "containers": [{"name": "c",
                "resources": {"limits": {"memory": "1Gi", "cpu": "500m"}}, "ports": [{"containerPort": 80}],
                "securityContext": {}}],
                "volumes": [{"name": "v", "emptyDir": {}}]},
            "status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "lastState": {}, "ready": false,
                "restartCount": 0, "state": {}}]}})
        );
        let mut lease = json!({"spec": {"renewTime": "2024-01-01T00:00:00.1234567Z"}});
        assert_eq!(run("coordination.k8s.io", "Lease", &mut lease), Ok(vec![]));
        assert_eq!(lease["spec"]["renewTime"], json!("2024-01-01T00:00:00.123456Z"));
        let mut definition = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema":
            {"properties": {"a": {"default": null, "x-kubernetes-preserve-unknown-fields": true}}}}}]}});
        assert_eq!(run("apiextensions.k8s.io", "CustomResourceDefinition", &mut definition), Ok(vec![]));
    }

    #[test]
    fn durations_are_go_s() {
        for good in ["0", "1s", "-1.5h", "1h30m", "300ms", ".5s"] {
            assert!(is_go_duration(good), "{good}");
        }
        for bad in ["", "1", "s", "1 s", "1d", "1..5s"] {
            assert!(!is_go_duration(bad), "{bad}");
        }
    }
}
