//! NodeRestriction: a kubelet changes its own Node, its own pods' status and what belongs to them, and nobody else's
//! (plugin/pkg/admission/noderestriction). What it may read is the node authorizer's.
use super::{
    Attributes, Operation, certificates,
    references::{has_config_maps, has_secrets, items},
};
use crate::rbac;
use mote_schema::Gather as _;
use mote_schema::{Map, Name, Value};
use mote_schema::{Order as _, Status};
use std::collections::BTreeSet;

const MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels under kubernetes.io and k8s.io that a kubelet may set (staging/src/k8s.io/kubelet/pkg/apis/well_known_labels.go).
const OWN_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
];
const OWN_PREFIXES: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
/// Volume sources that name nothing in the API.
const LOCAL_VOLUMES: &[(&str, &str)] = &[
    ("configMap", "configmaps (via configmap volumes)"),
    ("secret", "secrets (via secret volumes)"),
    ("csi", "csidrivers (via CSI volumes)"),
    ("glusterfs", "endpoints (via glusterFS volumes)"),
    ("persistentVolumeClaim", "persistentvolumeclaims"),
    ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ("azureFile", "secrets (via azureFile volumes)"),
];
const PROJECTED: &[(&str, &str)] = &[
    ("configMap", "configmaps (via projected volumes)"),
    ("secret", "secrets (via projected volumes)"),
    ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
    ("clusterTrustBundle", "clustertrustbundles"),
    ("podCertificate", "podcertificates"),
];

pub(super) fn mutate(attributes: &mut Attributes<'_, '_>, new: &mut Value) -> Result<(), Status> {
    // The kubelet of this process labels its node as part of the control plane, which no other may.
    if attributes.target.internal {
        return Ok(());
    }
    let user = attributes.target.user;
    let Some(node) = user.name.strip_prefix("system:node:").filter(|_| user.in_group("system:nodes")) else {
        return Ok(());
    };
    let refuse = |detail: String| Err(attributes.forbidden(new, &detail));
    if node.is_empty() {
        return refuse(format!("could not determine node from user {:?}", user.name));
    }
    match check(attributes, node, new)? {
        Some(detail) => refuse(detail),
        None => Ok(()),
    }
}

