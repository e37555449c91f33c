//! Custom resources as people use them, on an API server alone: a definition is made and is served, objects are checked,
//! completed and shown by it, versions and subresources do what they say, and all goes when the definition goes.
use mote_tests::{
    Kubectl, Server, eventually,
    kubectl::Output,
    webhook::{Call, Reply, Webhook},
};
use serde_json::{Value, json};
use std::sync::OnceLock;

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::shared(""))
}

/// A definition in a group of its own, so that tests on one server do not meet.
struct Definition {
    group: String,
    plural: &'static str,
    kind: &'static str,
    versions: Value,
    scope: &'static str,
}

impl Definition {
    fn new(test: &str, schema: Value) -> Definition {
        let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
        let group = format!("{test}.example.com");
        Definition { group, plural: "things", kind: "Thing", versions: json!([version]), scope: "Namespaced" }
    }
    /// Adds to its only version.
    fn with(mut self, field: &str, value: Value) -> Definition {
        self.versions[0][field] = value;
        self
    }
    fn name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }
    fn manifest(&self) -> Value {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": self.name()},
            "spec": {"group": self.group, "scope": self.scope, "versions": self.versions,
                "names": {"plural": self.plural, "kind": self.kind, "shortNames": [format!("x{}", self.group.split('.').next().unwrap_or(""))],
                    "categories": ["mine"]}}})
    }
    #[track_caller]
    fn establish(&self, kubectl: &Kubectl) {
        kubectl.apply(&self.manifest().to_string());
        kubectl.ok(&format!("wait --for=condition=Established crd/{} --timeout=10s", self.name()));
    }
    fn object(&self, name: &str, spec: Value) -> Value {
        json!({"apiVersion": format!("{}/v1", self.group), "kind": self.kind, "metadata": {"name": name}, "spec": spec})
    }
}

/// An object schema with a `spec` of these properties.
fn spec(properties: Value) -> Value {
    json!({"type": "object", "description": "A thing.", "properties": {
        "spec": {"type": "object", "description": "What it is.", "properties": properties}}})
}

#[track_caller]
fn create(kubectl: &Kubectl, object: &Value) -> Output {
    kubectl.with_input(&["create", "-f", "-"], Some(&object.to_string()))
}

#[track_caller]
fn refused(output: &Output, why: &str) {
    assert!(!output.success && output.stderr.contains(why), "{output}\nwanted: {why}");
}

