//! What a namespace allows, what nodes and owners may change, and which addresses there are: in-tree admission, quotas,
//! ranges and garbage collection, from outside with kubectl. An API server alone with its controllers; no pod runs.
use mote_tests::{Kubectl, Server, eventually};
use serde_json::json;
use std::{sync::OnceLock, thread};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::shared(""))
}

fn namespace(purpose: &str) -> Kubectl {
    server().kubectl.namespace(purpose)
}

#[track_caller]
fn refused(kubectl: &Kubectl, line: &str, says: &str) {
    let answer = kubectl.fails(line);
    assert!(answer.contains(says), "wanted {says:?}, got {answer}");
}

#[track_caller]
fn apply_refused(kubectl: &Kubectl, manifest: &str, says: &str) {
    let output = kubectl.with_input(&["apply", "-f", "-"], Some(manifest));
    assert!(!output.success && output.stderr.contains(says), "wanted {says:?}, got {output}");
}

fn used(kubectl: &Kubectl, quota: &str, name: &str) -> Result<String, String> {
    kubectl.field(&format!("resourcequota/{quota}"), &format!(".status.used.{}", name.replace('.', "\\.")))
}

#[track_caller]
fn eventually_used(kubectl: &Kubectl, name: &str, amount: &str) {
    eventually(&format!("{name} is {amount}"), 10, || match used(kubectl, "q", name)? {
        found if found == amount => Ok(()),
        found => Err(format!("it is {found:?}")),
    });
}

const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "NAME"}, "spec": {"containers": [
    {"name": "c", "image": "localhost/none", "resources": {"requests": {"cpu": "CPU"}, "limits": {"cpu": "CPU"}}}]}}"#;

fn pod(name: &str, cpu: &str) -> String {
    POD.replace("NAME", name).replace("CPU", cpu)
}

#[test]
fn a_quota_is_charged_held_and_given_back() {
    let kubectl = namespace("quota");
    kubectl.ok("create quota q --hard=pods=2,requests.cpu=1,limits.cpu=2,services=5,services.nodeports=1,count/deployments.apps=1");
    eventually_used(&kubectl, "pods", "0");
    refused(
        &kubectl,
        "run plain --image=localhost/none",
        "failed quota: q: must specify limits.cpu for: plain; requests.cpu for: plain",
    );
    kubectl.apply(&pod("one", "600m"));
    assert_eq!(used(&kubectl, "q", "requests.cpu").unwrap(), "600m");
    apply_refused(
        &kubectl,
        &pod("two", "500m"),
        "pods \"two\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1",
    );
    kubectl.ok("create service nodeport a --tcp=80");
    refused(
        &kubectl,
        "create service nodeport b --tcp=80",
        "exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1",
    );
    kubectl.ok("create deployment d --image=localhost/none --replicas=0");
    refused(
        &kubectl,
        "create deployment e --image=localhost/none",
        "exceeded quota: q, requested: count/deployments.apps=1",
    );
    kubectl.ok("delete pod one --now");
    kubectl.ok("delete service a");
    for name in ["pods", "requests.cpu", "services", "services.nodeports"] {
        eventually_used(&kubectl, name, "0");
    }
    // A dry run is held to the quota, and costs nothing.
    kubectl.with_input(&["apply", "--dry-run=server", "-f", "-"], Some(&pod("dry", "1")));
    assert_eq!(used(&kubectl, "q", "pods").unwrap(), "0");
    kubectl.ok_args(&["patch", "resourcequota", "q", "--type=merge", "-p", r#"{"spec":{"hard":{"pods":"7"}}}"#]);
    kubectl.eventually_field("resourcequota/q", ".status.hard.pods", "7", 10);
}

#[test]
fn parallel_creates_never_overshoot() {
    let kubectl = namespace("race");
    let others: usize = kubectl.ok("get configmaps -o name").lines().count();
    kubectl.ok(&format!("create quota q --hard=configmaps={}", others + 5));
    eventually_used(&kubectl, "configmaps", &others.to_string());
    let created = thread::scope(|scope| {
        let tries: Vec<_> = (0..20)
            .map(|at| {
                let path = format!("/api/v1/namespaces/{}/configmaps", kubectl.name());
                scope.spawn(move || {
                    let object =
                        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c{at}")}});
                    server().client().post(&path, &object).code
                })
            })
            .collect();
        tries.into_iter().filter_map(|one| one.join().ok()).filter(|code| *code == 201).count()
    });
    assert_eq!(created, 5);
    assert_eq!(used(&kubectl, "q", "configmaps").unwrap(), (others + 5).to_string());
}

#[test]
fn scopes_choose_what_a_quota_counts() {
    let kubectl = namespace("scopes");
    kubectl.ok("create quota q --hard=pods=1 --scopes=BestEffort");
    eventually_used(&kubectl, "pods", "0");
    kubectl.apply(&pod("counted-not", "100m"));
    kubectl.ok("run first --image=localhost/none");
    eventually_used(&kubectl, "pods", "1");
    refused(
        &kubectl,
        "run second --image=localhost/none",
        "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1",
    );
}

#[test]
fn limit_ranges_default_and_bound() {
    let kubectl = namespace("limits");
    kubectl.apply(
        r#"{"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [
            {"type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "1"}, "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "200m"}},
            {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}]}}"#,
    );
    kubectl.ok("run plain --image=localhost/none");
    assert_eq!(kubectl.field("pod/plain", ".spec.containers[0].resources.limits.cpu").unwrap(), "500m");
    assert_eq!(kubectl.field("pod/plain", ".spec.containers[0].resources.requests.cpu").unwrap(), "200m");
    assert_eq!(
        kubectl.field("pod/plain", ".metadata.annotations.kubernetes\\.io/limit-ranger").unwrap(),
        "LimitRanger plugin set: cpu request for container plain; cpu limit for container plain"
    );
    apply_refused(
        &kubectl,
        &pod("big", "2"),
        "pods \"big\" is forbidden: maximum cpu usage per Container is 1, but limit is 2",
    );
    apply_refused(&kubectl, &pod("small", "10m"), "minimum cpu usage per Container is 50m, but request is 10m");
    apply_refused(
        &kubectl,
        r#"{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}}"#,
        "maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi",
    );
}

