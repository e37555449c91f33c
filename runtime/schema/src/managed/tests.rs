//! Laws, and cases in tables: each is a row of writes and what managedFields and the object are then.
use super::{
    Element, Filter, Set, Tracker, Versions,
    entries::Entries,
    fields::{self, parse as parse_fields},
};
use crate::{Catalog, Kind, Status, defaults, prune};
use crate::{Value, json};
use std::sync::Arc;

/// One version only.
struct NoOther;

impl Versions for NoOther {
    fn view(&self, _: &Value, _: &Kind, _: &str) -> Result<Option<(Arc<Kind>, Value)>, Status> {
        Ok(None)
    }
}

struct Object {
    kind: Arc<Kind>,
    live: Value,
    clock: u32,
}

impl Object {
    fn new(group: &str, kind: &str) -> Object {
        let catalog = Catalog::builtin();
        let kind = catalog.by_kind(group, "v1", kind).expect("it is served").clone();
        Object { kind, live: Value::Null, clock: 0 }
    }

    fn tracker<'t>(&'t self, manager: &'t str, subresource: &'t str, now: &'t str) -> Tracker<'t> {
        let filter = Filter::of(&self.kind, subresource);
        Tracker { kind: &self.kind, manager, subresource, filter, now, versions: &NoOther }
    }

    fn now(&mut self) -> String {
        self.clock += 1;
        format!("2026-01-01T00:00:{:02}Z", self.clock % 60)
    }

    fn store(&mut self, mut new: Value) {
        prune::clean(&self.kind, &mut new).expect("it is clean");
        defaults::apply(&self.kind, &mut new);
        new["metadata"]["uid"] = "u".into();
        new["apiVersion"] = self.kind.api_version().into();
        new["kind"] = self.kind.kind.to_string().into();
        self.live = new;
    }

    fn update(&mut self, manager: &str, sub: &str, mut new: Value) {
        let now = self.now();
        prune::clean(&self.kind, &mut new).expect("it is clean");
        defaults::apply(&self.kind, &mut new);
        self.tracker(manager, sub, &now).update(&self.live, &mut new);
        self.store(new);
    }

    fn apply(&mut self, manager: &str, config: Value, force: bool) -> Result<(), Status> {
        let now = self.now();
        let new = self.tracker(manager, "", &now).apply(&self.live, &config, force)?;
        self.store(new);
        Ok(())
    }

    /// "manager operation fields", without times.
    fn owners(&self) -> Vec<String> {
        let entries = self.live["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let text = |entry: &Value| {
            let set = parse_fields(&entry["fieldsV1"]).expect("it reads");
            let words =
                [&entry["manager"], &entry["operation"], &entry["subresource"]].map(|w| w.as_str().unwrap_or(""));
            let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
            format!("{} {}", words.join(" "), serde_json::to_string(&set).expect("it prints"))
        };
        entries.iter().map(text).collect()
    }
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data})
}

fn paths(set: &Set) -> Vec<String> {
    let mut out = Vec::new();
    set.each(&mut |path| out.push(path.iter().map(Element::to_string).collect()));
    out
}

#[test]
fn fields_v1_reads_and_prints_as_upstream_orders_it() {
    let text = r#"{"f:metadata":{"f:labels":{".":{},"f:a":{}}},"f:spec":{"f:ports":{".":{},"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{}},"k:{\"port\":443,\"protocol\":\"TCP\"}":{}},"f:set":{"v:\"a\"":{},"v:\"b\\u0026\"":{},"v:true":{}},"f:z":{"i:2":{},"i:10":{}}}}"#;
    let value: Value = serde_json::from_str(text).unwrap();
    let set = parse_fields(&value).unwrap();
    assert_eq!(serde_json::to_string(&set).unwrap(), text);
    assert_eq!(fields::to_value(&set), value);
    let object = json!({"metadata": {"managedFields": [{"fieldsV1": value}]}});
    assert_eq!(
        serde_json::to_string(&super::Ordered(&object)).unwrap(),
        format!(r#"{{"metadata":{{"managedFields":[{{"fieldsV1":{text}}}]}}}}"#)
    );
    assert_eq!(
        paths(&set)[2..6],
        [
            ".spec.ports",
            ".spec.ports[port=80,protocol=\"TCP\"]",
            ".spec.ports[port=443,protocol=\"TCP\"]",
            ".spec.ports[port=80,protocol=\"TCP\"].port"
        ]
    );
    for bad in [json!({"x": {}}), json!({"xy": {}}), json!({"k:1": {}}), json!({"v:{": {}}), json!({"i:a": {}})] {
        assert!(parse_fields(&bad).is_err(), "{bad}");
    }
    // What a later version may know.
    assert_eq!(parse_fields(&json!({"q:x": {}})), Ok(Set::default()));
}

/// Sets of few names, from a seed.
fn random_set(state: &mut u32, depth: u32) -> Value {
    let mut next = |bound: u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*state >> 16) % bound
    };
    let count = next(4);
    let names: Vec<(u32, u32)> = (0..count).map(|_| (next(4), next(3))).collect();
    let mut map = crate::Map::new();
    for (name, kind) in names {
        let key = match kind {
            0 => format!("f:{name}"),
            1 => format!("k:{{\"n\":{name}}}"),
            _ => format!("v:{name}"),
        };
        let below = if depth == 0 { json!({}) } else { random_set(state, depth - 1) };
        map.insert(key.into(), below);
    }
    if !map.is_empty() && state.is_multiple_of(3) {
        map.insert(".".into(), json!({}));
    }
    Value::Object(map)
}

