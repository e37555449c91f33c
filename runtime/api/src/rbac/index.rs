//! From a user's name and groups to the roles bound to them. Holds the stored objects, not copies of them.
use super::{Attributes, GROUP, Policy, rule, rule::Rule};
use crate::{Object, auth::service_account, http::User};
use std::{collections::HashMap, sync::Arc};

#[derive(Default)]
pub struct Index {
    cluster_roles: HashMap<String, Object>,
    /// By namespace and name.
    roles: HashMap<(String, String), Object>,
    /// By user name; service accounts by the name of their user.
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

/// One subject of one binding.
pub struct Grant {
    binding: Arc<Object>,
    subject: usize,
    /// None when the roleRef names a role that is not there.
    role: Option<Object>,
}

impl Index {
    pub fn new(policy: Policy) -> Index {
        let mut index = Index::default();
        for role in policy.cluster_roles {
            index.cluster_roles.insert(role.name().into(), role);
        }
        for role in policy.roles {
            index.roles.insert((role.namespace().into(), role.name().into()), role);
        }
        for binding in policy.cluster_role_bindings.into_iter().chain(policy.role_bindings) {
            index.bind(Arc::new(binding));
        }
        index
    }

    fn bind(&mut self, binding: Arc<Object>) {
        let namespace = binding.namespace();
        let reference = binding.root().get("roleRef");
        let name = reference.get("name").str();
        let role = match reference.get("kind").str() {
            "Role" => self.role(namespace, name),
            "ClusterRole" => self.cluster_role(name),
            _ => None,
        }
        .cloned();
        for (at, subject) in binding.root().get("subjects").items().enumerate() {
            let name = subject.get("name").str();
            let grants = match subject.get("kind").str() {
                "User" => self.users.entry(name.into()).or_default(),
                "Group" => self.groups.entry(name.into()).or_default(),
                "ServiceAccount" => {
                    let own = subject.get("namespace").str();
                    let namespace = if own.is_empty() { namespace } else { own };
                    if namespace.is_empty() {
                        continue;
                    }
                    self.users.entry(service_account::user_name(namespace, name)).or_default()
                }
                _ => continue,
            };
            grants.push(Grant { binding: binding.clone(), subject: at, role: role.clone() });
        }
    }

    pub fn role(&self, namespace: &str, name: &str) -> Option<&Object> {
        self.roles.get(&(namespace.to_owned(), name.to_owned()))
    }
    pub fn cluster_role(&self, name: &str) -> Option<&Object> {
        self.cluster_roles.get(name)
    }

    /// What is bound to the user cluster-wide, then in the namespace.
    fn grants<'a>(&'a self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = &'a Grant> + 'a {
        let of = move |cluster: bool| {
            let groups = user.groups.iter().filter_map(|group| self.groups.get(group));
            let all = self.users.get(&user.name).into_iter().chain(groups).flatten();
            all.filter(move |grant| {
                let bound = grant.binding.namespace();
                if cluster { bound.is_empty() } else { !bound.is_empty() && bound == namespace }
            })
        };
        of(true).chain(of(false))
    }

    pub fn grant<'a>(&'a self, user: &'a User, asked: &'a Attributes<'_>) -> Option<&'a Grant> {
        self.grants(user, asked.namespace).find(|grant| grant.allows(asked))
    }

    /// Why it is allowed, if it is.
    pub fn find(&self, user: &User, asked: &Attributes<'_>) -> Option<String> {
        self.grant(user, asked).map(Grant::describe)
    }

    pub fn rules_for(&self, user: &User, namespace: &str) -> Vec<Rule> {
        self.grants(user, namespace).filter_map(|grant| grant.role.as_ref()).flat_map(rules).collect()
    }

    /// Bindings of the user whose role is missing, as upstream's aggregated error.
    pub fn errors(&self, user: &User, namespace: &str) -> String {
        let mut errors: Vec<String> = Vec::new();
        for grant in self.grants(user, namespace).filter(|grant| grant.role.is_none()) {
            let reference = grant.binding.root().get("roleRef");
            let kind = reference.get("kind").str().to_ascii_lowercase();
            let error = format!("{kind}.{GROUP} {:?} not found", reference.get("name").str());
            if !errors.contains(&error) {
                errors.push(error);
            }
        }
        if errors.len() > 1 { format!("[{}]", errors.join(", ")) } else { errors.pop().unwrap_or_default() }
    }
}

impl Grant {
    fn allows(&self, asked: &Attributes<'_>) -> bool {
        self.role.as_ref().is_some_and(|role| role.root().get("rules").items().any(|r| rule::allows(r, asked)))
    }

    fn describe(&self) -> String {
        let namespace = self.binding.namespace();
        let reference = self.binding.root().get("roleRef");
        let (kind, binding) = if namespace.is_empty() {
            ("ClusterRoleBinding", self.binding.name().to_owned())
        } else {
            ("RoleBinding", format!("{}/{namespace}", self.binding.name()))
        };
        let mut to = String::new();
        if let Some(subject) = self.binding.root().get("subjects").items().nth(self.subject) {
            let mut name = subject.get("name").str().to_owned();
            if subject.get("kind").str() == "ServiceAccount" {
                let own = subject.get("namespace").str();
                name = format!("{name}/{}", if own.is_empty() { namespace } else { own });
            }
            to = format!("{} {name:?}", subject.get("kind").str());
        }
        let (role_kind, role) = (reference.get("kind").str(), reference.get("name").str());
        format!("RBAC: allowed by {kind} {binding:?} of {role_kind} {role:?} to {to}")
    }
}

/// A role's rules; one that does not read as a rule grants nothing.
pub fn rules(role: &Object) -> Vec<Rule> {
    role.root().get("rules").items().filter_map(|rule| rule.decode().ok()).collect()
}
