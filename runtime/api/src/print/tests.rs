//! Cells as kubectl shows them. The clock stands at noon of 2026-01-02.
use super::*;
use mote_schema::{Catalog, Doc, json};

fn table(group: &str, version: &str, kind: &str, object: &Value, options: &Options) -> Value {
    let catalog = Catalog::builtin();
    let kind = catalog.by_kind(group, version, kind).unwrap_or_else(|| panic!("no kind {kind}")).clone();
    let doc = Doc::from_json(object.to_string().as_bytes()).expect("a test's object");
    let object = Object { kind: kind.clone(), doc, revision: 7 };
    let mut out = Vec::new();
    let now = "2026-01-02T12:00:00Z".parse().expect("a time");
    write_table_at(now, &kind, std::slice::from_ref(&object), options, &mut out);
    serde_json::from_slice(&out).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out)))
}

/// Completes `object` with a name and an age of five minutes; the row's cells, joined by " | ".
#[track_caller]
fn check(group: &str, version: &str, kind: &str, mut object: Value, expected: &str) {
    let metadata = object["metadata"].take();
    object["metadata"] = json!({"name": "it", "namespace": "ns", "creationTimestamp": "2026-01-02T11:55:00Z"});
    if let Value::Object(metadata) = metadata {
        for (key, value) in metadata {
            object["metadata"][key] = value;
        }
    }
    let table = table(group, version, kind, &object, &Options::default());
    let cells = table["rows"][0]["cells"].as_array().expect("cells");
    assert_eq!(cells.len(), table["columnDefinitions"].as_array().expect("columns").len(), "{cells:?}");
    for (cell, column) in cells.iter().zip(table["columnDefinitions"].as_array().expect("columns")) {
        let fits = match column["type"].as_str() {
            // Upstream's own tables put numbers into columns of strings.
            Some("integer") => cell.is_i64(),
            Some("boolean") => cell.is_boolean() || kind == "CronJob",
            _ => true,
        };
        assert!(fits, "{} is {cell}", column["name"]);
    }
    let text = |cell: &Value| cell.as_str().map_or(cell.to_string(), str::to_owned);
    assert_eq!(cells.iter().map(text).collect::<Vec<_>>().join(" | "), expected);
}

#[test]
fn every_printed_kind_has_cells_for_its_columns() {
    let catalog = Catalog::builtin();
    for kind in catalog.kinds.iter().filter(|kind| !kind.virtual_kind) {
        let empty = json!({"metadata": {"name": "it"}});
        let table = table(&kind.group, &kind.version, &kind.kind, &empty, &Options::default());
        let (columns, cells) = (&table["columnDefinitions"], &table["rows"][0]["cells"]);
        // An IPAddress has an age without a column, upstream too.
        let more = usize::from(kind.kind == "IPAddress");
        assert_eq!(columns.as_array().map(|list| list.len() + more), cells.as_array().map(Vec::len), "{}", kind.kind);
    }
    for printer in kinds::PRINTERS {
        assert!(catalog.kinds.iter().chain(&catalog.parts).any(|kind| std::ptr::eq(kinds::printer(kind), printer)));
    }
}

#[test]
fn the_frame_of_a_table() {
    let pod = json!({"metadata": {"name": "a", "uid": "u"}, "status": {"phase": "Succeeded"}});
    let options = Options { metadata: json!({"resourceVersion": "9", "continue": "c"}), ..Options::default() };
    let whole = table("", "v1", "Pod", &pod, &options);
    assert_eq!(whole["kind"], "Table");
    assert_eq!(whole["apiVersion"], "meta.k8s.io/v1");
    assert_eq!(whole["metadata"], options.metadata);
    let column = |name, format, priority| json!({"name": name, "type": "string", "format": format, "description": name, "priority": priority});
    assert_eq!(whole["columnDefinitions"][0], column("Name", "name", 0));
    assert_eq!(whole["columnDefinitions"][7], column("Nominated Node", "", 1));
    let row = &whole["rows"][0];
    let metadata = json!({"name": "a", "uid": "u", "resourceVersion": "7"});
    assert_eq!(
        row["object"],
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
    );
    assert_eq!(row["conditions"][0]["type"], "Completed");
    let frame = Options { include: Include::None, omit_columns: true, ..Options::default() };
    let frame = table("", "v1", "Pod", &pod, &frame);
    assert_eq!((&frame["columnDefinitions"], &frame["metadata"]), (&Value::Null, &json!({})));
    assert_eq!(frame["rows"][0]["object"], Value::Null);
    let full = table("", "v1", "Pod", &pod, &Options { include: Include::Object, ..Options::default() });
    assert_eq!(full["rows"][0]["object"]["kind"], "Pod");
    assert_eq!(full["rows"][0]["object"]["status"]["phase"], "Succeeded");
    assert_eq!(Include::parse("x").map_err(|status| status.code), Err(400));
}

