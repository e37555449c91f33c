//! The REST surface without sockets: requests go to the router over a store in memory, answers are compared by
//! code, reason and message as kube-apiserver gives them.
mod fixture;

use fixture::Server;
use mote_schema::{Value, json};

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": "node", "containers": [{"name": "c", "image": "registry.test/app:1"}]}})
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[test]
fn an_object_is_created_read_changed_and_deleted() {
    let server = Server::new();
    let made = server.ok("POST", MAPS, config_map("a", json!({"k": "1"})));
    assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    assert_eq!(made["metadata"]["namespace"], "default");
    assert_eq!(made["metadata"]["uid"].as_str().map(str::len), Some(36));
    let read = server.ok("GET", &format!("{MAPS}/a"), Value::Null);
    assert_eq!(read, made);

    let mut changed = read.clone();
    changed["data"]["k"] = json!("2");
    let updated = server.ok("PUT", &format!("{MAPS}/a"), changed.clone());
    assert_ne!(updated["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    assert_eq!(updated["metadata"]["uid"], made["metadata"]["uid"]);
    // The same again changes nothing, not even the resourceVersion.
    assert_eq!(server.ok("PUT", &format!("{MAPS}/a"), updated.clone()), updated);
    server.refused(
        "PUT",
        &format!("{MAPS}/a"),
        changed,
        "409 Conflict: Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again",
    );

    let patched = server.ok("PATCH", &format!("{MAPS}/a"), json!({"data": {"k": null, "n": "3"}}));
    assert_eq!(patched["data"], json!({"n": "3"}));
    let patched = server.ok("PATCH", &format!("{MAPS}/a"), json!([{"op": "replace", "path": "/data/n", "value": "4"}]));
    assert_eq!(patched["data"], json!({"n": "4"}));

    let gone = server.ok("DELETE", &format!("{MAPS}/a"), Value::Null);
    assert_eq!((&gone["status"], &gone["details"]["name"]), (&json!("Success"), &json!("a")));
    server.refused("GET", &format!("{MAPS}/a"), Value::Null, "404 NotFound: configmaps \"a\" not found");
}

#[test]
fn what_cannot_be_is_refused_as_upstream_refuses_it() {
    let server = Server::new();
    server.ok("POST", MAPS, config_map("a", json!({})));
    let named = |name: &str| config_map(name, json!({}));
    for (method, target, body, expected) in [
        ("POST", MAPS, named("a"), "409 AlreadyExists: configmaps \"a\" already exists"),
        (
            "POST",
            MAPS,
            named("Not_A_Name"),
            "422 Invalid: ConfigMap \"Not_A_Name\" is invalid: metadata.name: Invalid value: \"Not_A_Name\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
        (
            "POST",
            MAPS,
            json!({"metadata": {"name": "b", "namespace": "other"}}),
            "400 BadRequest: the namespace of the provided object does not match the namespace sent on the request",
        ),
        ("POST", "/api/v1/namespaces/none/configmaps", named("b"), "404 NotFound: namespaces \"none\" not found"),
        (
            "POST",
            MAPS,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"k": 1}}),
            "400 BadRequest: ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            "POST",
            "/api/v1/namespaces/default/configmaps?fieldValidation=Strict",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "bogus": 1}),
            "400 BadRequest: ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"bogus\"",
        ),
        (
            "GET",
            "/api/v1/namespaces/default/bogus",
            Value::Null,
            "404 NotFound: the server could not find the requested resource",
        ),
        (
            "GET",
            "/api/v1/namespaces/default/configmaps/a/bogus",
            Value::Null,
            "404 NotFound: the server could not find the requested resource",
        ),
        (
            "GET",
            "/api/v1/namespaces/default/configmaps?fieldSelector=data.k%3Dv",
            Value::Null,
            "400 BadRequest: \"data.k\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
        (
            "GET",
            "/api/v1/namespaces/default/configmaps?resourceVersion=abc",
            Value::Null,
            "400 BadRequest: invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax",
        ),
        (
            "GET",
            "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=abc",
            Value::Null,
            "500 : resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax",
        ),
        (
            "DELETE",
            "/api/v1/namespaces/default",
            Value::Null,
            "403 Forbidden: namespaces \"default\" is forbidden: this namespace may not be deleted",
        ),
        (
            "PUT",
            "/api/v1/namespaces/default/configmaps/a",
            named("b"),
            "400 BadRequest: the name of the object (b) does not match the name on the URL (a)",
        ),
    ] {
        server.refused(method, target, body, expected);
    }
    let unknown_media = server.send("POST", MAPS, "text/plain", b"x", "");
    assert_eq!(server.answer(unknown_media).0, 415);
    let unacceptable = server.send("GET", MAPS, "", b"", "text/html");
    assert_eq!(server.answer(unacceptable).0, 406);
    let review = br#"{"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}"#;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(server.answer(server.send("POST", reviews, "application/json", review, table)).0, 406);
    let twice = br#"{"metadata": {"name": "x"}, "unknown": 1, "data": {}, "data": {}}"#;
    let strict = format!("{MAPS}?fieldValidation=Strict");
    let (_, complaint) = server.answer(server.send("POST", &strict, "application/json", twice, ""));
    assert_eq!(
        complaint["message"],
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"unknown\", duplicate field \"data\""
    );
    let (code, _) = server.answer(server.send("POST", MAPS, "application/json", b"{\"metadata\": ", ""));
    assert_eq!(code, 400);
    let deep = [b"{\"a\":".repeat(20_000), b"1".to_vec(), b"}".repeat(20_000)].concat();
    let (code, _) = server.answer(server.send("POST", MAPS, "application/json", &deep, ""));
    assert_eq!(code, 400);
}

