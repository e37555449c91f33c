//! The controllers over a real API server with its store in memory: no sockets, no kubelet. Pods are marked ready by the
//! test, as a kubelet would.
mod fixture;

use fixture::{Cluster, NODE};
use mote_api::{Object, Patch, Sub};
use mote_schema::{Value, json};

/// A cluster of that name with all controllers.
fn start(name: &str) -> Cluster {
    let cluster = Cluster::new(name);
    let config = mote_controllers::Config {
        root_ca_pem: "PEM".into(),
        local_node: NODE.into(),
        ..mote_controllers::Config::default()
    };
    mote_controllers::start_all(&cluster.client, &config);
    cluster
}

/// The same with a node, and ready to take pods.
fn start_with_node(name: &str) -> Cluster {
    let cluster = start(name);
    cluster.node();
    cluster.until(|| cluster.get("serviceaccounts", "default"), Option::is_some);
    cluster
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image,
        "ports": [{"name": "http", "containerPort": 8080}]}]}})
}

fn deployment(replicas: i64) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "template": template("one")}})
}

fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    let list = object["status"]["conditions"].as_array();
    list.and_then(|l| l.iter().find(|c| c["type"] == type_)).unwrap_or(&Value::Null)
}

#[test]
fn every_namespace_has_an_account_and_the_ca() {
    let cluster = start("namespace");
    let found = cluster.until(
        || (cluster.get("serviceaccounts", "default"), cluster.get("configmaps", "kube-root-ca.crt")),
        |(account, map)| account.is_some() && map.is_some(),
    );
    assert_eq!(found.1.unwrap()["data"], json!({"ca.crt": "PEM"}));
    cluster.delete("serviceaccounts", "default", "Background");
    cluster.until(|| cluster.get("serviceaccounts", "default"), Option::is_some);
}

#[test]
fn a_secret_gets_the_token_of_its_account_and_goes_with_it() {
    let cluster = Cluster::new("secret-token");
    let certificates = Some(std::sync::Arc::new(fixture::certificates(&cluster.dir)));
    let config = mote_controllers::Config { certificates, ..mote_controllers::Config::default() };
    mote_controllers::start_all(&cluster.client, &config);
    cluster.create("serviceaccounts", json!({"metadata": {"name": "ci"}}));
    let annotations = json!({"kubernetes.io/service-account.name": "ci"});
    let type_ = "kubernetes.io/service-account-token";
    cluster.create("secrets", json!({"metadata": {"name": "t", "annotations": annotations}, "type": type_}));
    let filled = |secret: &Option<Value>| secret.as_ref().is_some_and(|s| s["data"]["token"].is_string());
    let secret = cluster.until(|| cluster.get("secrets", "t"), filled).unwrap();
    assert!(secret["data"]["ca.crt"].is_string() && secret["data"]["namespace"] == "ZGVmYXVsdA==");
    let uid = cluster.get("serviceaccounts", "ci").unwrap()["metadata"]["uid"].clone();
    assert_eq!(secret["metadata"]["annotations"]["kubernetes.io/service-account.uid"], uid);
    cluster.delete("serviceaccounts", "ci", "Background");
    cluster.until(|| cluster.get("secrets", "t"), Option::is_none);
}

#[test]
fn cluster_info_is_signed_by_bootstrap_tokens() {
    let cluster = start("bootstrap-signer");
    let (maps, secrets) = (cluster.kind("configmaps"), cluster.kind("secrets"));
    let info =
        json!({"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "text", "jws-kubeconfig-gone00": "x"}});
    cluster.run(cluster.client.create_value(&maps, "kube-public", info)).unwrap();
    let token = json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
        "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true"}});
    cluster.run(cluster.client.create_value(&secrets, "kube-system", token)).unwrap();
    let data = || {
        let map = cluster.client.get(&maps, "kube-public", "cluster-info").unwrap();
        map.root().get("data").to_value()
    };
    let signed = cluster.until(data, |data| data["jws-kubeconfig-abcdef"].is_string());
    assert!(signed["jws-kubeconfig-gone00"].is_null() && signed["kubeconfig"] == "text");
}

