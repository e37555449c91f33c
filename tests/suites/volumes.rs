//! Volumes as pods see them, on a whole node with a real container runtime: what a container finds where it mounts one,
//! what it may do there, what changes while it runs, and what is left when it is gone.
use mote_tests::{Kubectl, Node, eventually};
use std::sync::OnceLock;

fn node() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| {
        let node = Node::up("volumes", "");
        node.kubectl.wait_for_account();
        node
    })
}

/// A pod of one container that runs a shell line. `mounts` and `volumes` are lists in YAML, `more` is added to the
/// container and `spec` to the pod, a line each.
struct Pod<'a> {
    name: &'a str,
    line: &'a str,
    mounts: &'a str,
    volumes: &'a str,
    more: &'a str,
    spec: &'a str,
}

impl Default for Pod<'_> {
    fn default() -> Self {
        Pod { name: "pod", line: "sleep 3600", mounts: "[]", volumes: "[]", more: "", spec: "" }
    }
}

impl Pod<'_> {
    fn apply(&self, kubectl: &Kubectl) {
        let Pod { name, line, mounts, volumes, more, spec } = self;
        let line = line.replace('\'', "''");
        kubectl.apply(&format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{name: {name}, colour: red}}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  {spec}
  volumes: {volumes}
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, '{line}']
    volumeMounts: {mounts}
    {more}
"
        ));
    }

    /// What it printed until it ended well.
    #[track_caller]
    fn prints(&self, kubectl: &Kubectl) -> String {
        self.apply(kubectl);
        let pod = format!("pod/{}", self.name);
        eventually(&format!("{pod} ends"), 60, || match kubectl.field(&pod, ".status.phase")?.as_str() {
            phase @ ("Succeeded" | "Failed") => {
                assert_eq!(phase, "Succeeded", "{}", kubectl.ok(&format!("logs {pod}")));
                Ok(())
            }
            phase => Err(format!(
                "{phase}: {}",
                kubectl.run(&format!("get events --field-selector involvedObject.name={}", self.name))
            )),
        });
        kubectl.ok(&format!("logs {pod}"))
    }

    /// Runs, and is asked by `exec`.
    #[track_caller]
    fn runs(&self, kubectl: &Kubectl) {
        self.apply(kubectl);
        kubectl.ok(&format!("wait pod/{} --for=condition=Ready --timeout=60s", self.name));
    }
}

#[test]
fn an_empty_dir_is_shared_writable_and_gone_with_its_pod() {
    let kubectl = node().kubectl.namespace("empty-dir");
    let pod = Pod {
        name: "scratch",
        line: "stat -c %a /disk /memory; grep ' /memory ' /proc/mounts | cut -d' ' -f3; df -k /memory | tail -1 | awk '{print $2}'; \
               cat /disk/by-init; dd if=/dev/zero of=/memory/much bs=1k count=2000 2>/dev/null || echo full; ls /disk/hidden 2>/dev/null; echo end",
        mounts: "[{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}]",
        volumes: "[{name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]",
        spec: "initContainers: [{name: init, image: 'localhost/busybox:1', command: [sh, -c, 'echo made >/disk/by-init'], volumeMounts: [{name: disk, mountPath: /disk}]}]",
        ..Pod::default()
    };
    assert_eq!(pod.prints(&kubectl), "777\n1777\ntmpfs\n1024\nmade\nfull\nend\n");
    let uid = kubectl.field("pod/scratch", ".metadata.uid").unwrap();
    let directory = format!("/var/lib/kubelet/pods/{uid}");
    kubectl.ok("delete pod scratch");
    eventually("its files are gone", 30, || {
        let there = node().machine.exec(&["test", "-e", &directory]).status.success();
        if there { Err(node().machine.sh(&format!("find {directory}"))) } else { Ok(()) }
    });
}