#[test]
fn a_revision_is_refused_when_all_else_is_well() {
    let server = Server::new();
    let stamped = |name: &str| {
        let mut map = config_map(name, json!({}));
        map["metadata"]["resourceVersion"] = json!("5");
        map
    };
    let why = "500 : resourceVersion should not be set on objects to be created";
    server.refused("POST", MAPS, stamped("a"), why);
    let refused = server.json("POST", MAPS, stamped("B_"));
    assert_eq!(refused.0, 422);
}

#[test]
fn pages_show_one_moment_whatever_happens_between_them() {
    let server = Server::new();
    for at in 0..25 {
        server.ok("POST", MAPS, config_map(&format!("m{at:02}"), json!({})));
    }
    let mut names = Vec::new();
    let mut target = format!("{MAPS}?limit=10");
    loop {
        let page = server.ok("GET", &target, Value::Null);
        names.extend(page["items"].as_array().into_iter().flatten().map(|item| item["metadata"]["name"].to_string()));
        server.ok("POST", MAPS, config_map(&format!("later{}", names.len()), json!({})));
        match page["metadata"]["continue"].as_str() {
            Some(token) => target = format!("{MAPS}?limit=10&continue={token}"),
            None => break,
        }
        assert!(page["metadata"]["remainingItemCount"].as_i64().is_some_and(|count| count > 0));
    }
    assert_eq!(names.len(), 25);
    assert!(names.is_sorted());
}

#[test]
fn selectors_choose() {
    let server = Server::new();
    for (name, labels) in [("a", json!({"app": "x"})), ("b", json!({"app": "y"})), ("c", json!({}))] {
        server.ok("POST", MAPS, json!({"metadata": {"name": name, "labels": labels}}));
    }
    for (query, expected) in [
        ("labelSelector=app%3Dx", vec!["a"]),
        ("labelSelector=app", vec!["a", "b"]),
        ("labelSelector=!app", vec!["c"]),
        ("labelSelector=app+in+(x,y),app!%3Dy", vec!["a"]),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
        ("fieldSelector=metadata.name!%3Db&labelSelector=app", vec!["a"]),
    ] {
        let list = server.ok("GET", &format!("{MAPS}?{query}"), Value::Null);
        let names: Vec<&str> =
            list["items"].as_array().into_iter().flatten().filter_map(|i| i["metadata"]["name"].as_str()).collect();
        assert_eq!(names, expected, "{query}");
    }
}

/// Frames of a watch that has nothing more to say within its timeout.
fn frames(server: &Server, target: &str) -> Vec<(String, String)> {
    let bytes = server.bytes(server.send("GET", target, "", b"", ""));
    let text = String::from_utf8(bytes).expect("frames are text");
    let frame = |line: &str| {
        let frame: Value = serde_json::from_str(line).expect("a frame is JSON");
        let object = &frame["object"];
        let name = object["metadata"]["name"].as_str().or(object["reason"].as_str()).unwrap_or("").to_owned();
        (frame["type"].as_str().unwrap_or("").to_owned(), name)
    };
    text.lines().map(frame).collect()
}