#[test]
fn a_deployment_rolls_out_and_back_and_scales() {
    let cluster = start_with_node("deployment");
    cluster.create("deployments", deployment(3));
    let status = |want: fn(&Value) -> bool| {
        cluster.until(
            || {
                cluster.play_kubelet(true);
                cluster.get("deployments", "web").unwrap()
            },
            want,
        )
    };
    let complete = |d: &Value| {
        let s = &d["status"];
        s["observedGeneration"] == d["metadata"]["generation"]
            && s["updatedReplicas"] == d["spec"]["replicas"]
            && s["replicas"] == d["spec"]["replicas"]
            && s["availableReplicas"] == d["spec"]["replicas"]
            && condition(d, "Progressing")["reason"] == "NewReplicaSetAvailable"
    };
    let first = status(complete);
    assert_eq!(first["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
    assert_eq!(first["metadata"]["generation"], 1, "its revision is told as a status");
    assert_eq!(condition(&first, "Available")["reason"], "MinimumReplicasAvailable");
    let sets = cluster.list("replicasets");
    assert_eq!(sets.len(), 1);
    let hash = sets[0]["metadata"]["labels"]["pod-template-hash"].as_str().unwrap();
    assert_eq!(sets[0]["metadata"]["name"], format!("web-{hash}"));
    assert_eq!(
        condition(&first, "Progressing")["message"],
        format!("ReplicaSet \"web-{hash}\" has successfully progressed.")
    );
    assert!(
        cluster.reasons("web").contains(&format!("ScalingReplicaSet: Scaled up replica set web-{hash} from 0 to 3"))
    );

    cluster.patch("deployments", "web", Sub::Main, json!({"spec": {"template": template("two")}}));
    let second = status(complete);
    assert_eq!(second["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
    let sizes: Vec<Value> = cluster.list("replicasets").iter().map(|s| s["spec"]["replicas"].clone()).collect();
    assert!(sizes.contains(&json!(0)) && sizes.contains(&json!(3)), "{sizes:?}");

    // `kubectl rollout undo` patches the old template back.
    cluster.patch("deployments", "web", Sub::Main, json!({"spec": {"template": template("one")}}));
    let third = status(complete);
    assert_eq!(third["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
    let restored = cluster.get("replicasets", &format!("web-{hash}")).unwrap();
    assert_eq!(restored["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"], "1");
    assert_eq!(cluster.list("replicasets").len(), 2);

    cluster.patch("deployments", "web", Sub::Main, json!({"spec": {"replicas": 5}}));
    status(complete);
    cluster.patch("deployments", "web", Sub::Main, json!({"spec": {"replicas": 1}}));
    status(complete);
    assert_eq!(cluster.list("pods").iter().filter(|p| p["metadata"]["deletionTimestamp"].is_null()).count(), 1);

    cluster.patch("deployments", "web", Sub::Main, json!({"spec": {"paused": true, "template": template("three")}}));
    let paused = status(|d| condition(d, "Progressing")["reason"] == "DeploymentPaused");
    assert_eq!(paused["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
    cluster.patch("deployments", "web", Sub::Main, json!({"spec": {"paused": false}}));
    status(complete);

    // Its ReplicaSets and their pods go with it.
    cluster.delete("deployments", "web", "Background");
    cluster.until(
        || {
            cluster.play_kubelet(true);
            (cluster.list("replicasets").len(), cluster.list("pods").len())
        },
        |left| *left == (0, 0),
    );
}

#[test]
fn owners_go_first_last_or_alone() {
    let cluster = start("owners");
    let owned = |name: &str, owner: &Object| {
        json!({"metadata": {"name": name, "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap",
            "name": owner.name(), "uid": owner.uid(), "blockOwnerDeletion": true}]}})
    };
    for (policy, owner_goes, dependent_goes) in
        [("Background", true, true), ("Foreground", true, true), ("Orphan", true, false)]
    {
        let name = policy.to_lowercase();
        let owner = cluster.create("configmaps", json!({"metadata": {"name": name}}));
        let child = format!("{name}-child");
        cluster.create("configmaps", owned(&child, &owner));
        cluster.delete("configmaps", &name, policy);
        let found = cluster.until(
            || (cluster.get("configmaps", &name), cluster.get("configmaps", &child)),
            |(owner, dependent)| owner.is_none() == owner_goes && dependent.is_none() == dependent_goes,
        );
        if let Some(child) = found.1 {
            assert!(child["metadata"]["ownerReferences"].is_null());
        }
    }
    // An owner that never was.
    let ghost = json!({"metadata": {"name": "ghost", "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap",
        "name": "nobody", "uid": "00000000-0000-0000-0000-000000000000"}]}});
    cluster.create("configmaps", ghost);
    cluster.until(|| cluster.get("configmaps", "ghost"), Option::is_none);
}

#[test]
fn a_deleted_namespace_is_emptied() {
    let cluster = start("deletion");
    cluster.create("namespaces", json!({"metadata": {"name": "old"}}));
    let maps = cluster.kind("configmaps");
    for (name, finalizers) in [("plain", json!([])), ("held", json!(["example.com/hold"]))] {
        let map = json!({"metadata": {"name": name, "finalizers": finalizers}});
        cluster.run(cluster.client.create_value(&maps, "old", map)).expect("it is created");
    }
    cluster.delete("namespaces", "old", "Background");
    let namespace = cluster.until(
        || cluster.get("namespaces", "old").unwrap_or_default(),
        |n| condition(n, "NamespaceContentRemaining")["status"] == "True",
    );
    assert_eq!(
        condition(&namespace, "NamespaceFinalizersRemaining")["message"],
        "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
    );
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    cluster.run(cluster.client.patch(&maps, "old", "held", Sub::Main, free)).expect("it is released");
    cluster.until(|| cluster.get("namespaces", "old"), Option::is_none);
}

#[test]
fn endpoints_follow_ready_pods() {
    let cluster = start_with_node("endpoints");
    cluster.create(
        "services",
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}}),
    );
    cluster.create("deployments", deployment(2));
    let slices = || {
        let all = cluster.list("endpointslices");
        all.into_iter().filter(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == "web").collect::<Vec<_>>()
    };
    let ready = |slices: &[Value]| {
        let endpoints = slices.iter().flat_map(|s| s["endpoints"].as_array().into_iter().flatten());
        endpoints.filter(|e| e["conditions"]["ready"] == true).count()
    };
    let found = cluster.until(
        || {
            cluster.play_kubelet(true);
            slices()
        },
        |s| ready(s) == 2,
    );
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(found[0]["endpoints"][0]["nodeName"], NODE);
    let endpoints = cluster.until(
        || cluster.get("endpoints", "web").unwrap_or_default(),
        |e| e["subsets"][0]["addresses"].as_array().map(Vec::len) == Some(2),
    );
    assert_eq!(endpoints["subsets"][0]["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    cluster.until(
        || {
            cluster.play_kubelet(false);
            (ready(&slices()), cluster.get("endpoints", "web").unwrap_or_default())
        },
        |(ready, endpoints)| {
            *ready == 0 && endpoints["subsets"][0]["notReadyAddresses"].as_array().map(Vec::len) == Some(2)
        },
    );
    cluster.delete("services", "web", "Background");
    cluster.until(|| (slices().len(), cluster.get("endpoints", "web")), |(n, e)| *n == 0 && e.is_none());
}

#[test]
fn a_daemonset_runs_everywhere() {
    let cluster = start_with_node("daemonset");
    let set = |image: &str| json!({"metadata": {"name": "agent"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template(image)}});
    cluster.create("daemonsets", set("one"));
    let done = |d: &Value| {
        d["status"]["numberAvailable"] == 1
            && d["status"]["updatedNumberScheduled"] == 1
            && d["status"]["observedGeneration"] == d["metadata"]["generation"]
    };
    let wait = || {
        cluster.until(
            || {
                cluster.play_kubelet(true);
                cluster.get("daemonsets", "agent").unwrap()
            },
            done,
        );
    };
    wait();
    cluster.patch("daemonsets", "agent", Sub::Main, json!({"spec": {"template": template("two")}}));
    wait();
    let pods = cluster.list("pods");
    assert_eq!(pods[0]["spec"]["containers"][0]["image"], "two");
    assert_eq!(cluster.list("controllerrevisions").len(), 2);
}

#[test]
fn a_job_counts_its_pods() {
    let cluster = start_with_node("job");
    let mut pod = template("one");
    pod["metadata"] = json!({});
    pod["spec"]["restartPolicy"] = "Never".into();
    let theirs = json!({"managedBy": "example.com/queue", "template": pod.clone()});
    cluster.create("jobs", json!({"metadata": {"name": "theirs"}, "spec": theirs}));
    cluster.create("jobs", json!({"metadata": {"name": "sum"}, "spec": {"completions": 3, "parallelism": 2, "completionMode": "Indexed", "template": pod}}));
    let job = cluster.until(
        || {
            for pod in cluster.list("pods") {
                let name = pod["metadata"]["name"].as_str().unwrap();
                if pod["status"]["phase"] != "Succeeded" {
                    let patch = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
                    let _ =
                        cluster.run(cluster.client.patch(&cluster.kind("pods"), "default", name, Sub::Status, patch));
                }
            }
            cluster.get("jobs", "sum").unwrap()
        },
        |job| condition(job, "Complete")["status"] == "True",
    );
    assert_eq!(job["status"]["succeeded"], 3);
    assert_eq!(job["status"]["completedIndexes"], "0-2");
    assert_eq!(condition(&job, "SuccessCriteriaMet")["reason"], "CompletionsReached");
    // What another controller has been named for stays as it was.
    let theirs = cluster.get("jobs", "theirs").unwrap();
    assert!(theirs["status"].as_object().is_none_or(|status| status.is_empty()), "{theirs}");
    cluster.until(
        || cluster.list("pods"),
        |pods| pods.len() == 3 && pods.iter().all(|p| p["metadata"]["finalizers"].is_null()),
    );
}

#[test]
fn a_statefulset_goes_in_order() {
    let cluster = start_with_node("statefulset");
    let set = json!({"metadata": {"name": "db"}, "spec": {"replicas": 2, "serviceName": "db",
        "selector": {"matchLabels": {"app": "web"}}, "template": template("one"),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}]}});
    cluster.create("statefulsets", set);
    // The second pod waits for the first.
    cluster.until(|| cluster.get("pods", "db-0"), Option::is_some);
    assert!(cluster.get("pods", "db-1").is_none());
    let wait = |want: fn(&Value) -> bool| {
        cluster.until(
            || {
                cluster.play_kubelet(true);
                cluster.get("statefulsets", "db").unwrap()
            },
            want,
        )
    };
    let settled = |s: &Value| {
        s["status"]["availableReplicas"] == s["spec"]["replicas"]
            && s["status"]["replicas"] == s["spec"]["replicas"]
            && s["status"]["currentRevision"] == s["status"]["updateRevision"]
            && s["status"]["observedGeneration"] == s["metadata"]["generation"]
    };
    let first = wait(settled);
    let pod = cluster.get("pods", "db-1").unwrap();
    assert_eq!(pod["metadata"]["labels"]["controller-revision-hash"], first["status"]["updateRevision"]);
    assert_eq!(pod["spec"]["subdomain"], "db");
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    assert!(volumes.iter().any(|v| v["persistentVolumeClaim"]["claimName"] == "data-db-1"));
    assert!(cluster.get("persistentvolumeclaims", "data-db-0").is_some());

    cluster.patch("statefulsets", "db", Sub::Main, json!({"spec": {"template": template("two")}}));
    let second = wait(settled);
    assert_ne!(first["status"]["updateRevision"], second["status"]["updateRevision"]);
    assert_eq!(cluster.get("pods", "db-0").unwrap()["spec"]["containers"][0]["image"], "two");
    cluster.patch("statefulsets", "db", Sub::Main, json!({"spec": {"replicas": 1}}));
    wait(settled);
    assert!(cluster.get("pods", "db-1").is_none());
}

