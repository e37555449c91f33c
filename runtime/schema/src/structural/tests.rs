//! Tables over whole definitions: what becomes of an object, and what is said of a definition.
use super::*;
use crate::{check, defaults, json, prune};

fn definition(schema: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "conversion": {"strategy": "None"},
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList", "shortNames": ["th"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
        "status": {"storedVersions": ["v1"],
            "acceptedNames": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList", "shortNames": ["th"]},
            "conditions": [{"type": "Established", "status": "True"}]}})
}

fn kind(definition: &Value) -> Arc<Kind> {
    let doc = Doc::encode(definition).unwrap();
    kinds(&doc, 0, &[]).first().expect("a served version").clone()
}

/// A kind whose objects have a `spec` of this schema.
fn of_spec(spec: Value) -> Arc<Kind> {
    kind(&definition(json!({"type": "object", "properties": {"spec": spec}})))
}

fn object(spec: Value) -> Value {
    json!({"metadata": {"name": "a", "namespace": "n"}, "spec": spec})
}

fn texts(causes: Vec<Cause>) -> Vec<String> {
    causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
}

fn check_value(schema: Value, spec: Value, old: Option<Value>, want: &[&str]) {
    let kind = of_spec(schema);
    let (mut new, mut old) = (object(spec), old.map(object));
    for value in [Some(&mut new), old.as_mut()].into_iter().flatten() {
        prune::clean(&kind, value).unwrap();
    }
    assert_eq!(texts(check::validate(&kind, &new, old.as_ref(), "")), want, "{new}");
}

#[test]
fn values_fit_their_schema_or_are_told_of_in_upstream_s_words() {
    let x = |schema: Value| json!({"type": "object", "properties": {"x": schema}});
    for (schema, value, want) in [
        (
            json!({"type": "integer"}),
            json!("a"),
            r#"spec.x: Invalid value: "string": spec.x in body must be of type integer: "string""#,
        ),
        (json!({"type": "integer"}), json!(2.0), ""),
        (json!({"type": "number"}), json!(2), ""),
        (
            json!({"type": "string"}),
            json!({}),
            r#"spec.x: Invalid value: "object": spec.x in body must be of type string: "object""#,
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            r#"spec.x: Invalid value: "boolean": spec.x in body must be of type integer,string: "boolean""#,
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            r#"spec.x: Unsupported value: "c": supported values: "a", "b""#,
        ),
        (json!({"type": "string", "maxLength": 2}), json!("abc"), "spec.x: Too long: may not be more than 2 bytes"),
        (
            json!({"type": "string", "minLength": 2}),
            json!("a"),
            r#"spec.x: Invalid value: "a": spec.x in body should be at least 2 chars long"#,
        ),
        (
            json!({"type": "string", "pattern": "^[a-z]+$"}),
            json!("A"),
            r#"spec.x: Invalid value: "A": spec.x in body should match '^[a-z]+$'"#,
        ),
        (
            json!({"type": "integer", "maximum": 5}),
            json!(6),
            "spec.x: Invalid value: 6: spec.x in body should be less than or equal to 5",
        ),
        (
            json!({"type": "integer", "maximum": 5, "exclusiveMaximum": true}),
            json!(5),
            "spec.x: Invalid value: 5: spec.x in body should be less than 5",
        ),
        (
            json!({"type": "number", "minimum": 0.5}),
            json!(0.25),
            "spec.x: Invalid value: 0.25: spec.x in body should be greater than or equal to 0.5",
        ),
        (
            json!({"type": "integer", "multipleOf": 3}),
            json!(4),
            "spec.x: Invalid value: 4: spec.x in body should be a multiple of 3",
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(3_000_000_000i64),
            r#"<nil>: Invalid value: "": Checked value must be of type integer with format int32 in spec.x"#,
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
            json!(["a", "b"]),
            "spec.x: Too many: 2: must have at most 1 item",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
            json!([]),
            "spec.x: Invalid value: 0: spec.x in body should have at least 1 items",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!([1]),
            r#"spec.x[0]: Invalid value: "integer": spec.x[0] in body must be of type string: "integer""#,
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 1}),
            json!({"a": "", "b": ""}),
            "spec.x: Too many: 2: must have at most 1 item",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            json!({"a": 1}),
            r#"spec.x.a: Invalid value: "integer": spec.x.a in body must be of type string: "integer""#,
        ),
        (
            json!({"type": "object", "required": ["y"], "properties": {"y": {"type": "string"}}}),
            json!({}),
            "spec.x.y: Required value",
        ),
        (json!({"type": "string", "format": "date-time"}), json!("2024-01-01T00:00:00Z"), ""),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("yesterday"),
            r#"spec.x: Invalid value: "yesterday": spec.x in body must be of type date-time: "yesterday""#,
        ),
        (
            json!({"type": "string", "format": "ipv4"}),
            json!("10.0.0.256"),
            r#"spec.x: Invalid value: "10.0.0.256": spec.x in body must be of type ipv4: "10.0.0.256""#,
        ),
        (json!({"type": "string", "format": "unheard-of"}), json!("anything"), ""),
        (
            json!({"type": "string", "not": {"enum": ["a"]}}),
            json!("a"),
            r#"<nil>: Invalid value: "": "spec.x" must not validate the schema (not)"#,
        ),
    ] {
        let want: Vec<&str> = Some(want).filter(|want| !want.is_empty()).into_iter().collect();
        check_value(x(schema), json!({"x": value}), None, &want);
    }
    // The reader of numbers says so again, of no field.
    check_value(
        x(json!({"type": "integer"})),
        json!({"x": 1.5}),
        None,
        &[
            r#"spec.x: Invalid value: "number": spec.x in body must be of type integer: "number""#,
            r#"<nil>: Invalid value: "": Checked value must be of type integer (default format) in spec.x"#,
        ],
    );
}

