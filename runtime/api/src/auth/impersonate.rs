//! Impersonation: `Impersonate-User`, `-Group`, `-Uid` and `-Extra-*` headers
//! (apiserver/pkg/endpoints/filters/impersonation). First the constrained modes of KEP 5284 are asked, each of which needs
//! `impersonate-on:MODE:VERB` for what the request does and `impersonate:MODE` for whom it names; then the old verb
//! `impersonate`, which allows everything in somebody's name.
use super::{ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED, service_account};
use crate::{
    http::User,
    rbac::{Attributes, Authorizer, forbidden},
};
use http::{HeaderMap, HeaderName};
use mote_schema::Status;
use percent_encoding::percent_decode_str;
use std::{fmt::Write as _, sync::Arc};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";
/// From this many groups or extra values on, one question about all of them comes first.
const MANY: usize = 4;

/// Constrained modes, in the order in which they are tried.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    Legacy,
}

const MODES: [(Mode, &str, &str); 5] = [
    (Mode::AssociatedNode, "impersonate:associated-node", "impersonate-on:associated-node:"),
    (Mode::ArbitraryNode, "impersonate:arbitrary-node", "impersonate-on:arbitrary-node:"),
    (Mode::ServiceAccount, "impersonate:serviceaccount", "impersonate-on:serviceaccount:"),
    (Mode::UserInfo, "impersonate:user-info", "impersonate-on:user-info:"),
    (Mode::Legacy, "impersonate", ""),
];

/// In whose name a request is done, and the constrained verb that allowed it ("" for the old one).
pub struct Impersonated {
    pub user: Arc<User>,
    pub constraint: &'static str,
}

/// None when no such header is there. Takes the headers out; `asked` is what the request does.
pub fn apply(
    requestor: &User,
    headers: &mut HeaderMap,
    authorizer: &Authorizer,
    asked: &Attributes<'_>,
) -> Result<Option<Impersonated>, Status> {
    let Some(wanted) = wanted(headers)? else { return Ok(None) };
    let mut first = None;
    for (mode, verb, on) in MODES {
        let attempt = Attempt { requestor, authorizer, mode, verb };
        if mode != Mode::Legacy {
            if !attempt.applies(&wanted) {
                continue;
            }
            let verb = format!("{on}{}", asked.verb);
            if let Err(status) = attempt.ask(&Attributes { verb: &verb, ..*asked }) {
                first.get_or_insert(status);
                continue;
            }
        }
        match attempt.user(&wanted) {
            Ok(user) => {
                let constraint = if mode == Mode::Legacy { "" } else { verb };
                return Ok(Some(Impersonated { user: Arc::new(user), constraint }));
            }
            Err(status) => drop(first.get_or_insert(status)),
        }
    }
    Err(first.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
}

/// Whom the headers name, as they name them.
fn wanted(headers: &mut HeaderMap) -> Result<Option<User>, Status> {
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    if names.is_empty() {
        return Ok(None);
    }
    let all = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(String::from).collect()
    };
    let first = |name: &str| all(name).into_iter().next().unwrap_or_default();
    let mut user = User { name: first(USER), uid: first(UID), groups: all(GROUP), ..User::default() };
    for header in &names {
        if let Some(key) = header.as_str().strip_prefix(EXTRA) {
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            user.extra.entry(key).or_default().extend(all(header.as_str()));
        }
    }
    for header in names {
        headers.remove(header);
    }
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if user == User::default() {
        return Ok(None);
    }
    let message = format!("requested {} without impersonating a user name", go_value(&user));
    Err(Status::bad_request(message))
}

/// Go's %#v of a *user.DefaultInfo, which upstream's message shows.
fn go_value(user: &User) -> String {
    let list = |values: &[String]| {
        let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
        if values.is_empty() { "[]string(nil)".to_owned() } else { format!("[]string{{{}}}", quoted.join(", ")) }
    };
    let mut extra = String::from("map[string][]string");
    if user.extra.is_empty() {
        extra.push_str("(nil)");
    } else {
        let pairs: Vec<String> = user.extra.iter().map(|(key, values)| format!("{key:?}:{}", list(values))).collect();
        write!(extra, "{{{}}}", pairs.join(", ")).unwrap_or(());
    }
    format!(
        "&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:{}, Extra:{extra}}}",
        user.name,
        user.uid,
        list(&user.groups)
    )
}

/// The node in a user name.
fn node_of(user: &str) -> Option<&str> {
    let name = user.strip_prefix("system:node:")?;
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        label.starts_with(inner) && label.ends_with(inner) && label.chars().all(|c| inner(c) || c == '-')
    };
    (name.len() <= 253 && name.split('.').all(label)).then_some(name)
}

/// One mode, tried for one requestor.
struct Attempt<'a> {
    requestor: &'a User,
    authorizer: &'a Authorizer,
    mode: Mode,
    verb: &'a str,
}

