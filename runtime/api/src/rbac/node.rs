//! What a kubelet may do: `system:node:NAME` in the group `system:nodes` reads the secrets, ConfigMaps, claims and volumes
//! of the pods that are bound to its node, and no others (kubernetes/plugin/pkg/auth/authorizer/node). Upstream keeps a
//! graph of these relations from informers; here the live objects are at hand, so a question is answered from them.
//!
//! The part that needs no relation is one list of rules, the table's `system:node`.
use super::{Attributes, bootstrap, rule};
use crate::{Doc, Object, Ref, http::User};
use mote_schema::json;
use std::sync::OnceLock;

/// Objects of a kind by group, plural and namespace ("": all, or a cluster-scoped kind).
pub type Objects = Box<dyn Fn(&str, &str, &str) -> Vec<Object> + Send + Sync>;

const USER: &str = "system:node:";
const GROUP: &str = "system:nodes";
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Volume sources that name a Secret by a reference, in pods and in PersistentVolumes.
const SECRET_REFS: [&str; 7] = ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"];

/// The node's name, when the user is one; it may be empty.
pub fn name(user: &User) -> Option<&str> {
    user.name.strip_prefix(USER).filter(|_| user.in_group(GROUP))
}

/// Ok when allowed, else upstream's reason (or "").
pub fn decide(node: &str, user: &User, asked: &Attributes<'_>, objects: Option<&Objects>) -> Result<(), String> {
    if node.is_empty() {
        return Err(format!("unknown node for user {:?}", user.name));
    }
    let Some(objects) = objects else { return by_rules(asked) };
    let own = Own { node, asked, objects };
    if !asked.is_resource {
        return by_rules(asked);
    }
    let answer = match (asked.group, asked.resource) {
        ("", "secrets" | "configmaps") => own.read_namespaced(),
        ("", "persistentvolumeclaims") if asked.subresource == "status" => own.update_status(),
        ("", "persistentvolumeclaims" | "persistentvolumes")
        | ("resource.k8s.io", "resourceclaims")
        | ("storage.k8s.io", "volumeattachments") => own.get(),
        ("", "serviceaccounts") => own.service_account(),
        ("coordination.k8s.io", "leases") => own.lease(),
        ("storage.k8s.io", "csinodes") => own.csi_node(),
        ("resource.k8s.io", "resourceslices") => own.resource_slice(),
        ("", "nodes") => own.node(),
        ("", "pods") => own.pod(),
        ("certificates.k8s.io", "podcertificaterequests") => Err(String::new()),
        _ => return by_rules(asked),
    };
    answer.map_err(|reason| reason.replace("NODE", node))
}

/// For a kubelet of this process, whose reads leave no trace of an object outside of it.
pub fn by_rules(asked: &Attributes<'_>) -> Result<(), String> {
    static RULES: OnceLock<Option<Doc>> = OnceLock::new();
    let rules = RULES.get_or_init(|| {
        Doc::encode(
            &json!({"rules": mote_schema::Value::encode(&bootstrap::rules_of("system:node")).unwrap_or_default()}),
        )
        .ok()
    });
    let rules = rules.as_ref().map(|doc| doc.root().get("rules"));
    let allowed = rules.is_some_and(|rules| rules.items().any(|one| rule::allows(one, asked)));
    if allowed { Ok(()) } else { Err(String::new()) }
}

struct Own<'a> {
    node: &'a str,
    asked: &'a Attributes<'a>,
    objects: &'a Objects,
}

/// "NODE" in a reason stands for the node's name.
type Answer = Result<(), String>;

const UNRELATED: &str = "no relationship found between node 'NODE' and this object";

