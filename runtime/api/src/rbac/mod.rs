//! What somebody may do: the Node authorizer for kubelets (`node`), then role-based access control over the live Role,
//! ClusterRole and binding objects, as upstream's `--authorization-mode=Node,RBAC`. The index from
//! subjects to roles is built when somebody asks after a change; a decision then walks the rules of the roles bound to
//! the user and groups, in the stored bytes.
mod bootstrap;
mod escalation;
mod index;
mod node;
mod review;
mod rule;
mod selector;

pub use bootstrap::{Aggregation, ensure_policy};
pub use escalation::check_write;
pub use review::{review, user_info};
pub use rule::Rule;
#[cfg(test)]
pub(crate) use tests::object as object_for_tests;

use crate::{
    Client, Kind, Object, auth,
    http::{RequestInfo, User},
};
use index::Index;
use mote_schema::Status;
use std::sync::{
    Arc, RwLock,
    atomic::{AtomicU64, Ordering},
};

pub const GROUP: &str = "rbac.authorization.k8s.io";

/// What is asked of the authorizer. `..Attributes::default()` leaves the rest empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
    /// The request's field selector, as it came.
    pub fields: &'a str,
    pub is_resource: bool,
}

impl<'a> Attributes<'a> {
    /// For in-process callers.
    pub fn of(
        verb: &'a str,
        kind: &'a Kind,
        subresource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> Attributes<'a> {
        Attributes {
            verb,
            group: &kind.group,
            version: &kind.version,
            resource: &kind.plural,
            subresource,
            namespace,
            name,
            path: "",
            fields: "",
            is_resource: true,
        }
    }
}

impl<'a> From<&'a RequestInfo> for Attributes<'a> {
    fn from(info: &'a RequestInfo) -> Attributes<'a> {
        Attributes {
            verb: &info.verb,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            fields: &info.field_selector,
            is_resource: info.is_resource,
        }
    }
}

/// All RBAC objects there are.
#[derive(Default)]
pub struct Policy {
    pub cluster_roles: Vec<Object>,
    pub roles: Vec<Object>,
    pub cluster_role_bindings: Vec<Object>,
    pub role_bindings: Vec<Object>,
}