#[test]
fn a_definition_is_served_explained_and_discovered() {
    let kubectl = server().kubectl.namespace("custom");
    let definition = Definition::new("served", spec(json!({"size": {"type": "integer", "description": "How large."}})))
        .with("subresources", json!({"status": {}}));
    definition.establish(&kubectl);
    // Nothing in between: what is established answers.
    assert_eq!(kubectl.ok("get things.served.example.com -o name"), "");
    let status = kubectl.field("crd/things.served.example.com", ".status.acceptedNames").unwrap();
    assert!(status.contains("\"listKind\":\"ThingList\"") && status.contains("\"singular\":\"thing\""), "{status}");
    let resources = kubectl.ok("api-resources --api-group=served.example.com --no-headers");
    assert!(
        resources.contains("things") && resources.contains("xserved") && resources.contains("Thing"),
        "{resources}"
    );
    let explained = kubectl.ok("explain things.served.example.com.spec");
    assert!(explained.contains("size") && explained.contains("How large."), "{explained}");
    assert!(kubectl.apply(&definition.object("a", json!({"size": 1})).to_string()).contains("created"));
    assert!(kubectl.apply(&definition.object("a", json!({"size": 1})).to_string()).contains("unchanged"));
    assert!(kubectl.apply(&definition.object("a", json!({"size": 2})).to_string()).contains("configured"));
    assert!(kubectl.ok("get mine -o name").contains("thing.served.example.com/a"));
    let client = server().client();
    let found = client.get("/apis/served.example.com/v1").json();
    let verbs = json!(["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]);
    assert_eq!((&found["resources"][0]["name"], &found["resources"][0]["verbs"]), (&json!("things"), &verbs));
    assert_eq!(found["resources"][1]["name"], "things/status");
    let published = client.get("/openapi/v3/apis/served.example.com/v1").json();
    let schema = &published["components"]["schemas"]["com.example.served.v1.Thing"];
    assert_eq!(schema["properties"]["spec"]["properties"]["size"]["description"], "How large.");
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Thing");
}

#[test]
fn objects_are_checked_completed_and_pruned() {
    let kubectl = server().kubectl.namespace("custom");
    let properties = json!({
        "size": {"type": "integer", "minimum": 1, "default": 3},
        "mode": {"type": "string", "enum": ["fast", "slow"]},
        "port": {"x-kubernetes-int-or-string": true},
        "steps": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "run": {"type": "string"}}}}});
    let definition = Definition::new("checked", spec(properties));
    definition.establish(&kubectl);
    let object = |name: &str, spec: Value| definition.object(name, spec);
    refused(
        &create(&kubectl, &object("a", json!({"size": "big"}))),
        "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
    );
    refused(
        &create(&kubectl, &object("a", json!({"mode": "x"}))),
        "spec.mode: Unsupported value: \"x\": supported values: \"fast\", \"slow\"",
    );
    refused(
        &create(&kubectl, &object("a", json!({"steps": [{"name": "x"}, {"name": "x"}]}))),
        "spec.steps[1]: Duplicate value: {\"name\":\"x\"}",
    );
    refused(
        &create(&kubectl, &object("a", json!({"colour": "red"}))),
        "strict decoding error: unknown field \"spec.colour\"",
    );
    let loose = kubectl.with_input(
        &["create", "--validate=false", "-f", "-"],
        Some(&object("a", json!({"colour": "red", "port": "http"})).to_string()),
    );
    assert!(loose.success, "{loose}");
    let made: Value = serde_json::from_str(&kubectl.field("things.checked.example.com/a", ".spec").unwrap()).unwrap();
    assert_eq!(made, json!({"size": 3, "port": "http"}));
    let warned = kubectl.with_input(
        &["patch", "things.checked.example.com/a", "--type=merge", "-p", r#"{"spec":{"colour":"red"}}"#],
        None,
    );
    assert!(warned.success && warned.stderr.contains("Warning: unknown field \"spec.colour\""), "{warned}");
}

