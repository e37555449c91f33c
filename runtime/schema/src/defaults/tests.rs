//! Cleaned and defaulted objects against what kube-apiserver answers.
use crate::{Catalog, defaults, prune};
use crate::{Value, json};

fn check(group: &str, kind: &str, mut value: Value, want: Value) {
    let catalog = Catalog::builtin();
    let kind = catalog.kinds.iter().find(|k| k.group == group && k.kind == kind).unwrap();
    let complaints = prune::clean(kind, &mut value).unwrap();
    assert_eq!(complaints, [""; 0]);
    defaults::apply(kind, &mut value);
    assert_eq!(value, want, "{}", kind.kind);
    defaults::apply(kind, &mut value);
    assert_eq!(value, want, "a second time: {}", kind.kind);
}

#[test]
fn pod() {
    check(
        "",
        "Pod",
        json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "nginx",
            "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}},
            "resources": {"limits": {"cpu": "0.1"}},
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}],
            "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "x"}}]}}),
        json!({"metadata": {"name": "a"}, "status": {}, "spec": {
            "containers": [{"name": "c", "image": "nginx", "imagePullPolicy": "Always",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                    "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                "resources": {"limits": {"cpu": "100m"}, "requests": {"cpu": "100m"}},
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}}],
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {}, "enableServiceLinks": true,
            "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler"}}),
    );
}

#[test]
fn deployment() {
    check(
        "apps",
        "Deployment",
        json!({"metadata": {"name": "a"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}, "creationTimestamp": null},
            "spec": {"containers": [{"name": "c", "image": "r:5000/x:v1", "resources": {"limits": {"cpu": 1}}}]}}}}),
        json!({"metadata": {"name": "a"}, "status": {}, "spec": {"replicas": 1, "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600, "selector": {"matchLabels": {"a": "b"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "r:5000/x:v1",
                "imagePullPolicy": "IfNotPresent", "resources": {"limits": {"cpu": "1"}},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {},
                "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler"}}}}),
    );
}

#[test]
fn service_and_namespace() {
    check(
        "",
        "Service",
        json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}], "type": "NodePort"}}),
        json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            "type": "NodePort", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "externalTrafficPolicy": "Cluster"}, "status": {"loadBalancer": {}}}),
    );
    check(
        "",
        "Namespace",
        json!({"metadata": {"name": "a"}}),
        json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}}, "spec": {},
            "status": {"phase": "Active"}}),
    );
}

#[test]
fn job() {
    let template = json!({"metadata": {}, "spec": {"containers": null, "restartPolicy": "Never",
        "dnsPolicy": "ClusterFirst", "securityContext": {}, "terminationGracePeriodSeconds": 30,
        "schedulerName": "default-scheduler"}});
    check(
        "batch",
        "Job",
        json!({"metadata": {"name": "a"}, "spec": {"template": {"spec": {"containers": [], "restartPolicy": "Never"}}}}),
        json!({"metadata": {"name": "a"}, "status": {}, "spec": {"template": template, "completions": 1, "parallelism": 1,
            "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false, "manualSelector": false,
            "podReplacementPolicy": "TerminatingOrFailed"}}),
    );
}

#[test]
fn aliases() {
    check(
        "",
        "Secret",
        json!({"metadata": {"name": "a"}, "data": {"a": "Yg==", "c": "ZA=="}, "stringData": {"a": "x"}}),
        json!({"metadata": {"name": "a"}, "data": {"a": "eA==", "c": "ZA=="}, "type": "Opaque"}),
    );
    check(
        "",
        "Node",
        json!({"metadata": {"name": "a"}, "spec": {"podCIDR": "10.0.0.0/24"}}),
        json!({"metadata": {"name": "a"}, "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}, "status": {
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}}, "nodeInfo": {"machineID": "", "systemUUID": "", "bootID": "",
                "kernelVersion": "", "osImage": "", "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": "",
                "operatingSystem": "", "architecture": ""}}}),
    );
}
