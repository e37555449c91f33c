//! What kube-apiserver answers to objects that are wrong in one way each: (field, reason, message).
use crate::{Catalog, check, defaults, prepare, prune};
use crate::{Value, json};

fn ready(kind: &crate::Kind, mut value: Value) -> Value {
    if kind.namespaced {
        value["metadata"]["namespace"] = json!("ns");
    }
    prune::clean(kind, &mut value).unwrap();
    defaults::apply(kind, &mut value);
    value
}

fn causes(name: &str, value: Value, old: Option<Value>) -> Vec<(String, String, String)> {
    causes_of(name, value, old, "")
}

fn causes_of(name: &str, value: Value, old: Option<Value>, sub: &str) -> Vec<(String, String, String)> {
    let catalog = Catalog::builtin();
    let kind = catalog.kinds.iter().find(|k| k.kind == name).unwrap();
    let mut value = ready(kind, value);
    let old = old.map(|o| {
        let mut old = ready(kind, o);
        prepare::create(kind, &mut old);
        old
    });
    match &old {
        Some(old) => prepare::update(kind, sub, old, &mut value),
        None => prepare::create(kind, &mut value),
    }
    let list = check::validate(kind, &value, old.as_ref(), sub);
    list.into_iter().map(|c| (c.field, c.reason.to_owned(), c.message)).collect()
}

#[track_caller]
fn check(kind: &str, value: Value, want: &[(&str, &str, &str)]) {
    check_update(kind, value, None, want);
}

#[track_caller]
fn check_update(kind: &str, value: Value, old: Option<Value>, want: &[(&str, &str, &str)]) {
    let found = causes(kind, value, old);
    let found: Vec<(&str, &str, &str)> = found.iter().map(|(f, r, m)| (f.as_str(), r.as_str(), m.as_str())).collect();
    assert_eq!(found, want);
}

const INVALID: &str = "FieldValueInvalid";
const REQUIRED: &str = "FieldValueRequired";
const FORBIDDEN: &str = "FieldValueForbidden";
const DUPLICATE: &str = "FieldValueDuplicate";
const UNSUPPORTED: &str = "FieldValueNotSupported";
const NOT_FOUND: &str = "FieldValueNotFound";

fn pod(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    change(&mut pod);
    pod
}

fn deployment(change: impl FnOnce(&mut Value)) -> Value {
    let mut value = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    change(&mut value);
    value
}

#[test]
fn sysctls_have_names_of_their_form() {
    let with = |names: &[&str], host: &str| {
        pod(|pod| {
            let list: Vec<Value> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
            pod["spec"]["securityContext"] = json!({"sysctls": list});
            pod["spec"][host] = json!(true);
        })
    };
    let name = |index: usize| format!("spec.securityContext.sysctls[{index}].name");
    check("Pod", with(&["kernel.shmmax", "net/ipv4/tcp_syncookies", "safe-and-unsafe"], "hostPID"), &[]);
    let form = |value: &str| {
        format!(
            "Invalid value: \"{value}\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
        )
    };
    check(
        "Pod",
        with(&["foo-", "bar.."], "hostPID"),
        &[(&name(0), INVALID, &form("foo-")), (&name(1), INVALID, &form("bar.."))],
    );
    let host = "Invalid value: \"kernel.msgmax\": may not be specified when 'hostIPC' is true";
    check("Pod", with(&["kernel.msgmax", "net.core.x"], "hostIPC"), &[(&name(0), INVALID, host)]);
}