#[test]
fn sets_obey_their_laws() {
    let mut state = 11;
    for _ in 0..2000 {
        let mut set = || parse_fields(&random_set(&mut state, 3)).unwrap();
        let (a, b, c) = (set(), set(), set());
        assert_eq!(a.union(&b), b.union(&a));
        assert_eq!(a.union(&b).union(&c), a.union(&b.union(&c)));
        assert_eq!(a.intersection(&b), b.intersection(&a));
        assert_eq!(a.union(&a), a);
        assert_eq!(a.difference(&a), Set::default());
        assert_eq!(a.difference(&b).union(&a.intersection(&b)), a);
        assert!(a.difference(&b).intersection(&b).is_empty());
        assert!(a.recursive_difference(&b).is_within(&a.difference(&b)));
        assert!(a.intersection(&b).is_within(&a) && a.is_within(&a.union(&b)));
        let text = serde_json::to_string(&a).unwrap();
        assert_eq!(parse_fields(&serde_json::from_str(&text).unwrap()).unwrap(), a);
        let mut again = Set::default();
        a.each(&mut |path| {
            assert!(a.contains(path));
            again.insert(path);
        });
        assert_eq!(again, a);
    }
}

#[test]
fn a_create_owns_what_it_sets_but_nothing_the_server_fills_in_later() {
    let mut object = Object::new("apps", "Deployment");
    object.update(
        "kubectl-create",
        "",
        json!({"metadata": {"name": "d", "namespace": "n", "labels": {"app": "d"}}, "spec": {
            "selector": {"matchLabels": {"app": "d"}}, "template": {"metadata": {"labels": {"app": "d"}},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}}}}),
    );
    assert_eq!(
        object.owners(),
        [concat!(
            r#"kubectl-create Update {"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:progressDeadlineSeconds":{},"f:replicas":{},"#,
            r#""f:revisionHistoryLimit":{},"f:selector":{},"f:strategy":{"f:rollingUpdate":{".":{},"f:maxSurge":{},"f:maxUnavailable":{}},"f:type":{}},"#,
            r#""f:template":{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"#,
            r#""f:imagePullPolicy":{},"f:name":{},"f:ports":{".":{},"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"#,
            r#""f:protocol":{}}},"f:resources":{},"f:terminationMessagePath":{},"f:terminationMessagePolicy":{}}},"f:dnsPolicy":{},"#,
            r#""f:restartPolicy":{},"f:schedulerName":{},"f:securityContext":{},"f:terminationGracePeriodSeconds":{}}}}}"#
        )]
    );
    let mut status = object.live.clone();
    status["status"] = json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    status["spec"]["replicas"] = 7.into();
    object.update("kube-controller-manager", "status", status);
    assert_eq!(
        object.owners()[1],
        r#"kube-controller-manager Update status {"f:status":{"f:conditions":{".":{},"k:{\"type\":\"Available\"}":{".":{},"f:lastTransitionTime":{},"f:lastUpdateTime":{},"f:status":{},"f:type":{}}},"f:replicas":{}}}"#
    );
}

