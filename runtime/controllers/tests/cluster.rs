//! The controllers over a real API server with its store in memory: no sockets, no kubelet. Pods are marked ready by the
//! test, as a kubelet would.
use async_executor::Executor;
use async_io::Timer;
use futures_lite::future;
use mote_api::{
    Api, Client, DeleteOptions, Kind, Object, Patch, Settings, Sub,
    auth::Authenticator,
    bootstrap, certs,
    rbac::{Authorizer, Policy},
};
use serde_json::{Value, json};
use std::{
    net::Ipv4Addr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a cluster may take to become what a test waits for; generous, since it is only reached by failures.
const PATIENCE: Duration = Duration::from_secs(60);
const NODE: &str = "board";

struct Cluster {
    client: Client,
    executor: Arc<Executor<'static>>,
    dir: PathBuf,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Cluster {
    fn new(name: &str) -> Cluster {
        let dir = std::env::temp_dir().join(format!("mote-controllers-{name}-{}", std::process::id()));
        let store = mote_store::Store::open(mote_store::Options {
            dir: None,
            cache_bytes: 1 << 20,
            watch_events: 4096,
            watch_bytes: 4 << 20,
            history: Duration::from_secs(60),
            lazy_delay: Duration::from_millis(5),
        })
        .expect("a store in memory opens");
        let executor = Arc::new(Executor::new());
        let settings = Settings {
            service_cidr: (Ipv4Addr::new(10, 43, 0, 0), 16),
            node_port_range: 30000..=32767,
            advertise_address: Ipv4Addr::LOCALHOST,
            port: 6443,
            max_events: 1000,
        };
        let api = Api::new(Arc::new(store), executor.clone(), settings);
        let client = api.client();
        let certificates = certs::Certificates::open(certs::Options {
            dir: dir.clone(),
            cluster_domain: "cluster.local".into(),
            names: vec![],
            addresses: vec![],
            server: "https://127.0.0.1:6443".into(),
        })
        .expect("certificates are made");
        let lookup = {
            let api = api.clone();
            Arc::new(move |plural: &str, namespace: &str, name: &str| api.lookup("", "v1", plural, namespace, name))
        };
        let authenticator = Authenticator::new(certificates.token_keys(), "https://test", lookup);
        let policy = client.clone();
        let authorizer = Authorizer::new(move || Policy::load(&policy));
        api.secure(Arc::new(authenticator), Arc::new(authorizer));
        let cluster = Cluster { client, executor, dir };
        cluster.run(async { bootstrap::ensure(&cluster.client).await.expect("the bootstrap objects are made") });
        let config = mote_controllers::Config {
            root_ca_pem: "PEM".into(),
            local_node: NODE.into(),
            ..mote_controllers::Config::default()
        };
        mote_controllers::start_all(&cluster.client, &config);
        cluster
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        future::block_on(self.executor.run(future))
    }

    fn kind(&self, resource: &str) -> Arc<Kind> {
        let (group, version, plural) = match resource {
            "deployments" | "replicasets" | "daemonsets" | "statefulsets" | "controllerrevisions" => {
                ("apps", "v1", resource)
            }
            "jobs" | "cronjobs" => ("batch", "v1", resource),
            "endpointslices" => ("discovery.k8s.io", "v1", resource),
            "poddisruptionbudgets" => ("policy", "v1", resource),
            _ => ("", "v1", resource),
        };
        self.client.kind(group, version, plural).expect("a built-in kind")
    }

    #[track_caller]
    fn create(&self, resource: &str, value: Value) -> Object {
        let namespace = if matches!(resource, "namespaces" | "nodes") { "" } else { "default" };
        self.run(self.client.create_value(&self.kind(resource), namespace, value)).expect("it is created")
    }

    #[track_caller]
    fn patch(&self, resource: &str, name: &str, sub: Sub, patch: Value) -> Object {
        let kind = self.kind(resource);
        let namespace = if kind.namespaced { "default" } else { "" };
        self.run(self.client.patch(&kind, namespace, name, sub, Patch::Merge(patch))).expect("it is patched")
    }

    #[track_caller]
    fn delete(&self, resource: &str, name: &str, propagation: &str) {
        let kind = self.kind(resource);
        let namespace = if kind.namespaced { "default" } else { "" };
        let options = DeleteOptions { propagation: Some(propagation.into()), ..DeleteOptions::default() };
        self.run(self.client.delete(&kind, namespace, name, options)).expect("it is deleted");
    }

    fn get(&self, resource: &str, name: &str) -> Option<Value> {
        let kind = self.kind(resource);
        let namespace = if kind.namespaced { "default" } else { "" };
        self.client.get(&kind, namespace, name).ok().map(|o| o.to_value())
    }

    fn list(&self, resource: &str) -> Vec<Value> {
        let objects = self.client.list(&self.kind(resource), Some("default")).expect("a list");
        objects.iter().map(Object::to_value).collect()
    }

    /// Lets the cluster run until `what` holds; shows `seen` when it never does.
    #[track_caller]
    fn until<T: std::fmt::Debug>(&self, seen: impl Fn() -> T, what: impl Fn(&T) -> bool) -> T {
        let started = Instant::now();
        loop {
            self.run(Timer::after(Duration::from_millis(5)));
            let now = seen();
            if what(&now) {
                return now;
            }
            assert!(started.elapsed() < PATIENCE, "still {now:#?}");
        }
    }

    /// What a kubelet would report of every pod that has not been reported yet.
    fn play_kubelet(&self, ready: bool) {
        for (n, pod) in self.list("pods").into_iter().enumerate() {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            if pod["metadata"]["deletionTimestamp"].is_string() {
                let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
                let _ = self.run(self.client.delete(&self.kind("pods"), "default", name, options));
                continue;
            }
            if pod["spec"]["nodeName"].is_null() {
                let binding = json!({"target": {"kind": "Node", "name": NODE}});
                let _ = self.run(self.client.create_sub(&self.kind("pods"), "default", name, "binding", binding));
            }
            let status = if ready { "True" } else { "False" };
            let known = pod["status"]["conditions"]
                .as_array()
                .is_some_and(|list| list.iter().any(|c| c["type"] == "Ready" && c["status"] == status));
            if !known {
                let ip = format!("10.42.0.{}", n + 2);
                let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [
                    {"type": "Ready", "status": status, "lastTransitionTime": "2030-01-01T00:00:00Z"}]});
                let _ = self.run(self.client.patch(
                    &self.kind("pods"),
                    "default",
                    name,
                    Sub::Status,
                    Patch::Merge(json!({"status": status})),
                ));
            }
        }
    }

    fn node(&self) {
        self.create("nodes", json!({"metadata": {"name": NODE}}));
        self.patch("nodes", NODE, Sub::Status, json!({"status": {
            "allocatable": {"cpu": "4", "memory": "4Gi", "pods": "100"}, "conditions": [{"type": "Ready", "status": "True"}]}}));
    }

    fn reasons(&self, of: &str) -> Vec<String> {
        let events = self.list("events");
        let about = events.iter().filter(|e| e["involvedObject"]["name"] == of);
        about
            .map(|e| format!("{}: {}", e["reason"].as_str().unwrap_or(""), e["message"].as_str().unwrap_or("")))
            .collect()
    }
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
    let cluster = Cluster::new("namespace");
    let found = cluster.until(
        || (cluster.get("serviceaccounts", "default"), cluster.get("configmaps", "kube-root-ca.crt")),
        |(account, map)| account.is_some() && map.is_some(),
    );
    assert_eq!(found.1.unwrap()["data"], json!({"ca.crt": "PEM"}));
    cluster.delete("serviceaccounts", "default", "Background");
    cluster.until(|| cluster.get("serviceaccounts", "default"), Option::is_some);
}

#[test]
fn a_deployment_rolls_out_and_back_and_scales() {
    let cluster = Cluster::new("deployment");
    cluster.node();
    cluster.until(|| cluster.get("serviceaccounts", "default"), Option::is_some);
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
    let cluster = Cluster::new("owners");
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
    let cluster = Cluster::new("deletion");
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
    let cluster = Cluster::new("endpoints");
    cluster.node();
    cluster.until(|| cluster.get("serviceaccounts", "default"), Option::is_some);
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
    let cluster = Cluster::new("daemonset");
    cluster.node();
    cluster.until(|| cluster.get("serviceaccounts", "default"), Option::is_some);
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
    let cluster = Cluster::new("job");
    cluster.node();
    cluster.until(|| cluster.get("serviceaccounts", "default"), Option::is_some);
    let mut pod = template("one");
    pod["metadata"] = json!({});
    pod["spec"]["restartPolicy"] = "Never".into();
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
    cluster.until(
        || cluster.list("pods"),
        |pods| pods.len() == 3 && pods.iter().all(|p| p["metadata"]["finalizers"].is_null()),
    );
}