#[test]
fn variables_come_from_files_of_an_emptydir() {
    let with = |list: &str, file: Value| {
        pod(|pod| {
            pod["spec"]["volumes"] =
                json!([{"name": "own", "emptyDir": {}}, {"name": "host", "hostPath": {"path": "/x"}}]);
            let env = json!([{"name": "A", "valueFrom": {"fileKeyRef": file}}]);
            pod["spec"][list] = json!([{"name": list.to_lowercase(), "image": "i", "env": env}]);
        })
    };
    let file = |volume: &str| json!({"volumeName": volume, "path": "a.env", "key": "A"});
    let at = |list: &str, field: &str| format!("spec.{list}[0].env[0].valueFrom.fileKeyRef.{field}");
    check("Pod", with("containers", file("own")), &[]);
    let other = "Invalid value: \"host\": referenced volume must be of type emptyDir";
    let mut init = with("containers", file("own"));
    init["spec"]["initContainers"] = with("initContainers", file("host"))["spec"]["initContainers"].clone();
    check("Pod", init, &[(&at("initContainers", "volumeName"), INVALID, other)]);
    let none = "Not found: \"none\"";
    check("Pod", with("containers", file("none")), &[(&at("containers", "volumeName"), NOT_FOUND, none)]);
    check(
        "Pod",
        with("containers", json!({"volumeName": "own", "path": "../a", "key": ""})),
        &[
            (&at("containers", "key"), REQUIRED, "Required value"),
            (&at("containers", "path"), INVALID, "Invalid value: \"../a\": must not contain '..'"),
        ],
    );
}

#[test]
fn addresses_are_named_as_they_are_written() {
    let named = |name: &str| json!({"metadata": {"name": name}, "spec": {"parentRef": {"resource": "services", "namespace": "n", "name": "s"}}});
    check("IPAddress", named("fe80::1"), &[]);
    let canonical = "Invalid value: \"FE80::1\": must be in canonical form (\"fe80::1\")";
    check("IPAddress", named("FE80::1"), &[("metadata.name", INVALID, canonical)]);
}

#[test]
fn valid_objects_have_no_mistakes() {
    check("Pod", pod(|_| {}), &[]);
    check("Deployment", deployment(|_| {}), &[]);
    check_update("Deployment", deployment(|d| d["spec"]["replicas"] = json!(3)), Some(deployment(|_| {})), &[]);
    check("StatefulSet", deployment(|d| d["spec"]["serviceName"] = json!("s")), &[]);
    check("DaemonSet", deployment(|_| {}), &[]);
    check("ConfigMap", json!({"metadata": {"name": "c"}, "data": {"a": "b"}}), &[]);
    check(
        "Service",
        json!({"metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}),
        &[],
    );
    check(
        "Job",
        json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i"}]}}}}),
        &[],
    );
    check("Namespace", json!({"metadata": {"name": "n"}}), &[]);
    check("ClusterRole", json!({"metadata": {"name": "system:x"}, "rules": null}), &[]);
    check(
        "EndpointSlice",
        json!({"metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}],
        "ports": [{"port": 80}]}),
        &[],
    );
}

#[test]
fn metadata() {
    let name = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
        and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
        '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    check(
        "ConfigMap",
        json!({"metadata": {"name": "A_b"}}),
        &[("metadata.name", INVALID, &format!("Invalid value: \"A_b\": {name}"))],
    );
    check(
        "ConfigMap",
        json!({"metadata": {}}),
        &[("metadata.name", REQUIRED, "Required value: name or generateName is required")],
    );
    check(
        "ConfigMap",
        json!({"metadata": {"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x"}]}}),
        &[("metadata.ownerReferences.uid", INVALID, "Invalid value: \"\": must not be empty")],
    );
    check_update(
        "ConfigMap",
        json!({"metadata": {"name": "b"}}),
        Some(json!({"metadata": {"name": "a"}})),
        // Once for any object, once for its kind.
        &[("metadata.name", INVALID, "Invalid value: \"b\": field is immutable"); 2],
    );
    check(
        "Namespace",
        json!({"metadata": {"name": "a.b"}}),
        &[("metadata.name", INVALID, "Invalid value: \"a.b\": must not contain dots")],
    );
}