#[test]
fn what_was_wrong_before_a_schema_was_tightened_may_stay() {
    let kubectl = server().kubectl.namespace("custom");
    let mut definition =
        Definition::new("ratchet", spec(json!({"size": {"type": "integer"}, "note": {"type": "string"}})));
    definition.establish(&kubectl);
    assert!(create(&kubectl, &definition.object("a", json!({"size": 9}))).success);
    definition.versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"]["maximum"] =
        json!(5);
    definition.establish(&kubectl);
    let patch = |change: &str| {
        kubectl.with_input(&["patch", "things.ratchet.example.com/a", "--type=merge", "-p", change], None)
    };
    assert!(patch(r#"{"spec":{"note":"x"}}"#).success);
    refused(&patch(r#"{"spec":{"size":8}}"#), "should be less than or equal to 5");
    assert!(patch(r#"{"spec":{"size":4}}"#).success);
}

#[test]
fn rules_are_compiled_with_the_definition_and_asked_about_objects() {
    let kubectl = server().kubectl.namespace("custom");
    let with_rules = |test: &str, rules: Value| {
        let mut schema =
            spec(json!({"least": {"type": "integer"}, "most": {"type": "integer"}, "name": {"type": "string"}}));
        schema["properties"]["spec"]["x-kubernetes-validations"] = rules;
        Definition::new(test, schema)
    };
    let refuse = |rules: Value, why: &str| {
        let output = create(&kubectl, &with_rules("badrules", rules).manifest());
        refused(&output, why);
    };
    let at = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]";
    refuse(json!([{"rule": "self.nothing > 1"}]), &format!("{at}.rule: Invalid value"));
    refuse(json!([{"rule": "self.nothing > 1"}]), "undefined field 'nothing'");
    refuse(json!([{"rule": "self.least"}]), "cel expression must evaluate to a bool");
    refuse(
        json!([{"rule": "self.least < 3", "optionalOldSelf": true}]),
        &format!("{at}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"),
    );
    let rules = json!([
        {"rule": "!has(self.least) || !has(self.most) || self.least <= self.most", "message": "least is more than most"},
        {"rule": "self.name == oldSelf.name", "message": "name cannot change", "fieldPath": ".name", "reason": "FieldValueForbidden"},
        {"rule": "self.name != 'bad'", "messageExpression": "'no ' + self.name"}]);
    let definition = with_rules("rules", rules);
    definition.establish(&kubectl);
    let object = |spec: Value| definition.object("a", spec);
    refused(
        &create(&kubectl, &object(json!({"name": "x", "least": 3, "most": 2}))),
        "spec: Invalid value: least is more than most",
    );
    refused(&create(&kubectl, &object(json!({"name": "bad"}))), "spec: Invalid value: no bad");
    assert!(create(&kubectl, &object(json!({"name": "x"}))).success);
    let change = kubectl.with_input(&["replace", "-f", "-"], Some(&object(json!({"name": "y"})).to_string()));
    refused(&change, "spec.name: Forbidden: name cannot change");
}

#[test]
fn status_scale_columns_and_selection() {
    let kubectl = server().kubectl.namespace("custom");
    let mut schema = spec(json!({"replicas": {"type": "integer"}, "colour": {"type": "string"}}));
    schema["properties"]["status"] =
        json!({"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}});
    let definition = Definition::new("parts", schema)
        .with(
            "subresources",
            json!({"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}}),
        )
        .with("selectableFields", json!([{"jsonPath": ".spec.colour"}]))
        .with(
            "additionalPrinterColumns",
            json!([
            {"name": "Colour", "type": "string", "jsonPath": ".spec.colour"},
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]),
        );
    definition.establish(&kubectl);
    for (name, colour) in [("a", "red"), ("b", "blue")] {
        let mut object = definition.object(name, json!({"replicas": 1, "colour": colour}));
        object["status"] = json!({"replicas": 7});
        assert!(create(&kubectl, &object).success);
    }
    let thing = "things.parts.example.com/a";
    assert_eq!(kubectl.field(thing, ".status").unwrap_or_default(), "", "a create sets no status");
    kubectl.ok_args(&[
        "patch",
        thing,
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"replicas":1,"selector":"app=a"},"spec":{"replicas":9}}"#,
    ]);
    assert_eq!(kubectl.field(thing, ".spec.replicas").unwrap(), "1");
    assert_eq!(kubectl.field(thing, ".metadata.generation").unwrap(), "1");
    kubectl.ok(&format!("scale {thing} --replicas=4"));
    assert_eq!(kubectl.field(thing, ".metadata.generation").unwrap(), "2");
    let path = format!("/apis/parts.example.com/v1/namespaces/{}/things/a/scale", kubectl.name());
    let scale = server().client().get(&path).json();
    assert_eq!(
        (&scale["kind"], &scale["spec"], &scale["status"]),
        (&json!("Scale"), &json!({"replicas": 4}), &json!({"replicas": 1, "selector": "app=a"}))
    );
    let table = kubectl.ok("get things.parts.example.com");
    let head: Vec<&str> = table.lines().next().unwrap_or("").split_whitespace().collect();
    assert_eq!(head, ["NAME", "COLOUR", "AGE"]);
    let wide = kubectl.ok("get things.parts.example.com a -o wide --no-headers");
    assert!(wide.starts_with("a") && wide.contains("red") && wide.contains('4'), "{wide}");
    assert_eq!(
        kubectl.ok("get things.parts.example.com --field-selector spec.colour=blue -o name"),
        "thing.parts.example.com/b\n"
    );
    refused(
        &kubectl.run("get things.parts.example.com --field-selector spec.replicas=1"),
        "field label not supported: spec.replicas",
    );
}

#[test]
fn versions_share_their_objects() {
    let kubectl = server().kubectl.namespace("custom");
    let mut definition =
        Definition::new("versions", spec(json!({"old": {"type": "string"}, "both": {"type": "string"}})));
    definition.establish(&kubectl);
    assert!(create(&kubectl, &definition.object("a", json!({"old": "1", "both": "2"}))).success);
    let v1 = &mut definition.versions[0];
    v1["storage"] = json!(false);
    v1["deprecated"] = json!(true);
    let v2 = json!({"name": "v2", "served": true, "storage": true, "schema": {"openAPIV3Schema":
        spec(json!({"both": {"type": "string"}, "new": {"type": "string", "default": "n"}}))}});
    definition.versions.as_array_mut().unwrap().push(v2);
    definition.establish(&kubectl);
    let stored = kubectl.field("crd/things.versions.example.com", ".status.storedVersions").unwrap();
    assert_eq!(stored, r#"["v1","v2"]"#);
    let get = |version: &str| {
        let path = format!("/apis/versions.example.com/{version}/namespaces/{}/things/a", kubectl.name());
        server().client().get(&path)
    };
    let (one, two) = (get("v1"), get("v2"));
    assert_eq!(one.json()["apiVersion"], "versions.example.com/v1");
    assert_eq!(one.json()["spec"], json!({"old": "1", "both": "2"}));
    assert_eq!(two.json()["spec"], json!({"both": "2", "new": "n"}));
    let warned = kubectl.run("get things.v1.versions.example.com");
    assert!(
        warned.stderr.contains("versions.example.com/v1 Thing is deprecated; use versions.example.com/v2 Thing"),
        "{warned}"
    );
    definition.versions.as_array_mut().unwrap().remove(0);
    let output = kubectl.with_input(&["apply", "-f", "-"], Some(&definition.manifest().to_string()));
    refused(&output, "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions");
}

/// v1 has `spec.host` and `spec.port`, v2 both in `spec.address`.
fn convert(call: &Call) -> Reply {
    let request = call.request();
    let version = request["desiredAPIVersion"].as_str().unwrap_or("").to_owned();
    let objects = request["objects"].as_array().into_iter().flatten().map(|object| {
        let mut object = object.clone();
        object["apiVersion"] = version.as_str().into();
        let spec = object["spec"].clone();
        object["spec"] = match spec["address"].as_str().and_then(|address| address.split_once(':')) {
            Some((host, port)) => json!({"host": host, "port": port}),
            None => json!({"address": format!("{}:{}", spec["host"].as_str().unwrap_or(""), spec["port"].as_str().unwrap_or(""))}),
        };
        object["metadata"]["annotations"] = json!({"converted": version});
        object
    });
    let broken = request["objects"].to_string().contains("broken");
    let result =
        if broken { json!({"status": "Failure", "message": "cannot do that"}) } else { json!({"status": "Success"}) };
    Reply::Json(
        200,
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
        "response": {"uid": request["uid"], "result": result, "convertedObjects": objects.collect::<Vec<_>>()}}),
    )
}

#[test]
fn a_webhook_makes_one_version_from_another() {
    let kubectl = server().kubectl.namespace("custom");
    let webhook = Webhook::start(&[], convert);
    let text = || json!({"type": "string"});
    let mut definition = Definition::new("webhook", spec(json!({"host": text(), "port": text()})));
    let v2 = json!({"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": spec(json!({"address": text()}))}});
    definition.versions.as_array_mut().unwrap().push(v2);
    let mut manifest = definition.manifest();
    let conversion = json!({"clientConfig": webhook.client_config("/convert"), "conversionReviewVersions": ["v1"]});
    manifest["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": conversion});
    kubectl.apply(&manifest.to_string());
    kubectl.ok("wait --for=condition=Established crd/things.webhook.example.com --timeout=10s");
    assert!(create(&kubectl, &definition.object("a", json!({"host": "h", "port": "80"}))).success);
    assert_eq!(webhook.calls().len(), 0, "what is stored as it is asked for needs no webhook");
    let client = server().client();
    let path = |version: &str, rest: &str| {
        format!("/apis/webhook.example.com/{version}/namespaces/{}/things{rest}", kubectl.name())
    };
    let two = client.get(&path("v2", "/a")).json();
    assert_eq!((&two["apiVersion"], &two["spec"]), (&json!("webhook.example.com/v2"), &json!({"address": "h:80"})));
    assert_eq!(two["metadata"]["annotations"]["converted"], "webhook.example.com/v2");
    // Written as one, stored and shown as the other.
    let mut three = definition.object("b", json!({"address": "x:1"}));
    three["apiVersion"] = "webhook.example.com/v2".into();
    let made = create(&kubectl, &three);
    assert!(made.success, "{made}");
    assert_eq!(client.get(&path("v1", "/b")).json()["spec"], json!({"host": "x", "port": "1"}));
    let list = client.get(&path("v2", "")).json();
    let specs: Vec<&Value> = list["items"].as_array().unwrap().iter().map(|item| &item["spec"]["address"]).collect();
    assert_eq!(specs, [&json!("h:80"), &json!("x:1")]);
    let watched = client.get(&path("v2", "?watch=true&timeoutSeconds=1")).text();
    assert!(watched.contains(r#""address":"h:80""#), "{watched}");
    let patched = kubectl.with_input(
        &["patch", "things.v2.webhook.example.com/a", "--type=merge", "-p", r#"{"spec":{"address":"h:81"}}"#],
        None,
    );
    assert!(patched.success, "{patched}");
    assert_eq!(client.get(&path("v1", "/a")).json()["spec"], json!({"host": "h", "port": "81"}));
    assert!(create(&kubectl, &definition.object("stuck", json!({"host": "broken"}))).success);
    // The storage version changes; what was stored before is converted when it is read.
    manifest["spec"]["versions"][0]["storage"] = json!(false);
    manifest["spec"]["versions"][1]["storage"] = json!(true);
    kubectl.apply(&manifest.to_string());
    assert_eq!(client.get(&path("v1", "/a")).json()["spec"], json!({"host": "h", "port": "81"}));
    assert_eq!(client.get(&path("v2", "/a")).json()["spec"], json!({"address": "h:81"}));
    kubectl.ok("annotate things.v1.webhook.example.com/a note=x");
    let calls = webhook.calls().len();
    assert_eq!(client.get(&path("v2", "/a")).json()["spec"], json!({"address": "h:81"}));
    assert_eq!(webhook.calls().len(), calls, "the write stored the new version");
    let broken = create(&kubectl, &definition.object("c", json!({"host": "broken"})));
    refused(&broken, "conversion webhook for webhook.example.com/v1, Kind=Thing failed: cannot do that");
    // What is there and cannot be read is not taken for absent.
    let stuck =
        json!({"apiVersion": "webhook.example.com/v2", "kind": "Thing", "metadata": {"name": "stuck"}}).to_string();
    for (method, form) in [
        ("PATCH", "application/merge-patch+json"),
        ("PATCH", "application/apply-patch+yaml"),
        ("PUT", "application/json"),
    ] {
        let headers = [("Content-Type", form)];
        let answer = client.request(method, &path("v2", "/stuck?fieldManager=f"), &headers, stuck.as_bytes());
        assert!(answer.text().contains("Kind=Thing failed: cannot do that"), "{method} {form}: {}", answer.text());
    }
    kubectl.ok("delete things.v1.webhook.example.com a b");
}

#[test]
fn names_belong_to_who_came_first() {
    let kubectl = server().kubectl.namespace("custom");
    let first = Definition::new("names", spec(json!({})));
    first.establish(&kubectl);
    let mut second = Definition::new("names", spec(json!({})));
    second.plural = "stuff";
    kubectl.apply(&second.manifest().to_string());
    let condition = |name: &str, field: &str| {
        let path = format!(".status.conditions[?(@.type==\"{name}\")].{field}");
        kubectl.field("crd/stuff.names.example.com", &path)
    };
    eventually("the conflict is told", 5, || condition("NamesAccepted", "status").map(drop));
    assert_eq!(condition("NamesAccepted", "reason").unwrap(), "ListKindConflict");
    assert_eq!(condition("Established", "reason").unwrap(), "NotAccepted");
    kubectl.ok("delete crd things.names.example.com");
    kubectl.ok("wait --for=condition=Established crd/stuff.names.example.com --timeout=10s");
}

#[test]
fn instances_go_before_their_definition() {
    let kubectl = server().kubectl.namespace("custom");
    let definition = Definition::new("gone", spec(json!({})));
    definition.establish(&kubectl);
    let mut held = definition.object("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/mine"]);
    assert!(create(&kubectl, &held).success);
    assert!(create(&kubectl, &definition.object("free", json!({}))).success);
    let owned = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owned", "ownerReferences": [
        {"apiVersion": "gone.example.com/v1", "kind": "Thing", "name": "free",
            "uid": kubectl.field("things.gone.example.com/free", ".metadata.uid").unwrap()}]}});
    assert!(create(&kubectl, &owned).success);
    kubectl.ok("delete crd things.gone.example.com --wait=false");
    eventually("all but what is held is deleted", 10, || {
        let left = kubectl.run("get things.gone.example.com -o name").stdout;
        if left.trim() == "thing.gone.example.com/held" { Ok(()) } else { Err(left) }
    });
    let terminating = ".status.conditions[?(@.type==\"Terminating\")].reason";
    assert_eq!(kubectl.field("crd/things.gone.example.com", terminating).unwrap(), "InstanceDeletionInProgress");
    refused(
        &create(&kubectl, &definition.object("late", json!({}))),
        "create not allowed while custom resource definition is terminating",
    );
    kubectl.ok_args(&[
        "patch",
        "things.gone.example.com/held",
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":null}}"#,
    ]);
    eventually("the definition is gone", 10, || {
        let found = kubectl.run("get crd things.gone.example.com");
        if found.success { Err(found.stdout) } else { Ok(()) }
    });
    assert_eq!(server().client().get("/apis/gone.example.com/v1").code, 404);
    eventually("what an instance owned is collected", 10, || {
        let found = kubectl.run("get configmap owned");
        if found.success { Err(found.stdout) } else { Ok(()) }
    });
}

#[test]
fn a_namespace_takes_its_instances_with_it() {
    let kubectl = server().kubectl.namespace("custom");
    let definition = Definition::new("inside", spec(json!({})));
    definition.establish(&kubectl);
    assert!(create(&kubectl, &definition.object("a", json!({}))).success);
    kubectl.ok(&format!("delete namespace {} --timeout=20s", kubectl.name()));
    assert_eq!(kubectl.ok("get things.inside.example.com -A -o name"), "");
}

/// A schema as large operators have them: a pod template's worth of fields, several times over.
fn large(depth: usize, width: usize) -> Value {
    let leaf =
        json!({"type": "string", "description": "A field with a sentence about itself, as generators write them."});
    (0..depth).fold(leaf, |inner, level| {
        let properties: serde_json::Map<String, Value> = (0..width)
            .map(|at| {
                (
                    format!("field{level}x{at}"),
                    if at == 0 {
                        inner.clone()
                    } else {
                        json!({"type": "string", "description": "Another one of many."})
                    },
                )
            })
            .collect();
        match level % 3 {
            2 => json!({"type": "array", "items": {"type": "object", "properties": properties}}),
            _ => json!({"type": "object", "properties": properties}),
        }
    })
}

#[test]
fn large_schemas_are_taken() {
    let kubectl = server().kubectl.namespace("custom");
    let properties: serde_json::Map<String, Value> = (0..80).map(|at| (format!("part{at}"), large(9, 12))).collect();
    let definition = Definition::new("large", spec(Value::Object(properties)));
    let manifest = definition.manifest().to_string();
    assert!(manifest.len() > 500_000, "{}", manifest.len());
    assert!(create(&kubectl, &definition.manifest()).success);
    kubectl.ok("wait --for=condition=Established crd/things.large.example.com --timeout=20s");
    let object = definition.object("a", json!({"part79": {"field8x1": [], "none": 1}}));
    let wrong = create(&kubectl, &object);
    refused(&wrong, "unknown field");
}