#[test]
fn a_host_path_is_what_its_type_says_or_the_pod_waits() {
    let kubectl = node().kubectl.namespace("host-path");
    node().machine.sh("mkdir -p /run/paths/there && echo content >/run/paths/file");
    for (name, path, type_, line, printed) in [
        ("any", "there", "''", "touch /v/from-pod; ls /v", "from-pod\n"),
        ("made", "deep/down", "DirectoryOrCreate", "stat -c '%F %a' /v", "directory 755\n"),
        ("file", "file", "File", "cat /v", "content\n"),
        ("empty", "new", "FileOrCreate", "stat -c '%F' /v", "regular empty file\n"),
    ] {
        let volumes = format!("[{{name: v, hostPath: {{path: /run/paths/{path}, type: {type_}}}}}]");
        let pod = Pod { name, line, mounts: "[{name: v, mountPath: /v}]", volumes: &volumes, ..Pod::default() };
        assert_eq!(pod.prints(&kubectl), printed, "{name}");
    }
    assert_eq!(node().machine.sh("ls /run/paths/there"), "from-pod\n", "the host has what the pod wrote");
    for (name, path, type_) in
        [("no-dir", "none", "Directory"), ("no-socket", "file", "Socket"), ("no-file", "there", "File")]
    {
        let volumes = format!("[{{name: v, hostPath: {{path: /run/paths/{path}, type: {type_}}}}}]");
        Pod { name, mounts: "[{name: v, mountPath: /v}]", volumes: &volumes, ..Pod::default() }.apply(&kubectl);
        eventually(&format!("{name} says why"), 30, || {
            let events = kubectl
                .ok(&format!("get events --field-selector involvedObject.name={name},reason=FailedMount -o name"));
            if events.is_empty() { Err("no FailedMount".to_owned()) } else { Ok(()) }
        });
        assert_eq!(kubectl.field(&format!("pod/{name}"), ".status.phase").unwrap(), "Pending");
    }
}

#[test]
fn what_a_volume_is_made_of_reaches_a_running_pod() {
    let kubectl = node().kubectl.namespace("sources");
    kubectl.ok("create configmap c --from-literal=key=one --from-literal=other=x");
    kubectl.ok("create secret generic s --from-literal=password=hidden");
    Pod {
        name: "reader",
        mounts: "[{name: c, mountPath: /c}, {name: s, mountPath: /s}, {name: all, mountPath: /all}, {name: c, mountPath: /fixed, subPath: key}]",
        volumes: "
  - {name: c, configMap: {name: c, defaultMode: 0440}}
  - {name: s, secret: {secretName: s, items: [{key: password, path: in/here, mode: 0400}]}}
  - name: all
    projected:
      sources:
      - configMap: {name: c, items: [{key: other, path: other}]}
      - configMap: {name: nowhere, optional: true}
      - secret: {name: s}
      - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: cpu, resourceFieldRef: {containerName: main, resource: limits.cpu, divisor: 1m}}]}
      - serviceAccountToken: {path: token, audience: somebody}",
        more: "resources: {limits: {cpu: 250m}}",
        ..Pod::default()
    }
    .runs(&kubectl);
    let sh = |line: &str| kubectl.ok_args(&["exec", "reader", "--", "sh", "-c", line]);
    assert_eq!(sh("cat /c/key /s/in/here /all/other /all/password /all/cpu /fixed"), "onehiddenxhidden250one");
    assert_eq!(sh("stat -L -c %a /c/key /s/in/here /all/other"), "440\n400\n644\n");
    assert_eq!(sh("ls /all"), "cpu\nlabels\nother\npassword\ntoken\n");
    assert!(sh("cat /all/labels").contains("colour=\"red\""));
    assert!(sh("touch /c/new 2>&1 || true").contains("Read-only"), "nobody writes into a ConfigMap from a pod");

    let patch = |kind: &str, patch: &str| kubectl.ok_args(&["patch", kind, "--type=merge", "-p", patch]);
    patch("configmap/c", r#"{"data": {"key": "two", "other": null, "new": "n"}}"#);
    patch("secret/s", r#"{"stringData": {"password": "changed"}}"#);
    patch("pod/reader", r#"{"metadata": {"labels": {"colour": "blue"}}}"#);
    eventually("the pod sees the changes", 60, || {
        // A key that is gone and named by an item leaves that volume as it was.
        let seen = sh("ls /c; cat /c/key /s/in/here; grep colour /all/labels || true");
        if seen.starts_with("key\nnew\ntwochanged") { Ok(()) } else { Err(seen) }
    });
    assert_eq!(sh("cat /fixed"), "one", "a subPath stays what it was");
    patch("configmap/c", r#"{"data": {"other": "back"}}"#);
    eventually("the whole of it", 60, || match sh("cat /all/other /all/password; grep colour /all/labels").as_str() {
        "backchangedcolour=\"blue\"\n" => Ok(()),
        seen => Err(seen.to_owned()),
    });
}

#[test]
fn mounts_are_of_a_part_read_only_and_owned_as_asked() {
    let kubectl = node().kubectl.namespace("mounts");
    let pod = Pod {
        name: "parts",
        line: "echo a >/whole/a; ls /whole; stat -c '%g %a' /whole; touch /read/x 2>/dev/null || echo refused; ls -A /part /named; id -G; stat -c %g /whole/a",
        mounts: "[{name: v, mountPath: /whole}, {name: v, mountPath: /part, subPath: sub/deep}, {name: v, mountPath: /named, subPathExpr: by-$(NAME)}, {name: v, mountPath: /read, readOnly: true}]",
        volumes: "[{name: v, emptyDir: {}}]",
        more: "env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]",
        spec: "securityContext: {fsGroup: 4321, runAsUser: 1000, runAsGroup: 1000}",
    };
    assert_eq!(
        pod.prints(&kubectl),
        "a\nby-parts\nsub\n4321 2777\nrefused\n/named:\n\n/part:\n1000 4321\n4321\n",
        "fsGroup owns an emptyDir and what is made in it, and the group is everybody's"
    );
    for (name, mount) in [("missing", "subPathExpr: $(NOBODY)"), ("link", "subPath: way-out/etc")] {
        let mounts = format!("[{{name: v, mountPath: /v, {mount}}}]");
        Pod {
            name,
            mounts: &mounts,
            volumes: "[{name: v, emptyDir: {}}]",
            spec: "initContainers: [{name: i, image: 'localhost/busybox:1', command: [ln, -s, /, /all/way-out], volumeMounts: [{name: v, mountPath: /all}]}]",
            ..Pod::default()
        }
        .apply(&kubectl);
        kubectl.eventually_field(
            &format!("pod/{name}"),
            ".status.containerStatuses[0].state.waiting.reason",
            "CreateContainerConfigError",
            30,
        );
    }
}

#[test]
fn a_local_volume_keeps_what_pods_write_and_is_kept_when_released() {
    let kubectl = node().kubectl.namespace("local");
    node().machine.sh("mkdir -p /run/machine/files/disk");
    kubectl.apply(&format!(
        "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: by-hand}}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: disk}}
spec:
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: by-hand
  local: {{path: /run/machine/files/disk}}
  nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: ['{}']}}]}}]}}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data}}