#[test]
fn pods() {
    check("Pod", pod(|p| p["spec"]["containers"] = json!([])), &[("spec.containers", REQUIRED, "Required value")]);
    check(
        "Pod",
        pod(|p| p["spec"]["containers"] = json!([{}])),
        &[
            ("spec.containers[0].name", REQUIRED, "Required value"),
            ("spec.containers[0].image", REQUIRED, "Required value"),
        ],
    );
    check(
        "Pod",
        pod(|p| p["spec"]["restartPolicy"] = json!("x")),
        &[(
            "spec.restartPolicy",
            UNSUPPORTED,
            "Unsupported value: \"x\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        )],
    );
    check(
        "Pod",
        pod(|p| p["spec"]["containers"][0]["imagePullPolicy"] = json!("x")),
        &[(
            "spec.containers[0].imagePullPolicy",
            UNSUPPORTED,
            "Unsupported value: \"x\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        )],
    );
    check(
        "Pod",
        pod(|p| p["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}])),
        &[("spec.containers[0].volumeMounts[0].name", NOT_FOUND, "Not found: \"v\"")],
    );
    check(
        "Pod",
        pod(|p| p["spec"]["containers"][0]["ports"] = json!([{"containerPort": 99999}])),
        &[(
            "spec.containers[0].ports[0].containerPort",
            INVALID,
            "Invalid value: 99999: must be between 1 and 65535, inclusive",
        )],
    );
    check(
        "Pod",
        pod(|p| {
            p["spec"]["containers"][0]["ports"] =
                json!([{"containerPort": 1, "hostPort": 2}, {"containerPort": 3, "hostPort": 2}])
        }),
        &[("spec.containers[0].ports[1].hostPort", DUPLICATE, "Duplicate value: \"TCP//2\"")],
    );
    check(
        "Pod",
        pod(|p| p["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}})),
        &[(
            "spec.containers[0].resources.requests",
            INVALID,
            "Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        )],
    );
    check(
        "Pod",
        pod(|p| p["spec"]["containers"][0]["resources"] = json!({"limits": {"foo": "1"}})),
        &[
            (
                "spec.containers[0].resources.limits[foo]",
                INVALID,
                "Invalid value: \"foo\": must be a standard resource type or fully qualified",
            ),
            (
                "spec.containers[0].resources.limits[foo]",
                INVALID,
                "Invalid value: \"foo\": must be a standard resource for containers",
            ),
            (
                "spec.containers[0].resources.requests[foo]",
                INVALID,
                "Invalid value: \"foo\": must be a standard resource type or fully qualified",
            ),
            (
                "spec.containers[0].resources.requests[foo]",
                INVALID,
                "Invalid value: \"foo\": must be a standard resource for containers",
            ),
        ],
    );
    check(
        "Pod",
        pod(|p| p["spec"]["containers"][0]["livenessProbe"] = json!({})),
        &[("spec.containers[0].livenessProbe", REQUIRED, "Required value: must specify a handler type")],
    );
    check(
        "Pod",
        pod(|p| p["spec"]["tolerations"] = json!([{"operator": "Equal"}])),
        &[(
            "spec.tolerations[0].operator",
            INVALID,
            "Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        )],
    );
}

#[test]
fn running_pods_hardly_change() {
    check_update(
        "Pod",
        pod(|p| p["spec"]["containers"][0]["image"] = json!("other:v1")),
        Some(pod(|p| {
            p["spec"]["containers"][0]["image"] = json!("i:v1");
        })),
        &[],
    );
    let catalog = Catalog::builtin();
    let kind = catalog.by_kind("", "v1", "Pod").unwrap();
    let mut stored = ready(kind, pod(|_| {}));
    let new = stored.clone();
    stored["spec"]["initContainers"] = Value::Null;
    assert_eq!(check::validate(kind, &new, Some(&stored), ""), []);
    let found = causes("Pod", pod(|p| p["spec"]["nodeName"] = json!("n")), Some(pod(|_| {})));
    assert_eq!((found.len(), found[0].0.as_str(), found[0].1.as_str()), (1, "spec", FORBIDDEN));
    assert!(
        found[0].2.starts_with(
            "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
        `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions"
        ),
        "{}",
        found[0].2
    );
}

#[test]
fn deployments() {
    check(
        "Deployment",
        deployment(|d| {
            d["spec"].as_object_mut().unwrap().remove("selector");
        }),
        &[
            ("spec.selector", REQUIRED, "Required value"),
            (
                "spec.template.metadata.labels",
                INVALID,
                "Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            ),
        ],
    );
    check(
        "Deployment",
        deployment(|d| d["spec"]["template"]["metadata"]["labels"] = json!({"a": "c"})),
        &[(
            "spec.template.metadata.labels",
            INVALID,
            "Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
        )],
    );
    check(
        "Deployment",
        deployment(|d| d["spec"]["template"]["spec"]["restartPolicy"] = json!("Never")),
        &[(
            "spec.template.spec.restartPolicy",
            UNSUPPORTED,
            "Unsupported value: \"Never\": supported values: \"Always\"",
        )],
    );
    check(
        "Deployment",
        deployment(|d| d["spec"]["replicas"] = json!(-1)),
        &[("spec.replicas", INVALID, "Invalid value: -1: must be greater than or equal to 0")],
    );
    check_update(
        "Deployment",
        deployment(|d| {
            d["spec"]["selector"]["matchLabels"]["c"] = json!("d");
            d["spec"]["template"]["metadata"]["labels"]["c"] = json!("d");
        }),
        Some(deployment(|_| {})),
        &[("spec.selector", INVALID, "Invalid value: {\"matchLabels\":{\"a\":\"b\",\"c\":\"d\"}}: field is immutable")],
    );
}

#[test]
fn services() {
    check("Service", json!({"metadata": {"name": "s"}, "spec": {}}), &[("spec.ports", REQUIRED, "Required value")]);
    check(
        "Service",
        json!({"metadata": {"name": "s"}, "spec": {"type": "x", "ports": [{"port": 80}]}}),
        &[(
            "spec.type",
            UNSUPPORTED,
            "Unsupported value: \"x\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        )],
    );
    check(
        "Service",
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}, {"port": 81}]}}),
        &[("spec.ports[0].name", REQUIRED, "Required value"), ("spec.ports[1].name", REQUIRED, "Required value")],
    );
    check(
        "Service",
        json!({"metadata": {"name": "s"}, "spec": {"type": "ExternalName"}}),
        &[("spec.externalName", REQUIRED, "Required value")],
    );
    check(
        "Service",
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80, "nodePort": 30000}]}}),
        &[("spec.ports[0].nodePort", FORBIDDEN, "Forbidden: may not be used when `type` is 'ClusterIP'")],
    );
}

#[test]
fn config() {
    check(
        "Secret",
        json!({"metadata": {"name": "s"}, "type": "kubernetes.io/tls"}),
        &[("data[tls.crt]", REQUIRED, "Required value"), ("data[tls.key]", REQUIRED, "Required value")],
    );
    check_update(
        "ConfigMap",
        json!({"metadata": {"name": "c"}, "immutable": true, "data": {"a": "2"}}),
        Some(json!({"metadata": {"name": "c"}, "immutable": true, "data": {"a": "1"}})),
        &[("data", FORBIDDEN, "Forbidden: field is immutable when `immutable` is set")],
    );
    check(
        "ConfigMap",
        json!({"metadata": {"name": "c"}, "data": {"a": "x".repeat(1 << 20 | 1)}}),
        &[("", "FieldValueTooLong", "Too long: may not be more than 1048576 bytes")],
    );
}

#[test]
fn others() {
    check(
        "Role",
        json!({"metadata": {"name": "r"}, "rules": [{"verbs": [], "apiGroups": [""], "resources": ["pods"]}]}),
        &[("rules[0].verbs", REQUIRED, "Required value: verbs must contain at least one value")],
    );
    check(
        "RoleBinding",
        json!({"metadata": {"name": "r"}, "roleRef": {"kind": "x", "name": "y"}}),
        &[("roleRef.kind", UNSUPPORTED, "Unsupported value: \"x\": supported values: \"Role\", \"ClusterRole\"")],
    );
    let cron = |schedule: &str| {
        json!({"metadata": {"name": "c"}, "spec": {"schedule": schedule, "jobTemplate": {"spec": {"template":
        {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}})
    };
    for good in ["*/5 * * * *", "0 0 1 jan sun", "@daily", "@every 1h", "1-5,7 0-23/2 ? * MON-FRI"] {
        check("CronJob", cron(good), &[]);
    }
    check(
        "CronJob",
        cron("x"),
        &[("spec.schedule", INVALID, "Invalid value: \"x\": expected exactly 5 fields, found 1: [x]")],
    );
    check(
        "CronJob",
        cron("61 * * * *"),
        &[("spec.schedule", INVALID, "Invalid value: \"61 * * * *\": end of range (61) above maximum (59): 61")],
    );
    check(
        "Job",
        json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
        &[("spec.template.spec.restartPolicy", REQUIRED, "Required value: valid values: \"OnFailure\", \"Never\"")],
    );
    check(
        "Ingress",
        json!({"metadata": {"name": "i"}, "spec": {"rules": [{"http": {"paths": [{"path": "/", "backend": {"service": {"name": "s",
        "port": {"number": 80}}}}]}}]}}),
        &[("spec.rules[0].http.paths[0].pathType", REQUIRED, "Required value: pathType must be specified")],
    );
    check(
        "PersistentVolumeClaim",
        json!({"metadata": {"name": "p"}, "spec": {"accessModes": ["ReadWriteOnce"]}}),
        &[("spec.resources[storage]", REQUIRED, "Required value")],
    );
}

#[test]
fn a_resize_changes_sizes_and_takes_nothing_away() {
    let sized = |resources: Value| pod(|p| p["spec"]["containers"][0]["resources"] = resources);
    let check = |old: Value, new: Value, want: &[(&str, &str)]| {
        let found = causes_of("Pod", new, Some(old), "resize");
        let found: Vec<(&str, &str)> = found.iter().map(|(field, _, said)| (field.as_str(), said.as_str())).collect();
        assert_eq!(found, want);
    };
    let burstable = || sized(json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"}}));
    check(burstable(), sized(json!({"requests": {"cpu": "2", "memory": "2Gi"}, "limits": {"cpu": "3"}})), &[]);
    check(
        burstable(),
        sized(json!({"requests": {"cpu": "1"}})),
        &[
            ("spec.containers[0].resources.requests", "Forbidden: resource requests cannot be removed"),
            ("spec.containers[0].resources.limits", "Forbidden: resource limits cannot be removed"),
        ],
    );
    check(
        burstable(),
        sized(json!({"requests": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"}, "limits": {"cpu": "2"}})),
        &[("spec", "Forbidden: only cpu and memory resources are mutable")],
    );
    let restarting = pod(|p| {
        p["spec"]["containers"][0]["resizePolicy"] =
            json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    });
    check(pod(|_| {}), restarting, &[("spec", "Forbidden: only cpu and memory resources are mutable")]);
    check(
        sized(json!({"requests": {"cpu": "1"}})),
        sized(json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}})),
        &[("spec", "Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing")],
    );
    let renamed = pod(|p| p["spec"]["containers"][0]["name"] = json!("d"));
    let why = "Forbidden: containers may not be renamed or reordered on resize";
    check(pod(|_| {}), renamed, &[("spec.containers[0].name", why)]);
    let mirror = || pod(|p| p["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"}));
    check(mirror(), mirror(), &[("", "Forbidden: static pods cannot be resized")]);
}

#[test]
fn a_volume_stays_where_its_data_lies() {
    let volume = |source: Value, zone: &str| {
        let terms = json!([{"matchExpressions": [{"key": zone, "operator": "In", "values": ["a"]}]}]);
        let mut spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}});
        for (name, value) in source.as_object().unwrap() {
            spec[name.as_str()] = value.clone();
        }
        json!({"metadata": {"name": "v"}, "spec": spec})
    };
    let csi = |secret: Option<&str>| {
        let mut source = json!({"csi": {"driver": "a.b", "volumeHandle": "h"}});
        if let Some(name) = secret {
            source["csi"]["controllerExpandSecretRef"] = json!({"name": name, "namespace": "n"});
        }
        source
    };
    let moved = [(
        "spec.persistentvolumesource",
        FORBIDDEN,
        "Forbidden: spec.persistentvolumesource is immutable after creation\n",
    )];
    let (old, new) = ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone");
    for (from, to, want) in [
        (csi(None), csi(Some("s")), &[][..]),
        (csi(Some("s")), csi(None), &moved),
        (csi(Some("s")), csi(Some("other")), &moved),
        (json!({"hostPath": {"path": "/x"}}), csi(None), &moved),
    ] {
        check_update("PersistentVolume", volume(to, new), Some(volume(from, new)), want);
    }
    check_update("PersistentVolume", volume(csi(None), new), Some(volume(csi(None), old)), &[]);
    let back = causes("PersistentVolume", volume(csi(None), old), Some(volume(csi(None), new)));
    assert_eq!(back[0].0, "nodeAffinity", "{back:?}");
}