impl Policy {
    /// From the live state. A kind that cannot be listed counts as empty: nobody gains by it.
    pub fn load(client: &Client) -> Policy {
        let list = |plural| {
            let kind = client.kind(GROUP, "v1", plural);
            kind.and_then(|kind| client.list(&kind, None).ok()).unwrap_or_default()
        };
        Policy {
            cluster_roles: list("clusterroles"),
            roles: list("roles"),
            cluster_role_bindings: list("clusterrolebindings"),
            role_bindings: list("rolebindings"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// `RBAC: allowed by ClusterRoleBinding ...`, or what went wrong, or "".
    pub reason: String,
}

pub struct Authorizer {
    load: Box<dyn Fn() -> Policy + Send + Sync>,
    generation: AtomicU64,
    index: RwLock<(u64, Arc<Index>)>,
    /// What nodes are related to; without it every node may do what the role `system:node` says.
    objects: Option<node::Objects>,
}

impl Authorizer {
    /// `load` is called at the first question and after each `invalidate`.
    pub fn new(load: impl Fn() -> Policy + Send + Sync + 'static) -> Authorizer {
        Authorizer { load: Box::new(load), generation: AtomicU64::new(1), index: RwLock::default(), objects: None }
    }

    /// Narrows nodes to what `objects` says they are related to.
    pub fn with_objects(self, objects: impl Fn(&str, &str, &str) -> Vec<Object> + Send + Sync + 'static) -> Authorizer {
        Authorizer { objects: Some(Box::new(objects)), ..self }
    }

    /// An RBAC object changed. Cheap.
    pub fn invalidate(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    fn index(&self) -> Arc<Index> {
        let generation = self.generation.load(Ordering::Acquire);
        if let Ok(index) = self.index.read()
            && index.0 == generation
        {
            return index.1.clone();
        }
        let index = Arc::new(Index::new((self.load)()));
        if let Ok(mut slot) = self.index.write() {
            *slot = (generation, index.clone());
        }
        index
    }

    pub fn allows(&self, user: &User, asked: &Attributes<'_>) -> bool {
        user.in_group(auth::MASTERS)
            || node::name(user).is_some_and(|node| node::decide(node, user, asked, self.objects.as_ref()).is_ok())
            || self.index().grant(user, asked).is_some()
    }

    /// With upstream's reason.
    pub fn decide(&self, user: &User, asked: &Attributes<'_>) -> Decision {
        if user.in_group(auth::MASTERS) {
            return Decision { allowed: true, reason: String::new() };
        }
        let mut reason = String::new();
        if let Some(node) = node::name(user) {
            match node::decide(node, user, asked, self.objects.as_ref()) {
                Ok(()) => return Decision { allowed: true, reason },
                Err(why) => reason = why,
            }
        }
        let index = self.index();
        match index.find(user, asked) {
            Some(by) => Decision { allowed: true, reason: by },
            None => {
                let errors = index.errors(user, asked.namespace);
                if !errors.is_empty() {
                    reason.push_str(if reason.is_empty() { "RBAC: " } else { "\nRBAC: " });
                    reason.push_str(&errors);
                }
                Decision { allowed: false, reason }
            }
        }
    }

    /// Nothing, or the 403 that kube-apiserver gives (endpoints/handlers/responsewriters/errors.go).
    pub fn authorize(&self, user: &User, asked: &Attributes<'_>) -> Result<(), Status> {
        if self.allows(user, asked) {
            return Ok(());
        }
        Err(forbidden(user, asked, &self.decide(user, asked).reason))
    }

    /// The same for a part of this process: its kubelet may read all that some kubelet may read.
    pub fn authorize_part(&self, user: &User, asked: &Attributes<'_>) -> Result<(), Status> {
        if node::name(user).is_some() && node::by_rules(asked).is_ok() {
            return Ok(());
        }
        self.authorize(user, asked)
    }

    /// Every rule that a user has in a namespace (or cluster-wide when ""), and what could not be resolved.
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, String) {
        let index = self.index();
        (index.rules_for(user, namespace), index.errors(user, namespace))
    }

    /// What cannot be told of a user in a list of rules; "" for everybody but nodes.
    pub fn untold(&self, user: &User) -> &'static str {
        if node::name(user).is_some() { "node authorizer does not support user rule resolution" } else { "" }
    }

    /// The rules a roleRef names; `namespace` is the binding's.
    pub fn rules_of(&self, kind: &str, namespace: &str, name: &str) -> Result<Vec<Rule>, Status> {
        let index = self.index();
        let (plural, role) = match kind {
            "Role" => ("roles", index.role(namespace, name)),
            "ClusterRole" => ("clusterroles", index.cluster_role(name)),
            _ => return Err(Status::internal(format!("unsupported role reference kind: {kind:?}"))),
        };
        role.map(index::rules).ok_or_else(|| Status::not_found(GROUP, plural, name))
    }
}

/// The 403 of a refused request; `reason` may be empty.
pub fn forbidden(user: &User, asked: &Attributes<'_>, reason: &str) -> Status {
    let mut message = forbidden_message(user, asked);
    if !reason.is_empty() {
        message = format!("{message}: {reason}");
    }
    if !asked.is_resource {
        return Status { with_details: true, ..Status::new(403, "Forbidden", format!("forbidden: {message}")) };
    }
    Status::forbidden(asked.group, asked.resource, asked.name, &message)
}

fn forbidden_message(user: &User, asked: &Attributes<'_>) -> String {
    let (name, verb) = (&user.name, asked.verb);
    let message = if !asked.is_resource {
        format!("User {name:?} cannot {verb} path {:?}", asked.path)
    } else {
        let resource = if asked.subresource.is_empty() {
            asked.resource.to_owned()
        } else {
            format!("{}/{}", asked.resource, asked.subresource)
        };
        let scope = if asked.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {:?}", asked.namespace)
        };
        format!("User {name:?} cannot {verb} resource {resource:?} in API group {:?} {scope}", asked.group)
    };
    // Not to be taken for HTML.
    message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Doc;
    use mote_schema::{Value, json};

    /// A made-up object of a kind of this group.
    pub(crate) fn object(plural: &str, value: &Value) -> Object {
        let kind = mote_schema::Catalog::builtin().by_resource(GROUP, "v1", plural).unwrap().clone();
        Object { kind, doc: Doc::encode(value).unwrap(), revision: 1 }
    }

    pub(crate) fn policy() -> Policy {
        let role = |plural, namespace: &str, name: &str, rules: Value| {
            object(plural, &json!({"metadata": {"name": name, "namespace": namespace}, "rules": rules}))
        };
        let binding = |plural, namespace: &str, name: &str, kind: &str, role: &str, subjects: Value| {
            object(
                plural,
                &json!({"metadata": {"name": name, "namespace": namespace},
                    "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role}, "subjects": subjects}),
            )
        };
        Policy {
            cluster_roles: vec![
                role(
                    "clusterroles",
                    "",
                    "reader",
                    json!([
                    {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]},
                    {"verbs": ["get"], "nonResourceURLs": ["/healthz"]}]),
                ),
                role(
                    "clusterroles",
                    "",
                    "impersonator",
                    json!([
                    {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users", "groups", "serviceaccounts"]}]),
                ),
            ],
            roles: vec![role(
                "roles",
                "dev",
                "writer",
                json!([
                {"verbs": ["create", "get"], "apiGroups": ["apps"], "resources": ["deployments", "deployments/scale"]}]),
            )],
            cluster_role_bindings: vec![
                binding(
                    "clusterrolebindings",
                    "",
                    "all-read",
                    "ClusterRole",
                    "reader",
                    json!([{"kind": "Group", "name": "system:authenticated"}]),
                ),
                binding(
                    "clusterrolebindings",
                    "",
                    "boss",
                    "ClusterRole",
                    "impersonator",
                    json!([{"kind": "User", "name": "boss"}]),
                ),
                binding(
                    "clusterrolebindings",
                    "",
                    "lost",
                    "ClusterRole",
                    "nothing",
                    json!([{"kind": "User", "name": "lost"}]),
                ),
            ],
            role_bindings: vec![
                binding(
                    "rolebindings",
                    "dev",
                    "dev-write",
                    "Role",
                    "writer",
                    json!([{"kind": "ServiceAccount", "name": "ci"}, {"kind": "User", "name": "ann"}]),
                ),
                binding(
                    "rolebindings",
                    "ops",
                    "ops-read",
                    "ClusterRole",
                    "reader",
                    json!([{"kind": "User", "name": "bob"}]),
                ),
            ],
        }
    }

    pub(crate) fn authorizer() -> Authorizer {
        Authorizer::new(policy)
    }

    fn ask<'a>(verb: &'a str, namespace: &'a str, group: &'a str, resource: &'a str, name: &'a str) -> Attributes<'a> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes { verb, namespace, group, resource, subresource, name, is_resource: true, ..Attributes::default() }
    }

    #[test]
    fn decisions() {
        let authorizer = authorizer();
        let check = |user: &str, groups: &[&str], asked: Attributes<'_>, allowed: bool, reason: &str| {
            let got = authorizer.decide(&User::new(user, groups), &asked);
            assert_eq!(got, Decision { allowed, reason: reason.into() }, "{user} {asked:?}");
        };
        let authenticated: &[&str] = &["system:authenticated"];
        check("x", &["system:masters"], ask("delete", "kube-system", "", "secrets", "s"), true, "");
        check(
            "x",
            authenticated,
            ask("get", "any", "", "pods", "p"),
            true,
            r#"RBAC: allowed by ClusterRoleBinding "all-read" of ClusterRole "reader" to Group "system:authenticated""#,
        );
        check("x", authenticated, ask("delete", "any", "", "pods", "p"), false, "");
        check("x", &[], ask("get", "any", "", "pods", "p"), false, "");
        check(
            "ann",
            &[],
            ask("create", "dev", "apps", "deployments", ""),
            true,
            r#"RBAC: allowed by RoleBinding "dev-write/dev" of Role "writer" to User "ann""#,
        );
        check("ann", &[], ask("create", "ops", "apps", "deployments", ""), false, "");
        check(
            "system:serviceaccount:dev:ci",
            &[],
            ask("get", "dev", "apps", "deployments/scale", "d"),
            true,
            r#"RBAC: allowed by RoleBinding "dev-write/dev" of Role "writer" to ServiceAccount "ci/dev""#,
        );
        check(
            "bob",
            &[],
            ask("list", "ops", "", "pods", ""),
            true,
            r#"RBAC: allowed by RoleBinding "ops-read/ops" of ClusterRole "reader" to User "bob""#,
        );
        check("bob", &[], ask("list", "", "", "pods", ""), false, "");
        check(
            "lost",
            &[],
            ask("list", "", "", "pods", ""),
            false,
            r#"RBAC: clusterrole.rbac.authorization.k8s.io "nothing" not found"#,
        );
    }

    #[test]
    fn refusals_read_as_upstream() {
        let authorizer = authorizer();
        let check = |asked: Attributes<'_>, want: &str| {
            let status = authorizer.authorize(&User::new("x", &[]), &asked).unwrap_err();
            assert_eq!((status.code, status.reason, status.message.as_str()), (403, "Forbidden", want));
        };
        check(
            ask("list", "default", "", "pods", ""),
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#,
        );
        check(
            ask("get", "", "apps", "deployments/scale", "d"),
            r#"deployments.apps "d" is forbidden: User "x" cannot get resource "deployments/scale" in API group "apps" at the cluster scope"#,
        );
        check(
            Attributes { verb: "get", path: "/metrics", ..Attributes::default() },
            r#"forbidden: User "x" cannot get path "/metrics""#,
        );
    }

    #[test]
    fn changes_count_after_invalidate() {
        let open = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let authorizer = Authorizer::new({
            let open = open.clone();
            move || if open.load(Ordering::Relaxed) { policy() } else { Policy::default() }
        });
        let (user, asked) = (User::new("bob", &[]), ask("list", "ops", "", "pods", ""));
        assert!(!authorizer.allows(&user, &asked));
        open.store(true, Ordering::Relaxed);
        assert!(!authorizer.allows(&user, &asked));
        authorizer.invalidate();
        assert!(authorizer.allows(&user, &asked));
    }
}
