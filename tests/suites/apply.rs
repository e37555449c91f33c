//! Server-side apply and managedFields on an API server alone, with the real kubectl and with requests it would not send.
use mote_tests::{Kubectl, Server, http::Response};
use serde_json::{Value, json};
use std::sync::OnceLock;

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::shared(""))
}

fn namespace(purpose: &str) -> Kubectl {
    server().kubectl.namespace(purpose)
}

/// PATCH with a configuration to apply.
fn apply(path: &str, query: &str, config: &Value) -> Response {
    let headers = [("Content-Type", "application/apply-patch+yaml")];
    server().client().request("PATCH", &format!("{path}?{query}"), &headers, config.to_string().as_bytes())
}

#[track_caller]
fn ok(response: &Response, code: u16) -> Value {
    assert_eq!(response.code, code, "{}", response.text());
    response.json()
}

#[track_caller]
fn refused(response: &Response, code: u16, reason: &str, message: &str) -> Value {
    let status = response.json();
    let got = (response.code, status["reason"].as_str().unwrap_or(""), status["message"].as_str().unwrap_or(""));
    assert_eq!(got, (code, reason, message));
    status
}

fn config_map(namespace: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": namespace}, "data": data})
}

/// "manager operation subresource" of each entry, in order.
fn owners(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let word = |entry: &Value, field: &str| entry[field].as_str().unwrap_or("").to_owned();
    let words = |entry: &Value| ["manager", "operation", "subresource"].map(|field| word(entry, field)).join(" ");
    entries.iter().map(|entry| words(entry).trim().to_owned()).collect()
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: 'localhost/busybox:1', ports: [{containerPort: 80}]}
";

#[test]
fn kubectl_applies_at_the_server() {
    let kubectl = namespace("apply");
    let apply = |manifest: &str, more: &[&str]| {
        kubectl.with_input(&[&["apply", "--server-side", "-f", "-"], more].concat(), Some(manifest))
    };
    assert!(apply(DEPLOYMENT, &[]).stdout.contains("deployment.apps/web serverside-applied"));
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: '1'}\n";
    apply(map, &[]);
    let version = kubectl.field("configmap/c", ".metadata.resourceVersion").unwrap();
    apply(map, &[]);
    assert_eq!(kubectl.field("configmap/c", ".metadata.resourceVersion").unwrap(), version, "nothing changed");
    let shown = kubectl.ok("get deployment web -o yaml --show-managed-fields");
    assert!(
        shown.contains("manager: kubectl\n    operation: Apply") && shown.contains("k:{\"name\":\"web\"}"),
        "{shown}"
    );
    assert!(!kubectl.ok("get deployment web -o yaml").contains("managedFields"));
    let changed = DEPLOYMENT.replace("replicas: 1", "replicas: 3");
    let refused = apply(&changed, &["--field-manager=other"]);
    assert!(
        refused.stderr.contains("Apply failed with 1 conflict: conflict with \"kubectl\": .spec.replicas"),
        "{refused}"
    );
    assert!(apply(&changed, &["--field-manager=other", "--force-conflicts"]).stdout.contains("serverside-applied"));
    assert_eq!(kubectl.field("deployment/web", ".spec.replicas").unwrap(), "3");
    // Two applied the port: it goes with the second.
    let fewer = DEPLOYMENT.replace("  replicas: 1\n", "").replace(", ports: [{containerPort: 80}]", "");
    let port = || kubectl.field("deployment/web", ".spec.template.spec.containers[0].ports[*].containerPort").unwrap();
    apply(&fewer, &[]);
    assert_eq!(port(), "80");
    apply(&fewer, &["--field-manager=other"]);
    assert_eq!(port(), "");
}

