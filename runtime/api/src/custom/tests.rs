//! Rules, over whole definitions: when they are made and when objects are.
use super::{rule_costs, rules};
use mote_schema::{Cause, Doc, Kind, structural};
use mote_schema::{Value, json};
use std::sync::Arc;

fn definition(spec: Value) -> Value {
    let names = json!({"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"});
    json!({"metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]},
        "status": {"acceptedNames": names, "conditions": [{"type": "Established", "status": "True"}]}})
}

fn kind(spec: Value) -> Arc<Kind> {
    let doc = Doc::encode(&definition(spec)).unwrap_or_else(|error| panic!("{error}"));
    structural::kinds(&doc, 0, &[]).remove(0)
}

fn texts(causes: &[Cause]) -> Vec<String> {
    causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
}

/// What is refused, and what is only warned of.
fn ask(kind: &Kind, spec: Value, old: Option<Value>) -> (Vec<String>, Vec<String>) {
    let object =
        |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec});
    let (mut causes, mut warnings) = (Vec::new(), Vec::new());
    rules::check(kind, &object(spec), old.map(object).as_ref(), &mut causes, &mut warnings);
    (texts(&causes), warnings)
}

#[test]
fn rules_are_asked_where_they_stand() {
    let integer = json!({"type": "integer"});
    let kind = kind(json!({"type": "object",
        "x-kubernetes-validations": [{"rule": "self.a < self.b", "message": "a is not less than b", "fieldPath": ".a"}],
        "properties": {"a": integer, "b": integer,
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "required": ["k"],
                    "x-kubernetes-validations": [{"rule": "self.n >= oldSelf.n", "reason": "FieldValueForbidden"}],
                    "properties": {"k": {"type": "string"}, "n": integer}}},
            "map": {"type": "object", "additionalProperties": {"type": "string",
                "x-kubernetes-validations": [{"rule": "self.startsWith('x')", "messageExpression": "self + ' is no x'"}]}}}}));
    let none: (Vec<String>, Vec<String>) = Default::default();
    assert_eq!(ask(&kind, json!({"a": 1, "b": 2, "map": {"m": "xy"}}), None), none);
    assert_eq!(ask(&kind, json!({"a": 3, "b": 2}), None).0, ["spec.a: Invalid value: a is not less than b"]);
    assert_eq!(
        ask(&kind, json!({"a": 1, "b": 2, "map": {"m": "z"}}), None).0,
        [r#"spec.map[m]: Invalid value: "z": z is no x"#]
    );
    assert_eq!(
        ask(&kind, json!({"b": 2}), None).0,
        [r#"spec: Invalid value: "object": no such key: a evaluating rule: a is not less than b"#]
    );
    let list = |n: i64| json!({"a": 1, "b": 2, "list": [{"k": "new", "n": 0}, {"k": "x", "n": n}]});
    let old = || Some(json!({"a": 1, "b": 2, "list": [{"k": "x", "n": 5}]}));
    assert_eq!(ask(&kind, list(6), old()), none);
    assert_eq!(ask(&kind, list(4), old()).0, ["spec.list[1]: Forbidden: failed rule: self.n >= oldSelf.n"]);
    // What did not change is only warned of.
    let wrong = json!({"a": 3, "b": 2});
    assert_eq!(
        ask(&kind, wrong.clone(), Some(wrong)),
        (vec![], vec!["spec.a: Invalid value: a is not less than b".to_owned()])
    );
}

#[test]
fn old_values_may_be_optional() {
    let kind = kind(json!({"type": "object", "properties": {"a": {"type": "integer",
        "x-kubernetes-validations": [{"rule": "oldSelf.hasValue() || self == 1", "optionalOldSelf": true, "message": "starts at 1"}]}}}));
    assert!(ask(&kind, json!({"a": 1}), None).0.is_empty());
    assert_eq!(ask(&kind, json!({"a": 2}), None).0, ["spec.a: Invalid value: 2: starts at 1"]);
    assert!(ask(&kind, json!({"a": 2}), Some(json!({"a": 1}))).0.is_empty());
}

#[test]
fn metadata_is_seen_by_rules_at_the_root() {
    let mut made = definition(json!({"type": "object", "properties": {"name": {"type": "string"}}}));
    made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] =
        json!([{"rule": "self.metadata.name == self.spec.name && self.kind == 'Thing'", "message": "named otherwise"}]);
    assert_eq!(rule_costs::check(&made, None), []);
    let doc = Doc::encode(&made).unwrap_or_else(|error| panic!("{error}"));
    let kind = structural::kinds(&doc, 0, &[]).remove(0);
    assert!(ask(&kind, json!({"name": "a"}), None).0.is_empty());
    assert_eq!(ask(&kind, json!({"name": "b"}), None).0, ["<nil>: Invalid value: named otherwise"]);
}

fn check_definition(spec: Value, want: &[&str]) {
    let found = texts(&rule_costs::check(&definition(spec.clone()), None));
    assert_eq!(found.len(), want.len(), "{spec} {found:?}");
    // What is said of the schema as a whole stands at its root.
    for (found, want) in found.iter().zip(want).filter(|(_, want)| !want.is_empty()) {
        let want = format!("spec.validation.openAPIV3Schema.properties[spec]{want}");
        assert!(found.starts_with(&want), "{found}\n{want}");
    }
}

#[test]
fn rules_of_a_definition_compile_and_cost_little() {
    let rule = |rule: &str| json!([{ "rule": rule }]);
    let strings = json!({"type": "array", "items": {"type": "string"}});
    let list = |mut list: Value, rules: Value| {
        list["x-kubernetes-validations"] = rules;
        json!({"type": "object", "properties": {"l": list}})
    };
    let at = ".properties[l].x-kubernetes-validations[0]";
    check_definition(list(strings.clone(), rule("self.size() < 5")), &[]);
    check_definition(
        list(strings.clone(), rule("self.all(x, self.all(y, x == y))")),
        &[
            &format!("{at}.rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x"),
            &format!("{at}.rule: Forbidden: contributed to estimated rule cost total"),
            "",
        ],
    );
    check_definition(list(strings, rule("self.size()")), &[&format!("{at}.rule: Invalid value: {{")]);
    let transition = json!({"type": "array", "items": {"type": "string", "maxLength": 9, "x-kubernetes-validations": rule("self == oldSelf")}, "maxItems": 9});
    check_definition(
        json!({"type": "object", "properties": {"l": transition}}),
        &[
            ".properties[l].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within spec.validation.openAPIV3Schema.properties[spec].properties[l]",
        ],
    );
    check_definition(
        json!({"type": "object", "properties": {"a": {"type": "integer", "default": 1, "x-kubernetes-validations": rule("self > 1")}}}),
        &[".properties[a].default: Invalid value: 1: failed rule: self > 1"],
    );
}