impl Own<'_> {
    fn read_namespaced(&self) -> Answer {
        let asked = self.asked;
        must(matches!(asked.verb, "get" | "list" | "watch"), "can only read resources of this type")?;
        must(asked.subresource.is_empty(), "cannot read subresource")?;
        must(!asked.namespace.is_empty(), "can only read namespaced object of this type")?;
        self.related()
    }

    fn get(&self) -> Answer {
        must(self.asked.verb == "get", "can only get individual resources of this type")?;
        must(self.asked.subresource.is_empty(), "cannot get subresource")?;
        self.related()
    }

    fn update_status(&self) -> Answer {
        must(matches!(self.asked.verb, "update" | "patch"), "can only get/update/patch this type")?;
        self.related()
    }

    fn service_account(&self) -> Answer {
        let asked = self.asked;
        if asked.verb == "get" && asked.subresource.is_empty() {
            return self.read_namespaced();
        }
        let individual = asked.verb == "create" && !asked.name.is_empty();
        must(individual, "can only create tokens for individual service accounts")?;
        must(asked.subresource == "token", "can only create token subresource of serviceaccount")?;
        self.related()
    }

    /// The name of what is created is not known here; admission looks at it.
    fn lease(&self) -> Answer {
        let asked = self.asked;
        must(is_write_or_get(asked.verb), "can only get, create, update, patch, or delete a node lease")?;
        must(
            asked.namespace == "kube-node-lease",
            "can only access leases in the \"kube-node-lease\" system namespace",
        )?;
        let own = asked.verb == "create" || asked.name == self.node;
        must(own, "can only access node lease with the same name as the requesting node")
    }

    fn csi_node(&self) -> Answer {
        let asked = self.asked;
        must(is_write_or_get(asked.verb), "can only get, create, update, patch, or delete a CSINode")?;
        must(asked.subresource.is_empty(), "cannot authorize CSINode subresources")?;
        let own = asked.verb == "create" || asked.name == self.node;
        must(own, "can only access CSINode with the same name as the requesting node")
    }

    fn resource_slice(&self) -> Answer {
        must(self.asked.subresource.is_empty(), "cannot authorize ResourceSlice subresources")?;
        match self.asked.verb {
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(),
            "watch" | "list" | "deletecollection" => must(
                self.selects("spec.nodeName"),
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            _ => Err(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, \
                      delete, deletecollection"
                    .into(),
            ),
        }
    }

    fn node(&self) -> Answer {
        let asked = self.asked;
        match (asked.subresource, asked.verb) {
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
            ("", "get" | "list" | "watch") => match asked.name {
                "" => Err("node 'NODE' cannot read all nodes, only its own Node object".into()),
                name if name == self.node => Ok(()),
                name => Err(format!("node 'NODE' cannot read '{name}', only its own Node object")),
            },
            _ => Err(String::new()),
        }
    }

    fn pod(&self) -> Answer {
        let asked = self.asked;
        match (asked.subresource, asked.verb) {
            ("", "get") => self.get(),
            ("", "list" | "watch") if self.selects("spec.nodeName") => Ok(()),
            ("", "list" | "watch") if !asked.name.is_empty() => self.related(),
            ("", "list" | "watch") => Err("can only list/watch pods with spec.nodeName field selector".into()),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => Err(String::new()),
        }
    }

    /// Does the request's field selector pin `field` to this node?
    fn selects(&self, field: &str) -> bool {
        self.asked.fields.split(',').any(|term| {
            let value = term.trim().strip_prefix(field).and_then(|rest| rest.strip_prefix('='));
            value.is_some_and(|value| value.strip_prefix('=').unwrap_or(value) == self.node)
        })
    }

    fn related(&self) -> Answer {
        must(!self.asked.name.is_empty(), "No Object name found")?;
        must(self.is_related(), UNRELATED)
    }

    fn is_related(&self) -> bool {
        let Attributes { group, resource, namespace, name, .. } = *self.asked;
        let all = |group: &str, plural: &str, namespace: &str| (self.objects)(group, plural, namespace);
        match (group, resource) {
            ("", "pods") => self.pods(namespace).any(|pod| pod.name() == name),
            ("", "secrets") => {
                self.pods(namespace).any(|pod| uses(&pod, Wanted::Secret, name))
                    || all("", "persistentvolumes", "")
                        .iter()
                        .any(|volume| volume_has_secret(volume, namespace, name) && self.uses_volume(volume))
            }
            ("", "configmaps") => self.pods(namespace).any(|pod| uses(&pod, Wanted::ConfigMap, name)),
            ("", "persistentvolumeclaims") => self.uses_claim(namespace, name),
            ("", "persistentvolumes") => {
                all("", "persistentvolumes", "").iter().any(|volume| volume.name() == name && self.uses_volume(volume))
            }
            ("", "serviceaccounts") => self
                .pods(namespace)
                .any(|pod| !is_mirror(&pod) && pod.root().at("spec.serviceAccountName").str() == name),
            ("resource.k8s.io", "resourceclaims") => self.pods(namespace).any(|pod| uses_resource_claim(&pod, name)),
            _ => all(group, resource, "")
                .iter()
                .any(|object| object.name() == name && object.root().at("spec.nodeName").str() == self.node),
        }
    }

    /// The pods of a namespace that are bound to this node.
    fn pods(&self, namespace: &str) -> impl Iterator<Item = Object> {
        let pods = if namespace.is_empty() { Vec::new() } else { (self.objects)("", "pods", namespace) };
        pods.into_iter().filter(|pod| pod.root().at("spec.nodeName").str() == self.node)
    }

    fn uses_claim(&self, namespace: &str, name: &str) -> bool {
        self.pods(namespace).any(|pod| uses(&pod, Wanted::Claim, name))
    }

    fn uses_volume(&self, volume: &Object) -> bool {
        let claim = volume.root().at("spec.claimRef");
        self.uses_claim(claim.get("namespace").str(), claim.get("name").str())
    }
}