#[test]
fn pod_security_enforces_warns_and_judges_what_is_there() {
    let kubectl = namespace("security");
    kubectl.ok("run plain --image=localhost/none");
    let label = format!("label namespace {} pod-security.kubernetes.io/enforce", kubectl.name());
    let output = kubectl.run(&format!("{label}=restricted"));
    assert!(output.success && output.stderr.contains("existing pods in namespace"), "{output}");
    assert!(output.stderr.contains("plain: allowPrivilegeEscalation != false, unrestricted capabilities"), "{output}");
    refused(
        &kubectl,
        "run more --image=localhost/none",
        "pods \"more\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"more\" must set securityContext.allowPrivilegeEscalation=false)",
    );
    let output = kubectl.run("create deployment web --image=localhost/none --replicas=0");
    assert!(output.success && output.stderr.contains("would violate PodSecurity \"restricted:latest\""), "{output}");
    refused(&kubectl, &format!("{label}=strict --overwrite"), "must be one of privileged, baseline, restricted");
    kubectl.ok(&format!("{label}=baseline --overwrite"));
    kubectl.ok("run fine --image=localhost/none");
    let host = r#"--overrides={"spec":{"hostNetwork":true}}"#;
    let output = kubectl.with_input(&["run", "host", "--image=localhost/none", host], None);
    assert!(
        output.stderr.contains("violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"),
        "{output}"
    );
}

