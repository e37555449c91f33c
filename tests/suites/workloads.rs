//! A whole node with a real container runtime: Deployments, Services and names, and configuration that reaches pods.
use mote_tests::{Kubectl, Node, eventually};
use std::sync::OnceLock;

fn node() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| {
        let node = Node::up("workloads", "");
        node.kubectl.wait_for_account();
        node
    })
}

fn namespace(purpose: &str) -> Kubectl {
    node().kubectl.namespace(purpose)
}

/// Web servers that answer with their pod's name and a version.
fn web(name: &str, replicas: u32, version: &str) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: localhost/busybox:1
        command: [sh, -c, 'echo {version} $HOSTNAME >/var/www/index.html; exec httpd -f -p 8080 -h /var/www']
        ports: [{{containerPort: 8080, name: http}}]
        readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  type: NodePort
  selector: {{app: {name}}}
  ports: [{{port: 80, targetPort: http}}]
"
    )
}

fn node_ip() -> String {
    node().kubectl.field("nodes", ".items[0].status.addresses[?(@.type==\"InternalIP\")].address").unwrap()
}

/// From the node itself, as its host network sees it.
fn curl(url: &str) -> Result<String, String> {
    let output = node().machine.exec(&["busybox", "timeout", "2", "busybox", "wget", "-qO-", url]);
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn a_deployment_is_rolled_out_scaled_back_and_deleted() {
    let kubectl = namespace("deploy");
    kubectl.apply(&web("web", 2, "one"));
    kubectl.ok("rollout status deployment/web --timeout=60s");
    assert_eq!(kubectl.field("deployment/web", ".status.readyReplicas").unwrap(), "2");

    kubectl.ok("scale deployment/web --replicas=4");
    kubectl.eventually_field("deployment/web", ".status.readyReplicas", "4", 30);
    kubectl.ok("scale deployment/web --replicas=1");
    kubectl.eventually_field("deployment/web", ".status.replicas", "1", 30);

    kubectl.apply(&web("web", 1, "two"));
    kubectl.ok("rollout status deployment/web --timeout=60s");
    let port = kubectl.field("service/web", ".spec.ports[0].nodePort").unwrap();
    let node_ip = node_ip();
    eventually("the new version answers", 10, || match curl(&format!("http://{node_ip}:{port}/"))? {
        text if text.starts_with("two ") => Ok(()),
        text => Err(text),
    });
    assert_eq!(
        kubectl.ok("rollout history deployment/web").lines().filter(|line| line.starts_with(['1', '2'])).count(),
        2
    );
    kubectl.ok("rollout undo deployment/web");
    kubectl.ok("rollout status deployment/web --timeout=60s");
    eventually("the old version answers again", 10, || match curl(&format!("http://{node_ip}:{port}/"))? {
        text if text.starts_with("one ") => Ok(()),
        text => Err(text),
    });

    kubectl.ok("rollout pause deployment/web");
    kubectl.ok("set env deployment/web A=b");
    assert_eq!(kubectl.field("deployment/web", ".spec.paused").unwrap(), "true");
    kubectl.ok("rollout resume deployment/web");
    kubectl.ok("rollout status deployment/web --timeout=60s");

    kubectl.ok("delete deployment/web --timeout=30s");
    eventually("its pods are gone", 30, || {
        let left = kubectl.ok("get pods,replicasets -o name");
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn a_service_is_reached_by_name_and_by_node_port() {
    let kubectl = namespace("service");
    kubectl.apply(&web("web", 2, "v"));
    kubectl.ok("rollout status deployment/web --timeout=60s");
    kubectl.apply(&client_pod());
    kubectl.ok("wait pod/client --for=condition=Ready --timeout=30s");
    let from_pod = |url: &str| kubectl.with_input(&["exec", "client", "--", "timeout", "3", "wget", "-qO-", url], None);
    for url in ["http://web/".to_owned(), format!("http://web.{0}.svc.cluster.local/", kubectl.name())] {
        eventually(&url, 15, || {
            let answer = from_pod(&url);
            if answer.success && answer.stdout.starts_with("v web-") { Ok(()) } else { Err(answer.to_string()) }
        });
    }
    let address = kubectl.field("service/web", ".spec.clusterIP").unwrap();
    let port = kubectl.field("service/web", ".spec.ports[0].nodePort").unwrap();
    let node_ip = node_ip();
    for url in [format!("http://{address}/"), format!("http://{node_ip}:{port}/")] {
        eventually(&format!("{url} from the host"), 10, || curl(&url));
    }
    // Both pods get their share.
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..60 {
        seen.extend(curl(&format!("http://{address}/")));
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    // A Service without pods refuses at once; one that is gone has no name.
    kubectl.ok("scale deployment/web --replicas=0");
    eventually("no endpoints", 20, || {
        if curl(&format!("http://{address}/")).is_err() { Ok(()) } else { Err("it answers".to_owned()) }
    });
    kubectl.ok("delete service web");
    eventually("no name", 10, || {
        let answer = kubectl.with_input(
            &["exec", "client", "--", "nslookup", &format!("web.{}.svc.cluster.local", kubectl.name())],
            None,
        );
        if answer.success { Err(answer.to_string()) } else { Ok(()) }
    });
}

fn client_pod() -> String {
    "{apiVersion: v1, kind: Pod, metadata: {name: client}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: 'localhost/busybox:1', command: [sleep, '3600']}]}}".to_owned()
}

#[test]
fn a_headless_service_names_its_pods() {
    let kubectl = namespace("headless");
    let headless = web("web", 2, "v").replace("type: NodePort", "clusterIP: None");
    kubectl.apply(&headless);
    kubectl.ok("rollout status deployment/web --timeout=60s");
    kubectl.apply(&client_pod());
    kubectl.ok("wait pod/client --for=condition=Ready --timeout=30s");
    let mut addresses: Vec<_> =
        kubectl.ok("get pods -l app=web -o jsonpath={.items[*].status.podIP}").split(' ').map(str::to_owned).collect();
    addresses.sort();
    eventually("both addresses", 10, || {
        let answer = kubectl.with_input(
            &["exec", "client", "--", "nslookup", &format!("web.{}.svc.cluster.local", kubectl.name())],
            None,
        );
        let missing = addresses.iter().any(|address| !answer.stdout.contains(&format!("Address: {address}")));
        if missing { Err(answer.to_string()) } else { Ok(()) }
    });
}

#[test]
fn pods_reach_the_api_with_their_account() {
    let kubectl = namespace("inside");
    kubectl.apply(&client_pod());
    kubectl.ok("wait pod/client --for=condition=Ready --timeout=30s");
    let token = kubectl.ok("exec client -- cat /var/run/secrets/kubernetes.io/serviceaccount/token");
    let who = node_client_with(&token);
    assert_eq!(who, format!("system:serviceaccount:{}:default", kubectl.name()));
    assert_eq!(
        kubectl.ok("exec client -- cat /var/run/secrets/kubernetes.io/serviceaccount/namespace"),
        kubectl.name()
    );
    let authority = kubectl.ok("exec client -- cat /var/run/secrets/kubernetes.io/serviceaccount/ca.crt");
    assert!(authority.starts_with("-----BEGIN CERTIFICATE-----"), "{authority}");
    let environment = kubectl.ok("exec client -- env");
    assert!(
        environment.contains("KUBERNETES_SERVICE_HOST=10.43.0.1\n")
            && environment.contains("KUBERNETES_SERVICE_PORT=443\n"),
        "{environment}"
    );
    // The Service leads to the API server: TLS answers what is no hello with an alert.
    eventually("the kubernetes Service", 10, || {
        let line = "printf 'no hello at all\\n' | timeout 5 nc kubernetes.default 443 | wc -c";
        let answer = kubectl.with_input(&["exec", "client", "--", "sh", "-c", line], None);
        if answer.stdout.trim().parse::<u32>().is_ok_and(|bytes| bytes > 0) { Ok(()) } else { Err(answer.to_string()) }
    });
}

/// Who the API takes the bearer of the token for.
fn node_client_with(token: &str) -> String {
    let review = serde_json::json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = node().in_network(|client| client.with_token(token.trim()).post(path, &review));
    answer.json()["status"]["userInfo"]["username"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn configuration_and_secrets_reach_pods_and_follow_changes() {
    let kubectl = namespace("config");
    kubectl.ok("create configmap settings --from-literal=mode=slow --from-literal=with-dash=x");
    kubectl.ok("create secret generic secrets --from-literal=key=hush");
    kubectl.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: reader, labels: {a: b}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: localhost/busybox:1
    command: [sleep, '3600']
    env:
    - {name: MODE, valueFrom: {configMapKeyRef: {name: settings, key: mode}}}
    - {name: KEY, valueFrom: {secretKeyRef: {name: secrets, key: key}}}
    - {name: NONE, valueFrom: {configMapKeyRef: {name: settings, key: none, optional: true}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: BOTH, value: $(MODE)-$(KEY)-$$(X)}
    volumeMounts:
    - {name: settings, mountPath: /settings}
    - {name: secrets, mountPath: /secrets, readOnly: true}
    - {name: about, mountPath: /about}
    - {name: scratch, mountPath: /scratch}
    - {name: settings, mountPath: /one/mode, subPath: mode}
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: secrets, secret: {secretName: secrets, defaultMode: 0400}}
  - {name: about, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - {name: scratch, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
",
    );
    kubectl.ok("wait pod/reader --for=condition=Ready --timeout=60s");
    let environment = kubectl.ok("exec reader -- env");
    for line in ["MODE=slow\n", "KEY=hush\n", "BOTH=slow-hush-$(X)\n"] {
        assert!(environment.contains(line), "{line}: {environment}");
    }
    assert!(!environment.contains("NONE="), "{environment}");
    let cat = |path: &str| kubectl.ok(&format!("exec reader -- cat {path}"));
    assert_eq!(
        (cat("/settings/mode"), cat("/secrets/key"), cat("/one/mode")),
        ("slow".to_owned(), "hush".to_owned(), "slow".to_owned())
    );
    assert!(cat("/about/labels").contains("a=\"b\""));
    assert!(kubectl.ok("exec reader -- stat -L -c %a /secrets/key").starts_with("400"));
    assert!(kubectl.ok("exec reader -- grep /scratch /proc/mounts").contains("tmpfs"));

    kubectl.ok_args(&["patch", "configmap", "settings", "--type=merge", "-p", "{\"data\":{\"mode\":\"fast\"}}"]);
    kubectl.ok_args(&["patch", "secret", "secrets", "--type=merge", "-p", "{\"stringData\":{\"key\":\"changed\"}}"]);
    kubectl.ok("label pod reader c=d");
    eventually("the volumes follow", 90, || match (cat("/settings/mode"), cat("/secrets/key"), cat("/about/labels")) {
        (mode, key, labels) if mode == "fast" && key == "changed" && labels.contains("c=\"d\"") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(cat("/one/mode"), "slow", "a subPath stays as it was, as upstream");
}

#[test]
fn jobs_daemon_sets_and_stateful_sets_do_their_part() {
    let kubectl = namespace("sets");
    let template = |app: &str, line: &str, more: &str| {
        format!(
            "{{metadata: {{labels: {{app: {app}}}}}, spec: {{{more}terminationGracePeriodSeconds: 1, containers: [{{name: c, image: 'localhost/busybox:1', command: [sh, -c, '{line}']}}]}}}}"
        )
    };
    let once = template("thrice", "exit 0", "restartPolicy: Never, ");
    let (each, row) = (template("each", "exec sleep 3600", ""), template("row", "exec sleep 3600", ""));
    kubectl.apply(&format!(
        "
{{apiVersion: batch/v1, kind: Job, metadata: {{name: thrice}}, spec: {{completions: 3, parallelism: 2, template: {once}}}}}
---
{{apiVersion: batch/v1, kind: Job, metadata: {{name: fails}}, spec: {{backoffLimit: 0, template: {fails}}}}}
---
{{apiVersion: apps/v1, kind: DaemonSet, metadata: {{name: each}}, spec: {{selector: {{matchLabels: {{app: each}}}}, template: {each}}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: peers}}, spec: {{clusterIP: None, selector: {{app: row}}, ports: [{{port: 1}}]}}}}
---
{{apiVersion: apps/v1, kind: StatefulSet, metadata: {{name: row}}, spec: {{replicas: 2, serviceName: peers, selector: {{matchLabels: {{app: row}}}}, template: {row}}}}}
",
        fails = template("fails", "exit 1", "restartPolicy: Never, ")
    ));
    kubectl.ok("wait job/thrice --for=condition=Complete --timeout=60s");
    assert_eq!(kubectl.field("job/thrice", ".status.succeeded").unwrap(), "3");
    kubectl.ok("wait job/fails --for=condition=Failed --timeout=60s");
    assert_eq!(
        kubectl.field("job/fails", ".status.conditions[?(@.type==\"Failed\")].reason").unwrap(),
        "BackoffLimitExceeded"
    );
    kubectl.ok("rollout status daemonset/each --timeout=60s");
    kubectl.ok("rollout status statefulset/row --timeout=60s");
    let uid = kubectl.field("pod/row-0", ".metadata.uid").unwrap();
    // One finds the other by its name, and keeps its own when it is replaced.
    eventually("row-1 finds row-0", 15, || {
        let answer = kubectl.run(&format!("exec row-1 -- nslookup row-0.peers.{}.svc.cluster.local", kubectl.name()));
        let address = kubectl.field("pod/row-0", ".status.podIP")?;
        if answer.stdout.contains(&format!("Address: {address}")) { Ok(()) } else { Err(answer.to_string()) }
    });
    kubectl.ok("delete pod row-0 --timeout=30s");
    eventually("another row-0", 30, || match kubectl.field("pod/row-0", ".metadata.uid")? {
        other if other != uid => Ok(()),
        _ => Err("the same".to_owned()),
    });
    kubectl.ok("wait pod/row-0 --for=condition=Ready --timeout=30s");
}

/// Without an address of one's own in the cluster: by the API server.
#[test]
fn pods_and_services_are_reached_through_the_api() {
    let kubectl = namespace("through");
    kubectl.apply(&web("web", 1, "v"));
    kubectl.ok("rollout status deployment/web --timeout=60s");
    let pod = kubectl.ok("get pods -l app=web -o jsonpath={.items[0].metadata.name}");
    for to in [format!("pods/{pod}:8080"), "services/web".to_owned(), "services/http:web:80".to_owned()] {
        let path = format!("/api/v1/namespaces/{}/{to}/proxy/index.html", kubectl.name());
        eventually(&path, 10, || match kubectl.run(&format!("get --raw {path}")) {
            answer if answer.stdout.starts_with("v web-") => Ok(()),
            answer => Err(answer.to_string()),
        });
    }
}

#[test]
fn deleting_a_namespace_ends_its_pods() {
    let kubectl = namespace("ending");
    kubectl.apply(&web("web", 2, "v"));
    kubectl.ok("rollout status deployment/web --timeout=60s");
    node().kubectl.ok(&format!("delete namespace {} --timeout=60s", kubectl.name()));
    eventually("no sandbox is left", 20, || {
        let left = node().machine.sh("ctr -n k8s.io containers ls -q | while read c; do ctr -n k8s.io containers info $c | grep -o '\"io.kubernetes.pod.namespace\": \"[^\"]*\"' || true; done");
        if left.contains(&format!("\"{}\"", kubectl.name())) { Err(left) } else { Ok(()) }
    });
}

#[test]
fn what_fits_nowhere_waits_and_says_why() {
    let kubectl = namespace("pending");
    kubectl.apply(&client_pod().replace("image:", "resources: {requests: {cpu: '1000'}}, image:"));
    eventually("the reason", 15, || {
        match kubectl.field("pod/client", ".status.conditions[?(@.type==\"PodScheduled\")].message")? {
            text if text
                == "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
                || text.starts_with("0/1 nodes are available: 1 Insufficient cpu.") =>
            {
                Ok(())
            }
            text => Err(text),
        }
    });
    eventually("the event", 10, || {
        let events = kubectl.ok("get events -o jsonpath={.items[*].reason}");
        if events.contains("FailedScheduling") { Ok(()) } else { Err(events) }
    });
}
