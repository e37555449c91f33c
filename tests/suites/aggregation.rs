//! API servers behind this one: APIServices of what is served here and elsewhere, availability, proxying, discovery.
use mote_tests::{
    Server, eventually,
    webhook::{Call, Reply, Webhook, own_address},
};
use serde_json::{Value, json};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::shared(""))
}

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// Serves things.`group`/v1 as a small API server would.
fn things(group: &'static str, name: &str, is_up: Arc<AtomicBool>) -> Webhook {
    Webhook::start(&[name], move |call: &Call| {
        if !is_up.load(Ordering::Acquire) {
            return Reply::Text(500, "down");
        }
        let path = call.target.split('?').next().unwrap_or("");
        let version = format!("/apis/{group}/v1");
        let resource = json!({"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing",
            "verbs": ["get", "list"], "shortNames": ["tg"]});
        match path {
            path if path == version => {
                let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{group}/v1"),
                    "resources": [resource]});
                Reply::Json(200, list)
            }
            "/openapi/v3" => {
                let own = format!("apis/{group}/v1");
                let paths = json!({&own: {"serverRelativeURL": format!("/openapi/v3/{own}?hash=1")}});
                Reply::Json(200, json!({"paths": paths}))
            }
            "/openapi/v2" => Reply::Json(
                200,
                json!({"swagger": "2.0", "paths": {format!("{version}/things"): {"get": {}}, "/apis/other": {}},
                    "definitions": {"Thing": {"type": "object"}}}),
            ),
            path if path.starts_with(&format!("{version}/namespaces/")) || path.starts_with("/openapi/v3/apis/") => {
                let headers: Vec<String> =
                    call.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                let body = String::from_utf8_lossy(&call.body).into_owned();
                Reply::Json(
                    200,
                    json!({"kind": "Thing", "apiVersion": format!("{group}/v1"),
                    "metadata": {"name": "echo"}, "method": call.method, "target": call.target, "headers": headers, "body": body}),
                )
            }
            _ => Reply::Text(404, "404 page not found"),
        }
    })
}

fn register(group: &str, namespace: &str, webhook: &Webhook) -> Value {
    let body = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("v1.{group}")},
        "spec": {"group": group, "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 10,
            "caBundle": webhook.ca_bundle, "service": {"namespace": namespace, "name": "things"}}});
    let answer = server().client().post(SERVICES, &body);
    assert_eq!(answer.code, 201, "{}", answer.text());
    answer.json()
}

fn condition(name: &str) -> Result<(String, String), String> {
    let service = server().client().get(&format!("{SERVICES}/{name}")).json();
    let found = service["status"]["conditions"][0].clone();
    let text = |field: &str| found[field].as_str().map(str::to_owned).ok_or_else(|| service.to_string());
    Ok((text("status")?, text("reason")?))
}

#[track_caller]
fn becomes(name: &str, reason: &str) {
    eventually(reason, 15, || {
        let (_, found) = condition(name)?;
        if found == reason { Ok(()) } else { Err(found) }
    });
}

#[test]
fn what_is_served_here_is_local_and_always_available() {
    let kubectl = &server().kubectl;
    let table = kubectl.ok("get apiservices");
    let columns = |line: &str| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = table.lines().map(columns).collect();
    for expected in ["NAME SERVICE AVAILABLE", "v1. Local True", "v1.apps Local True", "v2.autoscaling Local True"] {
        assert!(lines.iter().any(|line| line == expected), "no {expected} in {table}");
    }
    let apps = server().client().get(&format!("{SERVICES}/v1.apps")).json();
    assert_eq!(apps["metadata"]["labels"], json!({"kube-aggregator.kubernetes.io/automanaged": "onstart"}));
    assert_eq!((&apps["spec"]["groupPriorityMinimum"], &apps["spec"]["versionPriority"]), (&json!(17800), &json!(15)));
    assert_eq!(condition("v1.apps"), Ok(("True".into(), "Local".into())));
    let bad = json!({"metadata": {"name": "x"}, "spec": {"group": "g.example", "version": "v1"}});
    let answer = server().client().post(SERVICES, &bad).json();
    assert_eq!(
        answer["message"],
        "APIService.apiregistration.k8s.io \"x\" is invalid: [metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v1.g.example\", spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000, spec.versionPriority: Invalid value: 0: must be positive and less than 1000]"
    );
}

#[test]
fn a_definition_registers_its_versions_and_takes_them_away() {
    let kubectl = &server().kubectl;
    kubectl.apply(
        "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.made.example}
spec:
  group: made.example
  scope: Namespaced
  names: {plural: widgets, kind: Widget}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
",
    );
    becomes("v1.made.example", "Local");
    let service = server().client().get(&format!("{SERVICES}/v1.made.example")).json();
    assert_eq!(service["metadata"]["labels"], json!({"kube-aggregator.kubernetes.io/automanaged": "true"}));
    assert_eq!(service["spec"]["groupPriorityMinimum"], 1000);
    kubectl.ok("delete crd widgets.made.example");
    eventually("the APIService is gone", 10, || {
        match server().client().get(&format!("{SERVICES}/v1.made.example")).code {
            404 => Ok(()),
            code => Err(code.to_string()),
        }
    });
}

