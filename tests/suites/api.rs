//! The API as kubectl and other clients use it, on an API server alone: verbs, selection, paging, watching, printing.
use mote_tests::{Kubectl, Server, eventually};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    sync::OnceLock,
    thread,
    time::Duration,
};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::shared(""))
}

fn namespace(purpose: &str) -> Kubectl {
    server().kubectl.namespace(purpose)
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: 'localhost/busybox:1', ports: [{containerPort: 80}]}
";

#[test]
fn health_and_metrics_are_there() {
    let client = server().client();
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!((client.get(path).code, client.get(path).text()), (200, "ok".to_owned()), "{path}");
        let verbose = client.get(&format!("{path}?verbose")).text();
        assert!(verbose.contains("[+]ping ok\n") && verbose.contains("check passed\n"), "{verbose}");
    }
    let metrics = client.get("/metrics").text();
    for name in
        ["apiserver_request_total{", "apiserver_request_duration_seconds_bucket{", "process_resident_memory_bytes"]
    {
        assert!(metrics.contains(name), "no {name}");
    }
    assert_eq!(client.get("/version").json()["minor"], "36");
}

#[test]
fn a_cluster_has_its_namespaces_and_its_service() {
    let kubectl = &server().kubectl;
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        kubectl.eventually_field(&format!("namespace/{name}"), ".status.phase", "Active", 5);
    }
    assert_eq!(kubectl.field("service/kubernetes", ".spec.clusterIP").unwrap(), "10.43.0.1");
    assert!(kubectl.ok("get clusterrole").contains("cluster-admin"));
    eventually("the service account of default", 5, || {
        kubectl.field("serviceaccount/default", ".metadata.name").map(drop)
    });
    eventually("its root certificates", 5, || kubectl.field("configmap/kube-root-ca.crt", ".metadata.name").map(drop));
}

#[test]
fn apply_diff_edit_label_and_explain() {
    let kubectl = namespace("apply");
    assert!(kubectl.apply(DEPLOYMENT).contains("deployment.apps/web created"));
    assert!(kubectl.apply(DEPLOYMENT).contains("unchanged"));
    let changed = DEPLOYMENT.replace("busybox:1", "busybox:2");
    let diff = kubectl.with_input(&["diff", "-f", "-"], Some(&changed));
    assert!(diff.stdout.contains("+      - image: localhost/busybox:2"), "{diff}");
    assert!(kubectl.apply(&changed).contains("configured"));
    kubectl.ok("label deployment web tier=front");
    kubectl.ok("annotate deployment web note=x");
    kubectl.ok_args(&[
        "patch",
        "deployment",
        "web",
        "-p",
        "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"side\",\"image\":\"i\"}]}}}}",
    ]);
    let names = kubectl.field("deployment/web", ".spec.template.spec.containers[*].name").unwrap();
    assert_eq!(names, "side web", "strategic merge by name");
    kubectl.ok_args(&[
        "patch",
        "deployment",
        "web",
        "--type=json",
        "-p",
        "[{\"op\":\"remove\",\"path\":\"/spec/template/spec/containers/0\"}]",
    ]);
    kubectl.ok_args(&["patch", "deployment", "web", "--type=merge", "-p", "{\"spec\":{\"paused\":true}}"]);
    assert_eq!(kubectl.field("deployment/web", ".spec.template.spec.containers[*].name").unwrap(), "web");
    assert_eq!(kubectl.ok("get deployment -l tier=front -o name").trim(), "deployment.apps/web");
    assert_eq!(kubectl.ok("get deployment -l tier!=front -o name").trim(), "");
    kubectl.ok("scale deployment web --replicas=3");
    assert_eq!(kubectl.field("deployment/web", ".spec.replicas").unwrap(), "3");
    assert!(kubectl.ok("explain deployment.spec.replicas").contains("integer"));
    assert!(kubectl.ok("describe deployment web").contains("tier=front"));
    kubectl.ok("delete deployment web");
    assert!(kubectl.fails("get deployment web").contains("NotFound"));
}

