//! A table of rules against requests; what matches is said as upstream's matcher says it.
use super::*;
use crate::{
    Settings, Sub,
    http::User,
    registry::{Beside, Target},
    server::Api,
};
use mote_schema::Doc;
use mote_schema::json;
use std::{net::Ipv4Addr, time::Duration};

fn api() -> Arc<Api> {
    let store = mote_store::Store::open(mote_store::Options {
        dir: None,
        cache_bytes: 1 << 20,
        watch_events: 100,
        watch_bytes: 1 << 20,
        history: Duration::from_secs(300),
        lazy_delay: Duration::from_millis(10),
    })
    .expect("a store in memory opens");
    let settings = Settings {
        service_cidr: (Ipv4Addr::new(10, 43, 0, 0), 16),
        node_port_range: 30000..=32767,
        advertise_address: Ipv4Addr::LOCALHOST,
        port: 6443,
        serves_dns: true,
        max_events: 100,
        volatile: Default::default(),
    };
    Api::new(Arc::new(store), Arc::new(async_executor::Executor::new()), settings)
}

/// A request: operation, "group/version/plural[/subresource]", namespace, name, object, old object.
struct Asked<'a>(Operation, &'a str, &'a str, &'a str, Value, Value);

/// What matched: "group/version Kind", "-" for nothing, or the error's message.
fn check(api: &Api, source: &Value, asked: Asked<'_>) -> String {
    let Asked(operation, path, namespace, name, new, old) = asked;
    let mut parts = path.split('/');
    let mut part = || parts.next().unwrap_or("");
    let (group, version, plural, subresource) = (part(), part(), part(), part());
    let catalog = api.catalog();
    let kind = catalog.by_resource(group, version, plural).expect("a kind");
    let user = User::new("tester", &[]);
    let mut target = Target::new(&user, kind, namespace, name, Sub::Main);
    let attributes = Attributes {
        api,
        operation,
        subresource,
        object: object_of(kind, subresource),
        old: &old,
        delete: None,
        beside: &mut Beside::default(),
        target: &mut target,
    };
    let doc = Doc::encode(source).expect("a doc");
    match Matcher::new(doc.root()).matches(&attributes, &new) {
        Ok(Some(matched)) => {
            format!("{}/{} {}", matched.kind.group, matched.kind.version, matched.object.kind)
        }
        Ok(None) => "-".into(),
        Err(status) => status.message,
    }
}

fn hook(rule: Value) -> Value {
    let mut whole = json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]});
    for (key, value) in rule.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    json!({"clientConfig": {"url": "https://h"}, "matchPolicy": "Equivalent", "rules": [whole]})
}

#[test]
fn rules_match_operations_groups_versions_resources_and_scopes() {
    let api = api();
    let pod = || json!({"metadata": {"name": "p", "labels": {"a": "b"}}});
    let create = |path: &'static str| Asked(Operation::Create, path, "n", "p", pod(), Value::Null);
    for (rule, path, expected) in [
        (json!({}), "/v1/pods", "/v1 Pod"),
        (json!({"operations": ["CREATE", "UPDATE"]}), "/v1/pods", "/v1 Pod"),
        (json!({"operations": ["DELETE"]}), "/v1/pods", "-"),
        (json!({"apiGroups": [""]}), "/v1/pods", "/v1 Pod"),
        (json!({"apiGroups": ["apps"]}), "/v1/pods", "-"),
        (json!({"apiVersions": ["v2"]}), "/v1/pods", "-"),
        (json!({"resources": ["pods"]}), "/v1/pods", "/v1 Pod"),
        (json!({"resources": ["pods"]}), "/v1/pods/exec", "-"),
        (json!({"resources": ["pods/exec"]}), "/v1/pods/exec", "/v1 PodExecOptions"),
        (json!({"resources": ["pods/exec"]}), "/v1/pods", "-"),
        (json!({"resources": ["pods/*"]}), "/v1/pods/eviction", "/v1 Eviction"),
        (json!({"resources": ["pods/*"]}), "/v1/pods", "/v1 Pod"),
        (json!({"resources": ["*"]}), "/v1/pods/status", "-"),
        (json!({"resources": ["*/status"]}), "/v1/pods/status", "/v1 Pod"),
        (json!({"resources": ["*/*"]}), "/v1/pods/status", "/v1 Pod"),
        (json!({"resources": ["*/scale"]}), "apps/v1/deployments/scale", "apps/v1 Scale"),
        (json!({"scope": "Namespaced"}), "/v1/pods", "/v1 Pod"),
        (json!({"scope": "Cluster"}), "/v1/pods", "-"),
        // The same objects under another version.
        (
            json!({"apiGroups": ["autoscaling"], "apiVersions": ["v1"]}),
            "autoscaling/v2/horizontalpodautoscalers",
            "autoscaling/v1 HorizontalPodAutoscaler",
        ),
        (json!({"apiGroups": ["events.k8s.io"]}), "/v1/events", "events.k8s.io/v1 Event"),
        (json!({"resourceNames": ["q"]}), "/v1/pods", "-"),
        (json!({"resourceNames": ["q", "p"]}), "/v1/pods", "/v1 Pod"),
    ] {
        assert_eq!(check(&api, &hook(rule.clone()), create(path)), expected, "{rule} {path}");
    }
    let mut exact = hook(json!({"apiGroups": ["autoscaling"], "apiVersions": ["v1"]}));
    exact["matchPolicy"] = "Exact".into();
    assert_eq!(check(&api, &exact, create("autoscaling/v2/horizontalpodautoscalers")), "-");
    let cluster = hook(json!({"scope": "Cluster"}));
    let node = Asked(Operation::Create, "/v1/nodes", "", "n", pod(), Value::Null);
    assert_eq!(check(&api, &cluster, node), "/v1 Node");
    // A namespace is cluster-scoped, though its requests carry a namespace.
    let namespace = Asked(Operation::Update, "/v1/namespaces", "n", "n", pod(), pod());
    assert_eq!(check(&api, &cluster, namespace), "/v1 Namespace");
    let none = json!({"clientConfig": {"url": "https://h"}, "rules": []});
    assert_eq!(check(&api, &none, create("/v1/pods")), "-");
}

