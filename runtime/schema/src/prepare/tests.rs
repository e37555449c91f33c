//! Objects before and after, as upstream's strategies leave them.
use super::*;
use crate::Catalog;

fn kind(name: &str) -> std::sync::Arc<Kind> {
    Catalog::builtin().kinds.iter().find(|k| k.kind == name).unwrap().clone()
}

fn check_create(name: &str, mut value: Value, want: Value) {
    create(&kind(name), &mut value);
    assert_eq!(value, want, "{name}");
}

fn check_update(name: &str, sub: &str, old: Value, mut new: Value, want: Value) {
    update(&kind(name), sub, &old, &mut new);
    assert_eq!(new, want, "{name}/{sub}");
}

#[test]
fn create_drops_status() {
    check_create(
        "Deployment",
        json!({"metadata": {}, "spec": {}, "status": {"replicas": 3}}),
        json!({"metadata": {"generation": 1}, "spec": {}, "status": {}}),
    );
    check_create(
        "ReplicaSet",
        json!({"metadata": {}, "status": {}}),
        json!({"metadata": {"generation": 1}, "status": {"replicas": 0}}),
    );
    check_create(
        "Namespace",
        json!({"metadata": {"name": "a"}}),
        json!({"metadata": {"name": "a"},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
    );
    check_create(
        "Node",
        json!({"metadata": {}, "status": {"phase": "x"}}),
        json!({"metadata": {}, "status": {"phase": "x"}}),
    );
    check_create(
        "Pod",
        json!({"metadata": {}, "spec": {"containers": [{}]}, "status": {"podIP": "x"}}),
        json!({"metadata": {"generation": 1}, "spec": {"containers": [{}]}, "status": {"phase": "Pending", "qosClass": "BestEffort"}}),
    );
    check_create(
        "Job",
        json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {}}}),
        json!({"metadata": {"name": "j", "uid": "u", "generation": 1}, "status": {}, "spec": {
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
            "template": {"metadata": {"labels": {"job-name": "j", "batch.kubernetes.io/job-name": "j", "controller-uid": "u",
                "batch.kubernetes.io/controller-uid": "u"}}}}}),
    );
}

#[test]
fn updates_keep_to_their_part() {
    let old = json!({"metadata": {"generation": 3, "labels": {"a": "1"}}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
    let new = json!({"metadata": {"labels": {"a": "2"}}, "spec": {"replicas": 2}, "status": {"replicas": 2}});
    check_update(
        "Deployment",
        "",
        old.clone(),
        new.clone(),
        json!({"metadata": {"generation": 4, "labels": {"a": "2"}}, "spec": {"replicas": 2}, "status": {"replicas": 1}}),
    );
    check_update(
        "Deployment",
        "status",
        old.clone(),
        new.clone(),
        json!({"metadata": {"generation": 3, "labels": {"a": "1"}}, "spec": {"replicas": 1}, "status": {"replicas": 2}}),
    );
    check_update(
        "ReplicaSet",
        "status",
        old.clone(),
        new,
        json!({"metadata": {"generation": 3, "labels": {"a": "2"}}, "spec": {"replicas": 1}, "status": {"replicas": 2}}),
    );
    check_update("Deployment", "", old.clone(), old.clone(), old);
    check_update(
        "Namespace",
        "",
        json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
        json!({"metadata": {}, "spec": {}, "status": {}}),
        json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
    );
    check_update(
        "Namespace",
        "finalize",
        json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}, "status": {}}),
        json!({"metadata": {}, "spec": {}}),
        json!({"metadata": {}, "spec": {}, "status": {}}),
    );
}

#[test]
fn quality_of_service() {
    let check = |containers: Value, want: &str| assert_eq!(qos_class(&json!({ "containers": containers })), want);
    let full = json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}});
    check(json!([full]), "Guaranteed");
    check(json!([full, {"resources": {}}]), "Burstable");
    check(json!([{"resources": {"requests": {"cpu": "1"}}}]), "Burstable");
    check(json!([{"resources": {"requests": {"cpu": "0"}}}]), "BestEffort");
}

#[test]
fn services_keep_what_they_were_given() {
    let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"],
        "externalTrafficPolicy": "Cluster", "ports": [{"name": "a", "port": 80, "nodePort": 30000}]}});
    check_update(
        "Service",
        "",
        old.clone(),
        json!({"spec": {"type": "NodePort", "externalTrafficPolicy": "Cluster",
            "ports": [{"name": "a", "port": 81}]}}),
        json!({"spec": {"type": "NodePort", "clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"],
            "externalTrafficPolicy": "Cluster", "ports": [{"name": "a", "port": 81, "nodePort": 30000}]},
            "status": {"loadBalancer": {}}}),
    );
    check_update(
        "Service",
        "",
        old.clone(),
        json!({"spec": {"type": "ClusterIP", "clusterIP": "10.43.0.5",
            "clusterIPs": ["10.43.0.5"], "externalTrafficPolicy": "Cluster", "ports": [{"name": "a", "port": 80, "nodePort": 30000}]}}),
        json!({"spec": {"type": "ClusterIP", "clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"],
            "ports": [{"name": "a", "port": 80}]}, "status": {"loadBalancer": {}}}),
    );
}