#[test]
fn a_budget_counts_healthy_pods() {
    let cluster = start_with_node("budget");
    cluster.create("deployments", deployment(3));
    cluster.create(
        "poddisruptionbudgets",
        json!({"metadata": {"name": "web"}, "spec": {"maxUnavailable": 1,
        "selector": {"matchLabels": {"app": "web"}}}}),
    );
    let budget = cluster.until(
        || {
            cluster.play_kubelet(true);
            cluster.get("poddisruptionbudgets", "web").unwrap()
        },
        |b| b["status"]["currentHealthy"] == 3,
    );
    let status = &budget["status"];
    assert_eq!(
        (&status["disruptionsAllowed"], &status["desiredHealthy"], &status["expectedPods"]),
        (&json!(1), &json!(2), &json!(3))
    );
    assert_eq!(condition(&budget, "DisruptionAllowed")["reason"], "SufficientPods");
}

#[test]
fn a_cronjob_starts_what_it_missed_once() {
    let cluster = start_with_node("cronjob");
    let mut pod = template("one");
    pod["spec"]["restartPolicy"] = "Never".into();
    pod["metadata"] = json!({});
    cluster.create(
        "cronjobs",
        json!({"metadata": {"name": "tick"}, "spec": {"schedule": "* * * * *", "suspend": true,
        "jobTemplate": {"spec": {"template": pod}}}}),
    );
    // What somebody started by hand (`kubectl create job --from`) does not stand in the schedule's way.
    let uid = cluster.get("cronjobs", "tick").unwrap()["metadata"]["uid"].clone();
    let owner = json!({"apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": uid, "controller": true});
    let metadata = json!({"name": "by-hand", "ownerReferences": [owner]});
    cluster.create("jobs", json!({"metadata": metadata, "spec": {"suspend": true, "template": pod}}));
    cluster.patch("cronjobs", "tick", Sub::Status, json!({"status": {"lastScheduleTime": "2020-01-01T00:00:00Z"}}));
    cluster.patch("cronjobs", "tick", Sub::Main, json!({"spec": {"suspend": false, "concurrencyPolicy": "Forbid"}}));
    let by_schedule = || {
        let all = cluster.list("jobs");
        all.into_iter().filter(|job| job["metadata"]["name"] != "by-hand").collect::<Vec<_>>()
    };
    let jobs = cluster.until(by_schedule, |jobs| !jobs.is_empty());
    assert_eq!(jobs.len(), 1);
    assert!(jobs[0]["metadata"]["name"].as_str().unwrap().starts_with("tick-"));
    cluster.until(
        || cluster.get("cronjobs", "tick").unwrap(),
        |c| c["status"]["active"][0]["uid"] == jobs[0]["metadata"]["uid"],
    );
}