fn pod(spec: Value, status: Value) -> Value {
    json!({"spec": spec, "status": status})
}

fn running(name: &str, ready: bool, restarts: u32) -> Value {
    json!({"name": name, "ready": ready, "restartCount": restarts, "state": {"running": {}}})
}

#[test]
fn pods() {
    let check = |pod: Value, expected: &str| check("", "v1", "Pod", pod, &format!("it | {expected}"));
    let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    check(pod(two.clone(), json!({"phase": "Pending"})), "0/2 | Pending | 0 | 5m | <none> | <none> | <none> | <none>");
    let mut placed = two.clone();
    placed["nodeName"] = json!("n1");
    placed["readinessGates"] = json!([{"conditionType": "x"}, {"conditionType": "y"}]);
    let status = json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd::1"}],
        "conditions": [{"type": "x", "status": "True"}, {"type": "y", "status": "False"}],
        "containerStatuses": [running("a", true, 0), running("b", false, 0)]});
    check(pod(placed, status), "1/2 | Running | 0 | 5m | 10.0.0.1 | n1 | <none> | 1/2");

    let reason = |statuses: Value, expected: &str| {
        let status = json!({"phase": "Running", "containerStatuses": statuses});
        check(pod(two.clone(), status), &format!("{expected} | 5m | <none> | <none> | <none> | <none>"));
    };
    let last = |time: &str| json!({"terminated": {"exitCode": 1, "finishedAt": time}});
    let mut looping = json!({"name": "a", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
    looping["lastState"] = last("2026-01-02T11:59:55Z");
    let mut other = running("b", true, 1);
    other["lastState"] = last("2026-01-02T11:00:00Z");
    reason(json!([looping, other]), "1/2 | CrashLoopBackOff | 4 (5s ago)");
    let ended = |code: i32, reason: &str, signal: i32| json!({"name": "a", "state": {"terminated": {"exitCode": code, "reason": reason, "signal": signal}}});
    reason(json!([ended(0, "Completed", 0), ended(1, "Error", 0)]), "0/2 | Error | 0");
    reason(json!([ended(2, "", 0), ended(0, "Completed", 0)]), "0/2 | ExitCode:2 | 0");
    reason(json!([ended(1, "", 9)]), "0/2 | Signal:9 | 0");
    reason(json!([ended(0, "Completed", 0), running("b", true, 0)]), "1/2 | NotReady | 0");
}

#[test]
fn pods_that_start_and_end() {
    let line = |pod: Value, expected: &str| {
        check("", "v1", "Pod", pod, &format!("it | {expected} | 0 | 5m | <none> | <none> | <none> | <none>"));
    };
    let spec = json!({"initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
        "containers": [{"name": "a"}]});
    let with = |init: Value| pod(spec.clone(), json!({"phase": "Pending", "initContainerStatuses": init}));
    let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
    line(with(json!([{"name": "i", "state": {"running": {}}}])), "0/2 | Init:0/2");
    line(with(json!([done, {"name": "s", "state": {"waiting": {"reason": "PodInitializing"}}}])), "0/2 | Init:1/2");
    line(with(json!([{"name": "i", "state": {"waiting": {"reason": "ErrImagePull"}}}])), "0/2 | Init:ErrImagePull");
    line(with(json!([{"name": "i", "state": {"terminated": {"exitCode": 3}}}])), "0/2 | Init:ExitCode:3");
    line(with(json!([{"name": "i", "state": {"terminated": {"exitCode": 3, "reason": "Error"}}}])), "0/2 | Init:Error");
    let sidecar = json!({"name": "s", "started": true, "ready": true, "state": {"running": {}}});
    line(with(json!([done, sidecar])), "1/2 | Pending");

    let one = json!({"containers": [{"name": "a"}]});
    let condition = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]);
    line(pod(one.clone(), json!({"phase": "Pending", "conditions": condition})), "0/1 | SchedulingGated");
    line(pod(one.clone(), json!({"phase": "Failed", "reason": "Evicted"})), "0/1 | Evicted");
    let deleted = |phase: &str, reason: &str| {
        let mut pod = pod(one.clone(), json!({"phase": phase, "reason": reason}));
        pod["metadata"] = json!({"deletionTimestamp": "2026-01-02T12:00:30Z"});
        pod
    };
    line(deleted("Running", ""), "0/1 | Terminating");
    line(deleted("Running", "NodeLost"), "0/1 | Unknown");
    line(deleted("Succeeded", ""), "0/1 | Succeeded");
}