/// What is wrong with the request, if anything.
fn check(attributes: &Attributes<'_, '_>, node: &str, new: &Value) -> Result<Option<String>, Status> {
    let kind = attributes.target.kind;
    let own_name = new["metadata"]["name"].as_str().unwrap_or("");
    let name = if attributes.target.name.is_empty() { own_name } else { attributes.target.name };
    let create = attributes.is_create();
    Ok(match (&*kind.group, &*kind.plural, attributes.subresource) {
        ("", "pods", "") => pod(attributes, node, new)?,
        ("", "pods", "status") => pod_status(attributes, node, new),
        ("", "pods", "eviction") => {
            let pod = existing(attributes, "pods", name)?;
            let own = pod.root().at("spec.nodeName").str() == node;
            (!own).then(|| format!("node {node} can only evict pods with spec.nodeName set to itself"))
        }
        ("", "pods", other) => {
            Some(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
        }
        ("", "nodes", _) => node_itself(attributes, node, name, new),
        ("", "persistentvolumeclaims", "status") => claim_status(attributes, node, new),
        ("", "persistentvolumeclaims", _) => Some("may only update PVC status".into()),
        ("", "serviceaccounts", "token") if create => token(attributes, node, new)?,
        ("coordination.k8s.io", "leases", _) => {
            if attributes.target.namespace != "kube-node-lease" {
                Some("can only access leases in the \"kube-node-lease\" system namespace".into())
            } else {
                (name != node).then(|| "can only access node lease with the same name as the requesting node".into())
            }
        }
        ("storage.k8s.io", "csinodes", _) => {
            (name != node).then(|| "can only access CSINode with the same name as the requesting node".into())
        }
        ("resource.k8s.io", "resourceslices", _) => {
            let (verb, slice) = match attributes.operation {
                Operation::Create => ("create", new),
                Operation::Delete => ("delete", attributes.old),
                _ => return Ok(None),
            };
            let own = slice["spec"]["nodeName"] == node;
            (!own).then(|| format!("can only {verb} ResourceSlice with the same NodeName as the requesting node"))
        }
        ("certificates.k8s.io", "certificatesigningrequests", _) if create => {
            let signer = new["spec"]["signerName"].as_str().unwrap_or("");
            if !matches!(signer, "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet") {
                return Ok(None);
            }
            match certificates::subject(new) {
                Err(error) => Some(format!("unable to parse csr: {error}")),
                Ok(subject) if subject.common_name != format!("system:node:{node}") => {
                    Some(format!("can only create a node CSR with CN=system:node:{node}"))
                }
                Ok(_) => None,
            }
        }
        _ => None,
    })
}

/// An object of this request's namespace that the request is about.
fn existing(attributes: &Attributes<'_, '_>, plural: &str, name: &str) -> Result<mote_schema::Object, Status> {
    let found = attributes.api.lookup("", "v1", plural, attributes.target.namespace, name);
    found.ok_or_else(|| Status::not_found("", plural, name))
}

fn pod(attributes: &Attributes<'_, '_>, node: &str, new: &Value) -> Result<Option<String>, Status> {
    match attributes.operation {
        Operation::Create => mirror_pod(attributes, node, new),
        Operation::Delete => {
            let own = attributes.old["spec"]["nodeName"] == node;
            Ok((!own).then(|| format!("node {node:?} can only delete pods with spec.nodeName set to itself")))
        }
        other => {
            let name = other.name();
            Ok(Some(format!("unexpected operation {name:?}, node {node:?} can only create and delete mirror pods")))
        }
    }
}

fn mirror_pod(attributes: &Attributes<'_, '_>, node: &str, pod: &Value) -> Result<Option<String>, Status> {
    let only = |what: &str| Ok(Some(format!("node {node:?} can only create pods with {what}")));
    if pod["metadata"]["annotations"].get(MIRROR).is_none() {
        let detail = format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods");
        return Ok(Some(detail));
    }
    if pod["spec"]["nodeName"] != node {
        return only("spec.nodeName set to itself");
    }
    let owners: Vec<&Value> = items(&pod["metadata"]["ownerReferences"]).collect();
    let owner = match owners.as_slice() {
        [] => return only("an owner reference set to itself"),
        [owner] => owner,
        _ => return only("a single owner reference set to itself"),
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return only("an owner reference set to itself");
    }
    if owner["controller"] != true {
        return only("a controller owner reference set to itself");
    }
    if owner["blockOwnerDeletion"] == true {
        return Ok(Some(format!("node {node:?} must not set blockOwnerDeletion on an owner reference")));
    }
    let stored = attributes.api.lookup("", "v1", "nodes", "", node);
    let stored = stored.ok_or_else(|| Status::not_found("", "nodes", node))?;
    if owner["uid"] != stored.uid() {
        let (expected, got) = (owner["uid"].as_str().unwrap_or(""), stored.uid());
        return Ok(Some(format!("node {node} UID mismatch: expected {expected} got {got}")));
    }
    let referenced = referenced(&pod["spec"]);
    Ok(referenced.map(|what| format!("node {node:?} can not create pods that reference {what}")))
}

/// An object of the API that a pod's spec refers to (pkg/api/pod HasAPIObjectReference).
fn referenced(spec: &Value) -> Option<&'static str> {
    if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    if has_secrets(spec) {
        return Some("secrets");
    }
    if has_config_maps(spec) {
        return Some("configmaps");
    }
    if items(&spec["resourceClaims"]).next().is_some() {
        return Some("resourceclaims");
    }
    let first = |value: &Value, list: &[(&str, &'static str)]| {
        list.iter().find(|(source, _)| value[*source].is_object()).map(|(_, what)| *what)
    };
    items(&spec["volumes"]).find_map(|volume| {
        let mut sources = items(&volume["projected"]["sources"]);
        first(volume, LOCAL_VOLUMES).or_else(|| sources.find_map(|source| first(source, PROJECTED)))
    })
}

fn pod_status(attributes: &Attributes<'_, '_>, node: &str, new: &Value) -> Option<String> {
    let old = attributes.old;
    if !attributes.is_update() {
        return Some(format!("unexpected operation {:?}", attributes.operation.name()));
    }
    if old["spec"]["nodeName"] != node {
        return Some(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    if old["metadata"]["labels"] != new["metadata"]["labels"] {
        return Some(format!("node {node:?} cannot update labels through pod status"));
    }
    if old["status"]["resourceClaimStatuses"] != new["status"]["resourceClaimStatuses"] {
        return Some(format!("node {node:?} cannot update resource claim statues"));
    }
    (old["status"]["extendedResourceClaimStatus"] != new["status"]["extendedResourceClaimStatus"])
        .then(|| format!("node {node:?} cannot update extended resource claim status"))
}

fn claim_status(attributes: &Attributes<'_, '_>, node: &str, new: &Value) -> Option<String> {
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        for (part, fields) in [
            ("metadata", &["resourceVersion", "managedFields"][..]),
            ("status", &["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"][..]),
        ] {
            if let Some(part) = claim.get_mut(part).and_then(Value::as_object_mut) {
                fields.iter().for_each(|field| drop(part.remove(field)));
            }
        }
        claim
    };
    let text = "is not allowed to update fields other than status.quantity and status.conditions";
    (rest(attributes.old) != rest(new)).then(|| format!("node {node:?} {text}"))
}

fn node_itself(attributes: &Attributes<'_, '_>, node: &str, name: &str, new: &Value) -> Option<String> {
    if name != node {
        return Some(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let old = attributes.old;
    let labels = forbidden_labels(&old["metadata"]["labels"], &new["metadata"]["labels"]);
    let config = &new["spec"]["configSource"];
    match attributes.operation {
        Operation::Create if config.is_object() => {
            Some(format!("node {node:?} is not allowed to create pods with a non-nil configSource"))
        }
        Operation::Create if !labels.is_empty() => {
            Some(format!("node {node:?} is not allowed to set the following labels: {}", labels.join(", ")))
        }
        Operation::Update if config.is_object() && *config != old["spec"]["configSource"] => {
            Some(format!("node {node:?} is not allowed to update configSource to a new non-nil configSource"))
        }
        Operation::Update if !items(&old["spec"]["taints"]).eq(items(&new["spec"]["taints"])) => {
            Some(format!("node {node:?} is not allowed to modify taints"))
        }
        Operation::Update
            if !items(&old["metadata"]["ownerReferences"]).eq(items(&new["metadata"]["ownerReferences"])) =>
        {
            Some(format!("node {node:?} is not allowed to modify ownerReferences"))
        }
        Operation::Update if !labels.is_empty() => {
            Some(format!("is not allowed to modify labels: {}", labels.join(", ")))
        }
        _ => None,
    }
}

/// Changed labels that steer workloads, or that are Kubernetes' own.
fn forbidden_labels(old: &Value, new: &Value) -> Vec<String> {
    let none = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&none), new.as_object().unwrap_or(&none));
    let keys: BTreeSet<&Name> = old.keys().chain(new.keys()).filter(|key| old.get(key) != new.get(key)).gather();
    let mut forbidden: Vec<String> =
        keys.into_iter().filter(|key| is_forbidden(key)).map(|key| key.to_string()).collect();
    forbidden.order();
    forbidden
}

fn is_forbidden(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return false };
    let within = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    let own = OWN_LABELS.contains(&label) || OWN_PREFIXES.iter().any(|parent| within(parent));
    within("node-restriction.kubernetes.io") || (within("kubernetes.io") || within("k8s.io")) && !own
}

/// A kubelet asks for tokens of pods on its node, for audiences that those pods mention.
fn token(attributes: &Attributes<'_, '_>, node: &str, request: &Value) -> Result<Option<String>, Status> {
    let bound = &request["spec"]["boundObjectRef"];
    let name = bound["name"].as_str().unwrap_or("");
    if bound["apiVersion"] != "v1" || bound["kind"] != "Pod" || name.is_empty() {
        return Ok(Some("node requested token not bound to a pod".into()));
    }
    let uid = bound["uid"].as_str().unwrap_or("");
    if uid.is_empty() {
        return Ok(Some("node requested token with a pod binding without a uid".into()));
    }
    let pod = existing(attributes, "pods", name)?;
    if pod.uid() != uid {
        let text = "does not match the UID in record. The object might have been deleted and then recreated";
        return Ok(Some(format!("the UID in the bound object reference ({uid}) {text}")));
    }
    if pod.root().at("spec.nodeName").str() != node {
        return Ok(Some("node requested token bound to a pod scheduled on a different node".into()));
    }
    let audiences: Vec<&str> = items(&request["spec"]["audiences"]).filter_map(Value::as_str).collect();
    let audience = match audiences.as_slice() {
        [] => "",
        [one] => one,
        _ => return Ok(Some("node may only request 0 or 1 audiences".into())),
    };
    if mentions(attributes, &pod, audience) {
        return Ok(None);
    }
    let target = &attributes.target;
    let asked = rbac::Attributes {
        verb: "request-serviceaccounts-token-audience",
        version: "v1",
        resource: audience,
        namespace: target.namespace,
        name: target.name,
        is_resource: true,
        ..rbac::Attributes::default()
    };
    if attributes.api.security()?.authorizer.allows(target.user, &asked) {
        return Ok(None);
    }
    let who = &target.user.name;
    let text = "is not authorized to request tokens for this audience";
    Ok(Some(format!("audience {audience:?} not found in pod spec volume, {who} {text}")))
}

/// A volume of the pod asks for this audience: projected, or through the driver of a CSI volume.
fn mentions(attributes: &Attributes<'_, '_>, pod: &mote_schema::Object, audience: &str) -> bool {
    let find = |group: &str, plural: &str, namespace: &str, name: &str| {
        attributes.api.lookup(group, "v1", plural, namespace, name)
    };
    let of_claim = |claim: &str| {
        let claim = find("", "persistentvolumeclaims", pod.namespace(), claim)?;
        let volume = find("", "persistentvolumes", "", claim.root().at("spec.volumeName").str())?;
        volume.root().at("spec.csi.driver").as_str().map(str::to_owned)
    };
    pod.root().at("spec.volumes").items().any(|volume| {
        let mut sources = volume.at("projected.sources").items().map(|source| source.get("serviceAccountToken"));
        if sources.any(|token| token.exists() && token.get("audience").str() == audience) {
            return true;
        }
        let driver = if volume.get("ephemeral").exists() {
            of_claim(&format!("{}-{}", pod.name(), volume.get("name").str()))
        } else if volume.get("persistentVolumeClaim").exists() {
            of_claim(volume.at("persistentVolumeClaim.claimName").str())
        } else {
            volume.at("csi.driver").as_str().map(str::to_owned)
        };
        let driver = driver.and_then(|name| find("storage.k8s.io", "csidrivers", "", &name));
        driver.is_some_and(|driver| {
            driver.root().at("spec.tokenRequests").items().any(|request| request.get("audience").str() == audience)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::json;

    #[test]
    fn labels_of_a_node() {
        for (label, forbidden) in [
            ("kubernetes.io/hostname", false),
            ("node.kubernetes.io/anything", false),
            ("foo.node.kubernetes.io/x", false),
            ("kubelet.kubernetes.io/x", false),
            ("example.com/x", false),
            ("plain", false),
            ("node-role.kubernetes.io/master", true),
            ("kubernetes.io/other", true),
            ("sub.k8s.io/x", true),
            ("node-restriction.kubernetes.io/x", true),
            ("a.node-restriction.kubernetes.io/x", true),
        ] {
            assert_eq!(is_forbidden(label), forbidden, "{label}");
        }
        let (old, new) =
            (json!({"k8s.io/a": "1", "k8s.io/b": "1"}), json!({"k8s.io/a": "2", "k8s.io/b": "1", "c": "1"}));
        assert_eq!(forbidden_labels(&old, &new), ["k8s.io/a"]);
        assert_eq!(forbidden_labels(&old, &Value::Null), ["k8s.io/a", "k8s.io/b"]);
    }

    #[test]
    fn what_a_mirror_pod_may_not_name() {
        for (spec, expected) in [
            (json!({"volumes": [{"hostPath": {}}, {"emptyDir": {}}]}), None),
            (json!({"serviceAccountName": "a"}), Some("serviceaccounts")),
            (json!({"containers": [{"envFrom": [{"configMapRef": {"name": "a"}}]}]}), Some("configmaps")),
            (json!({"volumes": [{"persistentVolumeClaim": {}}]}), Some("persistentvolumeclaims")),
            (
                json!({"volumes": [{"projected": {"sources": [{"downwardAPI": {}}, {"serviceAccountToken": {}}]}}]}),
                Some("serviceaccounts (via projected volumes)"),
            ),
        ] {
            assert_eq!(referenced(&spec), expected, "{spec}");
        }
    }
}