#[test]
fn a_remote_group_is_proxied_discovered_and_watched_over() {
    const GROUP: &str = "remote.example";
    let Some(address) = own_address() else { return };
    let kubectl = server().kubectl.namespace("remote");
    let namespace = kubectl.name().to_owned();
    let is_up = Arc::new(AtomicBool::new(true));
    let webhook = things(GROUP, &format!("things.{namespace}.svc"), is_up.clone());
    let client = server().client();
    register(GROUP, &namespace, &webhook);
    let service = format!("v1.{GROUP}");
    becomes(&service, "ServiceNotFound");
    let answer = client.get(&format!("/apis/{GROUP}/v1"));
    assert_eq!((answer.code, answer.text().trim()), (503, "service unavailable"));
    kubectl.apply("apiVersion: v1\nkind: Service\nmetadata: {name: things}\nspec: {ports: [{port: 444}]}\n");
    becomes(&service, "ServicePortError");
    kubectl
        .ok("patch service things --type=json -p [{\"op\":\"replace\",\"path\":\"/spec/ports/0/port\",\"value\":443}]");
    becomes(&service, "EndpointsNotFound");
    let slice = |ready: bool| {
        kubectl.apply(&format!(
            "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: things-1, labels: {{kubernetes.io/service-name: things}}}}
addressType: IPv4
ports: [{{name: '', port: {}}}]
endpoints: [{{addresses: [{address}], conditions: {{ready: {ready}}}}}]
",
            webhook.port
        ))
    };
    slice(false);
    becomes(&service, "MissingEndpoints");
    slice(true);
    becomes(&service, "Passed");

    let path = format!("/apis/{GROUP}/v1/namespaces/{namespace}/things/echo");
    let forged = [("X-Remote-User", "eve"), ("X-Remote-Extra-A", "b"), ("Accept", "application/json")];
    let echo = client.request("PUT", &format!("{path}?dryRun=All"), &forged, b"{}").json();
    assert_eq!((&echo["method"], &echo["target"]), (&json!("PUT"), &json!(format!("{path}?dryRun=All"))));
    assert_eq!(echo["body"], "{}");
    let headers: Vec<&str> = echo["headers"].as_array().expect("headers").iter().filter_map(Value::as_str).collect();
    assert!(headers.contains(&"x-remote-group: system:masters"), "{headers:?}");
    assert!(headers.iter().filter(|header| header.starts_with("x-remote-user: ")).count() == 1, "{headers:?}");
    assert!(
        !headers.iter().any(|header| header.contains("eve") || header.starts_with("x-remote-extra-a:")),
        "{headers:?}"
    );
    assert!(!headers.iter().any(|header| header.starts_with("authorization")), "{headers:?}");

    eventually("discovery has it", 15, || {
        let groups = client.get("/apis").json();
        let names: Vec<&str> = groups["groups"].as_array().unwrap().iter().filter_map(|g| g["name"].as_str()).collect();
        let at = names.iter().position(|name| *name == GROUP).ok_or_else(|| format!("{names:?}"))?;
        let apps = names.iter().position(|name| *name == "apps").ok_or("no apps")?;
        if apps < at { Ok(()) } else { Err(format!("{names:?}")) }
    });
    assert_eq!(client.get(&format!("/apis/{GROUP}")).json()["preferredVersion"]["groupVersion"], format!("{GROUP}/v1"));
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let resource = eventually("aggregated discovery has it", 15, || {
        let list = client.request("GET", "/apis", &[("Accept", accept)], b"").json();
        let group = list["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == GROUP).cloned();
        let version = group.ok_or("no group")?["versions"][0].clone();
        if version["freshness"] == "Current" { Ok(version["resources"][0].clone()) } else { Err(version.to_string()) }
    });
    assert_eq!((&resource["resource"], &resource["responseKind"]["kind"]), (&json!("things"), &json!("Thing")));
    let index = client.get("/openapi/v3").json();
    assert_eq!(
        index["paths"][format!("apis/{GROUP}/v1")]["serverRelativeURL"],
        format!("/openapi/v3/apis/{GROUP}/v1?hash=1")
    );
    assert_eq!(client.get(&format!("/openapi/v3/apis/{GROUP}/v1?hash=1")).json()["kind"], "Thing");
    let swagger = client.get("/openapi/v2").json();
    assert_eq!(swagger["definitions"]["Thing"], json!({"type": "object"}));
    assert!(
        swagger["paths"][format!("/apis/{GROUP}/v1/things")].is_object() && swagger["paths"]["/apis/other"].is_null()
    );
    assert!(swagger["paths"]["/api/v1/pods"].is_object());
    assert!(kubectl.ok("api-resources").contains("things"));
    assert!(kubectl.ok("get tg echo -o name").contains(&format!("thing.{GROUP}/echo")));

    is_up.store(false, Ordering::Release);
    // Any change has it looked at again.
    slice(false);
    slice(true);
    becomes(&service, "FailedDiscoveryCheck");
    assert_eq!(client.get(&path).code, 503);
    is_up.store(true, Ordering::Release);
    becomes(&service, "Passed");
    kubectl.ok(&format!("delete apiservice {service}"));
    eventually("the group is gone", 10, || match client.get(&format!("/apis/{GROUP}/v1")).code {
        404 => Ok(()),
        code => Err(code.to_string()),
    });
}