#[test]
fn workloads() {
    let template = json!({"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y"}],
        "nodeSelector": {"z": "1", "disk": "ssd"}}});
    let selector = json!({"matchLabels": {"app": "x"}, "matchExpressions": [{"key": "t", "operator": "In", "values": ["b", "a"]}]});
    let spec = json!({"replicas": 3, "template": template, "selector": selector});
    let status = json!({"replicas": 2, "readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1});
    let object = json!({"spec": spec, "status": status});
    check("apps", "v1", "Deployment", object.clone(), "it | 1/3 | 2 | 1 | 5m | a,b | x:1,y | app=x,t in (a,b)");
    check("apps", "v1", "ReplicaSet", object.clone(), "it | 3 | 2 | 1 | 5m | a,b | x:1,y | app=x,t in (a,b)");
    check("apps", "v1", "StatefulSet", object.clone(), "it | 1/3 | 5m | a,b | x:1,y");
    let mut daemon = object;
    daemon["status"] = json!({"desiredNumberScheduled": 5, "currentNumberScheduled": 4, "numberReady": 3,
        "updatedNumberScheduled": 2, "numberAvailable": 1});
    check(
        "apps",
        "v1",
        "DaemonSet",
        daemon,
        "it | 5 | 4 | 3 | 2 | 1 | disk=ssd,z=1 | 5m | a,b | x:1,y | app=x,t in (a,b)",
    );
    let owner = json!([{"kind": "DaemonSet", "apiVersion": "apps/v1", "name": "d", "controller": true}]);
    let revision = json!({"metadata": {"ownerReferences": owner}, "revision": 4});
    check("apps", "v1", "ControllerRevision", revision, "it | daemonset.apps/d | 4 | 5m");
}

#[test]
fn jobs() {
    let job = |spec: Value, status: Value, expected: &str| {
        let expected = format!("it | {expected} | 5m |  |  | <none>");
        check("batch", "v1", "Job", json!({"spec": spec, "status": status}), &expected);
    };
    let complete = json!([{"type": "Complete", "status": "True"}]);
    let times = json!({"startTime": "2026-01-02T11:55:00Z", "completionTime": "2026-01-02T11:55:10Z",
        "succeeded": 1, "conditions": complete});
    job(json!({"completions": 1}), times, "Complete | 1/1 | 10s");
    job(json!({"parallelism": 3}), json!({"startTime": "2026-01-02T11:59:00Z"}), "Running | 0/1 of 3 | 60s");
    job(json!({}), json!({"conditions": [{"type": "Failed", "status": "True"}]}), "Failed | 0/1 | ");
    let cron = json!({"spec": {"schedule": "* * * * *", "suspend": false},
        "status": {"active": [{}], "lastScheduleTime": "2026-01-02T11:59:50Z"}});
    check("batch", "v1", "CronJob", cron, "it | * * * * * | <none> | False | 1 | 10s | 5m |  |  | <none>");
    let metrics = json!([
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
        {"type": "Pods", "pods": {"metric": {"name": "q"}, "target": {"averageValue": "100m"}}},
        {"type": "External", "external": {"target": {"value": "30"}}},
    ]);
    let current = json!([{"type": "Resource", "resource": {"current": {"averageUtilization": 41}}}]);
    let hpa = json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 9, "metrics": metrics},
        "status": {"currentReplicas": 2, "currentMetrics": current}});
    let expected = "it | Deployment/d | cpu: 41%/80%, <unknown>/100m + 1 more... | <unset> | 9 | 2 | 5m";
    check("autoscaling", "v2", "HorizontalPodAutoscaler", hpa, expected);
}