impl Attempt<'_> {
    fn ask(&self, asked: &Attributes<'_>) -> Result<(), Status> {
        self.authorizer.authorize(self.requestor, asked)
    }

    /// Does the mode know such users at all?
    fn applies(&self, wanted: &User) -> bool {
        let only_named = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let (node, account) = (node_of(&wanted.name), service_account::split_user_name(&wanted.name));
        match self.mode {
            Mode::AssociatedNode => {
                let own = self.requestor.extra.get("authentication.kubernetes.io/node-name");
                let own = own.filter(|names| names.len() == 1).and_then(|names| names.first());
                only_named
                    && service_account::split_user_name(&self.requestor.name).is_some()
                    && node.is_some_and(|node| own.is_some_and(|own| own == node))
            }
            Mode::ArbitraryNode => only_named && node.is_some(),
            Mode::ServiceAccount => only_named && account.is_some(),
            Mode::UserInfo => node.is_none() && account.is_none(),
            Mode::Legacy => true,
        }
    }

    /// The question for one part of a user.
    fn part<'a>(&'a self, resource: &'a str, name: &'a str) -> Attributes<'a> {
        let core = self.mode == Mode::Legacy && !matches!(resource, "uids" | "userextras");
        let group = if core { "" } else { AUTHENTICATION };
        Attributes { verb: self.verb, group, version: "v1", resource, name, is_resource: true, ..Attributes::default() }
    }

    fn user(&self, wanted: &User) -> Result<User, Status> {
        let mut user = wanted.clone();
        let node = node_of(&wanted.name).filter(|_| self.mode != Mode::Legacy);
        if let Some(node) = node {
            user.groups = vec!["system:nodes".into()];
            let name = if self.mode == Mode::AssociatedNode { "*" } else { node };
            self.ask(&self.part("nodes", name))?;
        } else if let Some((namespace, account)) = service_account::split_user_name(&wanted.name) {
            if wanted.groups.is_empty() {
                user.groups = service_account::groups(namespace);
            }
            self.ask(&Attributes { namespace, ..self.part("serviceaccounts", account) })?;
        } else {
            self.ask(&self.part("users", &wanted.name))?;
        }
        if !wanted.uid.is_empty() {
            self.ask(&self.part("uids", &wanted.uid))?;
        }
        self.groups(&wanted.groups)?;
        self.extra(wanted)?;
        let ensured = match wanted.name.as_str() {
            ANONYMOUS => UNAUTHENTICATED,
            _ if user.in_group(UNAUTHENTICATED) => return Ok(user),
            _ => AUTHENTICATED,
        };
        if !user.in_group(ensured) {
            user.groups.push(ensured.into());
        }
        Ok(user)
    }

    fn groups(&self, groups: &[String]) -> Result<(), Status> {
        let constrained = self.mode != Mode::Legacy;
        if constrained {
            if groups.iter().any(String::is_empty) {
                let why = "impersonating the empty string group is not allowed";
                return Err(forbidden(self.requestor, &self.part("groups", ""), why));
            }
            if groups.iter().any(|group| group == MASTERS) {
                let why = "impersonating the system:masters group is not allowed";
                return Err(forbidden(self.requestor, &self.part("groups", MASTERS), why));
            }
            if groups.len() >= MANY && self.ask(&self.part("groups", "*")).is_ok() {
                return Ok(());
            }
        }
        groups.iter().try_for_each(|group| self.ask(&self.part("groups", group)))
    }

    fn extra(&self, wanted: &User) -> Result<(), Status> {
        if self.mode != Mode::Legacy {
            for (key, values) in &wanted.extra {
                if let Some(why) = wrong_extra(key, values) {
                    return Err(forbidden(self.requestor, &self.part("userextras", ""), &why));
                }
            }
            let count: usize = wanted.extra.values().map(Vec::len).sum();
            let all = Attributes { subresource: "*", ..self.part("userextras", "*") };
            if wanted.extra.len().max(count) >= MANY && self.ask(&all).is_ok() {
                return Ok(());
            }
        }
        for (key, values) in &wanted.extra {
            for value in values {
                self.ask(&Attributes { subresource: key, ..self.part("userextras", value) })?;
            }
        }
        Ok(())
    }
}