#[test]
fn classes_by_default() {
    let kubectl = namespace("classes");
    kubectl.apply(
        r#"{"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "spec": {"controller": "example.com/c"},
             "metadata": {"name": "edge", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}},
            {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "example.com/p",
             "metadata": {"name": "disk", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}},
            {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "usual"}, "value": 7}]}"#,
    );
    kubectl.ok("create ingress web --rule=example.com/*=web:80");
    assert_eq!(kubectl.field("ingress/web", ".spec.ingressClassName").unwrap(), "edge");
    kubectl.apply(
        r#"{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}"#,
    );
    assert_eq!(kubectl.field("pvc/c", ".spec.storageClassName").unwrap(), "disk");
    kubectl.apply(
        r#"{"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "classes"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "storageClassName": "disk",
            "hostPath": {"path": "/nowhere"}}}"#,
    );
    kubectl.ok("wait pvc/c --for=jsonpath={.status.phase}=Bound --timeout=60s");
    let grow = r#"{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}"#;
    let output = kubectl.with_input(&["patch", "pvc", "c", "--type=merge", "-p", grow], None);
    assert!(output.stderr.contains("the storageclass that provisions the pvc must support resize"), "{output}");
    let usual = r#"--overrides={"spec":{"priorityClassName":"usual"}}"#;
    kubectl.ok_args(&["run", "p", "--image=localhost/none", usual]);
    assert_eq!(kubectl.field("pod/p", ".spec.priority").unwrap(), "7");
    let none = r#"--overrides={"spec":{"priorityClassName":"none"}}"#;
    let output = kubectl.with_input(&["run", "n", "--image=localhost/none", none], None);
    assert!(output.stderr.contains("no PriorityClass with name none was found"), "{output}");
}

#[test]
fn cluster_addresses_have_objects_and_ranges_outlive_nothing() {
    let kubectl = namespace("ranges");
    assert_eq!(kubectl.field("servicecidr/kubernetes", ".status.conditions[0].status").unwrap(), "True");
    kubectl.ok("create service clusterip a --tcp=80");
    let address = kubectl.field("service/a", ".spec.clusterIP").unwrap();
    let parent = kubectl.field(&format!("ipaddress/{address}"), ".spec.parentRef.name").unwrap();
    assert_eq!(parent, "a");
    refused(
        &kubectl,
        &format!("create service clusterip b --tcp=80 --clusterip={address}"),
        "provided IP is already allocated",
    );
    let outside = "create service clusterip b --tcp=80 --clusterip=172.30.9.5";
    refused(
        &kubectl,
        outside,
        "failed to allocate IP 172.30.9.5: the provided network does not match the current range",
    );
    kubectl.apply(
        r#"{"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"}, "spec": {"cidrs": ["172.30.9.0/28"]}}"#,
    );
    kubectl.eventually_field("servicecidr/more", ".status.conditions[0].status", "True", 10);
    kubectl.ok(outside);
    kubectl.ok("delete servicecidr more --wait=false");
    kubectl.eventually_field("servicecidr/more", ".status.conditions[0].reason", "Terminating", 10);
    // Taken away by hand, it comes back: the Service has it.
    kubectl.ok(&format!("delete ipaddress {address}"));
    kubectl.eventually_field(&format!("ipaddress/{address}"), ".spec.parentRef.name", "a", 10);
    kubectl.ok("delete service a b");
    eventually("the range is gone", 10, || match kubectl.field("servicecidr/more", ".metadata.name") {
        Ok(found) => Err(format!("{found} is there")),
        Err(_) => Ok(()),
    });
    refused(&kubectl, &format!("get ipaddress {address}"), "not found");
}

#[test]
fn allocations_survive_a_restart() {
    let mut server = Server::start("");
    server.kubectl.ok("create service nodeport web --tcp=80");
    let at = |server: &Server, path: &str| server.kubectl.field("service/web", path).unwrap();
    let (address, port) = (at(&server, ".spec.clusterIP"), at(&server, ".spec.ports[0].nodePort"));
    server.stop(libc::SIGTERM);
    server.start_again();
    refused(
        &server.kubectl,
        &format!("create service clusterip b --tcp=80 --clusterip={address}"),
        "already allocated",
    );
    refused(&server.kubectl, &format!("create service nodeport b --tcp=80 --node-port={port}"), "already allocated");
    assert_eq!(server.kubectl.field(&format!("ipaddress/{address}"), ".spec.parentRef.name").unwrap(), "web");
}