fn must(holds: bool, reason: &str) -> Answer {
    if holds { Ok(()) } else { Err(reason.into()) }
}

fn is_write_or_get(verb: &str) -> bool {
    matches!(verb, "get" | "create" | "update" | "patch" | "delete")
}

fn is_mirror(pod: &Object) -> bool {
    pod.meta().get("annotations").get(MIRROR).exists()
}

#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    Secret,
    ConfigMap,
    Claim,
}

/// Does the pod refer to this object (pkg/api/v1/pod VisitPodSecretNames, VisitPodConfigmapNames)?
fn uses(pod: &Object, wanted: Wanted, name: &str) -> bool {
    let spec = pod.root().get("spec");
    if is_mirror(pod) {
        return false;
    }
    if spec.get("volumes").items().any(|volume| volume_uses(pod.name(), volume, wanted, name)) {
        return true;
    }
    let (key_ref, from_ref) = match wanted {
        Wanted::Secret => ("secretKeyRef", "secretRef"),
        Wanted::ConfigMap => ("configMapKeyRef", "configMapRef"),
        Wanted::Claim => return false,
    };
    let named = |object: Ref<'_>| object.get("name").str() == name;
    if wanted == Wanted::Secret && spec.get("imagePullSecrets").items().any(named) {
        return true;
    }
    let containers = ["initContainers", "containers", "ephemeralContainers"];
    containers.into_iter().flat_map(|list| spec.get(list).items()).any(|container| {
        container.get("env").items().any(|env| named(env.get("valueFrom").get(key_ref)))
            || container.get("envFrom").items().any(|env| named(env.get(from_ref)))
    })
}

fn volume_uses(pod: &str, volume: Ref<'_>, wanted: Wanted, name: &str) -> bool {
    let is = |path: &str| volume.at(path).str() == name;
    let projected =
        |field: &str| volume.at("projected.sources").items().any(|s| s.get(field).get("name").str() == name);
    match wanted {
        Wanted::Secret => {
            is("secret.secretName")
                || projected("secret")
                || is("azureFile.secretName")
                || is("csi.nodePublishSecretRef.name")
                || SECRET_REFS.into_iter().any(|kind| volume.get(kind).at("secretRef.name").str() == name)
        }
        Wanted::ConfigMap => is("configMap.name") || projected("configMap"),
        Wanted::Claim => {
            let ephemeral = || name.strip_prefix(pod).and_then(|rest| rest.strip_prefix('-'));
            is("persistentVolumeClaim.claimName")
                || volume.get("ephemeral").exists() && ephemeral() == volume.get("name").as_str()
        }
    }
}