#[test]
fn of_failed_alternatives_the_best_is_told_of() {
    let port = |extra: Value| {
        let mut schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
        schema.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        schema
    };
    let one = port(json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}));
    check_value(one.clone(), json!({"a": "x"}), None, &[]);
    check_value(
        one.clone(),
        json!({"a": "x", "b": "y"}),
        None,
        &[
            r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
        ],
    );
    check_value(
        one,
        json!({}),
        None,
        &[
            r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found none valid"#,
            "spec.a: Required value",
        ],
    );
    check_value(
        port(json!({"anyOf": [{"required": ["a"]}]})),
        json!({}),
        None,
        &[r#"<nil>: Invalid value: "": "spec" must validate at least one schema (anyOf)"#, "spec.a: Required value"],
    );
    check_value(
        port(json!({"allOf": [{"required": ["a"]}]})),
        json!({}),
        None,
        &[
            "spec.a: Required value",
            r#"<nil>: Invalid value: "": "spec" must validate all the schemas (allOf). None validated"#,
        ],
    );
}

#[test]
fn what_did_not_change_is_not_held_against_an_update() {
    let schema = json!({"type": "object", "properties": {
        "x": {"type": "integer", "maximum": 5}, "y": {"type": "integer"},
        "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 1}}}},
        "a": {"type": "array", "items": {"type": "integer", "maximum": 1}}}});
    let wrong = "Invalid value: 9: spec.x in body should be less than or equal to 5";
    check_value(schema.clone(), json!({"x": 9}), None, &[&format!("spec.x: {wrong}")]);
    check_value(schema.clone(), json!({"x": 9, "y": 1}), Some(json!({"x": 9})), &[]);
    check_value(schema.clone(), json!({"x": 9}), Some(json!({"x": 8})), &[&format!("spec.x: {wrong}")]);
    let element = json!({"k": "a", "v": 7});
    check_value(schema.clone(), json!({"l": [{"k": "b"}, element]}), Some(json!({"l": [element]})), &[]);
    check_value(
        schema,
        json!({"a": [0, 7]}),
        Some(json!({"a": [7]})),
        &["spec.a[1]: Invalid value: 7: spec.a[1] in body should be less than or equal to 1"],
    );
}