#[test]
fn policies_match_everything_but_what_they_exclude() {
    let api = api();
    let create = |name: &'static str| {
        Asked(Operation::Create, "/v1/pods", "n", name, json!({"metadata": {"name": name}}), Value::Null)
    };
    assert_eq!(check(&api, &json!({"matchPolicy": "Exact"}), create("p")), "/v1 Pod");
    let rule = json!({"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
        "resourceNames": ["p"]});
    let excluding = json!({"excludeResourceRules": [rule]});
    assert_eq!(check(&api, &excluding, create("p")), "-");
    assert_eq!(check(&api, &excluding, create("q")), "/v1 Pod");
}

#[test]
fn selectors_look_at_new_and_old_and_at_the_namespace() {
    let api = api();
    let with = |label: &str| json!({"metadata": {"name": "p", "labels": {"a": label}}});
    let mut hook = hook(json!({}));
    hook["objectSelector"] = json!({"matchLabels": {"a": "b"}});
    let pods = |operation, new, old| Asked(operation, "/v1/pods", "", "p", new, old);
    for (asked, expected) in [
        (pods(Operation::Create, with("b"), Value::Null), "/v1 Pod"),
        (pods(Operation::Create, with("c"), Value::Null), "-"),
        (pods(Operation::Update, with("c"), with("b")), "/v1 Pod"),
        (pods(Operation::Delete, Value::Null, with("b")), "/v1 Pod"),
        (pods(Operation::Delete, Value::Null, with("c")), "-"),
    ] {
        assert_eq!(check(&api, &hook, asked), expected);
    }
    // What has no metadata is never selected, whatever the selector says of absent labels.
    hook["objectSelector"] = json!({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]});
    hook["rules"][0]["resources"] = json!(["*/*"]);
    let exec = Asked(Operation::Connect, "/v1/pods/exec", "", "p", json!({"command": ["x"]}), Value::Null);
    assert_eq!(check(&api, &hook, exec), "-");
    hook["objectSelector"] = json!({});
    hook["namespaceSelector"] = json!({"matchLabels": {"a": "b"}});
    let namespace = |operation, new| Asked(operation, "/v1/namespaces", "p", "p", new, Value::Null);
    assert_eq!(check(&api, &hook, namespace(Operation::Create, with("b"))), "/v1 Namespace");
    assert_eq!(check(&api, &hook, namespace(Operation::Create, with("c"))), "-");
    // A namespace that is not there is an error only for who would be asked otherwise.
    let gone = || Asked(Operation::Create, "/v1/pods", "gone", "p", with("b"), Value::Null);
    assert_eq!(check(&api, &hook, gone()), "namespaces \"gone\" not found");
    hook["rules"][0]["resources"] = json!(["nodes"]);
    assert_eq!(check(&api, &hook, gone()), "-");
    // Cluster-scoped objects have no namespace to select by.
    let node = Asked(Operation::Create, "/v1/nodes", "", "n", with("b"), Value::Null);
    assert_eq!(check(&api, &hook, node), "/v1 Node");
}