#[test]
fn tables_have_upstreams_columns() {
    let kubectl = namespace("tables");
    kubectl.apply(DEPLOYMENT);
    let columns = |line: &str| {
        kubectl.ok(line).lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(columns("get deployments"), "NAME READY UP-TO-DATE AVAILABLE AGE");
    assert_eq!(columns("get deployments -o wide"), "NAME READY UP-TO-DATE AVAILABLE AGE CONTAINERS IMAGES SELECTOR");
    assert_eq!(columns("get namespaces"), "NAME STATUS AGE");
    assert_eq!(columns("get services -n default"), "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE");
    assert_eq!(columns("get configmaps -n kube-system"), "NAME DATA AGE");
    kubectl.ok("run alone --image=i --restart=Never");
    assert_eq!(columns("get pods"), "NAME READY STATUS RESTARTS AGE");
    assert_eq!(columns("get pods -o wide"), "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES");
    assert_eq!(kubectl.ok("get pods --field-selector=status.phase=Pending -o name").trim(), "pod/alone");
    assert_eq!(kubectl.ok("get pods --field-selector=spec.nodeName=x -o name").trim(), "");
}

/// 200 pods' worth of objects, applied and listed in pages that fit together while others write.
#[test]
fn two_hundred_objects_are_listed_in_pages() {
    let kubectl = namespace("pages");
    let pod = |n: usize| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: pod-{n:03}, labels: {{tenth: '{}'}}}}\nspec: {{containers: [{{name: c, image: i}}]}}\n",
            n % 10
        )
    };
    kubectl.apply(&(0..200).map(pod).collect::<String>());
    let client = server().client();
    let path = format!("/api/v1/namespaces/{}/pods?limit=30", kubectl.name());
    let (mut names, mut pages, mut next, mut revisions) = (Vec::new(), 0, String::new(), Vec::new());
    loop {
        let page = client.get(&format!("{path}{next}")).json();
        let items = page["items"].as_array().unwrap();
        names.extend(items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()));
        revisions.push(page["metadata"]["resourceVersion"].clone());
        pages += 1;
        if pages == 2 {
            kubectl.ok("delete pod pod-199 --grace-period=0 --force");
        }
        let token = page["metadata"]["continue"].as_str().unwrap_or_default();
        if token.is_empty() {
            break;
        }
        assert!(page["metadata"]["remainingItemCount"].is_i64(), "{}", page["metadata"]);
        next = format!("&continue={token}");
    }
    let expected: Vec<_> = (0..200).map(|n| format!("pod-{n:03}")).collect();
    assert_eq!((pages, names), (7, expected), "all pages are of the first one's state");
    revisions.dedup();
    assert_eq!(revisions.len(), 1, "{revisions:?}");
    assert_eq!(kubectl.ok("get pods -l tenth=3 -o name --chunk-size=7").lines().count(), 20);
}

/// Reads watch events until `count` have come; the connection is then cut.
fn watch(path: &str, count: usize) -> Vec<Value> {
    let client = server().client();
    let mut stream = client.connect().unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\nAccept-Encoding: identity\r\n\r\n")
        .unwrap();
    let mut lines = BufReader::new(stream);
    let mut events = Vec::new();
    let mut line = String::new();
    while events.len() < count {
        line.clear();
        if lines.read_line(&mut line).unwrap_or(0) == 0 {
            break;
        }
        // Chunk sizes and headers are not JSON objects.
        if line.starts_with('{') {
            events.push(serde_json::from_str(&line).unwrap());
        }
    }
    events
}