#[test]
fn sets_and_maps_hold_nothing_twice() {
    let list = |list_type: Value, items: Value| {
        let mut schema = json!({"type": "array", "items": items});
        schema.as_object_mut().unwrap().extend(list_type.as_object().unwrap().clone());
        json!({"type": "object", "properties": {"l": schema}})
    };
    let set = list(json!({"x-kubernetes-list-type": "set"}), json!({"type": "string"}));
    check_value(set.clone(), json!({"l": ["a", "b", "a", "a"]}), None, &[r#"spec.l[2]: Duplicate value: "a""#]);
    check_value(set, json!({"l": ["a", "a", "c"]}), Some(json!({"l": ["a", "a"]})), &[]);
    let map = list(
        json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}),
        json!({"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}}),
    );
    check_value(map, json!({"l": [{"k": "a"}, {"k": "a"}]}), None, &[r#"spec.l[1]: Duplicate value: {"k":"a"}"#]);
}

#[test]
fn unknown_fields_go_and_defaults_come() {
    let kind = of_spec(json!({"type": "object", "properties": {
        "known": {"type": "string", "default": "d"},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"closed": {"type": "object", "properties": {"a": {"type": "string"}}}}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "integer", "default": 80}}}},
        "nullable": {"type": "string", "nullable": true, "default": "n"},
        "object": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}));
    let mut value = json!({"apiVersion": "example.com/v1", "kind": "Thing", "extra": 1,
        "metadata": {"name": "a", "namespace": "n", "odd": 1, "creationTimestamp": null},
        "spec": {"known": null, "unknown": {"deep": 1}, "open": {"any": 1, "closed": {"a": "x", "b": 1}}, "labels": {"k": "v", "n": null},
            "list": [{"q": 1}], "nullable": null,
            "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "odd": 2}, "spec": {"x": 1}}}});
    let complaints = prune::clean(&kind, &mut value).unwrap();
    let paths =
        ["metadata.odd", "extra", "spec.list[0].q", "spec.open.closed.b", "spec.unknown", "spec.object.metadata.odd"];
    assert_eq!(complaints, paths.map(|path| format!("unknown field {path:?}")));
    defaults::apply(&kind, &mut value);
    assert_eq!(
        value,
        json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a", "namespace": "n"},
            "spec": {"known": "d", "open": {"any": 1, "closed": {"a": "x"}}, "labels": {"k": "v"}, "list": [{"p": 80}], "nullable": null,
                "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"x": 1}}}})
    );
    let before = value.clone();
    defaults::apply(&kind, &mut value);
    assert_eq!(value, before);
    let mut bad = object(json!({"object": {"apiVersion": "v1", "kind": 3}}));
    assert_eq!(prune::clean(&kind, &mut bad), Err("spec.object.kind: Invalid value: 3: must be a string".into()));
    let mut bad = object(json!({"object": {"metadata": {"name": "A/b"}}}));
    prune::clean(&kind, &mut bad).unwrap();
    assert_eq!(
        texts(check::validate(&kind, &bad, None, "")),
        [
            "spec.object.apiVersion: Required value",
            "spec.object.kind: Required value",
            r#"spec.object.metadata.name: Invalid value: "A/b": may not contain '/'"#
        ]
    );
}

#[test]
fn a_status_is_checked_against_its_own_schema_and_a_scale_has_numbers() {
    let mut definition = definition(json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "phase": {"type": "string"}}}}}));
    definition["spec"]["versions"][0]["subresources"] = json!({"status": {},
        "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}});
    let kind = kind(&definition);
    assert!(kind.has_status && kind.scale.is_some() && kind.has_verb("create"));
    let object = |spec: Value, status: Value| json!({"metadata": {"name": "a", "namespace": "n"}, "spec": spec, "status": status});
    let old = object(json!({}), json!({}));
    let run = |new: Value, sub| texts(check::validate(&kind, &new, Some(&old), sub));
    assert_eq!(
        run(object(json!({}), json!({"phase": 1})), "status"),
        [r#"status.phase: Invalid value: "integer": phase in body must be of type string: "integer""#]
    );
    assert_eq!(
        run(object(json!({"replicas": -1}), json!({})), ""),
        [".spec.replicas: Invalid value: -1: should be a non-negative integer"]
    );
}

fn check_definition_of(change: impl FnOnce(&mut Value), want: &[&str]) {
    let mut new = definition(json!({"type": "object"}));
    change(&mut new);
    assert_eq!(texts(check_definition(&new, None, "")), want);
}

#[test]
fn definitions_are_checked_as_upstream_checks_them() {
    check_definition_of(|_| {}, &[]);
    check_definition_of(
        |d| d["metadata"]["name"] = "other".into(),
        &[r#"metadata.name: Invalid value: "other": must be spec.names.plural+"."+spec.group"#],
    );
    check_definition_of(
        |d| d["spec"]["scope"] = "Global".into(),
        &[r#"spec.scope: Unsupported value: "Global": supported values: "Cluster", "Namespaced""#],
    );
    check_definition_of(
        |d| d["spec"]["names"]["shortNames"] = json!(["A"]),
        &[
            r#"spec.names.shortNames[0]: Invalid value: "A": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"#,
        ],
    );
    check_definition_of(
        |d| {
            d["spec"]["versions"][0]["additionalPrinterColumns"] =
                json!([{"name": "A", "type": "float", "jsonPath": "spec.a"}])
        },
        &[
            r#"spec.additionalPrinterColumns[0].type: Invalid value: "float": must be one of boolean,date,integer,number,string"#,
            r#"spec.additionalPrinterColumns[0].JSONPath: Invalid value: "spec.a": must be a simple json path starting with ."#,
        ],
    );
    check_definition_of(
        |d| {
            d["spec"]["versions"][0]["subresources"] =
                json!({"scale": {"specReplicasPath": ".status.r", "statusReplicasPath": ".status.r"}})
        },
        &[r#"spec.subresources.scale.specReplicasPath: Invalid value: ".status.r": should be a json path under .spec"#],
    );
    check_definition_of(
        |d| {
            d["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"] = json!({"spec": {"type": "object"}});
            d["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec"}, {"jsonPath": ".spec.none"}]);
        },
        &[
            r#"spec.selectableFields[0].jsonPath: Invalid value: ".spec": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed."#,
            r#"spec.selectableFields[1].jsonPath: Invalid value: ".spec.none": is an invalid path: does not refer to a valid field"#,
        ],
    );
    check_definition_of(
        |d| d["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"clientConfig": {"url": "http://x"}, "conversionReviewVersions": ["v7"]}}),
        &[
            r#"spec.conversion.webhookClientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]"#,
            r#"spec.conversion.conversionReviewVersions: Invalid value: ["v7"]: must include at least one of v1, v1beta1"#,
        ],
    );
    check_definition_of(
        |d| {
            d["spec"]["versions"] = json!([
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": {}}}}},
                {"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}}]);
        },
        &[
            "spec.versions[0].schema.openAPIV3Schema.properties[a].type: Required value: must not be empty for specified object fields",
        ],
    );
    check_definition_of(
        |d| {
            d["spec"]["group"] = "x.k8s.io".into();
            d["metadata"]["name"] = "things.x.k8s.io".into();
        },
        &[
            r#"metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation "api-approved.kubernetes.io", see https://github.com/kubernetes/enhancements/pull/1111"#,
        ],
    );
}

#[test]
fn schemas_are_structural_and_their_keywords_agree() {
    let root = "spec.validation.openAPIV3Schema";
    for (property, want) in [
        (json!({"type": "string"}), vec![]),
        (json!({"type": "array"}), vec!["items: Required value: must be specified"]),
        (json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}), vec![]),
        (
            json!({"type": "string", "anyOf": [{"type": "string", "description": "x"}]}),
            vec![
                "anyOf[0].description: Forbidden: must be empty to be structural",
                "anyOf[0].type: Forbidden: must be empty to be structural",
            ],
        ),
        (
            json!({"type": "string", "uniqueItems": true}),
            vec![
                "uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ],
        ),
        (
            json!({"type": "text"}),
            vec![
                r#"type: Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object", "string""#,
            ],
        ),
        (
            json!({"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            vec!["additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"],
        ),
        (
            json!({"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}),
            vec![
                "items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ],
        ),
        (
            json!({"type": "string", "default": 1}),
            vec![r#"default: Invalid value: "integer":  in body must be of type string: "integer""#],
        ),
        (
            json!({"type": "object", "properties": {"b": {"type": "string"}}, "default": {"c": 1}}),
            vec![r#"default: Invalid value: {"c":1}: must not have unknown fields"#],
        ),
        (json!({"type": "string", "pattern": "("}), vec!["pattern: Invalid value"]),
        (
            json!({"type": "object", "x-kubernetes-validations": [{"rule": " "}]}),
            vec!["x-kubernetes-validations[0].rule: Required value: rule is not specified"],
        ),
    ] {
        let new = definition(json!({"type": "object", "properties": {"a": property}}));
        let found = texts(check_definition(&new, None, ""));
        assert_eq!(found.len(), want.len(), "{property} {found:?}");
        for (found, want) in found.iter().zip(want) {
            assert!(found.starts_with(&format!("{root}.properties[a].{want}")), "{found}");
        }
    }
}

#[test]
fn alternatives_speak_of_what_is_described() {
    let new = definition(json!({"type": "object", "oneOf": [{"properties": {"b": {"enum": ["x"]}}}]}));
    let root = "spec.validation.openAPIV3Schema";
    assert_eq!(
        texts(check_definition(&new, None, "")),
        [format!("{root}.properties[b]: Required value: because it is defined in {root}.oneOf[0].properties[b]")]
    );
}

#[test]
fn a_definition_changes_within_limits() {
    let old = definition(json!({"type": "object"}));
    let mut new = old.clone();
    new["spec"]["scope"] = "Cluster".into();
    new["spec"]["group"] = "other.com".into();
    assert_eq!(
        texts(check_definition(&new, Some(&old), "")),
        [
            r#"spec.scope: Invalid value: "Cluster": field is immutable"#,
            r#"spec.group: Invalid value: "other.com": field is immutable"#
        ]
    );
    let mut new = old.clone();
    new["spec"]["versions"][0]["name"] = "v2".into();
    let found = texts(check_definition(&new, Some(&old), ""));
    assert_eq!(found[0], r#"status.storedVersions: Invalid value: ["v1"]: must have the storage version v2"#);
    assert!(
        found[1].starts_with(r#"status.storedVersions[0]: Invalid value: "v1": missing from spec.versions"#),
        "{found:?}"
    );
}

#[test]
fn kinds_follow_from_a_definition() {
    let mut two = definition(json!({"type": "object"}));
    two["spec"]["versions"] = json!([
        {"name": "v1beta1", "served": true, "storage": false, "deprecated": true, "schema": {"openAPIV3Schema": {"type": "object"}}},
        {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}},
        {"name": "v0", "served": false, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}}]);
    let doc = Doc::encode(&two).unwrap();
    let kinds = kinds(&doc, 7, &[]);
    let versions: Vec<&str> = kinds.iter().map(|kind| &*kind.version).collect();
    assert_eq!(versions, ["v1", "v1beta1"]);
    assert_eq!((&*kinds[0].prefix, kinds[0].key("n", "a").as_str()), ("example.com/things/", "example.com/things/n/a"));
    let warning = |at: usize| kinds[at].custom.as_ref().and_then(|custom| custom.warning.as_deref());
    assert_eq!(warning(0), None);
    assert_eq!(warning(1), Some("example.com/v1beta1 Thing is deprecated; use example.com/v1 Thing"));
    assert!(kinds.iter().all(|kind| kind.custom.as_ref().is_some_and(|custom| &*custom.storage_version == "v1")));
    two["status"]["conditions"] = json!([]);
    assert!(super::kinds(&Doc::encode(&two).unwrap(), 0, &[]).is_empty());
}

#[test]
fn finalizers_have_names_of_their_own() {
    let with = |names: Value| json!({"metadata": {"finalizers": names}});
    assert_eq!(
        finalizer_warnings(&with(json!(["a", "b.c", "d.e/f", "orphan"])), Some(&with(json!(["a"])))),
        [
            r#"metadata.finalizers: "b.c": prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers"#
        ]
    );
}
