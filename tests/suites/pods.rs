//! A whole node with a real container runtime: one pod's life, from init containers to its last log line.
use mote_tests::{
    Kubectl, Node, eventually,
    http::{Client, Stream},
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    process::Stdio,
    sync::OnceLock,
};

fn node() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| {
        let node = Node::up("pods", "");
        node.kubectl.wait_for_account();
        node
    })
}

fn namespace(purpose: &str) -> Kubectl {
    node().kubectl.namespace(purpose)
}

/// One container that runs a shell line; `more` is added to the container, `spec` to the pod.
fn pod(name: &str, line: &str, more: &str, spec: &str) -> String {
    let line = line.replace('\'', "''");
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{name: {name}}}}}
spec:
  terminationGracePeriodSeconds: 1
{spec}
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, '{line}']
{more}
"
    )
}

fn logs(kubectl: &Kubectl, args: &str) -> String {
    kubectl.ok(&format!("logs {args}"))
}

#[test]
fn a_pod_that_ends_has_its_phase_and_exit_code() {
    let kubectl = namespace("phases");
    for (name, line, phase, code) in [("good", "echo done", "Succeeded", "0"), ("bad", "exit 7", "Failed", "7")] {
        kubectl.apply(&pod(name, line, "", "  restartPolicy: Never"));
        kubectl.eventually_field(&format!("pod/{name}"), ".status.phase", phase, 30);
        assert_eq!(
            kubectl.field(&format!("pod/{name}"), ".status.containerStatuses[0].state.terminated.exitCode").unwrap(),
            code
        );
    }
    assert_eq!(logs(&kubectl, "good"), "done\n");
    kubectl.apply(&pod("missing", "true", "    imagePullPolicy: Never", "").replace("busybox:1", "none:1"));
    kubectl.eventually_field(
        "pod/missing",
        ".status.containerStatuses[0].state.waiting.reason",
        "ErrImageNeverPull",
        30,
    );
}

#[test]
fn init_containers_run_in_order_before_the_rest() {
    let kubectl = namespace("init");
    kubectl.apply(&pod(
        "ordered",
        "cat /seen/steps; sleep 3600",
        "    volumeMounts: [{name: work, mountPath: /seen}]",
        "  volumes: [{name: work, emptyDir: {}}]
  initContainers:
  - {name: one, image: 'localhost/busybox:1', command: [sh, -c, 'sleep 1; echo one >>/seen/steps'], volumeMounts: [{name: work, mountPath: /seen}]}
  - {name: two, image: 'localhost/busybox:1', command: [sh, -c, 'echo two >>/seen/steps'], volumeMounts: [{name: work, mountPath: /seen}]}",
    ));
    kubectl.ok("wait pod/ordered --for=condition=Ready --timeout=60s");
    assert_eq!(logs(&kubectl, "ordered"), "one\ntwo\n");
    assert_eq!(
        kubectl.field("pod/ordered", ".status.initContainerStatuses[*].state.terminated.reason").unwrap(),
        "Completed Completed"
    );
    // One that fails keeps the rest from starting.
    kubectl.apply(&pod("stuck", "echo never", "", "  restartPolicy: Never\n  initContainers: [{name: bad, image: 'localhost/busybox:1', command: [sh, -c, 'exit 3']}]"));
    kubectl.eventually_field("pod/stuck", ".status.phase", "Failed", 30);
    assert_eq!(
        kubectl.field("pod/stuck", ".status.containerStatuses[0].state.waiting.reason").unwrap(),
        "PodInitializing"
    );
}