#[test]
fn an_apply_creates_and_asks_for_its_options() {
    let kubectl = namespace("options");
    let name = kubectl.name().to_owned();
    let path = format!("/api/v1/namespaces/{name}/configmaps/c");
    let config = config_map(&name, json!({"a": "1"}));
    refused(
        &apply(&path, "", &config),
        422,
        "Invalid",
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
    );
    let dry = ok(&apply(&path, "fieldManager=a&dryRun=All", &config), 201);
    assert_eq!(owners(&dry), ["a Apply"]);
    assert_eq!(server().client().get(&path).code, 404);
    ok(&apply(&path, "fieldManager=a", &config), 201);
    ok(&apply(&path, "fieldManager=a", &config), 200);
    let merge = [("Content-Type", "application/merge-patch+json")];
    let forced = server().client().request("PATCH", &format!("{path}?force=true"), &merge, b"{}");
    refused(
        &forced,
        422,
        "Invalid",
        "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
    );
    let mut managed = config.clone();
    managed["metadata"]["managedFields"] = json!([]);
    let error = apply(&path, "fieldManager=a", &managed);
    refused(&error, 400, "BadRequest", "metadata.managedFields must be nil");
    let unknown = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "dat": {}});
    let error = apply(&path, "fieldManager=a", &unknown);
    let message = "failed to create typed patch object (/c; /v1, Kind=ConfigMap): .dat: field not declared in schema";
    refused(&error, 500, "", message);
    let mut named = config.clone();
    named["metadata"]["name"] = "d".into();
    let error = apply(&path, "fieldManager=a", &named);
    refused(&error, 400, "BadRequest", "the name of the object (d) does not match the name on the URL (c)");
    let mut other = config;
    other["metadata"]["uid"] = "x".into();
    let missing = format!("/api/v1/namespaces/{name}/configmaps/e");
    other["metadata"]["name"] = "e".into();
    let error = apply(&missing, "fieldManager=a", &other);
    assert_eq!(error.code, 409, "{}", error.text());
}

#[test]
fn every_write_has_its_manager() {
    let kubectl = namespace("managers");
    let name = kubectl.name().to_owned();
    let path = format!("/api/v1/namespaces/{name}/configmaps");
    let client = server().client();
    let json_body = ("Content-Type", "application/json");
    let created = client.request(
        "POST",
        &path,
        &[json_body, ("User-Agent", "my-tool/v1.2 (linux)")],
        config_map(&name, json!({"a": "1"})).to_string().as_bytes(),
    );
    let created = ok(&created, 201);
    assert_eq!(owners(&created), ["my-tool Update"]);
    assert_eq!(created["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:data": {".": {}, "f:a": {}}}));
    let one = format!("{path}/c?fieldManager=named");
    let merge = ("Content-Type", "application/merge-patch+json");
    let patched = ok(&client.request("PATCH", &one, &[merge], br#"{"data":{"b":"2"}}"#), 200);
    let mut names = owners(&patched);
    names.sort();
    assert_eq!(names, ["my-tool Update", "named Update"]);
    // A patch that changes nothing writes nothing.
    let again = ok(&client.request("PATCH", &one, &[merge], br#"{"data":{"b":"2"}}"#), 200);
    assert_eq!(again["metadata"]["resourceVersion"], patched["metadata"]["resourceVersion"]);
    let reset = br#"{"metadata":{"managedFields":[]}}"#;
    assert!(owners(&ok(&client.request("PATCH", &one, &[merge], reset), 200)).is_empty());
    let long = "x".repeat(129);
    let error = client.request("PATCH", &format!("{path}/c?fieldManager={long}"), &[merge], b"{}");
    assert_eq!(error.code, 422, "{}", error.text());
}

#[test]
fn status_and_scale_have_owners_of_their_own() {
    let kubectl = namespace("parts");
    kubectl.apply(DEPLOYMENT);
    let name = kubectl.name().to_owned();
    let path = format!("/apis/apps/v1/namespaces/{name}/deployments/web");
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 9}, "status": {"replicas": 2}});
    // The controller may have been there first.
    let applied = ok(&apply(&format!("{path}/status"), "fieldManager=s&force=true", &status), 200);
    assert_eq!((&applied["status"]["replicas"], &applied["spec"]["replicas"]), (&json!(2), &json!(1)));
    let entry = applied["metadata"]["managedFields"].as_array().unwrap().iter().find(|e| e["manager"] == "s").unwrap();
    assert_eq!(entry["fieldsV1"], json!({"f:status": {"f:replicas": {}}}));
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"},
        "spec": {"replicas": 5}});
    let error = apply(&format!("{path}/scale"), "fieldManager=hpa", &scale);
    let status = error.json();
    assert_eq!((error.code, status["reason"].as_str()), (409, Some("Conflict")), "{}", error.text());
    ok(&apply(&format!("{path}/scale"), "fieldManager=hpa&force=true", &scale), 200);
    let object = server().client().get(&path).json();
    assert_eq!(object["spec"]["replicas"], 5);
    assert!(owners(&object).contains(&"hpa Apply scale".to_owned()), "{:?}", owners(&object));
    kubectl.ok("scale deployment web --replicas=2");
    let object = server().client().get(&path).json();
    assert_eq!(object["spec"]["replicas"], 2);
    assert!(owners(&object).contains(&"kubectl Update scale".to_owned()), "{:?}", owners(&object));
    assert!(!owners(&object).contains(&"hpa Apply scale".to_owned()), "{:?}", owners(&object));
}