#[test]
fn a_watch_shows_what_is_and_what_comes() {
    let server = Server::new();
    server.ok("POST", MAPS, config_map("a", json!({})));
    let from = server.ok("GET", MAPS, Value::Null)["metadata"]["resourceVersion"].as_str().unwrap_or("").to_owned();
    server.ok("PATCH", &format!("{MAPS}/a"), json!({"metadata": {"labels": {"app": "x"}}}));
    server.ok("POST", MAPS, config_map("b", json!({})));
    server.ok("PATCH", &format!("{MAPS}/a"), json!({"metadata": {"labels": {"app": "y"}}}));
    server.ok("DELETE", &format!("{MAPS}/b"), Value::Null);
    let pairs =
        |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
    for (query, expected) in [
        (
            format!("resourceVersion={from}"),
            pairs(&[("MODIFIED", "a"), ("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]),
        ),
        // An object enters and leaves the selection.
        (format!("resourceVersion={from}&labelSelector=app%3Dx"), pairs(&[("ADDED", "a"), ("DELETED", "a")])),
        ("resourceVersion=0".to_owned(), pairs(&[("ADDED", "a")])),
        (
            "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true".to_owned(),
            pairs(&[("ADDED", "a"), ("BOOKMARK", "")]),
        ),
        ("allowWatchBookmarks=true".to_owned(), pairs(&[("ADDED", "a"), ("BOOKMARK", "")])),
        // One that is still to come is waited for, but what exists cannot be shown as of then.
        ("resourceVersion=99999999".to_owned(), pairs(&[])),
        (
            "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=99999999".to_owned(),
            pairs(&[("ERROR", "Timeout")]),
        ),
    ] {
        let target = format!("{MAPS}?watch=true&timeoutSeconds=1&{query}");
        assert_eq!(frames(&server, &target), expected, "{query}");
    }
}

#[test]
fn pods_end_gracefully_and_finalizers_hold() {
    let server = Server::new();
    server.ok("POST", PODS, pod("p"));
    let pending = server.ok("DELETE", &format!("{PODS}/p"), Value::Null);
    assert_eq!(pending["metadata"]["deletionGracePeriodSeconds"], 30);
    let shorter = server.ok("DELETE", &format!("{PODS}/p?gracePeriodSeconds=5"), Value::Null);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let uid = json!({"preconditions": {"uid": "other"}, "gracePeriodSeconds": 0});
    assert_eq!(server.json("DELETE", &format!("{PODS}/p"), uid).0, 409);
    server.ok("DELETE", &format!("{PODS}/p?gracePeriodSeconds=0"), Value::Null);
    assert_eq!(server.json("GET", &format!("{PODS}/p"), Value::Null).0, 404);

    let mut held = config_map("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.ok("POST", MAPS, held);
    let marked = server.ok("DELETE", &format!("{MAPS}/held"), Value::Null);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    server.ok("PATCH", &format!("{MAPS}/held"), json!({"metadata": {"finalizers": null}}));
    assert_eq!(server.json("GET", &format!("{MAPS}/held"), Value::Null).0, 404);
}

#[test]
fn a_pods_metadata_can_change_though_its_spec_cannot() {
    let server = Server::new();
    let made = server.ok("POST", PODS, pod("p"));
    let changed = server.ok("PATCH", &format!("{PODS}/p"), json!({"metadata": {"finalizers": ["example.com/hold"]}}));
    assert_eq!(changed["spec"], made["spec"]);
    let image = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": "other"}]);
    server.ok("PATCH", &format!("{PODS}/p"), image);
    let (code, _) = server.json("PATCH", &format!("{PODS}/p"), json!({"spec": {"hostNetwork": true}}));
    assert_eq!(code, 422);
    // The default tolerations come back when an update leaves them out.
    let toleration = json!({"key": "a", "operator": "Exists", "effect": "NoSchedule"});
    let tolerates = server.ok("PATCH", &format!("{PODS}/p"), json!({"spec": {"tolerations": [toleration]}}));
    assert_eq!(tolerates["spec"]["tolerations"].as_array().map(Vec::len), Some(3));
}

/// Go's typed clients send options as protobuf, under the resource's own group.
#[test]
fn delete_options_come_under_any_group() {
    let server = Server::new();
    for version in ["storage.k8s.io/v1", "v1"] {
        let class = json!({"metadata": {"name": "c"}, "provisioner": "example.com/p"});
        server.ok("POST", "/apis/storage.k8s.io/v1/storageclasses", class);
        let field = |tag: u8, text: &[u8]| [&[tag << 3 | 2, text.len() as u8], text].concat();
        let type_meta = [field(1, version.as_bytes()), field(2, b"DeleteOptions")].concat();
        let body = [b"k8s\0".to_vec(), field(1, &type_meta), field(2, b"")].concat();
        let target = "/apis/storage.k8s.io/v1/storageclasses/c";
        let answer = server.answer(server.send("DELETE", target, "application/vnd.kubernetes.protobuf", &body, ""));
        assert_eq!(answer.0, 200, "{version}: {}", answer.1);
    }
}

#[test]
fn a_runtime_class_gives_a_pod_its_overhead_and_place() {
    let server = Server::new();
    let class = json!({"metadata": {"name": "c"}, "handler": "h", "overhead": {"podFixed": {"cpu": "10m"}},
        "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k", "operator": "Exists"}]}});
    server.ok("POST", "/apis/node.k8s.io/v1/runtimeclasses", class);
    let with = |name: &str, class: &str, more: Value| {
        let mut pod = pod(name);
        if !class.is_empty() {
            pod["spec"]["runtimeClassName"] = class.into();
        }
        for (field, value) in more.as_object().into_iter().flatten() {
            pod["spec"][field] = value.clone();
        }
        pod
    };
    let made = server.ok("POST", PODS, with("p", "c", json!({"nodeSelector": {"x": "y"}})));
    assert_eq!(made["spec"]["overhead"], json!({"cpu": "10m"}));
    assert_eq!(made["spec"]["nodeSelector"], json!({"a": "b", "x": "y"}));
    assert!(made["spec"]["tolerations"].as_array().is_some_and(|t| t.iter().any(|t| t["key"] == "k")));
    for (pod, expected) in [
        (with("q", "none", json!({})), "pod rejected: RuntimeClass \"none\" not found"),
        (
            with("q", "c", json!({"nodeSelector": {"a": "c"}})),
            "conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = c",
        ),
        (
            with("q", "c", json!({"overhead": {"cpu": "1"}})),
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            with("q", "", json!({"overhead": {"cpu": "1"}})),
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
    ] {
        server.refused("POST", PODS, pod, &format!("403 Forbidden: pods \"q\" is forbidden: {expected}"));
    }
}

/// What is proxied needs a pod with an address, which the tests of the whole node have.
#[test]
fn proxies_lead_to_pods_alone() {
    let server = Server::new();
    server.ok("POST", PODS, pod("p"));
    server.ok("PATCH", &format!("{PODS}/p/status"), json!({"status": {"podIP": "127.0.0.1"}}));
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "web", "port": 80}]}});
    server.ok("POST", services, service);
    for (target, expected) in [
        (format!("{PODS}/p/proxy/"), "400 BadRequest: address not allowed"),
        (format!("{PODS}/ftp:p:1/proxy/"), "400 BadRequest: invalid pod request \"ftp:p:1\""),
        (format!("{PODS}/none/proxy/"), "404 NotFound: pods \"none\" not found"),
        (format!("{services}/s:81/proxy/"), "503 ServiceUnavailable: no service port 81 found for service \"s\""),
        (format!("{services}/s:web/proxy/"), "404 NotFound: endpoints \"s\" not found"),
    ] {
        server.refused("GET", &target, Value::Null, expected);
    }
    let endpoints = json!({"metadata": {"name": "s"}, "subsets": [
        {"addresses": [{"ip": "192.0.2.1"}], "ports": [{"name": "web", "port": 80}]}]});
    server.ok("POST", "/api/v1/namespaces/default/endpoints", endpoints);
    let none = "503 ServiceUnavailable: no endpoints available for service \"s:web\"";
    server.refused("GET", &format!("{services}/s:web/proxy/"), Value::Null, none);
}