#[test]
fn handwritten_endpoints_are_mirrored() {
    let cluster = start_with_node("mirror");
    cluster.create("services", json!({"metadata": {"name": "ext"}, "spec": {"ports": [{"port": 80}]}}));
    cluster.create("endpoints", json!({"metadata": {"name": "ext"}, "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 8080}]}]}));
    let slices = || {
        let all = cluster.list("endpointslices");
        all.into_iter().filter(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == "ext").collect::<Vec<_>>()
    };
    let found = cluster.until(slices, |s| s.len() == 1);
    assert_eq!(found[0]["endpoints"][0]["addresses"], json!(["192.0.2.1"]));
    assert_eq!(
        found[0]["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"],
        "endpointslicemirroring-controller.k8s.io"
    );
    cluster.delete("services", "ext", "Background");
    cluster.until(|| (slices().len(), cluster.get("endpoints", "ext")), |(n, e)| *n == 0 && e.is_none());
}

#[test]
fn pods_leave_tainted_and_vanished_nodes() {
    let cluster = start_with_node("taints");
    cluster.create("deployments", deployment(1));
    cluster.until(
        || {
            cluster.play_kubelet(true);
            cluster.get("deployments", "web").unwrap()
        },
        |d| d["status"]["availableReplicas"] == 1,
    );
    let taint = json!({"spec": {"taints": [{"key": "away", "effect": "NoExecute"}], "unschedulable": true}});
    cluster.patch("nodes", NODE, Sub::Main, taint);
    let pods = cluster
        .until(|| cluster.list("pods"), |pods| pods.iter().any(|p| p["metadata"]["deletionTimestamp"].is_string()));
    let leaving = pods.iter().find(|p| p["metadata"]["deletionTimestamp"].is_string()).unwrap();
    assert_eq!(condition(leaving, "DisruptionTarget")["reason"], "DeletionByTaintManager");
    cluster.until(
        || cluster.get("nodes", NODE).unwrap()["spec"]["taints"].to_string(),
        |taints| taints.contains("node.kubernetes.io/unschedulable"),
    );
}

#[test]
fn a_settled_cluster_writes_nothing() {
    let cluster = start_with_node("quiet");
    cluster.create("deployments", deployment(2));
    cluster.create(
        "services",
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}),
    );
    cluster.create(
        "services",
        json!({"metadata": {"name": "bare"}, "spec": {"clusterIP": "None", "selector": {"app": "none"}}}),
    );
    let labelled = |app: &str| {
        let mut template = template("one");
        template["metadata"]["labels"]["app"] = app.into();
        (json!({"matchLabels": {"app": app}}), template)
    };
    let (selector, pod) = labelled("agent");
    cluster
        .create("daemonsets", json!({"metadata": {"name": "agent"}, "spec": {"selector": selector, "template": pod}}));
    let (selector, pod) = labelled("db");
    cluster.create(
        "statefulsets",
        json!({"metadata": {"name": "db"}, "spec": {"serviceName": "db", "selector": selector, "template": pod}}),
    );
    let (_, mut pod) = labelled("job");
    pod["spec"]["restartPolicy"] = "Never".into();
    cluster.create("jobs", json!({"metadata": {"name": "job"}, "spec": {"template": pod}}));
    cluster.create(
        "poddisruptionbudgets",
        json!({"metadata": {"name": "web"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}),
    );
    cluster.until(
        || {
            cluster.play_kubelet(true);
            cluster.list("pods").len()
        },
        |pods| *pods == 5,
    );
    cluster.play_kubelet(true);
    cluster.until_quiet();
    let job = cluster.get("jobs", "job").unwrap();
    assert_eq!((&job["status"]["active"], &job["status"]["ready"]), (&json!(1), &json!(1)));
}

#[test]
fn a_job_gives_up() {
    let cluster = start_with_node("give-up");
    let mut pod = template("one");
    pod["metadata"] = json!({});
    pod["spec"]["restartPolicy"] = "Never".into();
    let policy = json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]});
    let indexed = json!({"completionMode": "Indexed", "completions": 1, "backoffLimitPerIndex": 0, "template": pod});
    for (name, spec, code, reason) in [
        ("index", indexed, 1, "FailedIndexes"),
        ("limit", json!({"backoffLimit": 0, "template": pod}), 1, "BackoffLimitExceeded"),
        ("policy", json!({"backoffLimit": 6, "podFailurePolicy": policy, "template": pod}), 42, "PodFailurePolicy"),
    ] {
        cluster.create("jobs", json!({"metadata": {"name": name}, "spec": spec}));
        let job = cluster.until(
            || {
                for pod in cluster.list("pods") {
                    let status = json!({"status": {"phase": "Failed", "containerStatuses": [{"name": "c", "image": "i", "imageID": "",
                        "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code}}}]}});
                    if pod["status"]["phase"] != "Failed" {
                        cluster.patch("pods", pod["metadata"]["name"].as_str().unwrap(), Sub::Status, status);
                    }
                }
                cluster.get("jobs", name).unwrap()
            },
            |job| condition(job, "Failed")["status"] == "True",
        );
        assert_eq!(condition(&job, "Failed")["reason"], reason);
        assert_eq!(job["status"]["failed"], 1);
    }
}

#[test]
fn a_job_gives_up_on_containers_that_start_again() {
    let cluster = start_with_node("restarts");
    let mut pod = template("one");
    pod["metadata"] = json!({});
    pod["spec"]["restartPolicy"] = "OnFailure".into();
    for (name, limit, restarts, is_over) in
        [("none", 0, 0, false), ("few", 3, 2, false), ("at-0", 0, 1, true), ("at-2", 2, 2, true)]
    {
        cluster.create("jobs", json!({"metadata": {"name": name}, "spec": {"backoffLimit": limit, "template": pod}}));
        let status = json!({"status": {"phase": "Running", "containerStatuses": [{"name": "c", "image": "i", "imageID": "",
            "ready": false, "restartCount": restarts, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}});
        let job = cluster.until(
            || {
                for pod in cluster.list("pods") {
                    let is_mine = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == name;
                    if pod["metadata"]["deletionTimestamp"].is_string() {
                        cluster.play_kubelet(true);
                    } else if is_mine && pod["status"]["phase"] != "Running" {
                        cluster.patch("pods", pod["metadata"]["name"].as_str().unwrap(), Sub::Status, status.clone());
                    }
                }
                cluster.until_quiet();
                cluster.get("jobs", name).unwrap()
            },
            |job| job["status"]["active"] == 1 && !is_over || condition(job, "Failed")["status"] == "True",
        );
        let failed = condition(&job, "Failed");
        assert_eq!(failed["reason"] == "BackoffLimitExceeded", is_over, "{name}: {job:#}");
        cluster.delete("jobs", name, "Background");
    }
}

#[test]
fn a_job_is_content_with_what_its_success_policy_asks() {
    let cluster = start_with_node("success-policy");
    let mut pod = template("one");
    pod["metadata"] = json!({});
    pod["spec"]["restartPolicy"] = "Never".into();
    let spec = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3, "template": pod,
        "successPolicy": {"rules": [{"succeededIndexes": "1"}]}});
    cluster.create("jobs", json!({"metadata": {"name": "job"}, "spec": spec}));
    let job = cluster.until(
        || {
            for pod in cluster.list("pods") {
                let index = &pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"];
                let phase = if index == "1" { "Succeeded" } else { "Running" };
                if pod["status"]["phase"] != phase {
                    let status = json!({"status": {"phase": phase}});
                    cluster.patch("pods", pod["metadata"]["name"].as_str().unwrap(), Sub::Status, status);
                }
            }
            cluster.get("jobs", "job").unwrap()
        },
        |job| condition(job, "SuccessCriteriaMet")["status"] == "True",
    );
    let met = condition(&job, "SuccessCriteriaMet");
    assert_eq!((&met["reason"], &met["message"]), (&json!("SuccessPolicy"), &json!("Matched rules at index 0")));
    assert_eq!(job["status"]["completedIndexes"], "1");
}

#[test]
fn a_claim_gets_the_volume_that_fits_and_leaves_it_released() {
    let cluster = start("volumes");
    let volume = |name: &str, size: &str| {
        json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/tmp"}, "persistentVolumeReclaimPolicy": "Retain"}})
    };
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    cluster.create("persistentvolumeclaims", json!({"metadata": {"name": "c"}, "spec": spec}));
    let phase = |resource: &str, name: &str| cluster.get(resource, name).map(|o| o["status"]["phase"].clone());
    let is = |wanted: &'static str| move |phase: &Option<Value>| phase.as_ref().is_some_and(|phase| *phase == wanted);
    // The claim came first and waits; of two volumes it takes the smaller one.
    cluster.create("persistentvolumes", volume("small", "500Mi"));
    cluster.until(|| phase("persistentvolumes", "small"), is("Available"));
    assert_eq!(phase("persistentvolumeclaims", "c"), Some("Pending".into()));
    cluster.create("persistentvolumes", volume("fits", "2Gi"));
    cluster.until(|| phase("persistentvolumeclaims", "c"), is("Bound"));
    let claim = cluster.get("persistentvolumeclaims", "c").unwrap();
    assert_eq!(claim["spec"]["volumeName"], "fits");
    assert_eq!(claim["status"]["capacity"]["storage"], "2Gi");
    let bound = cluster.get("persistentvolumes", "fits").unwrap();
    assert_eq!(bound["spec"]["claimRef"]["uid"], claim["metadata"]["uid"]);
    assert_eq!(bound["status"]["phase"], "Bound");
    cluster.delete("persistentvolumeclaims", "c", "Background");
    cluster.until(|| phase("persistentvolumes", "fits"), is("Released"));
}

#[test]
fn a_pod_has_the_claims_of_its_templates() {
    let cluster = start_with_node("ephemeral");
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let volumes = json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}]);
    let containers = json!([{"name": "c", "image": "i"}]);
    cluster.create("pods", json!({"metadata": {"name": "p"}, "spec": {"containers": containers, "volumes": volumes}}));
    let claim = cluster.until(|| cluster.get("persistentvolumeclaims", "p-v"), Option::is_some).unwrap();
    assert_eq!(claim["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!(claim["metadata"]["ownerReferences"][0]["name"], "p");
}
