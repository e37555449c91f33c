//! What kubectl looks for in the documents, and that they hang together.
use super::*;
use mote_schema::{Value, json};

fn get(path: &str) -> Option<Value> {
    let (media, bytes) = document(&Catalog::builtin(), path, &Query::parse(""), JSON)?;
    assert_eq!(media, JSON);
    Some(serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{path}: {e}")))
}

/// Every `$ref` in a document.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|inner| references(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| references(inner, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let root = get("/openapi/v3").expect("the root");
    let paths = root["paths"].as_object().expect("paths");
    assert!(paths.contains_key("api/v1") && paths.contains_key("apis/rbac.authorization.k8s.io/v1"));
    for place in paths.values() {
        let url = place["serverRelativeURL"].as_str().expect("a URL");
        let (path, hash) = url.split_once("?hash=").expect("a hash");
        assert_eq!(hash.len(), 16);
        let document = get(path).unwrap_or_else(|| panic!("nothing at {path}"));
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in found {
            let name = reference.strip_prefix("#/components/schemas/").expect("a schema");
            assert!(document["components"]["schemas"][name].is_object(), "{path} has no {name}");
        }
    }
    let all = get("/openapi/v2").expect("version 2");
    let mut found = Vec::new();
    references(&all, &mut found);
    for reference in found {
        assert!(all["definitions"][reference.strip_prefix("#/definitions/").expect("a definition")].is_object());
    }
    for absent in ["/openapi/v3/apis/none/v1", "/openapi/v1", "/openapi/v2/api/v1", "/openapi"] {
        assert!(get(absent).is_none(), "{absent}");
    }
    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let get = |path| document(&Catalog::builtin(), path, &Query::parse(""), protobuf);
    assert!(get("/openapi/v3/api/v1").is_none());
    let (media, bytes) = get("/openapi/v2").expect("version 2");
    assert_eq!((media, bytes.starts_with(b"\x0a\x032.0")), (PROTOBUF_V2, true));
}

#[test]
fn a_schema_says_what_apply_and_explain_need() {
    let apps = get("/openapi/v3/apis/apps/v1").expect("apps/v1");
    let schema = |name: &str| &apps["components"]["schemas"][name];
    let deployment = schema("io.k8s.api.apps.v1.Deployment");
    let identity = json!({"group": "apps", "kind": "Deployment", "version": "v1"});
    assert_eq!(deployment["x-kubernetes-group-version-kind"], json!([identity]));
    assert_eq!(deployment["properties"]["kind"]["type"], "string");
    let said = deployment["properties"]["apiVersion"]["description"].as_str();
    assert!(said.is_some_and(|text| text.starts_with("APIVersion defines")));
    let meta = &schema("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")["properties"];
    let said = [&deployment["properties"]["metadata"], &meta["creationTimestamp"]].map(|field| &field["description"]);
    assert!(said.iter().all(|text| text.is_string()), "{said:?}");
    let empty = |place: &Value| place["get"]["parameters"] == json!([]) || place["parameters"] == json!([]);
    assert!(!apps["paths"].as_object().is_some_and(|paths| paths.values().any(empty)));
    let definitions = get("/openapi/v3/apis/apiextensions.k8s.io/v1").expect("apiextensions.k8s.io/v1");
    let nothing = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceSubresourceStatus";
    assert_eq!(definitions["components"]["schemas"][nothing], json!({"type": "object"}));
    let reference = |name: &str| json!([{"$ref": format!("#/components/schemas/{name}")}]);
    assert_eq!(deployment["properties"]["spec"]["allOf"], reference("io.k8s.api.apps.v1.DeploymentSpec"));
    let spec = schema("io.k8s.api.apps.v1.DeploymentSpec");
    assert_eq!(spec["required"], json!(["selector", "template"]));
    assert_eq!(spec["properties"]["minReadySeconds"], json!({"type": "integer", "format": "int32"}));
    assert_eq!(spec["properties"]["strategy"]["x-kubernetes-patch-strategy"], "retainKeys");
    let containers = &schema("io.k8s.api.core.v1.PodSpec")["properties"]["containers"];
    assert_eq!(containers["type"], "array");
    assert_eq!(containers["items"]["allOf"], reference("io.k8s.api.core.v1.Container"));
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    let volumes = &schema("io.k8s.api.core.v1.PodSpec")["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    let limits = &schema("io.k8s.api.core.v1.ResourceRequirements")["properties"]["limits"];
    let quantity = reference("io.k8s.apimachinery.pkg.api.resource.Quantity");
    assert_eq!((&limits["type"], &limits["additionalProperties"]["allOf"]), (&json!("object"), &quantity));
    let fields = &schema("io.k8s.apimachinery.pkg.apis.meta.v1.ManagedFieldsEntry")["properties"]["fieldsV1"];
    assert!(fields.as_object().is_some_and(|schema| !schema.is_empty()));
    let list = schema("io.k8s.api.apps.v1.DeploymentList");
    assert_eq!(list["x-kubernetes-group-version-kind"][0]["kind"], "DeploymentList");
}

#[test]
fn paths_say_what_can_be_done() {
    let apps = get("/openapi/v3/apis/apps/v1").expect("apps/v1");
    let item = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    let patch = &item["patch"];
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    for parameter in ["dryRun", "fieldValidation", "fieldManager", "force"] {
        let found = patch["parameters"].as_array().expect("a list").iter().find(|found| found["name"] == parameter);
        assert_eq!(found.map(|found| &found["in"]), Some(&json!("query")), "{parameter}");
    }
    let methods = |path: &str| {
        let place = apps["paths"][path].as_object().unwrap_or_else(|| panic!("no {path}"));
        place.keys().filter(|name| *name != "parameters").cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(methods("/apis/apps/v1/namespaces/{namespace}/deployments/{name}"), "delete get patch put");
    assert_eq!(methods("/apis/apps/v1/namespaces/{namespace}/deployments"), "delete get post");
    assert_eq!(methods("/apis/apps/v1/deployments"), "get");
    assert_eq!(methods("/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"), "get patch put");
    let scale = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
    assert_eq!(scale["x-kubernetes-group-version-kind"]["group"], "autoscaling");
    let all = get("/openapi/v2").expect("version 2");
    let patch = &all["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert!(patch["consumes"].as_array().is_some_and(|list| list.contains(&json!("application/merge-patch+json"))));
    assert_eq!(version_of("rbac.authorization.k8s.io", "v1"), "RbacAuthorizationV1");
    assert_eq!(version_of("", "v1"), "CoreV1");
}

fn version_of(group: &str, version: &str) -> String {
    let document = get(&format!("/openapi/v3/{}", api_path(group, version))).expect("a document");
    let (_, place) = document["paths"].as_object().and_then(|paths| paths.iter().next()).expect("a path");
    let (_, operation) =
        place.as_object().and_then(|p| p.iter().find(|(k, _)| *k == "get" || *k == "post")).expect("one");
    let id = operation["operationId"].as_str().expect("a name").trim_start_matches("list").trim_start_matches("create");
    id.split_inclusive("V1").next().unwrap_or("").to_owned()
}