#[test]
fn an_evicted_pod_says_so() {
    let server = Server::new();
    let mut on_node = pod("p");
    on_node["spec"]["nodeName"] = "n".into();
    server.ok("POST", PODS, on_node);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    server.ok("POST", &format!("{PODS}/p/eviction"), eviction);
    let evicted = server.ok("GET", &format!("{PODS}/p"), Value::Null);
    assert!(evicted["metadata"]["deletionTimestamp"].is_string());
    let condition = evicted["status"]["conditions"].as_array().and_then(|list| list.last());
    assert_eq!(
        condition.map(|c| (&c["type"], &c["reason"])),
        Some((&json!("DisruptionTarget"), &json!("EvictionByEvictionAPI")))
    );
}

#[test]
fn events_are_found_by_who_reported_them() {
    let server = Server::new();
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"},
        "reportingComponent": "example.com/c", "reportingInstance": "i", "action": "a", "reason": "r", "type": "Normal",
        "eventTime": "2026-11-01T00:00:00.000000Z"});
    server.ok("POST", "/api/v1/namespaces/default/events", event);
    for target in [
        "/api/v1/namespaces/default/events?fieldSelector=source%3Dexample.com/c",
        "/apis/events.k8s.io/v1/namespaces/default/events?fieldSelector=reportingController%3Dexample.com/c",
    ] {
        assert_eq!(server.ok("GET", target, Value::Null)["items"].as_array().map(Vec::len), Some(1), "{target}");
    }
}