#[test]
fn a_crashing_container_is_restarted_ever_later() {
    let kubectl = namespace("crash");
    kubectl.apply(&pod("crash", "echo again; exit 1", "", ""));
    kubectl.eventually_field("pod/crash", ".status.containerStatuses[0].state.waiting.reason", "CrashLoopBackOff", 40);
    let message = kubectl.field("pod/crash", ".status.containerStatuses[0].state.waiting.message").unwrap();
    assert!(
        message.starts_with("back-off ") && message.contains("restarting failed container=main pod=crash_"),
        "{message}"
    );
    eventually("a second restart", 60, || {
        match kubectl.field("pod/crash", ".status.containerStatuses[0].restartCount")?.parse::<u32>() {
            Ok(count) if count >= 2 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(logs(&kubectl, "crash --previous"), "again\n");
    let events = kubectl.ok("get events -o jsonpath={.items[*].reason}");
    assert!(events.contains("BackOff") && events.contains("Started"), "{events}");
}

#[test]
fn probes_fail_and_recover() {
    let kubectl = namespace("probes");
    kubectl.apply(&pod(
        "probed",
        "touch /tmp/ready /tmp/alive; sleep 3600",
        "    readinessProbe: {exec: {command: [cat, /tmp/ready]}, periodSeconds: 1, failureThreshold: 1}
    livenessProbe: {exec: {command: [cat, /tmp/alive]}, periodSeconds: 1, failureThreshold: 2, initialDelaySeconds: 1}
    startupProbe: {exec: {command: [cat, /tmp/alive]}, periodSeconds: 1, failureThreshold: 10}",
        "",
    ));
    let ready = ".status.conditions[?(@.type==\"Ready\")].status";
    kubectl.eventually_field("pod/probed", ready, "True", 30);
    kubectl.ok("exec probed -- rm /tmp/ready");
    kubectl.eventually_field("pod/probed", ready, "False", 15);
    kubectl.ok("exec probed -- touch /tmp/ready");
    kubectl.eventually_field("pod/probed", ready, "True", 15);
    assert_eq!(kubectl.field("pod/probed", ".status.containerStatuses[0].restartCount").unwrap(), "0");
    kubectl.ok("exec probed -- rm /tmp/alive");
    kubectl.eventually_field("pod/probed", ".status.containerStatuses[0].restartCount", "1", 30);
    kubectl.eventually_field("pod/probed", ready, "True", 30);
    let events = kubectl.ok("get events -o jsonpath={.items[*].message}");
    assert!(events.contains("Container main failed liveness probe, will be restarted"), "{events}");

    // Over the network: by port and by path.
    kubectl.apply(&pod(
        "served",
        "mkdir -p /w && echo ok >/w/here && exec httpd -f -p 8080 -h /w",
        "    ports: [{name: web, containerPort: 8080}]
    readinessProbe: {httpGet: {path: /here, port: web}, periodSeconds: 1}
    livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}",
        "",
    ));
    kubectl.eventually_field("pod/served", ready, "True", 30);
    kubectl.ok("exec served -- rm /w/here");
    kubectl.eventually_field("pod/served", ready, "False", 15);
    let events = kubectl.ok("get events -o jsonpath={.items[*].message}");
    assert!(events.contains("HTTP probe failed with statuscode: 404"), "{events}");
}

#[test]
fn hooks_and_grace_are_given() {
    let kubectl = namespace("hooks");
    kubectl.apply(&pod(
        "hooked",
        "trap 'echo terminated; sleep 1; exit 0' TERM; while :; do sleep 0.1; done",
        "    lifecycle: {postStart: {exec: {command: [touch, /out/started]}}, preStop: {exec: {command: [touch, /out/stopping]}}}
    volumeMounts: [{name: out, mountPath: /out}]",
        "  volumes: [{name: out, hostPath: {path: /run/hooks, type: DirectoryOrCreate}}]",
    ).replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 10"));
    kubectl.ok("wait pod/hooked --for=condition=Ready --timeout=30s");
    let mut follow = kubectl.spawn(&["logs", "hooked", "-f"]);
    kubectl.ok("delete pod hooked --timeout=30s");
    let mut text = String::new();
    follow.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    follow.wait().unwrap();
    assert_eq!(text, "terminated\n");
    assert_eq!(node().machine.sh("ls /run/hooks").split_whitespace().collect::<Vec<_>>(), ["started", "stopping"]);
}

#[test]
fn logs_are_given_as_asked() {
    let kubectl = namespace("logs");
    kubectl.apply(&pod("talker", "for i in 1 2 3 4 5; do echo line $i; echo error $i >&2; done; sleep 3600", "", ""));
    kubectl.ok("wait pod/talker --for=condition=Ready --timeout=30s");
    eventually("all lines", 10, || match logs(&kubectl, "talker").lines().count() {
        10 => Ok(()),
        other => Err(other.to_string()),
    });
    assert_eq!(logs(&kubectl, "talker --tail=1").lines().count(), 1);
    // Output and errors come through a pipe each, so either may be first.
    assert_eq!(logs(&kubectl, "talker --limit-bytes=4"), logs(&kubectl, "talker")[..4]);
    let stamped = logs(&kubectl, "talker --timestamps --tail=2");
    assert!(
        stamped.lines().all(|line| line.len() > 30 && line.as_bytes()[4] == b'-' && line.contains('T')),
        "{stamped}"
    );
    assert_eq!(logs(&kubectl, "-l name=talker --tail=3").lines().count(), 3);
    assert!(kubectl.fails("logs talker -c none").contains("container none is not valid for pod talker"));
    let mut follow = kubectl.spawn(&["logs", "talker", "-f", "--tail=1"]);
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    kubectl.ok_args(&["exec", "talker", "--", "sh", "-c", "echo later >/proc/1/fd/1"]);
    assert_eq!(lines.next().unwrap().unwrap(), "later");
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[test]
fn exec_attach_cp_and_port_forward() {
    let kubectl = namespace("streams");
    kubectl.apply(&pod(
        "open",
        "mkdir -p /w; echo page >/w/index.html; httpd -p 8080 -h /w; exec cat",
        "    stdin: true\n    ports: [{containerPort: 8080}]",
        "",
    ));
    kubectl.ok("wait pod/open --for=condition=Ready --timeout=30s");

    assert_eq!(kubectl.ok("exec open -- echo hello"), "hello\n");
    let echoed = kubectl.with_input(&["exec", "-i", "open", "--", "cat"], Some("through and back"));
    assert_eq!(echoed.stdout, "through and back", "{echoed}");
    let failed = kubectl.with_input(&["exec", "open", "--", "sh", "-c", "echo oops >&2; exit 42"], None);
    assert!(!failed.success && failed.stderr.contains("oops") && failed.stderr.contains("exit code 42"), "{failed}");
    assert!(kubectl.fails("exec open -- /no/such/program").contains("no such file"));
    let large = "x".repeat(1024 * 1024);
    let counted = kubectl.with_input(&["exec", "-i", "open", "--", "wc", "-c"], Some(&large));
    assert_eq!(counted.stdout.trim(), "1048576", "{counted}");

    let mut attached = kubectl.command(&["attach", "-i", "open"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = attached.stdin.take().unwrap();
    let mut lines = BufReader::new(attached.stdout.take().unwrap()).lines();
    stdin.write_all(b"to the container\n").unwrap();
    stdin.flush().unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "to the container");
    attached.kill().unwrap();
    attached.wait().unwrap();
    // A terminal was asked for where there is none: the runtime refuses, and kubectl reads the log instead.
    let run = "run terminal --image=localhost/busybox:1 --restart=Never -it --rm --command -- sh -c";
    let args: Vec<&str> = run.split(' ').chain(["echo first; sleep 2; echo last"]).collect();
    let ran = kubectl.with_input(&args, None);
    assert!(
        ran.success && ran.stdout.contains("first") && ran.stderr.contains("falling back to streaming logs"),
        "{ran}"
    );

    let dir = mote_tests::server::scratch();
    std::fs::write(dir.join("file"), &large).unwrap();
    kubectl.ok(&format!("cp {} open:/tmp/copy", dir.join("file").display()));
    kubectl.ok(&format!("cp open:/tmp/copy {}", dir.join("back").display()));
    assert_eq!(std::fs::read_to_string(dir.join("back")).unwrap(), large);
    std::fs::remove_dir_all(dir).unwrap();

    let mut forward = kubectl.spawn(&["port-forward", "open", "18080:8080"]);
    let mut lines = BufReader::new(forward.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("Forwarding from 127.0.0.1:18080"));
    for _ in 0..3 {
        assert_eq!(node().machine.sh("busybox wget -qO- http://127.0.0.1:18080/"), "page\n");
    }
    forward.kill().unwrap();
    forward.wait().unwrap();

    // Clients in other languages than Go name what they know of commands too, and number their streams.
    let path = format!("/api/v1/namespaces/{}/pods/open/portforward?ports=8080", kubectl.name());
    let mut stream = node().in_network(|client| websocket(client, &path, "v5.channel.k8s.io,v4.channel.k8s.io"));
    let message = b"\0GET / HTTP/1.0\r\n\r\n";
    let mut frame = vec![0x82, 0x80 | u8::try_from(message.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(message);
    stream.write_all(&frame).unwrap();
    let (mut read, mut chunk) = (String::new(), [0; 4096]);
    while !read.contains("page\n") {
        let count = stream.read(&mut chunk).unwrap();
        assert!(count > 0, "{read}");
        read.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    assert!(read.starts_with("HTTP/1.1 101 ") && read.contains("sec-websocket-protocol: v4.channel.k8s.io"), "{read}");
}

/// A connection on which `path` was asked for as a WebSocket of one of these protocols.
fn websocket(client: &Client, path: &str, protocols: &str) -> Stream {
    let mut stream = client.connect().expect("a connection");
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocols}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("the head is sent");
    stream
}

#[test]
fn resources_and_security_reach_the_container() {
    let kubectl = namespace("bounds");
    kubectl.apply(&pod(
        "bound",
        "id -u; id -g; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; touch /x 2>/dev/null || echo read-only; sleep 3600",
        "    resources: {requests: {cpu: 50m, memory: 16Mi}, limits: {cpu: 100m, memory: 32Mi}}
    securityContext: {runAsUser: 1234, runAsGroup: 2345, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false}",
        "",
    ));
    kubectl.ok("wait pod/bound --for=condition=Ready --timeout=30s");
    eventually("what it sees of its bounds", 10, || match logs(&kubectl, "bound").as_str() {
        "1234\n2345\n33554432\nread-only\n" => Ok(()),
        other => Err(other.to_owned()),
    });
    assert_eq!(kubectl.field("pod/bound", ".status.qosClass").unwrap(), "Burstable");
    kubectl.apply(&pod(
        "hungry",
        "exec tail /dev/zero",
        "    resources: {limits: {memory: 8Mi}}",
        "  restartPolicy: Never",
    ));
    kubectl.eventually_field("pod/hungry", ".status.containerStatuses[0].state.terminated.reason", "OOMKilled", 30);
    kubectl.apply(&pod("root", "true", "    securityContext: {runAsNonRoot: true}", ""));
    kubectl.eventually_field(
        "pod/root",
        ".status.containerStatuses[0].state.waiting.reason",
        "CreateContainerConfigError",
        30,
    );
}

#[test]
fn host_ports_lead_in() {
    let kubectl = namespace("ports");
    kubectl.apply(&pod(
        "web",
        "mkdir -p /w; echo in >/w/index.html; exec httpd -f -p 8080 -h /w",
        "    ports: [{containerPort: 8080, hostPort: 18081}]",
        "",
    ));
    kubectl.ok("wait pod/web --for=condition=Ready --timeout=30s");
    let node_ip = kubectl.field("pod/web", ".status.hostIP").unwrap();
    eventually("the host port", 10, || {
        let output = node().machine.exec(&[
            "busybox",
            "timeout",
            "2",
            "busybox",
            "wget",
            "-qO-",
            &format!("http://{node_ip}:18081/"),
        ]);
        if output.stdout == b"in\n" { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
}

#[test]
fn a_service_prefers_who_is_near() {
    let kubectl = namespace("near");
    kubectl.apply(&pod("web", "echo hello >/index.html; exec httpd -f -p 8080 -h /", "", ""));
    kubectl.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {name: web}, ports: [{port: 80, targetPort: 8080}]}}",
    );
    kubectl.ok("wait pod/web --for=condition=Ready --timeout=60s");
    let node = kubectl.field("pod/web", ".spec.nodeName").unwrap();
    kubectl.ok(&format!("label node {node} topology.kubernetes.io/zone=attic"));
    let zone = r#"{"forZones":[{"name":"attic"}]}"#.to_owned();
    let both = format!(r#"{{"forNodes":[{{"name":"{node}"}}],"forZones":[{{"name":"attic"}}]}}"#);
    for (distribution, hints) in [
        (r#""PreferSameNode""#, &both),
        (r#""PreferSameZone""#, &zone),
        (r#""PreferClose""#, &zone),
        ("null", &String::new()),
    ] {
        let patch = format!(r#"{{"spec": {{"trafficDistribution": {distribution}}}}}"#);
        kubectl.ok_args(&["patch", "service", "web", "--type=merge", "-p", &patch]);
        eventually(&format!("the hints of {distribution}"), 20, || {
            let line = "get endpointslice -l kubernetes.io/service-name=web -o jsonpath={.items[*].endpoints[*].hints}";
            let found = kubectl.ok(line);
            if found == *hints { Ok(()) } else { Err(found) }
        });
    }
    kubectl.ok(&format!("label node {node} topology.kubernetes.io/zone-"));
}

/// What a runtime, or somebody at a shell, may call the plugin with.
#[test]
fn the_cni_plugin_refuses_rubbish() {
    let plugin = node().machine.sh("ls /opt/cni/bin/mote-cni").trim().to_owned();
    let call = |environment: &str, stdin: &str| {
        let output =
            node().machine.exec(&["sh", "-c", &format!("printf '%s' '{stdin}' | env -i {environment} {plugin}")]);
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {} {}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        });
        (output.status.success(), answer)
    };
    let (good, version) = call("CNI_COMMAND=VERSION", "{\"cniVersion\":\"1.1.0\"}");
    assert!(good && version["supportedVersions"].to_string().contains("1.1.0"), "{version}");
    let add = "CNI_COMMAND=ADD CNI_CONTAINERID=x CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin";
    for (environment, stdin) in [
        ("", ""),
        ("CNI_COMMAND=DANCE", "{}"),
        ("CNI_COMMAND=ADD", "{}"),
        (add, "not json"),
        (&format!("{add} CNI_NETNS=/none"), "{\"cniVersion\":\"1.0.0\",\"name\":\"mote\",\"type\":\"mote-cni\"}"),
        (
            &format!("{add} CNI_NETNS=/proc/1/ns/net"),
            "{\"cniVersion\":\"9.9.9\",\"name\":\"mote\",\"type\":\"mote-cni\"}",
        ),
        (
            "CNI_COMMAND=ADD CNI_CONTAINERID=../../etc CNI_NETNS=/proc/1/ns/net CNI_IFNAME=a/b CNI_PATH=/",
            "{\"cniVersion\":\"1.0.0\",\"name\":\"mote\",\"type\":\"mote-cni\"}",
        ),
    ] {
        let (good, answer) = call(environment, stdin);
        assert!(
            !good && answer["code"].as_u64().is_some_and(|code| code > 0) && answer["msg"].is_string(),
            "{environment} {stdin}: {answer}"
        );
    }
}

#[test]
fn a_node_answers_through_the_proxy_what_a_kubelet_answers() {
    let kubectl = namespace("node-proxy");
    kubectl.apply(&pod("talker", "echo hello; sleep 600", "", ""));
    kubectl.eventually_field("pod/talker", ".status.phase", "Running", 60);
    let node = kubectl.field("pod/talker", ".spec.nodeName").expect("a node");
    let get = |path: &str| kubectl.ok(&format!("get --raw /api/v1/nodes/{node}/proxy/{path}"));
    assert_eq!(get("healthz"), "ok");
    assert!(get("pods").contains("\"talker\""));
    assert!(get("configz").contains("KubeletConfiguration"));
    assert_eq!(get(&format!("containerLogs/{}/talker/main", kubectl.name())), "hello\n");
    eventually("the pod's figures", 60, || {
        let summary = kubectl.run(&format!("get --raw /api/v1/nodes/{node}/proxy/stats/summary")).to_string();
        let missing =
            ["talker", "usageCoreNanoSeconds", "workingSetBytes", "nodeName", "startTime", "rlimit", "imageFs"]
                .into_iter()
                .chain(["inodesFree", "rootfs", "logs", "ephemeral-storage", "volume", "kube-api-access-"])
                .find(|name| !summary.contains(&format!("\"{name}")));
        missing.map_or(Ok(()), |name| Err(format!("no {name} in {summary}")))
    });
    // A runtime may fail to list what pods use while one of them goes.
    for (page, names) in [
        ("resource", ["node_cpu_usage_seconds_total ", "pod_memory_working_set_bytes{namespace="]),
        ("cadvisor", ["container_memory_working_set_bytes{container=\"main\",id=", "machine_cpu_cores "]),
    ] {
        eventually(page, 60, || {
            let output = kubectl.run(&format!("get --raw /api/v1/nodes/{node}/proxy/metrics/{page}"));
            let missing = names.into_iter().find(|name| !output.stdout.contains(name));
            missing.map_or(Ok(()), |name| Err(format!("no {name} in {output}")))
        });
    }
    let own = get("metrics");
    for name in ["kubelet_running_pods ", "kubelet_started_pods_total ", "kubelet_pod_start_duration_seconds_count "] {
        assert!(own.contains(name), "no {name} in {own}");
    }
    assert!(get("logs/").contains("<a href=\"./pods/\">pods/</a>"));
    assert!(get("logs/containers/").contains("talker_"));
    assert!(get("runningpods/").contains("\"talker\""));
    let of_pods = format!("{}/talker/main", kubectl.name());
    let ran = kubectl.with_input(
        &["create", "--raw", &format!("/api/v1/nodes/{node}/proxy/run/{of_pods}?cmd=echo+heard"), "-f", "-"],
        Some(""),
    );
    assert_eq!(ran.stdout, "heard\n", "{ran}");
}

#[test]
fn the_kubelet_has_a_port_of_its_own_with_rules_of_its_own() {
    let kubectl = namespace("kubelet-port");
    kubectl.apply(&pod("talker", "echo hello; sleep 600", "", ""));
    kubectl.apply(&format!(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: reads-metrics}}
rules: [{{apiGroups: [''], resources: [nodes/metrics], verbs: [get]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: reads-metrics}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reads-metrics}}
subjects: [{{kind: ServiceAccount, name: default, namespace: {}}}]
",
        kubectl.name()
    ));
    kubectl.eventually_field("pod/talker", ".status.phase", "Running", 60);
    assert_eq!(kubectl.field("node", ".items[0].status.daemonEndpoints.kubeletEndpoint.Port").unwrap(), "10250");
    let token = kubectl.ok("create token default");
    let of_pods = format!("{}/talker/main", kubectl.name());
    node().in_network(|client| {
        let mut admin = client.clone();
        admin.address.set_port(10250);
        let reader = admin.with_token(token.trim());
        for (who, client, method, path, code, says) in [
            ("nobody", &admin.anonymous(), "GET", "/healthz".to_owned(), 401, "Unauthorized"),
            ("a liar", &admin.with_token("x"), "GET", "/healthz".to_owned(), 401, "Unauthorized"),
            ("a reader", &reader, "GET", "/metrics/resource".to_owned(), 200, "resource_scrape_error "),
            ("a reader", &reader, "GET", "/metrics/probes".to_owned(), 200, "prober_probe_total"),
            (
                "a reader",
                &reader,
                "GET",
                format!("/exec/{of_pods}?command=id&output=1"),
                403,
                "subresource(s)=[proxy])",
            ),
            ("a reader", &reader, "GET", "/pods".to_owned(), 403, "subresource(s)=[pods proxy])"),
            ("a reader", &reader, "GET", "/metrics/../pods".to_owned(), 404, "404"),
            ("a reader", &reader, "GET", "/api/v1/nodes".to_owned(), 403, "subresource(s)=[proxy])"),
            ("an admin", &admin, "GET", "/pods".to_owned(), 200, "\"talker\""),
            ("an admin", &admin, "GET", format!("/containerLogs/{of_pods}"), 200, "hello\n"),
            ("an admin", &admin, "POST", format!("/run/{of_pods}?cmd=echo+heard"), 200, "heard\n"),
            (
                "an admin",
                &admin,
                "GET",
                format!("/exec/{of_pods}?command=id&output=1"),
                400,
                "Upgrade request required",
            ),
            ("an admin", &admin, "GET", "/containerLogs/none/none/none".to_owned(), 404, "pod \"none\" does not exist"),
            ("an admin", &admin, "GET", "/api/v1/nodes".to_owned(), 404, "404"),
        ] {
            let answer = client.request(method, &path, &[], b"");
            assert!(answer.code == code && answer.text().contains(says), "{who}: {method} {path}: {answer:?}");
        }
        let impersonates = reader.request("GET", "/pods", &[("Impersonate-User", "system:admin")], b"");
        assert_eq!(impersonates.code, 403);
        let mut stream =
            websocket(&admin, &format!("/exec/{of_pods}?command=echo&command=said&output=1"), "v4.channel.k8s.io");
        let mut read = Vec::new();
        // The runtime ends the connection when the command has ended, in whatever way.
        let _ = stream.read_to_end(&mut read);
        let read = String::from_utf8_lossy(&read);
        assert!(read.starts_with("HTTP/1.1 101 ") && read.contains("said\n"), "{read}");
    });
}