#[test]
fn appliers_conflict_share_hand_over_and_remove() {
    let mut object = Object::new("", "ConfigMap");
    object.apply("a", config_map(json!({"x": "1", "y": "1"})), false).unwrap();
    assert_eq!(object.owners(), [r#"a Apply {"f:data":{"f:x":{},"f:y":{}}}"#]);
    // The same value is shared.
    object.apply("b", config_map(json!({"y": "1", "z": "1"})), false).unwrap();
    let error = object.apply("b", config_map(json!({"x": "2", "y": "2", "z": "1"})), false).unwrap_err();
    assert_eq!((error.code, error.reason), (409, "Conflict"));
    assert_eq!(error.message, "Apply failed with 2 conflicts: conflicts with \"a\":\n- .data.x\n- .data.y");
    assert_eq!(error.causes[0].reason, "FieldManagerConflict");
    assert_eq!(error.causes[0].message, "conflict with \"a\"");
    assert_eq!(error.causes[0].field, ".data.x");
    object.apply("b", config_map(json!({"x": "2", "y": "1"})), true).unwrap();
    // z was b's alone and is gone; x is b's now; y is both's.
    assert_eq!(object.live["data"], json!({"x": "2", "y": "1"}));
    let mut owners = object.owners();
    owners.sort();
    assert_eq!(owners, [r#"a Apply {"f:data":{"f:y":{}}}"#, r#"b Apply {"f:data":{"f:x":{},"f:y":{}}}"#]);
    object.apply("a", config_map(json!({})), false).unwrap();
    assert_eq!(object.live["data"], json!({"x": "2", "y": "1"}));
    assert!(!object.owners().iter().any(|owner| owner.starts_with("a Apply {\"f:data\":{\"f:y")));
}

#[test]
fn an_update_takes_over_and_is_told_in_the_next_conflict() {
    let mut object = Object::new("", "ConfigMap");
    object.apply("a", config_map(json!({"x": "1"})), false).unwrap();
    let mut new = object.live.clone();
    new["data"]["x"] = "2".into();
    object.update("kubectl-edit", "", new);
    assert_eq!(object.owners(), [r#"kubectl-edit Update {"f:data":{"f:x":{}}}"#]);
    let error = object.apply("a", config_map(json!({"x": "1"})), false).unwrap_err();
    assert_eq!(error.message, "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using v1: .data.x");
    assert_eq!(error.causes[0].message, "conflict with \"kubectl-edit\" using v1");
}

#[test]
fn who_applies_the_same_twice_changes_nothing() {
    let mut object = Object::new("", "ConfigMap");
    object.update("u", "", config_map(json!({"x": "1"})));
    object.apply("a", config_map(json!({"x": "1", "y": "1"})), false).unwrap();
    let before = object.live.clone();
    object.apply("a", config_map(json!({"x": "1", "y": "1"})), false).unwrap();
    assert_eq!(object.live, before);
}

#[test]
fn lists_merge_by_key_and_owned_items_go() {
    let pod = |containers: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers}});
    let mut object = Object::new("", "Pod");
    object.apply("a", pod(json!([{"name": "x", "image": "1"}, {"name": "y", "image": "1"}])), false).unwrap();
    object.apply("b", pod(json!([{"name": "z", "image": "1"}, {"name": "x", "env": [{"name": "E"}]}])), false).unwrap();
    let names = |object: &Object| -> Vec<String> {
        let list = object.live["spec"]["containers"].as_array().cloned().unwrap_or_default();
        list.iter().map(|c| c["name"].as_str().unwrap_or("").to_owned()).collect()
    };
    assert_eq!(names(&object), ["z", "x", "y"]);
    // x stays for b, y goes.
    object.apply("a", pod(json!([])), false).unwrap();
    assert_eq!(names(&object), ["z", "x"]);
    let twice = pod(json!([{"name": "x"}, {"name": "x"}]));
    assert_eq!(
        object.apply("a", twice, false).unwrap_err().message,
        "failed to create typed patch object (/p; /v1, Kind=Pod): .spec.containers: duplicate entries for key [name=\"x\"]"
    );
}

#[test]
fn what_is_no_such_object_is_refused() {
    let mut object = Object::new("apps", "Deployment");
    let mut check = |config: Value, code: u16, message: &str| {
        let error = object.apply("a", config, false).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (code, message));
    };
    check(json!({"apiVersion": "v1", "kind": "Pod"}), 400, "invalid object type: /v1, Kind=Pod");
    check(Value::Null, 400, "invalid object type: /, Kind=");
    let head = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}});
    let with = |path: &str, value: Value| {
        let mut config = head.clone();
        config[path] = value;
        config
    };
    let mut managed = head.clone();
    managed["metadata"]["managedFields"] = json!([]);
    check(managed, 400, "metadata.managedFields must be nil");
    let prefix = "failed to create typed patch object (n/d; apps/v1, Kind=Deployment): ";
    check(with("spec", json!({"foo": 1})), 500, &format!("{prefix}.spec.foo: field not declared in schema"));
    check(
        with("spec", json!({"replicas": "1"})),
        500,
        &format!("{prefix}.spec.replicas: expected numeric (int or float), got string"),
    );
    check(
        with("spec", json!({"paused": 1, "template": {"spec": {"hostname": 2}}})),
        500,
        &format!(
            "{prefix}errors:\n  .spec.paused: expected boolean, got &{{1}}\n  .spec.template.spec.hostname: expected string, got &value.valueUnstructured{{Value:2}}"
        ),
    );
    check(with("spec", json!([])), 500, &format!("{prefix}.spec: expected map, got &{{[]}}"));
}

