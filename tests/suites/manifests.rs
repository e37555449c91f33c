//! `manifests.paths`: objects that come with the machine.
use mote_tests::{Server, eventually, server::scratch};
use std::fs;

/// Each wants what only a later file brings.
const FIRST: &str = r#"
apiVersion: example.org/v1
kind: Lamp
metadata: {name: desk, namespace: cabin}
spec: {lit: true}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: said, namespace: cabin}, data: {text: "of the machine"}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {text: "of the machine"}}
"#;
const SECOND: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: lamps.example.org}
spec:
  group: example.org
  names: {plural: lamps, singular: lamp, kind: Lamp, listKind: LampList}
  scope: Namespaced
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
--- # and where they are
{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "cabin"}}
"#;
const TOKEN: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: bootstrap-token-abcdef, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData: {token-id: abcdef, token-secret: 0123456789abcdef, usage-bootstrap-authentication: "true"}
"#;

#[test]
fn what_lies_in_the_paths_is_applied_at_every_start_whatever_the_order() {
    let dir = scratch();
    let of_the_machine = dir.join("manifests");
    fs::create_dir(&of_the_machine).unwrap();
    for (name, text) in
        [("10.yaml", FIRST), ("20.json", SECOND), ("30.yml", TOKEN), ("40.yaml", "a: ["), ("notes", "a: [")]
    {
        fs::write(of_the_machine.join(name), text).unwrap();
    }
    let config = format!(
        "components: {{disabled: [kubelet, network]}}\nmanifests: {{paths: [/nonexistent, {}]}}\n",
        of_the_machine.display()
    );
    let mut server = Server::start_at(dir, &config);
    let (kubectl, cabin) = (server.kubectl.clone(), server.kubectl.within("cabin"));
    cabin.eventually_field("lamp/desk", ".spec.lit", "true", 60);
    cabin.eventually_field("configmap/said", ".data.text", "of the machine", 60);
    let managers = "-o jsonpath={.metadata.managedFields[*].manager} --show-managed-fields";
    assert_eq!(kubectl.ok(&format!("get configmap kept {managers}")), "mote-manifests");
    let user = server.client().with_token("abcdef.0123456789abcdef").get("/api/v1/namespaces");
    assert!(user.text().contains("system:bootstrap:abcdef"), "{}", user.text());
    let log = server.log();
    assert!(log.contains("40.yaml") && !log.contains("notes"), "{log}");

    let version = kubectl.field("configmap/kept", ".metadata.resourceVersion").unwrap();
    cabin.ok("patch configmap said -p {\"data\":{\"text\":\"changed\",\"more\":\"ours\"}}");
    server.stop(libc::SIGTERM);
    server.start_again();
    cabin.eventually_field("configmap/said", ".data.text", "of the machine", 60);
    assert_eq!(cabin.field("configmap/said", ".data.more").unwrap(), "ours");
    eventually("all is applied again", 60, || match server.log().matches("manifests are applied").count() {
        2 => Ok(()),
        _ => Err(server.log()),
    });
    assert_eq!(kubectl.field("configmap/kept", ".metadata.resourceVersion").unwrap(), version, "it was written again");
}