#[test]
fn services_and_endpoints() {
    let service = |spec: Value, status: Value, expected: &str| {
        check("", "v1", "Service", json!({"spec": spec, "status": status}), &format!("it | {expected}"));
    };
    let ports = json!([{"port": 80, "protocol": "TCP"}, {"port": 443, "nodePort": 30443, "protocol": "TCP"}]);
    let spec =
        json!({"type": "NodePort", "clusterIPs": ["10.43.0.9"], "ports": ports, "selector": {"b": "2", "a": "1"}});
    service(spec, json!({}), "NodePort | 10.43.0.9 | <none> | 80/TCP,443:30443/TCP | 5m | a=1,b=2");
    service(
        json!({"type": "ClusterIP", "clusterIPs": ["None"]}),
        json!({}),
        "ClusterIP | None | <none> | <none> | 5m | <none>",
    );
    let balancer =
        json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"hostname": "a.example"}, {"ip": "192.0.2.1"}]}});
    let spec = json!({"type": "LoadBalancer", "externalIPs": ["198.51.100.1"]});
    service(
        spec,
        balancer,
        "LoadBalancer | <none> | 192.0.2.1,192.0.2.2,a.example,198.51.100.1 | <none> | 5m | <none>",
    );
    service(json!({"type": "LoadBalancer"}), json!({}), "LoadBalancer | <none> | <pending> | <none> | 5m | <none>");
    let external = json!({"type": "ExternalName", "externalName": "x.example"});
    service(external, json!({}), "ExternalName | <none> | x.example | <none> | 5m | <none>");

    let addresses = json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"ip": "fd::1"}]);
    let endpoints = json!({"subsets": [{"addresses": addresses, "ports": [{"port": 80}, {"port": 81}]}]});
    check("", "v1", "Endpoints", endpoints, "it | 10.0.0.1:80,10.0.0.2:80,[fd::1]:80 + 3 more... | 5m");
    check("", "v1", "Endpoints", json!({}), "it | <none> | 5m");
    let slice = json!({"addressType": "IPv4", "ports": [{"port": 80}, {"name": "x"}, {}],
        "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}]});
    check("discovery.k8s.io", "v1", "EndpointSlice", slice, "it | IPv4 | 80,x,* | 10.0.0.1,10.0.0.2 | 5m");
    check(
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        json!({"addressType": "IPv6"}),
        "it | IPv6 | <unset> | <unset> | 5m",
    );
    let rules = json!([{"host": "a"}, {}, {"host": "b"}, {"host": "c"}, {"host": "d"}]);
    let ingress = json!({"spec": {"ingressClassName": "mote", "rules": rules, "tls": [{}]}});
    check("networking.k8s.io", "v1", "Ingress", ingress, "it | mote | a,b,c + 2 more... |  | 80, 443 | 5m");
    check("networking.k8s.io", "v1", "Ingress", json!({}), "it | <none> | * |  | 80 | 5m");
}

#[test]
fn nodes_events_and_the_rest() {
    let node = json!({"metadata": {"labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge"}},
        "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "Unknown"}], "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "kernelVersion": "6.1", "architecture": "arm64"}}});
    check(
        "",
        "v1",
        "Node",
        node,
        "it | NotReady,SchedulingDisabled | edge,worker | 5m | v1.36.0 | 192.0.2.1 | <none> | <unknown> | 6.1 (arm64) | <unknown>",
    );
    let event = json!({"type": "Normal", "reason": "Pulled", "message": " done\n", "count": 4,
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"}, "source": {"component": "kubelet", "host": "n"},
        "firstTimestamp": "2026-01-02T11:00:00Z", "lastTimestamp": "2026-01-02T11:59:30Z"});
    let expected = "30s | Normal | Pulled | pod/p | spec.containers{a} | kubelet, n | done | 60m | 4 | it";
    check("", "v1", "Event", event, expected);
    let event = json!({"type": "Warning", "note": "n", "regarding": {"kind": "Node"}, "reportingController": "c",
        "eventTime": "2026-01-02T11:59:59.123456Z"});
    check("events.k8s.io", "v1", "Event", event, "0s | Warning |  | node |  | c | n | 0s | 1 | it");
    check("", "v1", "Secret", json!({"type": "Opaque", "data": {"a": "", "b": ""}}), "it | Opaque | 2 | 5m");
    check("", "v1", "ConfigMap", json!({"data": {"a": ""}, "binaryData": {"b": ""}}), "it | 2 | 5m");
    check("", "v1", "Namespace", json!({"status": {"phase": "Active"}}), "it | Active | 5m");
    let quota = json!({"status": {"hard": {"pods": "10", "limits.cpu": "2", "cpu": "1500m"}, "used": {"pods": "3", "cpu": "0.5"}}});
    check("", "v1", "ResourceQuota", quota, "it | cpu: 500m/1500m, pods: 3/10 | limits.cpu: 0/2 | 5m");
    let claim = json!({"spec": {"volumeName": "v", "storageClassName": "c", "volumeMode": "Filesystem"},
        "status": {"phase": "Bound", "capacity": {"storage": "1024Mi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"]}});
    let expected = "it | Bound | v | 1Gi | RWO,RWX | c | <unset> | 5m | Filesystem";
    check("", "v1", "PersistentVolumeClaim", claim, expected);
    let subjects = json!([{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}, {"kind": "User", "name": "v"}]);
    let binding = json!({"roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": subjects});
    check("rbac.authorization.k8s.io", "v1", "RoleBinding", binding, "it | ClusterRole/r | 5m | u, v |  | n/s");
    check("rbac.authorization.k8s.io", "v1", "Role", json!({}), "it | 2026-01-02T11:55:00Z");
    let budget = json!({"spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 1}});
    check("policy", "v1", "PodDisruptionBudget", budget, "it | 50% | N/A | 1 | 5m");
}