spec: {{storageClassName: by-hand, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}
",
        kubectl.ok("get nodes -o jsonpath={.items[0].metadata.name}")
    ));
    assert_eq!(kubectl.field("pvc/data", ".spec.volumeName").unwrap(), "", "nobody uses it yet");
    let mounts = "[{name: v, mountPath: /v}]";
    let volumes = "[{name: v, persistentVolumeClaim: {claimName: data}}]";
    let pod = |name, line| Pod { name, line, mounts, volumes, ..Pod::default() };
    assert_eq!(pod("first", "echo kept >/v/f").prints(&kubectl), "");
    kubectl.eventually_field("pvc/data", ".status.phase", "Bound", 10);
    kubectl.eventually_field("pv/disk", ".spec.claimRef.name", "data", 10);
    kubectl.ok("delete pod first");
    pod("second", "sleep 3600").runs(&kubectl);
    assert_eq!(kubectl.ok("exec second -- cat /v/f"), "kept\n");
    // The claim stays while a pod uses it.
    kubectl.ok("delete pvc data --wait=false");
    assert!(!kubectl.field("pvc/data", ".metadata.deletionTimestamp").unwrap().is_empty());
    kubectl.ok("delete pod second");
    kubectl.ok("wait pvc/data --for=delete --timeout=30s");
    kubectl.eventually_field("pv/disk", ".status.phase", "Released", 30);
    assert_eq!(node().machine.sh("cat /run/machine/files/disk/f"), "kept\n");
    kubectl.ok("delete pv/disk storageclass/by-hand");
}