/// What a constrained mode does not take as extra. Header names are lower case already.
fn wrong_extra(key: &str, values: &[String]) -> Option<String> {
    if key.is_empty() {
        return Some("impersonating the empty string key in extra is not allowed".into());
    }
    let is_path = key.split_once('/').is_some_and(|(domain, path)| !domain.is_empty() && !path.is_empty());
    if !is_path {
        return Some(format!(
            "impersonating an invalid key in extra is not allowed: extra.key: Invalid value: {key:?}: must be a \
             domain-prefixed path (such as \"acme.io/foo\")"
        ));
    }
    if values.iter().any(String::is_empty) {
        return Some("impersonating the empty string value in extra is not allowed".into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rbac::{Policy, object_for_tests as object};
    use mote_schema::json;

    fn authorizer() -> Authorizer {
        let rule = |verbs: &[&str], group: &str, resources: &[&str], names: &[&str]| {
            let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources});
            if !names.is_empty() {
                rule["resourceNames"] = json!(names);
            }
            rule
        };
        let roles = [
            (
                "legacy",
                json!([
                    rule(&["impersonate"], "", &["users", "groups", "serviceaccounts"], &[]),
                    rule(&["impersonate"], AUTHENTICATION, &["uids", "userextras/scopes"], &[])
                ]),
            ),
            (
                "lister",
                json!([
                    rule(&["impersonate:user-info"], AUTHENTICATION, &["users", "groups"], &[]),
                    rule(&["impersonate-on:user-info:list"], "", &["pods"], &[])
                ]),
            ),
            (
                "agent",
                json!([
                    rule(&["impersonate:associated-node"], AUTHENTICATION, &["nodes"], &[]),
                    rule(&["impersonate-on:associated-node:list"], "", &["pods"], &[])
                ]),
            ),
        ];
        let bind = |role: &str| {
            json!({"metadata": {"name": role}, "roleRef": {"kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "Group", "name": role}]})
        };
        let bindings: Vec<_> = roles.iter().map(|(name, _)| bind(name)).collect();
        Authorizer::new(move || Policy {
            cluster_roles: roles
                .iter()
                .map(|(name, rules)| object("clusterroles", &json!({"metadata": {"name": name}, "rules": rules})))
                .collect(),
            cluster_role_bindings: bindings.iter().map(|binding| object("clusterrolebindings", binding)).collect(),
            ..Policy::default()
        })
    }

    /// "user groups uid" and the constraint, or the refusal.
    #[track_caller]
    fn check(requestor: &User, verb: &str, headers: &[(&'static str, &str)], want: Result<(&str, &str), &str>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let asked = Attributes { verb, resource: "pods", version: "v1", is_resource: true, ..Attributes::default() };
        let got = apply(requestor, &mut map, &authorizer(), &asked);
        let got = got
            .map(|found| found.map(|f| (format!("{} {:?} {}", f.user.name, f.user.groups, f.user.uid), f.constraint)));
        match (got, want) {
            (Ok(Some((user, constraint))), Ok(want)) => assert_eq!((user.as_str(), constraint), want),
            (Ok(None), Ok(want)) => assert_eq!(want, ("", "")),
            (Err(status), Err(want)) => assert_eq!(status.message, want),
            (got, want) => panic!("{got:?} instead of {want:?}"),
        }
        assert!(map.is_empty());
    }

    #[test]
    fn modes() {
        let user = |group: &str| User::new("bob", &[group]);
        check(&user("legacy"), "list", &[], Ok(("", "")));
        check(&user("legacy"), "list", &[(USER, "ann")], Ok((r#"ann ["system:authenticated"] "#, "")));
        check(
            &user("legacy"),
            "list",
            &[(USER, "ann"), (GROUP, "a"), (GROUP, "b"), (UID, "7"), ("impersonate-extra-scopes", "x")],
            Ok((r#"ann ["a", "b", "system:authenticated"] 7"#, "")),
        );
        check(
            &user("legacy"),
            "list",
            &[(USER, "system:serviceaccount:ns:sa")],
            Ok((
                r#"system:serviceaccount:ns:sa ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"] "#,
                "",
            )),
        );
        check(
            &user("legacy"),
            "list",
            &[(USER, ANONYMOUS)],
            Ok((r#"system:anonymous ["system:unauthenticated"] "#, "")),
        );
        check(
            &user("lister"),
            "list",
            &[(USER, "ann"), (GROUP, "a")],
            Ok((r#"ann ["a", "system:authenticated"] "#, "impersonate:user-info")),
        );
        check(
            &user("lister"),
            "delete",
            &[(USER, "ann")],
            Err(
                r#"pods is forbidden: User "bob" cannot impersonate-on:user-info:delete resource "pods" in API group "" at the cluster scope"#,
            ),
        );
        check(
            &user("lister"),
            "list",
            &[(USER, "ann"), (GROUP, MASTERS)],
            Err(
                r#"groups.authentication.k8s.io "system:masters" is forbidden: User "bob" cannot impersonate:user-info resource "groups" in API group "authentication.k8s.io" at the cluster scope: impersonating the system:masters group is not allowed"#,
            ),
        );
        check(
            &user("legacy"),
            "list",
            &[(GROUP, "a")],
            Err(
                r#"requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"a"}, Extra:map[string][]string(nil)} without impersonating a user name"#,
            ),
        );
    }

    #[test]
    fn an_agent_is_its_node() {
        let mut agent = User::new("system:serviceaccount:kube-system:agent", &["agent"]);
        let node = vec!["n1".to_owned()];
        agent.extra.insert("authentication.kubernetes.io/node-name".into(), node);
        let want = (r#"system:node:n1 ["system:nodes", "system:authenticated"] "#, "impersonate:associated-node");
        check(&agent, "list", &[(USER, "system:node:n1")], Ok(want));
        check(
            &agent,
            "list",
            &[(USER, "system:node:n2")],
            Err(
                r#"pods is forbidden: User "system:serviceaccount:kube-system:agent" cannot impersonate-on:arbitrary-node:list resource "pods" in API group "" at the cluster scope"#,
            ),
        );
    }
}