/// What of a volume's secrets a kubelet sees (pkg/api/v1/persistentvolume VisitPVSecretNames).
fn volume_has_secret(volume: &Object, namespace: &str, name: &str) -> bool {
    let spec = volume.root().get("spec");
    let claim = spec.at("claimRef.namespace").str();
    let is = |own: &str, found: &str| found == name && (if own.is_empty() { claim } else { own }) == namespace;
    let refers = |reference: Ref<'_>| is(reference.get("namespace").str(), reference.get("name").str());
    let azure = spec.get("azureFile");
    is(azure.get("secretNamespace").str(), azure.get("secretName").str())
        || SECRET_REFS.into_iter().any(|kind| refers(spec.get(kind).get("secretRef")))
        || ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"]
            .into_iter()
            .any(|field| refers(spec.get("csi").get(field)))
}

fn uses_resource_claim(pod: &Object, name: &str) -> bool {
    let root = pod.root();
    let mut named = root.at("spec.resourceClaims").items().map(|claim| claim.get("resourceClaimName").str());
    let mut made = root.at("status.resourceClaimStatuses").items().map(|claim| claim.get("resourceClaimName").str());
    !is_mirror(pod)
        && (named.any(|claim| claim == name)
            || made.any(|claim| claim == name)
            || root.at("status.extendedResourceClaimStatus.resourceClaimName").str() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::Catalog;
    use mote_schema::Value;

    fn objects() -> Objects {
        let pod = |name: &str, node: &str, spec: Value| {
            let mut spec = spec;
            spec["nodeName"] = node.into();
            json!({"metadata": {"name": name, "namespace": "x"}, "spec": spec})
        };
        let mine = json!({
            "serviceAccountName": "sa", "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env"}}}], "envFrom": [{"configMapRef": {"name": "all"}}]}],
            "volumes": [{"name": "a", "secret": {"secretName": "vol"}}, {"name": "b", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "c", "projected": {"sources": [{"secret": {"name": "pro"}}, {"configMap": {"name": "pro"}}]}},
                {"name": "e", "ephemeral": {}}],
            "resourceClaims": [{"name": "g", "resourceClaimName": "gpu"}],
        });
        let mut mirror =
            pod("mirror", "n1", json!({"serviceAccountName": "no", "volumes": [{"secret": {"secretName": "no"}}]}));
        mirror["metadata"]["annotations"] = json!({MIRROR: "x"});
        let all = [
            ("", "pods", pod("mine", "n1", mine)),
            ("", "pods", mirror),
            (
                "",
                "pods",
                pod(
                    "other",
                    "n2",
                    json!({"serviceAccountName": "their", "volumes": [{"secret": {"secretName": "their"}}]}),
                ),
            ),
            (
                "",
                "persistentvolumes",
                json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"namespace": "x", "name": "claim"},
                "csi": {"nodeStageSecretRef": {"namespace": "sys", "name": "stage"}, "controllerPublishSecretRef": {"namespace": "sys", "name": "control"}}}}),
            ),
            ("", "persistentvolumes", json!({"metadata": {"name": "free"}, "spec": {}})),
            ("storage.k8s.io", "volumeattachments", json!({"metadata": {"name": "va"}, "spec": {"nodeName": "n1"}})),
            ("resource.k8s.io", "resourceslices", json!({"metadata": {"name": "sl"}, "spec": {"nodeName": "n2"}})),
        ];
        let catalog = Catalog::builtin();
        Box::new(move |group, plural, namespace| {
            let kind = catalog.by_resource(group, "v1", plural).unwrap();
            let of = all.iter().filter(|(g, p, object)| {
                *g == group && *p == plural && (namespace.is_empty() || object["metadata"]["namespace"] == namespace)
            });
            of.map(|(_, _, o)| Object { kind: kind.clone(), doc: Doc::encode(o).unwrap(), revision: 1 }).collect()
        })
    }

    /// "verb group/resource[/subresource] namespace name [fields]", "-" for nothing; "" as answer for allowed.
    #[track_caller]
    fn check(question: &str, want: &str) {
        let words: Vec<&str> = question.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
        let (group, resource) = words[1].split_once('/').unwrap();
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let asked = Attributes {
            verb: words[0],
            group,
            resource,
            subresource,
            namespace: words[2],
            name: words[3],
            fields: words.get(4).copied().unwrap_or(""),
            is_resource: true,
            ..Attributes::default()
        };
        let user = User::new("system:node:n1", &["system:nodes"]);
        let got = decide(name(&user).unwrap(), &user, &asked, Some(&objects()));
        assert_eq!(got.err().as_deref(), (want != "yes").then_some(want), "{question}");
    }

    #[test]
    fn only_what_its_pods_use() {
        const NO: &str = "no relationship found between node 'n1' and this object";
        for (question, want) in [
            ("get /secrets x vol", "yes"),
            ("watch /secrets x pull", "yes"),
            ("list /secrets x env", "yes"),
            ("get /secrets x pro", "yes"),
            ("get /secrets sys stage", "yes"),
            ("get /secrets sys control", NO),
            ("get /secrets x their", NO),
            ("get /secrets x no", NO),
            ("get /secrets y vol", NO),
            ("list /secrets x -", "No Object name found"),
            ("list /secrets - -", "can only read namespaced object of this type"),
            ("update /secrets x vol", "can only read resources of this type"),
            ("get /configmaps x all", "yes"),
            ("get /configmaps x pro", "yes"),
            ("get /configmaps x vol", NO),
            ("get /persistentvolumeclaims x claim", "yes"),
            ("get /persistentvolumeclaims x mine-e", "yes"),
            ("get /persistentvolumeclaims x mine-a", NO),
            ("patch /persistentvolumeclaims/status x claim", "yes"),
            ("list /persistentvolumeclaims x claim", "can only get individual resources of this type"),
            ("get /persistentvolumes - pv", "yes"),
            ("get /persistentvolumes - free", NO),
            ("get resource.k8s.io/resourceclaims x gpu", "yes"),
            ("get storage.k8s.io/volumeattachments - va", "yes"),
            ("get /serviceaccounts x sa", "yes"),
            ("create /serviceaccounts/token x sa", "yes"),
            ("create /serviceaccounts/token x their", NO),
            ("create /serviceaccounts/token x no", NO),
            ("create /serviceaccounts x sa", "can only create token subresource of serviceaccount"),
        ] {
            check(question, want);
        }
    }

    #[test]
    fn its_own_objects() {
        for (question, want) in [
            ("get /nodes - n1", "yes"),
            ("watch /nodes - n1", "yes"),
            ("list /nodes - -", "node 'n1' cannot read all nodes, only its own Node object"),
            ("get /nodes - n2", "node 'n1' cannot read 'n2', only its own Node object"),
            ("patch /nodes/status - n2", "yes"),
            ("delete /nodes - n1", ""),
            ("get /pods x mine", "yes"),
            ("get /pods x other", "no relationship found between node 'n1' and this object"),
            ("list /pods - - spec.nodeName=n1", "yes"),
            ("watch /pods - - status.phase!=Failed,spec.nodeName=n1", "yes"),
            ("list /pods - - spec.nodeName=n2", "can only list/watch pods with spec.nodeName field selector"),
            ("list /pods - -", "can only list/watch pods with spec.nodeName field selector"),
            ("create /pods/eviction x mine", "yes"),
            ("create /pods/exec x mine", ""),
            ("update coordination.k8s.io/leases kube-node-lease n1", "yes"),
            (
                "update coordination.k8s.io/leases kube-node-lease n2",
                "can only access node lease with the same name as the requesting node",
            ),
            (
                "get coordination.k8s.io/leases x n1",
                "can only access leases in the \"kube-node-lease\" system namespace",
            ),
            ("list storage.k8s.io/csinodes - -", "can only get, create, update, patch, or delete a CSINode"),
            ("delete storage.k8s.io/csinodes - n1", "yes"),
            ("deletecollection resource.k8s.io/resourceslices - - spec.nodeName==n1", "yes"),
            ("get resource.k8s.io/resourceslices - sl", "no relationship found between node 'n1' and this object"),
            ("list /services - -", "yes"),
            ("create certificates.k8s.io/certificatesigningrequests - -", "yes"),
            ("get /endpoints x e", "yes"),
            ("get apps/deployments x d", ""),
        ] {
            check(question, want);
        }
    }
}