#[test]
fn kubelets_change_their_own_node_only() {
    let kubectl = namespace("nodes");
    let node = |name: &str| format!(r#"{{"apiVersion": "v1", "kind": "Node", "metadata": {{"name": "{name}"}}}}"#);
    for name in ["own", "other"] {
        kubectl.apply(&node(name));
    }
    let kubelet = "--as=system:node:own --as-group=system:nodes --as-group=system:authenticated";
    // kubectl would read the other node first, which the node authorizer refuses.
    let headers = [
        ("Content-Type", "application/merge-patch+json"),
        ("Impersonate-User", "system:node:own"),
        ("Impersonate-Group", "system:nodes"),
    ];
    let change = br#"{"metadata": {"annotations": {"a": "b"}}}"#;
    let answer = server().client().request("PATCH", "/api/v1/nodes/other", &headers, change);
    let says = "node \\\"own\\\" is not allowed to modify node \\\"other\\\"";
    assert!(answer.code == 403 && answer.text().contains(says), "{}", answer.text());
    kubectl.ok(&format!("annotate node own a=b {kubelet}"));
    let answer = kubectl.fails(&format!("label node own node-role.kubernetes.io/x=y {kubelet}"));
    assert!(answer.contains("is not allowed to modify labels: node-role.kubernetes.io/x"), "{answer}");
    let answer = kubectl.fails(&format!("taint node own a=b:NoSchedule {kubelet}"));
    assert!(answer.contains("is not allowed to modify taints"), "{answer}");
    kubectl.ok("delete node own other");
}

#[test]
fn owners_are_set_by_who_may_and_live_in_the_same_namespace() {
    let (kubectl, elsewhere) = (namespace("owners"), namespace("owners"));
    kubectl.ok("create configmap owner");
    elsewhere.ok("create configmap owner");
    let uid = |of: &Kubectl| of.field("configmap/owner", ".metadata.uid").unwrap();
    let owned = |name: &str, uid: &str, blocks: bool| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "blockOwnerDeletion": blocks}]}})
        .to_string()
    };
    kubectl.apply(&owned("child", &uid(&kubectl), true));
    // May make ConfigMaps, but not keep an owner.
    kubectl.ok("create role maker --verb=create,get,patch --resource=configmaps");
    kubectl.ok("create rolebinding maker --role=maker --user=maker");
    let manifest = owned("other", &uid(&kubectl), true);
    let output = kubectl.with_input(&["create", "-f", "-", "--as=maker"], Some(&manifest));
    let says = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on";
    assert!(!output.success && output.stderr.contains(says), "{output}");
    kubectl.with_input(&["create", "-f", "-", "--as=maker"], Some(&owned("plain", &uid(&kubectl), false)));
    // An owner in another namespace is none: the object goes, and an Event says why.
    kubectl.apply(&owned("stray", &uid(&elsewhere), false));
    eventually("the stray is gone", 10, || match kubectl.field("configmap/stray", ".metadata.name") {
        Ok(_) => Err("it is there".into()),
        Err(_) => Ok(()),
    });
    eventually("the event", 10, || {
        let events = kubectl.ok("get events -o jsonpath={.items[*].reason}");
        if events.contains("OwnerRefInvalidNamespace") { Ok(()) } else { Err(events) }
    });
    kubectl.ok("delete configmap owner --cascade=foreground");
    refused(&kubectl, "get configmap child", "not found");
}

#[test]
fn old_kinds_keep_their_dependents() {
    let kubectl = namespace("orphans");
    kubectl.ok("create job j --image=localhost/none");
    eventually("the pod", 10, || {
        let pods = kubectl.ok("get pods -o name");
        if pods.contains("pod/j-") { Ok(()) } else { Err(pods) }
    });
    let path = format!("/apis/batch/v1/namespaces/{}/jobs/j", kubectl.name());
    let answer = server().client().request("DELETE", &path, &[], b"");
    assert_eq!(answer.code, 200, "{}", answer.text());
    eventually("the job is gone", 10, || match kubectl.field("job/j", ".metadata.name") {
        Ok(_) => Err("it is there".into()),
        Err(_) => Ok(()),
    });
    assert!(kubectl.ok("get pods -o name").contains("pod/j-"));
}

#[test]
fn a_pod_with_its_namespace_waits_for_the_account() {
    let kubectl = &server().kubectl;
    kubectl.apply(
        r#"{"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "at-once"}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "at-once"},
             "spec": {"containers": [{"name": "c", "image": "localhost/none"}]}}]}"#,
    );
    let within = kubectl.within("at-once");
    assert_eq!(within.field("pod/p", ".spec.serviceAccountName").unwrap(), "default");
    kubectl.ok("delete namespace at-once --wait=false");
    let answer = within.fails("create configmap late");
    assert!(answer.contains("because it is being terminated") || answer.contains("not found"), "{answer}");
}