#[test]
fn custom_lists_merge_by_their_own_types() {
    let kubectl = namespace("custom");
    kubectl.apply(
        "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: racks.apply.example.com}
spec:
  group: apply.example.com
  names: {kind: Rack, plural: racks}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              slots:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items: {type: object, required: [name], properties: {name: {type: string}, size: {type: integer}}}
              tags: {type: array, x-kubernetes-list-type: set, items: {type: string}}
              whole: {type: array, items: {type: string}}
              labels: {type: object, x-kubernetes-map-type: atomic, additionalProperties: {type: string}}
",
    );
    kubectl.ok("wait --for=condition=Established crd/racks.apply.example.com --timeout=10s");
    let name = kubectl.name().to_owned();
    let path = format!("/apis/apply.example.com/v1/namespaces/{name}/racks/r");
    let rack = |spec: Value| json!({"apiVersion": "apply.example.com/v1", "kind": "Rack", "metadata": {"name": "r"}, "spec": spec});
    let first = rack(json!({"slots": [{"name": "a", "size": 1}], "tags": ["x"], "whole": ["1"], "labels": {"k": "v"}}));
    let created = ok(&apply(&path, "fieldManager=one", &first), 201);
    assert_eq!(
        created["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:spec": {"f:labels": {}, "f:slots": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:size": {}}},
            "f:tags": {"v:\"x\"": {}}, "f:whole": {}}})
    );
    let second = rack(json!({"slots": [{"name": "b", "size": 2}], "tags": ["y"]}));
    let merged = ok(&apply(&path, "fieldManager=two", &second), 200);
    assert_eq!(merged["spec"]["slots"], json!([{"name": "a", "size": 1}, {"name": "b", "size": 2}]));
    assert_eq!(merged["spec"]["tags"], json!(["x", "y"]));
    let third = rack(json!({"whole": ["2"], "slots": [{"name": "a", "size": 3}]}));
    let status = apply(&path, "fieldManager=two", &third).json();
    assert_eq!(
        status["message"],
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.whole\n- .spec.slots[name=\"a\"].size"
    );
    // b and y were the second manager's alone.
    let left = ok(&apply(&path, "fieldManager=two", &rack(json!({"tags": ["x"]}))), 200);
    assert_eq!((&left["spec"]["slots"], &left["spec"]["tags"]), (&json!([{"name": "a", "size": 1}]), &json!(["x"])));
}

#[test]
fn strict_clients_hear_of_duplicates_and_unknown_fields_in_patches() {
    let kubectl = namespace("strict");
    let name = kubectl.name().to_owned();
    kubectl.apply(DEPLOYMENT);
    let path = format!("/apis/apps/v1/namespaces/{name}/deployments/web");
    let client = server().client();
    let yaml = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  paused: true\n  paused: true\n";
    let headers = [("Content-Type", "application/apply-patch+yaml")];
    let query = |validation: &str| format!("{path}?fieldManager=y&force=true&fieldValidation={validation}");
    let error = client.request("PATCH", &query("Strict"), &headers, yaml.as_bytes());
    refused(
        &error,
        400,
        "BadRequest",
        "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 6: key \"paused\" already set in map",
    );
    let warned = client.request("PATCH", &query("Warn"), &headers, yaml.as_bytes());
    assert_eq!(warned.code, 200, "{}", warned.text());
    assert!(warned.headers.contains("line 6: key \\\"paused\\\" already set in map"), "{}", warned.headers);
    let merge = [("Content-Type", "application/merge-patch+json")];
    let strict = format!("{path}?fieldValidation=Strict");
    let error = client.request("PATCH", &strict, &merge, br#"{"spec":{"foo":1}}"#);
    let message = error.json()["message"].as_str().unwrap_or("").to_owned();
    assert_eq!(error.code, 422, "{message}");
    assert!(
        message.starts_with(" \"\" is invalid: patch: Invalid value: ")
            && message.ends_with("strict decoding error: unknown field \"spec.foo\""),
        "{message}"
    );
}