#[test]
fn updaters_are_capped() {
    let mut object = Object::new("", "ConfigMap");
    for at in 0..14 {
        let mut new = if object.live.is_null() { config_map(json!({})) } else { object.live.clone() };
        new["data"][format!("k{at}")] = "v".into();
        object.update(&format!("m{at}"), "", new);
    }
    let entries = Entries::decode(object.live["metadata"].get("managedFields")).unwrap();
    assert_eq!(entries.0.len(), 10);
    let first = object.owners()[0].clone();
    assert_eq!(
        first,
        r#"ancient-changes Update {"f:data":{".":{},"f:k0":{},"f:k1":{},"f:k2":{},"f:k3":{},"f:k4":{}}}"#
    );
}

#[test]
fn clients_may_reset_and_write_owners() {
    let mut object = Object::new("", "ConfigMap");
    object.update("a", "", config_map(json!({"x": "1"})));
    // Who does not know of managedFields takes none away.
    object.update("b", "", config_map(json!({"x": "1"})));
    assert_eq!(object.owners().len(), 1);
    let mut foreign = object.live.clone();
    foreign["metadata"]["managedFields"][0]["operation"] = "Jump".into();
    object.update("b", "", foreign);
    assert_eq!(object.owners(), [r#"a Update {"f:data":{".":{},"f:x":{}}}"#]);
    let mut renamed = object.live.clone();
    renamed["metadata"]["managedFields"][0]["manager"] = "c".into();
    object.update("b", "", renamed);
    assert_eq!(object.owners(), [r#"c Update {"f:data":{".":{},"f:x":{}}}"#]);
    let mut reset = object.live.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    object.update("b", "", reset);
    assert!(object.owners().is_empty());
    // Then nobody owns until somebody applies.
    object.update("b", "", config_map(json!({"x": "2"})));
    assert!(object.owners().is_empty());
    object.apply("d", config_map(json!({"y": "1"})), false).unwrap();
    assert_eq!(
        object.owners(),
        [r#"d Apply {"f:data":{"f:y":{}}}"#, r#"before-first-apply Update {"f:data":{".":{},"f:x":{}}}"#]
    );
}

#[test]
fn disjoint_appliers_commute() {
    let mut state = 5u32;
    let mut pick = |bound: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % bound
    };
    for _ in 0..200 {
        let mut configs = [crate::Map::new(), crate::Map::new(), crate::Map::new()];
        for key in 0..6 {
            if let Some(config) = configs.get_mut(pick(4) as usize) {
                config.insert(format!("k{key}").into(), pick(3).to_string().into());
            }
        }
        let run = |order: &[usize]| {
            let mut object = Object::new("", "ConfigMap");
            for at in order {
                let mut config = config_map(configs[*at].clone().into());
                if configs[*at].is_empty() {
                    // An empty map is something to own.
                    config = json!({"apiVersion": "v1", "kind": "ConfigMap"});
                }
                object.apply(&format!("m{at}"), config, false).unwrap();
            }
            let mut owners = object.owners();
            owners.sort();
            (object.live["data"].clone(), owners)
        };
        assert_eq!(run(&[0, 1, 2]), run(&[2, 0, 1]));
    }
}