#[test]
fn status_and_spec_have_their_own_doors() {
    let server = Server::new();
    let target = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        "status": {"replicas": 9}});
    let made = server.ok("POST", target, deployment);
    assert_eq!((&made["status"], &made["metadata"]["generation"]), (&json!({}), &json!(1)));
    assert_eq!(made["spec"]["strategy"]["type"], "RollingUpdate");
    let change = json!({"spec": {"replicas": 7}, "status": {"replicas": 3}});
    let status = server.ok("PATCH", &format!("{target}/web/status"), change);
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(2), &json!(3)));
    assert_eq!(status["metadata"]["generation"], 1);
    let scale = server.ok("GET", &format!("{target}/web/scale"), Value::Null);
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(2), &json!("a=b")));
    server.ok("PATCH", &format!("{target}/web/scale"), json!({"spec": {"replicas": 4}}));
    let web = server.ok("GET", &format!("{target}/web"), Value::Null);
    assert_eq!((&web["spec"]["replicas"], &web["metadata"]["generation"]), (&json!(4), &json!(2)));
    server.refused(
        "PATCH",
        &format!("{target}/web"),
        json!({"spec": {"selector": {"matchLabels": {"a": "c"}}}}),
        "422 Invalid: Deployment.apps \"web\" is invalid: [spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`, spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable]",
    );
}

#[test]
fn services_get_addresses_and_ports() {
    let server = Server::new();
    let target = "/api/v1/namespaces/default/services";
    let service = |name: &str, extra: Value| {
        let mut object = json!({"metadata": {"name": name}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}});
        mote_schema::patch::merge(&mut object, &extra).expect("both are objects");
        object
    };
    let one = server.ok("POST", target, service("one", json!({"spec": {"type": "NodePort"}})));
    let address = one["spec"]["clusterIP"].as_str().unwrap_or("").to_owned();
    assert!(address.starts_with("10.43."), "{one}");
    let port = one["spec"]["ports"][0]["nodePort"].as_u64().unwrap_or(0);
    assert!((30000..=32767).contains(&port), "{one}");
    let taken = service("two", json!({"spec": {"clusterIP": address}}));
    server.refused("POST", target, taken, &format!("422 Invalid: Service \"two\" is invalid: spec.clusterIPs: Invalid value: [\"{address}\"]: failed to allocate IP {address}: provided IP is already allocated"));
    let headless = server.ok("POST", target, service("three", json!({"spec": {"clusterIP": "None"}})));
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    // An update that leaves out what was allocated keeps it; another type loses its ports.
    let again = service("one", json!({"spec": {"type": "ClusterIP"}}));
    let again = server.ok("PUT", &format!("{target}/one"), again);
    assert_eq!(again["spec"]["clusterIP"].as_str(), Some(address.as_str()));
    assert!(again["spec"]["ports"][0].get("nodePort").is_none(), "{again}");
}

#[test]
fn names_are_generated_and_dry_runs_leave_nothing() {
    let server = Server::new();
    let made = server.ok("POST", MAPS, json!({"metadata": {"generateName": "gen-"}}));
    assert!(made["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("gen-") && name.len() == 9));
    server.ok("POST", &format!("{MAPS}?dryRun=All"), config_map("dry", json!({})));
    assert_eq!(server.json("GET", &format!("{MAPS}/dry"), Value::Null).0, 404);
    let revision = server.api.list_all("", "v1", "configmaps").len();
    assert_eq!(revision, 1);
}