#[test]
fn a_watch_that_is_cut_and_resumed_sees_every_change_once() {
    const CHANGES: usize = 120;
    let kubectl = namespace("watch");
    let client = server().client();
    let path = format!("/api/v1/namespaces/{}/configmaps", kubectl.name());
    let start = client.get(&path).json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let writer = thread::spawn({
        let (client, path) = (client.clone(), path.clone());
        move || {
            let created = client.post(&path, &json!({"metadata": {"name": "counter"}, "data": {"n": "0"}}));
            assert_eq!(created.code, 201, "{}", created.text());
            for n in 1..CHANGES {
                let body = json!({"data": {"n": n.to_string()}}).to_string();
                let headers = [("Content-Type", "application/merge-patch+json")];
                let answer = client.request("PATCH", &format!("{path}/counter"), &headers, body.as_bytes());
                assert_eq!(answer.code, 200, "{}", answer.text());
            }
        }
    });
    let (mut seen, mut revision) = (Vec::new(), start);
    while seen.len() < CHANGES {
        let url = format!(
            "{path}?watch=true&resourceVersion={revision}&fieldSelector=metadata.name=counter&timeoutSeconds=20"
        );
        for event in watch(&url, (CHANGES - seen.len()).min(7)) {
            seen.push(
                event["object"]["data"]["n"].as_str().unwrap_or_else(|| panic!("{event}")).parse::<usize>().unwrap(),
            );
            revision = event["object"]["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        }
    }
    writer.join().unwrap();
    assert_eq!(seen, (0..CHANGES).collect::<Vec<_>>());
}

#[test]
fn watches_send_initial_events_and_bookmarks() {
    let kubectl = namespace("bookmarks");
    kubectl.ok("create configmap one");
    let path = format!(
        "/api/v1/namespaces/{}/configmaps?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&fieldSelector=metadata.name=one",
        kubectl.name()
    );
    let events = watch(&path, 2);
    assert_eq!((&events[0]["type"], &events[0]["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("one")));
    assert_eq!(events[1]["type"], "BOOKMARK");
    assert_eq!(events[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

/// Many writers on one counter: each change is made once, and none is lost.
#[test]
fn optimistic_concurrency_loses_nothing() {
    const WRITERS: usize = 8;
    const EACH: usize = 10;
    let kubectl = namespace("counter");
    let client = server().client();
    let path = format!("/api/v1/namespaces/{}/configmaps", kubectl.name());
    client.post(&path, &json!({"metadata": {"name": "counter"}, "data": {"n": "0"}}));
    let write = |_| {
        let (client, path) = (client.clone(), format!("{path}/counter"));
        thread::spawn(move || {
            let mut conflicts = 0;
            for _ in 0..EACH {
                loop {
                    let mut object = client.get(&path).json();
                    let n: usize = object["data"]["n"].as_str().unwrap().parse().unwrap();
                    object["data"]["n"] = json!((n + 1).to_string());
                    let answer = client.request(
                        "PUT",
                        &path,
                        &[("Content-Type", "application/json")],
                        object.to_string().as_bytes(),
                    );
                    match answer.code {
                        200 => break,
                        409 => conflicts += 1,
                        other => panic!("{other}: {}", answer.text()),
                    }
                }
            }
            conflicts
        })
    };
    let writers: Vec<_> = (0..WRITERS).map(write).collect();
    let conflicts: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    assert_eq!(
        client.get(&format!("{path}/counter")).json()["data"]["n"],
        (WRITERS * EACH).to_string(),
        "after {conflicts} conflicts"
    );
}

#[test]
fn finalizers_hold_and_owners_take_along() {
    let kubectl = namespace("owners");
    kubectl.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: owner, finalizers: [example.com/hold]}}");
    let uid = kubectl.field("configmap/owner", ".metadata.uid").unwrap();
    kubectl.apply(&format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: owned, ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}}}]}}}}"
    ));
    kubectl.ok("delete configmap owner --wait=false");
    assert_ne!(kubectl.field("configmap/owner", ".metadata.deletionTimestamp").unwrap(), "");
    kubectl.ok("get configmap owned");
    kubectl.ok_args(&[
        "patch",
        "configmap",
        "owner",
        "--type=json",
        "-p",
        "[{\"op\":\"remove\",\"path\":\"/metadata/finalizers\"}]",
    ]);
    eventually("both are gone", 10, || {
        let left = kubectl.ok("get configmap owner owned --ignore-not-found -o name");
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn deleting_a_namespace_empties_it() {
    let kubectl = namespace("doomed");
    kubectl.apply(DEPLOYMENT);
    kubectl.ok("create secret generic s --from-literal=a=b");
    kubectl.ok("run p --image=i");
    server().kubectl.ok(&format!("delete namespace {} --timeout=20s", kubectl.name()));
    assert!(server().kubectl.fails(&format!("get namespace {}", kubectl.name())).contains("NotFound"));
    let left = server().client().get(&format!("/api/v1/namespaces/{}/secrets", kubectl.name())).json();
    assert_eq!(left["items"], json!([]));
}

#[test]
fn service_account_tokens_say_who_one_is() {
    let kubectl = namespace("tokens");
    kubectl.ok("create serviceaccount robot");
    let token = kubectl.ok("create token robot").trim().to_owned();
    let client = server().client().with_token(&token);
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let who = client.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).json();
    assert_eq!(who["status"]["userInfo"]["username"], format!("system:serviceaccount:{}:robot", kubectl.name()));
    let path = format!("/api/v1/namespaces/{}/configmaps", kubectl.name());
    assert_eq!(client.get(&path).code, 403);
    kubectl.ok(&format!("create rolebinding view --clusterrole=view --serviceaccount={}:robot", kubectl.name()));
    assert_eq!(client.get(&path).code, 200);
    assert_eq!(client.post(&path, &json!({"metadata": {"name": "x"}})).code, 403);
    assert!(
        kubectl
            .ok(&format!("auth can-i list configmaps --as=system:serviceaccount:{}:robot", kubectl.name()))
            .contains("yes")
    );
    kubectl.ok("delete serviceaccount robot");
    assert_eq!(client.get(&path).code, 401, "a token ends with its account");
}

#[test]
fn generated_names_and_dry_runs() {
    let kubectl = namespace("generate");
    let client = server().client();
    let path = format!("/api/v1/namespaces/{}/configmaps", kubectl.name());
    let made = client.post(&path, &json!({"metadata": {"generateName": "a-"}})).json();
    let name = made["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("a-") && name.len() == 7, "{name}");
    let dry = client.post(&format!("{path}?dryRun=All"), &json!({"metadata": {"name": "dry"}}));
    assert_eq!((dry.code, client.get(&format!("{path}/dry")).code), (201, 404));
}

#[test]
fn discovery_and_openapi_are_complete_enough_for_clients() {
    let client = server().client();
    assert_eq!(client.get("/api").json()["versions"], json!(["v1"]));
    let groups = client.get("/apis").json();
    let names: Vec<_> =
        groups["groups"].as_array().unwrap().iter().filter_map(|group| group["name"].as_str()).collect();
    for name in ["apps", "batch", "rbac.authorization.k8s.io", "networking.k8s.io", "discovery.k8s.io"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    let accept = [("Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    assert_eq!(client.request("GET", "/apis", &accept, b"").json()["kind"], "APIGroupDiscoveryList");
    let resources = client.get("/apis/apps/v1").json();
    let by_name: BTreeMap<_, _> =
        resources["resources"].as_array().unwrap().iter().map(|r| (r["name"].as_str().unwrap(), r)).collect();
    assert_eq!(by_name["deployments"]["shortNames"], json!(["deploy"]));
    assert!(by_name.contains_key("deployments/scale") && by_name.contains_key("deployments/status"));
    let index = client.get("/openapi/v3").json();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    assert!(client.get(&url).json()["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    assert!(server().kubectl.ok("api-resources").lines().count() > 40);
}

/// One after another on one connection, as every HTTP/1.1 client does.
#[test]
fn a_connection_serves_many_requests() {
    let mut stream = server().client().connect().unwrap();
    for _ in 0..20 {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = [0; 4096];
        let bytes = stream.read(&mut answer).unwrap();
        assert!(answer[..bytes].starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer[..bytes]));
        thread::sleep(Duration::from_millis(1));
    }
}
